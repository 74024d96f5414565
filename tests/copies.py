"""Every way to copy a model, and everything that a copy shall have."""

import copy
import json
import pickle

import keras
import numpy as np

from mistral_lib import lora


def by_config(model, folder):
    again = type(model).from_config(json.loads(json.dumps(model.get_config())))
    again.set_weights(model.get_weights())
    return again


def by_clone(model, folder):
    again = keras.models.clone_model(model)
    again.set_weights(model.get_weights())
    return again


def by_keras_file(model, folder):
    model.save(folder / "model.keras")
    return keras.saving.load_model(folder / "model.keras")


# Whether a door takes the state of the optimizer with it.
COPIES = {
    "from_config": (by_config, False),
    "clone_model": (by_clone, False),
    ".keras": (by_keras_file, True),
    "pickle": (lambda model, folder: pickle.loads(pickle.dumps(model)), True),
    "copy.deepcopy": (lambda model, folder: copy.deepcopy(model), True),
    "copy.copy": (lambda model, folder: copy.copy(model), True),
}


def backbone_of(model):
    return getattr(model, "backbone", model)


def described(model):
    """Everything that a copy shall have; independent of the functions under test."""
    backbone = backbone_of(model)
    layers = [backbone, backbone.token_embedding, backbone.layer_norm]
    for each in backbone.transformer_layers:
        attention, feedforward = each.self_attention, each.feedforward
        layers += [each, each.self_attention_layernorm, attention, attention.dropout_layer]
        layers += [attention.query, attention.key, attention.value, attention.attention_output]
        layers += [each.feedforward_layernorm, feedforward]
        layers += [feedforward.gate, feedforward.up, feedforward.down]
    return {
        "class": type(model),
        "names": (model.name, backbone.name),
        "trained": model.trainable,
        "config": backbone.config,
        "dtype": backbone.projection_policy.name,
        "ends": getattr(model, "end_token_ids", None),
        "weights": [(v.path, tuple(v.shape), str(v.dtype)) for v in model.weights],
        "values": [np.asarray(v.value, "float32").tobytes() for v in model.weights],
        "trained layers": [layer.trainable for layer in layers],
        "trained weights": [v.trainable for v in model.weights],
        "trainable_variables": [v.path for v in model.trainable_variables],
        "lora": lora.settings(backbone),
        "paths": [each.self_attention.attention_path for each in backbone.transformer_layers],
        "rematerialize": backbone.rematerialize,
        "context_length": backbone.context_length,
        "traced": backbone.traced_settings(),
    }

"""Golden weights in and out of a Keras backbone: this library's, and KerasHub's alike."""

import os

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import keras
import numpy as np


def our_variables(backbone) -> dict[str, keras.Variable]:
    """The variables of a `mistral_lib.MistralBackbone` by the golden files' names."""
    embedding = backbone.token_embedding
    variables = {
        "embeddings": embedding.embeddings,
        "final_norm": backbone.get_layer("sequence_output_layernorm").scale,
    }
    if not backbone.tie_word_embeddings:
        variables["reverse_embeddings"] = embedding.reverse_embeddings
    for index in range(backbone.num_layers):
        layer = backbone.get_layer(f"transformer_layer_{index}")
        attention, feedforward = layer.self_attention, layer.feedforward
        named = {
            "attention_norm": layer.self_attention_layernorm.scale,
            "query": attention.query.kernel,
            "key": attention.key.kernel,
            "value": attention.value.kernel,
            "output": attention.attention_output.kernel,
            "feedforward_norm": layer.feedforward_layernorm.scale,
            "gate": feedforward.gate.kernel,
            "up": feedforward.up.kernel,
            "down": feedforward.down.kernel,
        }
        variables |= {f"layers.{index}.{name}": variable for name, variable in named.items()}
    return variables


def assign(variables: dict[str, keras.Variable], weights: dict[str, np.ndarray]) -> None:
    """Assigns every weight; a kernel with a head axis is the same numbers in another shape.

    Raises:
        ValueError: the names differ.
    """
    if variables.keys() != weights.keys():
        raise ValueError(f"names differ: {sorted(variables.keys() ^ weights.keys())}")
    for name, variable in variables.items():
        variable.assign(weights[name].reshape(variable.shape))


def compile_pass(backbone, variables: dict[str, keras.Variable]):
    """Compiles one pass forward and back.

    Args:
        backbone: a Keras model from token ids to hidden states, with a `token_embedding` layer.
        variables: the backbone's variables by name.

    Returns:
        A function of `inputs` (`token_ids` and `padding_mask`, each (B, S)) and a cotangent
        (B, S, V). With the variables' present values it returns hidden states (B, S, D), and for
        every variable the gradient of the loss, the sum of logits times the cotangent.
    """

    def loss(values, inputs, cotangent):
        mapping = [(variables[name], value) for name, value in values.items()]
        with keras.StatelessScope(state_mapping=mapping):
            hidden_states = backbone(inputs)
            logits = backbone.token_embedding(hidden_states, reverse=True)
        return (logits * cotangent).sum(), hidden_states

    # Runs a few times on little data: half of the time would go into optimising the machine code.
    compiled = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        compiler_options={"xla_backend_optimization_level": 0},
    )

    def run(inputs, cotangent) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        values = {name: variable.value for name, variable in variables.items()}
        (_, hidden_states), gradients = compiled(values, inputs, cotangent)
        return np.asarray(hidden_states), {
            name: np.asarray(gradient) for name, gradient in gradients.items()
        }

    return run

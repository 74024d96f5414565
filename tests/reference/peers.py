"""The independent implementations behind the golden files: transformers and KerasHub.

Neither is a dependency. `make_reference.py` names the versions and says how to install them. Both
functions that end in `_pass` return hidden states (B, S, D) and the gradients of one scalar loss,
the sum of logits times a cotangent (B, S, V), by the golden files' names.
"""

import numpy as np

from . import golden, keras_models

_TRANSFORMERS_NAMES = {
    "attention_norm": "input_layernorm",
    "query": "self_attn.q_proj",
    "key": "self_attn.k_proj",
    "value": "self_attn.v_proj",
    "output": "self_attn.o_proj",
    "feedforward_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


def transformers_model(config: dict, weights: dict, dtype: str = "float32"):
    """A Mistral of transformers with these weights, in eager attention.

    It is a Ministral3 if queries are scaled by their position, a Ministral if windows differ.

    Args:
        config: constructor arguments of `mistral_lib.MistralBackbone`.
        weights: float32 arrays by the golden files' names.
        dtype: `"float32"` or `"bfloat16"`.
    """
    import torch
    import transformers

    rope = {"rope_type": "default", "rope_theta": float(config.get("rope_max_wavelength", 10000))}
    if config.get("rope_scaling_factor", 1.0) != 1.0:
        rope |= {"rope_type": "linear", "factor": config["rope_scaling_factor"]}
    scaling, window = config.get("rope_scaling") or {}, config.get("sliding_window", 512)
    name, more = "Mistral", {}
    if "llama_4_scaling_beta" in scaling:
        name = "Ministral3"
    if isinstance(window, list):
        name, (size,) = "Ministral", set(window) - {None}
        kinds = ["sliding_attention" if w else "full_attention" for w in window]
        window, more = size, {"layer_types": kinds}
    if scaling.get("rope_type") == "dynamic":  # which goes by the length that the model has
        scaling = dict(scaling)
        more["max_position_embeddings"] = scaling.pop("original_max_position_embeddings")
    model = getattr(transformers, f"{name}ForCausalLM")(
        getattr(transformers, f"{name}Config")(
            vocab_size=config["vocabulary_size"],
            hidden_size=config["hidden_dim"],
            intermediate_size=config["intermediate_dim"],
            num_hidden_layers=config["num_layers"],
            num_attention_heads=config["num_query_heads"],
            num_key_value_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim"),
            rms_norm_eps=config.get("layer_norm_epsilon", 1e-6),
            sliding_window=window,
            tie_word_embeddings=config.get("tie_word_embeddings", False),
            rope_parameters=rope | scaling,
            bos_token_id=None,
            eos_token_id=None,
            pad_token_id=None,  # the embedding of such a token would have no gradient
            attn_implementation="eager",
            **more,
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in _transformers_parameters(model).items():
            parameter.copy_(torch.from_numpy(_transposed(name, weights[name]).copy()))
    # Converting a module rounds its rotary frequencies as well. A checkpoint that is loaded in
    # bfloat16 keeps them in float32, so they are put back.
    frequencies = model.model.rotary_emb.inv_freq.clone()
    model = model.to(getattr(torch, dtype))
    model.model.rotary_emb.inv_freq = frequencies
    return model


def transformers_pass(model, token_ids, padding_mask, cotangent) -> tuple[np.ndarray, dict]:
    """Forward and back through `transformers_model`."""
    import torch

    model.zero_grad()
    hidden_states = model.model(
        torch.from_numpy(token_ids).long(), attention_mask=torch.from_numpy(padding_mask).long()
    ).last_hidden_state
    (model.lm_head(hidden_states) * torch.from_numpy(cotangent)).sum().backward()
    gradients = {
        name: _transposed(name, parameter.grad.float().numpy())
        for name, parameter in _transformers_parameters(model).items()
    }
    return hidden_states.detach().float().numpy(), gradients


def keras_hub_model(config: dict, weights: dict, dtype: str = "float32"):
    """A `keras_hub.models.MistralBackbone` with these weights; it has no tied embeddings."""
    import keras_hub

    config = dict(config)
    tied = config.pop("tie_word_embeddings", False)
    backbone = keras_hub.models.MistralBackbone(**config, dtype=dtype)
    if tied:
        weights = weights | {"reverse_embeddings": weights["embeddings"].T}
    keras_models.assign(_keras_hub_variables(backbone), weights)
    return backbone


def keras_hub_pass(
    config: dict, backbone, token_ids, padding_mask, cotangent
) -> tuple[np.ndarray, dict]:
    """Forward and back through `keras_hub_model`."""
    run = keras_models.compile_pass(backbone, _keras_hub_variables(backbone))
    inputs = {"token_ids": token_ids, "padding_mask": padding_mask.astype("int32")}
    hidden_states, gradients = run(inputs, cotangent)
    if config.get("tie_word_embeddings"):
        gradients["embeddings"] = gradients["embeddings"] + gradients["reverse_embeddings"].T
    shapes = golden.weight_shapes(config)
    return hidden_states, {name: gradients[name].reshape(shapes[name]) for name in shapes}


def _transformers_parameters(model) -> dict:
    """The parameters by the golden files' names; kernels are (outputs, inputs)."""
    parameters = {
        "embeddings": model.model.embed_tokens.weight,
        "final_norm": model.model.norm.weight,
    }
    if not model.config.tie_word_embeddings:
        parameters["reverse_embeddings"] = model.lm_head.weight
    for index, layer in enumerate(model.model.layers):
        for name, path in _TRANSFORMERS_NAMES.items():
            parameters[f"layers.{index}.{name}"] = layer.get_submodule(path).weight
    return parameters


def _transposed(name: str, array: np.ndarray) -> np.ndarray:
    """A kernel from one side's order of axes to the other's; the embeddings are (V, D) on both."""
    return array if name == "embeddings" else array.T


def _keras_hub_variables(backbone) -> dict:
    embedding = backbone.token_embedding
    variables = {
        "embeddings": embedding.embeddings,
        "reverse_embeddings": embedding.reverse_embeddings,
        "final_norm": backbone.layer_norm.scale,
    }
    for index, layer in enumerate(backbone.transformer_layers):
        attention = layer._self_attention_layer
        named = {
            "attention_norm": layer._self_attention_layernorm.scale,
            "query": attention._query_dense.kernel,
            "key": attention._key_dense.kernel,
            "value": attention._value_dense.kernel,
            "output": attention._output_dense.kernel,
            "feedforward_norm": layer._feedforward_layernorm.scale,
            "gate": layer._feedforward_gate_dense.kernel,
            "up": layer._feedforward_intermediate_dense.kernel,
            "down": layer._feedforward_output_dense.kernel,
        }
        variables |= {f"layers.{index}.{name}": variable for name, variable in named.items()}
    return variables

"""A Mistral in float64 NumPy, one head of one sequence at a time: the slow third opinion.

Nothing is shared with `mistral_lib`, so that a mistake there cannot be repeated here.
"""

import numpy as np

from .golden import head_dim


def hidden_states(config: dict, weights: dict, token_ids, padding_mask) -> np.ndarray:
    """The backbone's output in float64.

    Args:
        config: constructor arguments of `MistralBackbone`.
        weights: arrays by the names of `golden.weight_shapes`.
        token_ids: int (B, S).
        padding_mask: bool (B, S).

    Returns:
        float64 (B, S, D). Where the mask is false the values mean nothing.
    """
    weights = {name: np.asarray(array, "float64") for name, array in weights.items()}
    return np.stack(
        [_sequence(config, weights, ids, mask) for ids, mask in zip(token_ids, padding_mask)]
    )


def _sequence(config, weights, token_ids, key_mask):
    epsilon = config.get("layer_norm_epsilon", 1e-6)
    x = weights["embeddings"][token_ids]  # (S, D)
    for index in range(config["num_layers"]):
        layer = {
            name.split(".")[-1]: array
            for name, array in weights.items()
            if name.startswith(f"layers.{index}.")
        }
        x = x + _attention(config, layer, _norm(x, layer["attention_norm"], epsilon), key_mask)
        normed = _norm(x, layer["feedforward_norm"], epsilon)
        gate = normed @ layer["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (normed @ layer["up"])) @ layer["down"]
    return _norm(x, weights["final_norm"], epsilon)


def _norm(x, scale, epsilon):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * scale


def _attention(config, layer, x, key_mask):
    size = head_dim(config)
    group = config["num_query_heads"] // config["num_key_value_heads"]
    length = len(x)
    visible = _visible(length, config.get("sliding_window", 512)) & key_mask[None, :]
    outputs = []
    for head in range(config["num_query_heads"]):
        mine = slice(head * size, (head + 1) * size)
        shared = slice(head // group * size, (head // group + 1) * size)
        query = _rotate(config, x @ layer["query"][:, mine])
        key = _rotate(config, x @ layer["key"][:, shared])
        scores = np.where(visible, query @ key.T / np.sqrt(size), -1e30)  # (S, S)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        outputs.append(scores / scores.sum(-1, keepdims=True) @ (x @ layer["value"][:, shared]))
    return np.concatenate(outputs, axis=-1) @ layer["output"]


def _visible(length, window):
    visible = np.zeros((length, length), "bool")
    for query in range(length):
        first = 0 if window is None else max(0, query - window + 1)
        visible[query, first : query + 1] = True
    return visible


def _rotate(config, x):
    half = x.shape[-1] // 2
    wavelength = float(config.get("rope_max_wavelength", 10000))
    positions = np.arange(len(x)) / config.get("rope_scaling_factor", 1.0)
    angles = positions[:, None] * wavelength ** (-np.arange(half) / half)  # (S, h/2)
    first, second = x[:, :half], x[:, half:]
    cosine, sine = np.cos(angles), np.sin(angles)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)

"""Mistral in one file: read a checkpoint, run the model, write text.

    python mistral_in_one_file.py FOLDER "Return the name of" [TEMPERATURE]

FOLDER holds three kinds of files of mistralai/Mistral-7B-v0.1: config.json,
model*.safetensors and tokenizer.model. Plain JAX; NumPy reads the weights, and
SentencePiece cuts the text.
"""

import json
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from sentencepiece import SentencePieceProcessor

# --- A checkpoint: JSON that says where each tensor is, then the tensors ---

DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}


def read_tensors(folder):
    """Every tensor of a checkpoint by its name. The files are mapped, not copied."""
    tensors = {}
    for path in sorted(Path(folder).glob("model*.safetensors")):
        file = np.memmap(path, np.uint8, mode="r")
        start = 8 + int(file[:8].view("<u8")[0])
        header = json.loads(bytes(file[8:start]))
        header.pop("__metadata__", None)
        for name, entry in header.items():
            first, last = entry["data_offsets"]
            data = file[start + first : start + last].view(DTYPES[entry["dtype"]])
            tensors[name] = data.reshape(entry["shape"])
    return tensors


def read_config(folder):
    """The settings of a model, under the names that transformers gives them."""
    found = json.loads(Path(folder, "config.json").read_text())
    config = SimpleNamespace(**found)
    if not found.get("head_dim"):
        config.head_dim = config.hidden_size // config.num_attention_heads
    if "rope_theta" not in found:
        config.rope_theta = config.rope_parameters["rope_theta"]
    return config


def read_weights(folder, config, dtype=None):
    """The weights: a list with those of each block, and the others by name."""
    blocks, others = [{} for _ in range(config.num_hidden_layers)], {}
    for name, tensor in read_tensors(folder).items():
        # model.layers.0.self_attn.q_proj.weight: place is layers, 0, self_attn
        *place, part, _ = name.removeprefix("model.").split(".")
        owner = blocks[int(place[1])] if place else others
        owner[part] = jnp.asarray(tensor, dtype)
    others.setdefault("lm_head", others["embed_tokens"])  # tied
    return {"blocks": blocks, **others}


# --- The model ---


def rms_norm(x, scale, epsilon):
    """x (T, D), each row scaled to a mean square of 1, in float32."""
    y = x.astype("float32")
    y = y * jax.lax.rsqrt(jnp.mean(y * y, axis=-1, keepdims=True) + epsilon)
    return (y * scale.astype("float32")).astype(x.dtype)


def rotate(x, positions, base):
    """x (T, heads, h), each pair of features turned by an angle for its position."""
    half = x.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half) / half)
    angles = positions[:, None, None] * frequencies  # (T, 1, h / 2)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    one, other = jnp.split(x.astype("float32"), 2, axis=-1)
    turned = [one * cos - other * sin, other * cos + one * sin]
    return jnp.concatenate(turned, axis=-1).astype(x.dtype)


def attend(query, key, value, seen):
    """Query (T, H, h) reads value (S, K, h) by key, where seen (T, S) allows it."""
    tokens, heads, size = query.shape
    query = query.reshape(tokens, key.shape[1], -1, size)  # (T, K, H / K, h)
    scores = jnp.einsum("tkgh,skh->kgts", query, key) / size**0.5
    scores = jnp.where(seen, scores.astype("float32"), -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1).astype(value.dtype)
    heard = jnp.einsum("kgts,skh->tkgh", weights, value)
    return heard.reshape(tokens, heads * size)


def attention(block, config, x, positions, cache):
    """x (T, D) hears itself and the cache; returns that and the next cache."""
    names, shape = ("q_proj", "k_proj", "v_proj"), (len(x), -1, config.head_dim)
    query, key, value = ((x @ block[name].T).reshape(shape) for name in names)
    query = rotate(query, positions, config.rope_theta)
    key = rotate(key, positions, config.rope_theta)

    new = {"key": key, "value": value, "position": positions}
    both = {name: jnp.concatenate([cache[name], new[name]]) for name in new}
    distance = positions[:, None] - both["position"]
    slots = len(cache["position"])
    seen = (distance >= 0) & (distance < slots)  # (T, slots + T)
    heard = attend(query, both["key"], both["value"], seen)

    after = {name: cache[name].at[positions % slots].set(new[name]) for name in new}
    return heard @ block["o_proj"].T, after


def feed_forward(block, x):
    """SwiGLU: x (T, D) to (T, D)."""
    gate = jax.nn.silu(x @ block["gate_proj"].T)
    return (gate * (x @ block["up_proj"].T)) @ block["down_proj"].T


def forward(weights, config, token_ids, positions, caches):
    """Logits (T, V) for what follows each of `token_ids` (T,), and the caches then."""
    x, after = weights["embed_tokens"][token_ids], []
    norm = partial(rms_norm, epsilon=config.rms_norm_eps)
    for block, cache in zip(weights["blocks"], caches, strict=True):
        y = norm(x, block["input_layernorm"])
        heard, cache = attention(block, config, y, positions, cache)
        x = x + heard
        x = x + feed_forward(block, norm(x, block["post_attention_layernorm"]))
        after.append(cache)
    logits = norm(x, weights["norm"]) @ weights["lm_head"].T
    return logits.astype("float32"), after


def empty_caches(config, length, dtype):
    """A cache for each block: as many slots as the window, or as the text is long."""
    slots = min(config.sliding_window or length, length)
    shape = (slots, config.num_key_value_heads, config.head_dim)
    return [
        {
            "key": jnp.zeros(shape, dtype),
            "value": jnp.zeros(shape, dtype),
            "position": jnp.full(slots, -(10**9)),  # so far back that nobody sees it
        }
        for _ in range(config.num_hidden_layers)
    ]


# --- Writing ---


def sample(logits, temperature, top_p, random):
    """The next token: the likeliest at temperature 0, else one of the top p."""
    if temperature == 0:
        return int(logits.argmax())
    order = np.argsort(-logits)
    chances = np.exp((logits[order] - logits.max()).astype("float64") / temperature)
    chances /= chances.sum()
    chances[np.cumsum(chances) - chances >= top_p] = 0  # the first that reach p stay
    return int(random.choice(order, p=chances / chances.sum()))


def write(config, weights, token_ids, length, temperature=0.0, top_p=0.95, seed=0):
    """Yields what follows `token_ids`, token by token, until there are `length`."""
    step = jax.jit(partial(forward, config=config), donate_argnames="caches")
    caches = empty_caches(config, length, weights["embed_tokens"].dtype)
    random, read = np.random.default_rng(seed), 0
    while read < length:
        new = np.array(token_ids[read : read + len(caches[0]["position"])])
        places = read + np.arange(len(new))
        logits, caches = step(weights, token_ids=new, positions=places, caches=caches)
        read += len(new)
        if read == len(token_ids) < length:  # else there is more of the prompt
            token = sample(np.array(logits[-1]), temperature, top_p, random)
            token_ids = [*token_ids, token]
            yield token


def main(folder, prompt, temperature=0.0):
    """Prints what the model writes, until it ends the text or has 512 tokens."""
    tokenizer = SentencePieceProcessor(model_file=str(Path(folder, "tokenizer.model")))
    config = read_config(folder)
    weights = read_weights(folder, config)
    token_ids = [tokenizer.bos_id(), *tokenizer.encode(prompt)]
    for token in write(config, weights, token_ids, 512, float(temperature)):
        if token == tokenizer.eos_id():
            break
        shown, token_ids = tokenizer.decode(token_ids), [*token_ids, token]
        print(tokenizer.decode(token_ids)[len(shown) :], end="", flush=True)
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])

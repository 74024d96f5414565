"""What each step towards speed brought: before and after, in one process, by turns.

    python benchmarks/steps.py [--size tiny]

writes `benchmarks/results/steps.json`. Times are medians; memory is the workspace of the compiled
program, as XLA reports it.
"""

import argparse
import datetime
import os
import statistics
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from models import SIZES
from run import HERE, machine, save_result

from mistral_lib import MistralBackbone, MistralCausalLM, training_loss
from mistral_lib.layers import banded, chunks, dense

RESULT = HERE / "results" / "steps.json"


def random(*shape):
    """Normal float32 numbers."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, dtype="float32"))


def times(functions: dict, arguments: tuple, turns: int) -> dict:
    """Median seconds of compiled functions that take turns, and their workspace in bytes."""
    compiled = {name: jax.jit(f).lower(*arguments).compile() for name, f in functions.items()}
    outputs = [jax.block_until_ready(f(*arguments)) for f in compiled.values()]
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3 * np.abs(b).max()),
        *outputs,
    )
    seconds = {name: [] for name in compiled}
    for _ in range(turns):
        for name, function in compiled.items():
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            seconds[name].append(time.perf_counter() - start)
    return {
        name: {
            "seconds": statistics.median(seconds[name]),
            "workspace_bytes": compiled[name].memory_analysis().temp_size_in_bytes,
        }
        for name in compiled
    }


def feed_forward(size: dict, length: int):
    """The feed-forward network of one block, all tokens at once or a thousand at a time."""
    hidden, wide = size["hidden_dim"], size["intermediate_dim"]

    def network(x, gate, up, down):
        return (jax.nn.silu(x @ gate) * (x @ up)) @ down

    def whole(x, *kernels):
        return network(x, *kernels)

    def in_chunks(x, *kernels):
        chunk = min(chunks.CHUNK_SIZE, length // 4)
        return chunks.in_chunks(lambda x: network(x, *kernels), x, chunk_size=chunk)

    kernels = (random(hidden, wide), random(hidden, wide), random(wide, hidden))
    scaled = tuple(kernel * kernel.shape[0] ** -0.5 for kernel in kernels)
    return {"before": whole, "after": in_chunks}, (random(1, length, hidden), *scaled)


def attention(size: dict, length: int):
    """Attention of one block: the whole square of scores, or tiles of the band."""
    heads = size["num_key_value_heads"]
    group, head = size["num_query_heads"] // heads, size["hidden_dim"] // size["num_query_heads"]
    paths = {"before": dense.dense_attention, "after": banded.banded_attention}
    functions = {
        name: (lambda *arrays, path=path: path(*arrays, None, size["sliding_window"]))
        for name, path in paths.items()
    }
    keys = random(1, length, heads, head)
    return functions, (random(1, length, heads, group, head), keys, keys)


def gradient_of_products(size: dict, length: int):
    """The gradient of three projections: a batch of matrices, or one matrix of rows."""
    hidden, wide = size["hidden_dim"], size["intermediate_dim"]

    def rows(x, kernel):
        return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], -1)

    def gradient(product):
        def loss(arrays):
            x, gate, up, down = arrays
            inside = jax.nn.silu(product(x, gate)) * product(x, up)
            return (product(inside, down) ** 2).mean()

        return lambda *arrays: jax.grad(loss)(arrays)

    products = {"before": lambda x, k: jnp.einsum("bsd,df->bsf", x, k), "after": rows}
    kernels = (random(hidden, wide), random(hidden, wide), random(wide, hidden))
    scaled = tuple(kernel * kernel.shape[0] ** -0.5 for kernel in kernels)
    functions = {name: gradient(product) for name, product in products.items()}
    return functions, (random(1, length, hidden), *scaled)


def results_of_loops(size: dict, length: int):
    """Twelve loops after one another: results that XLA lays out at once, or in their turn."""
    rows = length // 8

    def stack(map_over):
        def run(x, kernel):
            for _ in range(12):
                x = map_over(lambda chunk: jnp.tanh(chunk @ kernel), x)
            return x

        return run

    def in_order(function, x):
        return chunks.map_in_order(lambda i: function(x[i]), len(x), after=x)

    functions = {"before": stack(jax.lax.map), "after": stack(in_order)}
    hidden = size["hidden_dim"]
    return functions, (random(8, rows, hidden), random(hidden, hidden) * hidden**-0.5)


def training_steps(size: dict, length: int) -> dict:
    """Loss and gradients of the whole model: workspace, and seconds of one run."""
    model = MistralCausalLM(MistralBackbone(**size))
    ids = np.random.default_rng(0).integers(0, size["vocabulary_size"], (1, length + 1))
    x = {"token_ids": jnp.asarray(ids[:, :-1]), "padding_mask": jnp.ones((1, length), bool)}
    weights = [v.value for v in model.trainable_variables]
    others = [v.value for v in model.non_trainable_variables]
    metrics = [v.value for v in model.metrics_variables]

    def step(weights):
        def loss(weights):
            labels = jnp.asarray(ids[:, 1:])
            return model.compute_loss_and_updates(
                weights, others, metrics, x, labels, None, training=True, optimizer_variables=[]
            )[0]

        with keras.StatelessScope():
            return jax.value_and_grad(loss)(weights)

    model.optimizer = None  # whose loss scaling is not the subject
    compiled = {}
    for name, defer_from, rematerialize in (
        ("all logits", 2**62, False),
        ("logits in chunks", 0, False),
        ("and blocks computed again", 0, True),
    ):
        training_loss.DEFER_FROM, model.backbone.rematerialize = defer_from, rematerialize
        compiled[name] = jax.jit(lambda weights: step(weights)).lower(weights).compile()
    result = {}
    for name, function in compiled.items():
        jax.block_until_ready(function(weights))
        start = time.perf_counter()
        jax.block_until_ready(function(weights))
        result[name] = {
            "seconds": time.perf_counter() - start,
            "workspace_bytes": function.memory_analysis().temp_size_in_bytes,
        }
    return result


STEPS = {
    "feed-forward network, 8,192 tokens: all at once, in chunks": (feed_forward, 8192),
    "attention, 2,048 tokens: square, band in tiles": (attention, 2048),
    "gradient of projections, 2,048 tokens: batch, rows": (gradient_of_products, 2048),
    "twelve loops over 8,192 tokens: results at once, in their turn": (results_of_loops, 8192),
}


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args(arguments)
    size, scale = SIZES[options.size], 1 if options.size == "full" else 1 / 64
    result = {"date": str(datetime.date.today()), "machine": machine(), "steps": {}}
    for title, (step, length) in STEPS.items():
        made = step(size, int(length * scale))
        result["steps"][title] = times(*made, options.turns)
    result["training, 2,048 tokens"] = training_steps(size, int(2048 * scale))
    save_result(result, options.output)


if __name__ == "__main__":
    main()

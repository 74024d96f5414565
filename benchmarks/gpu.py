"""Mistral 7B's sizes on a GPU, random weights, bfloat16: decoding and prefill against the limits.

    python benchmarks/gpu.py                 # on a machine with an NVIDIA GPU of 24 GB or more
    python benchmarks/gpu.py --size tiny     # the same steps on a tiny model, also on a CPU

writes `benchmarks/results/gpu-<name>.json`: the rates of copying memory and of a matrix product,
measured first; decoding at batch 1 and the bytes it reads, in bfloat16, int8 and int4; prefill of
8,192 tokens. A rate counts only what the work needs: weights read once, and the operations of the
kernels and of attention inside the window.
"""

import argparse
import datetime
import json
import os
import re
import statistics
import time
from importlib import metadata
from pathlib import Path

# The 7B in bfloat16 takes 14.5 GB: more than JAX's default share of a 16 GB GPU.
os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")

import jax
import jax.numpy as jnp

from mistral_lib import MistralBackbone, MistralCausalLM, without_weights

SIZES = {
    "7b": {
        "vocabulary_size": 32000,
        "num_layers": 32,
        "num_query_heads": 32,
        "hidden_dim": 4096,
        "intermediate_dim": 14336,
        "num_key_value_heads": 8,
        "sliding_window": 4096,
    },
    "tiny": {
        "vocabulary_size": 64,
        "num_layers": 2,
        "num_query_heads": 4,
        "hidden_dim": 64,
        "intermediate_dim": 96,
        "num_key_value_heads": 2,
        "sliding_window": 16,
    },
}
PROMPT, SHORT, LONG = 16, 8, 136  # tokens: the difference of two runs is decoding alone
PREFILL = {"7b": 8192, "tiny": 300}


def median_seconds(run, times: int = 5) -> float:
    """The median time of a function, after one call that compiles."""
    jax.block_until_ready(run())
    seconds = []
    for _ in range(times):
        start = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def limits(size: str) -> dict:
    """Bytes a second of a copy, read and written counted, and operations a second of a product."""
    large = size == "7b"
    source = jnp.zeros(2**30 if large else 2**20, "bfloat16")
    copy = jax.jit(lambda x: x + 1)
    side = 8192 if large else 256
    matrix = jnp.ones((side, side), "bfloat16")
    product = jax.jit(jnp.matmul)
    return {
        "copy_bytes_per_second": 2 * source.nbytes / median_seconds(lambda: copy(source)),
        "matmul_flops_per_second": 2 * side**3 / median_seconds(lambda: product(matrix, matrix)),
    }


def make_model(size: str) -> MistralCausalLM:
    """A model whose weights are random numbers, drawn on the device."""
    with without_weights():
        backbone = MistralBackbone(**SIZES[size], dtype="bfloat16")
    for index, variable in enumerate(backbone.variables):
        shape = variable.shape
        if len(shape) == 1:
            variable.assign(jnp.ones(shape, "bfloat16"))
        else:
            values = jax.random.normal(jax.random.key(index), shape, "bfloat16")
            variable.assign(values * shape[0] ** -0.5)
            jax.block_until_ready(variable.value)
    return MistralCausalLM(backbone)


def decode(model) -> dict:
    """Tokens a second at batch 1, and the bytes of weights that each token reads."""

    def run(new):
        return lambda: model.generate(
            list(range(1, PROMPT + 1)), max_new_tokens=new, stop_token_ids=None
        )

    tokens = LONG - SHORT
    seconds = (median_seconds(run(LONG)) - median_seconds(run(SHORT))) / tokens
    backbone = model.backbone
    read = sum(v.value.nbytes for v in backbone.variables)
    table = backbone.token_embedding.variables[0].value.nbytes  # of which one row is read
    return {"tokens_per_second": 1 / seconds, "weight_bytes": read - table}


def prefill(model, size: str) -> dict:
    """Seconds of a forward pass over a long prompt, and the operations that it needs."""
    backbone, length = model.backbone, PREFILL[size]
    inputs = {
        "token_ids": jnp.arange(length)[None] % backbone.vocabulary_size,
        "padding_mask": jnp.ones((1, length), bool),
    }
    weights = [v.value for v in backbone.trainable_variables]
    others = [v.value for v in backbone.non_trainable_variables]
    forward = jax.jit(lambda weights, others, x: backbone.stateless_call(weights, others, x)[0])
    seconds = median_seconds(lambda: forward(weights, others, inputs), times=3)
    kernels = sum(layer.count_params() for layer in backbone.transformer_layers)
    window = min(backbone.sliding_window, length)
    seen = window * length - window * (window - 1) // 2
    heads = backbone.num_query_heads * backbone.head_dim
    flops = 2 * kernels * length + 4 * seen * heads * backbone.num_layers
    return {"tokens": length, "seconds": seconds, "flops": flops}


def main(arguments=None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="7b")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    device = jax.devices()[0]
    if options.size == "7b" and device.platform != "gpu":
        raise SystemExit(f"JAX sees no GPU, but {device}. Try --size tiny.")
    bound = limits(options.size)
    model = make_model(options.size)
    result = {
        "date": str(datetime.date.today()),
        "device": device.device_kind,
        "versions": {name: metadata.version(name) for name in ("jax", "jaxlib", "keras")},
        "size": options.size,
        "limits": bound,
        "prefill": prefill(model, options.size),
        "decoding": {},
    }
    result["prefill"]["share_of_matmul_rate"] = (
        result["prefill"]["flops"] / result["prefill"]["seconds"] / bound["matmul_flops_per_second"]
    )
    for kind in ("bfloat16", "int8", "int4"):
        if kind != "bfloat16":
            model = make_model(options.size)
            model.quantize(kind)
        row = decode(model)
        rate = row["tokens_per_second"] * row["weight_bytes"]
        row["share_of_copy_bandwidth"] = rate / bound["copy_bytes_per_second"]
        result["decoding"][kind] = row
    name = re.sub(r"[^a-z0-9]+", "-", device.device_kind.lower()).strip("-")
    output = options.output or Path(__file__).parent / "results" / f"gpu-{name}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

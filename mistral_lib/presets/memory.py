"""How much memory a model needs, and how much there is (chapter 17, "Presets and checkpoints")."""

import math
import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import keras

from mistral_lib.checks import keras_knows

# What Keras itself keeps for a block, whatever its size (measured: 162 KB).
BYTES_PER_BLOCK = 160 * 1024

# Smaller and smaller dtype policies, and the arguments that ask for them.
ALTERNATIVES = {
    "bfloat16": "dtype='bfloat16'",
    "int8_from_bfloat16": "dtype='bfloat16', quantization='int8'",
    "int4/128_from_bfloat16": "dtype='bfloat16', quantization='int4'",
}


def available_bytes() -> int:
    """Free memory in bytes of the device that holds the weights.

    On a GPU or TPU, what its allocator has left. On a CPU, the least of what the system reports as
    available and what the process's control group still allows; where the system reports nothing
    (macOS), all of the machine's memory.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return min(_system_bytes(), _control_group_bytes())


def _system_bytes():
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group_bytes(folder=Path("/sys/fs/cgroup")):
    """What is left of a container's limit; files in its page cache do not count as used."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):  # no control group, or one without a limit ("max")
        return 2**63


def weight_bytes(one_block, num_layers: int) -> int:
    """Bytes of a model's weights.

    Args:
        one_block: the same model with a single block; it needs no memory (`without_weights`).
        num_layers: number of blocks.
    """

    def size(layer):
        return sum(math.prod(v.shape) * jnp.dtype(v.dtype).itemsize for v in layer.variables)

    return size(one_block) + (num_layers - 1) * size(one_block.transformer_layers[0])


def check_memory(
    one_block: Callable[[str], keras.Model],
    num_layers: int,
    dtype: str,
    working: int = 0,
    share: float = 1.0,
    alternatives: tuple[str, ...] = tuple(ALTERNATIVES),
) -> None:
    """Refuses a model that does not fit, before anything of it is allocated.

    Args:
        one_block: makes the model with a single block and no memory, in a dtype policy.
        num_layers: number of blocks.
        dtype: name of the dtype policy.
        working: bytes that loading needs besides.
        share: of the weights that one memory holds; above 1 for copies.
        alternatives: which of `ALTERNATIVES` can be proposed, the first that fits.

    Raises:
        MemoryError: the model needs more than there is; the message names a dtype or a quantization
            that fits.
    """
    available = available_bytes()

    def need(dtype):
        weights = weight_bytes(one_block(dtype), num_layers) * share
        return weights + num_layers * BYTES_PER_BLOCK + working

    needed = need(dtype)
    if needed <= available:
        return
    model = one_block("float32")
    repeated = model.transformer_layers[0].count_params()
    advice = "No dtype fits: use a smaller model or a machine with more memory."
    for other in alternatives:
        if keras_knows(other) and need(other) <= available:
            name = other.partition("_from_")[0]
            advice = f"In {name} it needs {_gib(need(other))}: pass {ALTERNATIVES[other]}."
            break
    where = "" if share == 1 else " in one memory, as the distribution splits it"
    raise MemoryError(
        f"This model has {model.count_params() + (num_layers - 1) * repeated:,} parameters in "
        f"{num_layers:,} blocks and needs {_gib(needed)} in {dtype.partition('_from_')[0]}{where}, "
        f"but only {_gib(available)} are available. {advice}"
    )


def _gib(size):
    return f"{size / 2**30:,.1f} GiB"

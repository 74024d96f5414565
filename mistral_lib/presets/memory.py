"""How much memory a model needs, and how much there is (chapter 17, "Presets and checkpoints")."""

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib.checks import keras_knows
from mistral_lib.config import MistralConfig, Weight
from mistral_lib.distribution import numbers_in_memory
from mistral_lib.keras_inside import quantized_variables
from mistral_lib.layers.quantizable import dtype_policy
from mistral_lib.quantization import quantization_of

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
    (macOS), all of the machine's memory; on Windows, more than any model needs.
    """
    device = jax.local_devices()[0]
    if device.platform != "cpu":
        stats = device.memory_stats() or {}
        if "bytes_limit" in stats:
            return stats["bytes_limit"] - stats.get("bytes_in_use", 0)
    return min(_system_bytes(), _control_group_bytes())


def _system_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if not hasattr(os, "sysconf"):  # on Windows, where nothing can be refused
        return 2**63
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _control_group_bytes(folder: Path = Path("/sys/fs/cgroup")) -> int:
    """What is left of a container's limit; files in its page cache do not count as used."""
    try:
        limit = int((folder / "memory.max").read_text())
        used = int((folder / "memory.current").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return limit - used + int(stat["inactive_file"])
    except (OSError, ValueError, KeyError):  # no control group, or one without a limit ("max")
        return 2**63


def weight_bytes(config: MistralConfig, dtype: Any, whole: bool = True) -> int:
    """Bytes of a model's weights, counted without making any.

    Args:
        config: the architecture.
        dtype: a dtype policy, quantized or not.
        whole: otherwise only what one memory holds under the distribution in use.

    >>> mistral_7b = MistralConfig(32000, 32, 32, 4096, 14336, 8)
    >>> f"{weight_bytes(mistral_7b, 'int8_from_bfloat16') / 2**30:.1f} GiB"
    '6.7 GiB'
    """
    policy = dtype_policy(dtype)
    return config.total(lambda weight: bytes_of(weight, policy, whole))


def bytes_of(weight: Weight, policy: keras.dtype_policies.DTypePolicy, whole: bool = True) -> int:
    """Bytes of one weight, with the scales of a quantized one; arguments as for `weight_bytes`."""

    def count(path: str, shape: tuple[int, ...]) -> int:
        return math.prod(shape) if whole else numbers_in_memory(path, shape)

    return sum(
        count(path, shape) * jnp.dtype(dtype).itemsize
        for path, shape, dtype in _variables(weight, policy)
    )


def _variables(weight: Weight, policy: keras.dtype_policies.DTypePolicy) -> Iterator[tuple]:
    """Path, shape and dtype of each variable that holds a weight."""
    quantization = quantization_of(policy)
    if quantization is None or not weight.is_matrix:
        yield weight.path, weight.shape, policy.variable_dtype
        return
    layer = weight.path.rpartition("/")[0]
    for name, shape, dtype in quantized_variables(weight.attribute, weight.shape, quantization):
        yield f"{layer}/{name.removeprefix('_')}", shape, dtype or policy.variable_dtype


def check_memory(
    config: MistralConfig,
    dtype: Any,
    working: int = 0,
    alternatives: Iterable[str] = tuple(ALTERNATIVES),
) -> None:
    """Refuses a model that does not fit, before anything of it is allocated.

    Args:
        config: the architecture.
        dtype: the dtype policy.
        working: bytes that loading needs besides.
        alternatives: which of `ALTERNATIVES` can be proposed, the first that fits.

    Raises:
        MemoryError: the model needs more than there is; the message names a dtype or a quantization
            that fits.
    """
    available = available_bytes()

    def need(dtype: Any) -> int:
        return (
            weight_bytes(config, dtype, whole=False) + config.num_layers * BYTES_PER_BLOCK + working
        )

    needed = need(dtype)
    if needed <= available:
        return
    advice = "No dtype fits: use a smaller model or a machine with more memory."
    for other in alternatives:
        if keras_knows(other) and need(other) <= available:
            name = other.partition("_from_")[0]
            advice = f"In {name} it needs {_gib(need(other))}: pass {ALTERNATIVES[other]}."
            break
    split = weight_bytes(config, dtype) != weight_bytes(config, dtype, whole=False)
    where = " in one memory, as the distribution splits it" if split else ""
    kind = keras.dtype_policies.get(dtype).name.partition("_from_")[0]
    raise MemoryError(
        f"This model has {config.count_params():,} parameters in {config.num_layers:,} blocks and "
        f"needs {_gib(needed)} in {kind}{where}, but only {_gib(available)} are available. {advice}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:,.1f} GiB"

"""How much memory a model needs, and how much there is (chapter 17, "Presets and checkpoints")."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp

# What Keras itself keeps for a block, whatever its size (measured: 162 KB).
BYTES_PER_BLOCK = 160 * 1024


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


def check_memory(
    num_parameters: int, num_layers: int, dtype: str, working: int = 0, share: float = 1.0
) -> None:
    """Refuses a model that does not fit, before anything of it is allocated.

    Args:
        num_parameters: of the whole model.
        num_layers: number of blocks.
        dtype: of the variables.
        working: bytes that loading needs besides.
        share: of the parameters that one memory holds; above 1 for copies.

    Raises:
        MemoryError: the model needs more than there is; the message names a dtype that fits.

    >>> check_memory(10**18, 1, "float32")
    Traceback (most recent call last):
    MemoryError: This model has 1,000,000,000,000,000,000 parameters ...
    """
    available = available_bytes()

    def need(dtype):
        parameters = num_parameters * share * jnp.dtype(dtype).itemsize
        return parameters + num_layers * BYTES_PER_BLOCK + working

    if need(dtype) <= available:
        return
    advice = "No dtype fits: use a smaller model or a machine with more memory."
    if need("bfloat16") <= available:
        advice = f"In bfloat16 it needs {_gib(need('bfloat16'))}: pass dtype='bfloat16'."
    where = "" if share == 1 else " in one memory, as the distribution splits it"
    raise MemoryError(
        f"This model has {num_parameters:,} parameters in {num_layers:,} blocks and needs "
        f"{_gib(need(dtype))} in {dtype}{where}, but only {_gib(available)} are available. {advice}"
    )


def _gib(size):
    return f"{size / 2**30:,.1f} GiB"

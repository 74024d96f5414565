"""What the device that holds the weights can compute (chapter 19, "GPU runs")."""

import jax


def compute_capability() -> int | None:
    """The generation of an NVIDIA GPU, 8 for Ampere; `None` for any other device.

    >>> compute_capability() is None or compute_capability() > 0
    True
    """
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = capability.partition(".")[0]  # "9.0"; AMD's is a name, CPUs and TPUs have none
    return int(major) if major.isdigit() else None


def has_bfloat16() -> bool:
    """Whether this machine computes in bfloat16: NVIDIA's GPUs do from Ampere on."""
    capability = compute_capability()
    return capability is None or capability >= 8

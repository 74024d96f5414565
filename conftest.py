"""What tests and notebooks compile is kept, and what tests call has the shapes that it declares.

Most of a test's time is XLA's, so the next file and the next run need not compile again. Each
process of pytest-xdist has a folder of its own, because JAX's cache is not made for two writers;
the kernels of notebooks inherit it. Tests compile without LLVM's optimizations, which is most of
what compiling costs; notebooks compile as their readers do, and so do tests where XLA_FLAGS is set,
be it to nothing.
"""

import os
from importlib.metadata import version
from pathlib import Path

import newer_keras
import shape_checks

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
CACHE = Path(__file__).parent / ".pytest_cache" / "jax" / WORKER
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

# XLA stops the process at a flag that it does not know.
COMPILE_FAST = "--xla_backend_optimization_level=0"
if tuple(map(int, version("jaxlib").split(".")[:2])) < (0, 11):
    COMPILE_FAST += " --xla_cpu_use_fusion_emitters=false"

shape_checks.install()


def pytest_configure(config):
    """Chooses how this process and its children compile, before JAX starts."""
    if not config.getoption("nbval", False):
        os.environ.setdefault("XLA_FLAGS", COMPILE_FAST)


def pytest_collection_modifyitems(items):
    """Expects of tests and notebooks what an older Keras cannot do."""
    newer_keras.expect_failures(items)

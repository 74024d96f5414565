"""What tests and notebooks compile is kept, and what tests call has the shapes that it declares.

Most of a test's time is XLA's, so the next file and the next run need not compile again. Each
process of pytest-xdist has a folder of its own, because JAX's cache is not made for two writers;
the kernels of notebooks inherit it.
"""

import os
from pathlib import Path

import newer_keras
import shape_checks

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
CACHE = Path(__file__).parent / ".pytest_cache" / "jax" / WORKER
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

shape_checks.install()


def pytest_collection_modifyitems(items):
    """Expects of tests and notebooks what an older Keras cannot do."""
    newer_keras.expect_failures(items)

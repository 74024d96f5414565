"""What tests and notebooks compile is kept, so that the next file and the next run need not.

Most of a test's time is XLA's. Each process of pytest-xdist has a folder of its own, because JAX's
cache is not made for two writers; the kernels of notebooks inherit it.
"""

import os
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
CACHE = Path(__file__).parent / ".pytest_cache" / "jax" / WORKER
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(CACHE))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

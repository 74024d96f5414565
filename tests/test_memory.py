"""mistral_lib/presets/memory.py: a model that does not fit is refused before it is built."""

import math
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from mistral_lib import MistralBackbone
from mistral_lib.config import MistralConfig
from mistral_lib.presets import memory
from mistral_lib.presets.memory import (
    BYTES_PER_BLOCK,
    available_bytes,
    check_memory,
    weight_bytes,
)

GIB = 2**30
NAMES = "vocabulary_size num_query_heads hidden_dim intermediate_dim num_key_value_heads".split()
SMALL = dict(zip(NAMES, (30, 2, 8, 12, 1)))
LARGE = dict(zip(NAMES, (32000, 32, 4096, 14336, 8)))  # Mistral 7B


@pytest.fixture
def available(monkeypatch):
    def set_to(size):
        monkeypatch.setattr(memory, "available_bytes", lambda: size)

    return set_to


def test_this_machine():
    assert 2**20 < available_bytes() < 2**45


SMALL_3 = MistralConfig(**SMALL, num_layers=3)
SMALL_2 = MistralConfig(**SMALL, num_layers=2)
MISTRAL_7B = MistralConfig(**LARGE, num_layers=32)

DTYPES = ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]
POLICIES = [
    *DTYPES,
    *(f"{kind}_from_{dtype}" for kind in ("int4/128", "int4/6") for dtype in DTYPES),
    *(f"int8_from_{dtype}" for dtype in DTYPES if "bfloat16" in dtype or dtype == "float32"),
]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
def test_bytes_are_those_of_the_variables(policy, tied):
    """Of a model that is built, whose sizes are no multiples of what int4 packs or groups."""
    config = SMALL_3.changed(vocabulary_size=31, intermediate_dim=13, tie_word_embeddings=tied)
    model = MistralBackbone(**config.to_dict(), dtype=policy)
    held = sum(np.asarray(variable.value).nbytes for variable in model.variables)
    assert weight_bytes(config, policy) == held
    stored = {
        variable.path: (tuple(variable.shape), str(variable.dtype)) for variable in model.variables
    }
    counted = {
        path: (shape, dtype)
        for weight in config.weights()
        for path, shape, dtype in memory._variables(weight, model.projection_policy)
    }
    assert counted == stored


def test_exact_limit(available):
    need = weight_bytes(SMALL_2, "float32") + 2 * BYTES_PER_BLOCK + 500
    available(need)
    check_memory(SMALL_2, "float32", working=500)
    available(need - 1)
    count = SMALL_2.count_params()
    with pytest.raises(MemoryError, match=f"has {count:,} parameters in 2 blocks"):
        check_memory(SMALL_2, "float32", working=500)


@pytest.mark.parametrize(
    ("gib", "advice"),
    [
        (16, "In bfloat16 it needs 13.5 GiB: pass dtype='bfloat16'."),
        (8, "In int8 it needs 6.8 GiB: pass dtype='bfloat16', quantization='int8'."),
        (4, "In int4/128 it needs 3.5 GiB: pass dtype='bfloat16', quantization='int4'."),
        (3, "No dtype fits: use a smaller model or a machine with more memory."),
    ],
)
def test_proposes_the_first_that_fits(available, gib, advice):
    available(gib * GIB)
    with pytest.raises(MemoryError) as caught:
        check_memory(MISTRAL_7B, "float32")
    assert str(caught.value).endswith(f"but only {gib}.0 GiB are available. {advice}")
    if gib == 8:
        check_memory(MISTRAL_7B, "int8_from_bfloat16")
    if gib == 4:
        with pytest.raises(MemoryError, match=r"GiB in int8, but .* available\. No dtype fits"):
            check_memory(MISTRAL_7B, "int8_from_bfloat16", alternatives=("bfloat16",))


def test_what_one_memory_holds(available, monkeypatch):
    halves = lambda path, shape: math.prod(shape) // 2  # noqa: E731
    monkeypatch.setattr(memory, "numbers_in_memory", halves)
    available(7 * GIB)
    check_memory(MISTRAL_7B, "bfloat16")
    with pytest.raises(MemoryError, match="in one memory, as the distribution splits it"):
        check_memory(MISTRAL_7B, "float32")


def test_many_empty_blocks_are_counted(available):
    available(GIB)
    with pytest.raises(MemoryError):
        check_memory(SMALL_2.changed(num_layers=10**6), "float32")


def test_memory_of_a_gpu(monkeypatch):
    stats = {"bytes_limit": 10 * GIB, "bytes_in_use": 3 * GIB}
    gpu = SimpleNamespace(platform="gpu", memory_stats=lambda: stats)
    monkeypatch.setattr(jax, "local_devices", lambda: [gpu])
    assert available_bytes() == 7 * GIB


def test_limit_of_a_container(tmp_path):
    assert memory._control_group_bytes(tmp_path) == 2**63
    (tmp_path / "memory.current").write_text("700\n")
    (tmp_path / "memory.stat").write_text("anon 500\ninactive_file 150\n")
    (tmp_path / "memory.max").write_text("1000\n")
    assert memory._control_group_bytes(tmp_path) == 1000 - 700 + 150
    (tmp_path / "memory.max").write_text("max\n")
    assert memory._control_group_bytes(tmp_path) == 2**63


def test_least_of_system_and_container(monkeypatch):
    monkeypatch.setattr(memory, "_system_bytes", lambda: 5)
    assert available_bytes() == 5
    monkeypatch.setattr(memory, "_control_group_bytes", lambda: 3)
    assert available_bytes() == 3


def test_system_that_reports_nothing(monkeypatch):
    """As on macOS."""

    def no_file(self):
        raise FileNotFoundError

    real = memory._system_bytes()
    monkeypatch.setattr(memory.Path, "read_text", no_file)
    assert memory._system_bytes() >= real


def test_system_without_sysconf(monkeypatch):
    """As Windows: then nothing can be refused."""

    def no_file(self):
        raise FileNotFoundError

    monkeypatch.setattr(memory.Path, "read_text", no_file)
    monkeypatch.delattr(memory.os, "sysconf")
    assert memory.available_bytes() == 2**63
    memory.check_memory(memory.MistralConfig(32000, 32, 32, 4096, 14336, 8), "float32")

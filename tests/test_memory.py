"""mistral_lib/presets/memory.py: a model that does not fit is refused before it is built."""

from types import SimpleNamespace

import jax
import pytest

from mistral_lib.presets import memory
from mistral_lib.presets.memory import BYTES_PER_BLOCK, available_bytes, check_memory

GIB = 2**30


@pytest.fixture
def available(monkeypatch):
    def set_to(size):
        monkeypatch.setattr(memory, "available_bytes", lambda: size)

    return set_to


def test_this_machine():
    assert 2**20 < available_bytes() < 2**45


def test_exact_limit(available):
    need = 1000 * 4 + 2 * BYTES_PER_BLOCK + 500
    available(need)
    check_memory(1000, 2, "float32", working=500)
    available(need - 1)
    with pytest.raises(MemoryError, match=r"1,000 parameters in 2 blocks"):
        check_memory(1000, 2, "float32", working=500)


def test_names_a_dtype_that_fits(available):
    available(16 * GIB)
    check_memory(7_241_732_096, 32, "bfloat16")
    with pytest.raises(MemoryError) as caught:
        check_memory(7_241_732_096, 32, "float32")
    assert str(caught.value) == (
        "This model has 7,241,732,096 parameters in 32 blocks and needs 27.0 GiB in float32, but "
        "only 16.0 GiB are available. In bfloat16 it needs 13.5 GiB: pass dtype='bfloat16'."
    )


def test_nothing_fits(available):
    available(GIB)
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(MemoryError, match="No dtype fits"):
            check_memory(7_241_732_096, 32, dtype)


def test_many_empty_blocks_are_counted(available):
    available(GIB)
    with pytest.raises(MemoryError):
        check_memory(10**6, 10**6, "float32")


def test_a_part_of_a_model_needs_less_and_copies_need_more(available):
    available(10 * GIB)
    with pytest.raises(MemoryError, match=r"needs 27\.0 GiB in float32, but only"):
        check_memory(7_241_732_096, 32, "float32")
    check_memory(7_241_732_096, 32, "float32", share=0.25)
    with pytest.raises(
        MemoryError, match=r"needs 54\.0 GiB in float32 in one memory, as the distr"
    ):
        check_memory(7_241_732_096, 32, "float32", share=2.0)


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

"""mistral_lib/presets/progress.py: a bar for long reading and writing."""

import pytest
from small_presets import small_backbone

from mistral_lib import MistralBackbone
from mistral_lib.presets import progress
from mistral_lib.presets.progress import progress_bar


def test_a_bar_in_bytes(capsys):
    with progress_bar("Loading it", 2**30) as bar:
        bar.update(2**29)
        bar.refresh()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("\rLoading it:   0%")
    assert "50%" in err
    assert "537M/1.07G" in err


def test_short_work_shows_nothing(capsys):
    with progress_bar("Loading it", 2**27) as bar:
        bar.update(2**27)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("max_shard_size", [None, 1e-6], ids=["one file", "shards"])
def test_every_byte_is_counted(tmp_path, monkeypatch, capsys, max_shard_size):
    """The bars of saving, exporting and loading end at 100 %, and fit a narrow terminal."""
    monkeypatch.setenv("COLUMNS", "80")  # tqdm reads them where stderr is no terminal
    monkeypatch.setenv("LINES", "24")
    monkeypatch.setattr(progress, "PROGRESS_FROM", 0)
    backbone = small_backbone(tie_word_embeddings=False)
    size = sum(variable.value.nbytes for variable in backbone.weights)
    backbone.save_to_preset(tmp_path / "preset", max_shard_size)
    backbone.export_to_transformers(tmp_path / "checkpoint", max_shard_size)
    for folder in ("preset", "checkpoint"):
        MistralBackbone.from_preset(tmp_path / folder)
    last = [bar.rpartition("\r")[2] for bar in capsys.readouterr().err.strip().split("\n")]
    assert [bar.split()[0] for bar in last] == ["Saving", "Exporting", "Loading", "Loading"]
    for bar in last:
        assert ": 100%" in bar
        assert f"{size / 1000:.1f}k/{size / 1000:.1f}k" in bar

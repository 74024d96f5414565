"""Checkpoints that are converted wrongly: what shows it, and where."""

import numpy as np
import pytest

from mistral_lib import MistralCausalLM
from mistral_lib.presets.safetensors_files import list_tensors
from mistral_lib.teaching import converted_suspects, panel
from mistral_lib.teaching.interventions import read


@pytest.fixture(scope="module")
def rows():
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    documents = panel.documents(model.preprocessor.tokenizer)
    long = documents.where(documents.padding_mask.sum(axis=1) > 150)
    return long.where([True] + [False] * (len(long) - 1))


def tensors_in(folder):
    listed = list_tensors(folder / "model.safetensors")
    return {name: tensor.read().tobytes() for name, tensor in listed.items()}


@pytest.mark.parametrize(("name", "position", "wrong"), [("A", 1, 0), ("B", 0, 1), ("C", 128, 0)])
def test_the_first_wrong_logit_and_the_wrong_tensors(tmp_path, rows, name, position, wrong):
    shipped = MistralCausalLM.from_preset("mistral_tiny_en", dtype="bfloat16")
    shipped.export_to_transformers(tmp_path / "right")
    folder = converted_suspects.write(name, tmp_path / name)
    right, mine = tensors_in(tmp_path / "right"), tensors_in(folder)
    assert right.keys() == mine.keys()
    assert sum(right[tensor] != mine[tensor] for tensor in right) == wrong
    sound = MistralCausalLM.from_preset(tmp_path / "right")
    off = abs(read(MistralCausalLM.from_preset(folder), rows) - read(sound, rows))[0].max(axis=1)
    assert np.flatnonzero(off > 1e-3)[0] == position


def test_an_unknown_suspect_is_refused(tmp_path):
    with pytest.raises(ValueError, match="'A', 'B'"):
        converted_suspects.write("D", tmp_path)
    assert not list(tmp_path.iterdir())

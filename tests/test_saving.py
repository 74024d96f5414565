"""mistral_lib/presets/saving.py: what lies in the folder afterwards, and what does not."""

import json
import os
import subprocess
import sys

import h5py
import numpy as np
import pytest
from small_presets import assert_same_weights, small_backbone, small_causal_lm

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.presets.hdf5 import list_tensors

BACKBONE = {"config.json", "metadata.json", "model.weights.h5"}
TEXT = {"preprocessor.json", "tokenizer.json", "assets/tokenizer/vocabulary.spm"}


def files(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def read(folder):
    return {name: (folder / name).read_bytes() for name in files(folder)}


def test_files_of_each_kind(tmp_path):
    model = small_causal_lm()
    model.backbone.save_to_preset(tmp_path / "backbone")
    assert files(tmp_path / "backbone") == BACKBONE
    model.save_to_preset(tmp_path / "causal_lm")
    assert files(tmp_path / "causal_lm") == BACKBONE | TEXT | {"task.json"}
    model.preprocessor.save_to_preset(tmp_path / "preprocessor")
    assert files(tmp_path / "preprocessor") == TEXT
    model.preprocessor.tokenizer.save_to_preset(tmp_path / "tokenizer")
    assert files(tmp_path / "tokenizer") == TEXT - {"preprocessor.json"}
    small_causal_lm(preprocessor=None).save_to_preset(tmp_path / "ids")
    assert files(tmp_path / "ids") == BACKBONE | {"task.json"}


def test_parts_one_after_the_other(tmp_path):
    """As in KerasHub, the parts may be saved into one folder."""
    model = small_causal_lm()
    model.preprocessor.save_to_preset(tmp_path)
    (tmp_path / "README.md").write_text("mine")
    model.backbone.save_to_preset(tmp_path)
    assert files(tmp_path) == BACKBONE | TEXT | {"README.md"}
    loaded = MistralCausalLM.from_preset(tmp_path)
    assert_same_weights(model, loaded)
    assert loaded.preprocessor is not None


def test_no_task_of_another_backbone_stays(tmp_path):
    small_causal_lm().save_to_preset(tmp_path)
    small_backbone(num_layers=1).save_to_preset(tmp_path)
    assert "task.json" not in files(tmp_path)
    assert MistralCausalLM.from_preset(tmp_path).backbone.num_layers == 1


def test_no_weights_of_another_backbone_stay(tmp_path):
    one, two = small_backbone(1), small_backbone(2)
    one.save_to_preset(tmp_path, max_shard_size=1e-6)
    assert "model_00003.weights.h5" in files(tmp_path)
    two.save_to_preset(tmp_path)
    assert files(tmp_path) == BACKBONE
    assert_same_weights(MistralBackbone.from_preset(tmp_path), two)
    one.save_to_preset(tmp_path, max_shard_size=4e-6)
    assert "model_00003.weights.h5" not in files(tmp_path)
    assert "model.weights.h5" not in files(tmp_path)
    assert_same_weights(MistralBackbone.from_preset(tmp_path), one)


def test_shards_are_no_larger_than_asked(tmp_path):
    backbone = small_backbone()
    sizes = sorted(4 * np.prod(variable.shape) for variable in backbone.weights)
    limit = 1000
    assert sizes[-1] > limit > sizes[-3]  # the two embeddings do not fit
    backbone.save_to_preset(tmp_path, max_shard_size=limit / 2**30)
    held = []
    for shard in sorted(tmp_path.glob("model_*.h5")):
        held.append([tensor.num_bytes for tensor in list_tensors(shard).values()])
        assert len(held[-1]) == 1 or sum(held[-1]) <= limit
    assert [len(tensors) for tensors in held] == [1, 1, 6, 2, 5, 3, 3]
    index = json.loads((tmp_path / "model.weights.json").read_text())
    assert index["metadata"]["total_size"] == sum(sizes)


def test_one_file_of_any_size(tmp_path):
    small_backbone().save_to_preset(tmp_path, max_shard_size=None)
    assert files(tmp_path) == BACKBONE


@pytest.mark.parametrize("size", [0, -1, float("nan"), float("inf"), "10", True])
def test_bad_shard_size(tmp_path, size):
    with pytest.raises((ValueError, TypeError), match="max_shard_size must be"):
        small_backbone().save_to_preset(tmp_path / "a", max_shard_size=size)
    assert list(tmp_path.iterdir()) == []


def test_tied_embeddings_are_written_for_keras_hub(tmp_path):
    """Which has no tied embeddings: the file holds both matrices, the config no word of it."""
    small_backbone(tie_word_embeddings=True).save_to_preset(tmp_path)
    tensors = list_tensors(tmp_path / "model.weights.h5")
    name = "layers/reversible_embedding/vars"
    assert (tensors[f"{name}/1"].read() == tensors[f"{name}/0"].read().T).all()
    assert "tie_word_embeddings" not in (tmp_path / "config.json").read_text()
    assert MistralBackbone.from_preset(tmp_path).tie_word_embeddings is True


def test_config_for_older_keras_hub(tmp_path):
    """KerasHub before head_dim has no such argument."""
    small_backbone().save_to_preset(tmp_path)
    assert "head_dim" not in json.loads((tmp_path / "config.json").read_text())["config"]


def test_metadata(tmp_path):
    small_backbone().save_to_preset(tmp_path)
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert metadata["parameter_count"] == small_backbone().count_params()
    assert metadata["tasks"] == ["CausalLM"]


# --- Nothing is lost -----------------------------------------------------------------------------


@pytest.mark.parametrize("made", ["notes.txt", "src/code.py"])
def test_a_folder_of_other_things_is_not_replaced(tmp_path, made):
    (tmp_path / made).parent.mkdir(exist_ok=True)
    (tmp_path / made).write_text("mine")
    with pytest.raises(FileExistsError, match="holds files, but none of a preset in this format"):
        small_backbone().save_to_preset(tmp_path)
    assert read(tmp_path) == {made: b"mine"}


def test_a_file_is_not_replaced(tmp_path):
    (tmp_path / "a").write_text("mine")
    with pytest.raises(NotADirectoryError, match="is a file; a preset is saved into a folder"):
        small_backbone().save_to_preset(tmp_path / "a")


def test_weights_without_a_place_are_refused(tmp_path):
    small_backbone(1).save_to_preset(tmp_path / "a")
    before = read(tmp_path)
    adapted = small_backbone(2)
    adapted.transformer_layers[1].self_attention.query.quantize("int8", type_check=False)
    with pytest.raises(ValueError, match=r"no place for these .*query/kernel_scale"):
        adapted.save_to_preset(tmp_path / "a")
    assert read(tmp_path) == before


def test_saved_over_its_own_source(tmp_path):
    backbone = small_backbone()
    backbone.save_to_preset(tmp_path)
    MistralBackbone.from_preset(tmp_path).save_to_preset(tmp_path)
    assert_same_weights(MistralBackbone.from_preset(tmp_path), backbone)


def test_a_reader_of_the_old_keeps_it(tmp_path):
    """Files are replaced, never written into."""
    small_causal_lm(seed=1).save_to_preset(tmp_path / "a")
    os.link(tmp_path / "a/model.weights.h5", tmp_path / "kept.h5")
    os.link(tmp_path / "a/config.json", tmp_path / "kept.json")
    before = (tmp_path / "kept.h5").read_bytes(), (tmp_path / "kept.json").read_bytes()
    with h5py.File(tmp_path / "a/model.weights.h5"):
        small_causal_lm(seed=2, sliding_window=9).save_to_preset(tmp_path / "a")
    assert ((tmp_path / "kept.h5").read_bytes(), (tmp_path / "kept.json").read_bytes()) == before


KILLED = """
import os, signal, sys
from small_presets import small_causal_lm

model = small_causal_lm(seed=2, num_layers=3)

def kill(event, arguments):
    if event == "open" and str(arguments[0]).endswith("preprocessor.json"):
        os.kill(os.getpid(), signal.SIGKILL)  # the new weights and config are written by now

sys.addaudithook(kill)
model.save_to_preset(sys.argv[1])
"""


def test_killed_while_saving(tmp_path):
    model = small_causal_lm(seed=1)
    model.save_to_preset(tmp_path / "preset")
    before = read(tmp_path / "preset")
    command = [sys.executable, "-c", KILLED, tmp_path / "preset"]
    result = subprocess.run(command, cwd=os.path.dirname(__file__), check=False)
    assert result.returncode == -9
    left = [path for path in tmp_path.iterdir() if path.name != "preset"]
    assert ["preset.saving-" in path.name for path in left] == [True]
    assert "model.weights.h5" in files(left[0])
    assert read(tmp_path / "preset") == before
    assert_same_weights(MistralCausalLM.from_preset(tmp_path / "preset"), model)

"""mistral_lib/presets/saving.py: what lies in the folder afterwards, and what does not."""

import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_presets import assert_same_weights, small_backbone, small_causal_lm
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.presets.hdf5 import list_tensors

BACKBONE = {"config.json", "metadata.json", "model.weights.h5"}
YARN = {"factor": 4.0, "original_max_position_embeddings": 8}
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


@pytest.mark.parametrize(
    ("changes", "known"),
    [
        ({}, True),
        ({"sliding_window": None, "head_dim": 6, "rope_scaling_factor": 4}, True),
        ({"sliding_window": [3, None]}, False),
        ({"sliding_window": [3, 3]}, True),
        ({"rope_scaling": {**YARN, "rope_type": "yarn"}}, False),
        ({"rope_scaling": {**YARN, "rope_type": "dynamic"}}, False),
    ],
)
def test_keras_hub_knows_the_class_of_what_it_computes(tmp_path, changes, known):
    """The class of anything else it does not know, and refuses; here both are read."""
    model = small_causal_lm(**changes)
    model.save_to_preset(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    task = json.loads((tmp_path / "task.json").read_text())
    expected = "keras_hub>MistralBackbone" if known else "mistral_lib>ExtendedMistralBackbone"
    assert config["registered_name"] == expected
    assert task["config"]["backbone"]["registered_name"] == expected
    assert task["registered_name"] == "keras_hub>MistralCausalLM"
    assert ("rope_scaling" in config["config"]) == ("rope_scaling" in changes)
    loaded = MistralCausalLM.from_preset(tmp_path)
    assert loaded.backbone.config == model.backbone.config
    assert_same_weights(loaded, model)


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
    model.save_to_preset(tmp_path)
    before = read(tmp_path)
    command = [sys.executable, "-c", KILLED, tmp_path]
    result = subprocess.run(command, cwd=os.path.dirname(__file__), check=False)
    assert result.returncode == -9
    (left,) = tmp_path.glob(".saving-*")
    assert "model.weights.h5" in files(left / "new")
    assert_same_weights(MistralCausalLM.from_preset(tmp_path), model)
    model.preprocessor.save_to_preset(tmp_path)  # which removes what was left
    assert read(tmp_path) == before


# Stops saving before each of its steps, as if the process were killed: nothing that it does
# afterwards takes effect. Then the folder is opened.
STOPPED = """
import itertools, os, re, shutil, sys
from pathlib import Path
from small_presets import assert_same_weights, small_backbone, small_causal_lm
from test_saving import read
from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer
from mistral_lib.presets.addresses import open_source

top, kind = Path(sys.argv[1]), sys.argv[2]
STEPS = ("open", "os.", "shutil.", "fcntl.", "fsync")
left = None

class Stopped(BaseException):
    pass

def count(event, arguments=()):
    global left
    if left is not None and event.startswith(STEPS):
        left -= 1
        if left < 0:
            raise Stopped

def adapted(rank):
    backbone = small_backbone(rank)
    backbone.enable_lora(rank, "down")
    return backbone

def contents(folder):
    found = {name: data for name, data in read(folder).items() if ".saving-" not in name}
    return {name: re.sub(rb"date_saved.*", b"", data) for name, data in found.items()}

def load(folder):
    if kind == "adapter":
        backbone = small_backbone(1)
        backbone.load_lora_weights(folder)
        return backbone
    return MistralCausalLM.from_preset(folder).backbone

if kind == "adapter":
    saves = [lambda folder, b=adapted(rank): b.export_lora_to_peft(folder) for rank in (1, 2)]
else:
    preset = kind == "preset"  # transformers has no such vocabulary
    one = small_causal_lm(seed=1, preprocessor=True if preset else None)
    two = small_causal_lm(seed=2, num_layers=3, preprocessor=None)
    save = "save_to_preset" if preset else "export_to_transformers"
    saves = [
        lambda folder: getattr(one, save)(folder, max_shard_size=1e-6),
        lambda folder: getattr(two, save)(folder),
    ]
saves[0](top / "old")
shutil.copytree(top / "old", top / "new")
saves[1](top / "new")
old, new = contents(top / "old"), contents(top / "new")
assert not old.keys() <= new.keys() or kind == "adapter"  # some files go

sys.addaudithook(count)
os.fsync = lambda opened: count("fsync")  # of which no hook hears, and which takes long
found = []
for steps in itertools.count():
    folder = top / "folder"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(top / "old", folder)
    (folder / "README.md").write_text("mine")
    left = steps
    try:
        saves[1](folder)
    except Stopped:
        pass
    finished, left = left >= 0, None
    open_source(folder)
    assert (folder / "README.md").read_text() == "mine"
    (folder / "README.md").unlink()
    state = contents(folder)
    assert state in (old, new), (steps, state.keys())
    found.append(state == new)
    if len(found) > 1 and found[-1] != found[-2] or finished or steps == 0:
        expected = load(top / ("new" if state == new else "old"))
        assert_same_weights(load(folder), expected)
    if finished:
        break
assert found == sorted(found) and found[-1] and not found[0]
print(len(found))
"""


@pytest.mark.parametrize("kind", ["preset", "checkpoint", "adapter"])
def test_stopped_at_every_step(tmp_path, kind):
    here = os.path.dirname(__file__)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(here), here])}
    command = [sys.executable, "-c", STOPPED, tmp_path, kind]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert int(result.stdout) > 40


# --- A disk that is full -------------------------------------------------------------------------


def doors():
    """Everything that writes files, by what it is called."""
    model, adapted = small_causal_lm(seed=2), small_backbone()
    adapted.enable_lora(4)
    options = {"normalization_rule_name": "identity", "remove_extra_whitespaces": False}
    tokenizer = MistralTokenizer(trained_model(**options))
    model.preprocessor = MistralCausalLMPreprocessor(tokenizer, 12)
    return {
        "preset": model.save_to_preset,
        "shards": lambda folder: model.save_to_preset(folder, max_shard_size=4e-6),
        "backbone": model.backbone.save_to_preset,
        "LoRA in a preset": adapted.save_to_preset,
        "preprocessor": model.preprocessor.save_to_preset,
        "tokenizer": tokenizer.save_to_preset,
        "assets": tokenizer.save_assets,
        "checkpoint": model.export_to_transformers,
        "checkpoint's tokenizer": tokenizer.export_to_transformers,
        "adapter": lambda folder: adapted.save_lora_weights(folder / "a.lora.h5"),
        "PEFT adapter": adapted.export_lora_to_peft,
    }


@pytest.fixture(scope="module", params=doors())
def door(request):
    return doors()[request.param]


@pytest.mark.parametrize("limit", [0, 100, 1000, 3000])
def test_a_file_that_may_not_grow(tmp_path, door, limit):
    """A limit of the system, of a disk or of its format; a full disk is another number."""
    resource = pytest.importorskip("resource")
    folder = tmp_path / "a"
    door(folder)
    before = read(folder)
    if limit > max(map(len, before.values())):
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        with pytest.raises(OSError, match=r"could not be saved: .*File too large") as caught:
            door(folder)
        with pytest.raises(OSError, match=r"could not be saved: .*File too large"):
            door(tmp_path / "b")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert caught.value.errno == errno.EFBIG
    assert "\n" not in str(caught.value)
    assert read(folder) == before
    assert not (tmp_path / "b").exists() or not files(tmp_path / "b")


MOUNTED = """
import os, sys
from pathlib import Path
from small_presets import assert_same_weights, small_backbone
from mistral_lib import MistralBackbone

disk = Path(sys.argv[1])
device, one = disk.stat().st_dev, small_backbone(1)
assert device != disk.parent.stat().st_dev
for save in (one.save_to_preset, one.export_to_transformers):
    save(disk)
    assert disk.stat().st_dev == device
    assert_same_weights(MistralBackbone.from_preset(disk), one)
    for kept in disk.iterdir():
        if kept.name != "lost+found":
            kept.unlink()
one.save_to_preset(disk)
before = {file.name: file.read_bytes() for file in disk.glob("*.*")}
for size in (1e-6, None):
    try:
        small_backbone(2, vocabulary_size=30000).save_to_preset(disk, max_shard_size=size)
    except OSError as error:
        print(error)
assert {file.name: file.read_bytes() for file in disk.glob("*.*")} == before
assert_same_weights(MistralBackbone.from_preset(disk), one)
"""


def test_a_disk_of_its_own(tmp_path):
    """A preset may be the topmost folder of a disk, and that may become full."""
    here = os.path.dirname(__file__)
    (tmp_path / "disk").mkdir()
    mount = "mount -t tmpfs -o size=1m tmpfs disk && mkdir disk/lost+found"
    for rights in ("-m", "-rm"):  # as root, or as one's own root
        alone = ["unshare", rights, "sh", "-c"]
        if shutil.which("unshare") is None:
            continue
        if subprocess.run([*alone, mount], cwd=tmp_path, capture_output=True).returncode == 0:
            break
    else:
        pytest.xfail("nothing can be mounted here; the next test runs everywhere")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([os.path.dirname(here), here])}
    command = [*alone, f'{mount} && exec "$0" -c "$1" disk', sys.executable, MOUNTED]
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 2
    assert all("disk could not be saved: No space left on device" in line for line in lines)


@pytest.mark.parametrize("kind", ["preset", "checkpoint"])
def test_as_on_a_disk_of_its_own(tmp_path, kind, monkeypatch):
    """The system refuses to move or remove the folder, and to move anything in or out of it."""
    disk, refused = tmp_path / "disk", []

    def mounted(original):
        def act(*paths, **keywords):
            inside = [Path(path).resolve().is_relative_to(disk) for path in paths]
            code = errno.EBUSY if disk in map(Path, paths) else errno.EXDEV
            if disk in map(Path, paths) or len(set(inside)) > 1:
                refused.append(paths)
                raise OSError(code, os.strerror(code), *map(str, paths[:1]))
            return original(*paths, **keywords)

        return act

    for name in ("rename", "replace", "rmdir", "link"):
        monkeypatch.setattr(os, name, mounted(getattr(os, name)))
    (disk / "lost+found").mkdir(parents=True)
    for seed in (1, 2):
        one = small_backbone(seed)
        {"preset": one.save_to_preset, "checkpoint": one.export_to_transformers}[kind](disk)
        assert_same_weights(MistralBackbone.from_preset(disk), one)
    assert refused == []
    with pytest.raises(OSError, match=os.strerror(errno.EBUSY)):
        os.replace(disk, tmp_path / "elsewhere")  # so that the test can fail
    with pytest.raises(OSError, match=os.strerror(errno.EXDEV)):
        os.replace(disk / "config.json", tmp_path / "config.json")

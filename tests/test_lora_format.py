"""mistral_lib/presets/lora_format.py: adapters in files of their own."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
from lora_models import CONFIG, adapted_backbone, base_bytes, make_backbone, outputs

from mistral_lib import MistralBackbone, lora
from mistral_lib.presets import lora_format

QUERY = "transformer_layer_0/self_attention/query"


@pytest.fixture(scope="module")
def adapted():
    return adapted_backbone(3, ["query", "up"], 6)


@pytest.fixture
def path(adapted, tmp_path):
    adapted.save_lora_weights(tmp_path / "a.lora.h5")
    return tmp_path / "a.lora.h5"


def refuses(path, message, error=ValueError):
    """Loading fails with this message, and the backbone stays as it was."""
    backbone = make_backbone()
    before = base_bytes(backbone)
    with pytest.raises(error, match=message):
        backbone.load_lora_weights(path)
    assert base_bytes(backbone) == before
    assert lora.settings(backbone) is None
    assert all(variable.trainable for variable in backbone.variables)


@pytest.mark.parametrize("kind", [str, Path])
def test_round_trip(adapted, path, kind):
    other = make_backbone()
    other.load_lora_weights(kind(path))
    np.testing.assert_array_equal(outputs(other), outputs(adapted))
    assert lora.settings(other) == lora.settings(adapted)
    assert [p.name for p in path.parent.iterdir()] == ["a.lora.h5"]


def test_a_plan_that_differs_from_layer_to_layer(tmp_path):
    backbone = make_backbone()
    plan = {
        QUERY: {"rank": 2, "lora_alpha": 0.5},
        "transformer_layer_1/feedforward/down": {"rank": 5, "lora_alpha": 20},
    }
    lora.apply(backbone, plan)
    backbone.save_lora_weights(tmp_path / "a.lora.h5")
    other = make_backbone()
    other.load_lora_weights(tmp_path / "a.lora.h5")
    assert lora.settings(other) == plan


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "mixed_float16"])
def test_a_rounded_copy_of_the_base_is_the_same_base(path, dtype):
    # Weights too small for float16's normal range are the hard ones.
    tiny = make_backbone()
    for variable in tiny.weights:
        variable.assign(variable * np.where(np.arange(variable.shape[-1]) % 2, 1e-6, 1))
    tiny.enable_lora(2)
    tiny.save_lora_weights(path)
    copy = make_backbone(dtype)
    for variable, value in zip(copy.weights, (v for v in tiny.weights if "lora" not in v.path)):
        variable.assign(value)
    copy.load_lora_weights(path)
    assert lora.settings(copy) == lora.settings(tiny)


@pytest.mark.parametrize("part", ["kernels", "norms"])
def test_another_base(path, part):
    backbone = make_backbone()
    changed = backbone.transformer_layers[1]
    variable = {
        "kernels": changed.feedforward.gate.kernel,
        "norms": changed.feedforward_layernorm.scale,
    }[part]
    variable.assign(variable.value * 1.01)  # as fine-tuning would
    with pytest.raises(ValueError, match=f"trained on another base model: the {part} of this one"):
        backbone.load_lora_weights(path)
    assert lora.settings(backbone) is None
    lora_format.load(backbone, path, check_base=False)


def test_a_base_of_other_sizes(path):
    with pytest.raises(ValueError, match=r"query/a must have the shape .32, 3., but has .*16, 3"):
        make_backbone(hidden_dim=32).load_lora_weights(path)
    with pytest.raises(ValueError, match=r"transformer_layer_1.*no such projection"):
        make_backbone(num_layers=1).load_lora_weights(path)


def test_another_rank(path):
    backbone = make_backbone()
    backbone.enable_lora(2)
    before = [np.asarray(v.value) for v in backbone.variables]
    with pytest.raises(ValueError, match=r"has LoRA already, with rank 2.*asked for was rank 3"):
        backbone.load_lora_weights(path)
    for variable, value in zip(backbone.variables, before):
        np.testing.assert_array_equal(variable.value, value)


def test_names(tmp_path):
    with pytest.raises(FileNotFoundError, match="no LoRA file"):
        make_backbone().load_lora_weights(tmp_path / "none.lora.h5")
    with pytest.raises(ValueError, match=r"end in \.lora\.h5"):
        adapted_backbone(1).save_lora_weights(tmp_path / "a.h5")


def test_files_that_are_no_adapters(path):
    whole = path.read_bytes()
    path.write_bytes(b"not HDF5")
    refuses(path, "not an HDF5 file")
    for end in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:end])
        refuses(path, "HDF5 file|holds no adapter|declares")
    path.unlink()
    with h5py.File(path, "w"):
        pass
    refuses(path, "holds no adapter")
    path.unlink()
    path.mkdir()
    refuses(path, "not a regular file")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delitem__(f"{QUERY}/b"), f"{QUERY}/b must have the shape .*missing"),
        (lambda file: file.create_dataset("x/a", data=np.ones(3)), "holds x/a, which its settings"),
        (
            lambda file: (file.__delitem__(f"{QUERY}/a"), file.update({f"{QUERY}/a": np.ones(3)})),
            "but has the shape .3,",
        ),
        (
            lambda file: (
                file.__delitem__(f"{QUERY}/a"),
                file.__setitem__(f"{QUERY}/a", h5py.ExternalLink("/etc/passwd", "x")),
            ),
            "is a link of the kind ExternalLink",
        ),
        (lambda file: file.__delitem__("base/norms"), "lacks the fingerprint"),
        (lambda file: file.attrs.__setitem__("settings", np.zeros(9)), "holds no adapter"),
        (lambda file: file.attrs.__setitem__("settings", "[1"), "holds no adapter"),
        (lambda file: file.attrs.__setitem__("settings", "{}"), "holds no adapter"),
    ],
)
def test_damaged_files(path, change, message):
    with h5py.File(path, "r+") as file:
        change(file)
    refuses(path, message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({QUERY: 4}, "needs a rank and a lora_alpha, but has 4"),
        ({QUERY: {"rank": 3, "lora_alpha": 6, "more": 1}}, "needs a rank and a lora_alpha"),
        ({QUERY: {"rank": 0, "lora_alpha": 6}}, "rank must be at least 1"),
        ({QUERY: {"rank": "3", "lora_alpha": 6}}, "rank must be an integer"),
        ({QUERY: {"rank": 3, "lora_alpha": float("nan")}}, "lora_alpha must be above 0"),
        ({QUERY: {"rank": 4, "lora_alpha": 6}}, "must have the shape .16, 4., but has the"),
        ({"../query": {"rank": 4, "lora_alpha": 6}}, "no such projection"),
    ],
)
def test_settings_that_lie(path, settings, message):
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = json.dumps(settings)
    refuses(path, message, (ValueError, TypeError))


def test_a_save_that_fails_leaves_the_old_file(adapted, path, monkeypatch):
    before = path.read_bytes()

    def fail(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        adapted.save_lora_weights(path)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["a.lora.h5"]


# --- Paths ---------------------------------------------------------------------------------------


def test_paths_in_the_home_folder_and_missing_folders(tmp_path, monkeypatch):
    """As everywhere else: `~` is the home folder, and a missing folder is made."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    backbone = make_backbone()
    backbone.enable_lora(2)
    backbone.save_lora_weights("~/adapters/new/a.lora.h5")
    assert [file.name for file in (tmp_path / "adapters/new").iterdir()] == ["a.lora.h5"]
    make_backbone().load_lora_weights("~/adapters/new/a.lora.h5")
    backbone.export_lora_to_peft("~/peft/new")
    make_backbone().load_lora_weights("~/peft/new")
    assert not (tmp_path / "~").exists()
    with pytest.raises(FileNotFoundError, match="There is no LoRA file"):
        make_backbone().load_lora_weights("~/other.lora.h5")


# KerasHub's adapters -----------------------------------------------------------------------------

HUB_PLACES = {"query": 11, "value": 9}  # in the first block; each has 11 layers


def hub_file(path, change=lambda h5: None):
    """As KerasHub 0.32 saves the LoRA of query and value, with layers by their numbers."""
    rng, updates = np.random.default_rng(0), {}
    with h5py.File(path, "w") as h5:
        h5["lora/vars/rank"] = 2
        for block in range(CONFIG["num_layers"]):
            for name, place in HUB_PLACES.items():
                heads = CONFIG["num_query_heads" if name == "query" else "num_key_value_heads"]
                first, second = rng.normal(size=(16, heads, 2)), rng.normal(size=(2, 4))
                group = h5.create_group(f"lora/{place + 11 * block}/vars")
                group["lora_kernel_a"] = first.astype("float32")
                group["lora_kernel_b"] = second.astype("float32")
                layer = f"transformer_layer_{block}/self_attention/{name}"
                updates[layer] = np.einsum("dhr,rk->dhk", first, second).reshape(16, -1)
        change(h5)
    return updates


def test_an_adapter_of_keras_hub_is_read(tmp_path):
    updates = hub_file(tmp_path / "a.lora.h5")
    backbone = make_backbone()
    backbone.load_lora_weights(tmp_path / "a.lora.h5")
    layers = lora.projections(backbone)
    assert set(lora.settings(backbone)) == set(updates)
    for path, update in updates.items():
        merged = layers[path].merged_kernel() - layers[path].kernel.value
        np.testing.assert_allclose(merged, update, atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda h5: h5.move("lora/9", "lora/12"), "for another model: it holds lora/12"),
        (lambda h5: h5.move("lora/9", "lora/99"), "for another model: it holds lora/99"),
        (lambda h5: h5.move("lora/9", "lora/3"), "for another model: .* must have the shape"),
        (lambda h5: h5.__delitem__("lora/9/vars/lora_kernel_b"), "but is damaged at"),
        (lambda h5: h5.__delitem__("lora/9/vars/lora_kernel_a"), "but factors are missing"),
        (lambda h5: [h5.__delitem__(f"lora/{i}") for i in (9, 11, 20, 22)], "factors are missing"),
    ],
)
def test_an_adapter_of_keras_hub_for_another_model(tmp_path, change, message):
    hub_file(tmp_path / "a.lora.h5", change)
    refuses(tmp_path / "a.lora.h5", f"was saved by KerasHub.*{message}")


def test_a_preset_that_is_an_adapter_is_named(tmp_path):
    hub_file(tmp_path / "a.lora.h5")
    with pytest.raises(NotADirectoryError, match=r"with backbone.load_lora_weights\(file\)"):
        MistralBackbone.from_preset(tmp_path / "a.lora.h5")


# The base model, quantized -----------------------------------------------------------------------

KINDS = [None, "int8", "int4", "int4/16"]


def base(quantization=None, update=0.0, dtype="float32"):
    """A base model; perhaps with a merged update of that size, where kernels have 1/8 or so."""
    backbone = make_backbone(dtype=dtype, hidden_dim=64, intermediate_dim=96)
    if update:
        backbone.enable_lora(4)
        for index, variable in enumerate(backbone.trainable_variables):
            size = update / 2 if variable.path.endswith("_b") else 1.0
            variable.assign(np.random.default_rng(index).normal(0, size, variable.shape))
        backbone.merge_lora()
    if quantization:
        backbone.quantize(quantization)
    return backbone


def save_adapter(backbone, path):
    backbone.enable_lora(2)
    backbone.save_lora_weights(path)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("saved", KINDS)
def test_the_same_base_quantized_in_any_way_is_the_same_base(tmp_path, saved, dtype):
    save_adapter(base(saved), tmp_path / "a.lora.h5")
    for kind in KINDS:
        base(kind, dtype=dtype).load_lora_weights(tmp_path / "a.lora.h5")


@pytest.mark.slow
@pytest.mark.parametrize("saved", KINDS)
def test_a_merged_base_is_another_one_when_it_is_quantized_too(tmp_path, saved):
    """An update is seen if it is larger than a third of the coarser step."""
    save_adapter(base(saved), tmp_path / "a.lora.h5")
    for kind in KINDS:
        coarse = {saved, kind} - {None, "int8"}
        with pytest.raises(ValueError, match="another base model: the kernels of this one differ"):
            base(kind, 0.1 if coarse else 0.01).load_lora_weights(tmp_path / "a.lora.h5")


def test_what_cannot_be_told(tmp_path):
    """A hundredth of a step: said in `_agree`."""
    save_adapter(base(), tmp_path / "a.lora.h5")
    base("int4", 1e-4).load_lora_weights(tmp_path / "a.lora.h5")


def test_a_file_without_the_kernels_of_a_quantized_base_loads(tmp_path):
    """As they were written before."""
    save_adapter(base("int8"), tmp_path / "a.lora.h5")
    with h5py.File(tmp_path / "a.lora.h5", "r+") as file:
        del file["base/dequantized"], file["base/steps"]
    base().load_lora_weights(tmp_path / "a.lora.h5")

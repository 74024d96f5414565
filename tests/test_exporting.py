"""mistral_lib/presets/exporting.py: the files that transformers itself would write."""

import json

import keras
import numpy as np
import pytest
from reference.make_formats import CASES, FOLDER, TOKEN_IDS, config_of
from safetensors.numpy import load_file
from small_presets import (
    INPUTS,
    assert_same_weights,
    small_backbone,
    small_causal_lm,
    small_tokenizer,
)
from vocabularies import SENTENCES, TEXTS, trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
)
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.transformers_format import TransformersFormat

BACKBONE = {"config.json", "generation_config.json", "model.safetensors"}
TEXT = {"tokenizer.json", "tokenizer.model", "tokenizer_config.json"}
TRANSFORMERS = [name for name in CASES if not name.startswith("mistral")]
TOLERANCE = 1e-5  # of logits of size 1


DYNAMIC = {"rope_type": "dynamic", "factor": 8.0, "original_max_position_embeddings": 8}


def files(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def text_model(**changes):
    """A model whose vocabulary is like Mistral's."""
    proto = trained_model(normalization_rule_name="identity", remove_extra_whitespaces=False)
    preprocessor = MistralCausalLMPreprocessor(MistralTokenizer(proto), 12)
    return small_causal_lm(preprocessor=preprocessor, **changes)


def stored_tensors(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        found |= load_file(file)
    return {name: (array.shape, array.dtype, array.tobytes()) for name, array in found.items()}


# --- What is written -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_what_transformers_wrote_comes_out_again(tmp_path, name):
    """Names, shapes, dtypes and bits of the tensors, and what the config says."""
    backbone = MistralBackbone.from_preset(FOLDER / name, dtype="auto")
    backbone.export_to_transformers(tmp_path)
    assert stored_tensors(tmp_path) == stored_tensors(FOLDER / name)
    config = TransformersFormat().read_arguments(LocalFolder(tmp_path))
    assert {key: config[key] for key in config_of(name)} == config_of(name)
    theirs = json.loads((FOLDER / "older" / "config.json").read_text())
    assert theirs.keys() - {"bos_token_id", "eos_token_id", "transformers_version"} <= (
        json.loads((tmp_path / "config.json").read_text()).keys()
    )
    assert TransformersFormat().read_dtype(LocalFolder(tmp_path)) == backbone.variable_dtype


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 6, "num_key_value_heads": 1},
        {"tie_word_embeddings": True, "sliding_window": None},
        {"rope_max_wavelength": 500, "rope_scaling_factor": 4, "layer_norm_epsilon": 1e-5},
    ],
)
def test_round_trip(tmp_path, dtype, changes):
    backbone = small_backbone(dtype=dtype, **changes)
    kernel = np.array(backbone.transformer_layers[0].feedforward.gate.kernel.value)
    # Through float16, these would become 0 and infinite.
    kernel[0, :2] = (1e-9, 70000.0) if dtype != "float16" else (1e-4, 60000.0)
    backbone.transformer_layers[0].feedforward.gate.kernel.assign(kernel)
    backbone.export_to_transformers(tmp_path, max_shard_size=2e-6)
    loaded = MistralBackbone.from_preset(tmp_path, dtype="auto")
    assert_same_weights(backbone, loaded)
    expected, found = backbone.get_config(), loaded.get_config()
    assert {**expected, "name": None} == {**found, "name": None}


SCALES_QUERIES = {
    "rope_type": "default",
    "llama_4_scaling_beta": 0.1,
    "original_max_position_embeddings": 8,
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sliding_window": [3, 5]}, r"have the windows \(3, 5\), but in transformers a layer"),
        (
            {"sliding_window": [3, None], "rope_scaling": SCALES_QUERIES},
            r"the windows \(3, None\) and llama_4_scaling_beta, but in transformers",
        ),
    ],
)
def test_what_no_type_of_transformers_computes(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        small_backbone(**changes).export_to_transformers(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


def test_files(tmp_path):
    model = text_model()
    model.export_to_transformers(tmp_path / "all")
    assert files(tmp_path / "all").keys() == BACKBONE | TEXT
    assert files(tmp_path / "all")["tokenizer.model"] == model.preprocessor.tokenizer.proto
    loaded = MistralCausalLM.from_preset(tmp_path / "all")
    assert_same_weights(model, loaded)
    assert loaded.preprocessor.tokenizer.proto == model.preprocessor.tokenizer.proto
    config = json.loads((tmp_path / "all/config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"]) == (1, 2)
    model.backbone.export_to_transformers(tmp_path / "backbone")
    assert files(tmp_path / "backbone").keys() == BACKBONE
    model.preprocessor.tokenizer.export_to_transformers(tmp_path / "tokenizer")
    assert files(tmp_path / "tokenizer").keys() == TEXT
    assert MistralTokenizer.from_preset(tmp_path / "tokenizer").encode("a") == (
        loaded.preprocessor.tokenizer.encode("a")
    )
    small_causal_lm(preprocessor=None).export_to_transformers(tmp_path / "ids")
    assert files(tmp_path / "ids").keys() == BACKBONE


@pytest.mark.parametrize(
    ("ends", "with_text", "written"),
    [((), False, None), ((7,), False, 7), ((), True, 2), ((2,), True, 2), ((7, 2), True, [2, 7])],
)
def test_ids_that_end_a_text(tmp_path, ends, with_text, written):
    """They come back from both formats."""
    text = text_model().preprocessor if with_text else None
    model = MistralCausalLM(small_backbone(), text, end_token_ids=ends)
    model.export_to_transformers(tmp_path / "transformers")
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tmp_path / "transformers" / name).read_text())
        assert content.get("eos_token_id") == written
    model.save_to_preset(tmp_path / "keras")
    assert MistralCausalLM.from_preset(tmp_path / "keras").end_token_ids == ends
    assert MistralCausalLM.from_config(model.get_config()).end_token_ids == ends


def test_shards(tmp_path):
    backbone, limit = small_backbone(), 2000
    backbone.export_to_transformers(tmp_path, max_shard_size=limit / 2**30)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    sizes = [4 * np.prod(variable.shape) for variable in backbone.weights]
    assert index["metadata"]["total_size"] == sum(sizes)
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert {file.name for file in shards} == set(index["weight_map"].values())
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    for file in shards:
        arrays = load_file(file)
        assert len(arrays) == 1 or sum(array.nbytes for array in arrays.values()) <= limit
        assert {index["weight_map"][name] for name in arrays} == {file.name}
    assert len(shards) == 5  # two embeddings, two blocks, the last norm
    assert_same_weights(MistralBackbone.from_preset(tmp_path), backbone)


# --- Nothing is lost -----------------------------------------------------------------------------


def test_no_weights_of_another_backbone_stay(tmp_path):
    small_backbone(1).export_to_transformers(tmp_path, max_shard_size=2e-6)
    (tmp_path / "README.md").write_text("mine")
    two = small_backbone(2)
    two.export_to_transformers(tmp_path)
    assert files(tmp_path).keys() == BACKBONE | {"README.md"}
    assert_same_weights(MistralBackbone.from_preset(tmp_path), two)


def test_one_format_does_not_replace_another(tmp_path):
    """Both have a config.json: half of each would be neither."""
    model = text_model()
    model.save_to_preset(tmp_path / "keras")
    model.export_to_transformers(tmp_path / "transformers")
    before = files(tmp_path / "transformers")
    for save, folder in (
        (model.export_to_transformers, "keras"),
        (model.backbone.export_to_transformers, "keras"),
        (model.preprocessor.tokenizer.export_to_transformers, "keras"),
        (model.save_to_preset, "transformers"),
        (model.preprocessor.save_to_preset, "transformers"),
    ):
        with pytest.raises(FileExistsError, match="none of a preset in this format"):
            save(tmp_path / folder)
    assert files(tmp_path / "transformers") == before
    (tmp_path / "home").mkdir()
    (tmp_path / "home/notes.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="none of a preset in this format"):
        model.export_to_transformers(tmp_path / "home")


def test_a_failure_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    one = small_backbone(1)
    one.export_to_transformers(tmp_path / "a")
    before = files(tmp_path / "a")
    for problem in ("unmerged LoRA", "quantized", "bad size", "vocabulary"):
        backbone = small_backbone(2)
        if problem == "unmerged LoRA":
            backbone.enable_lora(2)
            message, save = "has LoRA, .* Call merge_lora", backbone.export_to_transformers
        elif problem == "quantized":
            backbone.transformer_layers[1].feedforward.up.quantize("int8")
            message, save = r"is quantized \(.*up\)", backbone.export_to_transformers
        elif problem == "bad size":
            message = "max_shard_size must be above 0"
            save = lambda folder: small_backbone().export_to_transformers(folder, 0)  # noqa: E731
        else:
            message, save = "is not like Mistral's", small_causal_lm().export_to_transformers
        with pytest.raises(ValueError, match=message):
            save(tmp_path / "a")
        assert files(tmp_path / "a") == before
        assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_merged_lora_is_exported(tmp_path):
    backbone = small_backbone()
    backbone.enable_lora(2)
    backbone.transformer_layers[0].self_attention.query.lora_kernel_b.assign(np.ones((2, 8)))
    backbone.merge_lora()
    backbone.export_to_transformers(tmp_path)
    assert_same_weights(MistralBackbone.from_preset(tmp_path), backbone)


# --- The peers open it ---------------------------------------------------------------------------


@pytest.mark.peer
@pytest.mark.parametrize("max_shard_size", [10, 2e-6])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head_dim": 6, "num_key_value_heads": 1},
        {"tie_word_embeddings": True, "sliding_window": None},
        {"rope_max_wavelength": 500, "rope_scaling_factor": 4, "layer_norm_epsilon": 1e-5},
        {"dtype": "bfloat16"},
        {"sliding_window": [3, None]},
        {"rope_scaling": SCALES_QUERIES, "sliding_window": 4},
        {"rope_scaling": {**DYNAMIC, "factor": 2.0}, "head_dim": 4},
        {
            "rope_scaling": {
                **DYNAMIC,
                "rope_type": "llama3",
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
            }
        },
    ],
)
def test_transformers_opens_it(tmp_path, max_shard_size, changes):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    torch = pytest.importorskip("torch", reason="torch is not installed")
    model = text_model(**changes)
    model.export_to_transformers(tmp_path, max_shard_size)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert str(theirs.dtype) == f"torch.{model.backbone.variable_dtype}"
    assert theirs.generation_config.eos_token_id == 2
    if changes.get("dtype") == "bfloat16":  # their numbers in our arithmetic
        model = MistralCausalLM.from_preset(tmp_path, dtype="float32", preprocessor=None)
        theirs = theirs.float()
    mask = INPUTS["padding_mask"]
    with torch.no_grad():
        logits = theirs(
            torch.from_numpy(INPUTS["token_ids"]), attention_mask=torch.from_numpy(mask).long()
        ).logits.numpy()
    assert np.abs(logits[mask]).max() > 1
    assert np.abs(np.asarray(model(INPUTS)) - logits)[mask].max() <= TOLERANCE
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokenizer = MistralTokenizer.from_preset(tmp_path)
    for text in [*SENTENCES, TEXTS["spaces"], TEXTS["emoji"]]:
        assert theirs(text)["input_ids"] == tokenizer.encode(text, add_bos=True)


@pytest.mark.peer
def test_keras_hub_opens_it(tmp_path):
    """Which reads transformers' checkpoints too, through float16."""
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    backbone = small_backbone(head_dim=4, num_query_heads=8)
    backbone.export_to_transformers(tmp_path)
    theirs = models.MistralBackbone.from_preset(str(tmp_path), dtype="float32")
    mask = INPUTS["padding_mask"]
    inputs = {**INPUTS, "padding_mask": mask.astype("int32")}
    difference = np.asarray(theirs(inputs)) - np.asarray(backbone(INPUTS))
    assert np.abs(difference[mask]).max() < 1e-2
    assert keras.backend.backend() == "jax"


@pytest.mark.peer
@pytest.mark.parametrize("name", ["older_linear", "head_dim", "mistral_theta"])
def test_from_one_format_to_keras_hub(tmp_path, name):
    """What transformers and mistral-inference computed, KerasHub computes from what is saved."""
    models = pytest.importorskip("keras_hub.models", reason="KerasHub is not installed")
    MistralBackbone.from_preset(FOLDER / name, dtype="float32").save_to_preset(tmp_path)
    theirs = models.MistralBackbone.from_preset(str(tmp_path), dtype="float32")
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": np.ones_like(TOKEN_IDS)}
    logits = np.asarray(theirs.token_embedding(theirs(inputs), reverse=True))
    assert np.abs(logits - np.load(FOLDER / "logits.npz")[name]).max() <= TOLERANCE


# --- What a checkpoint says beside what the model uses -------------------------------------------

ADDED = {"<|im_end|>": 301, "<|im_start|>": 300}
TEMPLATE = "{{ messages }}"


def edit(file, **changes):
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.fixture(params=["files of their own", "all in one"])
def chat_checkpoint(request, tmp_path):
    """A checkpoint as after training on ChatML: two tokens more, a template, a longer context."""
    folder = tmp_path / "a"
    text_model(vocabulary_size=302).export_to_transformers(folder)
    edit(folder / "config.json", max_position_embeddings=131072)
    if request.param == "all in one":
        decoder = {str(id): {"content": token, "special": True} for token, id in ADDED.items()}
        decoder["0"] = {"content": "<unk>", "special": True}  # in the vocabulary already
        edit(folder / "tokenizer_config.json", chat_template=TEMPLATE, added_tokens_decoder=decoder)
    else:
        (folder / "added_tokens.json").write_text(json.dumps(ADDED))
        (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


def said(folder):
    config = json.loads((folder / "config.json").read_text())
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    assert json.loads((folder / "added_tokens.json").read_text()) == ADDED
    return (
        config["max_position_embeddings"],
        json.loads((folder / "tokenizer_config.json").read_text())["chat_template"],
        {token: id for token, id in added.items() if id >= 300},
    )


def test_what_a_checkpoint_says_comes_out_again(chat_checkpoint, tmp_path):
    model = MistralCausalLM.from_preset(chat_checkpoint)
    model.export_to_transformers(tmp_path / "b")
    assert said(tmp_path / "b") == (131072, TEMPLATE, ADDED)
    MistralCausalLM.from_preset(tmp_path / "b").export_to_transformers(tmp_path / "c")
    assert said(tmp_path / "c") == (131072, TEMPLATE, ADDED)
    model.export_to_transformers(chat_checkpoint)  # in place of itself
    assert said(chat_checkpoint) == (131072, TEMPLATE, ADDED)
    assert not (chat_checkpoint / "chat_template.jinja").exists()


def test_a_tokenizer_keeps_what_its_checkpoint_said(chat_checkpoint, tmp_path):
    tokenizer = MistralTokenizer.from_preset(chat_checkpoint)
    copy = MistralTokenizer.from_config(json.loads(json.dumps(tokenizer.get_config())))
    copy.export_to_transformers(tmp_path / "b")
    assert json.loads((tmp_path / "b/added_tokens.json").read_text()) == ADDED
    assert json.loads((tmp_path / "b/tokenizer_config.json").read_text())["chat_template"]


def test_nothing_remains_of_another_tokenizer(chat_checkpoint):
    model = text_model()
    model.export_to_transformers(chat_checkpoint)
    for name in ("added_tokens.json", "chat_template.jinja"):
        assert not (chat_checkpoint / name).exists()
    assert "chat_template" not in (chat_checkpoint / "tokenizer_config.json").read_text()
    config = json.loads((chat_checkpoint / "config.json").read_text())
    assert config["max_position_embeddings"] == 32768


def test_a_preset_of_keras_hub_keeps_what_keras_hub_has_no_place_for(chat_checkpoint, tmp_path):
    """Saved as a preset, loaded and exported: chat template, added tokens, context length."""
    model = MistralCausalLM.from_preset(chat_checkpoint)
    model.save_to_preset(tmp_path / "preset")
    loaded = MistralCausalLM.from_preset(tmp_path / "preset")
    assert loaded.preprocessor.tokenizer.extras == model.preprocessor.tokenizer.extras != {}
    assert loaded.backbone.context_length == model.backbone.context_length is not None
    tokenizer = MistralTokenizer.from_preset(tmp_path / "preset")
    tokenizer.save_to_preset(tmp_path / "tokenizer")
    again = MistralTokenizer.from_preset(tmp_path / "tokenizer")
    assert again.extras == model.preprocessor.tokenizer.extras
    for which, name in ((model, "a"), (loaded, "b")):
        which.export_to_transformers(tmp_path / name)
    files = [sorted(file.name for file in (tmp_path / name).iterdir()) for name in "ab"]
    assert files[0] == files[1]
    for file in files[0]:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file


@pytest.mark.parametrize(
    ("extras", "kept"),
    [
        (3, {}),
        ({"chat_template": 3, "added_tokens": [1]}, {}),
        (
            {"added_tokens": {"a": "1", "b": 300}, "prefix": "x", "version": 7, "other": 1},
            {"added_tokens": [{"id": 300, "content": "b"}]},
        ),
        ({"chat_template": [{"name": "a"}, 3]}, {}),
    ],
)
def test_what_somebody_else_wrote_there_is_not_believed(tmp_path, extras, kept):
    small_tokenizer().save_to_preset(tmp_path)
    edit(tmp_path / "tokenizer.json", extras=extras)
    assert MistralTokenizer.from_preset(tmp_path).extras == kept


def test_keras_ignores_it():
    """As KerasHub does, which makes a tokenizer of that file."""
    layer = keras.saving.serialize_keras_object(keras.layers.Dense(3))
    assert keras.saving.deserialize_keras_object({**layer, "extras": {"chat_template": "a"}})

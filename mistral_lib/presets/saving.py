"""From a model to a preset's files (chapter 17, "Presets and checkpoints")."""

import contextlib
import datetime
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path

import keras
import numpy as np

from mistral_lib import lora
from mistral_lib.checks import check_number
from mistral_lib.presets import keras_format
from mistral_lib.presets.atomic import replaced
from mistral_lib.presets.json_files import write_json

PRESET_FILES = {
    keras_format.CONFIG_FILE,
    keras_format.TASK_FILE,
    keras_format.PREPROCESSOR_FILE,
    keras_format.TOKENIZER_FILE,
}


def save_backbone(backbone, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes a backbone into a preset's folder: see `MistralBackbone.save_to_preset`."""
    with _preset_folder(folder) as new:
        _write_backbone(backbone, new, max_shard_size)
        # A task there describes the model that it was saved with.
        (new / keras_format.TASK_FILE).unlink(missing_ok=True)


def save_causal_lm(model, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes a causal language model into a preset's folder: backbone, task, preprocessor."""
    with _preset_folder(folder) as new:
        _write_backbone(model.backbone, new, max_shard_size)
        preprocessor = None
        if model.preprocessor is not None:
            _write_preprocessor(model.preprocessor, new)
            preprocessor = keras_format.describe_preprocessor(model.preprocessor)
        config = {
            "backbone": keras_format.describe_backbone(model.backbone),
            "preprocessor": preprocessor,
            "name": model.name,
        }
        task = keras_format.describe("MistralCausalLM", "mistral_causal_lm", config)
        write_json(new / keras_format.TASK_FILE, task)


def save_preprocessor(preprocessor, folder: str | Path) -> None:
    """Writes a preprocessor and its tokenizer into a preset's folder."""
    with _preset_folder(folder) as new:
        _write_preprocessor(preprocessor, new)


def save_tokenizer(tokenizer, folder: str | Path) -> None:
    """Writes a tokenizer into a preset's folder."""
    with _preset_folder(folder) as new:
        _write_tokenizer(tokenizer, new)


@contextlib.contextmanager
def _preset_folder(folder):
    folder = Path(folder).expanduser()
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a preset is saved into a folder.")
    held = {file.name for file in folder.iterdir()} if folder.exists() else set()
    if held and not held & PRESET_FILES:
        # The folder is replaced as a whole. That must not happen to somebody's home.
        raise FileExistsError(
            f"{folder} holds files, but none of a preset. Save into a new or an empty folder."
        )
    with replaced(folder) as new:
        yield new


def _write_backbone(backbone, new, max_shard_size):
    for pattern in ("model.weights.*", "model_*.weights.h5", keras_format.ADAPTER_FILE):
        for stale in new.glob(pattern):
            stale.unlink()
    limit = float("inf")
    if max_shard_size is not None:
        limit = check_number("max_shard_size", max_shard_size) * 2**30
    keras_format.write_weights(new, _weights(backbone), limit)
    write_json(new / keras_format.CONFIG_FILE, keras_format.describe_backbone(backbone))
    if lora.settings(backbone) is not None:
        lora.save(backbone, new / keras_format.ADAPTER_FILE)
    metadata = {
        "keras_version": keras.__version__,
        "parameter_count": backbone.count_params(),
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": ["CausalLM"],
        "tie_word_embeddings": backbone.tie_word_embeddings,
    }
    write_json(new / keras_format.METADATA_FILE, metadata)


def _weights(backbone) -> Iterator[tuple[keras_format.Place, np.ndarray]]:
    """The tensors of a backbone as the file has them, one at a time."""
    variables = {}
    for place in keras_format.layout(backbone, backbone.num_layers):
        layer, _, attributes = place.variable.partition(".")
        if attributes == "reverse_embeddings" and backbone.tie_word_embeddings:
            attributes = "embeddings"
        variables[place] = attrgetter(attributes)(backbone.get_layer(layer))
    known = {id(variable) for variable in variables.values()}
    for layer in lora.projections(backbone).values():  # the adapter has a file of its own
        known |= {id(factor) for factor in layer.lora_factors()}
    others = [variable.path for variable in backbone.weights if id(variable) not in known]
    if others:
        raise ValueError(
            "KerasHub's format has no place for these weights of the backbone: "
            f"{', '.join(others)}."
        )
    for place, variable in variables.items():
        array = np.asarray(variable.value)
        turned = backbone.tie_word_embeddings and place.variable.endswith("reverse_embeddings")
        yield place, array.T if turned else array.reshape(place.shape)


def _write_preprocessor(preprocessor, new):
    content = keras_format.describe_preprocessor(preprocessor)
    write_json(new / keras_format.PREPROCESSOR_FILE, content)
    _write_tokenizer(preprocessor.tokenizer, new)


def _write_tokenizer(tokenizer, new):
    write_json(new / keras_format.TOKENIZER_FILE, keras_format.describe_tokenizer(tokenizer))
    tokenizer.save_assets((new / keras_format.VOCABULARY_FILE).parent)

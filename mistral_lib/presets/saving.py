"""From a model to KerasHub's files (chapter 17, "Presets and checkpoints")."""

import contextlib
import datetime
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mistral_lib import lora
from mistral_lib.checks import as_path, check_number
from mistral_lib.config import OUTPUT
from mistral_lib.keras_inside import matrix_attribute
from mistral_lib.presets import lora_format
from mistral_lib.presets.atomic import names_in, replaced
from mistral_lib.presets.formats import Format
from mistral_lib.presets.hdf5 import write_tensor, writing
from mistral_lib.presets.json_files import write_json
from mistral_lib.presets.keras_format import (
    ADAPTER_FILE,
    CONFIG_FILE,
    EXTENDED,
    LAYERS,
    METADATA_FILE,
    PREPROCESSOR_FILE,
    SHARD_FILE,
    SHARD_INDEX_FILE,
    TASK_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    is_extended,
)
from mistral_lib.presets.preset import KERAS, format_of
from mistral_lib.presets.progress import progress_bar
from mistral_lib.presets.quantized_format import write_policy
from mistral_lib.presets.sources import LocalFolder
from mistral_lib.presets.tensors import Place, owner_of
from mistral_lib.presets.tokenizer_files import TEKKEN

PRESET_FILES = {CONFIG_FILE, TASK_FILE, PREPROCESSOR_FILE, TOKENIZER_FILE}
# Files that may remain from another backbone, and would be read as a part of this one.
STALE_FILES = (WEIGHTS_FILE, SHARD_INDEX_FILE, "model_*.weights.h5", ADAPTER_FILE, TASK_FILE)


def save_backbone(backbone: Any, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes a backbone into a preset's folder: see `MistralBackbone.save_to_preset`."""
    with preset_folder(folder, KERAS, PRESET_FILES, STALE_FILES) as new:
        _write_backbone(backbone, new, max_shard_size)


def save_causal_lm(model: Any, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes a causal language model into a preset's folder: backbone, task, preprocessor."""
    with preset_folder(folder, KERAS, PRESET_FILES, STALE_FILES) as new:
        _write_backbone(model.backbone, new, max_shard_size, model.end_token_ids)
        preprocessor = None
        if model.preprocessor is not None:
            _write_preprocessor(model.preprocessor, new)
            preprocessor = _describe_preprocessor(model.preprocessor)
        config = {
            "backbone": _describe_backbone(model.backbone),
            "preprocessor": preprocessor,
            "name": model.name,
        }
        task = _describe("MistralCausalLM", "mistral_causal_lm", config)
        write_json(new / TASK_FILE, task)


def save_preprocessor(preprocessor: Any, folder: str | Path) -> None:
    """Writes a preprocessor and its tokenizer into a preset's folder."""
    with preset_folder(folder, KERAS, PRESET_FILES) as new:
        _write_preprocessor(preprocessor, new)


def save_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Writes a tokenizer into a preset's folder."""
    with preset_folder(folder, KERAS, PRESET_FILES) as new:
        _write_tokenizer(tokenizer, new)


@contextlib.contextmanager
def preset_folder(
    folder: str | Path, form: Format, files: set[str], stale: Iterable[str] = ()
) -> Iterator[Path]:
    """An empty folder to write into, whose files are moved into `folder` at the end.

    Args:
        folder: a new or empty folder, or one that holds a preset of the format to write.
        form: the format to write.
        files: names of files, one of which every preset of that format has.
        stale: patterns of the files to remove.
    """
    folder = as_path(folder)
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file; a preset is saved into a folder.")
    held = names_in(folder)
    if held and not (held & files and format_of(LocalFolder(folder)) is form):
        # A config.json there may belong to some other program.
        raise FileExistsError(
            f"{folder} holds files, but none of a preset in this format. Save into a new or an "
            "empty folder."
        )
    with replaced(folder, stale) as new:
        yield new


def shard_bytes(max_shard_size: float | None) -> float:
    """Bytes at which a file of weights is full, from GiB; `None` is infinitely many."""
    if max_shard_size is None:
        return math.inf
    return check_number("max_shard_size", max_shard_size) * 2**30


def _write_backbone(
    backbone: Any, new: Path, max_shard_size: float | None, end_token_ids: Iterable[int] = ()
) -> None:
    _write_weights(new, _weights(backbone), shard_bytes(max_shard_size))
    write_json(new / CONFIG_FILE, _describe_backbone(backbone))
    if lora.settings(backbone) is not None:
        lora_format.save(backbone, new / ADAPTER_FILE)
    metadata = {
        "keras_version": keras.__version__,
        "parameter_count": backbone.count_params(),
        "date_saved": datetime.datetime.now().strftime("%Y-%m-%d@%H:%M:%S"),
        "tasks": ["CausalLM"],
        # What KerasHub has no place for.
        "tie_word_embeddings": backbone.tie_word_embeddings,
        "context_length": backbone.context_length,
        "end_token_ids": list(end_token_ids),
    }
    write_json(new / METADATA_FILE, metadata)


def _weights(backbone: Any) -> Iterator[tuple[Place, np.ndarray]]:
    """The tensors of a backbone as the file has them, one at a time."""
    places = KERAS.places(backbone.config, backbone.quantization)
    variables = {place: _variable(backbone, place) for place in places}
    _check_whole(backbone, variables.values())
    size = sum(variable.value.nbytes for variable in variables.values())
    with progress_bar("Saving weights", size) as progress:
        for place, variable in variables.items():
            array = np.asarray(variable.value)
            if place.pattern == OUTPUT and backbone.tie_word_embeddings:
                array = array.T
                if place.kind == "float" and array.dtype == "int8":  # zeros, floats in KerasHub
                    array = array.astype("float32")
            yield place, array.reshape(place.shape)
            progress.update(variable.value.nbytes)


def _variable(backbone: Any, place: Place) -> keras.Variable:
    """The variable of a place. A tied output has the embedding's: KerasHub's file has both."""
    layer, attribute = owner_of(backbone, place.variable)
    if place.pattern == OUTPUT and backbone.tie_word_embeddings:
        attribute = attribute.removeprefix("reverse_")
        if place.kind == "int8":
            attribute = matrix_attribute(attribute)
    return getattr(layer, attribute)


def _check_whole(backbone: Any, variables: Iterable[keras.Variable]) -> None:
    """Refuses a backbone with a weight that would be left out."""
    known = {id(variable) for variable in variables}
    for layer in lora.projections(backbone).values():  # the adapter has a file of its own
        known |= {id(factor) for factor in layer.lora_factors()}
    others = [variable.path for variable in backbone.weights if id(variable) not in known]
    if others:
        raise ValueError(
            "KerasHub's format has no place for these weights of the backbone: "
            f"{', '.join(others)}."
        )


def _write_preprocessor(preprocessor: Any, new: Path) -> None:
    content = _describe_preprocessor(preprocessor)
    write_json(new / PREPROCESSOR_FILE, content)
    _write_tokenizer(preprocessor.tokenizer, new)


def _write_tokenizer(tokenizer: Any, new: Path) -> None:
    extras = dict(tokenizer.extras)
    if tokenizer.kind == TEKKEN:  # whose config has no place for them in KerasHub
        extras |= {name: True for name in ("add_bos", "add_eos") if getattr(tokenizer, name)}
    extras = {"extras": extras} if extras else {}  # KerasHub ignores them
    write_json(new / TOKENIZER_FILE, {**_describe_tokenizer(tokenizer), **extras})
    tokenizer.save_assets((new / VOCABULARY_FILE).parent)


def _describe(class_name: str, module: str, config: dict[str, Any]) -> dict[str, Any]:
    """A serialised KerasHub object for JSON."""
    return {
        "module": f"keras_hub.src.models.mistral.{module}",
        "class_name": class_name,
        "config": config,
        "registered_name": f"keras_hub>{class_name}",
    }


def _describe_backbone(backbone: Any) -> dict[str, Any]:
    """A backbone for config.json and task.json."""
    config = backbone.get_config()
    config.pop("lora", None)  # which the adapter's own file says
    config.pop("settings", None)  # a preset has only architecture and weights
    # Arguments that KerasHub, or its versions before head_dim, would not take.
    del config["tie_word_embeddings"]
    for name in ("head_dim", "rope_scaling"):
        if config[name] is None:
            del config[name]
    if backbone.quantization is not None:
        config["dtype"] = write_policy(backbone, KERAS.quantized_layers(backbone.config))
    if is_extended(backbone.config):
        package, _, class_name = EXTENDED.partition(">")
        return {
            "module": package,
            "class_name": class_name,
            "config": config,
            "registered_name": EXTENDED,
        }
    return _describe("MistralBackbone", "mistral_backbone", config)


def _describe_tokenizer(tokenizer: Any) -> dict[str, Any]:
    """A tokenizer for tokenizer.json. Its vocabulary is in files of its own."""
    config = {
        "name": "mistral_tokenizer",
        "trainable": True,
        "dtype": keras.dtype_policies.serialize(keras.DTypePolicy("int32")),
        "config_file": TOKENIZER_FILE,
        "sequence_length": None,
    }
    # Each of KerasHub's two classes has arguments of its own, and would refuse the other's.
    if tokenizer.kind == TEKKEN:
        config |= {"add_prefix_space": False, "split_pattern": tokenizer.split_pattern}
        config["name"] = "mistral_tekken_tokenizer"
    else:
        config |= {"proto": None, "add_bos": tokenizer.add_bos, "add_eos": tokenizer.add_eos}
    return _describe(tokenizer.kind, "mistral_tokenizer", config)


def _describe_preprocessor(preprocessor: Any) -> dict[str, Any]:
    """A preprocessor for preprocessor.json and task.json."""
    config = {
        "name": "mistral_causal_lm_preprocessor",
        "trainable": True,
        "dtype": keras.dtype_policies.serialize(keras.DTypePolicy("float32")),
        "tokenizer": _describe_tokenizer(preprocessor.tokenizer),
        "config_file": PREPROCESSOR_FILE,
        "sequence_length": preprocessor.sequence_length,
        "add_start_token": preprocessor.add_start_token,
        "add_end_token": preprocessor.add_end_token,
    }
    return _describe("MistralCausalLMPreprocessor", "mistral_causal_lm_preprocessor", config)


def _write_weights(
    folder: Path, tensors: Iterable[tuple[Place, np.ndarray]], max_shard_bytes: float
) -> None:
    """Writes tensors into one file, or into shards with an index if they are larger than that.

    Args:
        folder: where to write.
        tensors: each with its place, taken one at a time.
        max_shard_bytes: size at which a file is full. A larger tensor gets a file of its own.
    """
    shards, weight_map, h5 = [], {}, None
    written = total = 0
    with contextlib.ExitStack() as stack:
        for place, array in tensors:
            if h5 is None or (written and written + array.nbytes > max_shard_bytes):
                stack.close()
                shards.append(folder / SHARD_FILE.format(len(shards)))
                h5 = stack.enter_context(writing(shards[-1]))
                written = 0
            group = "/" + place.name.rpartition("/")[0]
            write_tensor(h5, place.name, array)
            h5[group].attrs["name"] = LAYERS[place.pattern][1]
            written += array.nbytes
            total += array.nbytes
            names = weight_map.setdefault(group, [])
            if shards[-1].name not in names:
                names.append(shards[-1].name)
    if len(shards) == 1:
        shards[0].rename(folder / WEIGHTS_FILE)
    else:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(folder / SHARD_INDEX_FILE, index)

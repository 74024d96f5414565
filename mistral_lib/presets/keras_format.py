"""KerasHub's files: where each variable lies, and reading (chapter 17, "Presets and checkpoints").

A preset in this format is a folder of

    config.json             the backbone's class and constructor arguments
    metadata.json           versions, number of parameters, date
    model.weights.h5        the weights; or model.weights.json and model_00000.weights.h5, …
    task.json, preprocessor.json, tokenizer.json, assets/tokenizer/vocabulary.spm

Nothing in it is imported or deserialised by Keras: a class is recognised by its registered name,
and its arguments are checked by its constructor.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mistral_lib.layers.quantizable import float_policy
from mistral_lib.presets.hdf5 import StoredTensor, list_tensors
from mistral_lib.presets.json_files import read_ids, read_json
from mistral_lib.presets.quantized_format import check_groups, parts, read_policy

CONFIG_FILE = "config.json"
METADATA_FILE = "metadata.json"
WEIGHTS_FILE = "model.weights.h5"
SHARD_INDEX_FILE = "model.weights.json"
SHARD_FILE = "model_{:05}.weights.h5"
ADAPTER_FILE = "adapter.lora.h5"  # ours alone: KerasHub opens such a preset as its base
TASK_FILE = "task.json"
PREPROCESSOR_FILE = "preprocessor.json"
TOKENIZER_FILE = "tokenizer.json"
VOCABULARY_FILE = "assets/tokenizer/vocabulary.spm"

# Each variable of a block: its layer's path and name in the file, and its axes there: D hidden,
# F intermediate, H query heads, K key-value heads, h head size. The file has heads as axes of their
# own.
BLOCK = {
    "self_attention_layernorm.scale": (
        "_self_attention_layernorm",
        "self_attention_layernorm",
        "D",
    ),
    "self_attention.query.kernel": ("_self_attention_layer/_query_dense", "query", "DHh"),
    "self_attention.key.kernel": ("_self_attention_layer/_key_dense", "key", "DKh"),
    "self_attention.value.kernel": ("_self_attention_layer/_value_dense", "value", "DKh"),
    "self_attention.attention_output.kernel": (
        "_self_attention_layer/_output_dense",
        "attention_output",
        "HhD",
    ),
    "feedforward_layernorm.scale": ("_feedforward_layernorm", "feedforward_layernorm", "D"),
    "feedforward.gate.kernel": ("_feedforward_gate_dense", "feedforward_gate_dense", "DF"),
    "feedforward.up.kernel": (
        "_feedforward_intermediate_dense",
        "feedforward_intermediate_dense",
        "DF",
    ),
    "feedforward.down.kernel": ("_feedforward_output_dense", "feedforward_output_dense", "FD"),
}


@dataclass(frozen=True)
class Place:
    """Where the file keeps a variable.

    Attributes:
        variable: its name here: the layer of the backbone, then attributes, joined by dots.
        path: of the tensor in the file.
        layer: name of the layer, which Keras notes in the file.
        shape: of the tensor in the file.
        kind: "float", or "int8" for quantized numbers.
    """

    variable: str
    path: str
    layer: str
    shape: tuple[int, ...]
    kind: str = "float"


def layout(backbone, num_layers: int) -> Iterator[Place]:
    """The places of all variables of a backbone.

    Args:
        backbone: a `MistralBackbone`; only its sizes are looked at, and one block's suffice.
        num_layers: number of blocks in the file.
    """
    sizes = {
        "V": backbone.vocabulary_size,
        "D": backbone.hidden_dim,
        "F": backbone.intermediate_dim,
        "H": backbone.num_query_heads,
        "K": backbone.num_key_value_heads,
        "h": backbone.head_dim,
    }

    quantization = backbone.quantization

    def places(variables, path, layer):
        """Of one layer: its variables by their names here, with their axes."""
        found = []
        for variable, axes in variables.items():
            owner, _, name = variable.rpartition(".")
            if quantization is None or len(axes) == 1:
                found.append((variable, tuple(sizes[axis] for axis in axes), "float"))
            else:
                stored = parts(name, axes, sizes, quantization)
                found += [(f"{owner}.{attribute}", *rest) for attribute, *rest in stored]
        for index, (variable, shape, kind) in enumerate(found):
            yield Place(variable, f"layers/{path}/vars/{index}", layer, shape, kind)

    embedding = {"token_embedding.embeddings": "VD", "token_embedding.reverse_embeddings": "DV"}
    yield from places(embedding, "reversible_embedding", "token_embedding")
    for block in range(num_layers):
        folder = "mistral_transformer_decoder" + (f"_{block}" if block else "")
        for variable, (path, layer, axes) in BLOCK.items():
            name = f"transformer_layer_{block}.{variable}"
            yield from places({name: axes}, f"{folder}/{path}", layer)
    norm = "sequence_output_layernorm"
    yield from places({f"{norm}.scale": "D"}, "mistral_layer_normalization", norm)


def quantized_layers(num_layers: int) -> list[str]:
    """KerasHub's paths of the layers that are quantized."""
    paths = ["token_embedding"]
    for block in range(num_layers):
        for variable, (_, layer, axes) in BLOCK.items():
            if len(axes) > 1:
                parent = "self_attention/" if variable.startswith("self_attention.") else ""
                paths.append(f"transformer_layer_{block}/{parent}{layer}")
    return paths


def read_config(folder) -> dict:
    """The constructor arguments in a preset's config.json, as they stand there.

    Args:
        folder: a source of files (see `mistral_lib.presets.sources`).

    Raises:
        ValueError: another model's preset, or a config without the parts it must have.
    """
    file = folder.get(CONFIG_FILE)
    config = read_object(file, "MistralBackbone")
    # `dtype` says how the model was run when it was saved. The caller chooses how it runs now, but
    # not whether its weights were quantized.
    policy = _read_policy(file, config.pop("dtype", None))
    if policy is not None:
        config["dtype"] = policy
    metadata = folder.find(METADATA_FILE)
    if metadata is not None and read_json(metadata).get("tie_word_embeddings") is True:
        # KerasHub's Mistral has no such argument, so the config cannot hold it.
        config["tie_word_embeddings"] = True
    return config


def read_dtype(folder) -> str:
    """The dtype of the weights that were saved, as the config has it; float32 if it has none."""
    file = folder.get(CONFIG_FILE)
    policy = read_object(file, "MistralBackbone").get("dtype")
    quantized = _read_policy(file, policy)
    if quantized is not None:
        return float_policy(quantized).variable_dtype
    name = policy
    if isinstance(policy, dict) and isinstance(policy.get("config"), dict):
        name = policy["config"].get("name")
    # A mixed policy computes in another dtype than it stores.
    return name if name in ("float16", "bfloat16") else "float32"


def _read_policy(file, content):
    try:
        return read_policy(content)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def read_task(folder) -> dict:
    """`name` and `end_token_ids` of the model that was saved, and whether it `takes_text`."""
    task = folder.find(TASK_FILE)
    config = {} if task is None else read_json(task).get("config")
    if not isinstance(config, dict):
        raise ValueError(f"{task} has no object 'config'.")
    name = config.get("name")
    if not (name is None or (isinstance(name, str) and "/" not in name)):
        raise ValueError(f"{task}: {name!r} is no name of a model.")
    metadata = folder.find(METADATA_FILE)
    # KerasHub's task has no place for these.
    ends = () if metadata is None else read_ids(metadata, "end_token_ids")
    without = "preprocessor" in config and config["preprocessor"] is None
    return {
        "name": name,
        "end_token_ids": ends,
        "takes_text": not without and folder.find(TOKENIZER_FILE) is not None,
    }


def read_preprocessor_config(folder) -> dict:
    """Constructor arguments of the preprocessor, without its tokenizer; empty for the defaults."""
    file = folder.find(PREPROCESSOR_FILE)
    if file is None:
        return {}
    config = read_object(file, "MistralCausalLMPreprocessor")
    return {
        name: config[name]
        for name in ("sequence_length", "add_start_token", "add_end_token")
        if name in config
    }


def read_tokenizer_config(folder) -> dict:
    """Constructor arguments of the tokenizer, without its vocabulary."""
    config = read_object(folder.get(TOKENIZER_FILE), "MistralTokenizer")
    return {name: config[name] for name in ("add_bos", "add_eos") if name in config}


def find_vocabulary(folder) -> Path:
    """The SentencePiece model of a preset."""
    return folder.get(VOCABULARY_FILE)


def read_object(file: Path, class_name: str) -> dict:
    """The `config` of a serialised Keras object, if it is one of KerasHub's class `class_name`.

    Both of KerasHub's names are known: `keras_hub>…`, and `keras_nlp>…` of older presets.
    """
    content = read_json(file)
    name = content.get("registered_name")
    if name not in (f"keras_hub>{class_name}", f"keras_nlp>{class_name}"):
        raise ValueError(
            f"{file} describes {name!r}, but only Mistral lives here: expected the "
            f"registered_name 'keras_hub>{class_name}'. For other models use keras_hub."
        )
    if not isinstance(content.get("config"), dict):
        raise ValueError(f"{file} has no object 'config' with the arguments of {class_name}.")
    return dict(content["config"])


def read_tensors(folder, backbone, num_layers: int) -> dict[str, StoredTensor]:
    """The tensors of a preset by their names here, not yet read, all of the right shape.

    Args:
        folder: a source of files.
        backbone: a `MistralBackbone` of the preset's sizes (see `layout`).
        num_layers: number of blocks.

    Raises:
        FileNotFoundError: no weights, or a shard is missing.
        ValueError: a tensor is missing, unexpected or of another shape than the config says.
    """
    index = folder.find(WEIGHTS_FILE)
    if index is None:
        stored = _read_shards(folder)
        index = folder.get(SHARD_INDEX_FILE)
    else:
        stored = list_tensors(index)
    tensors = {}
    for place in layout(backbone, num_layers):
        if place.path not in stored:
            raise ValueError(
                f"{index} has no tensor {place.path!r}, which the config asks for. It may belong "
                "to another config, or its saving was cut off."
            )
        tensor = stored.pop(place.path)
        if tensor.shape != place.shape:
            raise ValueError(
                f"{tensor.file}: {place.path!r} has the shape {tensor.shape}, but the config asks "
                f"for {place.shape}. Config and weights belong to different models."
            )
        if (tensor.dtype == "int8") != (place.kind == "int8"):
            raise ValueError(
                f"{tensor.file}: {place.path!r} has the dtype {tensor.dtype}, but the config asks "
                f"for {place.kind}. Config and weights belong to different models."
            )
        if place.variable.endswith(".g_idx"):
            check_groups(tensor, backbone.projection_policy.block_size)
        tensors[place.variable] = tensor
    if stored:
        path = min(stored)
        raise ValueError(
            f"{stored[path].file}: {path!r} and {len(stored) - 1} other tensors have no place in "
            "the model that the config describes."
        )
    return tensors


def _read_shards(folder):
    index = folder.find(SHARD_INDEX_FILE)
    if index is None:
        raise FileNotFoundError(
            f"{folder} has no weights: neither {WEIGHTS_FILE} nor {SHARD_INDEX_FILE}. Pass "
            "load_weights=False for a model with random weights."
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no object 'weight_map' that names the shards.")
    names = set()
    for shards in weight_map.values():
        for name in shards if isinstance(shards, list) else [shards]:
            if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*\.h5", name)):
                raise ValueError(
                    f"{index} names the shard {name!r}, which is not the name of an .h5 file in "
                    "its own folder."
                )
            names.add(name)
    stored = {}
    for name in sorted(names):
        for path, tensor in list_tensors(folder.get(name)).items():
            if path in stored:
                raise ValueError(f"{path!r} is in two shards: {stored[path].file}, {tensor.file}.")
            stored[path] = tensor
    return stored

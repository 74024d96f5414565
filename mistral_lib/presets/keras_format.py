"""KerasHub's files, and what they mean (chapter 17, "Presets and checkpoints").

A preset in this format is a folder of

    config.json             the backbone's class and constructor arguments
    metadata.json           versions, number of parameters, date
    model.weights.h5        the weights; or model.weights.json and model_00000.weights.h5, …
    task.json, preprocessor.json, tokenizer.json
    assets/tokenizer/       vocabulary.spm; or vocabulary.json and merges.txt of Tekken's

Nothing in it is imported or deserialised by Keras: a class is recognised by its registered name,
and its arguments are checked by its constructor.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import chain
from typing import Any

from mistral_lib.config import EMBEDDINGS, OUTPUT, MistralConfig
from mistral_lib.layers.quantizable import float_policy
from mistral_lib.presets.formats import Task
from mistral_lib.presets.hdf5 import StoredTensor, list_tensors
from mistral_lib.presets.json_files import check_ids
from mistral_lib.presets.quantized_format import check_groups, read_policy, stored_variables
from mistral_lib.presets.sources import Source
from mistral_lib.presets.tensors import Messages, Place, list_shards, match
from mistral_lib.presets.tokenizer_files import (
    SENTENCEPIECE,
    TEKKEN,
    TokenizerFiles,
    checked_extras,
)

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
TEKKEN_VOCABULARY_FILE = "assets/tokenizer/vocabulary.json"
MERGES_FILE = "assets/tokenizer/merges.txt"

# Of each weight the path of its layer in the file, and the layer's name, which Keras notes there.
# "{}" is the number of a block, and nothing for the first.
BLOCK = "mistral_transformer_decoder{}"
LAYERS = {
    EMBEDDINGS: ("reversible_embedding", "token_embedding"),
    OUTPUT: ("reversible_embedding", "token_embedding"),
    "transformer_layer_{}.self_attention_layernorm.scale": (
        f"{BLOCK}/_self_attention_layernorm",
        "self_attention_layernorm",
    ),
    "transformer_layer_{}.self_attention.query.kernel": (
        f"{BLOCK}/_self_attention_layer/_query_dense",
        "query",
    ),
    "transformer_layer_{}.self_attention.key.kernel": (
        f"{BLOCK}/_self_attention_layer/_key_dense",
        "key",
    ),
    "transformer_layer_{}.self_attention.value.kernel": (
        f"{BLOCK}/_self_attention_layer/_value_dense",
        "value",
    ),
    "transformer_layer_{}.self_attention.attention_output.kernel": (
        f"{BLOCK}/_self_attention_layer/_output_dense",
        "attention_output",
    ),
    "transformer_layer_{}.feedforward_layernorm.scale": (
        f"{BLOCK}/_feedforward_layernorm",
        "feedforward_layernorm",
    ),
    "transformer_layer_{}.feedforward.gate.kernel": (
        f"{BLOCK}/_feedforward_gate_dense",
        "feedforward_gate_dense",
    ),
    "transformer_layer_{}.feedforward.up.kernel": (
        f"{BLOCK}/_feedforward_intermediate_dense",
        "feedforward_intermediate_dense",
    ),
    "transformer_layer_{}.feedforward.down.kernel": (
        f"{BLOCK}/_feedforward_output_dense",
        "feedforward_output_dense",
    ),
    "sequence_output_layernorm.scale": (
        "mistral_layer_normalization",
        "sequence_output_layernorm",
    ),
}
MESSAGES = Messages(
    missing="{where} has no tensor {name!r}, which the config asks for. It may belong to another "
    "config, or its saving was cut off.",
    unexpected="{file}: {name!r} and {others} other tensors have no place in the model that the "
    "config describes.",
)


# KerasHub does not know this name, so it refuses what it would compute differently.
EXTENDED = "mistral_lib>ExtendedMistralBackbone"


def is_extended(config: MistralConfig) -> bool:
    """Whether a model has windows by layer or scaled positions, which KerasHub ignores.

    >>> sizes = (10, 2, 4, 16, 32, 2)
    >>> is_extended(MistralConfig(*sizes, sliding_window=[3, 5]))
    True
    """
    return isinstance(config.sliding_window, tuple) or config.rope_scaling is not None


class KerasFormat:
    """KerasHub's format, in which this library saves."""

    name = "KerasHub"
    config_file = CONFIG_FILE
    tokenizer_file = TOKENIZER_FILE
    preprocessor_file = PREPROCESSOR_FILE

    def read_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the backbone: see `Format`."""
        config = read_object(source, CONFIG_FILE, "MistralBackbone")
        # `dtype` says how the model was run when it was saved. The caller chooses how it runs now,
        # but not whether its weights were quantized.
        policy = _read_policy(source, config.pop("dtype", None))
        if policy is not None:
            config["dtype"] = policy
        if _metadata(source).get("tie_word_embeddings") is True:
            # KerasHub's Mistral has no such argument, so the config cannot hold it.
            config["tie_word_embeddings"] = True
        return config

    def read_dtype(self, source: Source) -> str:
        """The dtype of the weights that were saved; float32 if the config has none."""
        policy = read_object(source, CONFIG_FILE, "MistralBackbone").get("dtype")
        quantized = _read_policy(source, policy)
        if quantized is not None:
            return float_policy(quantized).variable_dtype
        if isinstance(policy, dict) and isinstance(policy.get("config"), dict):
            policy = policy["config"].get("name")
        # A mixed policy computes in another dtype than it stores.
        return policy if policy in ("float16", "bfloat16") else "float32"

    def read_task(self, source: Source) -> Task:
        """Name and end tokens of the model that was saved, and whether it takes text."""
        task = source.find(TASK_FILE)
        config = {} if task is None else source.json(TASK_FILE).get("config")
        if not isinstance(config, dict):
            raise ValueError(f"{task} has no object 'config'.")
        name = config.get("name")
        if not (name is None or (isinstance(name, str) and "/" not in name)):
            raise ValueError(f"{task}: {name!r} is no name of a model.")
        # KerasHub's task has no place for the ids.
        ends = _metadata(source).get("end_token_ids")
        without = "preprocessor" in config and config["preprocessor"] is None
        return Task(
            name,
            check_ids(ends, f"{source.find(METADATA_FILE)}: end_token_ids"),
            takes_text=not without and source.find(TOKENIZER_FILE) is not None,
        )

    def read_preprocessor_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the preprocessor; none where its file is missing."""
        if source.find(PREPROCESSOR_FILE) is None:
            return {}
        config = read_object(source, PREPROCESSOR_FILE, "MistralCausalLMPreprocessor")
        names = ("sequence_length", "add_start_token", "add_end_token")
        return {name: config[name] for name in names if name in config}

    def find_tokenizer(self, source: Source) -> TokenizerFiles:
        """The tokenizer: see `Format`."""
        name = str(source.json(TOKENIZER_FILE).get("registered_name")).rpartition(">")[2]
        kind = TEKKEN if name == TEKKEN else SENTENCEPIECE
        config = read_object(source, TOKENIZER_FILE, kind)
        vocabulary: dict[str, Any]
        if kind == TEKKEN:
            files = {"vocabulary": TEKKEN_VOCABULARY_FILE, "merges": MERGES_FILE}
            vocabulary = {name: source.get(file) for name, file in files.items()}
            vocabulary["split_pattern"] = config.get("split_pattern")
        else:
            vocabulary = {"proto": source.get(VOCABULARY_FILE)}
        extras = source.json(TOKENIZER_FILE).get("extras")
        place = extras if kind == TEKKEN and isinstance(extras, dict) else config
        arguments = {name: place[name] for name in ("add_bos", "add_eos") if name in place}
        extras = checked_extras(extras)
        return TokenizerFiles(kind, vocabulary, arguments, extras)

    def read_context_length(self, source: Source) -> Any:
        """The context length, from the metadata: KerasHub's config has no place for it."""
        return _metadata(source).get("context_length")

    def places(self, config: MistralConfig, quantization: str | None = None) -> Iterator[Place]:
        """Where the files keep each variable of a model, in their order.

        Both matrices of the embedding come first, even if they are tied: KerasHub's are not.
        """
        matrices = (EMBEDDINGS, OUTPUT)
        others = (weight for weight in config.weights() if weight.pattern not in matrices)
        counts = Counter()  # of each layer's variables so far
        for weight in chain(map(config.weight, matrices), others):
            path = LAYERS[weight.pattern][0].format(f"_{weight.block}" if weight.block else "")
            # Heads are an axis of their own there.
            shape = tuple(config.size(letter) for letters in weight.axes for letter in letters)
            variables = [(weight.name, shape, "float")]
            if quantization is not None and weight.is_matrix:
                variables = stored_variables(weight, shape, quantization)
            for variable, stored, kind in variables:
                name = f"layers/{path}/vars/{counts[path]}"
                counts[path] += 1
                yield Place(variable, name, stored, kind, weight.pattern)

    def quantized_layers(self, config: MistralConfig) -> list[str]:
        """KerasHub's paths of the layers that are quantized."""
        paths = ["token_embedding"]
        for weight in config.weights():
            if weight.in_block and weight.is_matrix:
                block, part, *_ = weight.name.split(".")
                parent = f"{block}/{part}" if part == "self_attention" else block
                paths.append(f"{parent}/{LAYERS[weight.pattern][1]}")
        return paths

    def read_tensors(
        self, source: Source, config: MistralConfig, quantization: str | None
    ) -> dict[str, StoredTensor]:
        """The weights, not yet read: see `Format`."""
        where = source.find(WEIGHTS_FILE)
        if where is not None:
            stored = list_tensors(where)
        elif source.find(SHARD_INDEX_FILE) is not None:
            where = source.get(SHARD_INDEX_FILE)
            stored = list_shards(source, SHARD_INDEX_FILE, ".h5", list_tensors, names_tensors=False)
        else:
            raise source.missing(
                f"{source} has no weights: neither {WEIGHTS_FILE} nor {SHARD_INDEX_FILE}. Pass "
                "load_weights=False for a model with random weights."
            )
        tensors = match(self.places(config, quantization), stored, where, MESSAGES)
        check_groups(tensors, quantization)
        return tensors


def is_saved_here(source: Source) -> bool:
    """Whether this library may have saved the preset, which may then contain an adapter."""
    metadata = _metadata(source)
    return not metadata or "end_token_ids" in metadata


def _metadata(source: Source) -> dict[str, Any]:
    return {} if source.find(METADATA_FILE) is None else source.json(METADATA_FILE)


def _read_policy(source: Source, content: Any) -> str | None:
    try:
        return read_policy(content)
    except ValueError as error:
        raise ValueError(f"{source.get(CONFIG_FILE)}: {error}") from error


def read_object(source: Source, name: str, class_name: str) -> dict[str, Any]:
    """The `config` of a serialised Keras object, if it is one of KerasHub's class `class_name`.

    Both of KerasHub's names are known: `keras_hub>…`, and `keras_nlp>…` of older presets. So is
    `EXTENDED`, for a backbone.
    """
    content, file = source.json(name), source.get(name)
    registered, known = content.get("registered_name"), [f"keras_hub>{class_name}"]
    known += [f"keras_nlp>{class_name}", *([EXTENDED] if class_name == "MistralBackbone" else [])]
    if registered not in known:
        raise ValueError(
            f"{file} describes {registered!r}, but only Mistral lives here: expected the "
            f"registered_name 'keras_hub>{class_name}'. For other models use keras_hub."
        )
    if not isinstance(content.get("config"), dict):
        raise ValueError(f"{file} has no object 'config' with the arguments of {class_name}.")
    return dict(content["config"])

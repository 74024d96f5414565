"""GGUF files as presets (chapter 17, "Presets and checkpoints").

In llama.cpp a Mistral model has the architecture "llama", which computes the same, or "mistral3" if
it has YaRN or scales queries by their position. Neither has a sliding window there. Mistral 7B 0.1
has one of 4,096 tokens, but other programs' files leave it out, and then longer texts give other
logits. Files written here record the window, and llama.cpp ignores it.

The rotary positions turn features 2p and 2p + 1 of a head together, as in Mistral's own format, so
the rows of the query and key kernels are reordered.

Source: llama.cpp, `conversion/base.py`, `conversion/llama.py`, `src/llama-model.cpp`.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from mistral_lib.config import EMBEDDINGS, OUTPUT, MistralConfig
from mistral_lib.presets.checkpoints import is_transposed
from mistral_lib.presets.formats import Task
from mistral_lib.presets.gguf_files import KINDS, GgufFile
from mistral_lib.presets.gguf_rope import ROPE_TENSOR, read_rope
from mistral_lib.presets.gguf_tokenizer import read_tokenizer
from mistral_lib.presets.json_files import check_ids
from mistral_lib.presets.safetensors_files import SafeTensor
from mistral_lib.presets.sources import Source
from mistral_lib.presets.tensors import Messages, Place, match
from mistral_lib.presets.tokenizer_files import TokenizerFiles

ARCHITECTURES = ("llama", "mistral3")
WINDOW = "attention.sliding_window"

# The names there of the weights in `config.WEIGHTS`.
BLOCK = "blk.{}"
NAMES = {
    EMBEDDINGS: "token_embd.weight",
    "transformer_layer_{}.self_attention_layernorm.scale": f"{BLOCK}.attn_norm.weight",
    "transformer_layer_{}.self_attention.query.kernel": f"{BLOCK}.attn_q.weight",
    "transformer_layer_{}.self_attention.key.kernel": f"{BLOCK}.attn_k.weight",
    "transformer_layer_{}.self_attention.value.kernel": f"{BLOCK}.attn_v.weight",
    "transformer_layer_{}.self_attention.attention_output.kernel": f"{BLOCK}.attn_output.weight",
    "transformer_layer_{}.feedforward_layernorm.scale": f"{BLOCK}.ffn_norm.weight",
    "transformer_layer_{}.feedforward.gate.kernel": f"{BLOCK}.ffn_gate.weight",
    "transformer_layer_{}.feedforward.up.kernel": f"{BLOCK}.ffn_up.weight",
    "transformer_layer_{}.feedforward.down.kernel": f"{BLOCK}.ffn_down.weight",
    "sequence_output_layernorm.scale": "output_norm.weight",
    OUTPUT: "output.weight",
}

# Arguments here, and their keys there, which follow the name of the architecture.
ARGUMENTS = {
    "num_layers": "block_count",
    "num_query_heads": "attention.head_count",
    "hidden_dim": "embedding_length",
    "intermediate_dim": "feed_forward_length",
    "layer_norm_epsilon": "attention.layer_norm_rms_epsilon",
}
KEY_HEADS, HEAD_DIM, VALUE_DIM = (
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
)
ROTARY_DIM, LENGTH, VOCABULARY = "rope.dimension_count", "context_length", "vocab_size"
EXPERTS = "expert_count"
TOKENS, PARTS = "tokenizer.ggml.tokens", "split.count"
END_TOKENS = ("eos_token_id", "eot_token_id", "eom_token_id")

MESSAGES = Messages(
    missing="{where} has no tensor {name!r}, which its metadata asks for. It is damaged, or holds "
    "only a part of the model.",
    unexpected="{file}: {name!r} has no place in a Mistral. It is another model's, or has parts "
    "that are not known here, such as biases.",
    shape="{file}: {name!r} has the shape {found}, but the metadata asks for {expected}. The file "
    "is damaged.",
)


def places(config: MistralConfig) -> Iterator[Place]:
    """Where a file keeps each weight of a model, from the embedding to the output."""
    for weight in config.weights():
        shape = weight.shape[::-1] if is_transposed(weight.name) else weight.shape
        name = NAMES[weight.pattern].format(weight.block)
        yield Place(weight.name, name, shape, pattern=weight.pattern)


def rotary_heads(config: MistralConfig, variable: str) -> int | None:
    """How many heads' rotary pairs lie side by side in a weight; `None` if it has no such pairs."""
    heads = {"query": config.num_query_heads, "key": config.num_key_value_heads}
    return heads.get(variable.split(".")[-2])


class GgufFormat:
    """The format of one GGUF file, which holds config, weights and vocabulary."""

    name = "GGUF"

    def __init__(self, file: GgufFile):
        self.file = file
        self.config_file = self.tokenizer_file = self.preprocessor_file = file.path.name

    @cached_property
    def architecture(self) -> str:
        """One of `ARCHITECTURES`."""
        found = self.file.metadata.get("general.architecture")
        if self.file.metadata.get("general.type") == "adapter":
            raise ValueError(
                f"{self.file.path} is a LoRA adapter, not a model. Load the model on which it was "
                "trained, and then call load_lora_weights(file) on its backbone."
            )
        if found not in ARCHITECTURES:
            raise ValueError(
                f"{self.file.path} describes a model of the architecture {found!r:.80}, but only "
                f"Mistral lives here, which is {' or '.join(map(repr, ARCHITECTURES))} there. For "
                "other models use llama.cpp."
            )
        return found

    def get(self, key: str, default: Any = None) -> Any:
        """A value of the architecture, such as "block_count", which all layers must share."""
        key = f"{self.architecture}.{key}"
        value = self.file.metadata.get(key, default)
        if isinstance(value, list) and len(set(value)) == 1:
            return value[0]
        if isinstance(value, list):
            raise ValueError(
                f"{self.file.path}: {key} is {value!r:.80}, but here all layers are alike."
            )
        return value

    @cached_property
    def kinds(self) -> list[str]:
        """The types of the numbers, the most frequent first."""
        sizes = Counter()
        for name, kind in self.file.kinds.items():
            sizes[kind] += math.prod(self.file.places[name][0])
        return [kind for kind, _ in sizes.most_common()]

    def read_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the backbone, under their names here: see `Format`."""
        if self.get(EXPERTS, 0):
            raise ValueError(
                f"{self.file.path} describes a mixture of {self.get(EXPERTS)} experts (a Mixtral), "
                "and only dense models live here. For others use llama.cpp."
            )
        parts = self.file.metadata.get(PARTS, 1)
        if parts != 1:
            raise ValueError(
                f"{self.file.path} is one of {parts!r:.40} parts of a model. Join them with "
                "llama.cpp's llama-gguf-split --merge."
            )
        arguments = {name: self.get(key) for name, key in ARGUMENTS.items()}
        missing = [ARGUMENTS[name] for name, value in arguments.items() if value is None]
        if missing:
            raise ValueError(
                f"{self.file.path} has no {self.architecture}.{missing[0]}. Get it again from its "
                "source."
            )
        return {
            "vocabulary_size": self._vocabulary_size(),
            **arguments,
            "num_key_value_heads": self.get(KEY_HEADS, arguments["num_query_heads"]),
            "sliding_window": self.get(WINDOW) or None,
            "head_dim": self._head_dim(),
            "tie_word_embeddings": NAMES[OUTPUT] not in self.file.kinds,
            **read_rope(self.file, self.architecture),
        }

    def _vocabulary_size(self) -> Any:
        if NAMES[EMBEDDINGS] in self.file.places:
            return self.file.places[NAMES[EMBEDDINGS]][0][0]
        return self.get(VOCABULARY, len(self.file.metadata.get(TOKENS, ())))

    def _head_dim(self) -> Any:
        """The size of a head; values must have it too, and all features must be turned."""
        size = self.get(HEAD_DIM)
        for key in (VALUE_DIM, ROTARY_DIM):
            other = self.get(key)
            if size is None:
                size = other
            if other not in (None, size):
                raise ValueError(
                    f"{self.file.path}: {self.architecture}.{key} is {other!r:.40}, but heads have "
                    f"the size {size!r:.40}. Here queries, keys and values have one size, and "
                    "every feature is turned."
                )
        return size

    def read_dtype(self, source: Source) -> str:
        """The dtype of most weights; for quantized ones bfloat16, as Mistral publishes its own."""
        kind = self.kinds[0] if self.kinds else "F32"
        return KINDS[kind] if kind in ("F32", "F16") else "bfloat16"

    def read_tensors(
        self, source: Source, config: MistralConfig, quantization: str | None
    ) -> Mapping[str, SafeTensor]:
        """The weights by their names here, not yet read: see `Format`."""
        stored = self.file.tensors()
        stored.pop(ROPE_TENSOR, None)  # the arguments say it already
        return {
            variable: tensor.arranged(is_transposed(variable), rotary_heads(config, variable))
            for variable, tensor in match(places(config), stored, self.file.path, MESSAGES).items()
        }

    def read_task(self, source: Source) -> Task:
        """The ids that end a text, and whether there is a vocabulary: see `Format`."""
        keys = [f"tokenizer.ggml.{name}" for name in END_TOKENS]
        found = [self.file.metadata[key] for key in keys if key in self.file.metadata]
        ends = check_ids(found, f"{self.file.path}: {keys[0]}")
        return Task(None, tuple(dict.fromkeys(ends)), TOKENS in self.file.metadata)

    def read_preprocessor_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the preprocessor."""
        start = self.file.metadata.get("tokenizer.ggml.add_bos_token", True)
        return {} if start is True else {"add_start_token": start}

    def find_tokenizer(self, source: Source) -> TokenizerFiles:
        """The tokenizer, from the lists in the file: see `Format`."""
        return read_tokenizer(self.file)

    def read_context_length(self, source: Source) -> Any:
        """The length of text for which the model was made: see `Format`."""
        return self.get(LENGTH)

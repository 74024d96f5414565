"""Checkpoints of Hugging Face transformers (chapter 17, "Presets and checkpoints").

A checkpoint in this format is a folder of

    config.json             sizes, with a `model_type` of Mistral's family
    model.safetensors       the weights; or model.safetensors.index.json and its shards
    generation_config.json  the ids that end a text
    tokenizer.model         SentencePiece's vocabulary; or another file: see `tokenizer_files`

What the config says is read by `mistral_lib.presets.transformers_config`.
"""

import re
from typing import Any

from mistral_lib.config import EMBEDDINGS, OUTPUT
from mistral_lib.presets import tokenizer_files
from mistral_lib.presets.checkpoints import Checkpoint
from mistral_lib.presets.dequantizing import Quantization
from mistral_lib.presets.formats import Task
from mistral_lib.presets.json_files import check_ids
from mistral_lib.presets.rope_config import LENGTH
from mistral_lib.presets.safetensors_files import list_tensors
from mistral_lib.presets.sources import LocalFolder, Source
from mistral_lib.presets.tokenizer_files import TokenizerFiles, find_tokenizer
from mistral_lib.presets.transformers_config import (
    has_language_output,
    read_arguments,
    read_config_quantization,
    read_text,
)

CONFIG_FILE = "config.json"
GENERATION_FILE = "generation_config.json"

# Each weight of `config.WEIGHTS`: its name there.
NAMES = {
    EMBEDDINGS: "model.embed_tokens.weight",
    "transformer_layer_{}.self_attention_layernorm.scale": (
        "model.layers.{}.input_layernorm.weight"
    ),
    "transformer_layer_{}.self_attention.query.kernel": ("model.layers.{}.self_attn.q_proj.weight"),
    "transformer_layer_{}.self_attention.key.kernel": "model.layers.{}.self_attn.k_proj.weight",
    "transformer_layer_{}.self_attention.value.kernel": ("model.layers.{}.self_attn.v_proj.weight"),
    "transformer_layer_{}.self_attention.attention_output.kernel": (
        "model.layers.{}.self_attn.o_proj.weight"
    ),
    "transformer_layer_{}.feedforward_layernorm.scale": (
        "model.layers.{}.post_attention_layernorm.weight"
    ),
    "transformer_layer_{}.feedforward.gate.kernel": "model.layers.{}.mlp.gate_proj.weight",
    "transformer_layer_{}.feedforward.up.kernel": "model.layers.{}.mlp.up_proj.weight",
    "transformer_layer_{}.feedforward.down.kernel": "model.layers.{}.mlp.down_proj.weight",
    "sequence_output_layernorm.scale": "model.norm.weight",
    OUTPUT: "lm_head.weight",
}
# What may come before the parts of a text model: nothing in an encoder, "language_model.model." in
# a multimodal model as transformers 4.50 wrote it and "model.language_model." in a later one.
PARTS = r"(embed_tokens|layers|norm|lm_head)\."
PREFIX = re.compile(r"(?:model\.)?(?:language_model\.)?(?:model\.)?" + PARTS)
VISION = r"(model\.)?(vision_tower|multi_modal_projector)\."
END_TOKEN = 2


class TransformersFormat(Checkpoint):
    """The format of transformers, to which this library exports."""

    name = "transformers"
    config_file = CONFIG_FILE
    tokenizer_file = preprocessor_file = tokenizer_files.CONFIG_FILE
    weight_files = ("model.safetensors",)
    index_file = "model.safetensors.index.json"
    pickled_files = ("pytorch_model.bin", "pytorch_model.bin.index.json")
    names = NAMES

    def read_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the backbone, under their names here: see `Format`."""
        file, content = source.get(CONFIG_FILE), source.json(CONFIG_FILE)
        return read_arguments(content, file, lambda: self._has_output(source))

    def _has_output(self, source: Source) -> bool | None:
        """Whether the weights hold an output matrix; `None` if it would take a download to know."""
        if isinstance(source, LocalFolder) and source.find(self.weight_files[0]) is not None:
            names = list_tensors(source.get(self.weight_files[0]))
        else:
            try:
                if source.find(self.index_file) is None:
                    return None
            except ConnectionError:  # which may be because there is none
                return None
            names = source.json(self.index_file).get("weight_map")
        names = names if isinstance(names, dict) else {}
        return any(self.canonical(name) == NAMES[OUTPUT] for name in names)

    def read_dtype(self, source: Source) -> str:
        """The dtype of the weights, as the config has it; float32 if it has none."""
        content = source.json(CONFIG_FILE)
        text = read_text(content, source.get(CONFIG_FILE))
        names = [part.get(key) for part in (content, text) for key in ("dtype", "torch_dtype")]
        name = next((name for name in names if name is not None), None)
        return name if name in ("float16", "bfloat16") else "float32"

    def read_weight_quantization(self, source: Source) -> Quantization | None:
        """How the weights are quantized, if they are."""
        return read_config_quantization(source.json(CONFIG_FILE), source.get(CONFIG_FILE))

    def other_parts(self, source: Source) -> dict[str, str]:
        """Vision weights, and a head that is not a language model's."""
        content, found = source.json(CONFIG_FILE), {}
        if content.get("model_type") == "mistral3":
            found[VISION] = "vision weights"
        if not has_language_output(content):
            found[r"(?!model\.|lm_head\.)"] = "the head of a model that writes no text"
        return found

    def canonical(self, name: str) -> str:
        """The name in a text model, without the prefixes of encoders and multimodal models."""
        found = PREFIX.match(name)
        if found is None:
            return name
        return ("" if found[1] == "lm_head" else "model.") + name[found.start(1) :]

    def read_task(self, source: Source) -> Task:
        """The ids that end a text, and whether there is a vocabulary; a checkpoint has no name.

        The ids stand in generation_config.json, and without that file in config.json, as for
        transformers.
        """
        ends = ()
        for name, default in ((GENERATION_FILE, None), (CONFIG_FILE, END_TOKEN)):
            file = source.find(name)
            if file is not None:
                content = source.json(name)
                if "eos_token_id" not in content and isinstance(content.get("text_config"), dict):
                    content = content["text_config"]
                value = content.get("eos_token_id", default)
                ends = check_ids(value, f"{file}: eos_token_id")
                break
        takes_text = any(source.find(file) is not None for file in tokenizer_files.ALL_FILES)
        writes_text = has_language_output(source.json(self.config_file))
        return Task(None, ends, takes_text, writes_text)

    def read_preprocessor_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the preprocessor: the defaults."""
        return {}

    def find_tokenizer(self, source: Source) -> TokenizerFiles:
        """The tokenizer: see `Format`."""
        return find_tokenizer(source)

    def read_context_length(self, source: Source) -> Any:
        """The context length of the config: see `Format`."""
        return read_text(source.json(CONFIG_FILE), source.get(CONFIG_FILE)).get(LENGTH)

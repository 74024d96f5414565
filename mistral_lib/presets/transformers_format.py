"""Checkpoints of Hugging Face transformers (chapter 17, "Presets and checkpoints").

A checkpoint in this format is a folder of

    config.json             sizes, with `model_type` "mistral"
    model.safetensors       the weights; or model.safetensors.index.json and its shards
    generation_config.json  the ids that end a text
    tokenizer.model         SentencePiece's vocabulary; or another file: see `tokenizer_files`

What the config leaves out has the default of transformers' `MistralConfig`. Anything in it that
would change the numbers and that this library's Mistral does not have is refused by name.
"""

from pathlib import Path
from typing import Any

from mistral_lib.config import EMBEDDINGS, OUTPUT
from mistral_lib.presets import tokenizer_files
from mistral_lib.presets.checkpoints import Checkpoint
from mistral_lib.presets.formats import Task
from mistral_lib.presets.json_files import check_ids
from mistral_lib.presets.sources import Source
from mistral_lib.presets.tokenizer_files import TokenizerFiles, find_tokenizer

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

# Argument here: its name there, and what `MistralConfig` of transformers 5.23 takes without it.
ARGUMENTS = {
    "vocabulary_size": ("vocab_size", 32000),
    "num_layers": ("num_hidden_layers", 32),
    "num_query_heads": ("num_attention_heads", 32),
    "hidden_dim": ("hidden_size", 4096),
    "intermediate_dim": ("intermediate_size", 14336),
    "num_key_value_heads": ("num_key_value_heads", 8),
    "layer_norm_epsilon": ("rms_norm_eps", 1e-6),
    "sliding_window": ("sliding_window", 4096),
    "head_dim": ("head_dim", None),
    "tie_word_embeddings": ("tie_word_embeddings", False),
}
# Settings that a Mistral of another make may have: what they are here, in words and in values.
FIXED = {
    "hidden_act": ("the activation is SiLU", ("silu",)),
    "attention_bias": ("projections have no bias", (False, None)),
    "mlp_bias": ("projections have no bias", (False, None)),
    "partial_rotary_factor": ("every feature of a head is turned", (1, None)),
    "quantization_config": ("quantized checkpoints are not read", (None,)),
}
DEFAULT_WAVELENGTH = 10000.0
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
        if content.get("model_type") != "mistral":
            raise ValueError(
                f"{file} describes a model of the type {content.get('model_type')!r}, but only "
                "Mistral lives here: expected the model_type 'mistral'. For other models use "
                "transformers."
            )
        for name, (rule, values) in FIXED.items():
            if name in content and content[name] not in values:
                raise ValueError(f"{file}: {name} is {content[name]!r:.80}, but here {rule}.")
        config = {name: content.get(*there) for name, there in ARGUMENTS.items()}
        check_window(config["sliding_window"], file)
        _check_layer_types(content.get("layer_types"), config["sliding_window"], file)
        if config["num_key_value_heads"] is None:
            config["num_key_value_heads"] = config["num_query_heads"]
        config["rope_max_wavelength"], config["rope_scaling_factor"] = _read_rope(file, content)
        return config

    def read_dtype(self, source: Source) -> str:
        """The dtype of the weights, as the config has it; float32 if it has none."""
        content = source.json(CONFIG_FILE)
        name = content.get("dtype", content.get("torch_dtype"))
        return name if name in ("float16", "bfloat16") else "float32"

    def read_task(self, source: Source) -> Task:
        """The ids that end a text, and whether there is a vocabulary; a checkpoint has no name.

        The ids stand in generation_config.json, and without that file in config.json, as for
        transformers.
        """
        ends = ()
        for name, default in ((GENERATION_FILE, None), (CONFIG_FILE, END_TOKEN)):
            file = source.find(name)
            if file is not None:
                value = source.json(name).get("eos_token_id", default)
                ends = check_ids(value, f"{file}: eos_token_id")
                break
        takes_text = any(source.find(file) is not None for file in tokenizer_files.ALL_FILES)
        return Task(None, ends, takes_text)

    def read_preprocessor_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the preprocessor: the defaults."""
        return {}

    def find_tokenizer(self, source: Source) -> TokenizerFiles:
        """The tokenizer: see `Format`."""
        return find_tokenizer(source)

    def read_context_length(self, source: Source) -> Any:
        """The context length of the config: see `Format`."""
        return source.json(self.config_file).get("max_position_embeddings")


def check_window(window: Any, file: Path) -> None:
    """Refuses a list of windows, one for each layer, for which these files have no place."""
    if isinstance(window, list):
        raise ValueError(
            f"{file}: sliding_window is {window!r:.80}, but here all layers have one window."
        )


def _check_layer_types(types: Any, window: Any, file: Path) -> None:
    """Refuses layers of several kinds, or of another kind than the window says."""
    kind = "full_attention" if window is None else "sliding_attention"
    one_kind = isinstance(types, list) and len(types) > 0 and all(t == kind for t in types)
    if not (types is None or one_kind):
        raise ValueError(
            f"{file}: layer_types is {types!r:.80}, which does not match sliding_window "
            f"{window!r}: all layers must have the same window here."
        )


def _read_rope(file: Path, content: dict[str, Any]) -> tuple[Any, Any]:
    """The base wavelength and the factor of linear scaling.

    They stood at the top and in `rope_scaling` once, and stand in `rope_parameters` since
    transformers 5. As there, the old place of the scaling comes before the new, and the wavelength
    among the scaling's before the one at the top.
    """
    place = next((p for p in ("rope_scaling", "rope_parameters") if content.get(p)), None)
    rope = content[place] if place else {}
    if not isinstance(rope, dict):
        raise ValueError(f"{file}: {place} must be an object, but is {rope!r:.80}.")
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind not in ("default", "linear"):
        raise ValueError(
            f"{file}: {place} has the type {kind!r:.80}, but only 'linear' scaling is known here."
        )
    known = {"rope_type", "type", "rope_theta", "factor", "partial_rotary_factor"}
    unknown = sorted(set(rope) - known)
    if unknown or rope.get("partial_rotary_factor", 1) != 1:
        name = unknown[0] if unknown else "partial_rotary_factor"
        raise ValueError(
            f"{file}: {place} has {name} = {rope[name]!r:.80}, which has no meaning here: every "
            "feature of every layer is turned in the same way."
        )
    factor = 1.0
    if kind == "linear":
        if "factor" not in rope:
            raise ValueError(f"{file}: {place} has the type 'linear', but no factor.")
        factor = rope["factor"]
    return rope.get("rope_theta", content.get("rope_theta", DEFAULT_WAVELENGTH)), factor

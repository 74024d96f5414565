"""Checkpoints as Mistral publishes them (chapter 17, "Presets and checkpoints").

A checkpoint in this format is a folder of

    params.json                sizes
    consolidated.safetensors   the weights; or consolidated.safetensors.index.json and its shards
    tokenizer.model            SentencePiece's vocabulary; or tekken.json

The rotary positions turn features 2p and 2p + 1 of a head together, where the other formats turn
p and p + h/2, so the rows of the query and key kernels are reordered while reading.

Source: the package mistral-inference 1.6, `args.py`, `transformer.py`, `rope.py`, `cache.py`; for
what was added later, vLLM, `transformers_utils/configs/mistral.py`.
"""

from pathlib import Path
from typing import Any

from mistral_lib.config import EMBEDDINGS, OUTPUT
from mistral_lib.presets.dequantizing import Quantization, read_quantization
from mistral_lib.presets.rope_config import read_native_rope
from mistral_lib.presets.sources import Source
from mistral_lib.presets.transformers_format import TransformersFormat

CONFIG_FILE = "params.json"

# Each weight of `config.WEIGHTS`: its name there.
NAMES = {
    EMBEDDINGS: "tok_embeddings.weight",
    "transformer_layer_{}.self_attention_layernorm.scale": "layers.{}.attention_norm.weight",
    "transformer_layer_{}.self_attention.query.kernel": "layers.{}.attention.wq.weight",
    "transformer_layer_{}.self_attention.key.kernel": "layers.{}.attention.wk.weight",
    "transformer_layer_{}.self_attention.value.kernel": "layers.{}.attention.wv.weight",
    "transformer_layer_{}.self_attention.attention_output.kernel": "layers.{}.attention.wo.weight",
    "transformer_layer_{}.feedforward_layernorm.scale": "layers.{}.ffn_norm.weight",
    "transformer_layer_{}.feedforward.gate.kernel": "layers.{}.feed_forward.w1.weight",
    "transformer_layer_{}.feedforward.up.kernel": "layers.{}.feed_forward.w3.weight",
    "transformer_layer_{}.feedforward.down.kernel": "layers.{}.feed_forward.w2.weight",
    "sequence_output_layernorm.scale": "norm.weight",
    OUTPUT: "output.weight",
}

# Argument here: its name there. All of them must be there but the last two.
ARGUMENTS = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layers",
    "num_query_heads": "n_heads",
    "hidden_dim": "dim",
    "intermediate_dim": "hidden_dim",
    "num_key_value_heads": "n_kv_heads",
    "layer_norm_epsilon": "norm_eps",
    "head_dim": "head_dim",
    "tie_word_embeddings": "tied_embeddings",
}
OPTIONAL = {"head_dim": None, "tied_embeddings": False}
WINDOWS = ("sliding_window", "_sliding_window")
ROPE = ("rope_theta", "yarn", "llama_4_scaling")
QUANTIZATIONS = ("quantization", "quantization_config")
# What says nothing about the numbers; `model_type` only if it is "transformer".
IGNORED = {"max_batch_size", "max_seq_len", "max_position_embeddings", "model_type", "dtype"}
MOST_LAYERS = 2**16  # that a list of windows is repeated for
VISION = r"(vision_encoder|vision_language_adapter|patch_merger|pre_mm_projector_norm)\."
# Parts of Mistral's other models.
OTHERS = {
    "moe": "a mixture of experts",
    **dict.fromkeys(
        ("q_lora_rank", "kv_lora_rank", "qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
        "latent attention",
    ),
    "multimodal": "an encoder of sound",
    "lora": "an adapter in the same file",
}


class MistralFormat(TransformersFormat):
    """Mistral's own format: other weights and another config, beside the same vocabulary."""

    name = "Mistral"
    config_file = CONFIG_FILE
    weight_files = ("consolidated.safetensors", "consolidated.00.safetensors")
    index_file = "consolidated.safetensors.index.json"
    pickled_files = ("consolidated.pth", "consolidated.00.pth")
    names = NAMES
    pairs_are_neighbours = True

    def read_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the backbone, under their names here: see `Format`.

        Without `rope_theta` the base wavelength is 10,000 where there is a sliding window and
        1,000,000 where there is none, as in Mistral's own first program. Later programs take either
        for all; then version 0.1, which has a window and no `rope_theta`, or the versions after it,
        come out wrong.
        """
        file, params = source.get(CONFIG_FILE), source.json(CONFIG_FILE)
        content = {name: value for name, value in params.items() if value is not None}
        known = {*ARGUMENTS.values(), *WINDOWS, *ROPE, *QUANTIZATIONS, *IGNORED, "vision_encoder"}
        for name in sorted(set(content) & set(OTHERS)):
            raise ValueError(
                f"{file} has {name}: {OTHERS[name]} is in the model, and only Mistral's dense text "
                "models live here. Use vLLM or transformers for it."
            )
        unknown = sorted(set(content) - known)
        if unknown or content.get("model_type", "transformer") != "transformer":
            name = unknown[0] if unknown else "model_type"
            raise ValueError(
                f"{file} has {name} = {content[name]!r:.80}, which Mistral 7B does not have and "
                f"which is not known here. Known are {', '.join(sorted(known))}."
            )
        missing = sorted(set(ARGUMENTS.values()) - set(OPTIONAL) - set(content))
        if missing:
            raise ValueError(f"{file} has no {missing[0]}. Get it again from its source.")
        self.read_weight_quantization(source)
        window = _read_window(file, content)
        return {
            **{name: content.get(there, OPTIONAL.get(there)) for name, there in ARGUMENTS.items()},
            "sliding_window": window,
            **read_native_rope(content, file, 1e6 if window is None else 1e4),
        }

    def read_dtype(self, source: Source) -> str:
        """The dtype of the weights. The params do not say; what Mistral publishes is bfloat16."""
        return "bfloat16"

    def read_context_length(self, source: Source) -> Any:
        """The context length, under either of its names: see `Format`."""
        params = source.json(CONFIG_FILE)
        return params.get("max_position_embeddings") or params.get("max_seq_len")

    def read_weight_quantization(self, source: Source) -> Quantization | None:
        """How the weights are quantized, if they are."""
        params = source.json(CONFIG_FILE)
        found = next((params[name] for name in QUANTIZATIONS if params.get(name)), None)
        return None if found is None else read_quantization(found, source.get(CONFIG_FILE))

    def other_parts(self, source: Source) -> dict[str, str]:
        """Vision weights."""
        return {VISION: "vision weights"} if source.json(CONFIG_FILE).get("vision_encoder") else {}

    def canonical(self, name: str) -> str:
        """The name itself: this format has one way to name tensors."""
        return name


def _read_window(file: Path, content: dict[str, Any]) -> Any:
    """The window of all layers, or a list with that of each.

    It has one of two names, and in some files it is a text. A list may be shorter than the number
    of layers, and is then repeated: Ministral 8B has [null, 32768, 32768, 32768].
    """
    windows = [content[name] for name in WINDOWS if name in content]
    if windows and windows[0] != windows[-1]:
        raise ValueError(
            f"{file}: {' and '.join(WINDOWS)} are {windows[0]!r:.40} and {windows[1]!r:.40}, but "
            "must be the same, or one of them null."
        )
    window = windows[0] if windows else None
    if not isinstance(window, list):
        return int(window) if isinstance(window, str) and window.isdecimal() else window
    layers = content["n_layers"]
    fits = window and type(layers) is int and 0 < layers <= MOST_LAYERS
    if not (fits and layers % len(window) == 0):
        raise ValueError(
            f"{file}: sliding_window has {len(window)} entries, which cannot be repeated to give "
            f"each of the {layers!r:.20} layers one."
        )
    return window * (layers // len(window))

"""What a transformers config.json says about a Mistral (chapter 17, "Presets and checkpoints").

The family has four types there. In a `mistral` all layers have the same window; in a `ministral`
each layer has that window or none (`layer_types`); a `ministral3` multiplies queries at distant
positions by a factor; and a `mistral3` is multimodal: its text part, one of the other three, is the
object `text_config`. A setting that a config leaves out has the default of the type's class. Any
setting that would change the results and that this library does not have is refused by name.

Source: transformers 5.23, `configuration_*.py` of the four types.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mistral_lib.presets.dequantizing import Quantization, read_quantization
from mistral_lib.presets.rope_config import LENGTH, read_rope

# Transformers' names of the arguments, and the defaults of its `MistralConfig`.
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
MISTRAL = {**dict(ARGUMENTS.values()), LENGTH: 131072}
# The defaults of each type's class.
DEFAULTS = {
    "mistral": MISTRAL,
    "ministral": MISTRAL,
    "ministral3": {
        **MISTRAL,
        "vocab_size": 131072,
        "num_hidden_layers": 34,
        "rms_norm_eps": 1e-5,
        "sliding_window": None,
        "head_dim": 128,
        LENGTH: 262144,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1e6,
            "factor": 16.0,
            "original_max_position_embeddings": 16384,
            "beta_fast": 32.0,
            "beta_slow": 1.0,
            "mscale": 1.0,
            "mscale_all_dim": 1.0,
            "llama_4_scaling_beta": 0.1,
        },
    },
}
# The text part that `Mistral3Config` assumes if there is none.
TEXT_CONFIG = {
    "hidden_size": 5120,
    "intermediate_size": 32768,
    "num_hidden_layers": 40,
    "head_dim": 128,
    "rms_norm_eps": 1e-5,
    "rope_theta": 1e9,
    "sliding_window": None,
    "vocab_size": 131072,
}
# Settings that related models may have: what holds here instead, in words and as values.
FIXED = {
    "hidden_act": ("the activation is SiLU", ("silu",)),
    "attention_bias": ("projections have no bias", (False, None)),
    "mlp_bias": ("projections have no bias", (False, None)),
    "partial_rotary_factor": ("every feature of a head is turned", (1, None)),
}
# Types of Mistral's that are not dense text models.
OTHERS = {
    "mixtral": "Mixtral has a mixture of experts in each block",
    "mistral4": "Mistral 4 has experts and latent attention",
    "mistral_large4": "Mistral Large 4 has experts and latent attention",
    "deepseek_v3": "Mistral Large 3 has experts and latent attention",
    "pixtral": "it is the vision encoder of a multimodal model",
    "llava": "Pixtral reads images",
    "voxtral": "Voxtral hears",
    "voxtral_realtime": "Voxtral hears",
    "mamba2": "Codestral Mamba has no attention",
}
# Endings of the names of classes that have a language model's output.
WITH_OUTPUT = ("ForCausalLM", "ForConditionalGeneration")


def read_text(content: dict[str, Any], file: Path) -> dict[str, Any]:
    """The part of a config for the text model, if its `model_type` is known here.

    Raises:
        ValueError: another type.
    """
    text, where = content, ""
    if content.get("model_type") == "mistral3":
        text, where = content.get("text_config"), ", in text_config,"
        text = TEXT_CONFIG if text is None else text
        if not isinstance(text, dict):
            raise ValueError(f"{file}: text_config must be an object, but is {text!r:.80}.")
        text = {"model_type": "mistral", **text}
    kind = text.get("model_type")
    if isinstance(kind, str) and kind in DEFAULTS:
        return text
    problem = f"{file} describes{where} a model of the type {kind!r:.80}"
    if isinstance(kind, str) and kind in OTHERS:
        raise ValueError(
            f"{problem}: {OTHERS[kind]}, and only Mistral's dense text models live here. Use "
            "transformers or vLLM for it."
        )
    raise ValueError(
        f"{problem}, but only Mistral lives here: expected the model_type 'mistral', 'ministral', "
        "'ministral3' or 'mistral3'. For other models use transformers."
    )


def read_arguments(
    content: dict[str, Any], file: Path, has_output: Callable[[], bool | None]
) -> dict[str, Any]:
    """Constructor arguments of the backbone.

    Args:
        content: the whole config.
        file: the file that it was read from, for errors.
        has_output: says whether the weights have an output matrix; `None` if only a download could
            tell.

    Raises:
        ValueError: another model's config, or a Mistral with parts that are not known here.
    """
    text = read_text(content, file)
    read_config_quantization(content, file)
    for name, (rule, values) in FIXED.items():
        if name in text and text[name] not in values:
            raise ValueError(f"{file}: {name} is {text[name]!r:.80}, but here {rule}.")
    defaults = DEFAULTS[text["model_type"]]
    arguments = {name: text.get(there, defaults[there]) for name, (there, _) in ARGUMENTS.items()}
    if arguments["num_key_value_heads"] is None:
        arguments["num_key_value_heads"] = arguments["num_query_heads"]
    arguments["sliding_window"] = _read_windows(text, arguments, file)
    if not has_language_output(content):
        # No output is made up if there is none: see `MistralBackbone.from_preset`.
        arguments["tie_word_embeddings"] = True
    elif text is not content:
        arguments["tie_word_embeddings"] = _is_tied(content, text, has_output)
    if text.get("rope_parameters") is None and "rope_parameters" in defaults:
        text = {**text, "rope_parameters": defaults["rope_parameters"]}
    return {**arguments, **read_rope(text, file, text.get(LENGTH, defaults[LENGTH]))}


def has_language_output(content: dict[str, Any]) -> bool:
    """Whether the model that was saved gives logits for tokens; encoders and classifiers do not.

    >>> has_language_output({"architectures": ["MistralForSequenceClassification"]})
    False
    """
    names = content.get("architectures")
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        return True
    return any(name.endswith(WITH_OUTPUT) for name in names)


def read_config_quantization(content: dict[str, Any], file: Path) -> Quantization | None:
    """How the weights are quantized, if they are: see `read_quantization`."""
    text = content.get("text_config")
    found = content.get("quantization_config")
    if found is None and content.get("model_type") == "mistral3" and isinstance(text, dict):
        found = text.get("quantization_config")
    return None if found is None else read_quantization(found, file)


def read_windows(window: Any, file: Path) -> Any:
    """A window, if it is one for all layers."""
    if isinstance(window, list):
        raise ValueError(
            f"{file}: sliding_window is {window!r:.80}, but must be a number or null. A config of "
            "the model_type 'ministral' says in layer_types which layers have it."
        )
    return window


def _read_windows(text: dict[str, Any], arguments: dict[str, Any], file: Path) -> Any:
    """The window of all layers, or a list with that of each."""
    window, types = read_windows(arguments["sliding_window"], file), text.get("layer_types")
    if types is None:
        return window
    kinds = {"full_attention": None, "sliding_attention": window}
    known = isinstance(types, list) and all(isinstance(t, str) and t in kinds for t in types)
    if not (known and len(types) == arguments["num_layers"]):
        raise ValueError(
            f"{file}: layer_types is {types!r:.80}, but must be a list with one of "
            f"{', '.join(kinds)} for each of the {arguments['num_layers']!r:.20} layers."
        )
    if window is None and "sliding_attention" in types:
        raise ValueError(
            f"{file}: layer_types has 'sliding_attention', but sliding_window is null."
        )
    windows = [kinds[kind] for kind in types]
    if any(each != window for each in windows) and text["model_type"] != "ministral":
        # In this case transformers warns, and gives every layer the window.
        raise ValueError(
            f"{file}: layer_types is {types!r:.80}, which does not match sliding_window "
            f"{window!r}: only in the model_type 'ministral' may windows differ by layer."
        )
    return kinds[types[0]] if len(set(types)) == 1 else windows


def _is_tied(
    content: dict[str, Any], text: dict[str, Any], has_output: Callable[[], bool | None]
) -> Any:
    """Whether the output of a multimodal model is the transposed embedding.

    At the top of the config, true is the default, which Small 3.1 has although it is not tied. So
    it counts for nothing if there is an output among the weights. The value in `text_config` counts
    only if the weights cannot be asked.
    """
    said = content.get("tie_word_embeddings", True)
    if said is not True:
        return said
    output = has_output()
    return text.get("tie_word_embeddings", True) if output is None else not output

"""From a preset's files to a model (chapter 17, "Presets and checkpoints").

The config is checked before anything is built, and all tensors' shapes before anything is
allocated. Then the model is built, once, and each tensor goes from its file into a variable that
was never initialised, one at a time.

Models import this module, so it imports none: the classes to make are arguments.
"""

import inspect
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import keras

from mistral_lib.config import MistralConfig, check_names
from mistral_lib.devices import has_bfloat16
from mistral_lib.distribution import check_sizes, sharding_of
from mistral_lib.keras_inside import without_weights
from mistral_lib.layers.quantizable import Quantizable, float_policy
from mistral_lib.presets import lora_format
from mistral_lib.presets.memory import ALTERNATIVES, check_memory
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.progress import progress_bar
from mistral_lib.presets.tensors import Tensor, owner_of
from mistral_lib.quantization import (
    check_dtype,
    check_quantization,
    quantization_of,
    quantized_policy,
)

T = TypeVar("T")
SPARE_ROWS = 512  # of an embedding, above the largest id of the tokenizer

# The arguments on which the shapes and the number of weights depend.
SHAPE_ARGUMENTS = (
    "vocabulary_size",
    "num_query_heads",
    "hidden_dim",
    "intermediate_dim",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
    "num_layers",
)


def load_backbone(
    cls: Callable[..., T],
    preset: Preset,
    load_weights: bool = True,
    dtype: Any = None,
    quantization: str | None = None,
    **overrides: Any,
) -> T:
    """A backbone from a preset, of a class: see `MistralBackbone.from_preset`."""
    config = _read_config(cls, preset, overrides)
    auto = isinstance(dtype, str) and dtype == "auto"
    policy = _choose_policy(preset, "float32" if auto else dtype, quantization)
    tensors = {}
    if load_weights:
        _check_overrides(preset.config, config)
        tensors = preset.tensors()
    if auto:  # what the files have is known now
        policy = _choose_policy(preset, _auto_dtype(preset, tensors), quantization)
    working = max((tensor.num_bytes for tensor in tensors.values()), default=0)
    if policy.quantization_mode is not None:
        working *= 2  # beside the tensor, what it becomes
    can_quantize = load_weights and preset.quantization is None
    check_memory(config, policy, working, ALTERNATIVES if can_quantize else ["bfloat16"])
    arguments = {**preset.arguments, **overrides}
    if not load_weights:  # random weights are float before they are quantized
        backbone: Any = cls(**{**arguments, "dtype": float_policy(policy)})
        backbone.context_length = preset.context_length
        if policy.quantization_mode is not None:
            backbone.quantize(quantization_of(policy))
        return backbone
    with without_weights():
        backbone = cls(**{**arguments, "dtype": policy})
    backbone.context_length = preset.context_length
    _assign(backbone, tensors, preset)
    if preset.adapter is not None:  # saved with this base
        lora_format.load(backbone, preset.adapter, check_base=False)
    return backbone


def load_causal_lm(
    cls: Callable[..., T],
    backbone_class: Callable[..., Any],
    preprocessor_class: Callable[..., Any],
    tokenizer_classes: Mapping[str, Callable[..., Any]],
    preset: Preset,
    load_weights: bool = True,
    **overrides: Any,
) -> T:
    """A causal language model from a preset, and its parts: see `MistralCausalLM.from_preset`."""
    _ = preset.arguments  # first: what is no model is refused before a tokenizer is looked for
    task = preset.format.read_task(preset.source)
    if not task.writes_text:
        raise ValueError(
            f"{preset} is an encoder or a classifier: by its config it has no output for tokens, "
            "so it cannot write text. MistralBackbone.from_preset opens it."
        )
    arguments = {"name": task.name, "end_token_ids": task.end_token_ids, "trainable": True}
    arguments = {name: overrides.pop(name, value) for name, value in arguments.items()}
    if "preprocessor" in overrides:
        preprocessor = overrides.pop("preprocessor")
    elif task.takes_text:
        preprocessor = load_preprocessor(preprocessor_class, tokenizer_classes, preset)
    else:
        preprocessor = None
    backbone = load_backbone(backbone_class, preset, load_weights, **overrides)
    if preprocessor is not None:
        _check_vocabulary(preprocessor.tokenizer, backbone.vocabulary_size, preset)
    return cls(backbone, preprocessor, **arguments)


def _check_vocabulary(tokenizer: Any, size: int, preset: Preset) -> None:
    """Refuses a tokenizer of another model than the embedding, which has a row for each id.

    A few rows without a token are common: tokens may have been added in training that the files do
    not name, and the number of rows may be rounded up for speed.
    """
    known = tokenizer.vocabulary_size()
    if known > size:
        raise ValueError(
            f"The tokenizer of {preset} has {known:,} tokens, but the backbone's vocabulary_size "
            f"is {size:,}: they belong to different models."
        )
    if size - known > SPARE_ROWS:
        raise ValueError(
            f"The tokenizer of {preset} has only {known:,} tokens, but the backbone's "
            f"vocabulary_size is {size:,}: they belong to different models, and ids would mean "
            "other tokens. Put the tokenizer's files of this model beside its weights, or pass "
            "preprocessor=None to work with ids."
        )
    if known < size and size % 8:  # not rounded up, so each row has a meaning
        warnings.warn(
            f"{preset} has {size - known:,} more rows in its embedding than its tokenizer has "
            f"tokens ({known:,}). Tokens that were added in training have no text here: they can "
            "only be passed as ids.",
            stacklevel=2,
        )


def load_preprocessor(
    cls: Callable[..., T],
    tokenizer_classes: Mapping[str, Callable[..., Any]],
    preset: Preset,
    **overrides: Any,
) -> T:
    """A preprocessor from a preset: see `MistralCausalLMPreprocessor.from_preset`."""
    tokenizer = load_tokenizer(tokenizer_classes, preset)
    arguments = preset.format.read_preprocessor_arguments(preset.source)
    with preset.errors_naming(preset.format.preprocessor_file):
        cls(tokenizer, **arguments)
    return cls(**{"tokenizer": tokenizer, **arguments, **overrides})


def load_tokenizer(classes: Mapping[str, Callable[..., T]], preset: Preset) -> T:
    """The tokenizer of a preset: see `MistralTokenizer.from_preset`.

    Args:
        classes: the class to make of each kind of vocabulary.
        preset: the preset.
    """
    found = preset.format.find_tokenizer(preset.source)
    if found.kind not in classes:
        raise ValueError(
            f"{preset} has the vocabulary of a {found.kind}, not of a {' or a '.join(classes)}. "
            f"Call {found.kind}.from_preset."
        )
    cls = classes[found.kind]
    with preset.errors_naming(preset.format.tokenizer_file):
        cls(None, **found.arguments)
    tokenizer: Any = cls(**found.vocabulary, **found.arguments)
    tokenizer.extras = {**tokenizer.extras, **found.extras}
    return tokenizer


def _read_config(cls: Any, preset: Preset, overrides: dict[str, Any]) -> MistralConfig:
    """The architecture that was asked for, and that the distribution in use can share."""
    stored = preset.config
    with preset.errors_naming(preset.format.config_file):
        check_sizes(stored)
    own = inspect.signature(cls.__init__).parameters  # a subclass may have arguments of its own
    check_names(overrides.keys() - own.keys())
    config = MistralConfig.from_arguments({**preset.arguments, **overrides})
    check_sizes(config)
    return config


def _check_overrides(stored: MistralConfig, wanted: MistralConfig) -> None:
    """Refuses arguments that ask for other weights than the preset holds."""
    for name in SHAPE_ARGUMENTS:
        found, asked = getattr(stored, name), getattr(wanted, name)
        if asked != found:
            raise ValueError(
                f"{name}={asked} does not fit the preset's weights, which have {name}={found}. "
                f"Leave {name} out, or pass load_weights=False for random weights."
            )


def _choose_policy(
    preset: Preset, dtype: Any, quantization: str | None
) -> keras.dtype_policies.DTypePolicy:
    """The dtype policy asked for, with the quantization that the files have or that is asked for.

    Args:
        preset: the preset.
        dtype: a dtype policy, quantized or not.
        quantization: asked for; `None` leaves it to the policy and the files.
    """
    policy, held = check_dtype(dtype), preset.quantization
    asked = quantization_of(policy) if quantization is None else check_quantization(quantization)
    if held is not None and asked not in (None, held):
        raise ValueError(
            f"{preset} holds weights that are quantized to {held}, which cannot become {asked}. "
            f"Leave quantization out, or load the weights from which they were quantized."
        )
    return quantized_policy(policy, asked or held)


def _auto_dtype(preset: Preset, tensors: Mapping[str, Tensor]) -> str:
    """The dtype of most numbers in the files, or of the config, if this device supports it.

    Numbers of fewer bits become what the format says.
    """
    dtype = preset.dtype
    if tensors and preset.quantization is None:
        sizes = Counter()
        for tensor in tensors.values():
            stored = dtype if tensor.is_quantized else tensor.dtype
            sizes[stored] += math.prod(tensor.shape)
        ((dtype, _),) = sizes.most_common(1)
    if dtype == "bfloat16" and not has_bfloat16():
        return "float16"
    return "float32" if dtype == "float64" else dtype


def _assign(backbone: Any, tensors: Mapping[str, Tensor], preset: Preset) -> None:
    from_float = preset.quantization is None
    if backbone.tie_word_embeddings:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("token_embedding.reverse_")}
    size = sum(tensor.num_bytes for tensor in tensors.values())
    with progress_bar("Loading weights", size) as progress:
        for name, tensor in tensors.items():
            layer, attribute = owner_of(backbone, name)
            if from_float and backbone.quantization and isinstance(layer, Quantizable):
                layer.assign_float(attribute, tensor.read())
            else:
                _assign_variable(getattr(layer, attribute), tensor)
            progress.update(tensor.num_bytes)


def _assign_variable(variable: keras.Variable, tensor: Tensor) -> None:
    # device_put takes the memory over; Keras's own conversion would copy it. Of many devices each
    # is sent its own part.
    array = tensor.read().reshape(variable.shape)
    variable.assign(jax.device_put(array, sharding_of(variable)))
    # JAX works in the background: without waiting, several tensors would queue up.
    jax.block_until_ready(variable.value)
    _check_range(variable, tensor)


def _check_range(variable: keras.Variable, tensor: Tensor) -> None:
    """Refuses float16 for numbers that it cannot hold: they would have become infinite."""
    narrowed = variable.value.dtype == "float16" and tensor.dtype != "float16"
    if narrowed and not _all_finite(variable.value):
        raise ValueError(
            f"{tensor.file}: {tensor.name!r} has numbers beyond 65,504, which float16 cannot hold. "
            "Pass dtype='float32', or 'bfloat16' where the device has it."
        )


@jax.jit  # so that no array of booleans is made
def _all_finite(array: jax.Array) -> jax.Array:
    return jnp.isfinite(array).all()

"""From a preset's files to a model (chapter 17, "Presets and checkpoints").

The config is checked before anything is built, all tensors' shapes before anything is allocated.
Then each tensor goes from the file into a variable that was never initialised, one at a time.
"""

import contextlib
import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib.backbone import MistralBackbone
from mistral_lib.checks import check_integer
from mistral_lib.distribution import numbers_in_memory, sharding_of
from mistral_lib.keras_inside import without_weights
from mistral_lib.layers.quantizable import Quantizable, float_policy
from mistral_lib.preprocessor import MistralCausalLMPreprocessor
from mistral_lib.presets import lora_format
from mistral_lib.presets.formats import format_of
from mistral_lib.presets.keras_format import ADAPTER_FILE
from mistral_lib.presets.memory import ALTERNATIVES, check_memory
from mistral_lib.presets.progress import progress_bar
from mistral_lib.presets.sources import open_preset
from mistral_lib.quantization import check_quantization, quantization_of, quantized_policy
from mistral_lib.tokenizer import MistralTokenizer

SHAPE_ARGUMENTS = (
    "vocabulary_size",
    "num_query_heads",
    "hidden_dim",
    "intermediate_dim",
    "num_key_value_heads",
    "head_dim",
    "tie_word_embeddings",
)


def load_backbone(
    cls: type[MistralBackbone],
    preset: str | Path,
    load_weights: bool = True,
    dtype=None,
    quantization: str | None = None,
    **overrides,
) -> MistralBackbone:
    """A backbone from a preset: see `MistralBackbone.from_preset`."""
    folder = open_preset(preset)
    form = format_of(folder)
    config = form.read_config(folder)
    with naming(folder, form.CONFIG_FILE):
        num_layers = check_integer("num_layers", config.get("num_layers"))
        stored = one_block(cls, config)
    arguments = {**config, **overrides}
    wanted = one_block(cls, arguments)
    tensors = {}
    if load_weights:
        _check_overrides(stored, wanted, num_layers, arguments["num_layers"])
        tensors = form.read_tensors(folder, stored, num_layers)
    if isinstance(dtype, str) and dtype == "auto":
        in_files = form.read_dtype(folder) if stored.quantization or not load_weights else None
        dtype = in_files or _main_dtype(tensors)
        if dtype == "bfloat16" and not has_bfloat16():
            dtype = "float16"
    arguments["dtype"] = _policy(cls, dtype, quantization, stored.quantization, folder)
    quantization = one_block(cls, arguments).quantization
    if not load_weights:  # random weights are float before they are quantized
        arguments["dtype"] = float_policy(arguments["dtype"])
    largest = max((tensor.num_bytes for tensor in tensors.values()), default=0)
    if quantization is not None:
        largest *= 2  # beside the tensor, what it becomes
    _check_size(cls, arguments, largest, can_quantize=load_weights and not stored.quantization)
    if not load_weights:
        backbone = cls(**arguments)
        if quantization is not None:
            backbone.quantize(quantization)
        return backbone
    with without_weights():
        backbone = cls(**arguments)
    _assign(backbone, tensors, folder, from_float=stored.quantization is None)
    adapter = folder.find(ADAPTER_FILE)
    if adapter is not None:
        lora_format.load(backbone, adapter, check_base=False)  # they were saved together
    return backbone


def load_causal_lm(cls, preset: str | Path, load_weights: bool = True, **kwargs):
    """A causal language model from a preset: see `MistralCausalLM.from_preset`."""
    folder = open_preset(preset)
    task = format_of(folder).read_task(folder)
    takes_text = task.pop("takes_text")
    arguments = {**task, "trainable": True}
    arguments = {name: kwargs.pop(name, value) for name, value in arguments.items()}
    if "preprocessor" in kwargs:
        preprocessor = kwargs.pop("preprocessor")
    else:
        preprocessor = load_preprocessor(preset) if takes_text else None
    backbone = load_backbone(MistralBackbone, preset, load_weights, **kwargs)
    if preprocessor is not None:
        size = preprocessor.tokenizer.vocabulary_size()
        if size > backbone.vocabulary_size:
            raise ValueError(
                f"The tokenizer of {preset} has {size:,} tokens, but the backbone's "
                f"vocabulary_size is {backbone.vocabulary_size:,}: they belong to different models."
            )
    return cls(backbone, preprocessor, **arguments)


def load_preprocessor(preset: str | Path, **overrides) -> MistralCausalLMPreprocessor:
    """The preprocessor of a preset: see `MistralCausalLMPreprocessor.from_preset`."""
    folder = open_preset(preset)
    tokenizer = load_tokenizer(preset)
    form = format_of(folder)
    config = form.read_preprocessor_config(folder)
    with naming(folder, form.PREPROCESSOR_FILE):
        MistralCausalLMPreprocessor(tokenizer, **config)
    return MistralCausalLMPreprocessor(**{"tokenizer": tokenizer, **config, **overrides})


def load_tokenizer(preset: str | Path) -> MistralTokenizer:
    """The tokenizer of a preset: see `MistralTokenizer.from_preset`."""
    folder = open_preset(preset)
    form = format_of(folder)
    config = form.read_tokenizer_config(folder)
    with naming(folder, form.TOKENIZER_FILE):
        MistralTokenizer(None, **config)
    return MistralTokenizer(form.find_vocabulary(folder), **config)


@contextlib.contextmanager
def naming(folder, file):
    """Says of a refused argument in which file it stands."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{folder}/{file}: {error}") from error


def one_block(cls, arguments):
    """The model with a single block and no memory: for checking arguments and counting."""
    with without_weights():
        return cls(**{**arguments, "num_layers": 1})


def _check_overrides(stored, wanted, num_layers, wanted_layers):
    """Refuses arguments that ask for other weights than the preset holds."""
    pairs = {name: (getattr(stored, name), getattr(wanted, name)) for name in SHAPE_ARGUMENTS}
    pairs["num_layers"] = (num_layers, wanted_layers)
    for name, (found, asked) in pairs.items():
        if asked != found:
            raise ValueError(
                f"{name}={asked} does not fit the preset's weights, which have {name}={found}. "
                f"Leave {name} out, or pass load_weights=False for random weights."
            )


def _check_range(variable, tensor):
    """Refuses float16 for numbers that it cannot hold: they would have become infinite."""
    narrowed = variable.value.dtype == "float16" and tensor.dtype != "float16"
    if narrowed and not _all_finite(variable.value):
        raise ValueError(
            f"{tensor.file}: {tensor.name!r} has numbers beyond 65,504, which float16 cannot hold. "
            "Pass dtype='float32', or 'bfloat16' where the device has it."
        )


@jax.jit  # so that no array of booleans is made
def _all_finite(array):
    return jnp.isfinite(array).all()


def has_bfloat16() -> bool:
    """Whether this machine computes in bfloat16: NVIDIA's GPUs do from Ampere (8.0) on."""
    capability = str(getattr(jax.local_devices()[0], "compute_capability", ""))
    major = capability.split(".")[0]  # AMD's is a name, CPUs and TPUs have none
    return not major.isdigit() or int(major) >= 8


def _main_dtype(tensors):
    """The dtype that most of the stored numbers have."""
    sizes = {}
    for tensor in tensors.values():
        sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + np.prod(tensor.shape)
    dtype = max(sizes, key=sizes.get)
    return "float32" if dtype == "float64" else dtype


def _policy(cls, dtype, quantization, held, folder):
    """The dtype policy asked for, with the quantization `held` by the files or asked for."""
    if quantization is None and held is None:
        return dtype  # the constructor checks it
    policy = cls._check_dtype(dtype)
    asked = quantization_of(policy) if quantization is None else check_quantization(quantization)
    if held is not None and asked not in (None, held):
        raise ValueError(
            f"{folder} holds weights that are quantized to {held}, which cannot become {asked}. "
            f"Leave quantization out, or load the weights from which they were quantized."
        )
    return quantized_policy(policy, asked or held)


def _check_size(cls, arguments, working, can_quantize):
    num_layers = check_integer("num_layers", arguments["num_layers"])
    block = one_block(cls, arguments)
    repeated = block.transformer_layers[0]
    total = block.count_params() + (num_layers - 1) * repeated.count_params()
    held = numbers_in_memory(block) + (num_layers - 1) * numbers_in_memory(repeated)
    check_memory(
        lambda dtype: one_block(cls, {**arguments, "dtype": dtype}),
        num_layers,
        block.projection_policy.name,
        working,
        held / total,
        alternatives=tuple(ALTERNATIVES) if can_quantize else ("bfloat16",),
    )


def _assign(backbone, tensors, folder, from_float):
    if backbone.tie_word_embeddings:
        tensors = {n: t for n, t in tensors.items() if not n.startswith("token_embedding.reverse_")}
    size = sum(tensor.num_bytes for tensor in tensors.values())
    with progress_bar(f"Loading {folder}", size) as progress:
        for name, tensor in tensors.items():
            owner, _, attribute = name.rpartition(".")
            first, *others = owner.split(".")
            layer = functools.reduce(getattr, others, backbone.get_layer(first))
            if from_float and backbone.quantization and isinstance(layer, Quantizable):
                layer.assign_float(attribute, tensor.read())
            else:
                _assign_variable(getattr(layer, attribute), tensor)
            progress.update(tensor.num_bytes)


def _assign_variable(variable, tensor):
    # device_put takes the memory over; Keras's own conversion would copy it. Of many devices each
    # is sent its own part.
    array = tensor.read().reshape(variable.shape)
    variable.assign(jax.device_put(array, sharding_of(variable)))
    # JAX works in the background: without waiting, several tensors would queue up.
    jax.block_until_ready(variable.value)
    _check_range(variable, tensor)

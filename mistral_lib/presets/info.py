"""What a preset is and needs, from its config alone (chapter 17, "Presets and checkpoints")."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jax.numpy as jnp
import keras

from mistral_lib import lora
from mistral_lib.checks import keras_knows
from mistral_lib.config import MistralConfig
from mistral_lib.presets import lora_format, registry
from mistral_lib.presets.gguf_format import GgufFormat
from mistral_lib.presets.memory import available_bytes, weight_bytes
from mistral_lib.presets.preset import Preset

# Columns of the table of memory: how the weights are stored, as a dtype policy. The cache is in the
# dtype that a policy computes in. Weights that are quantized already have their one column.
POLICIES = {
    "float32": "float32",
    "bfloat16": "bfloat16",
    "int8": "int8_from_bfloat16",
    "int4": "int4/128_from_bfloat16",
}
LONG = 32768  # tokens; what a model without a window is shown with


def describe_preset(preset: str | Path) -> str:
    """Architecture, number of parameters and memory of a preset, as a text in columns.

    No weights are read or downloaded; for a name that KerasHub publishes, nothing at all is.

    Args:
        preset: as `MistralBackbone.from_preset` takes it.

    Raises: as `MistralBackbone.from_preset`.

    >>> print(describe_preset("mistral_tiny_en").splitlines()[0])
    mistral_tiny_en: A few million parameters, trained on the text that comes with Python
    """
    known = registry.arguments_of(preset) if isinstance(preset, str) else None
    if known is not None:
        config, held = MistralConfig.from_arguments(known), None
        about = [("from", str(registry.source_of(str(preset)))), ("format", "KerasHub")]
    else:
        opened = Preset.open(preset)
        config, held, about = opened.config, opened.quantization, _about(opened)
    policies = {held: f"{held}_from_bfloat16"} if held else POLICIES
    policies = {name: policy for name, policy in policies.items() if keras_knows(policy)}
    description = registry.description_of(str(preset))
    parts = [
        f"{preset}: {description}" if description else str(preset),
        _columns(about),
        f"\nArchitecture\n{_columns(_architecture(config))}",
        f"\nParameters\n{_columns(_parameters(config), right=True)}",
        f"\nMemory\n{_columns(_memory(config, policies), right=True)}",
    ]
    # A preset's files may hold what moves a terminal's cursor.
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n".join(parts))


def _about(opened: Preset) -> list[tuple[str, str]]:
    """Where the files are, their format, and the adapter among them."""
    held = opened.quantization
    saved = opened.dtype + (f" and {held}" if held else "")
    if isinstance(opened.format, GgufFormat):
        saved = ", ".join(opened.format.kinds)
    about = [("from", str(opened)), ("format", f"{opened.format.name}, saved in {saved}")]
    if opened.adapter is not None:
        plan = lora_format.read_plan(opened.adapter)
        for path, wanted in plan.items():
            lora.check_settings(path, wanted)
        about.append(("LoRA", lora.describe(plan)))
    return about


def _architecture(config: MistralConfig) -> list[tuple[str, str]]:
    rope = f"wavelength {config.rope_max_wavelength:,.10g}"
    if config.rope_scaling_factor != 1:
        rope += f", positions divided by {config.rope_scaling_factor:g}"
    scaling = config.rope_scaling
    if scaling is not None:
        factor = "" if scaling.factor is None else f" by {scaling.factor:g}"
        length = scaling.original_max_position_embeddings
        rope += f", {scaling.rope_type} scaling{factor} beyond {length:,} tokens"
    return [
        ("vocabulary", f"{config.vocabulary_size:,} tokens"),
        ("blocks", f"{config.num_layers:,}"),
        ("hidden state", f"{config.hidden_dim:,}"),
        ("feed-forward", f"{config.intermediate_dim:,}"),
        ("query heads", f"{config.num_query_heads:,} of size {config.head_dim:,}"),
        ("key-value heads", f"{config.num_key_value_heads:,}"),
        ("window", _windows(config)),
        ("rotary positions", rope),
        ("norm epsilon", f"{config.layer_norm_epsilon:g}"),
        ("output", "the transposed embedding" if config.tie_word_embeddings else "of its own"),
    ]


def _windows(config: MistralConfig) -> str:
    """The window of all blocks, or how many blocks have which."""
    if not isinstance(config.sliding_window, tuple):
        window = config.sliding_window
        return "none: a token sees all before it" if window is None else f"{window:,} tokens"
    return ", ".join(
        f"{'none' if window is None else f'{window:,} tokens'} in {number:,} blocks"
        for window, number in _blocks(config).items()
    )


def _blocks(config: MistralConfig) -> dict[int | None, int]:
    """How many blocks have each window."""
    windows = config.sliding_window
    return Counter(windows) if isinstance(windows, tuple) else {windows: config.num_layers}


def _parameters(config: MistralConfig) -> list[tuple[str, str]]:
    def count(part):
        return config.total(lambda weight: math.prod(weight.shape) * (part in weight.name))

    rows = [
        ("embedding and output", count("token_embedding.")),
        ("attention", count(".self_attention.")),
        ("feed-forward", count(".feedforward.")),
        ("norms", count("norm.")),
        ("all", config.count_params()),
    ]
    return [(name, f"{count:,}") for name, count in rows]


def _memory(config: MistralConfig, policies: dict[str, str]) -> list[tuple[str, ...]]:
    """Rows of cells: the first names the columns, the last says what fits."""
    available = available_bytes()
    blocks = _blocks(config)
    longest = max(window or LONG for window in blocks)
    kept = sum((window or longest) * number for window, number in blocks.items())
    weights, token, cache = [], [], []  # bytes, in each policy
    for policy in policies.values():
        size = jnp.dtype(keras.dtype_policies.get(policy).compute_dtype).itemsize
        size *= 2 * config.num_key_value_heads * config.head_dim  # a key and a value in one block
        weights.append(weight_bytes(config, policy))
        token.append(size * config.num_layers)
        cache.append(size * kept)
    both = list(map(sum, zip(weights, cache, strict=True)))
    return [
        ("", *policies),
        ("weights", *map(_size, weights)),
        ("cache of one token", *map(_size, token)),
        (f"cache of {longest:,} tokens", *map(_size, cache)),
        ("weights and cache", *map(_size, both)),
        (f"fits here, in {_size(available)}", *("yes" if b <= available else "no" for b in both)),
    ]


def _size(num_bytes: int) -> str:
    """A size in the unit that leaves at most four digits before the point.

    >>> _size(131072), _size(27 * 2**30)
    ('128.0 KiB', '27.0 GiB')
    """
    unit = min(max(0, int(math.log2(max(1, num_bytes))) // 10), 4)
    name = ("bytes", "KiB", "MiB", "GiB", "TiB")[unit]
    return f"{num_bytes / 2 ** (10 * unit):,.{1 if unit else 0}f} {name}"


def _columns(rows: Sequence[tuple[str, ...]], right: bool = False) -> str:
    """Rows of cells, indented; the first column at the left, the others `right` or left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        aligned = (c.rjust(w) if right else c.ljust(w) for c, w in zip(cells, widths[1:]))
        lines.append("  ".join(("  " + first.ljust(widths[0]), *aligned)).rstrip())
    return "\n".join(lines)

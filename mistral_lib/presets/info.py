"""What a preset is and needs, from its config alone (chapter 17, "Presets and checkpoints")."""

import math
from pathlib import Path

import jax.numpy as jnp

from mistral_lib import lora
from mistral_lib.backbone import MistralBackbone
from mistral_lib.checks import check_integer, keras_knows
from mistral_lib.presets import lora_format, registry
from mistral_lib.presets.formats import FORMATS, format_of
from mistral_lib.presets.keras_format import ADAPTER_FILE
from mistral_lib.presets.loading import naming, one_block
from mistral_lib.presets.memory import available_bytes, weight_bytes
from mistral_lib.presets.sources import open_preset

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

    No weights are read, or downloaded.

    Args:
        preset: as `MistralBackbone.from_preset` takes it.

    Raises: as `MistralBackbone.from_preset`.

    >>> print(describe_preset("mistral_tiny_en").splitlines()[0])
    mistral_tiny_en: A few million parameters, trained on the text that comes with Python
    """
    folder = open_preset(preset)
    form = format_of(folder)
    config = form.read_config(folder)
    with naming(folder, form.CONFIG_FILE):
        blocks = check_integer("num_layers", config.get("num_layers"))
        held = one_block(MistralBackbone, config).quantization
        policies = {held: f"{held}_from_bfloat16"} if held else POLICIES
        models = {
            name: one_block(MistralBackbone, {**config, "dtype": policy})
            for name, policy in policies.items()
            if keras_knows(policy)
        }
        model = one_block(MistralBackbone, {**config, "dtype": "float32"})
    saved = form.read_dtype(folder) + (f" and {held}" if held else "")
    known = registry.presets().get(registry.ALIASES.get(str(preset), str(preset)))
    title = f"{preset}: {known['metadata']['description']}" if known else str(preset)
    files = next(name for name, module in FORMATS.items() if module is form)
    about = [
        ("from", str(folder)),
        ("format", f"{files}, saved in {saved}"),
    ]
    adapter = folder.find(ADAPTER_FILE)
    if adapter is not None:
        plan = lora_format.read_plan(adapter)
        for path, wanted in plan.items():
            lora.check_settings(path, wanted)
        about.append(("LoRA", lora.describe(plan)))
    parts = [
        f"{title}\n{_columns(about)}",
        f"Architecture\n{_columns(_architecture(model, blocks))}",
        f"Parameters\n{_columns(_parameters(model, blocks), right=True)}",
        f"Memory\n{_columns(_memory(models, blocks), right=True)}",
    ]
    # A preset's files may hold what moves a terminal's cursor.
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n\n".join(parts))


def _architecture(model, blocks):
    window = model.sliding_window
    rope = f"wavelength {model.rope_max_wavelength:,.10g}"
    if model.rope_scaling_factor != 1:
        rope += f", positions divided by {model.rope_scaling_factor:g}"
    return [
        ("vocabulary", f"{model.vocabulary_size:,} tokens"),
        ("blocks", f"{blocks:,}"),
        ("hidden state", f"{model.hidden_dim:,}"),
        ("feed-forward", f"{model.intermediate_dim:,}"),
        ("query heads", f"{model.num_query_heads:,} of size {model.head_dim:,}"),
        ("key-value heads", f"{model.num_key_value_heads:,}"),
        ("window", "none: a token sees all before it" if window is None else f"{window:,} tokens"),
        ("rotary positions", rope),
        ("norm epsilon", f"{model.layer_norm_epsilon:g}"),
        ("output", "the transposed embedding" if model.tie_word_embeddings else "of its own"),
    ]


def _parameters(model, blocks):
    block = model.transformer_layers[0]
    attention, feedforward = block.self_attention, block.feedforward
    rows = [
        ("embedding and output", model.token_embedding.count_params()),
        ("attention", blocks * attention.count_params()),
        ("feed-forward", blocks * feedforward.count_params()),
    ]
    total = model.count_params() + (blocks - 1) * block.count_params()
    rows += [("norms", total - sum(count for _, count in rows)), ("all", total)]
    return [(name, f"{count:,}") for name, count in rows]


def _memory(models, blocks):
    """Rows of cells: the first names the columns, the last says what fits."""
    available = available_bytes()
    window = next(iter(models.values())).sliding_window or LONG
    weights, token = [], []
    for model in models.values():
        weights.append(weight_bytes(model, blocks))
        size = jnp.dtype(model.compute_dtype).itemsize
        token.append(2 * blocks * model.num_key_value_heads * model.head_dim * size)
    both = [weight + window * cache for weight, cache in zip(weights, token, strict=True)]
    return [
        ("", *models),
        ("weights", *map(_size, weights)),
        ("cache of one token", *map(_size, token)),
        (f"cache of {window:,} tokens", *(_size(window * cache) for cache in token)),
        ("weights and cache", *map(_size, both)),
        (f"fits here, in {_size(available)}", *("yes" if b <= available else "no" for b in both)),
    ]


def _size(num_bytes):
    """A size in the unit that leaves at most four digits before the point.

    >>> _size(131072), _size(27 * 2**30)
    ('128.0 KiB', '27.0 GiB')
    """
    unit = min(max(0, int(math.log2(max(1, num_bytes))) // 10), 4)
    name = ("bytes", "KiB", "MiB", "GiB", "TiB")[unit]
    return f"{num_bytes / 2 ** (10 * unit):,.{1 if unit else 0}f} {name}"


def _columns(rows, right=False):
    """Rows of cells, indented; the first column at the left, the others `right` or left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *cells in rows:
        aligned = (c.rjust(w) if right else c.ljust(w) for c, w in zip(cells, widths[1:]))
        lines.append("  ".join(("  " + first.ljust(widths[0]), *aligned)).rstrip())
    return "\n".join(lines)

"""Choosing layers, enabling, merging (chapter 14, "LoRA")."""

from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from mistral_lib.checks import check_boolean, check_integer, check_number, check_range
from mistral_lib.keras_inside import all_or_nothing, optimizer_weights
from mistral_lib.layers.projection import Projection
from mistral_lib.settings import get_freezing, set_freezing

DEFAULT_TARGETS = ("query", "value")

# A plan says for each adapted projection, by its path, the rank and alpha of its LoRA:
# {"transformer_layer_0/self_attention/query": {"rank": 4, "lora_alpha": 8}, ...}.
Plan = dict[str, dict]


def projections(backbone: Any) -> dict[str, Projection]:
    """Every `Projection` of a backbone by its path, `transformer_layer_0/self_attention/query`.

    >>> from mistral_lib import MistralBackbone
    >>> list(projections(MistralBackbone(10, 1, 2, 8, 16, 1)))[:2]
    ['transformer_layer_0/self_attention/query', 'transformer_layer_0/self_attention/key']
    """
    found = {}
    for block in backbone.transformer_layers:
        attention, feedforward = block.self_attention, block.feedforward
        parts = (attention.query, attention.key, attention.value, attention.attention_output)
        for layer in (*parts, feedforward.gate, feedforward.up, feedforward.down):
            parent = attention if layer in parts else feedforward
            found[f"{block.name}/{parent.name}/{layer.name}"] = layer
    return found


def settings(backbone: Any) -> Plan | None:
    """The plan of a backbone with LoRA, else `None`.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> backbone.enable_lora(2, "down")
    >>> settings(backbone)
    {'transformer_layer_0/feedforward/down': {'rank': 2, 'lora_alpha': 2}}
    """
    plan = {
        path: {"rank": layer.lora_rank, "lora_alpha": layer.lora_alpha}
        for path, layer in projections(backbone).items()
        if layer.lora_enabled
    }
    return plan or None


def enable(
    backbone: Any,
    rank: int,
    target_layer_names: str | Collection[str] | None = None,
    lora_alpha: float | None = None,
) -> None:
    """See `MistralBackbone.enable_lora`. Everything is checked before anything changes."""
    layers = projections(backbone)
    known = sorted({layer.name for layer in layers.values()})
    targets = DEFAULT_TARGETS if target_layer_names is None else target_layer_names
    if isinstance(targets, str):
        targets = (targets,)
    unknown = [name for name in targets if name not in known]
    if unknown or not targets:
        found = f"there is no layer {unknown[0]!r}" if unknown else "it is empty"
        raise ValueError(
            f"target_layer_names must name layers to adapt, but {found}. The layers are: "
            f"{', '.join(known)}."
        )
    alpha = rank if lora_alpha is None else lora_alpha
    wanted = {"rank": rank, "lora_alpha": alpha}
    apply(backbone, {path: wanted for path, layer in layers.items() if layer.name in targets})


def apply(backbone: Any, plan: Plan) -> None:
    """Freezes a backbone and adapts the projections of a plan.

    Raises:
        ValueError, TypeError: an unknown path, a rank or alpha out of range, or the backbone has
            LoRA by another plan. Nothing has changed then. By the same plan nothing happens.
    """
    layers = projections(backbone)
    if not plan:
        raise ValueError("LoRA needs projections to adapt, but was given none.")
    plan = {path: _checked(path, wanted, layers) for path, wanted in plan.items()}
    present = settings(backbone)
    if present == plan:
        return
    if present is not None:
        raise ValueError(
            f"This backbone has LoRA already, with {describe(present)}; asked for was "
            f"{describe(plan)}. Call merge_lora first, or start from the base model."
        )
    with all_or_nothing(backbone):
        # Paths, because Keras would track variables in an attribute as the layer's own.
        before = get_freezing(backbone)
        backbone.frozen_before_lora = tuple(before["frozen_layers"])
        backbone.frozen_by_lora = tuple(before["trained_weights"])
        set_freezing(backbone, (), ())  # a frozen layer could not train its factors
        for path, wanted in plan.items():
            layers[path].enable_lora(**wanted)


def set_trainable(backbone: Any, value: bool) -> None:
    """Freezes a backbone with LoRA, or thaws what was trainable before: usually the factors.

    Keras's own setter would thaw the base too.

    >>> from mistral_lib import MistralBackbone
    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> backbone.enable_lora(2)
    >>> backbone.trainable = False
    >>> backbone.trainable = True
    >>> len(backbone.trainable_variables)  # A and B of query and value
    4
    """
    if value and not backbone.trainable:
        set_freezing(backbone, **backbone.when_thawed)
    elif backbone.trainable and not value:
        backbone.when_thawed = get_freezing(backbone)
        keras.Model.trainable.__set__(backbone, False)


def merge(backbone: Any, dequantize: bool = False) -> None:
    """See `MistralBackbone.merge_lora`."""
    require(backbone)
    if backbone.quantization is not None and not check_boolean("dequantize", dequantize):
        raise ValueError(
            f"This backbone is quantized to {backbone.quantization}, and a merged kernel would "
            "be rounded to that: much of the update would be lost. Keep LoRA beside the "
            "kernels, or call merge_lora(dequantize=True), which first makes every weight "
            f"{backbone.variable_dtype}."
        )
    with all_or_nothing(backbone) as keep:
        backbone.dequantize()
        now = get_freezing(backbone)
        for layer in projections(backbone).values():
            if layer.lora_enabled:
                keep(layer)
                layer.merge_lora()
        _thaw(backbone, **now)


def _thaw(backbone, frozen_layers, trained_weights) -> None:
    """Undoes what `apply` froze and thawed, and keeps what has been set since."""
    if not backbone.trainable:
        set_freezing(backbone, frozen_layers, ())
        return
    beside = [path for path in trained_weights if "/lora_kernel_" not in path]
    before = [
        layer
        for layer in backbone.frozen_before_lora
        if not any(path.startswith(layer) for path in beside)
    ]
    frozen = {*frozen_layers, *before}
    trained = [p for p in backbone.frozen_by_lora if p.rpartition("/")[0] not in frozen]
    set_freezing(backbone, frozen, [*beside, *trained])


def factor_shapes(backbone: Any, plan: Plan) -> dict[str, tuple[int, int]]:
    """The shapes of a plan's factors: `<path>/a` is (D, rank), `<path>/b` (rank, units).

    Raises:
        ValueError, TypeError: an unknown path, a rank or alpha out of range.
    """
    layers = projections(backbone)
    shapes = {}
    for path, wanted in plan.items():
        rank = _checked(path, wanted, layers)["rank"]
        shapes[f"{path}/a"] = (layers[path].input_dim, rank)
        shapes[f"{path}/b"] = (rank, layers[path].units)
    return shapes


def factors(backbone: Any) -> dict[str, np.ndarray]:
    """The factors of a backbone with LoRA, float32, named as in `factor_shapes`."""
    layers = projections(backbone)
    found = {}
    for path in require(backbone):
        found[f"{path}/a"] = np.asarray(layers[path].lora_kernel_a.value)
        found[f"{path}/b"] = np.asarray(layers[path].lora_kernel_b.value)
    return found


def assign(backbone: Any, plan: Plan, factors: dict[str, np.ndarray]) -> None:
    """Adapts a backbone by a plan and sets the factors, named as in `factor_shapes`."""
    layers = projections(backbone)
    with all_or_nothing(backbone) as keep:
        apply(backbone, plan)
        for path in plan:
            keep(layers[path])
            layers[path].lora_kernel_a.assign(factors[f"{path}/a"])
            layers[path].lora_kernel_b.assign(factors[f"{path}/b"])


def describe(plan: Plan) -> str:
    """A plan in words.

    >>> describe({"block_0/query": {"rank": 4, "lora_alpha": 8}})
    'rank 4 and alpha 8 on query (1 in all)'
    """
    groups = {}
    for path, wanted in plan.items():
        key = f"rank {wanted['rank']} and alpha {wanted['lora_alpha']}"
        groups.setdefault(key, []).append(path.rpartition("/")[2])
    parts = [
        f"{key} on {', '.join(sorted(set(names)))} ({len(names)} in all)"
        for key, names in groups.items()
    ]
    return "; ".join(parts[:3]) + ("; and more" if parts[3:] else "")


def require(backbone: Any) -> Plan:
    """The plan of a backbone with LoRA; without LoRA, an error that says what to call."""
    plan = settings(backbone)
    if plan is None:
        raise ValueError("This backbone has no LoRA. Call enable_lora(rank) first.")
    return plan


def check_alpha(alpha: Any) -> float:
    """`alpha`, if it is a number above 0 that a float32 can scale with."""
    check_number("lora_alpha", alpha, below=2**31)
    return check_range("lora_alpha", alpha, 1e-20, 2**31)


def check_compiled(model: keras.Model) -> None:
    """Refuses to train on with an optimizer that was built for another set of weights.

    Raises:
        ValueError: since the model was trained, LoRA was enabled or merged.
    """
    if not model.compiled:
        return  # Keras says so itself
    known = optimizer_weights(model.optimizer)
    if known and [id(v) for v in known] != [id(v) for v in model.trainable_variables]:
        raise ValueError(
            f"The trainable weights have changed since this model was trained: the optimizer "
            f"knows {len(known)}, the model has {len(model.trainable_variables)}. Call compile "
            "again, with a new optimizer."
        )


def check_settings(path: str, wanted: dict) -> dict:
    """The rank and alpha of one projection in a plan, if they can be that."""
    if not (isinstance(wanted, dict) and wanted.keys() == {"rank", "lora_alpha"}):
        raise ValueError(f"LoRA of {path} needs a rank and a lora_alpha, but has {wanted!r:.80}.")
    return {
        "rank": check_integer("rank", wanted["rank"]),
        "lora_alpha": check_alpha(wanted["lora_alpha"]),
    }


def _checked(path, wanted, layers):
    if path not in layers:
        raise ValueError(
            f"LoRA cannot adapt {path!r:.80}: the backbone has no such projection. It has "
            f"{next(iter(layers))} and {len(layers) - 1} others."
        )
    return check_settings(path, wanted)

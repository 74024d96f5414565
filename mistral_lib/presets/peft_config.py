"""What PEFT's adapter_config.json says (chapter 14, "LoRA")."""

import json
import math
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from mistral_lib import lora
from mistral_lib.checks import check_boolean, check_integer
from mistral_lib.presets.transformers_format import NAMES

CONFIG_FILE = "adapter_config.json"
ADVICE = (
    "Load it with PEFT, and merge it there into the base model with merge_and_unload; from_preset "
    "opens what that saves."
)

# The projections by the names that they have in transformers: "query" is "self_attn.q_proj".
MODULES = {
    here.split(".")[-2]: there.partition("{}.")[2].removesuffix(".weight")
    for here, there in NAMES.items()
    if here.endswith(".kernel")
}
NOT_ADAPTED = ("lm_head", "embed_tokens")

# Options that are honoured, each below.
HONOURED = {
    "peft_type",
    "r",
    "lora_alpha",
    "target_modules",
    "exclude_modules",
    "rank_pattern",
    "alpha_pattern",
    "use_rslora",
    "layers_to_transform",
    "layers_pattern",
    "init_lora_weights",
    "bias",
}
# Options that change nothing in a trained adapter: where it comes from, how its factors began
# (`init_lora_weights` says whether the base was changed as well), what only training needs, and
# `fan_in_fan_out`, which PEFT itself sets back for the kernels that Mistral has.
WITHOUT_EFFECT = {
    *("base_model_name_or_path", "revision", "peft_version", "auto_mapping", "task_type"),
    *("inference_mode", "runtime_config", "megatron_core", "qalora_group_size"),
    *("loftq_config", "eva_config", "corda_config", "lora_ga_config", "lora_dropout"),
    "fan_in_fan_out",
}
# Every other option, also one that PEFT may add, is refused unless it is off: it could change what
# the adapter computes.

# With these, the factors were added to the base as it is.
INITIALISERS = (None, True, False, "gaussian", "orthogonal", "eva")

PATTERN_SECONDS = 10
MATCHER = """
import json, re, sys
patterns, names = json.load(sys.stdin)
json.dump([[name for name in names if re.fullmatch(p, name)] for p in patterns], sys.stdout)
"""


def module_names(backbone: Any, prefix: str = "model.") -> dict[str, str]:
    """The projections' names in transformers, by their paths here.

    >>> from mistral_lib import MistralBackbone
    >>> module_names(MistralBackbone(10, 1, 2, 8, 16, 1))["transformer_layer_0/feedforward/up"]
    'model.layers.0.mlp.up_proj'
    """
    return {
        path: f"{prefix}layers.{path.partition('/')[0].rpartition('_')[2]}.{MODULES[layer.name]}"
        for path, layer in lora.projections(backbone).items()
    }


def describe(plan: lora.Plan, names: dict[str, str], base: str | None) -> dict[str, Any]:
    """The adapter_config.json of a plan; what most projections have is the rule.

    Args:
        plan: of a backbone.
        names: the projections' names in transformers, by their paths here.
        base: a name or path of the base model, for PEFT's AutoPeftModel.
    """
    rank = Counter(wanted["rank"] for wanted in plan.values()).most_common(1)[0][0]
    alpha = Counter(wanted["lora_alpha"] for wanted in plan.values()).most_common(1)[0][0]
    short = {names[path].rpartition(".")[2] for path in plan}
    everywhere = {path for path, name in names.items() if name.rpartition(".")[2] in short}
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": alpha,
        "target_modules": sorted(short)
        if everywhere == plan.keys()
        else [names[path] for path in plan],
        "rank_pattern": {names[p]: w["rank"] for p, w in plan.items() if w["rank"] != rank},
        "alpha_pattern": {
            names[p]: w["lora_alpha"] for p, w in plan.items() if w["lora_alpha"] != alpha
        },
        "bias": "none",
        "fan_in_fan_out": False,
        "init_lora_weights": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "use_dora": False,
        "use_rslora": False,
    }


def read_plan(config: dict[str, Any], names: dict[str, str], file: Path | str) -> lora.Plan:
    """The plan that an adapter_config.json describes.

    Args:
        config: what the file holds.
        names: the projections' names in transformers, by their paths here.
        file: the file, for messages.

    Raises:
        ValueError: another kind of adapter, an option that is not honoured, or a value that makes
            no sense; the message names it.
    """
    _check_options(config, file)
    targets = _targets(config, names, file)
    stabilised = check_boolean(f"use_rslora in {file}", config.get("use_rslora") or False)
    pick_rank = _pattern(config, "rank_pattern", names, file)
    pick_alpha = _pattern(config, "alpha_pattern", names, file)
    plan = {}
    for path, name in names.items():
        if name not in targets:
            continue
        try:
            rank = check_integer("r", pick_rank(name, config.get("r", 8)))
            alpha = lora.check_alpha(pick_alpha(name, config.get("lora_alpha", 8)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{file}: for {name}, {error}") from error
        if stabilised:
            alpha *= math.sqrt(rank)  # alpha / sqrt(r), said as alpha / r
        plan[path] = {"rank": rank, "lora_alpha": alpha}
    return plan


def _check_options(config: dict[str, Any], file: Path | str) -> None:
    kind = config.get("peft_type")
    if kind != "LORA":
        raise ValueError(f"{file} describes an adapter of the type {kind!r:.80}, not LORA.")
    for name, value in config.items():
        if name not in HONOURED | WITHOUT_EFFECT and value:
            raise ValueError(
                f"{file}: the option {name} ({value!r:.80}) makes this more than LoRA on "
                f"projections, and is not supported. {ADVICE}"
            )
    start = config.get("init_lora_weights")
    if start not in INITIALISERS:
        raise ValueError(
            f"{file}: init_lora_weights is {start!r:.80}, which changes the base model as well, so "
            "the adapter does not fit the original one. Save it with PEFT's save_pretrained(..., "
            f"path_initial_model_for_weight_conversion=...), which undoes that. Or: {ADVICE}"
        )
    if config.get("bias", "none") not in ("none", "all", "lora_only"):
        raise ValueError(
            f"{file}: bias is {config['bias']!r:.80}; PEFT knows none, all, lora_only."
        )
    # Mistral has no biases: "all" and "lora_only" train none either.


def _targets(config: dict[str, Any], names: dict[str, str], file: Path | str) -> set[str]:
    """The names of the modules that the config adapts."""
    known = [*names.values(), *NOT_ADAPTED]
    targets, layers = config.get("target_modules"), config.get("layers_to_transform")
    if isinstance(targets, str) and layers is not None:
        raise ValueError(f"{file}: layers_to_transform needs target_modules as a list, as in PEFT.")
    if config.get("layers_pattern") not in (None, "", [], "layers", ["layers"]):
        raise ValueError(
            f"{file}: layers_pattern is {config['layers_pattern']!r:.80}, but Mistral's blocks are "
            "called 'layers'."
        )
    if isinstance(targets, str) and targets.lower() == "all-linear":
        chosen = set(names.values())
    else:
        chosen = _chosen(targets, known, "target_modules", file)
    if layers is not None and layers != []:
        blocks = layers if isinstance(layers, list) else [layers]
        chosen = {name for name in chosen if any(f"layers.{block}." in name for block in blocks)}
    if config.get("exclude_modules"):
        chosen -= _chosen(config["exclude_modules"], known, "exclude_modules", file)
    for name in NOT_ADAPTED:
        if name in chosen:
            raise ValueError(
                f"{file} adapts {name}, but LoRA is for the projections of the blocks here: "
                f"{', '.join(name.rpartition('.')[2] for name in MODULES.values())}."
            )
    if not chosen:
        raise ValueError(f"{file}: target_modules, {targets!r:.80}, adapts none of this model.")
    return chosen


def _chosen(targets: Any, names: list[str], option: str, file: Path | str) -> set[str]:
    """The names that a list of names' ends, or a regular expression, chooses."""
    if isinstance(targets, str):
        return _matches([targets], names, option, file)[targets]
    if not (isinstance(targets, list) and all(isinstance(target, str) for target in targets)):
        raise ValueError(
            f"{file}: {option} must be a list of names or a regular expression, but is "
            f"{targets!r:.80}."
        )
    return {name for name in names if any(_ends(name, target) for target in targets)}


def _pattern(
    config: dict[str, Any], option: str, names: dict[str, str], file: Path | str
) -> Callable[[str, Any], Any]:
    """A function of a name and a default: the value of the first pattern that matches the name."""
    values = config.get(option) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{file}: {option} must be an object, but is {values!r:.80}.")
    known = list(names.values())
    expressions = {key: rf"(.*\.)?({key})$" for key in values if not re.fullmatch(r"[\w.]+", key)}
    found = _matches(expressions.values(), known, option, file)
    matched = {
        key: found[expressions[key]]
        if key in expressions
        else {name for name in known if _ends(name, key)}
        for key in values
    }

    def pick(name, default):
        return next((values[key] for key in values if name in matched[key]), default)

    return pick


def _ends(name: str, end: str) -> bool:
    return name == end or name.endswith(f".{end}")


def _matches(
    patterns: Iterable[str], names: list[str], option: str, file: Path | str
) -> dict[str, set[str]]:
    """The names that each regular expression matches as a whole.

    Found in a process of its own, which can be ended: matching a hostile expression may take for
    ever.
    """
    patterns = list(patterns)
    if not patterns:
        return {}
    try:
        answer = subprocess.run(
            [sys.executable, "-I", "-S", "-c", MATCHER],
            input=json.dumps([patterns, names]),
            capture_output=True,
            text=True,
            timeout=PATTERN_SECONDS,
            check=True,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(
            f"{file}: matching {option} ({patterns[0]!r:.80}) took more than {PATTERN_SECONDS} s."
        ) from error
    except subprocess.CalledProcessError as error:
        reason = error.stderr.strip().rpartition("\n")[2]
        raise ValueError(
            f"{file}: {option} ({patterns[0]!r:.80}) is no regular expression: {reason}."
        ) from error
    return {pattern: set(found) for pattern, found in zip(patterns, json.loads(answer.stdout))}

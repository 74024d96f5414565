"""mistral_lib/presets/peft_config.py: each option of PEFT is honoured, or refused by name."""

import time

import pytest

from mistral_lib.presets import peft_config
from mistral_lib.presets.peft_config import MODULES, read_plan

NAMES = {
    f"{block}/{ours}": f"model.layers.{block}.{theirs}"
    for block in range(12)
    for ours, theirs in MODULES.items()
}
BASIC = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}


def plan(**changes):
    return read_plan(BASIC | changes, NAMES, "adapter_config.json")


def paths(**changes):
    return set(plan(**changes))


def every(*layers, blocks=range(12)):
    return {f"{block}/{layer}" for block in blocks for layer in layers}


def test_the_plain_case():
    assert plan() == {path: {"rank": 4, "lora_alpha": 8} for path in every("query", "value")}
    without = {"peft_type": "LORA", "target_modules": ["q_proj"]}  # PEFT's defaults
    assert set(map(str, read_plan(without, NAMES, "f").values())) == {
        str({"rank": 8, "lora_alpha": 8})
    }


def test_target_modules():
    assert paths(target_modules="all-linear") == set(NAMES)
    assert paths(target_modules=["down_proj", "no_such"]) == every("down")
    assert paths(target_modules=["layers.1.self_attn.o_proj"]) == {"1/attention_output"}
    assert paths(target_modules=["model.layers.1.mlp.up_proj", "k_proj"]) == {
        "1/up",
        *every("key"),
    }
    assert paths(target_modules=r".*\.1\d?\..*(gate|up)_proj") == every(
        "gate", "up", blocks=(1, 10, 11)
    )
    # Matched as a whole, and an ending is that of a whole name.
    for nothing in (["proj"], r"q_proj", [], ["elf_attn.q_proj"]):
        with pytest.raises(ValueError, match="adapts none of this model"):
            plan(target_modules=nothing)


def test_exclude_modules():
    assert paths(exclude_modules=["v_proj", "layers.3.self_attn.q_proj"]) == every("query") - {
        "3/query"
    }
    assert paths(exclude_modules=r".*\.v_proj") == every("query")


def test_layers_to_transform():
    assert paths(layers_to_transform=[1, 11]) == every("query", "value", blocks=(1, 11))
    assert paths(layers_to_transform=1) == every("query", "value", blocks=(1,))
    assert paths(layers_to_transform=[], layers_pattern=None) == paths()
    for pattern in ("layers", ["layers"], ""):
        assert paths(layers_to_transform=0, layers_pattern=pattern) == every(
            "query", "value", blocks=(0,)
        )


def test_patterns():
    found = plan(
        target_modules="all-linear",
        rank_pattern={"q_proj": 1, r"layers\.1\.self_attn\..*": 2, "proj": 3},
        alpha_pattern={"model.layers.0.mlp.up_proj": 5, r"^model\.layers\.0\.mlp\.up_proj": 6},
    )
    assert found["1/query"]["rank"] == 1  # the first that fits
    assert found["1/key"]["rank"] == 2
    assert found["11/key"]["rank"] == found["0/down"]["rank"] == 4
    assert found["0/up"]["lora_alpha"] == 5
    assert found["1/up"]["lora_alpha"] == 8


def test_rslora():
    found = plan(use_rslora=True, rank_pattern={"v_proj": 9})
    assert found["0/query"] == {"rank": 4, "lora_alpha": 16}
    assert found["0/value"] == {"rank": 9, "lora_alpha": 24}


@pytest.mark.parametrize(
    "changes",
    [
        {"bias": "all"},
        {"bias": "lora_only"},
        {"fan_in_fan_out": True},
        {"lora_dropout": 0.1},
        {"init_lora_weights": False},
        {"init_lora_weights": "gaussian"},
        {"init_lora_weights": "eva", "eva_config": {"rho": 2.0}},
        {"task_type": None, "inference_mode": False, "peft_version": "99", "revision": "main"},
        {"use_dora": False, "modules_to_save": None, "layer_replication": [], "from_2030": False},
    ],
    ids=str,
)
def test_what_changes_nothing(changes):
    assert plan(**changes) == plan()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("use_dora", True),
        ("modules_to_save", ["lm_head"]),
        ("layer_replication", [[0, 4], [2, 5]]),
        ("lora_bias", True),
        ("trainable_token_indices", [1]),
        ("target_parameters", ["mlp.weight"]),
        ("alora_invocation_tokens", [5, 6]),
        ("use_qalora", True),
        ("use_bdlora", {"nblocks": 2}),
        ("arrow_config", {"top_k": 3}),
        ("kasa_config", {"beta": 1.0}),
        ("velora_config", {"scale": 1.0}),
        ("monteclora_config", {"num_samples": 8}),
        ("megatron_config", {"a": 1}),
        ("ensure_weight_tying", True),
        ("an_option_from_2030", True),
    ],
)
def test_what_is_refused_by_name(option, value):
    with pytest.raises(ValueError, match=rf"^adapter_config.json: the option {option} \(.*merge"):
        plan(**{option: value})


@pytest.mark.parametrize(
    "value", ["pissa", "pissa_niter_4", "olora", "corda", "loftq", "lora_ga", "mica", ["pissa"], 7]
)
def test_a_start_that_changes_the_base(value):
    with pytest.raises(ValueError, match=r"init_lora_weights is .*changes the base model"):
        plan(init_lora_weights=value)


@pytest.mark.parametrize("kind", ["LOHA", "IA3", "PREFIX_TUNING", None, ["LORA"]])
def test_another_type_of_adapter(kind):
    with pytest.raises(ValueError, match=r"of the type .*, not LORA"):
        plan(peft_type=kind)


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_layers_that_cannot_be_adapted(target):
    with pytest.raises(ValueError, match=f"adapts {target}, but LoRA is for"):
        plan(target_modules=["q_proj", target])
    with pytest.raises(ValueError, match=f"adapts {target}, but LoRA is for"):
        plan(target_modules=f".*({target}|q_proj)")
    assert paths(target_modules=["q_proj", target], exclude_modules=[target]) == every("query")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 0}, "for model.layers.0.self_attn.q_proj, r must be at least 1"),
        ({"r": "4"}, "r must be an integer"),
        ({"r": None}, "r must be an integer"),
        ({"lora_alpha": -8}, "lora_alpha must be above 0"),
        ({"lora_alpha": 10**400}, "lora_alpha"),
        ({"alpha_pattern": {"v_proj": "x"}}, "for model.layers.0.self_attn.v_proj, lora_alpha"),
        ({"rank_pattern": ["q_proj"]}, "rank_pattern must be an object"),
        ({"rank_pattern": {"(": 4}}, "rank_pattern .* is no regular expression"),
        ({"target_modules": "("}, "target_modules .* is no regular expression"),
        ({"target_modules": None}, "target_modules must be a list of names"),
        ({"target_modules": [1]}, "target_modules must be a list of names"),
        ({"target_modules": {"q_proj": 1}}, "target_modules must be a list of names"),
        ({"exclude_modules": [None]}, "exclude_modules must be a list of names"),
        ({"layers_to_transform": [99]}, "adapts none of this model"),
        ({"layers_to_transform": [[1]]}, "adapts none of this model"),
        ({"target_modules": ".*q_proj", "layers_to_transform": 1}, "as a list, as in PEFT"),
        ({"layers_pattern": "blocks"}, "Mistral's blocks are called 'layers'"),
        ({"use_rslora": "no"}, "use_rslora in adapter_config.json must be True or False"),
        ({"bias": "some"}, "bias is 'some'"),
        ({"bias": ["all"]}, "bias is"),
    ],
    ids=str,
)
def test_values_that_make_no_sense(changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        plan(**changes)


def test_an_expression_that_never_ends(monkeypatch):
    monkeypatch.setattr(peft_config, "PATTERN_SECONDS", 0.5)
    start = time.monotonic()
    with pytest.raises(ValueError, match=r"matching target_modules .* took more than 0.5 s"):
        plan(target_modules=r"(.*)*(.*)*(.*)*x")
    assert time.monotonic() - start < 10


def test_an_expression_runs_no_code():
    with pytest.raises(ValueError, match="adapts none"):
        plan(target_modules="__import__('os').system('exit 3')")

"""Small backbones with LoRA whose factors matter, and what the tests of LoRA compare."""

import numpy as np

from mistral_lib import MistralBackbone, lora, without_weights

CONFIG = {
    "vocabulary_size": 20,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 16,
    "intermediate_dim": 24,
    "num_key_value_heads": 2,
    "sliding_window": 4,
}
INPUTS = {"token_ids": [[1, 2, 3, 4, 5, 6]], "padding_mask": [[1] * 6]}


def make_backbone(dtype=None, seed=0, **changes) -> MistralBackbone:
    with without_weights():  # initialising takes most of the time, and is of no use here
        backbone = MistralBackbone(**{**CONFIG, "dtype": dtype, **changes})
    rng = np.random.default_rng(seed)
    for variable in backbone.weights:
        scale = variable.shape[0] ** -0.5 if len(variable.shape) > 1 else 0.1
        variable.assign(rng.normal(len(variable.shape) == 1, scale, variable.shape))
    return backbone


def set_factors(backbone, size=0.3) -> None:
    """Factors large enough to matter, as if trained."""
    rng = np.random.default_rng(9)
    for layer in lora.projections(backbone).values():
        if layer.lora_enabled:
            layer.lora_kernel_a.assign(rng.normal(0, size, layer.lora_kernel_a.shape))
            layer.lora_kernel_b.assign(rng.normal(0, size, layer.lora_kernel_b.shape))


def adapted_backbone(*arguments, **changes) -> MistralBackbone:
    """A backbone with LoRA of these arguments to `enable_lora`."""
    backbone = make_backbone(**changes)
    backbone.enable_lora(*arguments)
    set_factors(backbone)
    return backbone


def outputs(backbone) -> np.ndarray:
    return np.array(backbone(INPUTS), "float32")


def base_bytes(backbone) -> dict[str, bytes]:
    return {
        v.path: np.asarray(v.value).tobytes() for v in backbone.variables if "lora" not in v.path
    }

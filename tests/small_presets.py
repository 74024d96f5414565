"""Small models with weights that differ everywhere, and the presets that KerasHub made."""

import functools
import json
import shutil

import numpy as np
from reference.make_keras_preset import SHARDED, SINGLE
from safetensors.numpy import load_file, save_file
from vocabularies import trained_model

from mistral_lib import (
    MistralBackbone,
    MistralCausalLM,
    MistralCausalLMPreprocessor,
    MistralTokenizer,
    without_weights,
)
from mistral_lib.presets import mistral_format, transformers_format
from mistral_lib.presets.sources import LocalFolder

KERAS_HUB = {"single": SINGLE, "sharded": SHARDED}
CONFIG = {
    "vocabulary_size": 300,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "num_key_value_heads": 2,
    "sliding_window": 3,
}
INPUTS = {
    "token_ids": np.arange(14).reshape(2, 7) * 17 % 300,
    "padding_mask": np.arange(7) < np.array([[7], [4]]),
}


def small_backbone(seed=0, **changes) -> MistralBackbone:
    with without_weights():  # initialising takes most of the time, and is of no use here
        backbone = MistralBackbone(**{**CONFIG, **changes})
    random = np.random.default_rng(seed)
    for variable in backbone.trainable_variables:
        variable.assign(random.normal(0, 0.5, variable.shape))
    return backbone


@functools.cache
def small_tokenizer() -> MistralTokenizer:
    return MistralTokenizer(trained_model())


def small_causal_lm(preprocessor=True, **changes) -> MistralCausalLM:
    if preprocessor is True:
        preprocessor = MistralCausalLMPreprocessor(small_tokenizer(), 12, add_end_token=False)
    return MistralCausalLM(small_backbone(**changes), preprocessor)


def weights(model) -> dict[str, np.ndarray]:
    """The trainable variables by their path."""
    return {variable.path: np.asarray(variable.value) for variable in model.trainable_variables}


def assert_same_weights(one, other) -> None:
    """Bit for bit, dtypes included."""
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    for path, array in ours.items():
        assert array.dtype == theirs[path].dtype, path
        assert array.tobytes() == theirs[path].tobytes(), path


def write_as_mistral(source, folder) -> None:
    """A checkpoint of transformers, in one file, under Mistral's names."""
    sizes = transformers_format.TransformersFormat().read_arguments(LocalFolder(source))
    params = {there: sizes[name] for name, there in mistral_format.ARGUMENTS.items()}
    params |= {"sliding_window": sizes["sliding_window"]}
    params |= {"rope_theta": sizes["rope_max_wavelength"]}
    there, here = transformers_format.NAMES, mistral_format.NAMES
    names = {
        there[name].format(block): here[name].format(block)
        for name in there
        for block in range(sizes["num_layers"])
    }
    heads = {"wq": sizes["num_query_heads"], "wk": sizes["num_key_value_heads"]}
    arrays = {}
    for name, array in load_file(source / "model.safetensors").items():
        count = heads.get(names[name].split(".")[-2])
        if count:  # rotary pairs side by side
            halves = array.reshape(count, 2, -1, array.shape[1])
            array = halves.swapaxes(1, 2).reshape(array.shape)
        arrays[names[name]] = array
    folder.mkdir()
    save_file(arrays, folder / "consolidated.safetensors")
    (folder / "params.json").write_text(json.dumps(params))
    if (source / "tokenizer.model").exists():
        shutil.copy(source / "tokenizer.model", folder)


def edit(file, remove=(), **changes):
    """Changes entries of a JSON file."""
    content = json.loads(file.read_text())
    content.update(changes)
    for name in remove:
        del content[name]
    file.write_text(json.dumps(content))

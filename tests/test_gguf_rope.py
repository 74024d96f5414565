"""mistral_lib/presets/gguf_rope.py: scalings as llama.cpp writes them, there and back."""

from pathlib import Path

import numpy as np
import pytest
from reference.make_gguf import CASES, FOLDER, config_of

from mistral_lib.config import MistralConfig
from mistral_lib.layers.rotary import attention_factor, rotary_frequencies
from mistral_lib.presets.gguf_files import GgufFile, read_gguf
from mistral_lib.presets.gguf_rope import (
    ROPE_TENSOR,
    architecture_of,
    frequency_divisors,
    read_rope,
    write_rope,
)
from mistral_lib.presets.safetensors_files import SafeTensor

SIZES = dict(
    vocabulary_size=10,
    num_layers=1,
    num_query_heads=2,
    hidden_dim=64,
    intermediate_dim=8,
    num_key_value_heads=1,
)
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 8192,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
BETA = {"llama_4_scaling_beta": 0.1}


class Stored(GgufFile):
    """A file that was not written: metadata, and divisors of the frequencies."""

    def __new__(cls, values, divisors=None):
        return super().__new__(cls)

    def __init__(self, values, divisors=None):
        kinds = {} if divisors is None else {ROPE_TENSOR: "F32"}
        metadata = {f"llama.{key}": value for key, value in values.items()}
        super().__init__(Path("a.gguf"), metadata, kinds, {})
        object.__setattr__(self, "divisors", divisors)

    def tensors(self):
        class Read(SafeTensor):
            def read(self):
                return divisors

        divisors = self.divisors
        return {ROPE_TENSOR: Read(Path("a.gguf"), ROPE_TENSOR, divisors.shape, "float32", 0)}


def config(**changes):
    return MistralConfig(**{**SIZES, **changes})


def there_and_back(written):
    scaling, divisors = written.rope_scaling, None
    if scaling is not None and scaling.rope_type == "llama3":
        divisors = frequency_divisors(written.head_dim, written.rope_max_wavelength, scaling)
        divisors = divisors.astype("float32")
    values = {"context_length": 4096, **write_rope(written)}
    return config(**read_rope(Stored(values, divisors), "llama"))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"rope_max_wavelength": 1e6},
        {"rope_scaling_factor": 4},
        {"rope_scaling": YARN},
        {"rope_scaling": YARN | {"beta_fast": 8.0, "beta_slow": 2.0}},
        {"rope_scaling": YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}},
        {"rope_scaling": YARN | BETA | {"mscale": 1.0, "mscale_all_dim": 0.5}},
        {"rope_scaling": BETA | {"rope_type": "default", "original_max_position_embeddings": 64}},
    ],
)
def test_there_and_back(changes):
    assert there_and_back(config(**changes)) == config(**changes)


@pytest.mark.parametrize(
    "more",
    [
        {"attention_factor": 1.0},
        {"attention_factor": 1.7},
        {"mscale": 0.7, "mscale_all_dim": 0.3},
        {"mscale": 2.0, "mscale_all_dim": 1.0, "attention_factor": 0.9},
    ],
)
def test_attention_factor(more):
    """It has another form there, with the same value."""
    expected = config(rope_scaling=YARN | more)
    found = there_and_back(expected).rope_scaling
    assert attention_factor(found) == pytest.approx(attention_factor(expected.rope_scaling))


@pytest.mark.parametrize("original", [512, 8192])
@pytest.mark.parametrize("ends", [(1.0, 4.0), (1.0, 1.5), (0.5, 32.0)])
@pytest.mark.parametrize("head_dim", [16, 128])
def test_llama3(original, ends, head_dim):
    """Found from the divisors alone, however many frequencies are between the two ends."""
    low, high = ends
    scaling = LLAMA3 | {"low_freq_factor": low, "high_freq_factor": high}
    scaling |= {"original_max_position_embeddings": original}
    expected = config(rope_scaling=scaling, head_dim=head_dim, rope_max_wavelength=5e5)
    found = there_and_back(expected)
    arguments = (head_dim, 5e5)
    ours = rotary_frequencies(*arguments, found.rope_scaling)
    theirs = rotary_frequencies(*arguments, expected.rope_scaling)
    assert np.abs(ours / theirs - 1).max() < 1e-4
    assert np.abs(ours / rotary_frequencies(*arguments) - 1).max() > 0.5


def test_divisors_of_llama_cpp():
    name = "llama3"
    stored = read_gguf(FOLDER / f"{name}.gguf").tensors()[ROPE_TENSOR].read()
    scaling = MistralConfig(**config_of(name)).rope_scaling
    assert np.abs(stored / frequency_divisors(16, 500.0, scaling) - 1).max() < 1e-6
    assert stored.min() == 1 < stored[1] < stored.max() == 8


def test_divisors_that_change_nothing():
    assert "rope_scaling" not in read_rope(Stored({}, np.ones(8, "float32")), "llama")


@pytest.mark.parametrize("divisors", [[1, 1, 3, 2], [0.5, 0.5, 0.5, 0.5], [2, 2, 2, 2]])
def test_divisors_that_are_not_llamas(divisors):
    with pytest.raises(ValueError, match="in a way that is not Llama 3's"):
        read_rope(Stored({}, np.array(divisors, "float32")), "llama")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rope.scaling.type": "longrope"}, "is 'longrope', which is not known here"),
        (
            {"rope.scaling.type": "yarn", "rope.scaling.yarn_ext_factor": 0.5},
            "yarn_ext_factor is 0.5",
        ),
    ],
)
def test_what_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        read_rope(Stored(values), "llama")


@pytest.mark.parametrize(
    ("scaling", "architecture"),
    [(None, "llama"), (LLAMA3, "llama"), (YARN, "mistral3"), (LLAMA3 | BETA, "mistral3")],
)
def test_architecture(scaling, architecture):
    assert architecture_of(config(rope_scaling=scaling)) == architecture


@pytest.mark.parametrize("scaling", [YARN | {"rope_type": "dynamic"}, YARN | {"truncate": False}])
def test_what_llama_cpp_does_not_have(scaling):
    with pytest.raises(ValueError, match=r"llama.cpp has no rope_scaling with"):
        architecture_of(config(rope_scaling=scaling))


@pytest.mark.parametrize("name", CASES)
def test_metadata_of_llama_cpp_comes_out_again(name):
    """Where the converter says something of rotary positions, the same is said here."""
    file = read_gguf(FOLDER / f"{name}.gguf")
    config = MistralConfig(**config_of(name))
    architecture = architecture_of(config)
    assert file.metadata["general.architecture"] == architecture
    theirs = {key: v for key, v in file.metadata.items() if f"{architecture}.rope." in key}
    del theirs[f"{architecture}.rope.dimension_count"]
    ours = {f"{architecture}.{key}": value for key, value in write_rope(config).items()}
    assert {key: ours.get(key) for key in theirs} == theirs

"""mistral_lib/calibration.py: GPTQ, which Keras computes and int4 stores."""

import keras
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.calibration import check_config, token_windows
from mistral_lib.keras_inside import CalibratedMatrix

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SIZES = {
    "vocabulary_size": 40,
    "num_layers": 2,
    "num_query_heads": 2,
    "num_key_value_heads": 1,
    "hidden_dim": 16,
    "intermediate_dim": 24,
}
IDS = np.random.default_rng(0).integers(0, 40, 300)


def make_backbone():
    backbone = MistralBackbone(**SIZES)
    random = np.random.default_rng(1)
    for variable in backbone.variables:
        if len(variable.shape) > 1:
            variable.assign(random.normal(0, 0.4, variable.shape))
    # Features of very different sizes, as trained models have them: rounding has something to save.
    backbone.token_embedding.embeddings.assign(
        random.normal(0, 1, (40, 4)) @ random.normal(0, 1, (4, 16))
    )
    return backbone


def make_config(**options):
    given = {"num_samples": 4, "sequence_length": 32, "group_size": 8, **options}
    return keras.quantizers.GPTQConfig([IDS], None, **given)


@pytest.fixture(scope="module")
def models():
    """A float model, and what is left of it in int4 and after GPTQ."""
    floats, plain, calibrated = make_backbone(), make_backbone(), MistralCausalLM(make_backbone())
    plain.quantize("int4/8")
    calibrated.quantize("gptq", config=make_config())
    return floats, plain, calibrated.backbone


def outputs(backbone):
    ids = IDS[:256].reshape(8, 32)
    return np.array(backbone({"token_ids": ids, "padding_mask": np.ones_like(ids)}), "float64")


@pytest.mark.slow
def test_it_is_int4_with_better_values(models):
    floats, plain, calibrated = models
    assert calibrated.quantization == plain.quantization == "int4/8"
    errors = [abs(outputs(each) - outputs(floats)).mean() for each in (plain, calibrated)]
    assert errors[1] < 0.9 * errors[0]
    assert floats.token_embedding.quantization_mode is None
    for each in (plain, calibrated):  # the embedding is rounded as it is in int4
        np.testing.assert_array_equal(
            each.token_embedding(IDS[None, :9]), plain.token_embedding(IDS[None, :9])
        )


def test_sums_over_the_inputs_that_were_seen_stay_right():
    """The matrix is less like the float one, and its products are more like the float ones."""
    random = np.random.default_rng(2)
    kernel = random.normal(size=(16, 12))
    inputs = random.normal(size=(200, 5)) @ random.normal(size=(5, 16))

    def rounded(*seen):
        matrix = CalibratedMatrix(kernel, make_config())
        for each in seen:
            matrix.see(each)
        values, scale, zero = matrix.round()
        return (values - zero.repeat(8, 0)) * scale.repeat(8, 0)

    nearest, calibrated = rounded(), rounded(inputs[:120], inputs[120:])
    steps = np.ptp(kernel.reshape(2, 8, 12), axis=1).repeat(8, 0) / 15
    assert (abs(nearest - kernel) < 1.01 * steps).all()
    assert abs(nearest - kernel).mean() < abs(calibrated - kernel).mean()
    errors = [abs(inputs @ (each - kernel)).mean() for each in (nearest, calibrated)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.slow
def test_it_is_saved_loaded_and_written_with(models, tmp_path):
    _, _, calibrated = models
    calibrated.save_to_preset(tmp_path)
    loaded = MistralBackbone.from_preset(tmp_path)
    np.testing.assert_array_equal(outputs(loaded), outputs(calibrated))
    assert len(MistralCausalLM(loaded).generate([1, 2], max_new_tokens=3)) == 5


@pytest.mark.slow
def test_whole_columns_and_a_second_call():
    backbone = make_backbone()
    backbone.quantize(config=make_config(group_size=-1, num_samples=1))
    assert backbone.quantization == "int4/26"
    with pytest.raises(ValueError, match=r"config goes with 'gptq' and a float model, .*'int4/26'"):
        backbone.quantize("gptq", config=make_config())


@pytest.mark.slow
def test_an_error_leaves_the_model_as_it_was():
    backbone = make_backbone()
    before = outputs(backbone)
    backbone.transformer_layers[1].feedforward.down.call = None  # fails in the second block
    with pytest.raises(TypeError):
        backbone.quantize("gptq", config=make_config(num_samples=1))
    del backbone.transformer_layers[1].feedforward.down.call
    assert backbone.quantization is None
    np.testing.assert_array_equal(outputs(backbone), before)


class Words:
    """A tokenizer of texts that are numbers."""

    def tokenize(self, text):
        return [int(word) for word in text.split()]


def test_windows_of_texts_and_ids():
    config = keras.quantizers.GPTQConfig(["1 2 3", "4 5 6 7"], Words(), num_samples=3)
    config.sequence_length = 3
    assert token_windows(config).tolist() == [[1, 2, 3], [3, 4, 5], [5, 6, 7]]
    config.sequence_length = 8
    with pytest.raises(ValueError, match=r"at least sequence_length tokens, 8, but holds 7. Give"):
        token_windows(config)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (None, TypeError, "config must be a keras.quantizers.GPTQConfig, but is None"),
        (make_config(weight_bits=8), ValueError, "weight_bits of config must be 4, but is 8"),
        (
            make_config(activation_order=True),
            ValueError,
            "activation_order .* be False",
        ),
        (make_config(group_size=7), ValueError, "must be an even number or -1, but is 7"),
        (keras.quantizers.GPTQConfig(None, None), ValueError, "dataset of config must hold texts"),
    ],
)
def test_configs_that_cannot_be_stored(config, error, message):
    with pytest.raises(error, match=message):
        check_config(config)


def test_the_structure_that_keras_asks_for():
    model = MistralCausalLM(MistralBackbone(**SIZES))
    for mode in ("gptq", "awq"):
        structure = model.get_quantization_layer_structure(mode)
        assert structure["pre_block_layers"] == [model.backbone.token_embedding]
        assert structure["sequential_blocks"] == model.backbone.transformer_layers
    assert model.get_quantization_layer_structure("int8") is None
    with pytest.raises(ValueError, match=r"AWQ is not supported: .* Use 'gptq' with a"):
        model.quantize("awq")

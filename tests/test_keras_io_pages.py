"""What keras.io shows on Mistral, on samplers and on LoRA, with only the import changed.

Each test is the program of one page in short: `keras_hub` is this library. Presets of 7B become the
one that comes with the library, and lengths become short. The pages are those of MistralBackbone,
MistralCausalLM, MistralTokenizer, MistralCausalLMPreprocessor and the samplers, the model card of
keras/mistral_7b_en, and the guide to LoRA and QLoRA (written there for Gemma).
"""

from importlib.util import find_spec

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

import mistral_lib as keras_hub

PRESET = "mistral_tiny_en"
needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)


@pytest.fixture(scope="module")
def causal_lm():
    return keras_hub.models.MistralCausalLM.from_preset(PRESET, dtype="float32")


def test_backbone():
    input_data = {
        "token_ids": np.ones(shape=(1, 12), dtype="int32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]]),
    }
    model = keras_hub.models.MistralBackbone.from_preset(PRESET)
    assert model(input_data).shape == (1, 12, 192)
    model = keras_hub.models.MistralBackbone(
        vocabulary_size=10,
        hidden_dim=64,
        num_layers=2,
        num_query_heads=32,
        num_key_value_heads=8,
        intermediate_dim=128,
        sliding_window=512,
        layer_norm_epsilon=1e-6,
        dtype="float32",
    )
    assert model(input_data).shape == (1, 12, 64)
    assert model.token_embedding(input_data["token_ids"]).shape == (1, 12, 64)
    model.enable_lora(rank=4)
    assert list(keras_hub.models.MistralBackbone.presets.keys())


def test_tokenizer():
    tokenizer = keras_hub.models.MistralTokenizer.from_preset(PRESET)
    one = tokenizer("The quick brown fox jumped.")
    both = tokenizer(["The quick brown fox jumped.", "The fox slept."])
    assert both[0] == one
    assert tokenizer.detokenize(one) == "The quick brown fox jumped."
    assert tokenizer.detokenize(both)[1] == "The fox slept."


def test_preprocessor():
    preprocessor = keras_hub.models.MistralCausalLMPreprocessor.from_preset(
        PRESET, sequence_length=32
    )
    x, y, sample_weight = preprocessor("League of legends")
    assert x["token_ids"].shape == y.shape == sample_weight.shape == (32,)
    batch, _, _ = preprocessor(["Taco tuesday", "Fish taco please!"])
    assert batch["token_ids"].shape == (2, 32)


@pytest.mark.peer
@needs_tensorflow
def test_preprocessor_in_tf_data():
    import tensorflow as tf

    preprocessor = keras_hub.models.MistralCausalLMPreprocessor.from_preset(
        PRESET, sequence_length=32
    )
    for texts in ("League of legends", ["Taco tuesday", "Fish taco please!"]):
        keras.tree.map_structure(
            np.testing.assert_array_equal, preprocessor(tf.constant(texts)), preprocessor(texts)
        )
    features = tf.constant(["Avatar 2 is amazing!", "Well, I am not sure."])
    ds = tf.data.Dataset.from_tensor_slices((features, tf.constant([1, 0])))
    with pytest.warns(UserWarning, match="makes y from x; what the dataset holds is not used"):
        labelled = ds.map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
    ds = tf.data.Dataset.from_tensor_slices(features)
    ds = ds.map(preprocessor, num_parallel_calls=tf.data.AUTOTUNE)
    for one, other in zip(labelled, ds, strict=True):
        keras.tree.map_structure(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
def test_causal_lm_writes(causal_lm):
    mistral_lm = causal_lm
    text = mistral_lm.generate("[INST] What is Keras? [/INST]", max_length=30)
    assert text.startswith("[INST] What is Keras? [/INST]")
    texts = mistral_lm.generate(["I want to say", "Return the"], max_length=20)
    assert len(texts) == 2
    mistral_lm.compile(sampler="greedy")
    mistral_lm.generate("I want to say", max_length=20)
    mistral_lm.compile(sampler=keras_hub.samplers.BeamSampler(num_beams=2))
    mistral_lm.generate("I want to say", max_length=20)
    stripped = mistral_lm.generate("I want to say", max_length=20, strip_prompt=True)
    assert not stripped.startswith("I want to say")
    mistral_lm.compile()


@pytest.mark.slow
def test_causal_lm_without_preprocessing():
    prompt = {
        "token_ids": np.array([[1, 315, 947, 298, 1315, 0, 0, 0, 0, 0]] * 2),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 0, 0, 0, 0, 0]] * 2),
    }
    mistral_lm = keras_hub.models.MistralCausalLM.from_preset(
        PRESET, preprocessor=None, dtype="bfloat16"
    )
    written = mistral_lm.generate(prompt, stop_token_ids=None)
    assert written["token_ids"].shape == (2, 10)
    assert written["padding_mask"].all()
    x = {
        "token_ids": np.array([[1, 315, 947, 298, 1315, 369, 315, 837, 0, 0]] * 2),
        "padding_mask": np.array([[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]] * 2),
    }
    y = np.array([[315, 947, 298, 1315, 369, 315, 837, 2, 0, 0]] * 2)
    sw = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 0, 0]] * 2)
    mistral_lm.fit(x=x, y=y, sample_weight=sw, batch_size=2, verbose=0)


@pytest.mark.slow
def test_causal_lm_fits_and_scores(causal_lm):
    model = keras_hub.models.MistralCausalLM(causal_lm.backbone, causal_lm.preprocessor)
    model.preprocessor.sequence_length = 32
    features = ["The quick brown fox jumped.", "I forgot my homework."]
    before = [np.array(variable.value) for variable in model.trainable_variables]
    model.fit(x=features, batch_size=2, verbose=0)
    for variable, value in zip(model.trainable_variables, before, strict=True):
        variable.assign(value)
    generations = model.generate(["This is a", "Where are you"], max_length=30)
    preprocessed = model.preprocessor.generate_preprocess(generations)
    generation_ids, padding_mask = preprocessed["token_ids"], preprocessed["padding_mask"]
    target_ids = keras.ops.roll(generation_ids, shift=-1, axis=1)
    kept = {}

    def losses(embeddings):  # the page has TensorFlow's GradientTape here
        def layer_intercept_fn(x, i):
            if i == -1:
                kept["embeddings"] = x
                return x + embeddings
            return x

        return model.score(
            token_ids=generation_ids,
            padding_mask=padding_mask,
            scoring_mode="loss",
            layer_intercept_fn=layer_intercept_fn,
            target_ids=target_ids,
        ).sum()

    gradient = jax.grad(losses)(jnp.zeros((2, 32, 192)))
    assert gradient.shape == kept["embeddings"].shape == (2, 32, 192)
    assert np.isfinite(gradient).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        ("greedy", lambda samplers: samplers.GreedySampler()),
        ("top_k", lambda samplers: samplers.TopKSampler(k=5, temperature=0.7)),
        ("top_p", lambda samplers: samplers.TopPSampler(p=0.1, k=1_000)),
        ("random", lambda samplers: samplers.RandomSampler(temperature=0.7)),
        ("beam", lambda samplers: samplers.BeamSampler(num_beams=5)),
        ("contrastive", lambda samplers: samplers.ContrastiveSampler(k=5)),
    ],
)
def test_samplers(causal_lm, name, sampler):
    for each in (name, sampler(keras_hub.samplers)):
        causal_lm.compile(sampler=each)
        (text,) = causal_lm.generate(["Keras is a"], max_length=16)
        assert text.startswith("Keras is a")
    causal_lm.compile()


@pytest.mark.slow
def test_a_sampler_of_ones_own(causal_lm, capsys):
    class CustomSampler(keras_hub.samplers.Sampler):
        def __init__(self, forbidden_tokens, **kwargs):
            super().__init__(**kwargs)
            self.forbidden_tokens = forbidden_tokens

        def get_next_token(self, probs):
            batch_size = keras.ops.shape(probs)[0]
            for id in self.forbidden_tokens:
                update = keras.ops.zeros((batch_size, 1))
                probs = keras.ops.slice_update(probs, (0, id), update)
            return keras.ops.argmax(probs, axis=-1)

    options = {"max_new_tokens": 12, "stop_token_ids": None}
    free = causal_lm.generate([1, 20], **options)
    causal_lm.compile(sampler=CustomSampler(forbidden_tokens=free[2:6]))
    causal_lm.summary()
    assert not set(causal_lm.generate([1, 20], **options)[2:]) & set(free[2:6])
    causal_lm.generate(["That's strange"], max_length=16)
    causal_lm.compile()


def test_samplers_by_identifier():
    assert isinstance(keras_hub.samplers.get("greedy"), keras_hub.samplers.GreedySampler)
    config = {"class_name": "keras_hub>GreedySampler", "config": {}}
    assert isinstance(keras_hub.samplers.get(config), keras_hub.samplers.GreedySampler)
    serialized = keras_hub.samplers.serialize(keras_hub.samplers.TopKSampler(k=7))
    assert keras_hub.samplers.deserialize(serialized).k == 7


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [None, "int8"])
def test_lora(quantization, tmp_path, capsys):
    """The guide to fine-tuning with LoRA, and with QLoRA."""
    data = ["Instruction:\nWhat is a key?\n\nResponse:\nA name."] * 2
    mistral_lm = keras_hub.models.MistralCausalLM.from_preset(PRESET)
    if quantization is not None:
        mistral_lm.quantize(quantization)
    mistral_lm.backbone.enable_lora(rank=4)
    mistral_lm.summary()
    mistral_lm.preprocessor.sequence_length = 32
    optimizer = keras.optimizers.AdamW(learning_rate=5e-3, weight_decay=0.01)
    optimizer.exclude_from_weight_decay(var_names=["bias", "scale"])
    mistral_lm.compile(
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        optimizer=optimizer,
        weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
    )
    losses = mistral_lm.fit(data, epochs=3, batch_size=1, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    mistral_lm.backbone.save_lora_weights(str(tmp_path / "key.lora.h5"))
    fresh = keras_hub.models.MistralCausalLM.from_preset(PRESET)
    if quantization is not None:
        fresh.quantize(quantization)
    fresh.backbone.enable_lora(rank=4)
    fresh.backbone.load_lora_weights(str(tmp_path / "key.lora.h5"))
    trained = (model.backbone.trainable_variables for model in (mistral_lm, fresh))
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one.value, other.value)
    sampler = keras_hub.samplers.TopKSampler(k=5, seed=2)
    mistral_lm.compile(sampler=sampler)
    assert mistral_lm.generate("Instruction:\nWhat is", max_length=16).startswith("Instruction:")

"""mistral_lib/generation/generate.py: text and ids in, text and ids out; streaming."""

import jax.numpy as jnp
import numpy as np
import pytest
from text_models import LENGTH, make_model

from mistral_lib import MistralCausalLM


@pytest.fixture(scope="module")
def model():
    return make_model()


def test_text_in_text_out(model):
    text = model.generate("the window")
    assert isinstance(text, str)
    assert text.startswith("the window")
    both = model.generate(["the window", "A query sees a key"])
    assert isinstance(both, list)
    assert both[0] == text
    assert both[1].startswith("A query sees a key")


def test_strip_prompt(model):
    whole = model.generate("the window")
    assert "the window" + model.generate("the window", strip_prompt=True) == whole


def test_ids_in_ids_out(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    out = model.generate(ids, max_length=LENGTH)
    assert out[: len(ids)] == ids
    assert model.preprocessor.tokenizer.decode(out) == model.generate("the window")
    assert model.generate(np.array([ids]), max_length=LENGTH) == [out]
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))}
    np.testing.assert_array_equal(model.generate(inputs, LENGTH)["token_ids"], [out])
    assert model.generate(ids, max_length=LENGTH, strip_prompt=True) == out[len(ids) :]


def test_lengths(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    assert len(model.generate(ids, max_length=LENGTH, stop_token_ids=None)) == LENGTH
    assert len(model.generate(ids, stop_token_ids=None)) == LENGTH  # the preprocessor's
    new = model.generate(ids, max_new_tokens=3, stop_token_ids=None, strip_prompt=True)
    assert len(new) == 3


def test_stop_tokens(model):
    ids = model.preprocessor.generate_preprocess("the window")[0]
    free = model.generate(ids, stop_token_ids=None, strip_prompt=True)
    stopped = model.generate(ids, stop_token_ids=[free[2]], strip_prompt=True)
    assert stopped == free[: free.index(free[2]) + 1]


def test_the_end_token_stops_by_default():
    """A head whose column of the end token is largest everywhere writes it at once."""
    model = make_model()
    end = model.preprocessor.tokenizer.end_token_id
    head = model.backbone.token_embedding.reverse_embeddings
    scale = model.backbone.layer_norm.scale
    scale.assign(jnp.zeros_like(scale.value))  # all logits equal: the first id wins
    assert model.generate([1, 5], max_new_tokens=3, strip_prompt=True) == [0, 0, 0]
    scale.assign(jnp.ones_like(scale.value))
    states = model.backbone({"token_ids": [[1, 5]], "padding_mask": [[1, 1]]})[0, -1]
    kernel = np.array(head.value)
    kernel[:, end] = 100 * np.array(states)
    head.assign(kernel)
    assert model.generate([1, 5], max_new_tokens=3, strip_prompt=True) == [end]


@pytest.mark.parametrize(
    "steps", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "top_p": 0.9, "seed": 4}]
)
@pytest.mark.parametrize("strip_prompt", [False, True])
def test_stream_joins_to_generate(model, steps, strip_prompt):
    arguments = {"strip_prompt": strip_prompt, "stop_token_ids": None, **steps}
    pieces = list(model.stream("the window", 64, **arguments))
    assert len(pieces) > 3
    assert "".join(pieces) == model.generate("the window", 64, **arguments)


def test_seed(model):
    def text(seed):
        return model.generate("the window", temperature=1.5, seed=seed)

    assert text(1) == text(1) != text(2)
    batch = model.generate(["the window"] * 2, temperature=1.5, seed=1)
    assert batch == [text(1), text(2)]
    assert model.generate(["A query", "the window"], temperature=1.5, seed=[9, 2])[1] == text(2)


@pytest.mark.parametrize(
    ("inputs", "arguments", "error", "message"),
    [
        ("", {}, None, None),  # the start token is a prompt
        ([], {}, ValueError, "empty"),
        ([1, 10**6], {}, ValueError, "the token id 1000000, but the vocabulary ends at 299"),
        ("the window " * 20, {}, ValueError, "prompts are never cut"),
        ("a", {"max_length": 5, "max_new_tokens": 5}, ValueError, "one of the two"),
        ("a", {"stop_token_ids": "end"}, ValueError, "stop_token_ids must be one of 'auto'"),
        ("a", {"stop_token_ids": ["x"]}, TypeError, "a stop token id must be an integer"),
        ("a", {"temperature": -1}, ValueError, "temperature"),
        ("a", {"seed": "x"}, TypeError, "seed must be an integer"),
        (3.5, {}, TypeError, "A prompt must be text"),
    ],
)
def test_wrong_calls(model, inputs, arguments, error, message):
    if error is None:
        assert isinstance(model.generate(inputs, **arguments), str)
    else:
        with pytest.raises(error, match=message):
            model.generate(inputs, **arguments)


def test_stream_takes_one_text_and_fails_at_the_call(model):
    with pytest.raises(TypeError, match="stream writes one text"):
        model.stream(["a", "b"])
    with pytest.raises(ValueError, match="max_length is 2"):
        model.stream("the window", 2)


def test_without_preprocessor(model):
    bare = MistralCausalLM(model.backbone)
    ids = model.preprocessor.generate_preprocess("the window")[0]
    assert bare.generate(ids, LENGTH) == model.generate(ids, LENGTH, stop_token_ids=None)
    with pytest.raises(ValueError, match="no preprocessor"):
        bare.generate("the window", 5)
    with pytest.raises(ValueError, match="Give max_length"):
        bare.generate(ids)

"""mistral_lib/generation/generate.py: text and ids in, text and ids out; streaming."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import PROMPTS, make_backbone
from text_models import LENGTH, make_model

from mistral_lib import MistralCausalLM
from mistral_lib.generation.compiled import watch


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
    ids = model.preprocessor.prompt_ids("the window")[0]
    out = model.generate(ids, max_length=LENGTH)
    assert out[: len(ids)] == ids
    assert model.preprocessor.tokenizer.decode(out) == model.generate("the window")
    assert model.generate(np.array([ids]), max_length=LENGTH) == [out]
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))}
    np.testing.assert_array_equal(model.generate(inputs, LENGTH)["token_ids"], [out])
    assert model.generate(ids, max_length=LENGTH, strip_prompt=True) == out[len(ids) :]


def test_lengths(model):
    ids = model.preprocessor.prompt_ids("the window")[0]
    assert len(model.generate(ids, max_length=LENGTH, stop_token_ids=None)) == LENGTH
    assert len(model.generate(ids, stop_token_ids=None)) == LENGTH  # the preprocessor's
    new = model.generate(ids, max_new_tokens=3, stop_token_ids=None, strip_prompt=True)
    assert len(new) == 3


def test_stop_tokens(model):
    ids = model.preprocessor.prompt_ids("the window")[0]
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "steps", [{}, {"temperature": 1.0, "seed": 3}, {"temperature": 1.5, "top_p": 0.9, "seed": 4}]
)
@pytest.mark.parametrize("strip_prompt", [False, True])
def test_stream_joins_to_generate(model, steps, strip_prompt):
    arguments = {"strip_prompt": strip_prompt, "stop_token_ids": None, **steps}
    pieces = list(model.stream("the window", 64, **arguments))
    assert len(pieces) > 3
    assert "".join(pieces) == model.generate("the window", 64, **arguments)


@pytest.mark.slow
def test_samples(model):
    """One prompt gives a list, a batch a list of lists; the seeds go on from row to row."""
    arguments = {"temperature": 1.5, "seed": 4}
    one = model.generate("the window", num_samples=3, **arguments)
    expected = [model.generate("the window", temperature=1.5, seed=s) for s in (4, 5, 6)]
    assert one == expected
    assert len(set(one)) == 3
    batch = model.generate(["A query", "the window"], num_samples=2, **arguments)
    assert [len(rows) for rows in batch] == [2, 2]
    assert batch[1] == [model.generate("the window", temperature=1.5, seed=s) for s in (6, 7)]
    ids = model.preprocessor.prompt_ids("the window")[0]
    rows = model.generate(ids, LENGTH, num_samples=2, **arguments)
    assert [model.preprocessor.tokenizer.decode(row) for row in rows] == one[:2]
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))}
    flat = model.generate(inputs, LENGTH, num_samples=2, **arguments)
    for row, mask, expected in zip(flat["token_ids"], flat["padding_mask"], rows):
        assert row[mask].tolist() == expected


@pytest.mark.slow
def test_log_probs(model):
    """The model's own, at any temperature; in the shape of the result."""
    ids = model.preprocessor.prompt_ids("the window")[0]
    row, values = model.generate(
        ids, max_new_tokens=5, temperature=1.3, top_k=9, seed=2, return_log_probs=True
    )
    logits = model({"token_ids": np.array([row]), "padding_mask": np.ones((1, len(row)))})[0]
    expected = np.array(jax.nn.log_softmax(logits))[
        range(len(ids) - 1, len(row) - 1), row[len(ids) :]
    ]
    np.testing.assert_allclose(values, expected, atol=1e-4)
    _, values = model.generate(
        ["the window"] * 2, num_samples=2, temperature=1.0, return_log_probs=True
    )
    assert [[type(v[0]) for v in rows] for rows in values] == [[float] * 2] * 2
    _, values = model.generate(
        {"token_ids": [ids], "padding_mask": [[1] * len(ids)]}, 20, return_log_probs=True
    )
    assert len(values) == 1


@pytest.mark.slow
@pytest.mark.parametrize("steps", [{}, {"temperature": 1.5, "seed": 3}])
def test_stop_strings(model, steps):
    arguments = {"strip_prompt": True, "stop_token_ids": None, "max_length": 64, **steps}
    free = model.generate("the window", **arguments)
    string = free[11:14]  # wherever the tokens begin
    stopped = model.generate("the window", stop_strings=[string, "never"], **arguments)
    assert stopped == free.partition(string)[0]
    pieces = list(model.stream("the window", stop_strings=string, **arguments))
    assert "".join(pieces) == stopped
    # Ids end with the token that completes it, however many steps had been run by then.
    prompt = model.preprocessor.prompt_ids("the window")[0]
    ids, values = model.generate(prompt, stop_strings=string, return_log_probs=True, **arguments)
    decode = model.preprocessor.tokenizer.decode
    assert decode(prompt + ids).removeprefix("the window").startswith(stopped + string)
    assert string not in decode(prompt + ids[:-1]).removeprefix("the window")
    assert len(values) == len(ids)


def test_one_row_stops_and_the_other_goes_on(model):
    arguments = {"strip_prompt": True, "stop_token_ids": None, "max_length": 64}
    free = model.generate(["the window", "A query"], **arguments)
    string = next(w for w in (free[0][i : i + 2] for i in range(9)) if w not in free[1])
    both = model.generate(["the window", "A query"], stop_strings=string, **arguments)
    assert both == [free[0].partition(string)[0], free[1]]


@pytest.mark.slow
def test_batches_and_bar_change_nothing(model, capsys):
    texts = ["the window", "A query", "sees", "a key", "B"]
    expected = model.generate(texts, temperature=1.0, seed=5)
    assert capsys.readouterr().err == ""  # short, and no terminal
    for batch_size in (1, 2, 4):
        assert model.generate(texts, temperature=1.0, seed=5, batch_size=batch_size) == expected
    assert model.generate(texts, temperature=1.0, seed=5, batch_size=2, verbose=True) == expected
    assert "5/5" in capsys.readouterr().err


def test_beams_of_text(model):
    one = model.generate("the window", num_beams=3)
    assert one.startswith("the window")
    assert model.generate(["the window", "A query"], num_beams=3)[0] == one


def test_a_draft_model_with_other_words(model):
    words = model.preprocessor.tokenizer.get_vocabulary()
    other = make_model()
    other.preprocessor.tokenizer.get_vocabulary = lambda: [*words[:-1], "other"]
    with pytest.raises(ValueError, match="token 299 is 'other' in the draft"):
        model.generate("the window", draft_model=other)


@pytest.mark.slow
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
        ([], {}, ValueError, "but is empty"),
        ([1, 10**6], {}, ValueError, "must be from 0 to 299 .* but one is 1000000"),
        ("the window " * 20, {}, ValueError, "Prompts are never cut"),
        ("a", {"max_length": 5, "max_new_tokens": 5}, ValueError, "must be given, but both are"),
        ("a", {"stop_token_ids": "end"}, ValueError, "stop_token_ids must be one of 'auto'"),
        ("a", {"stop_token_ids": ["x"]}, TypeError, "an id in stop_token_ids must be an integer"),
        ("a", {"temperature": -1}, ValueError, "temperature"),
        ("a", {"seed": "x"}, TypeError, "seed must be an integer"),
        ("a", {"num_samples": 2}, ValueError, "all would be the same"),
        (
            "a",
            {"num_samples": 2, "temperature": 1, "seed": [1]},
            ValueError,
            "seed must be .* 2 of them for 2 rows, but has 1 entries",
        ),
        ("a", {"stop_strings": ""}, ValueError, "A stop string must not be empty"),
        ("a", {"batch_size": 0}, ValueError, "batch_size must be at least 1"),
        ("a", {"return_log_probs": 1}, TypeError, "return_log_probs must be True or False"),
        (3.5, {}, TypeError, "A prompt must be text"),
    ],
)
def test_wrong_calls(model, inputs, arguments, error, message):
    if error is None:
        assert isinstance(model.generate(inputs, **arguments), str)
    else:
        with pytest.raises(error, match=message):
            model.generate(inputs, **arguments)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{}, {"num_beams": 2}, {"temperature": 1.0, "num_samples": 3, "return_log_probs": True}],
)
def test_rows_and_stop_tokens_compile_once_for_each_power_of_two(options):
    """As a server sees them: any number of requests, each with its own stop tokens."""
    model = MistralCausalLM(make_backbone())
    compiled = {}
    for rows in (1, 2, 3, 4, 5, 6, 7, 8, 3):
        for stop in ([], [1], [1, 2, 3]):
            with watch() as calls:
                texts = model.generate(
                    PROMPTS[:1] * rows, max_new_tokens=4, stop_token_ids=stop, **options
                )
            compiled[rows, len(stop)] = sum(call.compiled for call in calls)
            texts = texts[0] if options.get("return_log_probs") else texts
            assert len(texts) == rows
            assert all(each == texts[0] for each in texts) or options.get("temperature")
    assert {key for key, number in compiled.items() if number} <= {(1, 0), (2, 0), (3, 0), (5, 0)}
    assert 0 < sum(compiled.values()) <= 4 * 3


@pytest.mark.slow
@pytest.mark.parametrize(("batch_size", "rows"), [(32, 4), (3, 3), (2, 2)])
def test_no_more_rows_than_the_batch_size(batch_size, rows):
    model = MistralCausalLM(make_backbone())
    with watch() as calls:
        model.generate(PROMPTS[:1] * 3, max_new_tokens=4, batch_size=batch_size)
    written = [call.arguments[0].counts.shape[0] for call in calls if call.name == "run_steps"]
    assert max(written) == rows


def test_without_a_seed_each_call_draws_afresh(model):
    def texts(**seed):
        return {model.generate("the window", temperature=1.5, **seed) for _ in range(4)}

    assert len(texts(seed=0)) == 1
    assert min(len(texts()), len(texts(seed=None))) > 1


def test_stream_takes_one_text_and_fails_at_the_call(model):
    with pytest.raises(TypeError, match="must be one text or conversation, but are a list"):
        model.stream(["a", "b"])
    with pytest.raises(ValueError, match=r"max_length must be above .*, but is 2"):
        model.stream("the window", 2)


def test_without_preprocessor(model):
    bare = MistralCausalLM(model.backbone)
    ids = model.preprocessor.prompt_ids("the window")[0]
    assert bare.generate(ids, LENGTH) == model.generate(ids, LENGTH, stop_token_ids=None)
    with pytest.raises(ValueError, match="no preprocessor"):
        bare.generate("the window", 5)
    with pytest.raises(ValueError, match="stop_strings need a tokenizer"):
        bare.generate(ids, LENGTH, stop_strings="a")
    with pytest.raises(ValueError, match="must be given, but neither is"):
        bare.generate(ids)


@pytest.mark.parametrize("preprocessor", [True, False])
def test_a_dictionary_without_a_limit_keeps_its_width(model, preprocessor):
    """A row that fills it stays as it is, and so does one beside it that has room."""
    bare = model if preprocessor else MistralCausalLM(model.backbone)
    ids = model.preprocessor.prompt_ids("the window")[0]
    arrays = {
        "token_ids": np.array([ids + [0] * 7, ids + [5] * 7]),
        "padding_mask": np.array([[1] * len(ids) + [0] * 7, [1] * (len(ids) + 7)]),
    }
    written = bare.generate(arrays, stop_token_ids=None)
    alone = bare.generate(ids, max_new_tokens=7, stop_token_ids=None)
    np.testing.assert_array_equal(written["token_ids"], [alone, arrays["token_ids"][1]])
    assert written["padding_mask"].all()
    ended = bare.generate(arrays, stop_token_ids=[alone[len(ids) + 2]])
    width = arrays["token_ids"].shape[1]
    assert ended["token_ids"].shape == ended["padding_mask"].shape == (2, width)
    assert ended["padding_mask"].sum(axis=1).tolist()[0] <= len(ids) + 3
    new = bare.generate(arrays, stop_token_ids=None, strip_prompt=True)
    assert new["token_ids"].shape == (2, width)
    assert new["padding_mask"].sum(axis=1).tolist() == [7, 0]
    assert new["token_ids"][0, :7].tolist() == alone[len(ids) :]


def test_a_dictionary_with_a_limit_is_as_wide_as_its_longest_row(model):
    ids = model.preprocessor.prompt_ids("the window")[0]
    arrays = {"token_ids": [ids + [0] * 9], "padding_mask": [[1] * len(ids) + [0] * 9]}
    for limit in ({"max_new_tokens": 3}, {"max_length": len(ids) + 3}):
        written = model.generate(arrays, stop_token_ids=None, **limit)
        assert written["token_ids"].shape == (1, len(ids) + 3)


def test_beams_of_a_dictionary_leave_full_rows_alone(model):
    ids = model.preprocessor.prompt_ids("the window")[0]
    arrays = {"token_ids": [ids, [*ids[:-1], 0]], "padding_mask": [[1] * len(ids)] * 2}
    arrays["padding_mask"][1] = [1] * (len(ids) - 1) + [0]
    written = model.generate(arrays, stop_token_ids=None, num_beams=2)
    assert written["token_ids"][0].tolist() == ids
    assert written["token_ids"][1, :-1].tolist() == ids[:-1]

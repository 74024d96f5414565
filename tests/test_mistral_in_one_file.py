"""book/mistral_in_one_file.py: it computes what transformers computes, and writes what we write."""

import re
import shutil
import subprocess
import sys
from functools import cache

import ml_dtypes
import nbformat
import numpy as np
import pytest
from reference.make_formats import FOLDER, TOKEN_IDS

import house
from mistral_lib import MistralBackbone, MistralCausalLM

sys.path.insert(0, str(house.BOOK))
import mistral_in_one_file as one

SCRIPT = house.BOOK / "mistral_in_one_file.py"
LOGITS = np.load(FOLDER / "logits.npz")
OF_TRANSFORMERS = ["single", "sharded", "tied", "head_dim"]


def read(folder, dtype=None):
    """Settings and weights of a checkpoint."""
    config = one.read_config(folder)
    return config, one.read_weights(folder, config, dtype)


def logits_of(config, weights, token_ids, chunk=4):
    """Logits (S, V) of one text, read in pieces."""
    caches = one.empty_caches(config, len(token_ids), weights["norm"].dtype)
    pieces = []
    for start in range(0, len(token_ids), chunk):
        piece = np.array(token_ids[start : start + chunk])
        positions = start + np.arange(len(piece))
        logits, caches = one.forward(weights, config, piece, positions, caches)
        pieces.append(logits)
    return np.concatenate(pieces)


@pytest.mark.parametrize("name", OF_TRANSFORMERS)
def test_logits_are_those_of_transformers(name):
    config, weights = read(FOLDER / name, "float32")
    for token_ids, expected in zip(TOKEN_IDS, LOGITS[name], strict=True):
        np.testing.assert_allclose(logits_of(config, weights, token_ids), expected, atol=1e-5)


@cache
def small_model(window, dtype="float32"):
    """Two query heads for each key head, a head size of its own, weights that show mistakes."""
    backbone = MistralBackbone(48, 2, 4, 16, 24, 2, sliding_window=window, head_dim=6, dtype=dtype)
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(random.normal(0.3, 0.5, variable.shape))
    return MistralCausalLM(backbone)


@pytest.mark.parametrize("window", [1, 5, 64, None])
@pytest.mark.parametrize("chunk", [1, 3])
def test_logits_are_those_of_the_library(tmp_path, window, chunk):
    model = small_model(window)
    model.backbone.export_to_transformers(tmp_path / "small")
    token_ids = np.random.default_rng(1).integers(0, 48, 20)
    chunk = min(chunk, window or chunk)
    found = logits_of(*read(tmp_path / "small"), token_ids, chunk)
    inputs = {"token_ids": token_ids[None], "padding_mask": np.ones((1, 20))}
    np.testing.assert_allclose(found, model.predict(inputs, verbose=0)[0], atol=1e-4)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one") / "tiny"
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    model.export_to_transformers(folder)
    return folder, model


def test_the_cache_goes_round_and_the_tokens_stay_equal(shipped):
    folder, model = shipped
    config, weights = read(folder, "float32")
    prompt = model.preprocessor.tokenizer.encode("Return the", add_bos=True)
    length = 2 * config.sliding_window + 10
    ours = [*prompt, *one.write(config, weights, prompt, length)]
    theirs = model.generate(prompt, max_length=length, stop_token_ids=None)
    assert ours == [int(token) for token in theirs]


def test_it_is_a_program(shipped):
    folder, model = shipped
    command = [sys.executable, SCRIPT, folder, "Return the name of the"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    prompt = "Return the name of the"
    assert said.strip() == model.generate(prompt, max_length=512, strip_prompt=True).strip()


def test_the_weights_keep_their_type(tmp_path):
    small_model(5).backbone.export_to_transformers(tmp_path / "small")
    config, weights = read(tmp_path / "small", ml_dtypes.bfloat16)
    caches = one.empty_caches(config, 8, weights["norm"].dtype)
    logits, caches = one.forward(weights, config, np.array([1]), np.array([0]), caches)
    assert logits.dtype == "float32"
    assert caches[0]["key"].dtype == "bfloat16"


def test_sampling_keeps_the_first_that_reach_p():
    random, logits = np.random.default_rng(0), np.log([0.05, 0.5, 0.3, 0.15])
    drawn = [one.sample(logits, 1.0, 0.7, random) for _ in range(2000)]
    shares = np.bincount(drawn, minlength=4) / 2000
    np.testing.assert_allclose(shares, [0, 0.625, 0.375, 0], atol=0.04)
    assert {one.sample(logits, 0, 0.7, random) for _ in range(20)} == {1}
    cooler = [one.sample(logits, 0.5, 1.0, random) for _ in range(2000)]
    expected = np.square([0.05, 0.5, 0.3, 0.15]) / np.square([0.05, 0.5, 0.3, 0.15]).sum()
    np.testing.assert_allclose(np.bincount(cooler, minlength=4) / 2000, expected, atol=0.04)


def test_older_configs_are_read(tmp_path):
    """Before version 5 of transformers the base stood beside the sizes."""
    folder = shutil.copytree(FOLDER / "older", tmp_path / "older")
    assert one.read_config(folder).rope_theta == 500.0


def test_the_page_shows_the_whole_file():
    cells = nbformat.read(SCRIPT.with_suffix(".ipynb"), 4).cells
    shown = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    text = SCRIPT.read_text().partition('"""\n\n')[2].partition('\n\nif __name__ == "__main__":')[0]
    code = [line for line in text.splitlines() if line and not line.startswith("# ---")]
    place = 0
    for line in code:
        place = shown.index(line, place) + len(line)
    assert len(re.findall("\n", SCRIPT.read_text())) < 200

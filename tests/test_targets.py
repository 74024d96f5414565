"""tools/targets.py: what can be linked to, and where it is."""

import re
from dataclasses import replace

import nbformat
import pytest

import targets
from house import BOOK, REPOSITORY, ROOT, TAG, colab_link, notebook_paths

TARGETS = targets.load()


def kind(name: str) -> dict[str, targets.Target]:
    return {k.partition(":")[2]: t for k, t in TARGETS.items() if k.startswith(f"{name}:")}


def test_figures_are_numbered_in_the_order_of_the_book():
    numbers = [re.fullmatch(r"Figure (\d+)\.(\d+)", t.text).groups() for t in kind("fig").values()]
    pairs = [(int(chapter), int(place)) for chapter, place in numbers]
    assert pairs == sorted(set(pairs))
    assert {chapter for chapter, _ in pairs} == set(range(21))
    for chapter in range(21):
        places = [place for number, place in pairs if number == chapter]
        assert places == list(range(1, len(places) + 1))


def test_every_caption_and_chapter_is_there():
    found = [key for p in notebook_paths() for _, key in targets.captions(nbformat.read(p, 4))]
    assert found == list(kind("fig"))
    assert [int(number) for number in kind("chapter")] == list(range(1, 21))
    assert {"intro", "on_ramp", "glossary", "api"} <= kind("page").keys()


def test_pages_and_files_exist():
    for key, target in TARGETS.items():
        assert (ROOT / target.page).is_file(), key
        assert (ROOT / target.file.partition("#")[0]).exists(), key
        assert target.text, key


def test_every_name_on_the_api_page_means_one_thing():
    api = kind("api")
    assert api["MistralBackbone"].anchor == "mistral_lib.backbone.MistralBackbone"
    assert api["masks"].anchor == "module-mistral_lib.masks"
    assert api["masks.can_see"].anchor == api["can_see"].anchor == "mistral_lib.masks.can_see"
    assert "settings" not in api  # of several modules
    assert api["generation.reading.logits_of"] == replace(
        api["logits_of"], text="`generation.reading.logits_of`"
    )
    assert not any(name.rpartition(".")[2].startswith("_") for name in api)


def test_words_lead_to_their_entry():
    terms = kind("term")
    assert terms["bits per byte"].anchor == "term-bits-per-byte"
    assert terms["post-norm"].anchor == terms["pre-norm"].anchor
    assert terms["nat"].preview.endswith(".")
    text = (BOOK / "glossary.md").read_text()
    assert len(terms) >= text.count("\n**")


def test_addresses_without_a_published_book(monkeypatch):
    monkeypatch.setattr(targets, "PUBLISHED", "")
    assert TARGETS["chapter:7"].address == colab_link("book/07_sliding_windows.ipynb")
    files = f"{REPOSITORY}/blob/{TAG}"
    assert TARGETS["cite:jiang2023mistral"].address.startswith(f"{files}/book/bibliography.md#jia")
    assert TARGETS["term:nat"].address == f"{files}/book/glossary.md#n"
    assert TARGETS["api:can_see"].address == f"{files}/mistral_lib/masks.py"


def test_addresses_of_a_published_book(monkeypatch):
    monkeypatch.setattr(targets, "PUBLISHED", "https://a.org/v1")
    assert TARGETS["fig:museum"].address == (
        "https://a.org/v1/book/07_sliding_windows.html#fig-museum"
    )
    assert TARGETS["term:nat"].address == "https://a.org/v1/book/glossary.html#term-nat"
    assert TARGETS["page:api"].address == "https://a.org/v1/book/api.html"


def test_one_key_for_two_things_is_refused(monkeypatch):
    twice = [("fig:a", targets.Target("Figure 1.1", "x")), ("fig:a", targets.Target("2", "x"))]
    monkeypatch.setattr(targets, "_of_notebooks", lambda: iter(twice))
    with pytest.raises(ValueError, match="The key fig:a must name one thing, but names two"):
        targets.load()

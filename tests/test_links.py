"""tools/links.py: keys become links, follow what they name, and come back as keys."""

import pytest

import links
from targets import Target

SEVEN = "book/07_sliding_windows.ipynb"
TARGETS = {
    "fig:leak": Target("Figure 7.2", SEVEN, "fig-leak"),
    "chapter:7": Target("chapter 7", SEVEN),
    "term:KV cache": Target("KV cache", "book/glossary.md", "term-kv-cache"),
    "api:can_see": Target("`can_see`", "book/api.md", "mistral_lib.masks.can_see"),
}


def filled(text: str, key: str, mark: str = "=") -> str:
    return f"[{text}]({TARGETS[key].address})<!-- {mark}{key} -->"


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("See [](fig:leak).", f"See {filled('Figure 7.2', 'fig:leak')}."),
        ("[Chapter 7](chapter:7)", filled("Chapter 7", "chapter:7", "")),
        ("the [caches](term:KV cache)", f"the {filled('caches', 'term:KV cache', '')}"),
        ("[](term:KV\ncache)", filled("KV cache", "term:KV cache")),
        ("[](api:can_see)", filled("`can_see`", "api:can_see")),
        ("[`x[0]` \\]](fig:leak)", "[`x[0]` \\]](fig:leak)"),  # brackets have to be escaped
        ("**fig:leak.** What to see.", "**Figure 7.2.**<!-- =fig:leak --> What to see."),
        ("See **fig:leak.**", "See **fig:leak.**"),  # a caption begins its cell
        ("[a](b.md) 3<!-- =params -->", "[a](b.md) 3<!-- =params -->"),
    ],
)
def test_keys_are_filled_in_once(written, expected):
    assert links.fill(written, TARGETS) == expected
    assert links.fill(expected, TARGETS) == expected


def test_texts_follow_their_targets_unless_they_are_the_authors_own():
    text = links.fill("**fig:leak.** A. [](fig:leak), [the leak](fig:leak)", TARGETS)
    moved = {"fig:leak": Target("Figure 8.1", "book/08_reach_and_banding.ipynb", "fig-leak")}
    text = links.fill(text, moved)
    assert "7.2" not in text
    assert text.startswith("**Figure 8.1.**<!-- =fig:leak --> A. [Figure 8.1](https")
    assert "[the leak](https" in text
    assert text.count("08_reach") == 2


@pytest.mark.parametrize(
    "text", ["**fig:leak.** See [](chapter:7), [two\nwords](fig:leak).", "Plain.", "[](no:key)"]
)
def test_short_is_the_way_back(text):
    assert links.short(links.fill(text, TARGETS)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[](fig:no)", "links to 'fig:no', which is nothing in the book"),
        ("[a](https://a.org)<!-- =fig:no -->", "links to 'fig:no'"),
        ("[](fig:leak)", "not filled in"),
        ("**fig:leak.** A.", "not filled in"),
        ("**Figure 7.1.**<!-- =fig:leak --> A.", "not filled in"),
        ("[Figure 7.1](https://a.org)<!-- =fig:leak -->", "not filled in"),
        ("Figure 7.2<!-- =fig:leak -->", "a key in a comment, but no link before it"),
    ],
)
def test_what_is_wrong_is_named(text, message):
    found = list(links.problems(text, TARGETS))
    assert any(message in problem for problem in found), found


def test_what_is_right_has_no_problems():
    text = links.fill("**fig:leak.** A [](term:KV cache). 3<!-- =params -->", TARGETS)
    assert list(links.problems(text, TARGETS)) == []

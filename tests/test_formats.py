"""mistral_lib/presets/formats.py: every format answers every question."""

import inspect
import re
from pathlib import Path

import pytest
from reference import make_formats

from mistral_lib import MistralBackbone
from mistral_lib.presets.formats import Format
from mistral_lib.presets.preset import FORMATS

QUESTIONS = [name for name, value in vars(Format).items() if inspect.isfunction(value)]
QUESTIONS = [name for name in QUESTIONS if not name.startswith("_")]


@pytest.mark.parametrize("form", FORMATS.values(), ids=FORMATS)
def test_every_format_answers_every_question(form):
    """By the same arguments; those that one adds have defaults."""
    assert len(QUESTIONS) == 7
    for name in QUESTIONS:
        asked = [*inspect.signature(getattr(Format, name)).parameters][1:]
        assert [*inspect.signature(getattr(form, name)).parameters] == asked, name
    for name in Format.__annotations__:
        assert isinstance(getattr(form, name), str), name


def test_table_in_the_readme():
    """Every format has a row; its methods exist; its peer is the one that the tests ran with."""
    tests = Path(__file__).parent
    table = (tests.parent / "README.md").read_text().split("## Formats")[1].split("##")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert [name for name in FORMATS if not any(row.startswith(f"| {name} ") for row in rows)] == []
    pins = (tests / "reference/requirements.txt").read_text() + make_formats.__doc__
    for row in rows:
        _, *methods, peer = (cell.strip() for cell in row.split("|")[1:-1])
        for method in re.findall(r"`(\w+)`", " ".join(methods)):
            assert hasattr(MistralBackbone, method), method
        name, version = re.match(r"(\S+) ([\d.]+\d)", peer).groups()
        assert f"{name}=={version}" in pins, row

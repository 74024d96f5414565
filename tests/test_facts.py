"""Numbers recorded for the prose."""

import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from mistral_lib.teaching import facts


@pytest.fixture
def recorded():
    """Calls `record` inside IPython, and gives what it published: a list of (name, data)."""
    InteractiveShell.instance()

    def call(**values):
        with capture_output() as captured:
            facts.record(**values)
        assert captured.stdout == captured.stderr == ""
        return [(out.metadata["scrapbook"]["name"], out.data) for out in captured.outputs]

    yield call
    InteractiveShell.clear_instance()


def test_record_publishes_each_value_as_the_prose_writes_it(recorded):
    published = recorded(params=7_241_732_096, share="12.5%", loss="−0.25", small="3e-05")
    kind = f"{facts.PREFIX}text/plain"
    assert [(name, data[kind]) for name, data in published] == [
        ("params", "7,241,732,096"),
        ("share", "12.5%"),
        ("loss", "−0.25"),
        ("small", "3e-05"),
    ]


def test_record_shows_nothing(recorded):
    (_, data), *_ = recorded(params=1)
    assert data["text/plain"] == ""


@pytest.mark.parametrize("value", [1.5, True, None])
def test_record_refuses_what_is_not_rounded(value):
    with pytest.raises(TypeError, match=r"size is a .*record\(size="):
        facts.record(size=value)


@pytest.mark.parametrize("value", ["4 GiB", "about 3", "", "1<2"])
def test_record_refuses_what_is_not_a_number(value):
    with pytest.raises(ValueError, match="not a number"):
        facts.record(size=value)


def test_record_refuses_a_bad_name_and_publishes_nothing():
    with pytest.raises(ValueError, match="'Params'"):
        facts.record(Params=1)


def test_nothing_is_published_when_one_value_is_bad(recorded):
    with capture_output() as captured, pytest.raises(TypeError):
        facts.record(good=1, bad=0.5)
    assert not captured.outputs


def test_an_example_is_published_under_its_name(recorded):
    with capture_output() as captured:
        facts.example(example_chance="59.6%")
    (output,) = captured.outputs
    assert output.metadata["scrapbook"]["name"] == "example_chance"
    assert output.data[f"{facts.PREFIX}text/plain"] == "59.6%"


def test_an_example_says_in_its_name_that_it_is_one(recorded):
    message = "Name it example_head_chance, or measure it on the panel and use claim"
    with capture_output() as captured, pytest.raises(ValueError, match=message):
        facts.example(head_chance="59.6%")
    assert not captured.outputs

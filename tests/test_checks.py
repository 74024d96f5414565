"""Checks of arguments: what passes, as what, and what the messages name."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mistral_lib.checks import (
    as_path,
    check_boolean,
    check_choice,
    check_integer,
    check_number,
)


@pytest.mark.parametrize("value", [3, np.int8(3), np.int64(3), np.uint32(3)])
def test_integers_become_int(value):
    found = check_integer("size", value)
    assert (found, type(found)) == (3, int)


@pytest.mark.parametrize("value", [True, 3.0, np.float32(3), "3", None, [3], np.array([3])])
def test_what_is_no_integer(value):
    with pytest.raises(TypeError, match=r"size must be an integer, but is .*of type"):
        check_integer("size", value)


@pytest.mark.parametrize(("value", "minimum"), [(0, 1), (-1, 1), (-1, 0), (1, 2)])
def test_integers_too_small(value, minimum):
    with pytest.raises(ValueError, match=f"size must be at least {minimum}, but is {value}"):
        check_integer("size", value, minimum)


def test_integers_that_jax_cannot_hold():
    assert check_integer("size", 2**31 - 1) == 2**31 - 1
    with pytest.raises(ValueError, match=r"size must be below 2\*\*31, but is 2147483648"):
        check_integer("size", 2**31)


@pytest.mark.parametrize(
    "value", [2, 0.5, np.float32(0.5), np.float16(0.5), np.int16(2), Fraction(1, 2)]
)
def test_numbers_become_python_numbers(value):
    found = check_number("rate", value)
    assert found == value
    assert type(found) in (int, float)
    assert json.loads(json.dumps(found)) == found


def test_an_integer_stays_one():
    # So that a config keeps the 10000 of the documented signature.
    assert isinstance(check_number("rope_max_wavelength", 10000), int)


@pytest.mark.parametrize("value", [True, "0.5", None, 1j, np.array([0.5])])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match=r"rate must be a number, but is .*of type"):
        check_number("rate", value)


@pytest.mark.parametrize("value", [0, -0.5, float("nan"), float("inf"), -float("inf")])
def test_numbers_out_of_range(value):
    with pytest.raises(ValueError, match="rate must be above 0 and finite, but is"):
        check_number("rate", value)


def test_the_ends_of_a_range():
    assert check_number("rate", 0, zero=True, below=1) == 0
    for value in (1, 1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="rate must be at least 0 and below 1, but is"):
            check_number("rate", value, zero=True, below=1)


@pytest.mark.parametrize("value", [True, False, np.bool_(True)])
def test_booleans_become_bool(value):
    assert check_boolean("flag", value) is bool(value)


@pytest.mark.parametrize("value", [1, 0, "yes", None, np.ones(2)])
def test_what_is_no_boolean(value):
    with pytest.raises(TypeError, match="flag must be True or False, but is"):
        check_boolean("flag", value)


@pytest.mark.parametrize("value", ["c", "A", None, 1, ["a"], np.ones(2)])
def test_choices(value):
    assert check_choice("path", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match="path must be one of 'a', 'b', but is"):
        check_choice("path", value, ("a", "b"))


def test_as_path(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert as_path("~/a") == as_path(Path("~/a")) == tmp_path / "a"
    assert as_path("a/~") == Path("a/~")
    assert as_path("~nobody-has-this-name") == Path("~nobody-has-this-name")
    with pytest.raises(TypeError):
        as_path(3)

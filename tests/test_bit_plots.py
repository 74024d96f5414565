"""Bits: what is drawn are the bits that the machine keeps."""

import struct

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest

from mistral_lib.teaching import plots
from mistral_lib.teaching.bit_plots import FORMATS, bits_of, draw_bits
from mistral_lib.teaching.plots import style


@pytest.fixture
def ax():
    with mpl.rc_context():
        style()
        figure, ax = plt.subplots()
        yield ax
        plt.close(figure)


VALUES = [0.0, 1.0, -1.5, 0.1, 257.0, 3.14159, 65504.0]


def value_of(sign, exponent, fraction, kind):
    """A finite number from its bits, by the definition of the format."""
    bias = 2 ** (len(exponent) - 1) - 1
    power = int(exponent, 2)
    share = int(fraction, 2) / 2 ** len(fraction)
    size = (1 + share) * 2.0 ** (power - bias) if power else share * 2.0 ** (1 - bias)
    return -size if sign == "1" else size


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("value", VALUES)
def test_the_bits_say_the_number_by_the_definition(kind, value):
    fields = bits_of(value, kind)
    assert tuple(map(len, fields)) == FORMATS[kind]
    precision = 2.0 ** -(FORMATS[kind][2] + 1)
    assert value_of(*fields, kind) == pytest.approx(value, rel=precision, abs=0)


@pytest.mark.parametrize("value", VALUES)
def test_bfloat16_is_the_upper_half_of_float32(value):
    exact = np.float32(np.array(value).astype("float32"))
    word = struct.unpack(">I", struct.pack(">f", exact))[0]
    upper = int("".join(bits_of(value, "bfloat16")), 2)
    assert abs(upper - (word >> 16)) <= 1  # one more where it was rounded up
    kept = struct.unpack(">f", struct.pack(">I", upper << 16))[0]
    assert "".join(bits_of(kept, "float32")).endswith("0" * 16)


def test_a_row_has_a_cell_for_every_bit_and_ends_with_the_number_kept(ax):
    draw_bits(ax, 257, title="One is lost")
    assert len(ax.patches) == 32 + 16 + 16
    shown = [text.get_text() for text in ax.texts]
    assert [text for text in shown if len(text) > 1] == ["257", "256", "257"]
    assert "".join(shown[:32]) == "".join(bits_of(257, "float32"))
    assert ax.get_title(loc="left") == "One is lost"


def test_the_three_fields_look_different(ax):
    draw_bits(ax, 1, ["float16"])
    looks = {(cell.get_facecolor(), cell.get_hatch()) for cell in ax.patches}
    assert len(looks) == 3


def test_on_a_phone_a_number_takes_as_many_lines_as_it_needs(ax):
    with plots.styled(dark=False, narrow=True):
        draw_bits(ax, 257, ["float32", "bfloat16"])
    corners = [bit.get_xy() for bit in ax.patches]
    assert [sum(y == row - 0.3 for _, y in corners) for row in range(3)] == [16, 16, 16]
    assert max(x for x, _ in corners) == 15
    assert ax.get_yticks().tolist() == [0, 2]
    bits = [text.get_text() for text in ax.texts if text.get_text() in "01"]
    assert "".join(bits[:32]) == "".join(bits_of(257, "float32"))

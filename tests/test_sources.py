"""Sources: what a chapter prints of the library is its code, without the docstrings."""

import ast
import inspect

import pytest

from mistral_lib.layers.attention import MistralAttention
from mistral_lib.layers.dense import dense_attention, masked_softmax
from mistral_lib.masks import attention_mask, can_see
from mistral_lib.teaching.sources import show_source


def code_without_docstrings(source):
    """A definition as Python sees it, docstrings taken out."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            del node.body[0]
    return ast.unparse(tree)


@pytest.mark.parametrize("shown", [can_see, attention_mask, masked_softmax, MistralAttention])
def test_the_code_is_whole_and_only_docstrings_are_gone(shown, capsys):
    show_source(shown)
    printed = capsys.readouterr().out
    assert '"""' not in printed
    assert code_without_docstrings(printed) == code_without_docstrings(inspect.getsource(shown))


def test_comments_stay(capsys):
    show_source(attention_mask)
    assert "# (..., S, 1)" in capsys.readouterr().out


def test_a_compiled_function_shows_what_was_compiled(capsys):
    show_source(dense_attention)
    assert "def dense_attention(query" in capsys.readouterr().out


def test_numbers_count_the_lines_of_the_body(capsys):
    show_source(masked_softmax, numbers=True)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("def masked_softmax")
    assert [line.split()[0] for line in lines[1:]] == [str(n) for n in range(1, len(lines))]
    assert lines[-1].split()[1] == "return"


def test_several_functions_are_one_blank_line_apart(capsys):
    show_source(can_see, attention_mask)
    assert "return visible\n\ndef attention_mask" in capsys.readouterr().out


def test_what_has_no_source_is_refused():
    with pytest.raises(TypeError):
        show_source(len)

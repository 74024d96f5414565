"""The reader's own package: written, filled with the notebooks' solutions, and judged."""

import inspect
import shutil

import own_solutions
import pytest

from mistral_lib.teaching import own_package
from mistral_lib.teaching.own_package import FINISHED, TEMPLATE, check, imported, init, judged
from mistral_lib.teaching.own_parts import PARTS

# What a reader might write, in place of the stub's dots.
WRONG = {
    "loop.write": "[*ids, end]",
    "vocabulary.best_pair": "0 if len(tokens) > 1 else -1",
    "embedding.look_up": "table[:, ids].T",
    "embedding.score": "hidden @ kernel / 2",
    "head.project": "(kernel.T @ x.T).T + 1",
    "head.softmax": "np.exp(scores) / np.exp(scores).sum(axis=-1, keepdims=True)",
    "head.attend": "query @ key.T @ value",
    "positions.turn": "x",
    "heads.attend": "query",
    "mask.visible": "queries[:, None] >= keys",
    "norm.norm": "x * scale",
    "network.network": "(x @ gate * (x @ up)) @ down",
    "block.block": "x + attention(attention_norm(x))",
    "model.attention": "x",
    "model.streams": "np.zeros((7, len(ids), 192))",
    "model.read": "streams(ids)[-1]",
    "cache.held": "np.arange(slots)",
    "cache.mask": "held >= 0",
    "sampling.nucleus": "probabilities >= top_p",
    "sampling.penalised": "np.where(used, logits / penalty, logits)",
}


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    return own_solutions.filled(tmp_path_factory.mktemp("filled") / "filled_by_notebooks")


@pytest.fixture
def copied(filled, tmp_path):
    """A copy of the filled package, and a function that writes one part of it anew."""
    folder = shutil.copytree(filled, tmp_path / "copied_package")

    def write(part, code):
        stub = (TEMPLATE / f"{part.module}.py.txt").read_text()
        (folder / f"{part.module}.py").write_text(stub)
        own_solutions.fill(folder, lambda p: p.module == part.module and p.name != part.name)
        path = folder / f"{part.module}.py"
        path.write_text(path.read_text().replace("    return ...", f"    {code}"))
        return folder

    return write


def results(folder):
    with imported(folder) as own:
        return {str(result.part): result for result in judged(own, folder)}


def part_called(name):
    return next(part for part in PARTS if str(part) == name)


def test_the_solutions_of_the_notebooks_are_accepted_and_write_the_same_text(filled, capsys):
    assert check(filled)
    printed = capsys.readouterr().out
    assert printed.count("  right  ") == 7
    assert "20 of 20 parts are right." in printed
    assert 'python -m filled_by_notebooks "Return the name of"' in printed


def test_stubs_are_not_tried(tmp_path, capsys):
    folder = init(tmp_path / "empty_package")
    found = results(folder)
    assert all(result.right is None for result in found.values())
    assert check(folder)
    printed = capsys.readouterr().out
    assert printed.count("not tried") == len(PARTS) - 3
    assert "model.read           waits until all parts above it are right" in printed
    assert "0 of 20 parts are right.\nBegin with chapter 1: loop.py." in printed


@pytest.fixture(scope="module")
def own(filled):
    with imported(filled) as own:
        yield own


@pytest.mark.parametrize("name", WRONG)
def test_one_wrong_part_is_found_and_the_others_stay_right(filled, own, monkeypatch, name):
    module = own[name.partition(".")[0]]
    right = getattr(module, name.partition(".")[2])
    wrong = f"lambda {', '.join(inspect.signature(right).parameters)}: {WRONG[name]}"
    function = eval(wrong, vars(module))
    for other in own.values():  # some have imported it
        for key in [key for key, value in vars(other).items() if value is right]:
            monkeypatch.setattr(other, key, function)
    if not name.startswith("model."):  # the whole model takes its time, and is asked elsewhere
        monkeypatch.setattr(own_package.own_model, "complaint", lambda *arguments: None)
    found = {str(result.part): result for result in judged(own, filled)}
    assert found.pop(name).right is False
    users = {"head.softmax": ["heads.attend"], "mask.visible": ["cache.mask"]}.get(name, [])
    users += [str(part) for part in PARTS if part.chapter == 12]
    assert all(result.right for key, result in found.items() if key not in users)


def test_every_part_has_a_wrong_one():
    assert list(WRONG) == [str(part) for part in PARTS]


def test_a_wrong_answer_gets_the_sentence_of_the_exercise(copied, capsys):
    folder = copied(part_called("norm.norm"), "return x / abs(x).max() * scale")
    assert not check(folder)
    printed = capsys.readouterr().out
    assert " 9  norm.norm            not yet\n      Smallest failing case: norm(" in printed
    assert "19 of" not in printed  # the model waits
    assert "16 of 20 parts are right." in printed


def test_the_model_says_where_it_first_differs(copied):
    said = "np.zeros((7, len(ids), 192))"
    found = results(copied(part_called("model.streams"), f"return {said}"))
    assert "Station 0 is the first that differs, at position 0" in found["model.streams"].said
    found = results(copied(part_called("model.read"), "return streams(ids)[-1]"))
    assert found["model.read"].said == "Shape: yours is (140, 192), expected (140, 2048)."


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("norm.norm", "return x / nothing", "It stops there. norm.py, line 8: NameError: name 'no"),
        ("norm.norm", "exit()", "It stops there. norm.py, line 8: SystemExit"),
        ("model.read", "return 1 / 0", "It stops. model.py, line "),
        ("mask.visible", "return (", "mask.py, line 14: SyntaxError: '(' was never closed\n"),
        ("mask.visible", "pass\n\n\nimport maths", "line 17: ModuleNotFoundError: No module named"),
    ],
)
def test_an_error_is_told_with_its_file_and_line(copied, capsys, name, code, said):
    folder = copied(part_called(name), code)
    assert not check(folder)
    printed = capsys.readouterr()
    assert said in printed.out
    assert "Traceback" not in printed.out + printed.err


def test_a_part_that_calls_a_stub_says_so(tmp_path):
    folder = own_solutions.filled(tmp_path / "my_heads", wanted=lambda part: part.chapter == 6)
    said = results(folder)["heads.attend"].said
    assert "heads.py, line " in said
    assert said.endswith("\nhead.py is not right yet, and this uses its softmax.")


def test_what_is_missing_is_named(filled, tmp_path):
    folder = shutil.copytree(filled, tmp_path / "package_with_gaps")
    (folder / "norm.py").unlink()
    (folder / "block.py").write_text('"""Nothing."""\n')
    found = results(folder)
    assert "norm.py is missing" in found["norm.norm"].said
    assert (
        found["block.block"].said == "block.py has no function `block`: keep the name of the stub."
    )
    (folder / "cache.py").write_text('"""Nothing."""\nheld = mask = lambda: 1\n')
    assert "Yours is a function of (). A function of (length, slots)" in (
        results(folder)["cache.held"].said
    )


def test_a_finished_module_that_was_broken_is_named(filled, tmp_path, capsys):
    folder = shutil.copytree(filled, tmp_path / "package_without_writer")
    (folder / "writer.py").write_text("import nothing_of_this_name\n")
    assert not check(folder)
    assert "writer.py, which was finished, stops: writer.py, line 1" in capsys.readouterr().out


def test_progress_counts_by_chapter(tmp_path, capsys):
    folder = own_solutions.filled(tmp_path / "my_four", wanted=lambda part: part.chapter <= 3)
    own_package.progress(folder)
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["chapter  1  1 of 1", "chapter  2  1 of 1", "chapter  3  2 of 2"]
    assert lines[3] == "chapter  4  0 of 3  left: head.project, head.softmax, head.attend"
    assert lines[-1] == "4 of 20 parts are right."


def test_a_folder_that_is_no_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"Write one: .* init .*nowhere"):
        check(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"an __init__\.py and a files\.py are expected"):
        check(tmp_path)


def test_init_changes_nothing_that_exists_and_takes_no_name_of_another(tmp_path):
    with pytest.raises(FileExistsError, match="nothing in it was changed"):
        init(tmp_path)
    with pytest.raises(ValueError, match="take letters, digits and underscores"):
        init(tmp_path / "my-mistral")
    with pytest.raises(ValueError, match="numpy is the name of another package"):
        init(tmp_path / "numpy")
    assert not list(tmp_path.iterdir())


def test_the_template_has_the_parts_and_its_own_name(tmp_path):
    folder = init(tmp_path / "a_mistral")
    files = {path.name for path in folder.iterdir()}
    modules = {part.module for part in PARTS}
    finished = {"__init__", "__main__", *FINISHED}
    assert files == {f"{name}.py" for name in modules | finished} | {"README.md", "pyproject.toml"}
    readme = (folder / "README.md").read_text()
    for part in PARTS:
        assert f"| {part.chapter} | `{part.module}.py` | " in readme
        assert f"`{part.name}`" in readme
    assert not any("my_mistral" in path.read_text() for path in folder.iterdir())


def test_checking_leaves_nothing_behind(filled):
    import sys

    before = {*sys.modules}, [*sys.path]
    results(filled)
    assert ({*sys.modules} - before[0], sys.path) == (set(), before[1])
    assert not (filled / "__pycache__").exists()


def test_lists_serve_as_well_as_arrays(own, monkeypatch):
    """What the exercises accept, the finished writer accepts, too."""
    expected = [own["writer"].step(1, 0, own["writer"].empty_cache()).argmax()]
    for module, name in (("cache", "held"), ("cache", "mask"), ("sampling", "penalised")):
        right = getattr(own[module], name)
        monkeypatch.setattr(own[module], name, lambda *a, right=right: right(*a).tolist())
    assert list(own["writer"].write([1], most=2)) == expected


def test_the_template_is_code_of_this_house():
    for path in TEMPLATE.glob("*.py.txt"):
        text = path.read_text()
        compile(text, path.name, "exec")
        assert max(map(len, text.splitlines())) <= 100
        assert text.startswith('"""')

"""The arrows between modules point one way: no circle, and nothing imported inside a function."""

import ast
import graphlib
from pathlib import Path

import pytest

import mistral_lib

ROOT = Path(mistral_lib.__file__).parent
# Packages that a user may be without, and one that takes its time and that only hubs need: imported
# where they are used.
OPTIONAL = {"kagglehub", "gguf", "IPython", "huggingface_hub"}
# The exercises of a chapter are found by the chapter's name, when they are asked for, and a package
# of a reader by its own. The command line leaves the exercises, and IPython, to those who ask.
BY_NAME = {
    "mistral_lib.teaching.exercises": {"importlib.import_module(f'{__name__}.{chapter}')"},
    "mistral_lib.teaching.own_package": {"importlib.import_module(f'{package}.{name}')"},
    "mistral_lib.__main__": {"importlib.import_module('mistral_lib.teaching.own_package')"},
}
MODELS = {"backbone", "base", "causal_lm", "preprocessor", "tokenizer", "scoring", "training_loss"}


def name_of(file: Path) -> str:
    parts = ("mistral_lib", *file.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts).removesuffix(".__init__")


TREES = {name_of(file): ast.parse(file.read_text()) for file in sorted(ROOT.rglob("*.py"))}


def imported(node: ast.AST, modules) -> set[str]:
    """The modules of the library that an import statement names, submodules before packages."""
    if isinstance(node, ast.Import):
        return {alias.name for alias in node.names if alias.name in modules}
    if not isinstance(node, ast.ImportFrom) or node.module not in modules:
        return set()
    names = {f"{node.module}.{alias.name}" for alias in node.names}
    return {name if name in modules else node.module for name in names}


def import_graph(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """What each module imports, anywhere in it."""
    return {
        name: {each for node in ast.walk(tree) for each in imported(node, trees)}
        for name, tree in trees.items()
    }


def inside_functions(tree: ast.Module) -> set[str]:
    """The top packages that are imported inside a function, by a statement or by a call."""
    functions = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    found = set()
    for function in (node for node in ast.walk(tree) if isinstance(node, functions)):
        for node in ast.walk(function):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add((node.module or ".").partition(".")[0])
            elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
                ("import_module", "__import__")
            ):
                found.add(ast.unparse(node))
    return found


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """All that a module imports, and what that imports, and so on."""
    found, left = set(), [start]
    while left:
        new = graph[left.pop()] - found
        found |= new
        left += new
    return found


def test_no_circle():
    graphlib.TopologicalSorter(import_graph(TREES)).prepare()


@pytest.mark.parametrize("module", TREES)
def test_nothing_is_imported_inside_a_function(module):
    assert inside_functions(TREES[module]) - BY_NAME.get(module, set()) <= OPTIONAL


@pytest.mark.parametrize("module", [m for m in TREES if m.startswith("mistral_lib.presets")])
def test_presets_are_below_the_models(module):
    """They get the classes or the config that they fill, directly and through what they import."""
    parts = {name.split(".")[1] for name in reachable(import_graph(TREES), module) if "." in name}
    assert not parts & {*MODELS, "generation", "teaching"}


def test_a_circle_and_a_hidden_import_are_found():
    trees = {
        "mistral_lib.a": ast.parse("def f():\n    from mistral_lib.b import g"),
        "mistral_lib.b": ast.parse("from mistral_lib.a import f"),
    }
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(import_graph(trees)).prepare()
    assert inside_functions(trees["mistral_lib.a"]) == {"mistral_lib"}
    assert inside_functions(trees["mistral_lib.b"]) == set()
    hidden = ast.parse("def f():\n    return importlib.import_module('mistral_lib.b')")
    assert len(inside_functions(hidden)) == 1

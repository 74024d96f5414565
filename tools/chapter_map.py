"""Writes the map of chapters, modules and tests into the README and the introduction.

The chapters stand here; which module belongs to which is read from the first lines of the modules'
docstrings, and whether a chapter exists, from the folder of notebooks.
"""

import ast
import re
from functools import cache
from pathlib import Path

import nbformat

import links
import targets
from house import BOOK, ROOT, colab_link

PARTS = {
    "Predicting": ["One token", "Tokens", "Embeddings and back"],
    "Looking back": [
        "One head",
        "Rotary positions",
        "Many heads, fewer keys",
        "Sliding windows and masks",
        "Reach and banding",
    ],
    "The block": ["RMSNorm", "SwiGLU", "The block and the residual stream", "The backbone"],
    "Learning": ["Training a Mistral from nothing", "LoRA"],
    "Speaking": ["The rolling cache", "Sampling", "Presets and checkpoints"],
    "Scale": ["Quantization", "GPU runs", "Many devices"],
}
CHAPTERS = dict(enumerate((title for titles in PARTS.values() for title in titles), start=1))
NAMED = re.compile(r'\(chapter (\d+), "([^"]+)"\)')
MANY = 6  # modules, above which the book's map folds them
MAP = re.compile(r"<!-- map -->\n.*?<!-- /map -->", re.DOTALL)


def modules() -> list[Path]:
    """The modules of the library, from the repository's root."""
    found = sorted((ROOT / "mistral_lib").rglob("*.py"))
    return [path.relative_to(ROOT) for path in found if path.name != "__init__.py"]


@cache
def first_paragraph(module: Path) -> str:
    """The first paragraph of a module's docstring, on one line."""
    docstring = ast.get_docstring(ast.parse((ROOT / module).read_text())) or ""
    return " ".join(docstring.partition("\n\n")[0].split())


def tests_of(module: Path) -> Path:
    """Where a module's tests have to be; those of two packages are in one file each."""
    if module.parent.name in ("exercises", "keras_inside"):
        return Path(f"tests/test_{module.parent.name}.py")
    return Path("tests") / f"test_{module.stem.strip('_')}.py"


def notebook_of(chapter: int) -> Path | None:
    """The notebook of a chapter, from the repository's root, if it has been written."""
    found = sorted(BOOK.glob(f"{chapter:02}_*.ipynb"))
    return found[0].relative_to(ROOT) if found else None


def table(by_key: bool = False) -> str:
    """The map as a Markdown table between its marks.

    Args:
        by_key: whether its links are keys, as in the book, where the page of a module links its
            tests; by default chapters are paths from the repository's root, as in the README.
    """
    lines = ["| chapter | modules |", "|---|---|"]
    if not by_key:
        lines = ["| chapter | modules | tests |", "|---|---|---|"]
    for chapter, title in CHAPTERS.items():
        own = modules_of(chapter)
        if by_key:
            row = [f"[{chapter}. {title}](chapter:{chapter})", _linked(own)]
        else:
            notebook = notebook_of(chapter).as_posix()
            row = [
                f"[{chapter}. {title}]({notebook}) [Colab]({colab_link(notebook)})",
                ", ".join(f"`{module.relative_to('mistral_lib').as_posix()}`" for module in own),
                ", ".join(f"`{tests_of(module).name}`" for module in own),
            ]
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join(["<!-- map -->", *lines, "<!-- /map -->"])


def modules_of(chapter: int) -> list[Path]:
    """The modules that say that a chapter explains them."""
    named = {module: NAMED.search(first_paragraph(module)) for module in modules()}
    return [module for module, match in named.items() if match and int(match[1]) == chapter]


def _linked(own: list[Path]) -> str:
    """Modules as links to their pages, folded if they are many."""
    documented = targets.modules()
    names = [".".join(module.with_suffix("").parts) for module in own]
    shown = ", ".join(
        f"[`{name.removeprefix('mistral_lib.')}`](api:{name})"
        if name in documented
        else f"`{name.removeprefix('mistral_lib.')}`"
        for name in names
    )
    if len(names) > MANY:
        return f"<details><summary>{len(names)} modules</summary>{shown}</details>"
    return shown


def main() -> None:
    """Rewrites the map wherever its marks stand."""
    readme = ROOT / "README.md"
    readme.write_text(MAP.sub(lambda _: table(), readme.read_text()))
    intro = BOOK / "intro.ipynb"
    if intro.exists():
        notebook = nbformat.read(intro, 4)
        filled = links.fill(table(by_key=True), targets.load())
        for cell in notebook.cells:
            cell.source = MAP.sub(lambda _: filled, cell.source)
        intro.write_text(nbformat.writes(notebook) + "\n")


if __name__ == "__main__":
    main()

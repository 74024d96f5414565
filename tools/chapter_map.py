"""Writes the map of chapters into the README and the introduction.

The README has their modules and tests, the introduction what each chapter teaches.

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
TEACHES = [
    "what a language model returns, and how to score its guesses",
    "how text is cut into the pieces that a model reads",
    "how tokens become vectors, and vectors become probabilities again",
    "how a token looks back at earlier ones, which is called attention",
    "how the model knows the order of words",
    "why attention has many heads, and how they share memory",
    "which earlier tokens a token may see, and what happens if it sees too much",
    "how far information travels through short windows, and what they save",
    "how the numbers in a model are kept at one size",
    "what the model does with each token alone, between two layers of attention",
    "how attention and the rest are joined into one block, and why it adds",
    "how blocks make a whole model, and how many parameters it has",
    "how a model learns from nothing but text",
    "how to fine-tune a model by training a few extra numbers",
    "how a model writes without reading everything again for each token",
    "how the next token is chosen: temperature, top-k, top-p and faster ways",
    "how models are saved, loaded, and exchanged with other libraries",
    "how to store weights in 8 or 4 bits, and what is lost",
    "what limits the speed of a GPU, and how to measure it",
    "how to split a model over several devices",
]
NAMED = re.compile(r'\(chapter (\d+), "([^"]+)"\)')
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
        by_key: whether its links are keys and each chapter says what it teaches, as in the book; by
            default chapters are paths from the repository's root, with their modules and tests, as
            in the README.
    """
    lines = ["| chapter | what it teaches |", "|---|---|"]
    if not by_key:
        lines = ["| chapter | modules | tests |", "|---|---|---|"]
    for chapter, title in CHAPTERS.items():
        if by_key:
            row = [f"[{chapter}. {title}](chapter:{chapter})", TEACHES[chapter - 1]]
        else:
            own = modules_of(chapter)
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

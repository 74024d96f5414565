"""Everything that the book's text can link to, each under a key that authors write.

| key | links to | reads |
|---|---|---|
| `cite:jiang2023mistral` | an entry of the bibliography | Jiang et al., 2023 |
| `fig:leak` | a figure | Figure 7.2 |
| `chapter:7` | a chapter | chapter 7 |
| `page:glossary` | another page | glossary |
| `term:KV cache` | a word of the glossary | KV cache |
| `api:MistralBackbone` | a class, function, method or module of the library | `MistralBackbone` |
| `exercise:dense.attend` | an exercise | `dense.attend` |
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat
import yaml

from bibliography import chapters_citing, works
from house import BOOK, FRONT, REPOSITORY, ROOT, TAG, chapter_number, colab_link, notebook_paths

KINDS = ("cite", "cited", "fig", "chapter", "page", "term", "api", "exercise")
CAPTION = re.compile(r"\A\*\*(?:fig:([\w-]+)\.\*\*|Figure \d+\.\d+\.\*\*<!-- =fig:([\w-]+) -->)")
EXERCISE = re.compile(r"^\*\*Exercise `([\w.]+)`\*\*", re.MULTILINE)
TERM = re.compile(r"^\*\*([^*]+)\.\*\* (.+?)\s\[[^]]+\]\([^)]+\)(?:<!-- .*? -->)?$", re.M | re.S)
UNNUMBERED = {
    "intro": "the introduction",
    "on_ramp": "the on-ramp",
    "mistral_in_one_file": "Mistral in one file",
}
ALSO = re.compile(r"\. Also called ([^.]+)\.")
# Where the book is published, or empty; from the one setting that Sphinx reads too.
PUBLISHED = yaml.safe_load((ROOT / "_config.yml").read_text())["html"]["baseurl"].rstrip("/")


@dataclass(frozen=True)
class Target:
    """One thing that text can link to.

    Args:
        text: what the link says, unless its author says something else.
        page: the file of the book that it is in, from the repository's root.
        anchor: the id that it has in the built page.
        preview: what a reader sees who only points at the link.
        file: what to open while the book is published nowhere; by default the page.
    """

    text: str
    page: str
    anchor: str = ""
    preview: str = ""
    file: str = ""

    @property
    def address(self) -> str:
        """Where the link leads from outside the built book: never to another version."""
        fragment = f"#{self.anchor}" if self.anchor else ""
        if PUBLISHED:
            return f"{PUBLISHED}/{self.page.rpartition('.')[0]}.html{fragment}"
        if self.page.endswith(".ipynb"):
            return colab_link(self.page)
        return f"{REPOSITORY}/blob/{TAG}/{self.file or self.page + fragment}"


def slug(text: str) -> str:
    """A text as an id.

    >>> slug("KV cache")
    'kv-cache'
    """
    return re.sub(r"[^a-z0-9]+", "-", text.casefold()).strip("-")


def plain(markdown: str) -> str:
    """Markdown of one paragraph as plain text.

    >>> plain("A `mask` with [links](a.md)<!-- api:x --> and *stress*.")
    'A mask with links and stress.'
    """
    text = re.sub(r"<!-- .*? -->|<a id.*?</a>", "", markdown)
    text = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
    return " ".join(re.sub(r"[`*]", "", text).split())


def figure_number(front: int, path: Path, place: int) -> str:
    """The number of a figure: that of its chapter, 0 before the first, and its place in it."""
    chapter = chapter_number(path)
    return f"Figure {chapter}.{place + (0 if chapter else front)}"


def captions(notebook: nbformat.NotebookNode) -> list[tuple[int, str]]:
    """The figures of a notebook: for each the index of its caption's cell, and its key."""
    found = []
    for index, cell in enumerate(notebook.cells):
        match = CAPTION.match(cell.source) if cell.cell_type == "markdown" else None
        if match:
            found.append((index, match[1] or match[2]))
    return found


def _of_notebooks() -> Iterator[tuple[str, Target]]:
    """Chapters, their figures and their exercises."""
    front = 0
    for path in notebook_paths():
        page = path.relative_to(ROOT).as_posix()
        notebook = nbformat.read(path, 4)
        title = notebook.cells[0].source.partition("\n")[0].removeprefix("# ")
        if number := chapter_number(path):
            yield f"chapter:{number}", Target(f"chapter {number}", page, preview=title)
        else:
            yield f"page:{path.stem}", Target(title, page)
        figures = captions(notebook)
        for place, (index, key) in enumerate(figures, 1):
            text = figure_number(front, path, place)
            caption = plain(CAPTION.sub("", notebook.cells[index].source).partition("\n\n")[0])
            yield f"fig:{key}", Target(text, page, f"fig-{key}", caption)
        front += len(figures) if path.stem in FRONT else 0
        for cell in notebook.cells:
            for name in EXERCISE.findall(cell.source) if cell.cell_type == "markdown" else []:
                yield f"exercise:{name}", Target(f"`{name}`", page, f"exercise-{slug(name)}")


def _of_pages() -> Iterator[tuple[str, Target]]:
    """The other pages, and the words of the glossary."""
    for path in sorted(BOOK.glob("*.md")):
        title = path.read_text().partition("\n")[0].removeprefix("# ")
        yield f"page:{path.stem}", Target(title, f"book/{path.name}")
    for name, meaning in TERM.findall((BOOK / "glossary.md").read_text()):
        file = f"book/glossary.md#{name[0].lower()}"  # the heading: GitHub drops other ids
        for word in name.split(", "):
            target = Target(word, "book/glossary.md", f"term-{slug(name)}", plain(meaning), file)
            yield f"term:{word}", target


def words_of(page: str) -> list[list[str]]:
    """The words that the glossary sends to a page, each with what it is also called.

    >>> ["grouped-query attention", "GQA"] in words_of("book/06_many_heads")
    True
    """
    entries = TERM.finditer((BOOK / "glossary.md").read_text())
    file = f"({page.removeprefix('book/')}."
    return [
        [
            *entry[1].split(", "),
            *(word for also in ALSO.findall(plain(entry[2])) for word in re.split(", | or ", also)),
        ]
        for entry in entries
        if file in entry[0]
    ]


def _of_works() -> Iterator[tuple[str, Target]]:
    """The bibliography, and the places that cite each work."""
    for key, work in works().items():
        yield f"cite:{key}", Target(work.label, "book/bibliography.md", key, work.plain)
    for key, notebooks in chapters_citing().items():
        for name in notebooks:
            number = chapter_number(Path(name))
            text = f"chapter {number}" if number else UNNUMBERED[name]
            yield f"cited:{key}@{name}", Target(text, f"book/{name}.ipynb", f"cite-{slug(key)}")


def modules() -> list[str]:
    """The modules that the API reference lists, in its order."""
    return re.findall(r"api:(mistral_lib[\w.]*)", (BOOK / "api.md").read_text())


def api_page(module: str) -> str:
    """The page of a module.

    >>> api_page("mistral_lib.layers.dense")
    'layers.dense.md'
    """
    return f"{module.removeprefix('mistral_lib.')}.md"


def source(module: str) -> Path:
    """The file of a module or package."""
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def documented(module: str) -> Iterator[str]:
    """The full names of what the page of a module describes, itself included."""
    tree = ast.parse(source(module).read_text())
    yield module
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and _public(node):
            yield f"{module}.{node.name}"
            for member in node.body if isinstance(node, ast.ClassDef) else []:
                if isinstance(member, ast.FunctionDef) and _public(member):
                    yield f"{module}.{node.name}.{member.name}"


def _public(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """Whether the API page shows something: it leaves out what `jax.custom_vjp` makes an object."""
    wrapped = any("custom_vjp" in ast.unparse(decorator) for decorator in node.decorator_list)
    return not (node.name.startswith("_") or ast.get_docstring(node) is None or wrapped)


def _of_library() -> Iterator[tuple[str, Target]]:
    """The library's public names, under every end of the full name that means one thing only."""
    names = {name: module for module in modules() for name in documented(module)}
    ends = {name: [name.split(".", n)[n] for n in range(name.count(".") + 1)] for name in names}
    shared = Counter(end for own in ends.values() for end in own)
    for name, module in names.items():
        anchor = f"module-{name}" if name == module else name
        for end in ends[name]:
            if shared[end] == 1:
                page = f"book/api/{api_page(module)}"
                file = source(module).relative_to(ROOT).as_posix()
                yield f"api:{end}", Target(f"`{end}`", page, anchor, file=file)


def load() -> dict[str, Target]:
    """Everything that can be linked to, by its key.

    Raises:
        ValueError: if two things have one key.
    """
    found: dict[str, Target] = {}
    for part in (_of_notebooks, _of_pages, _of_works, _of_library):
        for key, target in part():
            if found.setdefault(key, target) != target:
                raise ValueError(f"The key {key} must name one thing, but names two. Rename one.")
    return found

"""English that comes with every Python (chapter 13, "Training a Mistral from nothing").

The text is documentation: the language reference in `pydoc_data.topics`, the docstrings of the
standard library, and those of the packages that this project installs anyway. Nothing is downloaded
and nothing is imported: docstrings are read from the source files with `ast`.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

STANDARD_LIBRARY = "stdlib"

# What `pip install .[book,test]` brings, as import names. An absent package is left out of the
# corpus, and the fingerprint then says that the text is another one.
PACKAGES = (
    "IPython PIL _pytest absl alabaster anyio attr babel bs4 click contourpy coverage dateutil "
    "docutils filelock fontTools fsspec h5py huggingface_hub hypothesis ipykernel jax jedi jinja2 "
    "jsonschema jupyter_book jupyter_cache jupyter_client jupyter_core jupytext kagglehub keras "
    "markdown_it markupsafe matplotlib mdit_py_plugins mpl_toolkits myst_nb myst_parser nbclient "
    "nbformat nbval numpy opt_einsum optree packaging parso pexpect platformdirs pluggy "
    "prompt_toolkit psutil pybtex pydata_sphinx_theme pygments pyparsing requests rich safetensors "
    "scipy sentencepiece setuptools sortedcontainers soupsieve sphinx sqlalchemy tabulate tornado "
    "tqdm traitlets urllib3 wcwidth yaml zmq"
).split()

SHORTEST = 60  # characters: shorter docstrings repeat the name of what they describe
LONG_LINE = 40  # characters: two documents that share a line this long share a passage
HELD_OUT_PER_MILLE = 50
NEAR_DUPLICATE = 0.5  # of a document's long lines, seen in earlier documents
LEAKED = 0.2  # of a held-out document's long lines, present in the training text

# Folders of tests, of copies of other projects, and of another Python's packages.
SKIPPED_FOLDERS = frozenset(
    "test tests testing idle_test site-packages dist-packages _vendor vendor vendored extern "
    "externals _distutils _examples lib2to3 turtledemo _libs".split()
)

_DIRECTIVE = re.compile(r"^\s*(\.\. [\w:-]+::|\.\. _|:(meta|orphan|download|align|alt|width)\b)")
_LABEL = re.compile(r"^\s*(Examples?|Usage|For example)( usage)?::?\s*$")
_UNDERLINE = re.compile(r"^\s*([-=~^*#])\1{2,}\s*$")


@dataclass(frozen=True)
class Document:
    """One text: a docstring or a topic, with where it was found.

    Attributes:
        source: `"stdlib"` or the name of a package.
        place: the file inside the source and the line, such as `"json/decoder.py:254"`.
        text: the cleaned text.
    """

    source: str
    place: str
    text: str


@dataclass(frozen=True)
class Corpus:
    """Two disjoint lists of documents; see `build_corpus`.

    Attributes:
        training: the documents that a model learns from.
        held_out: the documents that judge it.
        leaked: how many documents were taken out of `held_out` because a fifth or more of their
            long lines also stand in the training text.
        shared_lines: the share of the held-out text's long lines that still do.
    """

    training: list[Document]
    held_out: list[Document]
    leaked: int
    shared_lines: float


def build_corpus(packages: Iterable[str] = PACKAGES) -> Corpus:
    """Reads, cleans, de-duplicates and splits the text.

    Duplicates go first: if they went after the split, a copy of a training document could judge
    the model. The split is by hash, so a document stays on its side whatever else is installed.

    Args:
        packages: import names of installed packages to read beside the standard library.

    Returns:
        A `Corpus`. The same Python and the same package versions give the same one.
    """
    return split(without_duplicates(read_documents(packages)))


def read_documents(packages: Iterable[str] = PACKAGES) -> Iterator[Document]:
    """Every cleaned document, the standard library's first, in a fixed order.

    Args:
        packages: import names of installed packages; those that are not installed are left out.

    Yields:
        `Document`s whose text has at least `SHORTEST` characters.
    """
    library = Path(sysconfig.get_path("stdlib"))
    for topic, text in _topics(library / "pydoc_data" / "topics.py"):
        yield from _document(STANDARD_LIBRARY, f"pydoc_data/topics.py:{topic}", text)
    yield from _documents_below(library, STANDARD_LIBRARY, library)
    for package in packages:
        folder = _package_folder(package)
        if folder is not None:
            yield from _documents_below(folder, package, folder.parent)


def clean(docstring: str) -> str:
    """Keeps the prose of a docstring: no doctests, no tables, no directives, no dumps of numbers.

    Args:
        docstring: as written in the source.

    Returns:
        The text without common indentation, its paragraphs one empty line apart; `""` if no
        paragraph reads like prose.

    >>> print(
    ...     clean('''The mean.
    ...
    ...     >>> mean([1, 2])
    ...     1.5
    ...
    ...     Returns a float, or raises StatisticsError if `data` is empty.''')
    ... )
    The mean.
    <BLANKLINE>
    Returns a float, or raises StatisticsError if `data` is empty.
    """
    paragraphs = re.split(r"\n\s*\n", inspect.cleandoc(docstring).replace("\t", "    "))
    kept = [paragraph.rstrip() for paragraph in paragraphs if _is_prose(paragraph)]
    followers = [*kept[1:], ""]
    kept = [
        paragraph
        for paragraph, follower in zip(kept, followers, strict=False)
        if not _is_bare_heading(paragraph) or (follower and not _is_heading(follower))
    ]
    lines = "\n\n".join(kept).split("\n")
    return "\n".join(line.rstrip() for line in lines).strip("\n")


def without_duplicates(documents: Iterable[Document]) -> list[Document]:
    """Drops exact and near duplicates, keeping the first of each.

    Args:
        documents: in the order in which the first is to win.

    Returns:
        The documents whose text, apart from white space, is new and at most half of whose long
        lines stood in an earlier document.
    """
    seen_texts: set[str] = set()
    seen_lines: set[str] = set()
    kept = []
    for document in documents:
        text = " ".join(document.text.split())
        lines = long_lines(document.text)
        if text in seen_texts or shared(lines, seen_lines) > NEAR_DUPLICATE:
            continue
        seen_texts.add(text)
        seen_lines.update(lines)
        kept.append(document)
    return kept


def split(documents: Iterable[Document]) -> Corpus:
    """Holds out five documents in a hundred, chosen by the hash of their text.

    Args:
        documents: without duplicates.

    Returns:
        A `Corpus`, its held-out part cleared of documents that repeat the training text.
    """
    training, candidates = [], []
    for document in documents:
        digest = hashlib.sha256(document.text.encode()).digest()
        held_out = int.from_bytes(digest[:8], "big") % 1000 < HELD_OUT_PER_MILLE
        (candidates if held_out else training).append(document)
    known = {line for document in training for line in long_lines(document.text)}
    held_out = [d for d in candidates if shared(long_lines(d.text), known) < LEAKED]
    lines = [line for document in held_out for line in long_lines(document.text)]
    return Corpus(training, held_out, len(candidates) - len(held_out), shared(lines, known))


def fingerprint(documents: Iterable[Document]) -> str:
    """SHA-256 of the texts in order: two corpora with one fingerprint are the same text.

    >>> fingerprint([Document("stdlib", "json/__init__.py:1", "text")])[:16]
    '619be496336510a6'
    """
    digest = hashlib.sha256()
    for document in documents:
        digest.update(document.text.encode() + b"\0")
    return digest.hexdigest()


def long_lines(text: str) -> list[str]:
    """The stripped lines of at least `LONG_LINE` characters, by which passages are compared."""
    lines = (line.strip() for line in text.split("\n"))
    return [line for line in lines if len(line) >= LONG_LINE]


def shared(lines: list[str], known: set[str]) -> float:
    """The share of `lines` that are in `known`; 0 if there are none.

    >>> shared(["a", "b"], {"b", "c"})
    0.5
    """
    return sum(line in known for line in lines) / len(lines) if lines else 0.0


def _document(source: str, place: str, docstring: str) -> Iterator[Document]:
    text = clean(docstring)
    if len(text) >= SHORTEST:
        yield Document(source, place, text)


def _documents_below(folder: Path, source: str, root: Path) -> Iterator[Document]:
    for path in sorted(folder.rglob("*.py")):
        place = path.relative_to(root)
        if SKIPPED_FOLDERS.isdisjoint(place.parts) and path.name != "topics.py":
            for line, docstring in _docstrings(path):
                yield from _document(source, f"{place.as_posix()}:{line}", docstring)


def _docstrings(path: Path) -> Iterator[tuple[int, str]]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return  # templates and test data with the suffix .py
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    for node in ast.walk(tree):
        if isinstance(node, kinds) and (docstring := ast.get_docstring(node, clean=False)):
            yield getattr(node, "lineno", 1), docstring


def _topics(path: Path) -> Iterator[tuple[str, str]]:
    """The reference manual's chapters as `help()` shows them: one dict literal."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict):
            yield from sorted(ast.literal_eval(node.value).items())


def _package_folder(package: str) -> Path | None:
    if package in sys.builtin_module_names:
        return None
    spec = importlib.util.find_spec(package)
    locations = list(spec.submodule_search_locations or []) if spec else []
    return Path(locations[0]) if locations else None


def _is_prose(paragraph: str) -> bool:
    """Whether a paragraph is mostly words: no doctest, directive, table or dump of numbers."""
    lines = paragraph.split("\n")
    first = lines[0].lstrip()
    if first.startswith((">>>", "+--", "+==", "|", "$ ", "In [")) or _DIRECTIVE.match(first):
        return False
    if _is_bare_heading(paragraph):
        return True
    # Underlines of headings are not held against the paragraph below them.
    body = "".join(line for line in lines if not _UNDERLINE.match(line)).replace(" ", "")
    if not body or not paragraph.isascii():
        return False
    letters = sum(character.isalpha() for character in body) / len(body)
    digits = sum(character.isdigit() for character in body) / len(body)
    columns = len(re.findall(r"\S {3,}\S", paragraph)) > len(lines) / 2 and len(lines) > 2
    return letters > 0.72 and digits < 0.08 and not columns


def _is_heading(paragraph: str) -> bool:
    """Whether a paragraph begins with a title over its underline."""
    lines = paragraph.split("\n")
    return len(lines) > 1 and bool(_UNDERLINE.match(lines[1]))


def _is_bare_heading(paragraph: str) -> bool:
    """Whether a paragraph is nothing but a title over its underline, or `Example:`."""
    lines = paragraph.strip().split("\n")
    return (len(lines) == 2 and _is_heading(paragraph)) or bool(_LABEL.match(paragraph))

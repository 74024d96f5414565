"""The bibliography: what a citation says in the text, and the page that lists the works.

The works are in `book/references.bib`. A work is called as in the text, "Jiang et al., 2023", or
"vLLM #48621" where it is an issue or a pull request of a repository.
"""

import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from string import ascii_lowercase

import nbformat
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

from house import BOOK, notebook_paths

PAGE = BOOK / "bibliography.md"
HEAD = """\
# Bibliography

The works that the chapters cite, under the names that the text gives them. Each entry ends with the
chapters that cite it.
"""
THREAD = re.compile(r"(?:Issue|Pull request|Discussion) (\d+)")
CITED = re.compile(r"\(cite:([\w-]+)\)|<!-- =?cite:([\w-]+) -->")


@dataclass(frozen=True)
class Work:
    """One entry of the bibliography.

    Args:
        label: what the text calls it, such as "Jiang et al., 2023".
        order: works are sorted by this.
        authors, title, rest: what the entry says, in plain text; `rest` is where it appeared.
        url: where it can be read, if that is known.
    """

    label: str
    order: tuple[str, ...]
    authors: str
    title: str
    rest: str
    url: str | None

    @property
    def plain(self) -> str:
        """The entry as a sentence."""
        return " ".join(f"{part}." for part in (self.authors, self.title, self.rest) if part)

    @property
    def markdown(self) -> str:
        """The entry as Markdown, with the title as the link."""
        title = f"[*{self.title}*]({self.url})" if self.url else f"*{self.title}*"
        return " ".join(f"{part}." for part in (self.authors, title, self.rest) if part)


def _plain(field: str) -> str:
    """A field without LaTeX, dashes between pages as they are printed."""
    return str(Text.from_latex(field)).replace("\n", " ")


def _joined(names: list[str]) -> str:
    """Names as a list in a sentence.

    >>> _joined(["A", "B", "others"])
    'A, B and others'
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _short(names: list[str]) -> str:
    """The authors as the text names them.

    >>> _short(["Jiang", "Sablayrolles", "Mensch"])
    'Jiang et al.'
    """
    return f"{names[0]} et al." if len(names) > 2 or "others" in names else _joined(names)


def _work(entry: Entry) -> Work:
    """An entry of the file as a work, with a label that others may share."""
    fields = {name: _plain(text) for name, text in entry.fields.items()}
    persons = entry.persons["author"]
    last = [_plain(" ".join(p.prelast_names + p.last_names)) for p in persons]
    full = [_plain(str(" ".join(p.first_names + p.middle_names))) for p in persons]
    authors = _joined([f"{first} {name}".strip() for first, name in zip(full, last)])
    thread = THREAD.match(fields["title"])
    label = f"{_short(last)} #{thread[1]}" if thread else f"{_short(last)}, {fields['year']}"
    arxiv = f"arXiv:{fields['eprint']}" if "eprint" in fields else ""
    where = fields.get("journal") or fields.get("booktitle") or fields.get("howpublished", "")
    issue = f" {fields['volume']}" if "volume" in fields else ""
    issue += f"({fields['number']})" if "number" in fields else ""
    issue += f":{fields['pages']}" if "pages" in fields else ""
    rest = ", ".join(filter(None, [f"{where}{issue}", arxiv, fields["year"]]))
    doi = f"https://doi.org/{fields['doi']}" if "doi" in fields else None
    url = fields.get("url") or (arxiv and f"https://arxiv.org/abs/{fields['eprint']}") or doi
    order = (label.casefold(), fields["title"])
    return Work(label, order, authors, fields["title"], rest, url or None)


@cache
def works() -> dict[str, Work]:
    """Every work by its key, sorted; where two would have one label, the year gets a letter."""
    entries = parse_file(BOOK / "references.bib", "bibtex").entries
    found = {key: _work(entry) for key, entry in entries.items()}
    shared = Counter(work.label for work in found.values())
    taken: Counter[str] = Counter()
    named = {}
    for key, work in sorted(found.items(), key=lambda item: item[1].order):
        letter = ascii_lowercase[taken[work.label]] if shared[work.label] > 1 else ""
        taken[work.label] += 1
        named[key] = Work(**{**vars(work), "label": work.label + letter})
    return named


def chapters_citing() -> dict[str, list[str]]:
    """For each work that is cited, the notebooks that do so, in the order of the book."""
    found: dict[str, list[str]] = {}
    for path in notebook_paths():
        cells = nbformat.read(path, 4).cells
        prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
        for key in sorted({short or long for short, long in CITED.findall(prose)}):
            found.setdefault(key, []).append(path.stem)
    return found


def page() -> str:
    """The page, with its links as keys."""
    citing = chapters_citing()
    entries = []
    for key, work in works().items():
        back = _joined([f"[](cited:{key}@{notebook})" for notebook in citing.get(key, [])])
        cited = f" Cited in {back}." if back else ""
        entries.append(f'<a id="{key}"></a>**{work.label}.** {work.markdown}{cited}\n')
    return "\n".join([HEAD, *entries])

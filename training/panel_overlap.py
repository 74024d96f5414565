"""Looks for texts of the panel in the training text, as far as that can be built again.

    python training/panel_overlap.py

builds the corpus from what is installed, as training does, and compares: no eight words in a row of
any text of the panel may stand in it, whatever the case and the marks between them. What was
compared with is written into the panel's record. It takes some minutes. The shipped model's own
text is another one where other versions of packages are installed; the two fingerprints say so.
"""

import json
import re
import sys
from collections.abc import Iterator

from mistral_lib.teaching import corpus, panel

WORDS = 8


def runs(text: str, words: int = WORDS) -> Iterator[tuple[str, ...]]:
    """Every run of so many words.

    >>> list(runs("One two, three.", words=2))
    [('one', 'two'), ('two', 'three')]
    """
    found = re.findall(r"\w+", text.lower())
    return zip(*(found[i:] for i in range(words)))


def shared(texts: list[str], documents: list[corpus.Document]) -> list[tuple[str, str]]:
    """The runs that texts share with documents, each with the document's place."""
    ours = {run for text in texts for run in runs(text)}
    return [(" ".join(run), d.place) for d in documents for run in runs(d.text) if run in ours]


def texts_of(record: dict) -> list[str]:
    """All texts of the panel."""
    texts = [entry["text"] for entry in record["docstrings"]]
    return texts + record["documents"] + record["prose"] + record["sentences"]


def main() -> None:
    """Compares, and writes what with."""
    record = json.loads(panel.RECORD.read_text(encoding="utf-8"))
    built = corpus.build_corpus()
    if found := shared(texts_of(record), built.training + built.held_out):
        sys.exit("\n".join(f"{place}: {run}" for run, place in found))
    record["compared"] = {
        "words": WORDS,
        "shared_runs_of_words": len(found),
        "training_documents": len(built.training),
        "training_fingerprint": corpus.fingerprint(built.training),
    }
    sections = []
    for name, entries in record.items():
        lines = [f"  {json.dumps(entry)}" for entry in entries] if name != "compared" else []
        text = "[\n" + ",\n".join(lines) + "\n ]" if lines else json.dumps(entries)
        sections.append(f' "{name}": {text}')
    panel.RECORD.write_text("{\n" + ",\n".join(sections) + "\n}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

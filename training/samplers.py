"""Ways of choosing a token, each over a range of settings (chapter 16, "Sampling").

    python training/samplers.py

lets the shipped model continue every docstring and every document of the panel, 8 times under each
setting of four samplers, and writes one row for each setting into the record that the chapter
reads. Nothing is trained. It takes about twenty minutes on two cores.

Two things are counted of the 8 texts that continue one prompt:

- **quality**: after a docstring the share of texts that begin with the right name. After the first
  half of a document the share of pairs of neighbouring words that occur in the training text. A
  person's second half is counted in the same way, to compare with.
- **variety**: of all sequences of four tokens in those texts, the share that differ.
"""

import argparse
import json
import os
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.teaching import corpus, panel
from mistral_lib.teaching.sampler_sweep import RECORD

TEXTS, SEQUENCE = 8, 4  # drawn for each prompt; tokens of a sequence whose copies are counted
NEW = {"docstrings": 16, "documents": 32}  # tokens of a drawn text, at most
SETTINGS = {
    "temperature": (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 1.0, 1.3),
    "top_k": (2, 3, 5, 8, 15, 30, 80, 300),
    "top_p": (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.97),
    "min_p": (0.8, 0.4, 0.2, 0.1, 0.05, 0.025, 0.01, 0.003),
}
HOT = 1.5  # the temperature at which some cuts are tried again
CUTS = ("min_p",)
WORD = re.compile(r"[A-Za-z']+")


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return WORD.findall(text.lower())


def pairs(text: str) -> list[tuple[str, str]]:
    """Neighbouring words, without the first and the last, which may have been cut."""
    inside = words(text)[1:-1]
    return list(pairwise(inside))


def known_pairs(texts: Iterable[str]) -> set[tuple[str, str]]:
    """All pairs of neighbouring words in some texts."""
    return {pair for text in texts for pair in pairwise(words(text))}


def share_known(texts: Sequence[str], known: set[tuple[str, str]]) -> float:
    """Of all pairs in some texts the share that is known; 1 where there is no pair."""
    found = [pair in known for text in texts for pair in pairs(text)]
    return float(np.mean(found)) if found else 1.0


def variety(rows: Sequence[Sequence[int]], length: int = SEQUENCE) -> float:
    """Of all sequences of `length` tokens in some rows the share that differ."""
    found = [
        tuple(row[i : i + length]) for row in rows for i in range(max(1, len(row) - length + 1))
    ]
    return len(set(found)) / len(found)


def halves_of(document: Sequence[int]) -> tuple[list[int], list[int]]:
    """The first half of a document's tokens, and what a person wrote after it."""
    middle = len(document) // 2
    return list(document[:middle]), list(document[middle : middle + NEW["documents"]])


def prompts_of(rows: panel.Rows) -> list[list[int]]:
    """The ids from which the model goes on."""
    ids = [row[real].tolist() for row, real in zip(rows.token_ids, rows.padding_mask, strict=True)]
    if isinstance(rows, panel.Prompts):
        return [row[: end + 1] for row, end in zip(ids, rows.ends, strict=True)]
    return [halves_of(row)[0] for row in ids]


def drawn(model: MistralCausalLM, prompts: list, new: int, texts: int, **setting) -> list[list]:
    """For each prompt the new tokens of `texts` drawn continuations."""
    arguments = {"temperature": 1.0} | setting
    # A step that changes nothing stays in, so that a program serves many settings; but only those
    # programs sort that have to.
    if setting.keys() & {"top_k", "top_p"}:
        arguments = {"top_k": model.backbone.vocabulary_size, "top_p": 1.0} | arguments
    else:
        arguments = {"min_p": 1e-9} | arguments
    rows = model.generate(
        prompts,
        **arguments,
        num_samples=texts,
        max_new_tokens=new,
        seed=[seed for _ in prompts for seed in range(texts)],
        batch_size=128,
    )
    return [
        [list(row)[len(prompt) :] for row in each]
        for prompt, each in zip(prompts, rows, strict=True)
    ]


def measure(model, rows: panel.Rows, known, texts: int = TEXTS, **setting) -> dict[str, list]:
    """Quality and variety of what is drawn after each prompt."""
    tokenizer = model.preprocessor.tokenizer
    new = NEW["docstrings" if isinstance(rows, panel.Prompts) else "documents"]
    found = drawn(model, prompts_of(rows), new, texts, **setting)
    written = [[tokenizer.decode(row) for row in each] for each in found]
    if isinstance(rows, panel.Prompts):
        quality = [
            np.mean([text.startswith(f"{item.name}*") for text in each])
            for item, each in zip(rows.items, written, strict=True)
        ]
    else:
        quality = [share_known(each, known) for each in written]
    return {
        "quality": np.round(quality, 4).tolist(),
        "variety": np.round([variety(each) for each in found], 4).tolist(),
    }


def main() -> None:
    """Measures, and writes the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=RECORD)
    arguments = parser.parse_args()
    model = MistralCausalLM.from_preset("mistral_tiny_en")
    tokenizer = model.preprocessor.tokenizer
    text = corpus.build_corpus()
    known = known_pairs(document.text for document in text.training)
    kinds = {"docstrings": panel.docstrings(tokenizer), "documents": panel.documents(tokenizer)}
    record: dict = {
        "texts": TEXTS,
        "sequence": SEQUENCE,
        "new": NEW,
        "hot": HOT,
        "confirms": {kind: rows.confirms.tolist() for kind, rows in kinds.items()},
        "training_fingerprint": corpus.fingerprint(text.training),
        "people": [
            round(share_known([tokenizer.decode(halves_of(row[real].tolist())[1])], known), 4)
            for row, real in zip(
                kinds["documents"].token_ids, kinds["documents"].padding_mask, strict=True
            )
        ],
        "settings": [],
    }
    runs = [{name: value} for name, values in SETTINGS.items() for value in values]
    runs += [{name: value, "temperature": HOT} for name in CUTS for value in SETTINGS[name]]
    for setting in runs:
        row = {"setting": setting}
        for kind, rows in kinds.items():
            row[kind] = measure(model, rows, known, **setting)
        record["settings"].append(row)
        means = {k: {n: round(np.mean(v), 3) for n, v in row[k].items()} for k in kinds}
        print(setting, means, flush=True)
    write(record, arguments.out)


def write(record: dict, path: Path) -> None:
    """A record with one line for each list of numbers."""
    text = json.dumps(record, indent=1)
    path.write_text(re.sub(r"\[\s+([^][{}]*?)\s+\]", _one_line, text) + "\n")


def _one_line(found: re.Match) -> str:
    return "[" + re.sub(r"\s*\n\s*", " ", found[1]) + "]"


if __name__ == "__main__":
    main()

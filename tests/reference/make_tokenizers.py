"""Writes what Hugging Face's tokenizers make of texts with tokens that were added.

The ordinary tests read the file and need neither tokenizers nor transformers. To make it again,
install the peers as `make_reference.py` says, and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_tokenizers

The vocabulary is that of Mistral 7B 0.1, from mistral-common. The added tokens are those of
fine-tuned Mistrals, in three of the forms that their tokenizer.json have, and with every flag.
"""

import json
import random
from pathlib import Path

from vocabularies import MISTRAL

from mistral_lib.presets.fast_tokenizer import describe_tokenizer

FILE = Path(__file__).parent / "added_tokens.json"
NAMES = ("<|im_end|>", "<|im_start|>", "[PAD]")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
ATOMS = (
    *(
        "the",
        " the",
        "don't",
        " 7",
        "\n",
        "\t",
        "   ",
        " ",
        "▁",
        "日本語",
        "😀",
        "_",
        "hello world",
    ),
    *("<|im_start|>", "<|im_end|>", "[PAD]", "<|im_start|>user\n", "<|im_end|>\n"),
    *("x<|im_end|>y", " <|im_start|> "),
)


def added_tokens(rng: random.Random) -> list[dict]:
    tokens = []
    for id, name in enumerate(NAMES, start=32000):
        flags = {flag: rng.random() < 0.35 for flag in FLAGS}
        flags["normalized"] &= not flags["special"]  # as transformers makes them
        tokens.append({"id": id, "content": name, **flags})
    return tokens


def tokenizer_json(tokens: list[dict], scheme: str | None) -> dict:
    content = describe_tokenizer(MISTRAL["v1"].read_bytes())
    content["added_tokens"] = [*content["added_tokens"], *tokens]
    if scheme is not None:
        content["normalizer"] = None
        content["pre_tokenizer"] = {
            "type": "Metaspace",
            "replacement": "▁",
            "prepend_scheme": scheme,
            "split": False,
        }
    return content


def main() -> None:
    import tokenizers  # a peer, which the tests that import this module do without

    rng, cases = random.Random(0), []
    for scheme in (None, "first", "always"):
        for _ in range(9):
            tokens = added_tokens(rng)
            content = tokenizer_json(tokens, scheme)
            tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
            texts = ["".join(rng.choices(ATOMS, k=rng.randrange(1, 8))) for _ in range(12)]
            rows = [tokenizer.encode(text, add_special_tokens=False).ids for text in texts]
            decoded = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
            cases.append(
                {"scheme": scheme, "tokens": tokens, "results": [*zip(texts, rows, decoded)]}
            )
    lines = ",\n".join(json.dumps(case, ensure_ascii=False) for case in cases)
    FILE.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()

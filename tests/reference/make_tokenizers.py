"""Writes what Hugging Face's tokenizers make of texts with tokens that were added.

The ordinary tests read the file and need neither tokenizers nor transformers. To make it again,
install the peers as `make_reference.py` says, and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_tokenizers

The vocabulary is that of Mistral 7B 0.1, from mistral-common. The added tokens are those of
fine-tuned Mistrals, in three of the forms that their tokenizer.json have, and with every flag.
"""

import json
import random
import tempfile
from pathlib import Path

from vocabularies import MISTRAL

from mistral_lib.presets.fast_tokenizer import describe_tokenizer

FILE = Path(__file__).parent / "added_tokens.json"
CHAT_FILE = Path(__file__).parent / "chat_templates.json"
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


# Of fine-tuned Mistrals; the names of their special tokens; and how their tokens are added.
CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + "
    "message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + "
    "eos_token }}\n{% endif %}\n{% if loop.last and add_generation_prompt %}\n"
    "{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
TOOLS = (
    "{{ bos_token }}{% if tools %}{{ tools | tojson(indent=2) }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'tool' %}{% continue %}{% endif %}"
    "{% generation %}{{ m.content | trim }}{% endgeneration %}{% endfor %}"
)
IM_END = {"id": 32000, "content": "<|im_end|>", "special": True}
IM_START = {"id": 32001, "content": "<|im_start|>"}
CHATS = {
    "zephyr": (ZEPHYR, {"eos_token": "</s>"}, []),
    "openhermes": (CHATML, {"eos_token": "<|im_end|>"}, [IM_END, IM_START]),
    "dolphin": (CHATML, {"eos_token": "<|im_end|>"}, [IM_END, {**IM_START, "normalized": True}]),
    "hermes with tools": (
        [{"name": "default", "template": CHATML}, {"name": "tool_use", "template": TOOLS}],
        {"eos_token": "<|im_end|>"},
        [IM_END, {**IM_START, "special": True}],
    ),
}
CONVERSATION = [
    {"role": "system", "content": "Be brief, é. "},
    {"role": "user", "content": "Hi <|im_end|></s>\n[INST]"},
    {"role": "assistant", "content": "  Hello\n"},
    {"role": "user", "content": "Who?"},
]
DEFINITIONS = [{"type": "function", "function": {"name": "f<", "description": "é"}}]


def write_checkpoint(folder: Path, name: str) -> None:
    """The tokenizer of a fine-tuned model, as Hugging Face's files have it."""
    template, names, added = CHATS[name]
    flags = dict.fromkeys(FLAGS, False)
    tokens = [{**flags, **token} for token in added]
    (folder / "tokenizer.model").write_bytes(MISTRAL["v1"].read_bytes())
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer_json(tokens, None)))
    (folder / "config.json").write_text('{"model_type": "mistral"}')
    config = {
        "tokenizer_class": "LlamaTokenizer",
        "legacy": True,
        "bos_token": "<s>",
        "unk_token": "<unk>",
        **names,
        "chat_template": template,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def chat_ids(folder: Path, tools: list | None) -> list[int]:
    """What transformers makes of the conversation."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(
        CONVERSATION, tools=tools, add_generation_prompt=True, return_dict=False
    )


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
    chats = {}
    for name in CHATS:
        with tempfile.TemporaryDirectory() as folder:
            write_checkpoint(Path(folder), name)
            chats[name] = [chat_ids(Path(folder), tools) for tools in (None, DEFINITIONS)]
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(ids)}" for name, ids in chats.items())
    CHAT_FILE.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


if __name__ == "__main__":
    main()

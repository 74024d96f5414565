"""Writes small GGUF files with llama.cpp's converters, and what llama.cpp computes from them.

The ordinary tests read the files and need no peer. To make them again, install the peers as
`make_reference.py` says (llama-cpp-python is built with cmake; its source package holds llama.cpp
and so the converters), and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_gguf .../llama_cpp_python-0.3.36/vendor/llama.cpp

`kinds.gguf` has a tensor of each type that is read, quantized by ggml's own functions.
"""

import ctypes
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from vocabularies import SENTENCES, TEXTS, small_tekken, trained_model

from mistral_lib.config import MistralConfig
from mistral_lib.presets.gguf_format import places

from . import golden, peers

FOLDER = Path(__file__).parent / "gguf"
TOKEN_IDS = np.arange(2 * 20).reshape(2, 20) * 7 % 297 + 3
SHOWN = slice(None, None, 8)  # of the logits
BASE = {
    "vocabulary_size": 304,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "rope_max_wavelength": 500.0,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
    "tie_word_embeddings": True,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "original_max_position_embeddings": 32,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
}
MINISTRAL3 = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 8,
    "beta_fast": 4.0,
    "beta_slow": 0.5,
    "mscale": 1.0,
    "mscale_all_dim": 0.5,
    "llama_4_scaling_beta": 0.3,
}
CASES = {
    "text": {"tie_word_embeddings": False, "rope_scaling_factor": 2.0},
    "llama3": {"head_dim": 16, "num_key_value_heads": 1, "rope_scaling": LLAMA3},
    "ministral3": {"rope_scaling": MINISTRAL3},
}
GAINS = {"embeddings": 0.5}  # which is the output too, whose logits would be large
LORA = {"r": 3, "lora_alpha": 6, "rank_pattern": {"k_proj": 2}}
LORA |= {"target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]}
TEMPLATE = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }} [/INST]{% endfor %}"
ADDED = {300: "<|im_start|>", 301: "<|im_end|>"}

KINDS_CONFIG = {
    "vocabulary_size": 32,
    "num_layers": 1,
    "num_query_heads": 2,
    "hidden_dim": 256,
    "intermediate_dim": 32,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": None,
}
KINDS = {
    "token_embd.weight": "Q4_K",
    "blk.0.attn_q.weight": "Q6_K",
    "blk.0.attn_k.weight": "BF16",
    "blk.0.attn_v.weight": "Q8_0",
    "blk.0.attn_output.weight": "Q4_0",
    "blk.0.ffn_gate.weight": "Q4_K",
    "blk.0.ffn_up.weight": "Q4_0",
    "blk.0.ffn_down.weight": "F16",
    "output.weight": "Q6_K",
}


def config_of(name: str) -> dict:
    """The constructor arguments that a case's file describes."""
    return BASE | CASES[name]


def seed_of(name: str) -> int:
    return list(CASES).index(name)


def matrix() -> np.ndarray:
    """What the two kinds of blocks of 256 are made of: numbers of several sizes."""
    random = np.random.default_rng(17)
    rows = random.normal(0, 0.02, (24, 512)) * 2.0 ** random.integers(-3, 4, (24, 1))
    rows[0], rows[1, :300], rows[2] = 0, 0, np.abs(rows[2])
    return rows.astype("float32")


def make_checkpoint(name: str, folder: Path):
    """A case as a checkpoint of transformers, with a vocabulary; returns the model."""
    config = config_of(name)
    weights = golden.random_weights(config, seed_of(name), GAINS)
    model = peers.transformers_model(config, weights)
    model.config.update({"bos_token_id": 1, "eos_token_id": 2, "max_position_embeddings": 64})
    model.save_pretrained(folder)
    proto = trained_model(normalization_rule_name="identity", remove_extra_whitespaces=False)
    (folder / "tokenizer.model").write_bytes(proto)
    special = {0: "<unk>", 1: "<s>", 2: "</s>"}
    tokens = {
        str(id): {"content": token, "special": id in special}
        for id, token in (special | ADDED).items()
    }
    content = {"tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE}
    content |= {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    content |= {"add_bos_token": True, "add_eos_token": False, "added_tokens_decoder": tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    return model


def make_tekken(folder: Path) -> None:
    """A config and a Tekken vocabulary."""
    model = make_checkpoint("text", folder)
    model.config.vocab_size = 300
    model.config.save_pretrained(folder)
    for name in ("tokenizer.model", "tokenizer_config.json"):
        (folder / name).unlink()
    (folder / "tekken.json").write_bytes(small_tekken().to_json())


def make_adapter(model, folder: Path) -> None:
    """An adapter of PEFT's on a model."""
    import peft
    import torch

    adapted = peft.get_peft_model(model, peft.LoraConfig(**LORA))
    random = np.random.default_rng(3)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.from_numpy(random.normal(0, 0.5, tuple(parameter.shape))))
    adapted.save_pretrained(folder)


def convert(script: Path, *arguments: object) -> None:
    """Runs one of llama.cpp's converters, with its own package gguf."""
    environment = os.environ | {"PYTHONPATH": str(script.parent / "gguf-py")}
    command = [sys.executable, script, *arguments]
    subprocess.run(list(map(str, command)), env=environment, check=True, capture_output=True)


def quantize(array: np.ndarray, kind: str) -> np.ndarray:
    """The bytes of each row, by ggml."""
    import gguf
    from llama_cpp._ggml import libggml

    kind = gguf.GGMLQuantizationType[kind]
    numbers, num_bytes = gguf.GGML_QUANT_SIZES[kind]
    array = np.ascontiguousarray(array, "float32")
    rows = np.zeros((len(array), array.shape[1] // numbers * num_bytes), "uint8")
    pointers = (ctypes.c_void_p(each.ctypes.data) for each in (array, rows))
    sizes = map(ctypes.c_int64, (0, *array.shape))
    libggml.ggml_quantize_chunk(ctypes.c_int(kind), *pointers, *sizes, None)
    return rows


def make_kinds(file: Path, as_float: bool = False) -> None:
    """The file with a tensor of each kind, or the same numbers in float32."""
    import gguf

    config = KINDS_CONFIG
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(64)
    writer.add_block_count(config["num_layers"])
    writer.add_embedding_length(config["hidden_dim"])
    writer.add_feed_forward_length(config["intermediate_dim"])
    writer.add_head_count(config["num_query_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_layer_norm_rms_eps(config["layer_norm_epsilon"])
    writer.add_vocab_size(config["vocabulary_size"])
    writer.add_tokenizer_model("no_vocab")
    for name, array in kinds_arrays().items():
        kind = gguf.GGMLQuantizationType[KINDS.get(name, "F32")]
        if kind == gguf.GGMLQuantizationType.F32:
            writer.add_tensor(name, array)
            continue
        rows = quantize(array, kind.name)
        if as_float:
            writer.add_tensor(name, gguf.quants.dequantize(rows, kind))
        else:
            writer.add_tensor(name, rows, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def kinds_arrays() -> dict[str, np.ndarray]:
    """The float32 tensors of `kinds.gguf`, in an order of rows that has no meaning."""
    random = np.random.default_rng(5)
    arrays = {}
    for place in places(MistralConfig(**KINDS_CONFIG)):
        size = 1.4 / np.sqrt(place.shape[-1]) if len(place.shape) == 2 else 0.2
        array = random.normal(len(place.shape) == 1, size, place.shape)
        arrays[place.name] = array.astype("float32")
    return arrays


def run_llama(file: Path, token_ids: np.ndarray, adapter: Path | None = None) -> np.ndarray:
    """llama.cpp's logits, with a cache in float32 and the file's own rotary positions."""
    import llama_cpp

    found = []
    for row in token_ids:
        model = llama_cpp.Llama(
            str(file),
            n_ctx=64,
            logits_all=True,
            type_k=llama_cpp.GGML_TYPE_F32,
            type_v=llama_cpp.GGML_TYPE_F32,
            yarn_attn_factor=-1.0,
            yarn_beta_fast=-1.0,
            yarn_beta_slow=-1.0,
            lora_path=None if adapter is None else str(adapter),
            verbose=False,
        )
        model.eval(row.tolist())
        found.append(np.array(model.scores[: len(row)], "float32"))
        model.close()
    return np.stack(found)


def texts(count: int = 300) -> list[str]:
    """Texts of several writings, of spaces and names of tokens, and random ones."""
    names = ["", " ", "\n", "<s>", "</s>", "[INST] a [/INST]", "<0x41>", "\u2581", "\u2581a", "a "]
    random = np.random.default_rng(11)
    pool = [*"   aethsn.<>/0x_\n\t\u2581\u0301é中ﬁ😀", "the", " window", "\u200d"]
    drawn = ("".join(random.choice(pool, random.integers(1, 20))) for _ in range(count))
    return [*TEXTS.values(), *SENTENCES, *names, *drawn]


def tokenize(file: Path, texts: list[str]) -> list[list[int]]:
    """The ids of texts by llama.cpp, without a start token."""
    import llama_cpp

    model = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    return [model.tokenize(text.encode(), add_bos=False, special=False) for text in texts]


def main(llama: Path) -> None:
    """Writes every file, the logits of all, and the ids of texts."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    results = {}
    with tempfile.TemporaryDirectory() as temporary:
        for name in CASES:
            checkpoint, file = Path(temporary, name), FOLDER / f"{name}.gguf"
            model = make_checkpoint(name, checkpoint)
            script = llama / "convert_hf_to_gguf.py"
            convert(script, checkpoint, "--outtype", "f32", "--outfile", file)
            results[name] = run_llama(file, TOKEN_IDS)[..., SHOWN]
            if name == "text":
                make_adapter(model, Path(temporary, "adapter"))
                adapter = FOLDER / "adapter.gguf"
                script = llama / "convert_lora_to_gguf.py"
                arguments = ("--base", checkpoint, "--outfile", adapter)
                convert(script, Path(temporary, "adapter"), *arguments)
                results["adapter"] = run_llama(file, TOKEN_IDS, adapter)[..., SHOWN]
        make_tekken(Path(temporary, "tekken"))
        script, file = llama / "convert_hf_to_gguf.py", FOLDER / "tekken.gguf"
        convert(script, Path(temporary, "tekken"), "--vocab-only", "--outfile", file)
        make_kinds(FOLDER / "kinds.gguf")
        make_kinds(Path(temporary, "float.gguf"), as_float=True)
        ids = TOKEN_IDS % 32
        results["kinds"] = run_llama(Path(temporary, "float.gguf"), ids)
        results["kinds_quantized"] = run_llama(FOLDER / "kinds.gguf", ids)
    for kind in ("Q4_K", "Q6_K"):
        results[f"bytes_{kind}"] = quantize(matrix(), kind)
    np.savez_compressed(FOLDER / "results.npz", **results)
    ids = {name: tokenize(FOLDER / f"{name}.gguf", texts()) for name in ("text", "tekken")}
    (FOLDER / "tokens.json").write_text(json.dumps(ids, separators=(",", ":")) + "\n")
    size = sum(file.stat().st_size for file in FOLDER.iterdir())
    print(f"{len(list(FOLDER.iterdir()))} files, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Writes small checkpoints of every dense model of Mistral's with transformers, and their logits.

Each has the config.json of a published model, with all its entries and smaller sizes. Texts are
several times as long as the original length. Models that are published in fp8 are quantized here in
the published layout, and transformers makes them float again. The ordinary tests read the files. To
make them again, in the folder `tests`, in the environment that `make_reference.py` describes:

    ../.venv-peers/bin/pip install --no-deps compressed-tensors==0.20.0 loguru==0.7.3
    ../.venv-peers/bin/python -m reference.make_family
"""

import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from . import golden, peers

FOLDER = Path(__file__).parent / "family"
LENGTH, ORIGINAL = 50, 12
KEPT = slice(1, LENGTH, 2)
TOKEN_IDS = np.arange(LENGTH)[None] * 11 % 37

SIZES = {
    "vocab_size": 37,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
}
TEXT = {
    "attention_dropout": 0.0,
    "hidden_act": "silu",
    "initializer_range": 0.02,
    "max_position_embeddings": 96,
    "rms_norm_eps": 1e-05,
    "sliding_window": None,
    "use_cache": True,
    **SIZES,
}
IDS = {"bos_token_id": 1, "eos_token_id": 2}
VISION = {
    "attention_dropout": 0.0,
    "head_dim": 4,
    "hidden_act": "silu",
    "hidden_size": 8,
    "image_size": 28,
    "initializer_range": 0.02,
    "intermediate_size": 8,
    "model_type": "pixtral",
    "num_attention_heads": 2,
    "num_channels": 3,
    "num_hidden_layers": 1,
    "patch_size": 14,
}
MULTIMODAL = {
    "architectures": ["Mistral3ForConditionalGeneration"],
    "image_token_index": 10,
    "model_type": "mistral3",
    "multimodal_projector_bias": False,
    "projector_hidden_act": "gelu",
    "spatial_merge_size": 2,
    "vision_config": VISION,
    "vision_feature_layer": -1,
}
FP8 = {
    "activation_scheme": "static",
    "dequantize": False,
    "modules_to_not_convert": ["model.vision_tower", "model.multi_modal_projector", "lm_head"],
    "quant_method": "fp8",
    "weight_block_size": None,
}
YARN = {
    "beta_fast": 4.0,
    "beta_slow": 1.0,
    "factor": 8.0,
    "mscale": 1.0,
    "original_max_position_embeddings": ORIGINAL,
    "rope_theta": 1000.0,
    "rope_type": "yarn",
    "type": "yarn",
}


def groups(kind: str, strategy: str, form: str) -> dict:
    """A quantization_config as llm-compressor writes it."""
    weights = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": strategy}
    inputs = {"num_bits": 8, "type": kind, "symmetric": True, "strategy": "token", "dynamic": True}
    return {
        "config_groups": {
            "group_0": {"targets": ["Linear"], "weights": weights, "input_activations": inputs}
        },
        "format": form,
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
        "sparsity_config": {},
        "transform_config": {},
    }


CONFIGS = {
    # Ministral 8B: a full layer, then three with a window.
    "ministral_8b": {
        "architectures": ["MinistralForCausalLM"],
        **TEXT,
        **IDS,
        "layer_types": ["full_attention", *["sliding_attention"] * 3],
        "model_type": "ministral",
        "num_hidden_layers": 4,
        "rope_theta": 500.0,
        "sliding_window": 7,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    # Small 3.1: nobody says whether the output is tied.
    "small_3_1": {
        **MULTIMODAL,
        "text_config": {**TEXT, "model_type": "mistral", "rope_theta": 700.0},
        "torch_dtype": "bfloat16",
    },
    # Ministral 3 3B: tied, queries scaled, in fp8.
    "ministral_3_3b": {
        **MULTIMODAL,
        "dtype": "bfloat16",
        "quantization_config": FP8,
        "text_config": {
            **TEXT,
            "model_type": "ministral3",
            "rope_parameters": {**YARN, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5},
            "tie_word_embeddings": True,
        },
    },
    # Devstral 2 123B, and the text of Medium 3.5: YaRN sharpens the softmax.
    "devstral_2": {
        "architectures": ["Ministral3ForCausalLM"],
        **TEXT,
        **IDS,
        "dtype": "bfloat16",
        "model_type": "ministral3",
        "pad_token_id": 11,
        "quantization_config": FP8,
        "rope_parameters": {**YARN, "mscale_all_dim": 0.0, "llama_4_scaling_beta": 0},
        "tie_word_embeddings": False,
    },
    "yarn_mistral": {
        "architectures": ["MistralForCausalLM"],
        "auto_map": {"AutoModelForCausalLM": "modeling_mistral_yarn.MistralForCausalLM"},
        **TEXT,
        **IDS,
        "max_sequence_length": 96,
        "max_position_embeddings": 48,
        "model_type": "mistral",
        "rope_scaling": {
            "factor": 8.0,
            "finetuned": True,
            "original_max_position_embeddings": ORIGINAL,
            "type": "yarn",
        },
        "rope_theta": 10000.0,
        "sliding_window": 40,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
    # e5-mistral: neither "model." in the names nor an output.
    "encoder": {
        "architectures": ["MistralModel"],
        **TEXT,
        **IDS,
        "model_type": "mistral",
        "rope_theta": 10000.0,
        "sliding_window": 9,
        "tie_word_embeddings": False,
        "torch_dtype": "float32",
    },
    "reward": {
        "architectures": ["MistralForSequenceClassification"],
        **TEXT,
        **IDS,
        "id2label": {"0": "LABEL_0"},
        "label2id": {"LABEL_0": 0},
        "model_type": "mistral",
        "pad_token_id": 2,
        "rope_theta": 10000.0,
        "sliding_window": 9,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    },
}
PLAIN = {
    "architectures": ["MistralForCausalLM"],
    **TEXT,
    **IDS,
    "model_type": "mistral",
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
}
CONFIGS |= {
    "fp8_blocks": {**PLAIN, "quantization_config": {**FP8, "weight_block_size": [4, 8]}},
    "int8_channels": {
        **PLAIN,
        "quantization_config": groups("int", "channel", "int-quantized"),
    },
    "fp8_channels": {
        **PLAIN,
        "quantization_config": groups("float", "channel", "float-quantized"),
    },
}
NATIVE = {"ministral_8b", "ministral_3_3b", "devstral_2"}  # in Mistral's own format too


def text_of(config: dict) -> dict:
    """The part of a config that is about text."""
    return config.get("text_config", config)


def arguments_of(config: dict) -> dict:
    """The sizes by the names of `golden.random_weights`."""
    text = text_of(config)
    return {
        "vocabulary_size": text["vocab_size"],
        "num_layers": text["num_hidden_layers"],
        "num_query_heads": text["num_attention_heads"],
        "hidden_dim": text["hidden_size"],
        "intermediate_dim": text["intermediate_size"],
        "num_key_value_heads": text["num_key_value_heads"],
        "head_dim": text["head_dim"],
        "tie_word_embeddings": text.get("tie_word_embeddings", False),
    }


def weights_of(name: str) -> dict[str, np.ndarray]:
    """The weights of a case, by the golden files' names; norms apart, numbers of bfloat16."""
    arguments = arguments_of(CONFIGS[name])
    gains = {"embeddings": 0.3} if arguments["tie_word_embeddings"] else None
    return golden.random_weights(arguments, list(CONFIGS).index(name) + 100, gains)


def make(name: str) -> np.ndarray:
    """Writes one checkpoint, and returns what transformers computes from it."""
    import torch
    import transformers

    folder, config = FOLDER / name, CONFIGS[name]
    tied = arguments_of(config)["tie_word_embeddings"]
    unquantized = {**config, "quantization_config": None, "tie_word_embeddings": tied}
    cls = getattr(transformers, config["architectures"][0])
    torch.manual_seed(0)  # of what is no decoder
    model = cls(cls.config_class.from_dict(unquantized)).eval()
    decoder = getattr(model, "model", model)
    decoder = getattr(decoder, "language_model", decoder)
    head = getattr(model, "lm_head", None)
    tied = SimpleNamespace(tie_word_embeddings=tied or head is None)
    shell = SimpleNamespace(model=decoder, lm_head=head, config=tied)
    weights = weights_of(name)
    with torch.no_grad():
        for key, parameter in peers._transformers_parameters(shell).items():
            parameter.copy_(torch.from_numpy(peers._transposed(key, weights[key]).copy()))
    model.to(torch.float32 if config.get("torch_dtype") == "float32" else torch.bfloat16)
    model.save_pretrained(folder)
    if name == "ministral_3_3b":  # whose names are those of a later version
        rewrite(folder, later_names)
    if "quantization_config" in config:
        rewrite(folder, lambda tensors: quantized(tensors, config["quantization_config"]))
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if name in NATIVE:
        make_native(name)
    more = {}
    if config.get("quantization_config", {}).get("quant_method") == "compressed-tensors":
        more["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    loaded = cls.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **more)
    loaded = loaded.eval().float()  # what was not quantized still has the dtype of the file
    with torch.no_grad():
        if head is None:
            decoder = getattr(loaded, "model", loaded)
            return decoder(torch.from_numpy(TOKEN_IDS)).last_hidden_state.numpy()
        return loaded(torch.from_numpy(TOKEN_IDS)).logits.numpy()


def rewrite(folder: Path, change) -> None:
    """Writes the tensors of a checkpoint again, after a change."""
    from safetensors.torch import load_file, save_file

    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def later_names(tensors: dict) -> dict:
    """The names that transformers has in its models since 4.52, and Mistral in its files."""
    return {
        name.replace("language_model.model.", "model.language_model.")
        .replace("vision_tower.", "model.vision_tower.")
        .replace("multi_modal_projector.", "model.multi_modal_projector."): tensor
        for name, tensor in tensors.items()
    }


def quantized(tensors: dict, config: dict) -> dict:
    """The matrices of the blocks as eight bits and scales, in the layout that a config says."""
    import torch

    found = {}
    for name, tensor in tensors.items():
        if not re.search(r"(?<!vision_tower\.transformer\.)layers\.\d+\.(self_attn|mlp)\.", name):
            found[name] = tensor
            continue
        numbers, scale = eight_bits(tensor, config)
        stem = name.removesuffix("weight")
        if config["quant_method"] == "fp8":
            found |= {name: numbers, stem + "weight_scale_inv": scale}
            if config["weight_block_size"] is None:
                found[stem + "activation_scale"] = torch.tensor(0.25, dtype=torch.bfloat16)
        else:
            found |= {name: numbers, stem + "weight_scale": scale}
    return found


def eight_bits(tensor, config: dict) -> tuple:
    """Numbers of eight bits, and what to multiply them with."""
    import torch

    tensor, block = tensor.float(), config.get("weight_block_size")
    if block is not None:
        rows, columns = tensor.shape
        parts = tensor.reshape(rows // block[0], block[0], columns // block[1], block[1])
        largest = parts.abs().amax((1, 3))
    elif config["quant_method"] == "fp8":
        largest = tensor.abs().max()
    else:
        largest = tensor.abs().amax(1, keepdim=True)
    integers = config.get("format") == "int-quantized"
    # In float32: transformers rounds what it makes of the numbers to the dtype of the scales.
    whole = scale = largest / (127 if integers else 448)
    if block is not None:
        whole = whole.repeat_interleave(block[0], 0).repeat_interleave(block[1], 1)
    if integers:
        return (tensor / whole).round().clamp(-128, 127).to(torch.int8), scale
    return (tensor / whole).clamp(-448, 448).to(torch.float8_e4m3fn), scale


NATIVE_NAMES = {
    r"^(model\.language_model|model)\.": "",
    r"^embed_tokens": "tok_embeddings",
    r"^lm_head": "output",
    "self_attn": "attention",
    r"\b([qkvo])_proj": r"w\1",
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
    r"mlp\.gate_proj": "feed_forward.w1",
    r"mlp\.down_proj": "feed_forward.w2",
    r"mlp\.up_proj": "feed_forward.w3",
    "weight_scale_inv": "qscale_weight",
    "activation_scale": "qscale_act",
    r"^vision_tower": "vision_encoder",
    r"^multi_modal_projector\.linear_1": "vision_language_adapter.w_in",
    r"^multi_modal_projector\.linear_2": "vision_language_adapter.w_out",
    r"^multi_modal_projector\.norm": "pre_mm_projector_norm",
    r"^multi_modal_projector\.patch_merger": "patch_merger",
}


def make_native(name: str) -> None:
    """Writes the same checkpoint in Mistral's own format: its names, its order of rotary pairs."""
    from safetensors.torch import load_file, save_file

    text = text_of(CONFIGS[name])
    heads = {"q_proj": text["num_attention_heads"], "k_proj": text["num_key_value_heads"]}
    tensors = {}
    for key, tensor in load_file(FOLDER / name / "model.safetensors").items():
        count = heads.get(key.split(".")[-2])
        if count and "vision" not in key and key.endswith(".weight"):
            rows = np.arange(len(tensor)).reshape(count, 2, -1).swapaxes(1, 2).ravel()
            tensor = tensor[rows]  # rows p and p + h / 2 of a head become 2p and 2p + 1
        for pattern, replacement in NATIVE_NAMES.items():
            key = re.sub(pattern, replacement, key)
        tensors[key] = tensor
    if "quantization_config" in CONFIGS[name]:
        import torch

        for kind in ("kv", "q"):  # of activations, as some files have them
            key = f"layers.0.attention.{kind}_fake_quantizer.qscale_act"
            tensors[key] = torch.tensor(0.5, dtype=torch.bfloat16)
    folder = FOLDER / f"{name}_native"
    folder.mkdir()
    save_file(tensors, folder / "consolidated.safetensors")
    rope = text.get("rope_parameters", text)
    params = {
        "dim": text["hidden_size"],
        "n_layers": text["num_hidden_layers"],
        "head_dim": text["head_dim"],
        "hidden_dim": text["intermediate_size"],
        "n_heads": text["num_attention_heads"],
        "n_kv_heads": text["num_key_value_heads"],
        "rope_theta": rope["rope_theta"],
        "norm_eps": text["rms_norm_eps"],
        "vocab_size": text["vocab_size"],
    }
    params |= NATIVE_PARAMS[name]
    (folder / "params.json").write_text(json.dumps(params, indent=2) + "\n")


NATIVE_FP8 = {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"}
NATIVE_YARN = {"original_max_position_embeddings": ORIGINAL, "factor": 8, "beta": 4, "alpha": 1}
NATIVE_PARAMS = {
    "ministral_8b": {"_sliding_window": [None, 7, 7, 7], "max_seq_len": 96},
    "ministral_3_3b": {
        "tied_embeddings": True,
        "max_position_embeddings": 96,
        "q_lora_rank": None,
        "qk_rope_head_dim": None,
        "qk_nope_head_dim": None,
        "kv_lora_rank": None,
        "v_head_dim": None,
        "quantization": NATIVE_FP8,
        "llama_4_scaling": {"original_max_position_embeddings": ORIGINAL, "beta": 0.5},
        "yarn": {**NATIVE_YARN, "apply_scale": False},
        "vision_encoder": {
            "image_token_id": 10,
            "image_break_token_id": 12,
            "image_end_token_id": 13,
            "intermediate_size": 8,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "mm_projector_id": "patch_merge",
            "spatial_merge_size": 2,
            "hidden_size": 8,
            "num_channels": 3,
            "image_size": 28,
            "max_image_size": 28,
            "patch_size": 14,
            "rope_theta": 10000.0,
            "add_pre_mm_projector_layer_norm": True,
            "adapter_bias": False,
        },
    },
    "devstral_2": {
        "tied_embeddings": False,
        "max_position_embeddings": 96,
        "quantization": NATIVE_FP8,
        "yarn": {**NATIVE_YARN, "apply_scale": True},
    },
}


def main() -> None:
    """Writes every checkpoint, and the logits of all: of models without an output, the states.

    Of every second position, to keep the file small.
    """
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir()
    logits = {name: make(name) for name in CONFIGS}
    np.savez_compressed(FOLDER / "logits.npz", **{n: a[:, KEPT] for n, a in logits.items()})
    for name, array in logits.items():
        print(f"{name:16} up to {np.abs(array).max():.1f}")
    size = sum(file.stat().st_size for file in FOLDER.rglob("*") if file.is_file())
    print(f"{len(CONFIGS)} checkpoints, {size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()

"""From a model to a checkpoint of transformers (chapter 17, "Presets and checkpoints").

Settings that a backbone does not have are written as in Mistral 7B. What a loaded checkpoint said
and the model does not use (chat template, added tokens, context length) is written out again.
"""

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from mistral_lib import lora
from mistral_lib.added_tokens import parse_added_tokens
from mistral_lib.config import MistralConfig
from mistral_lib.presets.checkpoints import is_transposed
from mistral_lib.presets.fast_tokenizer import describe_tekken, describe_tokenizer
from mistral_lib.presets.json_files import write_json
from mistral_lib.presets.preset import TRANSFORMERS
from mistral_lib.presets.progress import progress_bar
from mistral_lib.presets.rope_config import LENGTH, QUERY_FACTOR, write_rope
from mistral_lib.presets.safetensors_files import in_file_order, write_tensors
from mistral_lib.presets.saving import preset_folder, shard_bytes
from mistral_lib.presets.tensors import Place, owner_of
from mistral_lib.presets.tokenizer_files import (
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
    FAST_TOKENIZER_FILE,
    TEKKEN,
    TEKKEN_FILE,
    VOCABULARY_FILES,
)
from mistral_lib.presets.tokenizer_files import CONFIG_FILE as TOKENIZER_FILE
from mistral_lib.presets.transformers_config import ARGUMENTS
from mistral_lib.presets.transformers_format import CONFIG_FILE, GENERATION_FILE
from mistral_lib.settings import CONTEXT_LENGTH

SHARD_FILE = "model-{:05}-of-{:05}.safetensors"
# What may remain of another model, and would be read in place of this one.
STALE_FILES = ("model*.safetensors", TRANSFORMERS.index_file, "pytorch_model*.bin*")
STALE_TOKENIZER_FILES = (
    ADDED_TOKENS_FILE,
    CHAT_TEMPLATE_FILE,
    TEKKEN_FILE,
    VOCABULARY_FILES[0],
)
CHECKPOINT_FILES = {CONFIG_FILE, GENERATION_FILE, TOKENIZER_FILE}


def export_backbone(backbone: Any, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes config and weights: see `MistralBackbone.export_to_transformers`."""
    with _checkpoint_folder(folder, STALE_FILES) as new:
        _write_backbone(backbone, new, max_shard_size, {})


def export_causal_lm(model: Any, folder: str | Path, max_shard_size: float | None = 10) -> None:
    """Writes backbone and tokenizer: see `MistralCausalLM.export_to_transformers`."""
    tokenizer = None if model.preprocessor is None else model.preprocessor.tokenizer
    stale = STALE_FILES if tokenizer is None else (*STALE_FILES, *STALE_TOKENIZER_FILES)
    with _checkpoint_folder(folder, stale) as new:
        _write_backbone(model.backbone, new, max_shard_size, _special_ids(model, tokenizer))
        if tokenizer is not None:
            _write_tokenizer(tokenizer, new)


def export_tokenizer(tokenizer: Any, folder: str | Path) -> None:
    """Writes a tokenizer: see `MistralTokenizer.export_to_transformers`."""
    with _checkpoint_folder(folder, STALE_TOKENIZER_FILES) as new:
        _write_tokenizer(tokenizer, new)


def _checkpoint_folder(folder: str | Path, stale: tuple[str, ...]) -> AbstractContextManager[Path]:
    return preset_folder(folder, TRANSFORMERS, CHECKPOINT_FILES, stale)


def _write_backbone(
    backbone: Any, new: Path, max_shard_size: float | None, ids: dict[str, Any]
) -> None:
    _check_exportable(backbone)
    _write_weights(backbone, new, shard_bytes(max_shard_size))
    write_json(new / CONFIG_FILE, {**_describe(backbone), **ids})
    write_json(new / GENERATION_FILE, {"_from_model_config": True, **ids})


def _check_exportable(backbone: Any) -> None:
    """Refuses what transformers' Mistral does not have."""
    if lora.settings(backbone) is not None:
        raise ValueError(
            "This backbone has LoRA, which a checkpoint of transformers cannot hold. Call "
            "merge_lora() first; or export the adapter with export_lora_to_peft, and the base "
            "model that it was trained on."
        )
    quantized = [
        layer.path
        for layer in (backbone.token_embedding, *lora.projections(backbone).values())
        if layer.quantization_mode is not None
    ]
    if quantized:
        raise ValueError(
            f"This backbone is quantized ({quantized[0]}), which a checkpoint of transformers "
            "cannot hold. Export the float model."
        )
    _kind(backbone.config)


def _special_ids(model: Any, tokenizer: Any) -> dict[str, Any]:
    """The ids that begin and end a text, as far as the model knows them."""
    starts = [] if tokenizer is None else [tokenizer.start_token_id]
    ends = [] if tokenizer is None else [tokenizer.end_token_id]
    ends = list(dict.fromkeys([*ends, *model.end_token_ids]))
    entries = {"bos_token_id": starts, "eos_token_id": ends}
    return {name: ids if len(ids) > 1 else ids[0] for name, ids in entries.items() if ids}


def _kind(config: MistralConfig) -> str:
    """The oldest type of transformers that computes this model: most programs can read that.

    Raises:
        ValueError: none does.
    """
    windows = config.sliding_window if isinstance(config.sliding_window, tuple) else ()
    scales_queries = bool(config.rope_scaling and config.rope_scaling.llama_4_scaling_beta)
    if len(set(windows) - {None}) > 1 or (windows and scales_queries):
        raise ValueError(
            f"The layers of this backbone have the windows {config.sliding_window!r:.80}"
            f"{f' and {QUERY_FACTOR}' if scales_queries else ''}, but in transformers a layer "
            "either has the one window or none, and only models with one window for all scale "
            "queries. Save it with save_to_preset."
        )
    return "ministral3" if scales_queries else "ministral" if windows else "mistral"


def _describe(backbone: Any) -> dict[str, Any]:
    """A backbone for config.json."""
    kind = _kind(backbone.config)
    config = {there: getattr(backbone, name) for name, (there, _) in ARGUMENTS.items()}
    if kind == "ministral":
        windows = config["sliding_window"]
        config["layer_types"] = [
            "full_attention" if window is None else "sliding_attention" for window in windows
        ]
        config["sliding_window"] = next(filter(None, windows))
    return {
        "architectures": [f"{kind.capitalize()}ForCausalLM"],
        "model_type": kind,
        **config,
        LENGTH: backbone.context_length or CONTEXT_LENGTH,
        **write_rope(backbone.config, kind),
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "torch_dtype": backbone.variable_dtype,
        "use_cache": True,
    }


def _write_tokenizer(tokenizer: Any, new: Path) -> None:
    extras, added = tokenizer.extras, parse_added_tokens(tokenizer.extras.get("added_tokens"))
    prefix = extras.get("prefix")
    if tokenizer.kind == TEKKEN:
        write_json(new / FAST_TOKENIZER_FILE, describe_tekken(tokenizer.vocabulary, added))
        if not added:  # it has no place for them, and transformers would read it first
            (new / TEKKEN_FILE).write_bytes(tokenizer.vocabulary.to_json())
    else:
        write_json(new / FAST_TOKENIZER_FILE, describe_tokenizer(tokenizer.proto, added, prefix))
        (new / VOCABULARY_FILES[0]).write_bytes(tokenizer.proto)
    if added:
        write_json(new / ADDED_TOKENS_FILE, {token.content: token.id for token in added})
    content = {
        "tokenizer_class": "PreTrainedTokenizerFast"
        if tokenizer.kind == TEKKEN
        else "LlamaTokenizer",
        "bos_token": tokenizer.start_token,
        "eos_token": tokenizer.end_token,
        "unk_token": tokenizer.id_to_token(tokenizer.unk_token_id),
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": bool(added) and prefix is None,
    }
    content |= extras.get("special_tokens", {})
    if "chat_template" in extras:
        content["chat_template"] = extras["chat_template"]
    write_json(new / TOKENIZER_FILE, content)


def _write_weights(backbone: Any, new: Path, limit: float) -> None:
    """Writes one file, or shards with an index if the weights are larger than `limit` bytes."""
    dtype = str(jnp.dtype(backbone.variable_dtype))
    shards = _split(TRANSFORMERS.places(backbone.config), jnp.dtype(dtype).itemsize, limit)
    names = [SHARD_FILE.format(index + 1, len(shards)) for index in range(len(shards))]
    if len(shards) == 1:
        names = list(TRANSFORMERS.weight_files)
    total, weight_map = backbone.config.count_params() * jnp.dtype(dtype).itemsize, {}
    with progress_bar("Exporting weights", total) as progress:
        for name, shard in zip(names, shards, strict=True):
            tensors = {place.name: (place.shape, dtype) for place in shard}
            write_tensors(new / name, tensors, _arrays(backbone, shard, progress))
            weight_map |= dict.fromkeys(tensors, name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        write_json(new / TRANSFORMERS.index_file, index)


def _split(places: Iterable[Place], itemsize: int, limit: float) -> list[list[Place]]:
    """The places in shards of at most `limit` bytes, or of a single larger tensor."""
    shards, held = [[]], 0
    for place in places:
        num_bytes = math.prod(place.shape) * itemsize
        if shards[-1] and held + num_bytes > limit:
            shards.append([])
            held = 0
        shards[-1].append(place)
        held += num_bytes
    return shards


def _arrays(backbone: Any, places: Iterable[Place], progress: tqdm) -> Iterator[np.ndarray]:
    """The tensors of a shard in the file's order, one at a time."""
    for place in places:
        array = np.asarray(getattr(*owner_of(backbone, place.variable)).value)
        yield in_file_order(array, is_transposed(place.variable))
        progress.update(array.nbytes)

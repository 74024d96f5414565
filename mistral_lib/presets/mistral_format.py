"""Checkpoints as Mistral publishes them (chapter 17, "Presets and checkpoints").

A checkpoint in this format is a folder of

    params.json                sizes
    consolidated.safetensors   the weights; or consolidated.safetensors.index.json and its shards
    tokenizer.model            SentencePiece's vocabulary; or tokenizer.model.v3

The rotary positions turn features 2p and 2p + 1 of a head together, where the other formats turn
p and p + h/2: the rows of the query and key kernels are put into the other order while reading.

Source: the package mistral-inference 1.6, `args.py`, `transformer.py`, `rope.py`.
"""

from mistral_lib.presets.checkpoints import Naming, read_checkpoint
from mistral_lib.presets.json_files import read_json
from mistral_lib.presets.safetensors_files import SafeTensor
from mistral_lib.presets.transformers_format import (  # the tokenizer's files are the same
    PREPROCESSOR_FILE,
    TOKENIZER_FILE,
    find_vocabulary,
    read_preprocessor_config,
    read_task,
    read_tokenizer_config,
)

__all__ = [
    "PREPROCESSOR_FILE",
    "TOKENIZER_FILE",
    "find_vocabulary",
    "read_preprocessor_config",
    "read_task",
    "read_tokenizer_config",
]

CONFIG_FILE = "params.json"
NAMING = Naming(
    weights=("consolidated.safetensors", "consolidated.00.safetensors"),
    index="consolidated.safetensors.index.json",
    pickled=("consolidated.pth", "consolidated.00.pth"),
    tensors={
        "token_embedding.embeddings": "tok_embeddings.weight",
        "transformer_layer_{}.self_attention_layernorm.scale": "layers.{}.attention_norm.weight",
        "transformer_layer_{}.self_attention.query.kernel": "layers.{}.attention.wq.weight",
        "transformer_layer_{}.self_attention.key.kernel": "layers.{}.attention.wk.weight",
        "transformer_layer_{}.self_attention.value.kernel": "layers.{}.attention.wv.weight",
        "transformer_layer_{}.self_attention.attention_output.kernel": (
            "layers.{}.attention.wo.weight"
        ),
        "transformer_layer_{}.feedforward_layernorm.scale": "layers.{}.ffn_norm.weight",
        "transformer_layer_{}.feedforward.gate.kernel": "layers.{}.feed_forward.w1.weight",
        "transformer_layer_{}.feedforward.up.kernel": "layers.{}.feed_forward.w3.weight",
        "transformer_layer_{}.feedforward.down.kernel": "layers.{}.feed_forward.w2.weight",
        "sequence_output_layernorm.scale": "norm.weight",
        "token_embedding.reverse_embeddings": "output.weight",
    },
)

# Argument here: its name there. All of them must be there but the last two.
ARGUMENTS = {
    "vocabulary_size": "vocab_size",
    "num_layers": "n_layers",
    "num_query_heads": "n_heads",
    "hidden_dim": "dim",
    "intermediate_dim": "hidden_dim",
    "num_key_value_heads": "n_kv_heads",
    "layer_norm_epsilon": "norm_eps",
    "head_dim": "head_dim",
    "tie_word_embeddings": "tied_embeddings",
}
OPTIONAL = {"head_dim": None, "tied_embeddings": False}
WINDOWS = ("sliding_window", "_sliding_window")
# What says nothing about the numbers; `model_type` only if it is "transformer".
IGNORED = {"max_batch_size", "max_seq_len", "max_position_embeddings", "model_type"}


def read_config(folder) -> dict:
    """The constructor arguments in a checkpoint's params.json, under their names here.

    Without `rope_theta` the base wavelength is 10,000 where there is a sliding window and 1,000,000
    where there is none, as in Mistral's own first program. Later programs take either for all; then
    version 0.1, which has a window and no `rope_theta`, or the versions after it, come out wrong.

    Args:
        folder: a source of files (see `mistral_lib.presets.sources`).

    Raises:
        ValueError: a size is missing, or the model has parts that this one does not have.
    """
    file = folder.get(CONFIG_FILE)
    content = {name: value for name, value in read_json(file).items() if value is not None}
    known = {*ARGUMENTS.values(), *WINDOWS, *IGNORED, "rope_theta"}
    unknown = sorted(set(content) - known)
    if unknown or content.get("model_type", "transformer") != "transformer":
        name = unknown[0] if unknown else "model_type"
        raise ValueError(
            f"{file} has {name} = {content[name]!r:.80}, which Mistral 7B does not have and which "
            f"is not known here. Known are {', '.join(sorted(known))}."
        )
    missing = sorted(set(ARGUMENTS.values()) - set(OPTIONAL) - set(content))
    if missing:
        raise ValueError(f"{file} has no {missing[0]}. Get it again from its source.")
    config = {name: content.get(there, OPTIONAL.get(there)) for name, there in ARGUMENTS.items()}
    window = _read_window(file, content)
    default = 1e6 if window is None else 1e4
    return {
        **config,
        "sliding_window": window,
        "rope_max_wavelength": content.get("rope_theta", default),
    }


def _read_window(file, content):
    """The sliding window, which some files have as text."""
    window = next((content[name] for name in WINDOWS if name in content), None)
    if isinstance(window, list):
        raise ValueError(
            f"{file}: sliding_window is {window!r:.80}, but here all layers have one window."
        )
    return int(window) if isinstance(window, str) and window.isdecimal() else window


def read_dtype(folder) -> str:
    """The dtype of the weights. The params do not say; what Mistral publishes is bfloat16."""
    return "bfloat16"


def read_tensors(folder, backbone, num_layers: int) -> dict[str, SafeTensor]:
    """The tensors of a checkpoint: see `mistral_lib.presets.checkpoints.read_checkpoint`."""
    tensors = read_checkpoint(folder, NAMING, backbone, num_layers)
    heads = {
        "query.kernel": backbone.num_query_heads,
        "key.kernel": backbone.num_key_value_heads,
    }
    return {
        name: tensor.arranged(tensor.transposed, heads.get(".".join(name.split(".")[-2:])))
        for name, tensor in tensors.items()
    }

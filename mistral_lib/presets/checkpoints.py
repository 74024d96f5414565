"""Weights as PyTorch lays them out, in safetensors (chapter 17, "Presets and checkpoints").

Transformers and Mistral write the same tensors by other names. A kernel is (outputs, inputs) there
and (inputs, outputs) here. Pickled weights are refused: to read them is to run the code in them.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mistral_lib.presets.json_files import read_json
from mistral_lib.presets.safetensors_files import SafeTensor, list_tensors
from mistral_lib.presets.sources import LocalFolder, Source

# Axes of each variable in the file: V vocabulary, D hidden, F intermediate, and Q and K all query
# and key-value heads. "{}" is the number of a block.
AXES = {
    "token_embedding.embeddings": "VD",
    "transformer_layer_{}.self_attention_layernorm.scale": "D",
    "transformer_layer_{}.self_attention.query.kernel": "QD",
    "transformer_layer_{}.self_attention.key.kernel": "KD",
    "transformer_layer_{}.self_attention.value.kernel": "KD",
    "transformer_layer_{}.self_attention.attention_output.kernel": "DQ",
    "transformer_layer_{}.feedforward_layernorm.scale": "D",
    "transformer_layer_{}.feedforward.gate.kernel": "FD",
    "transformer_layer_{}.feedforward.up.kernel": "FD",
    "transformer_layer_{}.feedforward.down.kernel": "DF",
    "sequence_output_layernorm.scale": "D",
    "token_embedding.reverse_embeddings": "VD",
}
OUTPUT = "token_embedding.reverse_embeddings"


@dataclass(frozen=True)
class Place:
    """Where a checkpoint keeps a variable.

    Attributes:
        variable: its name here: the layer of the backbone, then attributes, joined by dots.
        name: of the tensor in the file.
        shape: of the tensor in the file.
        transposed: whether rows and columns are exchanged between here and there.
    """

    variable: str
    name: str
    shape: tuple[int, ...]
    transposed: bool


@dataclass(frozen=True)
class Naming:
    """The names of a format.

    Attributes:
        weights: file names of unsharded weights.
        index: file name of the index of shards.
        pickled: file names of the pickled weights that a folder may hold instead.
        tensors: the name of each variable of `AXES` in the file.
    """

    weights: tuple[str, ...]
    index: str
    pickled: tuple[str, ...]
    tensors: dict[str, str]


def layout(backbone, num_layers: int, names: dict[str, str]) -> Iterator[Place]:
    """The places of all variables of a backbone, from the embedding to the output.

    Args:
        backbone: a `MistralBackbone`; only its sizes are looked at, and one block's suffice.
        num_layers: number of blocks in the file.
        names: as in `Naming.tensors`.
    """
    sizes = {
        "V": backbone.vocabulary_size,
        "D": backbone.hidden_dim,
        "F": backbone.intermediate_dim,
        "Q": backbone.num_query_heads * backbone.head_dim,
        "K": backbone.num_key_value_heads * backbone.head_dim,
    }

    def place(variable, block=0):
        shape = tuple(sizes[axis] for axis in AXES[variable])
        transposed = variable.endswith("kernel") or variable == OUTPUT
        return Place(variable.format(block), names[variable].format(block), shape, transposed)

    yield place("token_embedding.embeddings")
    for block in range(num_layers):
        yield from (place(variable, block) for variable in AXES if "{}" in variable)
    yield place("sequence_output_layernorm.scale")
    if not backbone.tie_word_embeddings:
        yield place(OUTPUT)


def read_checkpoint(
    folder: Source, naming: Naming, backbone, num_layers: int
) -> dict[str, SafeTensor]:
    """The tensors of a checkpoint by their names here, not yet read, all of the right shape.

    Raises:
        FileNotFoundError: no weights, or a shard is missing.
        ValueError: a tensor is missing, unexpected or of another shape than the config says, or
            the weights are pickled.
    """
    where, stored = _list_weights(folder, naming)
    tensors = {}
    for place in layout(backbone, num_layers, naming.tensors):
        if place.name not in stored:
            raise ValueError(
                f"{where} has no tensor {place.name!r}, which the config asks for. It may belong "
                "to another config, or be a model without the output of a language model."
            )
        tensor = stored.pop(place.name)
        if tensor.shape != place.shape:
            raise ValueError(
                f"{tensor.file}: {place.name!r} has the shape {tensor.shape}, but the config asks "
                f"for {place.shape}. Config and weights belong to different models."
            )
        tensors[place.variable] = tensor.arranged(place.transposed)
    if backbone.tie_word_embeddings and naming.tensors[OUTPUT] in stored:
        _check_tied(tensors["token_embedding.embeddings"], stored.pop(naming.tensors[OUTPUT]))
    for name in sorted(stored):
        # Old checkpoints hold the rotary frequencies, which follow from the config.
        if not name.endswith(".rotary_emb.inv_freq"):
            raise ValueError(
                f"{stored[name].file}: {name!r} has no place in the model that the config "
                "describes. Config and weights belong to different models."
            )
    return tensors


def _check_tied(embeddings, output):
    """Refuses an output that the config calls a copy of the embedding and that is none."""
    same = (embeddings.shape, embeddings.dtype) == (output.shape, output.dtype)
    if not (same and np.array_equal(*(t.read().view("uint8") for t in (embeddings, output)))):
        raise ValueError(
            f"{output.file}: the config ties the output to the embedding, but {output.name!r} is "
            "not the embedding. Set tie_word_embeddings to false in the config if both are meant."
        )


def _list_weights(folder, naming):
    """The file that names the weights, and every tensor by its name."""
    for name in naming.weights:
        file = folder.find(name)
        if file is not None:
            return file, list_tensors(file)
    index = folder.find(naming.index)
    if index is not None:
        return index, _list_shards(folder, index)
    message = (
        f"{folder} has no weights in safetensors: neither {' nor '.join(naming.weights)} nor "
        f"{naming.index}. Pickled weights such as {naming.pickled[0]} are not read. Pass "
        "load_weights=False for a model with random weights."
    )
    if isinstance(folder, LocalFolder):  # on a hub, to ask for a file is to download it
        for name in filter(folder.find, naming.pickled):
            raise ValueError(
                f"{folder}/{name} is pickled, and pickled weights are never read, since reading "
                f"them runs the code in them. {message}"
            )
    raise FileNotFoundError(message)


def _list_shards(folder, index: Path):
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise ValueError(f"{index} has no object 'weight_map' that names the shards.")
    for name in weight_map.values():
        if not (isinstance(name, str) and re.fullmatch(r"\w[\w.-]*\.safetensors", name)):
            raise ValueError(
                f"{index} names the shard {name!r}, which is not the name of a .safetensors file "
                "in its own folder."
            )
    stored = {}
    for shard in sorted(set(weight_map.values())):
        for name, tensor in list_tensors(folder.get(shard)).items():
            if weight_map.get(name) != shard:
                raise ValueError(
                    f"{tensor.file} holds {name!r}, but {index.name} says that it is in "
                    f"{weight_map.get(name)}. The files belong to different models."
                )
            stored[name] = tensor
    return stored

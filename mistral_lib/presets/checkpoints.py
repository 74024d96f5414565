"""Weights as PyTorch lays them out, in safetensors (chapter 17, "Presets and checkpoints").

Transformers and Mistral write the same tensors under different names. A kernel is (outputs, inputs)
there and (inputs, outputs) here. Pickled weights are refused: reading them runs the code in them.
Weights of parts that are not used here, such as a vision encoder, are skipped with a warning.
"""

import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np

from mistral_lib.config import EMBEDDINGS, OUTPUT, MistralConfig
from mistral_lib.presets.dequantizing import Quantization, ScaledTensor, scaled
from mistral_lib.presets.safetensors_files import SafeTensor, list_tensors
from mistral_lib.presets.sources import LocalFolder, Source
from mistral_lib.presets.tensors import Messages, Place, list_shards, match

MESSAGES = Messages(
    missing="{where} has no tensor {name!r}, which the config asks for. It may belong to another "
    "config, or be a model without the output of a language model.",
    unexpected="{file}: {name!r} has no place in the model that the config describes. Config and "
    "weights belong to different models.",
)


class Checkpoint:
    """The weights of a checkpoint. A subclass says what they are called.

    Attributes:
        weight_files: names of a file that holds all weights.
        index_file: name of the index of shards.
        pickled_files: names of the pickled weights that a folder may hold instead.
        names: of each weight in `config.WEIGHTS` the tensor's name.
        pairs_are_neighbours: whether the two features of a rotary pair are side by side in a head,
            and not half a head apart.
    """

    weight_files: ClassVar[tuple[str, ...]]
    index_file: ClassVar[str]
    pickled_files: ClassVar[tuple[str, ...]]
    names: ClassVar[dict[str, str]]
    pairs_are_neighbours: ClassVar[bool] = False

    def places(self, config: MistralConfig) -> Iterator[Place]:
        """Where the files keep each weight of a model, from the embedding to the output."""
        for weight in config.weights():
            shape = weight.shape[::-1] if is_transposed(weight.name) else weight.shape
            name = self.names[weight.pattern].format(weight.block)
            yield Place(weight.name, name, shape, pattern=weight.pattern)

    def read_tensors(
        self, source: Source, config: MistralConfig, quantization: str | None = None
    ) -> dict[str, SafeTensor | ScaledTensor]:
        """The weights, not yet read: see `mistral_lib.presets.formats.Format`."""
        where, listed = self._list(source)
        # Old checkpoints hold the rotary frequencies, which follow from the config.
        listed = {n: t for n, t in listed.items() if not n.endswith(".rotary_emb.inv_freq")}
        own = self._own(source, listed, where)
        stored = scaled(own, self.read_weight_quantization(source))
        output = stored.pop(self.names[OUTPUT], None) if config.tie_word_embeddings else None
        tensors = match(self.places(config), stored, where, MESSAGES)
        if output is not None:
            _check_tied(tensors[EMBEDDINGS], output)
        heads = {}
        if self.pairs_are_neighbours:
            heads = {"query": config.num_query_heads, "key": config.num_key_value_heads}
        return {
            variable: tensor.arranged(is_transposed(variable), heads.get(variable.split(".")[-2]))
            for variable, tensor in tensors.items()
        }

    def read_weight_quantization(self, source: Source) -> Quantization | None:
        """How the weights in the files are quantized, if they are."""
        raise NotImplementedError

    def other_parts(self, source: Source) -> dict[str, str]:
        """Patterns of the names of tensors outside the decoder, and what such tensors are."""
        raise NotImplementedError

    def canonical(self, name: str) -> str:
        """The name that `names` uses for a tensor, whichever it has in a file."""
        return name

    def _own(
        self, source: Source, listed: dict[str, SafeTensor], where: Path
    ) -> dict[str, SafeTensor]:
        """The tensors of the decoder by their canonical names; a warning names all others."""
        own, parts, skipped = {}, self.other_parts(source), {}
        for stored_name, tensor in listed.items():
            name = self.canonical(stored_name)
            part = next((p for pattern, p in parts.items() if re.match(pattern, name)), None)
            if part is not None:
                skipped.setdefault(part, []).append(stored_name)
            elif name in own:
                raise ValueError(
                    f"{where}: {own[name].name!r} and {stored_name!r} are two names of one weight. "
                    "The file is a mixture of two formats: get it again from its source."
                )
            else:
                own[name] = tensor
        if skipped:
            parts = [
                f"{part} ({len(n)} tensors, such as {min(n)!r})" for part, n in skipped.items()
            ]
            warnings.warn(
                f"{where}: only the decoder for text is read; skipped {' and '.join(parts)}.",
                stacklevel=2,
            )
        return own

    def _list(self, source: Source) -> tuple[Path, dict[str, SafeTensor]]:
        """The file that names the weights, and every tensor by its name."""
        for name in self.weight_files:
            file = source.find(name)
            if file is not None:
                return file, list_tensors(file)
        index = source.find(self.index_file)
        if index is not None:
            return index, list_shards(source, self.index_file, ".safetensors", list_tensors)
        message = (
            f"{source} has no weights in safetensors: neither {' nor '.join(self.weight_files)} "
            f"nor {self.index_file}. Pickled weights such as {self.pickled_files[0]} are not read. "
            "Pass load_weights=False for a model with random weights."
        )
        if isinstance(source, LocalFolder):  # on a hub, to ask for a file is to download it
            for name in filter(source.find, self.pickled_files):
                what = "names pickled files" if name.endswith(".json") else "is pickled"
                raise ValueError(
                    f"{source}/{name} {what}, and pickled weights are never read, since "
                    f"reading them runs the code in them. {message}"
                )
        raise source.missing(message)


def is_transposed(variable: str) -> bool:
    """Whether rows and columns are exchanged between here and there.

    >>> is_transposed("transformer_layer_0.feedforward.up.kernel"), is_transposed(EMBEDDINGS)
    (True, False)
    """
    return variable.endswith(".kernel") or variable == OUTPUT


def _check_tied(embeddings: SafeTensor | ScaledTensor, output: SafeTensor | ScaledTensor) -> None:
    """Refuses an output that the config calls a copy of the embedding and that is none."""
    same = (embeddings.shape, embeddings.dtype) == (output.shape, output.dtype)
    if not (same and np.array_equal(embeddings.read().view("uint8"), output.read().view("uint8"))):
        raise ValueError(
            f"{output.file}: the config ties the output to the embedding, but {output.name!r} is "
            "not the embedding. Set tie_word_embeddings to false in the config if both are meant."
        )

"""One opened preset: its files and what they mean (chapter 17, "Presets and checkpoints").

A preset is opened once for all that is loaded from it. So all of it has one source, which on a hub
is one commit of a model; its format is decided once, and each of its JSON files is read once.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from mistral_lib.checks import check_boolean, check_name
from mistral_lib.config import MistralConfig, check_names
from mistral_lib.presets import keras_format, peft_config
from mistral_lib.presets.addresses import open_source
from mistral_lib.presets.formats import Format
from mistral_lib.presets.gguf_files import read_gguf
from mistral_lib.presets.gguf_format import GgufFormat
from mistral_lib.presets.keras_format import ADAPTER_FILE, KerasFormat, is_saved_here
from mistral_lib.presets.mistral_format import MistralFormat
from mistral_lib.presets.sources import OneFile, Source
from mistral_lib.presets.tensors import Tensor
from mistral_lib.presets.tokenizer_files import (
    FAST_TOKENIZER_FILE,
    TEKKEN_FILE,
    VOCABULARY_FILES,
)
from mistral_lib.presets.transformers_format import TransformersFormat
from mistral_lib.quantization import check_dtype, quantization_of

KERAS, TRANSFORMERS, MISTRAL = KerasFormat(), TransformersFormat(), MistralFormat()
FORMATS: dict[str, Format] = {form.name: form for form in (KERAS, TRANSFORMERS, MISTRAL)}


def format_of(source: Source) -> Format:
    """The format that a preset's files have, told by what stands in them.

    Returns:
        One of `FORMATS`, or a `GgufFormat` that has read its file. Where nothing decides,
        KerasHub's, whose messages say what is missing.

    >>> format_of(open_source("mistral_tiny_en")).name
    'KerasHub'
    """
    if isinstance(source, OneFile):
        return GgufFormat(read_gguf(source.get(source.name)))
    if source.find(TRANSFORMERS.config_file) is not None:
        content = source.json(TRANSFORMERS.config_file)
        from_transformers = "model_type" in content and "registered_name" not in content
        return TRANSFORMERS if from_transformers else KERAS
    if source.find(MISTRAL.config_file) is not None:
        return MISTRAL
    name = _only_gguf(source)
    if name is not None:
        return GgufFormat(read_gguf(source.get(name)))
    # A folder with a tokenizer alone.
    names = (TRANSFORMERS.tokenizer_file, *VOCABULARY_FILES, TEKKEN_FILE)
    if any(source.find(name) is not None for name in names):
        return TRANSFORMERS
    # Both have a tokenizer.json; in KerasHub's the vocabulary is another file.
    if source.find(FAST_TOKENIZER_FILE) is None:
        return KERAS
    files = (keras_format.VOCABULARY_FILE, keras_format.TEKKEN_VOCABULARY_FILE)
    return KERAS if any(source.find(file) is not None for file in files) else TRANSFORMERS


def _only_gguf(source: Source) -> str | None:
    """The one GGUF file of a preset, besides vision encoders; `None` if there is none."""
    names = [name for name in source.gguf_files() if not name.startswith("mmproj")]
    if len(names) > 1:
        raise ValueError(
            f"{source} holds {len(names)} GGUF files: {', '.join(names[:20])}. Name one of them, "
            f"such as {source.locate(names[0])!r}."
        )
    return names[0] if names else None


@dataclass(frozen=True)
class Preset:
    """A preset that has been opened.

    Attributes:
        source: where its files come from.
        format: what they mean.

    >>> preset = Preset.open("mistral_tiny_en")
    >>> preset.format.name, preset.config.num_layers, preset.quantization
    ('KerasHub', 6, None)
    """

    source: Source
    format: Format

    @classmethod
    def open(cls, preset: str | Path) -> "Preset":
        """Opens what a name, an address or a folder means: see `open_source`."""
        source = open_source(preset)
        return cls(source, format_of(source))

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """Constructor arguments of the backbone, as they stand in the files."""
        if self.source.find(self.format.config_file) is None:
            self._refuse_adapter()
        return self.format.read_arguments(self.source)

    def _refuse_adapter(self) -> None:
        """Says what to do with a folder in which there is a PEFT adapter, and no model."""
        adapter = self.source.find(peft_config.CONFIG_FILE)
        if adapter is not None:
            base = self.source.json(adapter.name).get("base_model_name_or_path")
            raise FileNotFoundError(
                f"{self} is a PEFT adapter, not a model. Load the model on which it was trained"
                f"{f' ({base!r:.80})' if base else ''}, and then call "
                f"load_lora_weights({str(self)!r}) on its backbone."
            )

    @cached_property
    def config(self) -> MistralConfig:
        """The architecture, after a look at all arguments.

        Raises:
            FileNotFoundError: there is no config.
            ValueError: another model's preset, or an argument that `MistralBackbone` would refuse.
        """
        arguments = self.arguments
        with self.errors_naming(self.format.config_file):
            check_names(arguments)
            check_name("name", arguments.get("name"))
            check_boolean("trainable", arguments.get("trainable", True))
            if "dtype" in arguments:
                check_dtype(arguments["dtype"])
            return MistralConfig.from_arguments(arguments)

    @property
    def quantization(self) -> str | None:
        """How the weights in the files are quantized: "int8", "int4/128", or `None`."""
        return quantization_of(self.arguments["dtype"]) if "dtype" in self.arguments else None

    @property
    def dtype(self) -> str:
        """The dtype of the weights in the files, as the config has it."""
        return self.format.read_dtype(self.source)

    @property
    def context_length(self) -> int | None:
        """For how many tokens the model was made, if the config says it."""
        length = self.format.read_context_length(self.source)
        return length if type(length) is int and length > 0 else None

    @property
    def adapter(self) -> Path | None:
        """The file of a LoRA adapter that was saved with the backbone."""
        try:
            return self.source.find(ADAPTER_FILE)
        except ConnectionError:  # which is no reason to fail where there is none
            if self.format is KERAS and is_saved_here(self.source):
                raise
            return None

    def tensors(self) -> Mapping[str, Tensor]:
        """The weights, not yet read: see `Format.read_tensors`."""
        return self.format.read_tensors(self.source, self.config, self.quantization)

    @contextlib.contextmanager
    def errors_naming(self, file: str) -> Iterator[None]:
        """Has the error for a refused argument say in which file it stands."""
        try:
            yield
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.source.locate(file)}: {error}") from error

    def __str__(self):
        return str(self.source)

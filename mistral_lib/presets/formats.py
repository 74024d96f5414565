"""What the library asks of a preset format (chapter 17, "Presets and checkpoints").

KerasHub, transformers and Mistral write the same model into different files, under different names.
A `Format` answers the same questions about each: `keras_format`, `transformers_format` and
`mistral_format` have one each, and `preset` finds out which one a preset has.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from mistral_lib.config import MistralConfig
from mistral_lib.presets.sources import Source
from mistral_lib.presets.tensors import Tensor
from mistral_lib.presets.tokenizer_files import TokenizerFiles


@dataclass(frozen=True)
class Task:
    """What a preset says of a causal language model, beside its parts.

    Attributes:
        name: of the model; `None` where the preset has none.
        end_token_ids: ids that end a text.
        takes_text: whether there is a vocabulary.
        writes_text: whether there is an output for tokens, which encoders and classifiers lack.
    """

    name: str | None
    end_token_ids: tuple[int, ...]
    takes_text: bool
    writes_text: bool = True


class Format(Protocol):
    """What a preset's files mean.

    Attributes:
        name: of the format, for people.
        config_file, tokenizer_file, preprocessor_file: where the arguments of each part stand.
    """

    name: str
    config_file: str
    tokenizer_file: str
    preprocessor_file: str

    def read_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the backbone, as they stand in the config.

        A `dtype` is among them if the weights are quantized.

        Raises:
            FileNotFoundError: there is no config.
            ValueError: another model's preset, or a Mistral with parts that this one does not have.
        """
        ...

    def read_dtype(self, source: Source) -> str:
        """The dtype of the float weights, as the config has it."""
        ...

    def read_tensors(
        self, source: Source, config: MistralConfig, quantization: str | None
    ) -> Mapping[str, Tensor]:
        """The weights by their names here, not yet read, all of the right shape.

        Args:
            source: the preset.
            config: what the preset's arguments say.
            quantization: of the weights in the files.

        Raises:
            FileNotFoundError: no weights, or a shard is missing.
            ValueError: a tensor is missing, unexpected or of another shape than the config says, or
                a file is damaged, or runs code when it is read.
        """
        ...

    def read_task(self, source: Source) -> Task:
        """Arguments of the causal language model, and whether it takes text."""
        ...

    def find_tokenizer(self, source: Source) -> TokenizerFiles:
        """Which tokenizer there is, and what it is made of.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is of a kind that is not known here.
        """
        ...

    def read_context_length(self, source: Source) -> Any:
        """For how many tokens the model was made, as the preset has it, unchecked; or `None`."""
        ...

    def read_preprocessor_arguments(self, source: Source) -> dict[str, Any]:
        """Constructor arguments of the preprocessor, without its tokenizer."""
        ...

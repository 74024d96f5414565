"""Text as training batches and as prompts (chapter 2, "Tokens").

Training cuts and pads every text to one length, so that a batch is a rectangle, and shifts it by
one for the labels. Generation does neither: a prompt keeps its length.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mistral_lib.checks import check_boolean, check_integer
from mistral_lib.inputs import as_dictionary, as_texts
from mistral_lib.pipelines import in_graph, run_in_graph
from mistral_lib.presets.loading import load_preprocessor
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.saving import save_preprocessor
from mistral_lib.tokenizer import TOKENIZERS
from mistral_lib.tokenizer_base import Tokenizer


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralCausalLMPreprocessor:
    """Turns text into what a `MistralCausalLM` trains on and generates from.

    Called on text, it packs `<s>`, the text and `</s>` into `sequence_length + 1` ids, padded on
    the right with 0, and returns all but the last as input and all but the first as labels. A text
    that is too long is cut at its end to make room for `</s>`. The outputs equal KerasHub's.

    Args:
        tokenizer: a `MistralTokenizer` or `MistralTekkenTokenizer`. Its own `add_bos` and `add_eos`
            play no part here.
        sequence_length: number of ids S in a row of the input, at least 1.
        add_start_token: whether a row and a prompt begin with `<s>`.
        add_end_token: whether a row ends with `</s>`; a prompt never does.

    Raises:
        TypeError, ValueError: an argument of another type, or a length below 1.

    >>> import io, sentencepiece
    >>> model = io.BytesIO()
    >>> sentencepiece.SentencePieceTrainer.train(
    ...     sentence_iterator=iter(["a b c"]),
    ...     model_writer=model,
    ...     minloglevel=2,
    ...     vocab_size=12,
    ...     model_type="word",
    ...     hard_vocab_limit=False,
    ... )
    >>> from mistral_lib import MistralTokenizer
    >>> preprocessor = MistralCausalLMPreprocessor(MistralTokenizer(model.getvalue()), 5)
    >>> x, y, sample_weight = preprocessor(["a b", "a b c a b c"])
    >>> print(x["token_ids"])
    [[1 3 4 2 0]
     [1 3 4 5 3]]
    >>> print(y)
    [[3 4 2 0 0]
     [3 4 5 3 2]]
    >>> print(sample_weight.astype(int))
    [[1 1 1 0 0]
     [1 1 1 1 1]]
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sequence_length: int = 1024,
        add_start_token: bool = True,
        add_end_token: bool = True,
    ):
        if not isinstance(tokenizer, Tokenizer):
            raise TypeError(
                "MistralCausalLMPreprocessor: tokenizer must be a MistralTokenizer or a "
                "MistralTekkenTokenizer, got "
                f"{type(tokenizer).__name__}."
            )
        self.tokenizer = tokenizer
        self.sequence_length = check_integer("sequence_length", sequence_length)
        self.add_start_token = check_boolean("add_start_token", add_start_token)
        self.add_end_token = check_boolean("add_end_token", add_end_token)

    def __call__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        sequence_length: int | None = None,
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Training input, labels and weights of texts.

        Give it to `map` of a `tf.data.Dataset` or a `grain` dataset, before or after `batch`; in a
        graph of TensorFlow the arrays are tensors.

        Args:
            x: a str, or a list, tuple or array of B of them.
            y: must be None: the labels are made here. (A `tf.data.Dataset` of texts and labels may
                be mapped; there is a warning that its labels are not used.)
            sample_weight: must be None, likewise.
            sequence_length: S for this call; `None` takes the constructor's.

        Returns:
            `x`, a dict of `token_ids`, int32 (B, S), and `padding_mask`, bool (B, S), true on
            tokens; `y`, int32 (B, S), the id that follows each; `sample_weight`, bool (B, S), true
            where `y` is a token. For a single str the arrays are (S,).

        Raises:
            TypeError: `x` is not text.
            ValueError: `y` or `sample_weight` is given, or the length is below 1.
        """
        for name, given in (("y", y), ("sample_weight", sample_weight)):
            if given is not None and in_graph(x):
                warnings.warn(
                    f"MistralCausalLMPreprocessor makes {name} from x; what the dataset holds is "
                    "not used.",
                    stacklevel=2,
                )
            elif given is not None:
                raise ValueError(
                    f"MistralCausalLMPreprocessor makes {name} from x: leave {name} out. For "
                    "labels of your own, train on arrays with preprocessor=None."
                )
        length = self._length(sequence_length) + 1

        def packed(x):
            texts, batched = as_texts(x)
            ids, mask = self._pack(texts, length)  # (B, S + 1)
            return (ids, mask) if batched else (ids[0], mask[0])

        if in_graph(x):
            shape = [*x.shape, length]
            ids, mask = run_in_graph(packed, x, [shape, shape], ["int32", "bool"])
        else:
            ids, mask = packed(x)
        inputs = {"token_ids": ids[..., :-1], "padding_mask": mask[..., :-1]}
        return inputs, ids[..., 1:], mask[..., 1:]

    def _pack(self, texts: list[str], length: int) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int32, and their mask, bool, both (B, length): start, text, end and padding."""
        start = [self.tokenizer.start_token_id] if self.add_start_token else []
        end = [self.tokenizer.end_token_id] if self.add_end_token else []
        ids = np.full((len(texts), length), self.tokenizer.pad_token_id, "int32")
        mask = np.zeros((len(texts), length), "bool")
        room = length - len(start) - len(end)
        for row, tokens in enumerate(self.tokenizer.encode(texts, add_bos=False, add_eos=False)):
            tokens = start + tokens[:room] + end
            ids[row, : len(tokens)] = tokens
            mask[row, : len(tokens)] = True
        return ids, mask

    def prompt_ids(self, x: str | Sequence[str]) -> list[list[int]]:
        """The ids of prompts: `<s>` and the text, neither padded nor cut.

        Args:
            x: a str, or a list, tuple or array of B of them.

        Returns:
            B lists of ids; one list in a list for a single str.

        Raises:
            TypeError: `x` is not text.
        """
        texts, _ = as_texts(x)
        return self.tokenizer.encode(texts, add_bos=self.add_start_token, add_eos=False)

    def generate_preprocess(
        self, x: Any, sequence_length: int | None = None
    ) -> dict[str, np.ndarray]:
        """Prompts as `generate` takes them: `<s>` and the text, padded to one length.

        Args:
            x: a str, or a list, tuple or array of B of them.
            sequence_length: S for this call; `None` takes the constructor's.

        Returns:
            `token_ids`, int32 (B, S), and `padding_mask`, bool (B, S), true on tokens. For a single
            str the arrays are (S,).

        Raises:
            TypeError: `x` is not text.
            ValueError: a prompt is longer than S.
        """
        if in_graph(x):
            shape = [*x.shape, self._length(sequence_length)]

            def padded(x):
                arrays = self.generate_preprocess(x, sequence_length)
                return arrays["token_ids"], arrays["padding_mask"]

            ids, mask = run_in_graph(padded, x, [shape, shape], ["int32", "bool"])
            return {"token_ids": ids, "padding_mask": mask}
        _, batched = as_texts(x)
        rows, length = self.prompt_ids(x), self._length(sequence_length)
        longest = max(map(len, rows), default=0)
        if longest > length:
            raise ValueError(
                f"A prompt has {longest} ids, and sequence_length allows {length}. Prompts are "
                "never cut: shorten it or allow more."
            )
        arrays = as_dictionary(rows, length)
        return arrays if batched else {name: array[0] for name, array in arrays.items()}

    def generate_postprocess(self, x: Any) -> str | list[str]:
        """The texts of ids, without control tokens and padding.

        Args:
            x: a dictionary of `token_ids` and `padding_mask`, as `generate` returns it, of one row
                (S,) or of a batch (B, S); or B lists of ids; or an integer array (B, S).

        Returns:
            B texts; one text for a dictionary of one row.

        Raises:
            TypeError, ValueError: as `MistralTokenizer.decode`.
        """
        if not isinstance(x, dict):
            return [self.tokenizer.decode(row) for row in x]
        ids, mask = np.asarray(x["token_ids"]), np.asarray(x["padding_mask"], bool)
        rows = [row[real].tolist() for row, real in zip(np.atleast_2d(ids), np.atleast_2d(mask))]
        texts = self.tokenizer.decode(rows)
        return texts if ids.ndim > 1 else texts[0]

    def _length(self, sequence_length: int | None) -> int:
        """S of a call."""
        given = self.sequence_length if sequence_length is None else sequence_length
        return check_integer("sequence_length", given)

    @classmethod
    def from_preset(cls, preset: str | Path, **kwargs: Any) -> "MistralCausalLMPreprocessor":
        """The preprocessor of a preset.

        Args:
            preset: a name, address or folder, as for `MistralBackbone.from_preset`.
            **kwargs: constructor arguments that replace the preset's, such as `sequence_length`.

        Raises:
            FileNotFoundError: no such folder, or a preset without a vocabulary.
            TypeError, ValueError: an argument of another name, type or range.
        """
        return load_preprocessor(cls, TOKENIZERS, Preset.open(preset), **kwargs)

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Saves the preprocessor and its tokenizer into a preset's folder."""
        save_preprocessor(self, preset_dir)

    def get_config(self) -> dict:
        """The constructor's arguments, the tokenizer serialized by Keras."""
        return {
            "tokenizer": keras.saving.serialize_keras_object(self.tokenizer),
            "sequence_length": self.sequence_length,
            "add_start_token": self.add_start_token,
            "add_end_token": self.add_end_token,
        }

    @classmethod
    def from_config(cls, config: dict) -> "MistralCausalLMPreprocessor":
        """A preprocessor from `get_config()`; `tokenizer` may also be a MistralTokenizer."""
        config = dict(config)
        if isinstance(config.get("tokenizer"), dict):
            config["tokenizer"] = keras.saving.deserialize_keras_object(config["tokenizer"])
        return cls(**config)

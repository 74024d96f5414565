"""A language model: logits for the next token (chapter 1, "One token")."""

from collections.abc import Iterator

import jax
import keras

from mistral_lib.backbone import MistralBackbone
from mistral_lib.checks import check_choice, check_integer, standardize_inputs
from mistral_lib.generation.decoding import DecodingLoop
from mistral_lib.generation.prompts import (
    Prompts,
    is_text,
    new_token_limits,
    read_prompts,
    row_seeds,
)
from mistral_lib.generation.sampling import make_sampler
from mistral_lib.generation.text import StreamDecoder
from mistral_lib.presets.registry import PresetTable

TOKENS_PER_PIECE = 4


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralCausalLM(keras.Model):
    """The backbone and its output projection: float32 logits of the next token at every position.

    Compiled on construction with Adam and cross-entropy, so that `fit` works at once; call
    `compile` for other settings.

    Args:
        backbone: a `MistralBackbone`.
        preprocessor: a `MistralCausalLMPreprocessor`, with which `fit`, `evaluate`, `predict` and
            `generate` take text; `None` for token ids only.
        **kwargs: `name` and `trainable`.

    Call arguments:
        inputs: as `MistralBackbone`.

    Returns:
        Logits (B, S, V), float32 whatever the dtype policy.

    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> model = MistralCausalLM(backbone)
    >>> model({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]}).shape
    (1, 3, 10)
    """

    presets = PresetTable()

    def __init__(self, backbone: MistralBackbone, preprocessor=None, **kwargs):
        if not isinstance(backbone, MistralBackbone):
            raise TypeError(f"backbone must be a MistralBackbone, but is {backbone!r}.")
        super().__init__(
            inputs=backbone.input,
            outputs=backbone.token_embedding(backbone(backbone.input), reverse=True),
            **kwargs,
        )
        # By its name Keras decides in `compile` whether the loss needs scaling (mixed_float16).
        self.dtype_policy = backbone.dtype_policy
        self.backbone = backbone
        self.preprocessor = preprocessor
        self._decoding = DecodingLoop(backbone)
        self.compile(
            optimizer=keras.optimizers.Adam(2e-5),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )

    def __call__(self, inputs, *args, **kwargs):
        inputs = standardize_inputs(inputs, self.backbone.vocabulary_size)
        return super().__call__(inputs, *args, **kwargs)

    def fit(self, x=None, y=None, *args, validation_data=None, **kwargs):
        """Keras's `fit`, on text too: a list of str becomes inputs, labels and weights."""
        if self._is_text(x):
            x, y, kwargs["sample_weight"] = self.preprocessor(x, y, kwargs.get("sample_weight"))
        if self._is_text(validation_data):
            validation_data = self.preprocessor(validation_data)
        return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """Keras's `evaluate`, on text too."""
        if self._is_text(x):
            x, y, kwargs["sample_weight"] = self.preprocessor(x, y, kwargs.get("sample_weight"))
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        """Keras's `predict`, on text too: logits (B, S, V) of the packed texts."""
        if self._is_text(x):
            x = self.preprocessor([x] if isinstance(x, str) else x)[0]
        x = standardize_inputs(x, self.backbone.vocabulary_size)
        return super().predict(x, *args, **kwargs)

    def _is_text(self, x) -> bool:
        return self.preprocessor is not None and is_text(x)

    def generate(
        self,
        inputs,
        max_length: int | None = None,
        stop_token_ids="auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed=0,
    ):
        """Continues prompts, with a rolling cache and a loop that is compiled once.

        Args:
            inputs: a text, a list of texts, a list of token ids, a list of such lists (of different
                lengths), or a dictionary of `token_ids` and `padding_mask` padded on the right.
            max_length: the most tokens of prompt and continuation together; by default, without
                `max_new_tokens`, the preprocessor's `sequence_length`.
            stop_token_ids: ids that end a continuation and are its last token; "auto" is the
                tokenizer's end token, if there is a tokenizer; `None` stops at nothing.
            strip_prompt: whether to return the continuations alone.
            max_new_tokens: the most tokens of the continuation.
            temperature: 0 takes the likeliest token; above 0, tokens are drawn from
                `softmax(logits / temperature)`.
            top_k: draw among the k likeliest tokens.
            top_p: draw among the likeliest tokens that together reach this probability.
            seed: an integer s gives the rows the seeds s, s + 1, ...; a list, one for each row. A
                row with its seed gets the same tokens alone and in any batch.

        Returns:
            What was put in, continued: text for text, ids for ids.

        Raises:
            ValueError: an empty prompt, an id outside the vocabulary, a prompt that fills
                `max_length`, a parameter out of range.
            TypeError: an input or parameter of the wrong type.

        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> len(model.generate([1, 2, 3], max_new_tokens=5))
        8
        """
        prompts, state, run = self._start(
            inputs, max_length, stop_token_ids, max_new_tokens, temperature, top_k, top_p, seed
        )
        new = _new_tokens(run(state))
        if prompts.is_text:
            return prompts.restore(
                [
                    self._text(prompt, tokens, strip_prompt)
                    for prompt, tokens in zip(prompts.rows, new, strict=True)
                ]
            )
        if strip_prompt:
            return prompts.restore(new)
        return prompts.restore([p + tokens for p, tokens in zip(prompts.rows, new, strict=True)])

    def stream(
        self,
        inputs,
        max_length: int | None = None,
        stop_token_ids="auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed=0,
    ) -> Iterator[str]:
        """Continues one text and yields it in pieces while it is written.

        Takes the arguments of `generate` and runs the same loop, a few tokens at a time: the pieces
        joined are what `generate` returns. No piece splits a character. Without `strip_prompt` the
        first piece is the prompt.

        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> model.stream([1, 2, 3], max_new_tokens=5)
        Traceback (most recent call last):
        TypeError: stream writes one text, but got a list. generate takes batches and token ids.
        """
        if not isinstance(inputs, str):
            raise TypeError(
                f"stream writes one text, but got a {type(inputs).__name__}. generate takes "
                "batches and token ids."
            )
        prompts, state, run = self._start(
            inputs, max_length, stop_token_ids, max_new_tokens, temperature, top_k, top_p, seed
        )
        return self._pieces(prompts.rows[0], state, run, strip_prompt)

    def _pieces(self, prompt, state, run, strip_prompt):
        tokenizer = self.preprocessor.tokenizer
        if not strip_prompt:
            yield tokenizer.decode(prompt)
        decoder = StreamDecoder(tokenizer, prompt)
        told = 0
        while True:
            tokens = _new_tokens(state)[0]
            if piece := decoder.push(tokens[told:]):
                yield piece
            told = len(tokens)
            if state.finished.all():
                break
            state = run(state, steps=TOKENS_PER_PIECE)
        if piece := decoder.flush():
            yield piece

    def _text(self, prompt, tokens, strip_prompt) -> str:
        tokenizer = self.preprocessor.tokenizer
        if not strip_prompt:
            return tokenizer.decode(prompt + tokens)
        decoder = StreamDecoder(tokenizer, prompt)
        return decoder.push(tokens) + decoder.flush()

    def _start(
        self, inputs, max_length, stop_token_ids, max_new_tokens, temperature, top_k, top_p, seed
    ) -> tuple[Prompts, object, object]:
        """Checked prompts, the state after the first token, and the function that goes on."""
        sampler = make_sampler(temperature, top_k, top_p)
        prompts = read_prompts(inputs, self.preprocessor, self.backbone.vocabulary_size)
        if max_length is None and max_new_tokens is None and self.preprocessor is not None:
            max_length = self.preprocessor.sequence_length
        limits = new_token_limits(prompts.rows, max_length, max_new_tokens)
        if isinstance(stop_token_ids, str):
            check_choice("stop_token_ids", stop_token_ids, ("auto",))
            stop_token_ids = ()
            if self.preprocessor is not None:
                stop_token_ids = (self.preprocessor.tokenizer.end_token_id,)
        stop = tuple(check_integer("a stop token id", t, minimum=0) for t in stop_token_ids or ())
        state = self._decoding.start(
            prompts.rows, limits, row_seeds(seed, len(prompts.rows)), sampler, stop
        )

        def run(state, steps=None):
            return self._decoding.run(state, sampler, stop, steps)

        return prompts, state, run

    @classmethod
    def from_preset(cls, preset, load_weights: bool = True, **kwargs) -> "MistralCausalLM":
        """A model with the backbone, vocabulary and preprocessor of a preset.

        Args:
            preset: a name of `presets`, or the folder of a preset (a str or a path).
            load_weights: whether to load the weights; otherwise they are random.
            **kwargs: `preprocessor`, to take another than the preset's, `name`, `trainable`, and
                the arguments of `MistralBackbone.from_preset`.

        Raises: as `MistralBackbone.from_preset`.
        """
        from mistral_lib.presets.loading import load_causal_lm

        return load_causal_lm(cls, preset, load_weights, **kwargs)

    def save_to_preset(self, preset_dir, max_shard_size: float | None = 10) -> None:
        """Saves everything as a preset: see `MistralBackbone.save_to_preset`."""
        from mistral_lib.presets.saving import save_causal_lm

        save_causal_lm(self, preset_dir, max_shard_size)

    def get_config(self):
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)


def _new_tokens(state) -> list[list[int]]:
    tokens, counts = jax.device_get((state.tokens, state.counts))
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]

"""What a language model writes: `generate` and `stream` (chapter 16, "Sampling")."""

from collections.abc import Iterator

import jax
import keras

from mistral_lib.chat import is_conversation
from mistral_lib.checks import check_choice, check_integer
from mistral_lib.generation.prompts import Prompts, new_token_limits, read_prompts, row_seeds
from mistral_lib.generation.sampling import make_sampler
from mistral_lib.generation.text import StreamDecoder

TOKENS_PER_PIECE = 4


class TextGeneration(keras.Model):
    """The base of `MistralCausalLM` that writes text, so that training and writing stand apart.

    Attributes:
        backbone: the `MistralBackbone`.
        preprocessor: the `MistralCausalLMPreprocessor`, or `None`.
        end_token_ids: ids besides the tokenizer's end token that end a continuation.
    """

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
                lengths), or a dictionary of `token_ids` and `padding_mask` padded on the right; or
                a conversation, a list of messages as `MistralTokenizer.apply_chat_template` takes
                it, or a list of conversations.
            max_length: the most tokens of prompt and continuation together; by default, without
                `max_new_tokens`, the preprocessor's `sequence_length`.
            stop_token_ids: ids that end a continuation and are its last token; "auto" is the
                tokenizer's end token, if there is a tokenizer, and the model's `end_token_ids`;
                `None` stops at nothing.
            strip_prompt: whether to return the continuations alone.
            max_new_tokens: the most tokens of the continuation.
            temperature: 0 takes the likeliest token; above 0, tokens are drawn from
                `softmax(logits / temperature)`.
            top_k: draw among the k likeliest tokens.
            top_p: draw among the likeliest tokens that together reach this probability.
            seed: an integer s gives the rows the seeds s, s + 1, ...; a list, one for each row. A
                row with its seed gets the same tokens alone and in any batch.

        Returns:
            What was put in, continued: text for text, ids for ids. For a conversation the reply
            alone, a str to append as `{"role": "assistant", "content": reply}`.

        Raises:
            ValueError: an empty prompt, an id outside the vocabulary, a prompt that fills
                `max_length`, a parameter out of range.
            TypeError: an input or parameter of the wrong type.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
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
                    for prompt, tokens in zip(prompts.shown, new, strict=True)
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
        """Continues one text or conversation and yields it in pieces while it is written.

        Takes the arguments of `generate` and runs the same loop, a few tokens at a time: the pieces
        joined are what `generate` returns. No piece splits a character. Without `strip_prompt` the
        first piece is the prompt; of a conversation, only the reply is written.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> model.stream([1, 2, 3], max_new_tokens=5)
        Traceback (most recent call last):
        TypeError: stream writes one text, but got a list. generate takes batches and token ids.
        """
        if not isinstance(inputs, str) and not is_conversation(inputs):
            raise TypeError(
                f"stream writes one text, but got a {type(inputs).__name__}. generate takes "
                "batches and token ids."
            )
        prompts, state, run = self._start(
            inputs, max_length, stop_token_ids, max_new_tokens, temperature, top_k, top_p, seed
        )
        return self._pieces(prompts.shown[0], state, run, strip_prompt)

    def _pieces(self, prompt, state, run, strip_prompt):
        tokenizer = self.preprocessor.tokenizer
        if prompt and not strip_prompt:
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
            stop_token_ids = self.end_token_ids
            if self.preprocessor is not None:
                stop_token_ids = (self.preprocessor.tokenizer.end_token_id, *self.end_token_ids)
        stop = tuple(check_integer("a stop token id", t, minimum=0) for t in stop_token_ids or ())
        state = self._decoding.start(
            prompts.rows, limits, row_seeds(seed, len(prompts.rows)), sampler, stop
        )

        def run(state, steps=None):
            return self._decoding.run(state, sampler, stop, steps)

        return prompts, state, run


def _new_tokens(state) -> list[list[int]]:
    tokens, counts = jax.device_get((state.tokens, state.counts))
    return [row[:count].tolist() for row, count in zip(tokens, counts, strict=True)]

"""What a language model writes: `generate` and `stream` (chapter 16, "Sampling")."""

import math
import numbers
from collections.abc import Iterator

import keras

from mistral_lib.chat import is_conversation
from mistral_lib.checks import check_boolean, check_choice, check_integer
from mistral_lib.generation.beam import BeamSearch
from mistral_lib.generation.prompts import Prompts, new_token_limits, read_prompts, row_seeds
from mistral_lib.generation.sampling import Sampler, make_sampler
from mistral_lib.generation.speculative import SpeculativeLoop
from mistral_lib.generation.stopping import Transcript, check_stop_strings
from mistral_lib.generation.writing import Job, write

STEPS_PER_PIECE = 4  # between looks at the text: for a piece to stream, and for stop strings


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
        stop_strings=None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed=0,
        num_samples: int | None = None,
        num_beams: int = 1,
        length_penalty: float = 1.0,
        draft_model=None,
        num_draft_tokens: int = 4,
        return_log_probs: bool = False,
        batch_size: int = 32,
        verbose: bool | None = None,
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
            stop_strings: a str or several that end a continuation, wherever the borders of tokens
                are. A text ends in front of them; ids end with the token that completes one. They
                are looked for in the continuation alone.
            temperature: 0 takes the likeliest token; above 0, tokens are drawn from
                `softmax(logits / temperature)`.
            top_k: draw among the k likeliest tokens.
            top_p: draw among the likeliest tokens that together reach this probability.
            min_p: draw among the tokens at least this fraction as probable as the likeliest.
            repetition_penalty: above 1, tokens that prompt or continuation hold already become
                less likely. The steps are applied in the order of transformers: this penalty,
                temperature, top_k, top_p, min_p.
            seed: an integer s gives the rows the seeds s, s + 1, ...; a list, one for each row. A
                row with its seed gets the same tokens alone and in any batch.
            num_samples: how many continuations to draw for each prompt, which is read once. Each
                prompt's result is then a list of them, and each counts as a row.
            num_beams: above 1, searches for the likeliest continuation with so many beams; see
                `mistral_lib.generation.beam.BeamSearch`.
            length_penalty: the score of a finished beam is its log-probability divided by
                `length ** length_penalty`.
            draft_model: a smaller `MistralCausalLM` of the same vocabulary, which proposes tokens
                that this model checks: the same text sooner, if it guesses well. Drawn texts follow
                the same distribution, but are others than without it. See
                `mistral_lib.generation.speculative.SpeculativeLoop`.
            num_draft_tokens: how many tokens it proposes at a time.
            return_log_probs: whether to return the log-probability of every new token as well.
            batch_size: how many rows are written at once.
            verbose: whether to show a progress bar on stderr; `None` shows one on a terminal, for
                several rows that take longer than three seconds.

        Returns:
            What was put in, continued: text for text, ids for ids. For a conversation the reply
            alone, a str to append as `{"role": "assistant", "content": reply}`. With
            `return_log_probs` a pair: this, and for each continuation a list of floats, the model's
            own log-probabilities of its tokens, before temperature and all other steps.

        Raises:
            ValueError: an empty prompt, an id outside the vocabulary, a prompt that fills
                `max_length`, a parameter out of range, parameters that exclude one another, a draft
                model of another vocabulary.
            TypeError: an input or parameter of the wrong type.

        >>> from mistral_lib import MistralBackbone, MistralCausalLM
        >>> model = MistralCausalLM(MistralBackbone(10, 1, 2, 8, 16, 1))
        >>> len(model.generate([1, 2, 3], max_new_tokens=5))
        8
        >>> ids, log_probs = model.generate([1, 2], max_new_tokens=3, return_log_probs=True)
        >>> len(ids), len(log_probs)
        (5, 3)
        """
        sampler = make_sampler(temperature, top_k, top_p, min_p, repetition_penalty)
        samples = _check_samples(num_samples, sampler)
        strings = check_stop_strings(stop_strings)
        prompts = read_prompts(inputs, self.preprocessor, self.backbone.vocabulary_size)
        if _check_beams(num_beams, length_penalty, sampler, num_samples, strings, draft_model):
            loop = self._decoding.other(BeamSearch)
            options = {"num_beams": num_beams, "length_penalty": float(length_penalty)}
        else:
            loop, options = self._loop(draft_model, num_draft_tokens), {}
        job = Job(
            loop=loop,
            prompts=prompts.rows,
            limits=self._limits(prompts, max_length, max_new_tokens),
            seeds=row_seeds(seed, len(prompts.rows) * samples),
            sampler=sampler,
            stop_tokens=self._stop_tokens(stop_token_ids),
            num_samples=samples,
            log_probs=check_boolean("return_log_probs", return_log_probs),
            options=options,
        )
        check_integer("batch_size", batch_size)
        transcripts = self._transcripts(prompts, samples, strings)
        done = write(job, transcripts, batch_size, verbose, STEPS_PER_PIECE if strings else 0)
        results = self._results(prompts, samples, done, strip_prompt)
        log_probs = [each.log_probs for each in done]
        if num_samples is not None and not isinstance(inputs, dict):
            results, log_probs = (
                [rows[i : i + samples] for i in range(0, len(rows), samples)]
                for rows in (results, log_probs)
            )
        if not return_log_probs:
            return prompts.restore(results)
        if isinstance(inputs, dict):
            return prompts.restore(results), log_probs
        return prompts.restore(results), prompts.restore(log_probs)

    def stream(
        self,
        inputs,
        max_length: int | None = None,
        stop_token_ids="auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop_strings=None,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed=0,
        draft_model=None,
        num_draft_tokens: int = 4,
    ) -> Iterator[str]:
        """Continues one text or conversation and yields it in pieces while it is written.

        Takes the arguments of `generate` and runs the same loop, a few tokens at a time: the pieces
        joined are what `generate` returns. No piece splits a character or shows a part of a stop
        string. Without `strip_prompt` the first piece is the prompt; of a conversation, only the
        reply is written.

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
        prompts = read_prompts(inputs, self.preprocessor, self.backbone.vocabulary_size)
        job = Job(
            loop=self._loop(draft_model, num_draft_tokens),
            prompts=prompts.rows,
            limits=self._limits(prompts, max_length, max_new_tokens),
            seeds=row_seeds(seed, 1),
            sampler=make_sampler(temperature, top_k, top_p, min_p, repetition_penalty),
            stop_tokens=self._stop_tokens(stop_token_ids),
        )
        (transcript,) = self._transcripts(prompts, 1, check_stop_strings(stop_strings))
        return self._pieces([] if strip_prompt else prompts.shown[0], job, transcript)

    def _pieces(self, shown, job, transcript):
        if shown:
            yield self.preprocessor.tokenizer.decode(shown)
        for rows, _ in job.blocks(STEPS_PER_PIECE, [transcript]):
            if piece := transcript.read(rows[0]):
                yield piece
        if piece := transcript.flush():
            yield piece

    def _loop(self, draft_model, num_draft_tokens):
        """The loop that writes: alone, or with a draft model."""
        check_integer("num_draft_tokens", num_draft_tokens)
        if draft_model is None:
            return self._decoding
        if not isinstance(draft_model, TextGeneration):
            raise TypeError(f"draft_model must be a MistralCausalLM, but is {draft_model!r}.")
        sizes = [model.backbone.vocabulary_size for model in (self, draft_model)]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"draft_model has a vocabulary of {sizes[1]} tokens, this model one of {sizes[0]}. "
                "Only a model of the same vocabulary can propose tokens."
            )
        if self.preprocessor is not None and draft_model.preprocessor is not None:
            words = [m.preprocessor.tokenizer.get_vocabulary() for m in (self, draft_model)]
            if words[0] != words[1]:
                index = next(i for i, pair in enumerate(zip(*words)) if pair[0] != pair[1])
                raise ValueError(
                    f"Token {index} is {words[1][index]!r} to draft_model and {words[0][index]!r} "
                    "to this model. Only a model of the same vocabulary can propose tokens."
                )
        return self._decoding.other(SpeculativeLoop, draft_model._decoding, num_draft_tokens)

    def _limits(self, prompts, max_length, max_new_tokens) -> list[int]:
        if max_length is None and max_new_tokens is None and self.preprocessor is not None:
            max_length = self.preprocessor.sequence_length
        return new_token_limits(prompts.rows, max_length, max_new_tokens)

    def _stop_tokens(self, stop_token_ids) -> tuple[int, ...]:
        if isinstance(stop_token_ids, str):
            check_choice("stop_token_ids", stop_token_ids, ("auto",))
            if self.preprocessor is None:
                return self.end_token_ids
            return self.preprocessor.tokenizer.end_token_id, *self.end_token_ids
        return tuple(check_integer("a stop token id", t, minimum=0) for t in stop_token_ids or ())

    def _transcripts(self, prompts: Prompts, samples: int, strings) -> list[Transcript]:
        """One for each row, where its text is wanted or watched."""
        if not prompts.is_text and not strings:
            return []
        if self.preprocessor is None:
            raise ValueError(
                "stop_strings need a tokenizer, and this model has no preprocessor. Pass "
                "stop_token_ids, or build the model with a MistralCausalLMPreprocessor."
            )
        tokenizer = self.preprocessor.tokenizer
        return [
            Transcript(tokenizer, shown, strings) for shown in prompts.shown for _ in range(samples)
        ]

    def _results(self, prompts: Prompts, samples: int, done, strip_prompt) -> list:
        """Text or ids of every row, behind the prompt or alone."""
        results = []
        for index, each in enumerate(done):
            prompt = [] if strip_prompt else prompts.shown[index // samples]
            if not prompts.is_text:
                results.append(prompt + each.tokens)
            elif prompt:
                results.append(self.preprocessor.tokenizer.decode(prompt) + each.text)
            else:
                results.append(each.text)
        return results


def _check_samples(num_samples, sampler: Sampler) -> int:
    if num_samples is None:
        return 1
    if check_integer("num_samples", num_samples) > 1 and sampler.temperature is None:
        raise ValueError(
            f"num_samples is {num_samples}, but a temperature of 0 draws nothing: all would be the "
            "same. Pass a temperature such as 1.0."
        )
    return num_samples


def _check_beams(num_beams, length_penalty, sampler, num_samples, strings, draft_model) -> bool:
    """Whether to search with beams; what does not go with it is refused."""
    if isinstance(length_penalty, bool) or not isinstance(length_penalty, numbers.Real):
        raise TypeError(f"length_penalty must be a number, but is {length_penalty!r}.")
    if not math.isfinite(length_penalty):
        raise ValueError(f"length_penalty must be finite, but is {length_penalty}.")
    if check_integer("num_beams", num_beams) == 1:
        if length_penalty != 1:
            raise ValueError(
                "length_penalty compares finished beams, but num_beams is 1. Pass num_beams."
            )
        return False
    others = {
        "temperature": sampler.temperature,
        "num_samples": num_samples,
        "stop_strings": strings or None,
        "draft_model": draft_model,
    }
    for name, value in others.items():
        if value is not None:
            raise ValueError(
                f"num_beams is {num_beams}, and a beam search knows no {name}: it returns the "
                f"likeliest text that it finds. Leave out one of the two."
            )
    return True

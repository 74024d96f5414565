"""What a language model writes: `generate` and `stream` (chapter 16, "Sampling")."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mistral_lib.backbone import MistralBackbone
from mistral_lib.chat import is_conversation
from mistral_lib.checks import check_integer
from mistral_lib.generation.compiled_sampler import ModelWithSampler
from mistral_lib.generation.jobs import blocks, check_memory, write
from mistral_lib.generation.loops import Loops, check_draft
from mistral_lib.generation.object_loops import WholeLoop, has_own_loop, seeded
from mistral_lib.generation.options import Options, check_length_penalty
from mistral_lib.generation.prompts import (
    Prompts,
    new_token_limits,
    read_prompts,
    results,
    row_seeds,
)
from mistral_lib.generation.protocol import Job, Loop
from mistral_lib.generation.stopping import Transcript
from mistral_lib.preprocessor import MistralCausalLMPreprocessor
from mistral_lib.tokenizer_base import Tokenizer

STEPS_PER_PIECE = 4  # between looks at the text: for a piece to stream, and for stop strings


class TextGeneration(ModelWithSampler):
    """The base of `MistralCausalLM` that writes text, so that training and writing stand apart.

    Attributes:
        backbone: the `MistralBackbone`.
        preprocessor: the `MistralCausalLMPreprocessor`, or `None`.
        end_token_ids: ids besides the tokenizer's end token that end a continuation.
    """

    backbone: MistralBackbone
    preprocessor: MistralCausalLMPreprocessor | None
    end_token_ids: tuple[int, ...]
    _loops: Loops

    def generate(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: str | int | Sequence[int] | None = "auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | Sequence[int] | np.ndarray | None = None,
        num_samples: int | None = None,
        num_beams: int | None = None,
        length_penalty: float | None = None,
        draft_model: "TextGeneration | None" = None,
        num_draft_tokens: int = 4,
        return_log_probs: bool = False,
        batch_size: int = 32,
        verbose: bool | None = None,
    ) -> Any:
        """Continues prompts, with a rolling cache and a loop that is compiled once.

        Args:
            inputs: a text, a list of texts, a list of token ids, a list of such lists (of different
                lengths), or a dictionary of `token_ids` and `padding_mask` padded on the right; or
                a conversation, a list of messages as `MistralTokenizer.apply_chat_template` takes
                it, or a list of conversations.
            max_length: the most tokens of prompt and continuation together; by default, without
                `max_new_tokens`, the preprocessor's `sequence_length`. A dictionary without a limit
                is continued to the width of its arrays, which the arrays of the result have too.
            stop_token_ids: ids that end a continuation and are its last token; "auto" is the
                tokenizer's end token, if there is a tokenizer, and the model's `end_token_ids`;
                `None` stops at nothing.
            strip_prompt: whether to return the continuations alone.
            max_new_tokens: the most tokens of the continuation.
            stop_strings: a str or several that end a continuation, wherever the borders of tokens
                are. A text ends in front of them; ids end with the token that completes one. They
                are looked for in the continuation alone.
            temperature: 0 takes the likeliest token; above 0, tokens are drawn from
                `softmax(logits / temperature)`. This and the arguments down to
                `repetition_penalty`, `num_beams` and `length_penalty` choose tokens: if any of them
                is given, the `sampler` of `compile` is not used, and `temperature` is 0 by default.
            top_k: draw among the k likeliest tokens.
            top_p: draw among the likeliest tokens that together reach this probability.
            min_p: draw among the tokens at least this fraction as probable as the likeliest.
            repetition_penalty: above 1, tokens that prompt or continuation hold already become
                less likely. The steps are applied in the order of transformers: this penalty,
                temperature, top_k, top_p, min_p.
            seed: an integer s gives the rows the seeds s, s + 1, ...; a list, one for each row;
                `None`, new ones at each call, which `keras.utils.set_random_seed` makes repeatable.
                A row with its seed gets the same tokens alone and in any batch (but a sampler
                object with code of its own draws for the whole batch, from one integer).
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
        options = self._options(
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop_token_ids=stop_token_ids,
            stop_strings=stop_strings,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            num_samples=num_samples,
            num_beams=num_beams,
            length_penalty=length_penalty,
            draft_model=draft_model,
            num_draft_tokens=num_draft_tokens,
            log_probs=return_log_probs,
        )
        check_integer("batch_size", batch_size)
        prompts = read_prompts(inputs, self.preprocessor, self.backbone.vocabulary_size)
        loop, job = self._loop(options), self._job(prompts, options, batch_size)
        transcripts = self._transcripts(prompts, options)
        steps = STEPS_PER_PIECE if options.stop_strings else None
        with seeded(options.own_sampler, options.seed):
            done = write(loop, job, transcripts, batch_size, verbose, steps)
        tokenizer = self._tokenizer() if prompts.is_text else None
        return results(prompts, options, done, strip_prompt, tokenizer)

    def stream(
        self,
        inputs: Any,
        max_length: int | None = None,
        stop_token_ids: str | int | Sequence[int] | None = "auto",
        strip_prompt: bool = False,
        *,
        max_new_tokens: int | None = None,
        stop_strings: str | Sequence[str] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float | None = None,
        seed: int | Sequence[int] | np.ndarray | None = None,
        draft_model: "TextGeneration | None" = None,
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
        TypeError: The inputs of stream must be one text or conversation, but are a list. generate
        takes batches and token ids.
        """
        if not isinstance(inputs, str | bytes) and not is_conversation(inputs):
            raise TypeError(
                "The inputs of stream must be one text or conversation, but are a "
                f"{type(inputs).__name__}. generate takes batches and token ids."
            )
        options = self._options(
            max_length=max_length,
            max_new_tokens=max_new_tokens,
            stop_token_ids=stop_token_ids,
            stop_strings=stop_strings,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            seed=seed,
            draft_model=draft_model,
            num_draft_tokens=num_draft_tokens,
        )
        if options.num_beams > 1:
            raise ValueError(
                "stream writes one token after the other, but the sampler of compile is a search "
                "with beams. Pass a temperature, 0 for the likeliest tokens, or use generate."
            )
        prompts = read_prompts(inputs, self.preprocessor, self.backbone.vocabulary_size)
        loop, job = self._loop(options), self._job(prompts, options)
        (transcript,) = self._transcripts(prompts, options)
        shown = [] if strip_prompt else prompts.shown[0]
        return self._pieces(shown, loop, job, transcript, options)

    def _pieces(
        self, shown: list[int], loop: Loop, job: Job, transcript: Transcript, options: Options
    ) -> Iterator[str]:
        if shown:
            yield self._tokenizer().decode(shown)
        with seeded(options.own_sampler, options.seed):
            for block in blocks(loop, job, STEPS_PER_PIECE, [transcript]):
                if piece := transcript.read(block.rows[0]):
                    yield piece
        if piece := transcript.flush():
            yield piece

    def _options(self, **arguments: Any) -> Options:
        self.make_generate_function()  # as in KerasHub it is there after the first call
        by_object = self._is_replaced()
        return Options.of_call(self.backbone.vocabulary_size, self.sampler, by_object, **arguments)

    def _loop(self, options: Options) -> Loop:
        """The loop that writes: alone, with beams, with a draft model, or a sampler's own."""
        if options.own_sampler is not None:
            if self._is_replaced() or has_own_loop(options.own_sampler):
                return WholeLoop(self)
            return self._loops.of_object(options.own_sampler)
        if options.num_beams > 1:
            return self._loops.beam_search
        if options.draft_model is None:
            return self._loops.decoding
        if not isinstance(options.draft_model, TextGeneration):
            raise TypeError(
                f"draft_model must be a MistralCausalLM, but is {options.draft_model!r}."
            )
        check_draft(self, options.draft_model)
        return self._loops.speculative(options.draft_model._loops.reader, options.num_draft_tokens)

    def _job(self, prompts: Prompts, options: Options, batch_size: int = 1) -> Job:
        """What to write, in token ids."""
        if options.has_no_limit and prompts.padded_length is not None:
            limits = prompts.room()
        else:
            max_length = options.max_length
            if options.has_no_limit and self.preprocessor is not None:
                max_length = self.preprocessor.sequence_length
            limits = new_token_limits(prompts.rows, max_length, options.max_new_tokens)
        check_length_penalty(options.length_penalty, max(limits))
        job = Job(
            prompts=prompts.rows,
            limits=limits,
            seeds=[],
            sampler=options.sampler,
            stop_tokens=self._stop_tokens(options),
            num_samples=options.samples,
            num_beams=options.num_beams,
            length_penalty=options.length_penalty,
            log_probs=options.log_probs,
        )
        check_memory(self.backbone, job, batch_size, options.lookahead)
        return dataclasses.replace(job, seeds=row_seeds(options.seed, job.num_rows))

    def _stop_tokens(self, options: Options) -> tuple[int, ...]:
        if options.stop_tokens is not None:
            return options.stop_tokens
        if self.preprocessor is None:
            return self.end_token_ids
        return self.preprocessor.tokenizer.end_token_id, *self.end_token_ids

    def _transcripts(self, prompts: Prompts, options: Options) -> list[Transcript]:
        """One for each row, where its text is wanted or watched."""
        if not prompts.is_text and not options.stop_strings:
            return []
        return [
            Transcript(self._tokenizer(), shown, options.stop_strings)
            for shown in prompts.shown
            for _ in range(options.samples)
        ]

    def _tokenizer(self) -> Tokenizer:
        """The tokenizer of a model that reads and writes text."""
        if self.preprocessor is None:
            raise ValueError(
                "stop_strings need a tokenizer, and this model has no preprocessor. Pass "
                "stop_token_ids, or build the model with a MistralCausalLMPreprocessor."
            )
        return self.preprocessor.tokenizer

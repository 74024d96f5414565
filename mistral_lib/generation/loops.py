"""All the ways in which a model writes (chapter 16, "Sampling")."""

import functools
import itertools
from typing import Any

from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.beam import BeamSearch
from mistral_lib.generation.decoding import DecodingLoop
from mistral_lib.generation.object_loops import ObjectLoop
from mistral_lib.generation.reading import PromptReader
from mistral_lib.generation.speculative import SpeculativeLoop


class Loops:
    """The loops that write with one backbone, made when they are first needed.

    Args:
        backbone: a `MistralBackbone`.
    """

    def __init__(self, backbone: MistralBackbone):
        self.reader = PromptReader(backbone)
        self.decoding = DecodingLoop(self.reader)
        self._speculative: SpeculativeLoop | None = None
        self._object: ObjectLoop | None = None

    @functools.cached_property
    def beam_search(self) -> BeamSearch:
        """Searches with beams."""
        return BeamSearch(self.reader)

    def speculative(self, draft: PromptReader, num_draft_tokens: int) -> SpeculativeLoop:
        """Checks what a draft proposes. The last of these loops is kept."""
        kept = self._speculative
        if kept is None or (kept.draft, kept.num_draft_tokens) != (draft, num_draft_tokens):
            kept = self._speculative = SpeculativeLoop(self.decoding, draft, num_draft_tokens)
        return kept

    def of_object(self, sampler: Any) -> ObjectLoop:
        """A loop in which an object's `get_next_token` chooses. The last of these loops is kept."""
        if self._object is None or self._object.sampler is not sampler:
            self._object = ObjectLoop(self.reader, sampler)
        return self._object

    def forget_object(self) -> None:
        """Drops the loop that has traced a sampler object, which may have changed since."""
        self._object = None


def check_draft(model: Any, draft_model: Any) -> None:
    """Refuses a draft model of another vocabulary than the model that checks its tokens."""
    sizes = [each.backbone.vocabulary_size for each in (model, draft_model)]
    if sizes[0] != sizes[1]:
        raise ValueError(
            f"draft_model must have this model's vocabulary of {sizes[0]} tokens, but has one of "
            f"{sizes[1]}. Only a model of the same vocabulary can propose tokens."
        )
    if model.preprocessor is None or draft_model.preprocessor is None:
        return
    words = [each.preprocessor.tokenizer.get_vocabulary() for each in (model, draft_model)]
    if words[0] != words[1]:
        pairs = enumerate(itertools.zip_longest(*words))  # one may have tokens that were added
        index, (own, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise ValueError(
            f"draft_model must have this model's vocabulary, but token {index} is {other!r} in the "
            f"draft and {own!r} in this model. Only a model of the same vocabulary can propose "
            "tokens."
        )

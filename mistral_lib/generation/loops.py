"""All the ways in which a model writes (chapter 16, "Sampling")."""

import functools

from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.beam import BeamSearch
from mistral_lib.generation.decoding import DecodingLoop
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

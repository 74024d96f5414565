"""The names of KerasHub's `models` module (chapter 12, "The backbone").

Code for `keras_hub.models`, or the older `keras_nlp.models`, runs with the import changed:

>>> from mistral_lib.models import MistralBackbone
>>> MistralBackbone(10, 2, 8, 16, 8, 4).count_params()
2704
"""

from mistral_lib.backbone import MistralBackbone
from mistral_lib.base import Backbone
from mistral_lib.causal_lm import MistralCausalLM
from mistral_lib.preprocessor import MistralCausalLMPreprocessor
from mistral_lib.tekken import MistralTekkenTokenizer
from mistral_lib.tokenizer import MistralTokenizer

__all__ = [
    "Backbone",
    "MistralBackbone",
    "MistralCausalLM",
    "MistralCausalLMPreprocessor",
    "MistralTekkenTokenizer",
    "MistralTokenizer",
]

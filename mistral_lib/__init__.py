"""Mistral in Keras and JAX, and the book that builds it."""

import os
import sys

if "keras" not in sys.modules:
    os.environ.setdefault("KERAS_BACKEND", "jax")

import keras

if keras.config.backend() != "jax":
    raise ImportError(
        f"mistral_lib runs on Keras with JAX, but Keras runs on {keras.config.backend()!r}. Set "
        "the environment variable KERAS_BACKEND=jax before the first import of keras."
    )

__version__ = "0.1.0"

from mistral_lib import models, samplers
from mistral_lib.backbone import MistralBackbone
from mistral_lib.base import Backbone
from mistral_lib.causal_lm import MistralCausalLM
from mistral_lib.keras_inside import without_weights
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
    "models",
    "samplers",
    "without_weights",
]

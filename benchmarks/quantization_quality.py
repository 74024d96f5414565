"""What quantization costs the shipped model: bits per byte of text that it was not trained on.

    python benchmarks/quantization_quality.py

writes `benchmarks/results/quantization_quality.json`: for each dtype and quantization the bytes of
the weights, the perplexity of a token, and the bits for a byte of text. The text is what the
training run held out of the standard library's docstrings and of Python's reference manual
(`mistral_lib/teaching/corpus.py`). One row rounds activations to 8 bits as well, as Keras does
unless told otherwise, and as this library never does.

Beside that it keeps the bits of each document of the panel that chapter 18 quotes, for intervals.
`--panel` measures those alone and leaves the rest of the record as it is.
"""

import argparse
import functools
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")
sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import keras
import numpy as np
from measure import document_bits
from vocabulary import encode

from mistral_lib import MistralCausalLM
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.projection import Projection
from mistral_lib.teaching import panel
from mistral_lib.teaching.corpus import build_corpus
from mistral_lib.teaching.interventions import read
from mistral_lib.teaching.measures import bits

RESULTS = Path(__file__).parent / "results" / "quantization_quality.json"
LENGTH, STRIDE = 256, 128  # as in the record of the training run
# Name in the table: dtype, quantization, whether activations are rounded too.
CONTENDERS = {
    "float32": ("float32", None, False),
    "bfloat16": ("bfloat16", None, False),
    "int8": ("float32", "int8", False),
    "int8 and activations": ("float32", "int8", True),
    "int4/128": ("float32", "int4/128", False),
    "int4/32": ("float32", "int4/32", False),
}


def round_activations(model) -> None:
    """Rounds what goes into the products of a model to 8 bits, a scale a token, as Keras does."""

    def rounding(call):
        def rounded(inputs, *arguments, **options):
            table = isinstance(call.__self__, TokenEmbedding)
            if not table or options.get("reverse"):  # a lookup has nothing to round
                values, scale = keras.quantizers.abs_max_quantize(inputs, axis=-1)
                inputs = keras.ops.cast(values, inputs.dtype) / scale
            return call(inputs, *arguments, **options)

        return functools.wraps(call)(rounded)

    for layer in model._flatten_layers():
        if isinstance(layer, (Projection, TokenEmbedding)):
            layer.quantized_call = rounding(layer.quantized_call)


def panel_bits(preset: str, name: str) -> list[float]:
    """What each document of the panel's half "confirm" costs, in bits."""
    model = loaded(preset, name)
    rows = panel.documents(model.preprocessor.tokenizer).half("confirm")
    return [round(float(cost), 3) for cost in bits(read(model, rows), rows)]


def loaded(preset: str, name: str) -> MistralCausalLM:
    """The model of one contender."""
    dtype, quantization, rounded = CONTENDERS[name]
    model = MistralCausalLM.from_preset(preset, dtype=dtype, quantization=quantization)
    if rounded:
        round_activations(model)
    return model


def measure(preset: str, name: str, documents: list[np.ndarray], num_bytes: int) -> dict:
    """One row of the table."""
    model = loaded(preset, name)
    total = document_bits(model, documents, LENGTH, STRIDE).sum()
    predictions = sum(len(document) - 1 for document in documents)
    weights = [variable.value for variable in model.backbone.variables]
    return {
        "weight_bytes": sum(math.prod(w.shape) * w.dtype.itemsize for w in weights),
        "perplexity": round(float(2 ** (total / predictions)), 4),
        "bits_per_byte": round(float(total) / num_bytes, 5),
    }


def main(arguments=None):
    """Measures every contender and writes the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="mistral_tiny_en")
    parser.add_argument("--documents", type=int, default=60, help="how many held-out texts")
    parser.add_argument("--panel", action="store_true", help="measure the panel alone")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    result = json.loads(options.out.read_text()) if options.panel else held_out(options)
    result["panel"] = {name: panel_bits(options.preset, name) for name in CONTENDERS}
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


def held_out(options: argparse.Namespace) -> dict:
    """The table: every contender on texts that the training run held out."""
    kept = build_corpus(packages=()).held_out
    texts = [document.text for document in kept][: options.documents]
    tokenizer = MistralCausalLM.from_preset(options.preset).preprocessor.tokenizer
    documents = encode(tokenizer.proto, texts)
    num_bytes = sum(len(text.encode()) for text in texts)
    result = {
        "preset": options.preset,
        "documents": len(texts),
        "bytes": num_bytes,
        "tokens": sum(map(len, documents)),
        "rows": {},
    }
    for name in CONTENDERS:
        result["rows"][name] = measure(options.preset, name, documents, num_bytes)
        print(name, result["rows"][name], flush=True)
    return result


if __name__ == "__main__":
    main()

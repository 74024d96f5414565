"""What is kept of a training run (chapter 13, "Training a Mistral from nothing")."""

import os
import platform
from dataclasses import asdict
from importlib import metadata

import jax
import jax.numpy as jnp
import keras
import numpy as np
from measure import bits_per_byte, document_bits, gzip_bits_per_byte, xz_bits_per_byte
from vocabulary import encode

from mistral_lib.teaching import corpus


def round_to_bfloat16(model: keras.Model):
    """Rounds every weight to the precision in which the model is stored."""
    for variable in model.trainable_variables:
        variable.assign(jnp.asarray(jnp.asarray(variable.value, "bfloat16"), "float32"))


def evaluate(model: keras.Model, vocabulary: bytes, text: corpus.Corpus, settings) -> dict:
    """Bits per byte of the whole held-out text, and of its standard-library part."""
    texts = [document.text for document in text.held_out]
    ids = encode(vocabulary, texts)
    bits = document_bits(model, ids, settings.length, settings.sliding_window)
    library = np.array([d.source == corpus.STANDARD_LIBRARY for d in text.held_out])
    return {
        "all": round(bits_per_byte(bits, texts), 4),
        "standard_library": round(
            bits_per_byte(bits[library], [t for t, own in zip(texts, library, strict=True) if own]),
            4,
        ),
    }


def describe_text(text: corpus.Corpus, vocabulary: bytes) -> dict:
    """Sizes and fingerprints of both texts, and the versions that they came from."""
    distributions = metadata.packages_distributions()
    sources = {document.source for document in text.training} - {corpus.STANDARD_LIBRARY}
    names = sorted({distributions[source][0] for source in sources})

    def part(documents):
        return {
            "documents": len(documents),
            "bytes": sum(len(document.text.encode()) for document in documents),
            "tokens": sum(len(row) for row in encode(vocabulary, [d.text for d in documents])),
            "fingerprint": corpus.fingerprint(documents),
        }

    return {
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in names},
        "training": part(text.training),
        "held_out": part(text.held_out),
        "held_out_documents_dropped_for_repeating_training": text.leaked,
        "share_of_long_held_out_lines_also_in_training": round(text.shared_lines, 4),
    }


def describe_run(
    settings, text: corpus.Corpus, model: keras.Model, vocabulary: bytes, state: dict
) -> dict:
    """Everything about a finished run but the text; leaves the weights rounded to bfloat16."""
    held_out = {"float32": evaluate(model, vocabulary, text, settings)}
    round_to_bfloat16(model)
    held_out["bfloat16_as_stored"] = evaluate(model, vocabulary, text, settings)
    texts = [document.text for document in text.held_out]
    return {
        "settings": asdict(settings),
        "steps_done": state["step"],
        "tokens_seen": state["step"] * settings.batch_size * settings.length,
        "parameters": model.count_params(),
        "text": describe_text(text, vocabulary),
        "held_out_bits_per_byte": held_out,
        "gzip_bits_per_byte": round(gzip_bits_per_byte(texts), 4),
        "xz_bits_per_byte": {
            "alone": round(xz_bits_per_byte(texts), 4),
            "primed_with_training_text": round(
                xz_bits_per_byte(texts, [document.text for document in text.training]), 4
            ),
        },
        "evaluation": (
            f"each held-out document by itself from its start token, its end token counted, in "
            f"pieces of {settings.length} tokens every {settings.sliding_window}"
        ),
        "device": f"{jax.devices()[0].device_kind}, {os.cpu_count()} cores",
        "versions": {name: metadata.version(name) for name in ("keras", "jax", "sentencepiece")},
        "seconds": round(state["seconds"]),
        "curve": state["curve"],
    }

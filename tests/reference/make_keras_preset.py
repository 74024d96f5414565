"""Writes presets with KerasHub, and what KerasHub computes from them.

The ordinary tests read the files and need no KerasHub. To make them again, install the peers as
`make_reference.py` says, and in the folder `tests`:

    ../.venv-peers/bin/python -m reference.make_keras_preset

`keras_preset` is a causal language model in float32 with its vocabulary, `keras_preset_sharded` a
bfloat16 backbone in shards. The weights are large enough that no two tensors can be confused
without changing the logits.
"""

import io
import os
import shutil
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "jax")

import numpy as np

HERE = Path(__file__).parent
SINGLE = HERE / "keras_preset"
SHARDED = HERE / "keras_preset_sharded"
RESULTS = HERE / "keras_preset.npz"

TEXTS = ["the window slides", "a query sees the keys of its window, and no other"]
TOKEN_IDS = np.arange(2 * 9).reshape(2, 9) % 270 + 3
PADDING_MASK = np.arange(9) < np.array([[9], [6]])
CONFIG = {
    "vocabulary_size": 280,
    "num_layers": 2,
    "num_query_heads": 4,
    "hidden_dim": 8,
    "intermediate_dim": 12,
    "num_key_value_heads": 2,
    "rope_max_wavelength": 500.0,
    "rope_scaling_factor": 2.0,
    "layer_norm_epsilon": 1e-5,
    "sliding_window": 4,
    "head_dim": 6,
}


def vocabulary() -> bytes:
    """A SentencePiece model of 280 pieces."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=model,
        vocab_size=280,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        minloglevel=2,
    )
    return model.getvalue()


def keras_hub_model(config: dict, dtype: str):
    """KerasHub's model with large random weights."""
    from keras_hub import models

    (HERE / "vocabulary.spm").write_bytes(vocabulary())
    tokenizer = models.MistralTokenizer(str(HERE / "vocabulary.spm"))
    (HERE / "vocabulary.spm").unlink()
    backbone = models.MistralBackbone(**config, dtype=dtype, name="mistral_backbone")
    random = np.random.default_rng(0)
    for variable in backbone.weights:
        variable.assign(random.normal(size=variable.shape) * 0.6)
    preprocessor = models.MistralCausalLMPreprocessor(tokenizer, sequence_length=12)
    return models.MistralCausalLM(backbone, preprocessor, name="mistral_causal_lm")


def main():
    """Writes both presets and the results."""
    inputs = {"token_ids": TOKEN_IDS, "padding_mask": PADDING_MASK.astype("int32")}
    for folder in (SINGLE, SHARDED):
        shutil.rmtree(folder, ignore_errors=True)
    single = keras_hub_model(CONFIG, "float32")
    single.save_to_preset(SINGLE)
    sharded = keras_hub_model(CONFIG, "bfloat16")
    sharded.backbone.save_to_preset(SHARDED, max_shard_size=8e-6)
    ids = single.preprocessor(TEXTS)[0]["token_ids"]
    np.savez_compressed(
        RESULTS,
        logits=single(inputs),
        token_ids_of_texts=ids,
        # Each tensor as the two bytes of its numbers, in the order of KerasHub's weights.
        **{
            f"sharded_{index}": np.asarray(variable.value).view("uint16")
            for index, variable in enumerate(sharded.backbone.weights)
        },
    )


if __name__ == "__main__":
    main()

"""The vocabulary that the small model learns (chapter 2, "Tokens")."""

import io

import numpy as np
import sentencepiece


def train_vocabulary(texts: list[str], vocabulary_size: int) -> bytes:
    """A SentencePiece BPE model: bytes for unknown characters, white space kept as it is.

    Args:
        texts: the training texts.
        vocabulary_size: number of pieces, of which 260 are taken: three special tokens, 256
            bytes and the line feed.

    Returns:
        The serialized model.
    """
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.split("\n") if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=vocabulary_size,
        byte_fallback=True,
        character_coverage=1.0,
        split_digits=True,
        # Text comes back exactly: nothing is normalised, added or removed.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        user_defined_symbols=["\n"],
        max_sentence_length=1_000_000,
        num_threads=2,
        minloglevel=2,
    )
    return model.getvalue()


def encode(vocabulary: bytes, texts: list[str]) -> list[np.ndarray]:
    """Token ids of each text, with start and end token."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=vocabulary)
    rows = processor.encode(texts, add_bos=True, add_eos=True, num_threads=2)
    return [np.array(row, "int32") for row in rows]

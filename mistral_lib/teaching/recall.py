"""A task of remembering, and small models that learn it (used by chapter 8).

A row of random letters holds one digit. From there on the digit is asked for at every position,
whatever letters came since. How often a model names it, by how far back it is, says how far the
model carries a word.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.arrays import Float, Int

RECORD = Path(__file__).parent / "records" / "recall.json"
DIGITS, LETTERS, LENGTH = 10, 26, 44
SIGNS = "0123456789abcdefghijklmnopqrstuvwxyz"
FURTHEST = 40  # the greatest distance at which recall is measured


def rows(
    count: int, seed: int
) -> tuple[Int[np.ndarray, "B S"], Int[np.ndarray, "B S"], Int[np.ndarray, "B S"]]:
    """Random rows, the digit that is asked for at each position, and how far back it is.

    Args:
        count: how many rows.
        seed: of the letters, the digits and their places, which are the first four.

    Returns:
        Token ids, answers and distances, each (B, S). A distance below 0 is before the digit.

    >>> ids, answers, distance = rows(1, seed=1)
    >>> "".join(SIGNS[i] for i in ids[0, :12]), int(answers[0, 0]), distance[0, :5].tolist()
    ('m4tyadvygiwl', 4, [-1, 0, 1, 2, 3])
    """
    random = np.random.default_rng(seed)
    ids = random.integers(DIGITS, DIGITS + LETTERS, (count, LENGTH))
    place, digit = random.integers(0, 4, count), random.integers(0, DIGITS, count)
    ids[np.arange(count), place] = digit
    distance = np.arange(LENGTH) - place[:, None]
    return ids, np.repeat(digit[:, None], LENGTH, axis=1), distance


def trained(
    windows: int | Sequence[int | None] | None,
    furthest: int = FURTHEST,
    seed: int = 0,
    steps: int = 300,
) -> MistralCausalLM:
    """A model of four layers that was asked for the digit, in batches of 64 rows.

    Args:
        windows: how many tokens a layer sees, of all layers or of each; `None` for all tokens.
        furthest: the greatest distance at which it was asked.
        seed: of the first weights and of the rows.
        steps: how many batches it reads.
    """
    keras.utils.set_random_seed(seed)
    sizes = {"num_layers": 4, "num_query_heads": 2, "num_key_value_heads": 2}
    sizes |= {"hidden_dim": 32, "intermediate_dim": 64}
    model = MistralCausalLM(MistralBackbone(len(SIGNS), **sizes, sliding_window=windows))
    rate: Any = keras.optimizers.schedules.CosineDecay(
        0.0, steps - 50, warmup_target=3e-3, warmup_steps=50
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(rate), loss)
    ids, answers, distance = rows(64 * steps, seed=2 * seed + 1)
    asked = (distance >= 0) & (distance <= furthest)
    model.fit(_inputs(ids), answers, 64, sample_weight=asked, verbose=0)
    return model


def recall(model: MistralCausalLM, count: int = 2000) -> Float[np.ndarray, " d"]:
    """How often a model names the digit, at each distance from 0 to 40, in new rows."""
    ids, answers, distance = rows(count, seed=2)
    right = model.predict(_inputs(ids), batch_size=500, verbose=0).argmax(axis=2) == answers
    return np.array([right[distance == d].mean() for d in range(FURTHEST + 1)])


def record() -> dict[str, Any]:
    """What `training/recall.py` found: for each kind of model its recall, seed by seed."""
    return json.loads(RECORD.read_text(encoding="utf-8"))


def recorded(name: str) -> Float[np.ndarray, "seeds d"]:
    """The recall of one kind of model, by seed and distance.

    >>> recorded("asked at every distance").shape
    (3, 41)
    """
    return np.array([run["recall"] for run in record()["runs"] if run["model"] == name])


def _inputs(ids):
    return {"token_ids": ids, "padding_mask": np.ones(ids.shape, bool)}

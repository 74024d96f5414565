"""Answers to the exercises of chapter 16, "Sampling"."""

import jax.numpy as jnp
import numpy as np


def one_at_a_time(probabilities, top_p):
    keep, total = np.zeros(len(probabilities), bool), 0.0
    for token in sorted(range(len(probabilities)), key=lambda t: -probabilities[t]):
        if total < top_p:
            keep[token] = True
        total += probabilities[token]
    return keep


def from_the_smallest(probabilities, top_p):
    order = np.argsort(probabilities)
    dropped = np.cumsum(probabilities[order]) <= 1 - top_p + 1e-12
    keep = np.ones(len(probabilities), bool)
    keep[order[dropped]] = False
    return keep


def sorted_back_by_jax(probabilities, top_p):
    order = jnp.argsort(-probabilities)
    ranked = jnp.asarray(probabilities)[order]
    return (jnp.cumsum(ranked) - ranked < top_p)[jnp.argsort(order)]


def sums_of_larger_ones(probabilities, top_p):
    return [sum(q for q in probabilities if q > p) < top_p for p in probabilities]


def ranked(probabilities, rule):
    order = np.argsort(-probabilities)
    keep = np.zeros(len(probabilities), bool)
    keep[order] = rule(probabilities[order], np.cumsum(probabilities[order]))
    return keep


def penalised_by_loop(logits, used, penalty):
    out = []
    for logit, was_used in zip(logits, used):
        if was_used:
            logit = logit / penalty if logit > 0 else logit * penalty
        out.append(logit)
    return out


def penalised_in_place(logits, used, penalty):
    logits[used & (logits > 0)] /= penalty
    logits[used & (logits < 0)] *= penalty
    return logits


def replaced_by_loop(model, draft):
    rest = [max(p - q, 0) for p, q in zip(model, draft)]
    return [r / sum(rest) for r in rest]


ANSWERS = {
    "sampling.tail": (
        [1, 100, 0.634, 36.6, 99, 0.01, 1 - 0.99**100, 50, "per cent", 9.6],
        [63, 63.4, "63 %", 100 * (1 - 0.99**100), 60, 100 - 100 * np.exp(-1)],
    ),
    "sampling.temperature": (
        [0.75, 1.0, 0.634, 0.5625, 9 / 16, 0.5, 1.5, 0.1, "nine tenths", [0.9, 0.1]],
        [0.9, "9/10", "0.9", 9 / 10, np.float32(0.9), jnp.array(0.9)],
    ),
    "sampling.top_p": (
        [
            lambda p, top_p: ranked(p, lambda r, sums: sums <= top_p),
            lambda p, top_p: ranked(p, lambda r, sums: sums < top_p),
            lambda p, top_p: np.cumsum(p) - p < top_p,
            lambda p, top_p: np.cumsum(np.sort(p)[::-1]) - np.sort(p)[::-1] < top_p,
            lambda p, top_p: p >= top_p,
            lambda p, top_p: p > 1 - top_p,
            lambda p, top_p: p == p.max(),
            lambda p, top_p: ranked(p, lambda r, sums: sums >= top_p),
            lambda p, top_p: np.argsort(-p)[: (np.cumsum(np.sort(p)[::-1]) < top_p).sum() + 1],
            lambda p, top_p: np.where(one_at_a_time(p, top_p), p, 0),
            lambda p, top_p: ranked(p, lambda r, sums: sums - r <= top_p - r),
            lambda p: p > 0,
        ],
        [one_at_a_time, from_the_smallest, sorted_back_by_jax, sums_of_larger_ones],
    ),
    "sampling.penalty": (
        [
            lambda logits, used, penalty: np.where(used, logits / penalty, logits),
            lambda logits, used, penalty: np.where(used, logits * penalty, logits),
            lambda logits, used, penalty: np.where(used, logits - penalty, logits),
            lambda logits, used, penalty: np.where(logits < 0, logits * penalty, logits / penalty),
            lambda logits, used, penalty: np.where(used, abs(logits) / penalty, logits),
            lambda logits, used, penalty: np.where(
                used, np.where(logits > 0, logits * penalty, logits / penalty), logits
            ),
            lambda logits, used, penalty: penalised_by_loop(logits, ~used, penalty),
            lambda logits, used, penalty: np.where(used, -np.inf, logits),
            lambda logits, used, penalty: np.where(used & (logits > 0), logits / penalty, logits),
            lambda logits, used, penalty: np.where(logits < 0, logits * penalty, logits),
            lambda logits, penalty: logits / penalty,
        ],
        [
            penalised_by_loop,
            penalised_in_place,
            lambda logits, used, penalty: np.where(
                used, np.minimum(logits / penalty, logits * penalty), logits
            ),
            lambda logits, used, penalty: logits * penalty ** -(used * jnp.sign(logits)),
        ],
    ),
    "sampling.library": (
        [1, 2, 3, 4, 5, 6, 7, 8, 10, 11, "line 11", 0, "cumsum"],
        [9, "9", "line 9", np.int64(9)],
    ),
    "sampling.beam": (
        [
            [0.36, 0.36],
            [0.24, 0.24],
            [0.6, 0.6],
            [0.36, 0.24],
            [0.6, 0.9],
            [1.0, 1.3],
            0.36,
            [0.24, 0.54],
            ["A", "B"],
            [24, 36],
        ],
        [[0.24, 0.36], (0.24, 0.36), np.array([0.24, 0.36]), "0.24 0.36", [0.6 * 0.4, 0.4 * 0.9]],
    ),
    "sampling.replace": (
        [
            lambda model, draft: model,
            lambda model, draft: draft,
            lambda model, draft: np.maximum(model - draft, 0),
            lambda model, draft: np.abs(model - draft) / np.abs(model - draft).sum(),
            lambda model, draft: np.maximum(draft - model, 0) / np.maximum(draft - model, 0).sum(),
            lambda model, draft: (model - draft) / (model - draft).sum(),
            lambda model, draft: np.minimum(model, draft) / np.minimum(model, draft).sum(),
            lambda model, draft: (model + draft) / 2,
            lambda model, draft: np.maximum(model - draft, 0).argmax(),
            lambda model, draft: np.exp(model - draft) / np.exp(model - draft).sum(),
            lambda model: model,
        ],
        [
            replaced_by_loop,
            lambda model, draft: (
                (model - np.minimum(model, draft)) / (1 - np.minimum(model, draft).sum())
            ),
            lambda model, draft: jnp.clip(model - draft, 0) / jnp.clip(model - draft, 0).sum(),
            lambda model, draft: (
                np.where(model > draft, model - draft, 0) / (model - draft)[model > draft].sum()
            ),
        ],
    ),
    "sampling.rounds": (
        [3.2, 4.2, 5, 2.36, 4, 0.8**4, 0.8, 1.8, "three or so", 5 * 0.8],
        [3.36, 3.3616, 3.4, "3.36 tokens", (1 - 0.8**5) / (1 - 0.8), np.float32(3.36)],
    ),
    "sampling.speedup": (
        [3.36, 3.06, 0.67, 1 / 2.4, 2.4 * 5, 5, 3.36 * 1.4, 1.4, "twice", 0.1],
        [2.4, 3.36 / 1.4, "2.4", 2.401, np.float64(2.4), 2.5],
    ),
}

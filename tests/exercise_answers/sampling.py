"""Answers to the exercises of chapter 16, "Sampling"."""

import jax.numpy as jnp
import numpy as np

from mistral_lib.teaching.typical import typical


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


def surprise_above(p):
    return -np.log(p) + (p * np.log(p)).sum()


def ranked_by(p, share, key):
    order = np.argsort(key)
    keep = np.zeros(len(p), bool)
    keep[order] = np.cumsum(p[order]) - p[order] < share
    return keep


def typical_by_loop(p, share):
    entropy = sum(-q * np.log(q) for q in p)
    keep, total = [False] * len(p), 0.0
    for token in sorted(range(len(p)), key=lambda t: abs(-np.log(p[t]) - entropy)):
        if total < share:
            keep[token] = True
            total += p[token]
    return keep


ANSWERS = {
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
    "sampling.survivors": (
        [
            ((0.06, 0.23, 0.72, 0.43), "a"),
            ((0.06, 0.23, 0.72, 0.43), "c"),
            ((0.06, 0.09, 0.72, 0.09), "b"),
            ((0.72, 0.43, 0.06, 0.23), "b"),
            ((0.0, 0.13, 0.0, 0.1), "b"),
            ((1.0, 0.44, 1.0, 0.44), "c"),
            ((0.06, 0.23), "b"),
            "b",
            ((6, 23, 72, 43), "b"),
            ((0.06, 0.23, 0.72, 0.43), "d"),
        ],
        [
            ((0.056, 0.232, 0.722, 0.431), "b"),
            ([0.06, 0.23, 0.72, 0.43], "(b)"),
            (np.array([2 / 36, 0.2317, 26 / 36, 0.4314]), "B"),
        ],
    ),
    "sampling.typical": (
        [
            lambda p, share: ranked_by(p, share, -p),
            lambda p, share: ranked_by(p, share, surprise_above(p)),
            lambda p, share: ranked_by(p, share, -abs(surprise_above(p))),
            lambda p, share: ranked_by(p, share, -np.log(p)),
            lambda p, share: abs(surprise_above(p)) < share,
            lambda p, share: p >= share,
            lambda p, share: ranked_by(p, share, abs(-np.log(p) + np.log(p).mean())),
            lambda p, share: abs(surprise_above(p)) == abs(surprise_above(p)).min(),
            lambda p, share: np.where(typical_by_loop(p, share), p, 0),
            lambda p, share: ranked_by(p, share, p),
            lambda p: p > 0,
        ],
        [
            typical_by_loop,
            lambda p, share: ranked_by(p, share, abs(surprise_above(p))),
            lambda p, share: ranked_by(p, share, surprise_above(p) ** 2),
            lambda p, share: np.isfinite(typical(jnp.log(jnp.array(p)), share)),
        ],
    ),
    "sampling.draft": (
        [
            ((0.71, 0.98, 0.96), "a"),
            ((0.71, 0.98, 0.96), "b"),
            ((2.74, 1.69, 1.23), "c"),
            ((1.60, 0.98, 0.96), "c"),
            ((0.70, 0.84, 0.27), "c"),
            ((1.91, 1.52, 1.22), "b"),
            ((0.98, 0.71, 0.96), "c"),
            ("c", (0.71, 0.98, 0.96)),
            (0.70, "c"),
            ((0.71, 0.98, 0.96), "none"),
            (("slow", "slow", "slow"), "c"),
        ],
        [
            ((0.711, 0.984, 0.957), "c"),
            ([0.71, 0.98, 0.96], "(c)"),
            (np.array([0.7107, 0.9837, 0.9565]), "C"),
        ],
    ),
}

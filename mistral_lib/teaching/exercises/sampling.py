"""The exercises of chapter 16, "Sampling"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.experiments import Experiment
from mistral_lib.teaching.exercises.kinds import Function


def _nuclei():
    """Probabilities and a top_p, smallest first; no sum lies near a border."""
    yield np.array([1.0]), 0.5
    for top_p in (0.25, 0.45, 0.55, 0.75, 0.85, 0.95):
        yield np.array([0.5, 0.3, 0.2]), top_p
        yield np.array([0.1, 0.6, 0.3]), top_p
        yield np.array([0.06, 0.4, 0.02, 0.3, 0.22]), top_p


def _nucleus(probabilities, top_p):
    order = np.argsort(-probabilities)
    ranked = probabilities[order]
    keep = np.zeros(len(probabilities), bool)
    keep[order] = np.cumsum(ranked) - ranked < top_p
    return keep


def _from_ranked(rule):
    """A wrong nucleus: `rule` says of ranked probabilities and their sums which are kept."""

    def nucleus(probabilities, top_p):
        order = np.argsort(-probabilities)
        keep = np.zeros(len(probabilities), bool)
        keep[order] = rule(probabilities[order], np.cumsum(probabilities[order]), top_p)
        return keep

    return nucleus


def _penalties():
    """Logits, which tokens the text holds, and a penalty."""
    yield np.array([2.0]), np.array([True]), 2.0
    yield np.array([-2.0, 1.0]), np.array([True, False]), 2.0
    random = np.random.default_rng(16)
    for size in (3, 5):
        yield random.integers(-5, 6, size).astype(float), random.random(size) < 0.6, 4.0


def _penalised(logits, used, penalty):
    return np.where(used, np.where(logits < 0, logits * penalty, logits / penalty), logits)


def _pairs():
    """The model's and the draft's probabilities; they differ."""
    yield np.array([0.75, 0.25]), np.array([0.5, 0.5])
    yield np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.5, 0.3])
    yield np.array([0.1, 0.6, 0.3]), np.array([0.0, 0.1, 0.9])
    yield np.array([0.1, 0.2, 0.1, 0.2, 0.4]), np.array([0.3, 0.1, 0.2, 0.2, 0.2])


def _missing(model, draft):
    rest = np.maximum(model - draft, 0)
    return rest / rest.sum()


def _typicals():
    """Probabilities and a share, smallest first; no sum lies near a border, and nothing ties."""
    yield np.array([0.5, 0.3, 0.2]), 0.25
    for share in (0.15, 0.35, 0.55, 0.75, 0.95):
        yield np.array([0.5, 0.3, 0.2]), share
        yield np.array([0.1, 0.6, 0.3]), share
        yield np.array([0.06, 0.4, 0.02, 0.3, 0.22]), share


def _kept(probabilities, share, key):
    """Which tokens a rule keeps: those with the least key that together reach the share."""
    order = np.argsort(key)
    ranked = probabilities[order]
    keep = np.zeros(len(probabilities), bool)
    keep[order] = np.cumsum(ranked) - ranked < share
    return keep


def _distance(probabilities):
    """How much larger the surprise of each token is than the entropy."""
    surprise = -np.log(probabilities)
    return surprise - (probabilities * surprise).sum()


def _upto(probabilities, key):
    """The sum up to each token, itself included, in the order of a key."""
    order = np.argsort(key)
    sums = np.zeros(len(probabilities))
    sums[order] = np.cumsum(probabilities[order])
    return sums


def _typical(probabilities, share):
    return _kept(probabilities, share, abs(_distance(probabilities)))


EXERCISES = [
    Function(
        name="sampling.top_p",
        kind="missing lines",
        minutes=7,
        difficulty=2,
        solution=_nucleus,
        cases=_nuclei,
        mistakes={
            "leaves out the token that crosses the border: the kept ones must reach top_p.": (
                _from_ranked(lambda ranked, sums, top_p: sums <= top_p)
            ),
            "adds up in the order of the vocabulary: the likeliest come first.": (
                lambda probabilities, top_p: np.cumsum(probabilities) - probabilities < top_p
            ),
            "keeps one token too many: it stops only after the border was crossed.": (
                _from_ranked(
                    lambda ranked, sums, top_p: np.arange(len(sums)) <= (sums < top_p).sum() + 1
                )
            ),
            "answers for the ranked tokens: put the marks back where the tokens are.": (
                lambda probabilities, top_p: (
                    np.cumsum(ranked := np.sort(probabilities)[::-1]) - ranked < top_p
                )
            ),
            "keeps single tokens that are at least top_p: their sum is meant.": (
                lambda probabilities, top_p: probabilities >= top_p
            ),
        },
        hints=(
            "A token stays if the likelier ones together do not yet reach top_p.",
            "Sort downwards, take the cumulative sum without the token itself, compare, sort back.",
            "np.argsort(-probabilities) gives the order, and keep[order] = ... puts marks back "
            "where they belong.",
        ),
    ),
    Function(
        name="sampling.penalty",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=_penalised,
        cases=_penalties,
        mistakes={
            "is the function as it was: what does dividing do to a logit of -2?": (
                lambda logits, used, penalty: np.where(used, logits / penalty, logits)
            ),
            "multiplies always: that makes likely tokens likelier still.": (
                lambda logits, used, penalty: np.where(used, logits * penalty, logits)
            ),
            "penalises the tokens that are new.": (
                lambda logits, used, penalty: _penalised(logits, ~used, penalty)
            ),
            "penalises every token, used or not.": (
                lambda logits, used, penalty: _penalised(logits, used | True, penalty)
            ),
            "subtracts the penalty: that is another rule, with another name.": (
                lambda logits, used, penalty: np.where(used, logits - penalty, logits)
            ),
        },
        hints=(
            "A penalty has to push down. In which direction does a division push?",
            "Try it on a logit of 2, and on one of −2.",
            "Two np.where, one inside the other: which tokens are meant, and which sign they have.",
        ),
    ),
    Experiment(
        name="sampling.survivors",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((0.056, 0.232, 0.722, 0.431), "b"),
        within=0.01,
        claims={
            "a": "with 0.8, min-p finds names that greedy decoding misses",
            "b": "the harder min-p cuts, the nearer it comes to greedy decoding",
            "c": "with 0.1, min-p is greedy decoding on most prompts",
        },
        refusals={
            "a": ("greedy decoding alone has the right piece in 0.44 of the prompts, so not less."),
            "c": (
                "one token survives in 6 % of the prompts. The running prompt is no typical one."
            ),
        },
        others=(
            (
                (0.056, 0.094, 0.722, 0.094),
                "these chances are those before the cut. Scale up to 1 what is left.",
            ),
            (
                (0.722, 0.431, 0.056, 0.232),
                "these are the four numbers with 0.8 first. Begin with 0.1.",
            ),
        ),
        hints=(
            "After a cut, what is left is scaled up to 1, which softmax does with the logits that "
            "are left.",
            "A row in which one token survives has one finite number. For greedy decoding, compare "
            "argmax with the name's first piece.",
            "np.array([min_p(row, 0.1) for row in at_star]) has the logits after the cut. "
            "np.isfinite and sum count along a row.",
        ),
    ),
    Function(
        name="sampling.typical",
        kind="extend the library",
        minutes=10,
        difficulty=3,
        solution=_typical,
        cases=_typicals,
        mistakes={
            "is top-p: it ranks by the surprise itself. Rank by its distance from the entropy, "
            "with abs.": (lambda probabilities, share: _kept(probabilities, share, -probabilities)),
            "ranks the tokens that are farthest from the entropy first.": (
                lambda probabilities, share: _kept(
                    probabilities, share, -abs(_distance(probabilities))
                )
            ),
            "has another entropy: it is the sum of p times the surprise, not the plain mean.": (
                lambda probabilities, share: _kept(
                    probabilities,
                    share,
                    abs(-np.log(probabilities) + np.log(probabilities).mean()),
                )
            ),
            "leaves out the token that crosses the border: the kept ones must reach the share.": (
                lambda probabilities, share: (
                    _typical(probabilities, share)
                    & (_upto(probabilities, abs(_distance(probabilities))) <= share)
                )
            ),
        },
        hints=(
            "It is top-p in another order. Which token comes first, for probabilities of 0.5, 0.3 "
            "and 0.2?",
            "The entropy of these three is 1.03 nats, and their surprises are 0.69, 1.20 and 1.61.",
            "Take your top-p, and let np.argsort sort the absolute differences, upwards.",
        ),
    ),
    Function(
        name="sampling.replace",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_missing,
        cases=_pairs,
        mistakes={
            "draws from the model itself: tokens that the draft proposes too often come twice.": (
                lambda model, draft: model
            ),
            "is not normalised: probabilities have to add up to 1.": (
                lambda model, draft: np.maximum(model - draft, 0)
            ),
            "counts what the draft has too much of as well: only what is missing is drawn.": (
                lambda model, draft: abs(model - draft) / abs(model - draft).sum()
            ),
            "has the sign turned: it gives more of what the draft has too much of.": (
                lambda model, draft: _missing(draft, model)
            ),
        },
        hints=(
            "Which tokens does the draft propose too rarely?",
            "The accepted tokens follow min(p, q). What is missing from p is p - min(p, q).",
            "np.maximum, and then a division so that the result adds up to 1.",
        ),
    ),
    Experiment(
        name="sampling.draft",
        kind="run an experiment",
        minutes=10,
        difficulty=2,
        solution=((0.711, 0.984, 0.957), "c"),
        within=0.01,
        claims={
            "a": "the draft that guesses best is the fastest",
            "b": "the cheapest draft is the fastest, and it pays",
            "c": "none of them pays",
        },
        refusals={
            "a": (
                "with four guesses it is the slowest of the three, though it guesses far better "
                "than block 0 alone."
            ),
            "b": "0.96 times as fast is slower than without a draft.",
        },
        others=(
            (
                (2.741, 1.686, 1.230),
                "these are the tokens a round. Divide by what a round costs.",
            ),
            (
                (1.599, 0.984, 0.957),
                "a round of four guesses takes four steps of the draft.",
            ),
        ),
        hints=(
            "A round costs k steps of the draft and one of the model. What does it give?",
            "agreement(kept) says where a draft is right, and rounds_of(agrees, k) how many rounds "
            "a text takes.",
            "All tokens divided by all rounds give the tokens a round; lengths.sum() counts the "
            "tokens.",
        ),
    ),
]

"""What the book says about a model, with its estimate and a verdict (used by all chapters).

A sentence of the prose that says something about a model ends in a comment that names its claim,
`claim:head-copies`, and after each of its numbers a comment names the number, `=head_copies` or
`=head_copies_n`. CONTRIBUTING shows how. A cell of the chapter records what the sentence rests on:
`claim("head-copies", paired(before, after), on=prompts.title, above=0)`.

The name of a claim is never its wording, so that the sentence can be rewritten. The page of all
claims and the checks are made by `tools/claims.py`.
"""

import dataclasses
import json
import re

from mistral_lib.teaching.estimates import JITTER, Estimate, steady, written
from mistral_lib.teaching.facts import publish

CLAIM = "claim:"  # before the name under which a claim is published, and in its mark
NAME = re.compile(r"[a-z][a-z0-9-]*")


def claim(
    name: str,
    estimate: Estimate,
    spec: str = ".2f",
    *,
    on: str,
    above: float | None = None,
    below: float | None = None,
    within: float | None = None,
) -> str:
    """Records an estimate for the prose, and whether the claim holds.

    The claim is that the number lies above or below another one, or, in absolute size, within a
    bound. The verdict follows from the interval, so nobody can write one that the data do not bear.
    A claim that does not hold is recorded like any other.

    Args:
        name: small letters, digits and hyphens, such as "head-copies". The prose has the numbers
            as `head_copies`, `head_copies_low`, `head_copies_high` and `head_copies_n`.
        estimate: what was measured.
        spec: in which form the three numbers are printed, such as ".2f" or ".0%".
        on: what it was measured on, such as the title of the panel's rows.
        above: the claim holds if the whole interval is above it.
        below: the claim holds if the whole interval is below it.
        within: the claim holds if the whole interval is between -within and within.

    Returns:
        The verdict: "holds"; "does not hold"; where the interval is on both sides of the bound "not
        decided" or, if the bound is 0, "no difference larger than ..."; or "measured" where nothing
        was claimed but the number itself.

    Raises:
        ValueError: a bad name; a printed digit or a verdict that need not be the same on every
            machine; more than one bound; or the half of the panel that only discovers.

    >>> from mistral_lib.teaching.estimates import Estimate
    >>> claim("block-three", Estimate(0.049, 0.032, 0.068, 20), on="documents, confirm", above=0)
    'holds'
    >>> claim("seeds", Estimate(0.012, -0.021, 0.053, 3, "seeds"), on="three seeds", above=0)
    'no difference larger than 0.05'
    """
    if not NAME.fullmatch(name):
        raise ValueError(
            f"The name {name!r} is not made of small letters, digits and hyphens. Rename it, for "
            "example to 'head-copies'."
        )
    if "discover" in on:
        raise ValueError(
            f"{name} was measured on {on!r}, where one looks for what to claim. Measure it on the "
            "half 'confirm'."
        )
    steady(estimate, spec)
    moved = [
        dataclasses.replace(estimate, low=estimate.low + move, high=estimate.high + move)
        for move in (0, -JITTER, JITTER)
    ]
    verdict, *others = [_verdict(one, spec, above, below, within) for one in moved]
    if {*others} != {verdict}:
        raise ValueError(
            f"The interval of {name}, {estimate!r}, ends at the bound: whether it holds depends on "
            "the machine. Claim another bound."
        )
    numbers = dict(zip(("", "_low", "_high"), estimate.written(spec)))
    for suffix, text in {**numbers, "_n": f"{estimate.n:,}"}.items():
        publish(name.replace("-", "_") + suffix, text)
    kept = {"estimate": format(estimate, spec), "n": estimate.n, "on": on, "verdict": verdict}
    publish(CLAIM + name, json.dumps(kept))
    return verdict


def _verdict(estimate, spec, above, below, within):
    given = [bound for bound in (above, below, within) if bound is not None]
    if len(given) > 1:
        raise ValueError("A claim has one bound: give one of above, below and within.")
    if not given:
        return "measured"
    (bound,), low, high = given, estimate.low, estimate.high
    if above is not None:
        holds, fails = low > bound, high < bound
    elif below is not None:
        holds, fails = high < bound, low > bound
    else:
        holds, fails = -bound < low and high < bound, low > bound or high < -bound
    if holds or fails:
        return "holds" if holds else "does not hold"
    if bound:
        return "not decided"
    return f"no difference larger than {written(max(-low, high), spec)}"

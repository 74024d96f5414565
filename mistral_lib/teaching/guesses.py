"""What the reader guessed, shown beside what was found (used by all chapters)."""


def beside(guess: object, found: object) -> str:
    """A result, and the guess that came before it, if there was one.

    A chapter asks `guess = ...` before a result. As long as the three dots stand there, nothing is
    added, so that the stored output of the chapter stays the same.

    Args:
        guess: what the reader put in the place of `...`.
        found: what came out.

    >>> print(beside(0.5, "largest weight: 0.96"))
    largest weight: 0.96   (your guess: 0.5)
    >>> print(beside(..., "largest weight: 0.96"))
    largest weight: 0.96
    """
    return f"{found}" if guess is ... else f"{found}   (your guess: {guess})"

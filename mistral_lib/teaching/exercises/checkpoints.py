"""More exercises of chapter 17, "Presets and checkpoints": today's models and their files."""

from __future__ import annotations

from mistral_lib.teaching.exercises.kinds import Value

EXERCISES = [
    Value(
        name="checkpoints.fp8",
        kind="trace by hand",
        minutes=4,
        difficulty=2,
        solution=-0.375,
        mistakes=(
            (-1.5, "the number is multiplied with the scale, whatever its name ends in."),
            (-0.75, "that is the byte alone, before its scale."),
            (0.375, "the first bit is the sign, and 1 is minus."),
            (-0.25, "the fraction is missing: 100 is four eighths, added to 1."),
            (-48, "the exponent counts from 7: 0110 is 6 - 7."),
        ),
        hints=(
            "What do the sign, the exponent and the fraction say, one by one?",
            "A leading 1 is minus. The exponent counts from 7, and the fraction is in eighths and "
            "added to 1.",
            "Compute what of_byte(0b1_0110_100) gives, and ask what the library does with the "
            "scale, whatever it is called.",
        ),
    ),
    Value(
        name="checkpoints.shortest",
        kind="predict, then run",
        minutes=6,
        difficulty=3,
        solution=13,
        mistakes=(
            (12, "its last position is 11, and 11 // 12 is still 0."),
            (24, "at position 12 the floor is 1 already, not at 23."),
            (25, "that is where the floor becomes 2; it becomes 1 earlier."),
            (1, "in the first original length the factor is 1, as if it were not there."),
            (2, "YaRN shows there, but the factor of the query is 1 for the first 12 positions."),
        ),
        hints=(
            "At which position is the factor of the query first another number than 1?",
            "The factor is 1 + beta * ln(1 + position // 12), and positions count from 0.",
            "For several lengths n, compare small_logits of both backbones on small_ids[:, :n].",
        ),
    ),
]

"""The kinds of exercise (used by all chapters).

`Function`      write or mend a function: it must equal the solution on every case, smallest first
`Value`         trace, predict, read: one right answer (a number, a list, an array, a word)
`Line`          the number of a line of the library, found by what stands in it
`Estimate`      a number that counts as right within a factor
`BreakingInput` an input on which a broken function goes wrong
`Experiment`    what the reader measured, and which claim it bears out
`Timing`        what the reader's clock said, judged by the claim that these very times bear out
`Explanation`   a text for a colleague: never right or wrong, it is laid beside what it should say
"""

from mistral_lib.teaching.exercises.exercise import KINDS, Exercise, Explanation, Verdict
from mistral_lib.teaching.exercises.experiments import Experiment, Timing
from mistral_lib.teaching.exercises.functions import BreakingInput, Function
from mistral_lib.teaching.exercises.values import Estimate, Line, Value

__all__ = [
    "KINDS",
    "BreakingInput",
    "Estimate",
    "Exercise",
    "Experiment",
    "Explanation",
    "Function",
    "Line",
    "Timing",
    "Value",
    "Verdict",
]

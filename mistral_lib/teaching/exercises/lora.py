"""The exercises of chapter 14, "LoRA"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Experiment, Explanation, Function


def _layers():
    """Tokens x (S, D), factors a (D, r) and b (r, F), what comes back (S, F), and the scale."""
    yield np.array([[3.0]]), np.array([[5.0]]), np.array([[2.0]]), np.array([[1.0]]), 1.0
    random = np.random.default_rng(14)
    for tokens, size, rank, scale in ((1, 2, 1, 2.0), (2, 3, 2, 0.5), (3, 3, 3, 2.0)):
        shapes = ((tokens, size), (size, rank), (rank, size), (tokens, size))
        yield *(random.integers(1, 6, shape).astype(float) for shape in shapes), scale


def _gradient(x, a, b, upstream, scale):
    return scale * x.T @ (upstream @ b.T)


def _weights():
    """Weights as the preprocessor makes them, and how many tokens `<s>` and the question are."""
    for question, answer, padding in ((1, 1, 0), (2, 2, 0), (3, 2, 2), (4, 4, 3)):
        yield np.arange(question + answer + padding) < question + answer, question


def _masked(weights, question_tokens):
    return weights & (np.arange(len(weights)) >= question_tokens - 1)


def _files():
    """What files of PEFT say: r, lora_alpha and use_rslora."""
    yield 4, 8, False
    yield 4, 8, True
    yield 16, 8, True
    yield 64, 16, True
    yield 9, 1, False


def _alpha(r, lora_alpha, use_rslora):
    return lora_alpha * r**0.5 if use_rslora else lora_alpha


EXERCISES = [
    Function(
        name="lora.gradient",
        kind="missing lines",
        minutes=6,
        difficulty=2,
        solution=_gradient,
        cases=_layers,
        mistakes={
            "lacks the scale: it multiplies the update, so it multiplies the gradient.": (
                lambda x, a, b, upstream, scale: x.T @ (upstream @ b.T)
            ),
            "is the gradient of the whole kernel, times the scale.": (
                lambda x, a, b, upstream, scale: scale * x.T @ upstream
            ),
            "is the gradient of B. That of A goes back through B.": (
                lambda x, a, b, upstream, scale: scale * (x @ a).T @ upstream
            ),
            "goes back through A, where it should go back through B.": (
                lambda x, a, b, upstream, scale: scale * x.T @ (upstream @ a)
            ),
        },
        hints=(
            "Backwards through a product with B is a product with the transpose of B.",
            "upstream @ b.T has a number for each token and rank; the inputs of all tokens have "
            "still to be gathered.",
            "The result is (D, r). Which product with x, (S, D), makes it from (S, r)?",
        ),
    ),
    Function(
        name="lora.mask",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_masked,
        cases=_weights,
        mistakes={
            "begins one too late: the answer's first token is the label of the question's last.": (
                lambda weights, n: weights & (np.arange(len(weights)) >= n)
            ),
            "begins one too early, with the last token of the question.": (
                lambda weights, n: weights & (np.arange(len(weights)) >= n - 2)
            ),
            "is the other way round: the question has the weights.": (
                lambda weights, n: weights & (np.arange(len(weights)) < n - 1)
            ),
            "forgets the padding behind the answer.": (
                lambda weights, n: np.arange(len(weights)) >= n - 1
            ),
            "leaves the weights as they are: the question counts, too.": lambda weights, n: weights,
        },
        hints=(
            "A weight belongs to a label, and the label of place t is token t + 1.",
            "The answer's first token is number n, counting from 0. Which place has it as label?",
            "np.arange(len(weights)) has the places. Keep the weights from one of them on.",
        ),
    ),
    Experiment(
        name="lora.directions",
        kind="run an experiment",
        minutes=10,
        difficulty=3,
        solution=((0.87, 0.99), "a"),
        within=0.06,
        claims={
            "a": "One direction keeps more than four fifths of what was learned.",
            "b": "One direction keeps about an eighth: all eight count alike.",
            "c": "One direction keeps more than four fifths, so a rank above 1 is of no use.",
        },
        refusals={
            "b": "an eighth would be 0.12.",
            "c": "with four directions telegrams cost still less. And you cut a finished adapter: "
            "what a training with rank 1 finds is another question.",
        },
        others=(
            ((1.0, 1.0), "that is the whole adapter. Did the factors change?"),
            ((0.0, 0.0), "that is the model without its adapter."),
            ((0.99, 0.87), "these are the right numbers in the other order: rank 1 comes first."),
            ((1.42, 1.29), "these are costs. Which share of base minus after is kept?"),
            (
                (0.13, 0.01),
                "these are the shares that were lost; those that are kept are asked for.",
            ),
        ),
        hints=(
            "The closest matrix of rank k keeps the k strongest directions of the change and drops "
            "the others.",
            "Each layer of lora.projections(backbone).values() has lora_kernel_a and "
            "lora_kernel_b. Fill the rest of both with zeros, and put the old values back at the "
            "end.",
            "a[:, :k] = left[:, :k] * values[:k] and b[:k] = right[:k] are factors of it, with "
            "zeros elsewhere.",
        ),
    ),
    Experiment(
        name="lora.volume",
        kind="run an experiment",
        minutes=8,
        difficulty=2,
        solution=((0.93, 0.3), "b"),
        within=0.1,
        claims={
            "a": "Half the adapter keeps half of what was learned and half of what was forgotten.",
            "b": "Half the adapter keeps more than nine tenths of what was learned, and less than "
            "a third of what was forgotten.",
            "c": "Half the adapter keeps less than half of what was learned.",
        },
        refusals={
            "a": "the first share is far above a half, and the second is below it.",
            "c": "the first share says how much of what was learned is kept.",
        },
        others=(
            ((1.0, 1.0), "that is the whole adapter. Did the factors change?"),
            ((0.0, 0.0), "that is the model without its adapter."),
            ((0.75, 0.09), "that is a quarter of the update: were A and B both halved?"),
            ((0.3, 0.93), "these are the right numbers in the other order."),
            ((1.36, 1.44), "these are costs. Which share of the difference to base is left?"),
        ),
        hints=(
            "The update is a product, so half of B is half of the update, as if alpha were half as "
            "large.",
            "The cell above shows how to set every lora_kernel_b, and how to put the factors back.",
            "Assign 0.5 * layer.lora_kernel_b.value, call judged twice, and then assign factors "
            "again.",
        ),
    ),
    Function(
        name="lora.rslora",
        kind="missing lines",
        minutes=5,
        difficulty=2,
        solution=_alpha,
        cases=_files,
        mistakes={
            "passes the file's number on: with rsLoRA it is divided by √r there, and by r here.": (
                lambda r, lora_alpha, use_rslora: lora_alpha
            ),
            "multiplies by r. The file's factor is lora_alpha / √r, not lora_alpha.": (
                lambda r, lora_alpha, use_rslora: lora_alpha * r if use_rslora else lora_alpha
            ),
            "divides by √r: that is the factor in front of the update. We divide it by r again.": (
                lambda r, lora_alpha, use_rslora: lora_alpha / r**0.5 if use_rslora else lora_alpha
            ),
            "does so for files without rsLoRA, too.": (
                lambda r, lora_alpha, use_rslora: lora_alpha * r**0.5
            ),
        },
        hints=(
            "The factor in front of the update has to be the same in both programs.",
            "With rsLoRA the file's factor is lora_alpha / √r. Ours is our alpha / r.",
            "Solve one equation for our alpha, and return the file's own where use_rslora is "
            "False.",
        ),
    ),
    Explanation(
        name="lora.explain",
        kind="explain",
        minutes=5,
        difficulty=2,
        points=(
            "weights of 0 take labels out of the sum, and Keras divides by all labels all the same",
            "so the two losses are about different labels, and cannot be compared",
            "both models have to be judged on the same labels: those of held-out answers",
            "there they differ by little, and what they write tells more",
        ),
        hints=(
            "Which labels does each of the two numbers add up, and what is the sum divided by?",
            "By the same column, which of the three masks would be the best?",
            "Say on which labels you would compare the models.",
        ),
    ),
]

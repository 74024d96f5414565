"""The exercises of chapter 14, "LoRA"."""

from __future__ import annotations

import numpy as np

from mistral_lib.layers.projection import Projection
from mistral_lib.teaching.exercises.kinds import Estimate, Explanation, Function, Line, Value

MISTRAL_7B = 7_241_732_096
# Inputs plus outputs of the seven projections of a block: query and attention_output, key and
# value, gate, up and down.
BORDERS_7B = 2 * (4096 + 4096) + 2 * (4096 + 1024) + 3 * (4096 + 14336)
ADAPTER_7B = 16 * 32 * BORDERS_7B


def _layers():
    """Tokens x (S, D), factors a (D, r) and b (r, F), what comes back (S, F), and the scale."""
    yield np.array([[3.0]]), np.array([[5.0]]), np.array([[2.0]]), np.array([[1.0]]), 1.0
    random = np.random.default_rng(14)
    for tokens, size, rank, scale in ((1, 2, 1, 2.0), (2, 3, 2, 0.5), (3, 3, 3, 2.0)):
        shapes = ((tokens, size), (size, rank), (rank, size), (tokens, size))
        yield *(random.integers(1, 6, shape).astype(float) for shape in shapes), scale


def _gradient(x, a, b, upstream, scale):
    return scale * x.T @ (upstream @ b.T)


def _kernels():
    """A kernel, factors of rank 2 or more, and alpha."""
    yield np.zeros((2, 2)), np.eye(2), np.eye(2), 2
    random = np.random.default_rng(15)
    for size, rank, alpha in ((2, 2, 8), (3, 2, 1), (4, 3, 6)):
        shapes = (size, size), (size, rank), (rank, size)
        yield *(random.integers(-3, 4, shape).astype(float) for shape in shapes), alpha


def _merged(kernel, a, b, alpha):
    return kernel + alpha / a.shape[1] * (a @ b)


def _weights():
    """Weights as the preprocessor makes them, and how many tokens `<s>` and the question are."""
    for question, answer, padding in ((1, 1, 0), (2, 2, 0), (3, 2, 2), (4, 4, 3)):
        yield np.arange(question + answer + padding) < question + answer, question


def _masked(weights, question_tokens):
    return weights & (np.arange(len(weights)) >= question_tokens - 1)


EXERCISES = [
    Value(
        name="lora.by_hand",
        kind="trace by hand",
        minutes=4,
        difficulty=1,
        solution=[22, 6],
        mistakes=(
            ([16, 8], "the update is multiplied by alpha / r, and that is 2 here."),
            ([12, -4], "that is the update alone; add x W."),
            ([10, 10], "that is x W; LoRA adds to it."),
            ([14, 6], "multiply both numbers of B by what x A gave."),
        ),
        hints=(
            "Three small products: x A is one number, that times B is two, then the scale.",
            "x A = 1·1 + 2·0 + 0·2 + 1·1 = 2.",
            "[10 + 2 * 2 * 3, 10 + 2 * 2 * -1]",
        ),
    ),
    Estimate(
        name="lora.parameters",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=ADAPTER_7B / 1e6,
        factor=1.03,
        unit="million numbers",
        mistakes=(
            (16 * 32 * (8192 + 5120) / 1e6, "that is query and value alone. There are seven."),
            (16 * BORDERS_7B / 1e6, "that is one block of 32."),
            (BORDERS_7B * 32 / 1e6, "that is rank 1; here it is 16."),
            (16 * 32 * 7 * 8192 / 1e6, "not every projection is 4,096 × 4,096."),
        ),
        hints=(
            "A projection from D to F gets r (D + F) numbers.",
            "D + F is 8,192 twice, 5,120 twice and 18,432 three times: 81,920 a block.",
            "16 * 32 * (2 * 8192 + 2 * 5120 + 3 * 18432) / 1e6",
        ),
    ),
    Estimate(
        name="lora.memory",
        kind="estimate",
        minutes=4,
        difficulty=2,
        solution=(2 * MISTRAL_7B + 16 * ADAPTER_7B) / 1e9,
        factor=1.04,
        unit="GB",
        mistakes=(
            (16 * MISTRAL_7B / 1e9, "that is training all of it: only the adapter needs 16 bytes."),
            (16 * ADAPTER_7B / 1e9, "the frozen weights are in memory, too, to be computed with."),
            (2 * MISTRAL_7B / 1e9, "the adapter takes room, too, with its gradients and moments."),
            (0.7, "the frozen weights are in memory, too, to be computed with."),
            (
                (4 * MISTRAL_7B + 16 * ADAPTER_7B) / 1e9,
                "frozen weights may be bfloat16: 2 bytes each.",
            ),
            (18 * MISTRAL_7B / 1e9, "gradients and moments are kept for trained numbers alone."),
        ),
        hints=(
            "Two kinds of numbers: frozen ones in bfloat16, trained ones with all that Adam keeps.",
            "7.24 billion times 2 bytes, and 42 million times 16.",
            "(2 * 7.24e9 + 16 * 42e6) / 1e9",
        ),
    ),
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
            "upstream @ b.T has a number for each token and rank; then x.T gathers the tokens.",
            "scale * x.T @ (upstream @ b.T)",
        ),
    ),
    Estimate(
        name="lora.flops",
        kind="estimate",
        minutes=3,
        difficulty=1,
        solution=100 * 4 * (4096 + 4096) / 4096**2,
        factor=1.05,
        unit="per cent",
        mistakes=(
            (100 * 4 / 4096, "two thin products, with A and with B: you counted one."),
            (4 * (4096 + 4096) / 4096**2, "that is the fraction; per cent are asked for."),
            (100.0, "A @ B would have as many numbers as W, but it is never made."),
        ),
        hints=(
            "Every number of a matrix costs a token two FLOPs, in W as in A and B.",
            "So compare sizes: 4 (4,096 + 4,096) against 4,096 × 4,096.",
            "100 * 4 * (4096 + 4096) / 4096**2",
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
            "weights & (np.arange(len(weights)) >= question_tokens - 1)",
        ),
    ),
    Function(
        name="lora.bug",
        kind="find the bug",
        minutes=4,
        difficulty=2,
        solution=_merged,
        cases=_kernels,
        mistakes={
            "is the function as it was: alpha is not yet the scale.": (
                lambda kernel, a, b, alpha: kernel + alpha * (a @ b)
            ),
            "leaves alpha out.": lambda kernel, a, b, alpha: kernel + a @ b,
            "divides by the number of inputs; the rank is the other axis of A.": (
                lambda kernel, a, b, alpha: kernel + alpha / len(a) * (a @ b)
            ),
            "scales the kernel, too.": (
                lambda kernel, a, b, alpha: alpha / a.shape[1] * (kernel + a @ b)
            ),
        },
        hints=(
            "What is the update multiplied by while the model trains?",
            "alpha / r, and r is the number of columns of A.",
            "kernel + alpha / a.shape[1] * (a @ b)",
        ),
    ),
    Line(
        name="lora.library",
        kind="read the library",
        minutes=4,
        difficulty=2,
        function=Projection.enable_lora,
        line="common =",
        wrong={
            "# autocast": "this line says so; which one does so?",
            "self.lora_kernel_a": "here the call begins. In which line do its arguments stand?",
            "self.kernel": "this line freezes the kernel.",
            "(rank, self": "this line makes B zero at the start.",
        },
        hints=(
            "A dtype policy may change numbers in two places: as they are stored, and before use.",
            "Look for a dtype that is named, and for a cast that is switched off.",
            "Find autocast=False outside of the comment.",
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

"""The exercises of chapter 14, "LoRA"."""

from __future__ import annotations

import numpy as np

from mistral_lib.teaching.exercises.kinds import Estimate, Experiment, Explanation, Function, Value

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
            "Add alpha / r times (x A) B to x W. What are alpha and r here?",
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
            "Two kinds of numbers: frozen ones in bfloat16, and trained ones with all that Adam keeps.",
            "A frozen number has no gradient and no moments. How many bytes does it take?",
            "Add 16 bytes for each number of the adapter to 2 bytes for each of the model.",
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
            "upstream @ b.T has a number for each token and rank; the inputs of all tokens have still "
            "to be gathered.",
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
        solution=((1.5, 1.3), "c"),
        within=0.06,
        claims={
            "a": "The first direction alone does nearly all that eight do.",
            "b": "With one direction most is gone, so a training with rank 1 could not learn it.",
            "c": "With one direction much is gone, but a training with rank 1 might still learn it.",
        },
        refusals={
            "a": "compare the cost with one direction to that of all eight.",
            "b": "this adapter was trained to use eight directions. Cutting seven of them off says "
            "nothing about what a training finds that has only one from the start.",
        },
        others=(),
        hints=(
            "The best matrix of rank k keeps the k strongest directions of the change and drops "
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
        solution=((1.5, 1.45), "b"),
        within=0.06,
        claims={
            "a": "Half the adapter learned half as much and forgot half as much.",
            "b": "Half the adapter keeps most of what was learned and gives back more than half "
            "of what was forgotten.",
            "c": "Half the adapter loses most of what was learned, and has forgotten as much.",
        },
        refusals={
            "a": "compute what base and after make of your two numbers: neither share is a half.",
            "c": "compute what base and after make of your two numbers.",
        },
        others=(),
        hints=(
            "The update is a product, so half of B is half of the update, as if $\\alpha$ were "
            "half as large.",
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
            "a.shape has two numbers. With a kernel of 2 × 2 and rank 2 both are 2, so try another.",
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

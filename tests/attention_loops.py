"""Attention by plain loops in float64: what every attention path is compared with."""

import functools

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Var

# Tests compile many small programs once each: optimizing them would cost more than it saves.
QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}

PADDINGS = ("none", "right", "left", "holes", "all")


def inputs(length, key_heads, group, head_dim=4, seed=0):
    """Query, key, value and a cotangent of the output, one row for each kind of padding."""
    random = np.random.default_rng(seed)
    rows = len(PADDINGS)
    query, cotangent = random.normal(size=(2, rows, length, key_heads, group, head_dim))
    key, value = random.normal(size=(2, rows, length, key_heads, head_dim))
    return tuple(array.astype("float32") for array in (2 * query, key, value, cotangent))


def padding_mask(length, seed=0):
    """One row for each kind of padding, with random amounts."""
    random = np.random.default_rng(seed)
    places = np.arange(length)
    return np.stack(
        [
            np.ones(length, bool),
            places < random.integers(1, length + 1),
            places >= random.integers(0, length),
            random.random(length) < 0.6,
            np.zeros(length, bool),
        ]
    )


def sees(i, j, window):
    """The predicate: whether query i sees key j."""
    distance = i - j
    return distance >= 0 if window is None else 0 <= distance < window


def loops(query, key, value, real, window, cotangent=None):
    """Attention one query at a time; with a cotangent, the gradients by query, key and value too.

    A query that sees no key gets zeros.
    """
    query, key, value = (np.asarray(array, "float64") for array in (query, key, value))
    batch, length, key_heads, group, head_dim = query.shape
    output = np.zeros_like(query)
    gradients = np.zeros_like(query), np.zeros_like(key), np.zeros_like(value)
    for b, i, k, g in np.ndindex(batch, length, key_heads, group):
        seen = [j for j in range(length) if real[b, j] and sees(i, j, window)]
        if not seen:
            continue
        keys, values = key[b, seen, k], value[b, seen, k]
        scores = keys @ query[b, i, k, g] / np.sqrt(head_dim)
        weights = np.exp(scores - scores.max())
        weights /= weights.sum()
        output[b, i, k, g] = weights @ values
        if cotangent is not None:
            by_output = np.asarray(cotangent[b, i, k, g], "float64")
            by_weights = values @ by_output
            by_scores = weights * (by_weights - weights @ by_weights) / np.sqrt(head_dim)
            gradients[0][b, i, k, g] = by_scores @ keys
            gradients[1][b, seen, k] += np.outer(by_scores, query[b, i, k, g])
            gradients[2][b, seen, k] += np.outer(weights, by_output)
    return output if cotangent is None else (output, *gradients)


@functools.cache
def with_gradients(path, **options):
    """`path` compiled: its output and its gradients by query, key and value."""

    def run(query, key, value, cotangent, real):
        def attend(*arrays):
            return path(*arrays, real, **options)

        output, pullback = jax.vjp(attend, query, key, value)
        return output, *pullback(cotangent)

    return jax.jit(run, compiler_options=QUICKLY)


def assert_equal(found, expected, tolerance=2e-5):
    """Compares an output and its gradients with those of the loops, by name."""
    for name, ours, theirs in zip(("output", "query", "key", "value"), found, expected):
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance, err_msg=name)


def inner_jaxprs(equation):
    """The bodies of loops, branches and calls."""
    for value in equation.params.values():
        for each in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(each, (Jaxpr, ClosedJaxpr)):
                yield getattr(each, "jaxpr", each)


def largest_from(function, arrays, index):
    """Size of the largest array that `function` makes of `arrays[index]` without the others."""
    closed = jax.make_jaxpr(function)(*arrays)
    sizes = [arrays[index].size]

    def walk(jaxpr, sources):
        """`sources`: for each input, which of the arrays it is made of."""
        made_of = dict(zip(jaxpr.invars, sources))
        for equation in jaxpr.eqns:
            known = [
                made_of.get(v, frozenset()) if isinstance(v, Var) else frozenset()
                for v in equation.invars
            ]
            for inner in inner_jaxprs(equation):
                # A conditional's branches do not get its first operand, the condition.
                walk(inner, known[len(known) - len(inner.invars) :])
            together = frozenset().union(*known)
            made_of.update((v, together) for v in equation.outvars)
            if together == {index}:
                sizes.extend(v.aval.size for v in equation.outvars)

    walk(closed.jaxpr, [frozenset([place]) for place in range(len(arrays))])
    return max(sizes)


def dtypes_of(jaxpr, operation):
    """The dtypes on which a traced program runs an operation, inside calls too."""
    found = set()
    for equation in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if equation.primitive.name == operation:
            found.add(str(equation.invars[0].aval.dtype))
        for inner in inner_jaxprs(equation):
            found |= dtypes_of(inner, operation)
    return found

"""Token embedding: rows out, float32 logits back, and no float32 copy of the weights."""

import re

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest

from mistral_lib.layers.embedding import TokenEmbedding

POLICIES = ["float32", "bfloat16", "float16", "mixed_bfloat16", "mixed_float16"]


def built(tie_weights, dtype="float32", vocabulary_size=7, hidden_dim=4):
    embedding = TokenEmbedding(vocabulary_size, hidden_dim, tie_weights=tie_weights, dtype=dtype)
    embedding.build()
    random = np.random.default_rng(0)
    for weight in embedding.weights:
        weight.assign(random.normal(size=weight.shape))
    return embedding


def projection(embedding):
    kernel = embedding.embeddings if embedding.tie_weights else embedding.reverse_embeddings
    kernel = np.asarray(jnp.asarray(kernel.value, embedding.compute_dtype), "float64")
    return kernel.T if embedding.tie_weights else kernel


@pytest.mark.parametrize("tie_weights", [False, True])
def test_looks_up_rows_and_projects_back(tie_weights):
    embedding = built(tie_weights)
    ids = np.array([[1, 6, 0]])
    vectors = embedding(ids)
    np.testing.assert_array_equal(vectors, np.asarray(embedding.embeddings.value)[ids])
    expected = np.asarray(vectors, "float64") @ projection(embedding)
    np.testing.assert_allclose(embedding(vectors, reverse=True), expected, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "mixed_float16"])
@pytest.mark.parametrize("tie_weights", [False, True])
def test_logits_are_float32_and_not_rounded(tie_weights, dtype):
    embedding = built(tie_weights, dtype)
    vectors = embedding(np.array([[1, 2, 3]]))
    assert vectors.dtype == embedding.compute_dtype
    logits = embedding(vectors, reverse=True)
    assert logits.dtype == "float32"
    # Products of two bfloat16 numbers are exact in float32, and so is the sum nearly: rounded to
    # bfloat16, the logits would be wrong in the third digit.
    expected = np.asarray(vectors, "float64") @ projection(embedding)
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", POLICIES)
def test_symbolic_dtypes_are_the_real_ones(dtype):
    embedding = TokenEmbedding(7, 4, tie_weights=False, dtype=dtype)
    vectors = embedding(keras.Input((None,), dtype="int32"))
    logits = embedding(vectors, reverse=True)
    assert (vectors.shape, vectors.dtype) == ((None, None, 4), embedding.compute_dtype)
    assert (logits.shape, logits.dtype) == ((None, None, 7), "float32")


def float32_kernels(function, embedding, vectors):
    """Arrays of the size of the kernel that a traced program makes in float32."""
    # The logits have another size, since there is another number of tokens than of features.
    text = str(jax.make_jaxpr(function)(vectors))
    size = embedding.input_dim * embedding.output_dim
    shapes = re.findall(r"f32\[([\d,]+)\]", text)
    return [shape for shape in shapes if np.prod([int(n) for n in shape.split(",")]) == size]


@pytest.mark.slow
@pytest.mark.parametrize("tie_weights", [False, True])
def test_the_kernel_is_never_float32_in_a_bfloat16_model(tie_weights):
    embedding = built(tie_weights, "bfloat16", vocabulary_size=97, hidden_dim=32)
    vectors = jnp.ones((1, 3, 32), "bfloat16")

    def copying(x):
        return jnp.matmul(x.astype("float32"), jnp.ones((32, 97), "bfloat16").astype("float32"))

    assert float32_kernels(copying, embedding, vectors)
    assert not float32_kernels(lambda x: embedding(x, reverse=True), embedding, vectors)


@pytest.mark.parametrize(("tie_weights", "count"), [(False, 56), (True, 28)])
def test_both_matrices_are_counted(tie_weights, count):
    assert built(tie_weights).count_params() == count


@pytest.mark.slow
def test_a_tied_embedding_learns_from_both_ends():
    embedding = built(tie_weights=True)

    def loss(state):
        vectors = embedding.stateless_call(state, [], np.array([[1]]))[0]
        return embedding.stateless_call(state, [], vectors, reverse=True)[0].sum()

    gradient = jax.grad(loss)([v.value for v in embedding.trainable_variables])[0]
    assert all(row.any() for row in gradient)


@pytest.mark.parametrize("option", [{"reverse_dtype": "float16"}, {"logit_soft_cap": 30.0}])
def test_options_of_keras_that_it_would_ignore_are_refused(option):
    with pytest.raises(ValueError, match=f"does not use {next(iter(option))}"):
        TokenEmbedding(7, 4, **option)


def test_config_round_trip():
    embedding = TokenEmbedding(7, 4, tie_weights=False, name="token_embedding", dtype="bfloat16")
    again = TokenEmbedding.from_config(embedding.get_config())
    assert again.get_config() == embedding.get_config()

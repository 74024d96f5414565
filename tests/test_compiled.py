"""mistral_lib/generation/compiled.py: weights as arguments, and calls that can be looked at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from decoding_models import make_backbone

from mistral_lib.generation.compiled import CompiledFunction, array_tree, watch

IDS = jnp.array([[1, 2, 3]])


@pytest.fixture(scope="module")
def backbone():
    return make_backbone()


def embedding_of(backbone, **kwargs):
    def _embed(ids):
        return backbone.token_embedding(ids)

    return CompiledFunction(_embed, backbone, **kwargs)


def test_computes_with_the_weights_of_the_moment(backbone):
    compiled = embedding_of(backbone, donate=False)
    table = backbone.token_embedding.embeddings
    with watch() as calls:
        before = np.array(compiled(IDS))
        original = np.array(table.value)
        table.assign(-original)
        after = np.array(compiled(IDS))
        table.assign(original)
    np.testing.assert_array_equal(before, original[IDS])
    np.testing.assert_array_equal(after, -before)
    assert [call.compiled for call in calls] == [True, False]


def test_weights_are_arguments_of_the_program(backbone):
    text = embedding_of(backbone, donate=False).lower(IDS).as_text()
    assert "module @jit_embed" in text
    assert f"tensor<{'x'.join(map(str, backbone.token_embedding.embeddings.shape))}xf32>" in text
    assert "dense<[[" not in text
    assert 'dense<"0x' not in text


def test_two_models_in_one_function():
    first, second = make_backbone(0), make_backbone(1)

    def difference(ids):
        return first.token_embedding(ids) - second.token_embedding(ids)

    got = CompiledFunction(difference, first, second, donate=False)(IDS)
    expected = first.token_embedding(IDS) - second.token_embedding(IDS)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize("donate", [True, False])
def test_the_first_argument_is_used_up_if_it_may_be(backbone, donate):
    def add(array, other):
        return array + other

    array, other = jnp.ones(4), jnp.ones(4)
    CompiledFunction(add, backbone, donate=donate)(array, other)
    assert array.is_deleted() == donate
    assert not other.is_deleted()


def test_calls_are_seen_in_every_block_that_is_open(backbone):
    compiled = embedding_of(backbone, donate=False)
    compiled(IDS)
    with watch() as outer:
        compiled(IDS)
        with watch() as inner:
            compiled(jnp.array([[1, 2]]))
    compiled(IDS)
    assert [call.arguments[0].shape for call in outer] == [(1, 3), (1, 2)]
    assert inner == outer[1:]
    assert [call.compiled for call in outer] == [False, True]
    assert outer[0].name == "embed"


def test_a_block_is_closed_by_an_error(backbone):
    compiled = embedding_of(backbone, donate=False)
    with pytest.raises(ZeroDivisionError), watch() as calls:
        raise ZeroDivisionError
    compiled(IDS)
    assert calls == []


def test_a_program_can_be_lowered_when_its_arguments_are_used_up(backbone):
    """Typed keys, numbers of Python and what is `None` keep their places."""

    @array_tree
    class State:
        keys: jax.Array
        scale: float
        nothing: None

    def scale(state, number):
        draws = jax.vmap(jax.random.uniform)(state.keys)
        return State(state.keys, state.scale * number, None), draws

    compiled = CompiledFunction(scale, backbone)
    with watch() as calls:
        compiled(State(jax.random.split(jax.random.key(0), 3), 0.5, None), np.int32(2))
    assert calls[0].arguments[0].keys.shape == (3,)
    assert calls[0].lower().out_info[1].shape == (3,)
    with watch() as again:
        compiled(State(jax.random.split(jax.random.key(1), 3), 0.7, None), np.int32(9))
    assert not again[0].compiled

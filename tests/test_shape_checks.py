"""tools/shape_checks.py: swapped axes and wrong dtypes fail in the tests, and all else passes."""

import inspect

import jax
import jax.numpy as jnp
import keras
import numpy as np
import pytest
from jaxtyping import TypeCheckError
from small_presets import INPUTS, small_backbone, small_causal_lm

import mistral_lib
from mistral_lib.forward import forward
from mistral_lib.generation.cache import extend, new_cache, slot_positions
from mistral_lib.layers.attention import PATHS
from mistral_lib.layers.banded import attend_by_position
from mistral_lib.layers.dense import masked_softmax
from mistral_lib.layers.rotary import rotary_angles, rotate
from mistral_lib.masks import attention_mask
from mistral_lib.training_loss import token_losses

QUERY, KEY = np.ones((2, 5, 2, 3, 4), "float32"), np.ones((2, 5, 2, 4), "float32")


def swapped(array, one=1, other=2):
    return np.swapaxes(array, one, other)


@pytest.mark.parametrize("path", ["dense", "banded"])
@pytest.mark.parametrize(
    "arguments",
    [
        (swapped(QUERY), KEY, KEY),
        (QUERY, swapped(KEY), KEY),
        (QUERY, KEY, swapped(KEY)),
        (QUERY, KEY, KEY, np.ones((5, 2), bool)),
        (QUERY, KEY, KEY, np.ones((2, 5), int)),
    ],
)
def test_attention(path, arguments):
    PATHS[path](QUERY, KEY, KEY, np.ones((2, 5), bool), 3)
    with pytest.raises(TypeCheckError):
        PATHS[path](*arguments)


def test_layers():
    backbone = small_backbone()
    block = backbone.transformer_layers[0]
    states = np.ones((2, 7, 8), "float32")
    for layer in (block, block.self_attention):
        with pytest.raises(TypeCheckError):
            layer(states, padding_mask=np.ones((7, 2), bool))
    with pytest.raises(TypeCheckError):
        block.feedforward(states[0])
    with pytest.raises(TypeCheckError):
        rotate(QUERY[..., 0, :], rotary_angles(np.arange(4), 4))
    with pytest.raises(TypeCheckError):
        rotary_angles(np.arange(4) / 2, 4)
    with pytest.raises(TypeCheckError):
        masked_softmax(np.ones((2, 3), "float32"), np.ones((3, 2), bool))
    with pytest.raises(TypeCheckError):
        attention_mask(np.arange(3), np.arange(4), key_mask=np.ones(3, bool))


def test_generation():
    backbone = small_backbone()
    cache = new_cache(backbone, 2, 16)
    with pytest.raises(TypeCheckError):
        extend(backbone, cache, jnp.ones((2, 3), "int32"), counts=jnp.ones((2, 1), "int32"))
    with pytest.raises(TypeCheckError):
        extend(backbone, cache, jnp.ones((2, 3), "float32"))
    with pytest.raises(TypeCheckError):
        slot_positions(jnp.ones((2, 1), "int32"), slots=3)
    keys, places = np.ones((2, 2, 6, 4), "float32"), np.zeros((2, 6), int)
    visible, positions = np.ones((2, 6), bool), np.zeros((2, 5), int)
    attend_by_position(QUERY, keys, keys, positions, places, None, visible)
    with pytest.raises(TypeCheckError):
        attend_by_position(QUERY, swapped(keys), keys, positions, places, None, visible)
    with pytest.raises(TypeCheckError):
        attend_by_position(QUERY, keys, keys, positions, places, None, visible[:, :5])


def test_scoring():
    model = small_causal_lm(preprocessor=None)
    ids, states = np.ones((2, 7), int), jnp.ones((2, 7, 8))
    token_losses(model.backbone.token_embedding, states, ids)
    with pytest.raises(TypeCheckError):
        token_losses(model.backbone.token_embedding, states, ids.T)
    with pytest.raises(TypeCheckError):
        forward(model.backbone, ids, padding_mask=np.ones((7, 2), bool))
    with pytest.raises(TypeCheckError):
        model.score(ids, layer_intercept_fn=lambda x, index: x.swapaxes(0, 1))


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_float16", "int8_from_float32"])
def test_tracers_symbolic_dimensions_and_low_precision_pass(dtype):
    backbone = small_backbone()
    if dtype.startswith("int8"):
        backbone.quantize("int8")
    else:
        backbone = small_backbone(dtype=dtype)
    keras.Model(backbone.input, backbone.output)
    jax.jit(backbone)(INPUTS)
    jax.jit(jax.grad(lambda x: backbone.transformer_layers[0](x).sum()))(jnp.ones((2, 3, 8)))
    jax.eval_shape(backbone, INPUTS)


def test_the_source_that_a_reader_sees_has_no_decorators():
    assert inspect.getsource(rotate).startswith("def rotate(")
    assert "shape_checks" not in inspect.getsource(mistral_lib.layers.dense)

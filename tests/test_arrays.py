"""mistral_lib/arrays.py: the words that signatures are written with."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from mistral_lib.arrays import Array, Float, Int
from shape_checks import checked


@checked
def joined(x: Float[Array, "B S"], y: Int[Array, "B T"]) -> Float[Array, "B S+T"]:
    return np.concatenate([np.asarray(x), y.astype(x.dtype)], axis=1)


@pytest.mark.parametrize("library", [np, jnp])
@pytest.mark.parametrize("dtype", ["float32", ml_dtypes.bfloat16])
def test_a_letter_has_one_value(library, dtype):
    x = library.ones((2, 3), dtype)
    assert joined(x, np.zeros((2, 4), int)).shape == (2, 7)
    with pytest.raises(TypeCheckError):
        joined(x, np.zeros((3, 4), int))
    with pytest.raises(TypeCheckError):
        joined(x, np.zeros((2, 4)))

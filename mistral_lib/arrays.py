"""Shapes and dtypes in signatures (chapter 11, "The block and the residual stream").

`Float[Array, "B S D"]` is an array of floats with three axes, and a letter means the same size
everywhere in a signature. `*rows` stands for any number of axes, `...` for axes without a name,
`_` for an axis of any size, and `#` before a name allows the size 1. Nothing is checked when the
library runs; its tests check every call.

>>> def first(x: Float[Array, "B S D"]) -> Float[Array, "B D"]:
...     return x[:, 0]
"""

import jax
import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Key, Shaped, UInt8

Array = jax.Array | np.ndarray  # JAX takes both; what it returns is its own

__all__ = ["Array", "Bool", "Float", "Float32", "Int", "Key", "Shaped", "UInt8"]

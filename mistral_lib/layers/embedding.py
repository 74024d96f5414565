"""From token ids to vectors and back to logits (chapter 3, "Embeddings and back")."""

from typing import Any

import jax.numpy as jnp
import keras

from mistral_lib.arrays import Array, Float, Int
from mistral_lib.layers.quantizable import Quantizable
from mistral_lib.layers.quantized import lookup, matmul


@keras.saving.register_keras_serializable(package="mistral_lib")
class TokenEmbedding(Quantizable, keras.layers.ReversibleEmbedding):  # pyright: ignore[reportIncompatibleMethodOverride]  # in Keras, shapes have other names
    """A lookup table of token vectors, and the projection from vectors back to the vocabulary.

    Differs from Keras's layer in one thing: the logits are float32 whatever the dtype policy, and
    the weights are not copied to float32 for that. Only the sums of the product are.

    Args: as `keras.layers.ReversibleEmbedding`, without `reverse_dtype` and `logit_soft_cap`;
        Mistral uses `tie_weights=False`.

    Call arguments:
        inputs: token ids (B, S), or with `reverse=True` hidden states (B, S, D).
        reverse: whether to project back to the vocabulary.

    Returns:
        Vectors (B, S, D) in the compute dtype; with `reverse=True` float32 logits (B, S, V).

    Source: Press and Wolf, "Using the Output Embedding to Improve Language Models", 2016.

    >>> import numpy as np
    >>> embedding = TokenEmbedding(10, 4, dtype="bfloat16")
    >>> vectors = embedding(np.array([[1, 2, 3]]))
    >>> logits = embedding(vectors, reverse=True)
    >>> vectors.shape, str(vectors.dtype), logits.shape, str(logits.dtype)
    ((1, 3, 4), 'bfloat16', (1, 3, 10), 'float32')
    """

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        for name in ("reverse_dtype", "logit_soft_cap"):
            if getattr(self, name) is not None:
                raise ValueError(
                    f"TokenEmbedding does not use {name}, but it is {getattr(self, name)!r}. The "
                    "logits are float32 sums, and they are not capped."
                )

    @property
    def matrices(self) -> dict:
        """The table, stored transposed, and without tied weights the projection."""
        table = {"embeddings": {"pairs": "rows", "transposed": True}}
        if self.tie_weights:
            return table
        return {**table, "reverse_embeddings": {"pairs": "rows"}}

    @property
    def matrix_shape(self) -> tuple[int, int]:
        """(D, V)."""
        return self.output_dim, self.input_dim

    def call(
        self, inputs: Int[Array, "B S"] | Float[Array, "B S D"], reverse: bool = False
    ) -> Float[Array, "B S _"]:
        if not reverse:
            return jnp.asarray(super().call(inputs))
        kernel = jnp.asarray(
            self.embeddings if self.tie_weights else self.reverse_embeddings, self.compute_dtype
        )
        rows = jnp.asarray(inputs, self.compute_dtype).reshape(-1, self.output_dim)
        logits = jnp.matmul(
            rows,
            kernel.T if self.tie_weights else kernel,  # (D, V)
            preferred_element_type="float32",
        )
        return logits.reshape(*inputs.shape[:-1], self.input_dim)

    def quantized_call(
        self, inputs: Int[Array, "B S"] | Float[Array, "B S D"], reverse: bool = False
    ) -> Float[Array, "B S _"]:
        if not reverse:
            indices = jnp.asarray(inputs, "int32")
            return lookup(self.quantized_matrix("embeddings"), indices, self.compute_dtype)
        name = "embeddings" if self.tie_weights else "reverse_embeddings"
        return matmul(jnp.asarray(inputs, self.compute_dtype), self.quantized_matrix(name))

    def compute_output_spec(
        self, inputs: keras.KerasTensor, reverse: bool = False
    ) -> keras.KerasTensor:
        spec = super().compute_output_spec(inputs, reverse=reverse)
        return keras.KerasTensor(spec.shape, dtype="float32") if reverse else spec

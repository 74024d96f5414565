"""A linear map of every token (chapter 14, "LoRA")."""

import keras


@keras.saving.register_keras_serializable(package="mistral_lib")
class Projection(keras.layers.EinsumDense):
    """`x @ kernel` for every token, with a 2-D kernel and no bias.

    Heads are made by a reshape afterwards, never by a 3-D kernel: the LoRA factors of a 2-D kernel
    have the shapes of the paper and of PEFT, and decoding is a plain matrix-vector product.

    Args:
        units: size of the output.
        **kwargs: `name`, `dtype`, `trainable` and `kernel_initializer`, which by default draws
            from a normal distribution of standard deviation 0.02.

    Call arguments:
        inputs: float array (B, S, D).

    Returns:
        A float array (B, S, units).

    >>> import numpy as np
    >>> Projection(6)(np.ones((2, 3, 4))).shape
    (2, 3, 6)
    """

    def __init__(self, units: int, **kwargs):
        kwargs.setdefault("kernel_initializer", keras.initializers.RandomNormal(stddev=0.02))
        super().__init__("bsd,df->bsf", output_shape=(None, units), **kwargs)
        self.units = units

    def get_config(self):
        config = super().get_config()
        for name in ("equation", "output_shape", "bias_axes", "activation"):
            config.pop(name, None)
        return {**config, "units": self.units}

"""A language model: logits for the next token (chapter 1, "One token")."""

import keras

from mistral_lib.backbone import MistralBackbone, standardize_inputs


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralCausalLM(keras.Model):
    """The backbone and its output projection: float32 logits of the next token at every position.

    Compiled on construction with Adam and cross-entropy, so that `fit` works at once; call
    `compile` for other settings.

    Args:
        backbone: a `MistralBackbone`.
        preprocessor: a `MistralCausalLMPreprocessor`, with which `fit`, `evaluate`, `predict` and
            `generate` take text; `None` for token ids only.
        **kwargs: `name` and `trainable`.

    Call arguments:
        inputs: as `MistralBackbone`.

    Returns:
        Logits (B, S, V), float32 whatever the dtype policy.

    >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
    >>> model = MistralCausalLM(backbone)
    >>> model({"token_ids": [[1, 2, 3]], "padding_mask": [[1, 1, 1]]}).shape
    (1, 3, 10)
    """

    def __init__(self, backbone: MistralBackbone, preprocessor=None, **kwargs):
        if not isinstance(backbone, MistralBackbone):
            raise TypeError(f"backbone must be a MistralBackbone, but is {backbone!r}.")
        super().__init__(
            inputs=backbone.input,
            outputs=backbone.token_embedding(backbone(backbone.input), reverse=True),
            **kwargs,
        )
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.compile(
            optimizer=keras.optimizers.Adam(2e-5),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            weighted_metrics=[keras.metrics.SparseCategoricalAccuracy()],
        )

    def __call__(self, inputs, *args, **kwargs):
        return super().__call__(standardize_inputs(inputs), *args, **kwargs)

    def get_config(self):
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

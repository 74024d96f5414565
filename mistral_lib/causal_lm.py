"""A language model: logits for the next token (chapter 1, "One token")."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import keras

from mistral_lib.backbone import MistralBackbone
from mistral_lib.generation.generate import TextGeneration
from mistral_lib.generation.loops import Loops
from mistral_lib.inputs import check_ids, standardize_call_inputs
from mistral_lib.keras_inside import closing_scopes
from mistral_lib.layers.configured import SetOnce
from mistral_lib.preprocessor import MistralCausalLMPreprocessor
from mistral_lib.presets import gguf_export
from mistral_lib.presets.exporting import export_causal_lm
from mistral_lib.presets.loading import load_causal_lm
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.registry import PresetTable
from mistral_lib.presets.saving import save_causal_lm
from mistral_lib.quantization import QuantizableModel
from mistral_lib.scoring import Scoring
from mistral_lib.tokenizer import TOKENIZERS
from mistral_lib.training_loss import TrainingLoss


@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralCausalLM(TextGeneration, Scoring, TrainingLoss, QuantizableModel):  # pyright: ignore[reportIncompatibleMethodOverride, reportIncompatibleVariableOverride]  # Keras's quantize takes a mode; preprocessor is a property
    """The backbone and its output projection: float32 logits of the next token at every position.

    Compiled on construction with Adam and cross-entropy, so that `fit` works at once; call
    `compile` for other settings.

    Args:
        backbone: a `MistralBackbone`.
        preprocessor: a `MistralCausalLMPreprocessor`, with which `fit`, `evaluate`, `predict` and
            `generate` take text; `None` for token ids only.
        end_token_ids: ids besides the tokenizer's end token that end a continuation;
            `from_preset` takes them from a checkpoint's generation_config.json.
        compile: whether to compile the model.
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

    presets = PresetTable()
    backbone = SetOnce()  # pyright: ignore[reportAssignmentType]  # it holds one

    def __init__(
        self,
        backbone: MistralBackbone,
        preprocessor: MistralCausalLMPreprocessor | None = None,
        end_token_ids: Sequence[int] = (),
        compile: bool = True,
        **kwargs: Any,
    ):
        if not isinstance(backbone, MistralBackbone):
            raise TypeError(f"backbone must be a MistralBackbone, but is {backbone!r}.")
        ends = check_ids("end_token_ids", end_token_ids, backbone.vocabulary_size)
        super().__init__(
            inputs=backbone.input,
            outputs=backbone.token_embedding(backbone(backbone.input), reverse=True),
            **kwargs,
        )
        # By its name Keras decides in `compile` whether the loss needs scaling (mixed_float16).
        self.dtype_policy = backbone.dtype_policy
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.end_token_ids = ends
        self._loops = Loops(backbone)
        if compile:
            self.compile()

    @closing_scopes
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = standardize_call_inputs(inputs, self.backbone.vocabulary_size)
        return super().__call__(inputs, *args, **kwargs)

    @property
    def trainable(self) -> bool:
        """Whether the backbone is trained; the model itself has no other weights."""
        return self.backbone.trainable if hasattr(self, "backbone") else super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if hasattr(self, "backbone"):
            self.backbone.trainable = value
        elif not value:  # Keras's constructor sets it before there is a backbone
            for layer in self.layers:
                layer.trainable = False

    def fit(
        self, x: Any = None, y: Any = None, *args: Any, validation_data: Any = None, **kwargs: Any
    ) -> keras.callbacks.History:
        """Keras's `fit`, on text too: a list of str becomes inputs, labels and weights."""
        self._check_trainable(kwargs.get("class_weight"))
        x, y, weights = self._arrays(x, y, kwargs.pop("sample_weight", None))
        validation_data = self._validation_arrays(validation_data)
        kwargs |= {} if weights is None else {"sample_weight": weights}
        return super().fit(x, y, *args, validation_data=validation_data, **kwargs)

    def evaluate(self, x: Any = None, y: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Keras's `evaluate`, on text too."""
        x, y, weights = self._arrays(x, y, kwargs.pop("sample_weight", None))
        kwargs |= {} if weights is None else {"sample_weight": weights}
        return super().evaluate(x, y, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Keras's `predict`, on text too: logits (B, S, V) of the packed texts."""
        return super().predict(self._arrays(x)[0], *args, **kwargs)

    def get_quantization_layer_structure(self, mode: str | None = None) -> dict[str, Any] | None:  # pyright: ignore[reportIncompatibleMethodOverride]  # Keras's returns None alone
        """The layers that Keras's calibrated quantizations, "gptq" and "awq", go through in turn.

        Source: `keras_hub.models.CausalLM.get_quantization_layer_structure`.
        """
        if mode not in ("gptq", "awq"):
            return None
        return {
            "pre_block_layers": [self.backbone.token_embedding],
            "sequential_blocks": self.backbone.transformer_layers,
        }

    @classmethod
    def from_preset(
        cls, preset: str | Path, load_weights: bool = True, **kwargs: Any
    ) -> "MistralCausalLM":
        """A model with the backbone, vocabulary and preprocessor of a preset.

        Args:
            preset: a name of `presets`, or the folder of a preset (a str or a path).
            load_weights: whether to load the weights; otherwise they are random.
            **kwargs: `preprocessor` and `end_token_ids`, to take others than the preset's, `name`,
                `trainable`, and the arguments of `MistralBackbone.from_preset`.

        Raises: as `MistralBackbone.from_preset`; a ValueError also for an encoder or a classifier,
            which has no output for tokens, and for a tokenizer of another model.
        """
        return load_causal_lm(
            cls,
            MistralBackbone,
            MistralCausalLMPreprocessor,
            TOKENIZERS,
            Preset.open(preset),
            load_weights,
            **kwargs,
        )

    def save_to_preset(self, preset_dir: str | Path, max_shard_size: float | None = 10) -> None:
        """Saves everything as a preset: see `MistralBackbone.save_to_preset`."""
        save_causal_lm(self, preset_dir, max_shard_size)

    def export_to_transformers(self, folder: str | Path, max_shard_size: float | None = 10) -> None:
        """Writes backbone and tokenizer as a checkpoint of Hugging Face transformers.

        `AutoModelForCausalLM` and `AutoTokenizer` open it: see
        `MistralBackbone.export_to_transformers`.
        """
        export_causal_lm(self, folder, max_shard_size)

    def export_to_gguf(self, path: str | Path, dtype: str = "F16") -> None:
        """Writes backbone and tokenizer as a GGUF file: see `MistralBackbone.export_to_gguf`.

        Raises:
            ValueError: a vocabulary that llama.cpp would use differently. Otherwise as
                `MistralBackbone.export_to_gguf`.
        """
        gguf_export.export_causal_lm(self, path, dtype)

    def get_config(self) -> dict[str, Any]:
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "preprocessor": keras.saving.serialize_keras_object(self.preprocessor),
            "end_token_ids": list(self.end_token_ids),
            "name": self.name,
            "trainable": self.trainable,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        config = dict(config)
        for name in ("backbone", "preprocessor"):
            config[name] = keras.saving.deserialize_keras_object(config[name])
        if config.get("trainable") == config["backbone"].trainable:
            del config["trainable"]  # the backbone keeps this, layer by layer
        return cls(**config)

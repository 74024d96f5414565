"""What every backbone can do: presets, LoRA, inputs as they come (chapter 12, "The backbone")."""

import os
from collections.abc import Collection, Hashable
from pathlib import Path
from typing import Any, Self, TypeVar

import keras

from mistral_lib import lora
from mistral_lib.inputs import (
    check_batch_ids,
    standardize_call_inputs,
    standardize_inputs,
)
from mistral_lib.keras_inside import closing_scopes, layers_inside
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.llama_cpp import LlamaCppExport
from mistral_lib.master_weights import MasterWeightsModel
from mistral_lib.presets import gguf_lora, lora_format, peft_format
from mistral_lib.presets.exporting import export_backbone
from mistral_lib.presets.loading import load_backbone
from mistral_lib.presets.preset import Preset
from mistral_lib.presets.registry import PresetTable
from mistral_lib.presets.saving import save_backbone
from mistral_lib.quantization import QuantizableModel, quantization_of
from mistral_lib.settings import set_settings


class Backbone(MasterWeightsModel, QuantizableModel, LlamaCppExport):
    """What every backbone can do: take token ids as they come, name its embedding, use presets.

    Attributes:
        presets: the built-in presets, a dictionary of name to description, number of parameters
            and source.
    """

    presets = PresetTable()
    context_length: int | None = None  # of a loaded checkpoint; exports contain it too
    _registered: "type[Backbone]"  # what `Backbone.from_preset` makes: see `register`

    @classmethod
    def from_preset(
        cls, preset: str | Path, load_weights: bool = True, **kwargs: Any
    ) -> "Backbone":
        """A backbone with the architecture and weights of a preset.

        The preset may be in KerasHub's format, a checkpoint of Hugging Face transformers (in
        safetensors, of the type mistral, ministral, ministral3 or mistral3), in Mistral's own
        format (`params.json`), or a GGUF file. Weights in eight bits with plain scales (fp8, int8)
        are converted to float as they are read. Only the text part of a multimodal model is read,
        and a warning names the rest.

        An encoder (such as e5-mistral) or a classifier has no output for tokens. The output of its
        backbone is tied to the embedding, so the backbone has exactly the parameters of the
        checkpoint and none are made up. The hidden states are what was trained; logits computed
        from them mean nothing.

        Args:
            preset: a name of `presets`, or the folder of a preset or a GGUF file (a str or a path).
            load_weights: whether to load the weights; otherwise they are random.
            **kwargs: `dtype`, by default Keras's global policy ("auto" takes what the files
                hold, bfloat16 where GGUF files hold quantized numbers, but float16 on GPUs without
                bfloat16); `quantization`, "int8" or "int4" as in `quantize`, to quantize each
                tensor as it is read, so that the float model is never in memory; and constructor
                arguments that replace the preset's.

        Returns:
            A `MistralBackbone`, also when called on `Backbone`.

        Raises:
            FileNotFoundError: no such folder, or a file of the preset is missing.
            MemoryError: the model does not fit; nothing was allocated.
            TypeError: an unknown keyword argument.
            ValueError: an unknown name, a preset of another model, a damaged preset, or an argument
                that does not fit the weights.
        """
        made = cls._registered if cls is Backbone else cls
        return load_backbone(made, Preset.open(preset), load_weights, **kwargs)

    def save_to_preset(self, preset_dir: str | Path, max_shard_size: float | None = 10) -> None:
        """Saves config and weights as a preset that opens here and in KerasHub.

        KerasHub has no place for the context length, the end tokens, the chat template and the
        added tokens of a loaded checkpoint. They are saved for this library, and KerasHub ignores
        them. A model that KerasHub would compute wrongly (its windows differ by layer, or it has
        `rope_scaling`) is saved under a class name that KerasHub does not know and so refuses.

        Either all files of the old preset are replaced, or none: if saving fails, the old preset is
        still there, and if the process dies, `from_preset` or the next save completes the save that
        had begun. Other files in the folder are kept.

        Args:
            preset_dir: a new or empty folder, or one that holds a preset.
            max_shard_size: GiB at which a weight file is full and another begins; `None` for one
                file of any size.

        Raises:
            FileExistsError: the folder holds other files than a preset's.
            OSError: the disk is full, or the folder cannot be written.

        >>> import tempfile
        >>> from mistral_lib import MistralBackbone
        >>> folder = tempfile.mkdtemp()
        >>> MistralBackbone(10, 1, 2, 8, 16, 1).save_to_preset(folder)
        >>> Backbone.from_preset(folder).hidden_dim
        8
        """
        save_backbone(self, preset_dir, max_shard_size)

    def export_to_transformers(self, folder: str | Path, max_shard_size: float | None = 10) -> None:
        """Writes config and weights as a checkpoint of Hugging Face transformers.

        It opens with `AutoModelForCausalLM.from_pretrained`, here with `from_preset`, and in every
        program that reads such checkpoints. Its type is mistral; or ministral, if some layers
        have a window and others none; or ministral3, if queries are scaled by their position.
        Files are replaced as by `save_to_preset`.

        Args:
            folder: a new or empty folder, or one that holds a checkpoint of transformers.
            max_shard_size: GiB at which a weight file is full and another begins; `None` for one
                file of any size.

        Raises:
            FileExistsError: the folder holds something else, a preset in KerasHub's format say.
            ValueError: the backbone has LoRA that is not merged, or is quantized, or no type of
                transformers has its windows.

        >>> import tempfile
        >>> from mistral_lib import MistralBackbone
        >>> folder = tempfile.mkdtemp()
        >>> MistralBackbone(10, 1, 2, 8, 16, 1).export_to_transformers(folder)
        >>> Backbone.from_preset(folder).hidden_dim
        8
        """
        export_backbone(self, folder, max_shard_size)

    def enable_lora(
        self,
        rank: int,
        target_layer_names: str | Collection[str] | None = None,
        lora_alpha: float | None = None,
    ) -> None:
        """Freezes every weight and adds trainable low-rank factors to some projections.

        An adapted projection computes `x @ W + (lora_alpha / rank) * (x @ A) @ B` with A and B in
        float32; B starts at zero, so that the outputs do not change. A model that contains the
        backbone and has been trained already must be compiled again. From then on, setting
        `trainable` of the backbone freezes and thaws only the factors, never the base. To train
        other weights too, set `trainable` of their layers.

        Args:
            rank: inner size of the factors, at least 1.
            target_layer_names: names among query, key, value, attention_output, gate, up and down;
                by default query and value.
            lora_alpha: by default `rank`.

        Raises:
            ValueError: an unknown name, a rank below 1, or LoRA with other arguments is enabled
                already. Nothing has changed then. With the same arguments a call does nothing.

        Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021.

        >>> from mistral_lib import MistralBackbone, without_weights
        >>> with without_weights():
        ...     backbone = MistralBackbone(32000, 32, 32, 4096, 14336, 8)
        ...     backbone.enable_lora(4)
        >>> import math
        >>> f"{sum(math.prod(v.shape) for v in backbone.trainable_variables):,}"
        '1,703,936'
        """
        lora.enable(self, rank, target_layer_names, lora_alpha)

    def merge_lora(self, dequantize: bool = False) -> None:
        """Adds the low-rank updates to the kernels and takes LoRA off.

        What `enable_lora` froze can be trained again, unless it has been frozen since. The sums are
        computed in float32 and rounded to the kernels' dtype.

        Args:
            dequantize: whether to make a quantized model float first. The errors of quantization
                stay; without LoRA between them, `quantize` can round the merged kernels again.

        Raises:
            ValueError: there is no LoRA, or the model is quantized and `dequantize` is false.
        """
        lora.merge(self, dequantize)

    def save_lora_weights(self, filepath: str | os.PathLike) -> None:
        """Saves the low-rank factors alone, with their settings and the base's fingerprint.

        Args:
            filepath: a name that ends in `.lora.h5`. Its folder is made if it is missing.
        """
        lora_format.save(self, filepath)

    def load_lora_weights(self, filepath: str | os.PathLike) -> None:
        """Enables LoRA as it was when the adapter was saved, and loads the factors.

        Args:
            filepath: a `.lora.h5` file; a PEFT adapter: its folder (with `adapter_config.json`
                and `adapter_model.safetensors`) or `hf://user/adapter`; or llama.cpp's `.gguf`.

        Raises:
            FileNotFoundError: there is no such file, or the folder lacks one.
            ValueError: the file is no adapter, damaged, or of another base model; the backbone has
                LoRA with other settings; or PEFT's config asks for something else than LoRA on the
                projections. Nothing has changed then.

        What `lora_dropout` says of training is not taken over.
        """
        if str(filepath).endswith(".lora.h5"):
            lora_format.load(self, filepath)
        elif str(filepath).partition("@")[0].endswith(".gguf"):
            gguf_lora.load(self, filepath)
        else:
            peft_format.load(self, filepath)

    def export_lora_to_peft(
        self, folder: str | Path, base_model_name_or_path: str | None = None
    ) -> None:
        """Writes the low-rank factors as an adapter for PEFT, on transformers' Mistral.

        Args:
            folder: a new or empty folder, or one that holds a PEFT adapter, which is replaced.
            base_model_name_or_path: where PEFT's `AutoPeftModelForCausalLM` finds the base model.

        Raises:
            FileExistsError: the folder holds other files.

        >>> import tempfile
        >>> from mistral_lib import MistralBackbone
        >>> backbone = MistralBackbone(10, 1, 2, 8, 16, 1)
        >>> backbone.enable_lora(2)
        >>> folder = tempfile.mkdtemp()
        >>> backbone.export_lora_to_peft(folder)
        >>> backbone.load_lora_weights(folder)
        """
        peft_format.save(self, folder, base_model_name_or_path)

    @property
    def trainable(self) -> bool:
        """Whether the backbone is trained; with LoRA, whether the factors are."""
        return super().trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        if getattr(self, "transformer_layers", None) and lora.settings(self):
            lora.set_trainable(self, bool(value))
        else:
            keras.Model.trainable.__set__(self, value)

    @property
    def quantization(self) -> str | None:
        """How the weights are quantized: "int8", "int4/128", or `None`."""
        return quantization_of(self.projection_policy)

    def traced_settings(self) -> Hashable:
        """Everything on which compiled programs of this backbone depend, but shapes and dtypes.

        Keras's steps and the generation loops compare it before each use, so code that changes a
        setting need not know what has been compiled. If a call reads a new setting, add it here.
        """
        layers = (self.token_embedding, *lora.projections(self).values())
        return (
            self.config,
            self.rematerialize,
            tuple((b.name, b.self_attention.attention_path) for b in self.transformer_layers),
            tuple(layer.dtype_policy.name for layer in layers_inside(self)),
            tuple(getattr(layer, "lora_scale", None) for layer in layers),
            tuple(variable.path for variable in self.variables),
        )

    @property
    def token_embedding(self) -> TokenEmbedding:
        """The layer that embeds token ids, and with `reverse=True` projects back to logits."""
        return self._token_embedding

    @closing_scopes
    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = standardize_call_inputs(inputs, self.vocabulary_size)
        return super().__call__(inputs, *args, **kwargs)

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        return super().predict(standardize_inputs(x, self.vocabulary_size), *args, **kwargs)

    def predict_on_batch(self, x: Any) -> Any:
        return super().predict_on_batch(standardize_call_inputs(x, self.vocabulary_size))

    def check_batch(self, data: Any) -> None:
        """Refuses a batch with ids outside the vocabulary before its step."""
        check_batch_ids(keras.utils.unpack_x_y_sample_weight(data)[0], self.vocabulary_size)

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        config = dict(config)
        plan, settings = config.pop("lora", None), config.pop("settings", {})
        backbone = cls(**config)
        if plan is not None:
            lora.apply(backbone, plan)  # which thaws the backbone for the factors
            backbone.trainable = config.get("trainable", True)
        set_settings(backbone, settings)
        return backbone


T = TypeVar("T", bound=type[Backbone])


def register(cls: T) -> T:
    """Has `Backbone.from_preset` make objects of a class, whose module imports this one."""
    Backbone._registered = cls
    return cls

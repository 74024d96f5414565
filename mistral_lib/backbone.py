"""The Mistral decoder: embedding, blocks, final norm (chapter 12, "The backbone")."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import keras

from mistral_lib import distribution, lora
from mistral_lib.arrays import Array, Float
from mistral_lib.base import Backbone, register
from mistral_lib.checks import check_boolean, check_choice
from mistral_lib.config import MistralConfig, Windows, check_names
from mistral_lib.forward import forward
from mistral_lib.layers.attention import PATHS
from mistral_lib.layers.configured import SetOnce
from mistral_lib.layers.decoder import MistralDecoder
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.fused import fused_is_available
from mistral_lib.layers.quantizable import float_policy
from mistral_lib.layers.rms_norm import RMSNorm
from mistral_lib.quantization import check_dtype
from mistral_lib.settings import get_settings


class FromConfig:
    """An attribute that shows the field of the same name in `config`, and cannot be set."""

    def __set_name__(self, owner, name):
        self.name = name

    def __get__(self, backbone, owner=None) -> Any:
        return self if backbone is None else getattr(backbone.config, self.name)

    def __set__(self, backbone, value):
        raise AttributeError(
            f"{self.name} is part of the architecture, which a built model keeps. Make another: "
            f"MistralBackbone.from_config({{**backbone.get_config(), {self.name!r}: {value!r}}})."
        )


@register
@keras.saving.register_keras_serializable(package="mistral_lib")
class MistralBackbone(Backbone):
    """The Mistral decoder, from token ids to hidden states.

    Args:
        vocabulary_size: number of token ids, V.
        num_layers: number of blocks.
        num_query_heads: query heads of each block, H.
        hidden_dim: size of a hidden state, D.
        intermediate_dim: width inside the feed-forward network, F.
        num_key_value_heads: key-value heads of each block, K, a divisor of H.
        rope_max_wavelength: base of the rotary frequencies.
        rope_scaling_factor: token positions are divided by it.
        layer_norm_epsilon: epsilon of every RMSNorm.
        sliding_window: number of tokens that a query sees, its own included; `None` for all. A
            sequence has one such entry for each layer.
        dropout: rate on the attention output, before and after its projection.
        dtype: a dtype or Keras dtype policy; `None` is Keras's global policy. Softmax,
            normalisation and rotary positions are computed in float32 whatever the policy. A
            quantized policy ("int8_from_bfloat16", say) makes a model to load such weights into;
            `quantize` is what quantizes weights.
        head_dim: size of a head, even; by default `hidden_dim / num_query_heads`.
        tie_word_embeddings: whether the output projection is the transposed embedding.
        rope_scaling: how rotary positions are changed for texts longer than those in training: a
            dictionary with transformers' names, which `mistral_lib.rope_scaling.RopeScaling` lists,
            such as `{"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings":
            8192}`. With "dynamic" the frequencies follow the length of each row's text, and with
            "llama_4_scaling_beta" a query is scaled by its position; both count from the row's
            first real token. In generation, the angle of a token depends on the length up to it,
            and older keys keep the angles that they were stored with, as in transformers.
        **kwargs: `name` and `trainable`.

    Call arguments:
        inputs: a dictionary of `token_ids`, integers (B, S), and `padding_mask`, ints or bools
            (B, S), true for real tokens; NumPy arrays, JAX arrays or nested lists. Padding may
            stand anywhere: no query sees a padded key, and what comes out at a padded position is
            finite and without meaning.

    Returns:
        Hidden states (B, S, D) in the policy's compute dtype.

    Raises:
        ValueError, TypeError: an argument is out of range or of the wrong type; the message names
            it.

    The attention path (see `mistral_lib.layers.attention.choose_path`) is chosen from the shape and
    the device. Setting `attention_path` to "dense", "banded" or "fused" forces one, "auto" frees
    it.

    Source: Jiang et al., "Mistral 7B", 2023.

    >>> backbone = MistralBackbone(
    ...     vocabulary_size=10,
    ...     num_layers=2,
    ...     num_query_heads=4,
    ...     hidden_dim=16,
    ...     intermediate_dim=32,
    ...     num_key_value_heads=2,
    ...     sliding_window=3,
    ... )
    >>> backbone({"token_ids": [[1, 2, 3, 0]], "padding_mask": [[1, 1, 1, 0]]}).shape
    (1, 4, 16)
    """

    config = SetOnce()
    vocabulary_size = FromConfig()
    num_layers = FromConfig()
    num_query_heads = FromConfig()
    hidden_dim = FromConfig()
    intermediate_dim = FromConfig()
    num_key_value_heads = FromConfig()
    rope_max_wavelength = FromConfig()
    rope_scaling_factor = FromConfig()
    layer_norm_epsilon = FromConfig()
    sliding_window = FromConfig()
    dropout = FromConfig()
    head_dim = FromConfig()
    tie_word_embeddings = FromConfig()
    rope_scaling = FromConfig()

    def __init__(
        self,
        vocabulary_size: int,
        num_layers: int,
        num_query_heads: int,
        hidden_dim: int,
        intermediate_dim: int,
        num_key_value_heads: int,
        rope_max_wavelength: float = 10000,
        rope_scaling_factor: float = 1.0,
        layer_norm_epsilon: float = 1e-6,
        sliding_window: Windows = 512,
        dropout: float = 0,
        dtype: str | keras.DTypePolicy | None = None,
        *,
        head_dim: int | None = None,
        tie_word_embeddings: bool = False,
        rope_scaling: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        config = MistralConfig(
            vocabulary_size,
            num_layers,
            num_query_heads,
            hidden_dim,
            intermediate_dim,
            num_key_value_heads,
            rope_max_wavelength,
            rope_scaling_factor,
            layer_norm_epsilon,
            sliding_window,
            dropout,
            head_dim,
            tie_word_embeddings,
            rope_scaling,
        )
        check_names(kwargs)
        kwargs["trainable"] = check_boolean("trainable", kwargs.get("trainable", True))
        distribution.check_sizes(config)
        self.config = config
        policy = check_dtype(dtype)

        self._token_embedding = TokenEmbedding(
            config.vocabulary_size,
            config.hidden_dim,
            tie_weights=config.tie_word_embeddings,
            embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02),
            dtype=policy,
            name="token_embedding",
        )
        self.transformer_layers = [
            MistralDecoder(config, index, dtype=policy, name=f"transformer_layer_{index}")
            for index in range(config.num_layers)
        ]
        self.layer_norm = RMSNorm(
            config.layer_norm_epsilon,
            dtype=float_policy(policy),
            name="sequence_output_layernorm",
        )
        self._rematerialize = False
        inputs: dict[str, Any] = {
            "token_ids": keras.Input((None,), dtype="int32", name="token_ids"),
            "padding_mask": keras.Input((None,), dtype="bool", name="padding_mask"),
        }
        super().__init__(inputs=inputs, outputs=forward(self, **inputs), **kwargs)
        self.projection_policy = policy
        self.dtype_policy = float_policy(policy)
        # Where the cache will lie, when text is written outside the distribution's scope too.
        self.distribution = keras.distribution.distribution()

    def call(
        self, inputs: dict[str, Any], training: bool | None = None, mask: Any = None
    ) -> Float[Array, "B S D"]:
        """Hidden states (B, S, D); `inputs` as they are documented for the class."""
        return forward(
            self,
            jnp.asarray(inputs["token_ids"], "int32"),
            padding_mask=jnp.asarray(inputs["padding_mask"], bool),
            training=training,
        )

    @property
    def attention_path(self) -> str:
        """The attention path of all blocks: "auto", or the one forced."""
        return self.transformer_layers[0].self_attention.attention_path

    @attention_path.setter
    def attention_path(self, path: str) -> None:
        check_choice("attention_path", path, ("auto", *PATHS))
        if path == "fused" and not fused_is_available(self.compute_dtype, self.head_dim):
            raise ValueError(
                f"attention_path cannot be 'fused' here: the dtype {self.compute_dtype}, head_dim "
                f"{self.head_dim} and device {jax.devices()[0]} have no fused kernel. It needs "
                "float16 or bfloat16 and an NVIDIA GPU of compute capability 8.0 or newer. 'auto' "
                "chooses among the paths that run here."
            )
        for layer in self.transformer_layers:
            layer.self_attention.attention_path = path

    @staticmethod
    def get_layout_map(
        device_mesh: keras.distribution.DeviceMesh,
        model_parallel_dim_name: str = "model",
        data_parallel_dim_name: str = "batch",
    ) -> keras.distribution.LayoutMap:
        """How the weights, LoRA's too, are split over many devices, for Keras's `ModelParallel`.

        Every device of the model axis gets whole heads, its share of the intermediate features and
        of the vocabulary, and every scale of a norm. Along the data axis the weights are whole. A
        block then costs two sums over the model axis in a forward pass, and none over the data axis
        (see `mistral_lib.distribution`). Make, train and load the model inside the distribution's
        scope; `generate` works outside it too.

        Args:
            device_mesh: a mesh with both axes; an axis may have the size 1.
            model_parallel_dim_name: the axis over which weights are split. Its size must divide
                `num_key_value_heads`, `intermediate_dim` and `vocabulary_size`. A variable whose
                entry is deleted from the map is whole on every device instead.
            data_parallel_dim_name: the axis over which rows are split; give it to `ModelParallel`
                as `batch_dim_name`.

        Returns:
            A layout for the path of every variable that is split.

        Raises:
            TypeError: `device_mesh` is not a mesh.
            ValueError: the mesh has no such axis, or both names are the same.

        Source: Shoeybi et al., "Megatron-LM", 2019, section 3.

        >>> devices = keras.distribution.list_devices()
        >>> mesh = keras.distribution.DeviceMesh((1, len(devices)), ("batch", "model"), devices)
        >>> layouts = MistralBackbone.get_layout_map(mesh)
        >>> layouts["transformer_layer_0/feedforward/down/kernel"].axes
        ('model', None)
        >>> with keras.distribution.ModelParallel(layout_map=layouts).scope():
        ...     backbone = MistralBackbone(64, 1, 16, 32, 64, 8)
        """
        return distribution.layout_map(device_mesh, model_parallel_dim_name, data_parallel_dim_name)

    @property
    def rematerialize(self) -> bool:
        """Whether training keeps each block's input alone, and computes the rest of it again.

        That is one more forward pass for far less memory: the activations of one block instead of
        all.
        """
        return self._rematerialize

    @rematerialize.setter
    def rematerialize(self, on: bool) -> None:
        check_boolean("rematerialize", on)
        if on and self.dropout:
            raise ValueError(
                f"rematerialize needs a dropout of 0, but it is {self.dropout}: the second forward "
                "pass would drop other values than the first."
            )
        self._rematerialize = on

    def get_config(self) -> dict[str, Any]:
        config = {
            "name": self.name,
            "trainable": self.trainable,
            **self.config.to_dict(),
            "dtype": keras.dtype_policies.serialize(self.projection_policy),
        }
        more = {"lora": lora.settings(self), "settings": get_settings(self)}
        return {**config, **{name: value for name, value in more.items() if value}}

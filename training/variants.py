"""Small models that differ in one part (chapter 11, "The block and the residual stream").

All are made of the library's own layers and of the few below. Sizes and first weights are the same
wherever two variants have the same weights: each kernel is drawn from the seed and its own name.
"""

import math
import zlib
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import keras
import numpy as np
from short_blocks import short_blocks

from mistral_lib.config import MistralConfig
from mistral_lib.layers.attention import PATHS, MistralAttention
from mistral_lib.layers.embedding import TokenEmbedding
from mistral_lib.layers.feedforward import SwiGLU
from mistral_lib.layers.projection import Projection
from mistral_lib.layers.rms_norm import RMSNorm

PATHS["short_blocks"] = short_blocks
STANDARD_DEVIATION = 0.02  # of the first kernels, as everywhere in the library


@dataclass(frozen=True)
class Settings:
    """Everything that decides how a run ends, apart from the text. The defaults are the baseline.

    Attributes:
        norm: "rms_norm", "layer_norm" or "none".
        placement: "pre_norm", or "post_norm", which has no norm after the last block.
        feedforward: "swiglu", "silu" or "relu"; the last two have no gate.
        positions: "rotary", or "none": every token is turned as the first one is.
        scaled_outputs: whether the projections that write to the residual stream begin with
            `1 / sqrt(2 * num_layers)` of the usual standard deviation.
        decayed: what weight decay pulls to zero: "matrices", "kernels" (those of the embedding
            left out), "everything" or "nothing".
        learning_rate: the highest; from there it falls to zero along a cosine.
        warmup: share of the steps in which the rate rises from zero.
        batch_size: sequences in a step, a divisor of `sequences`.
        global_clipnorm: the gradient is scaled down to this norm; `None` for never.
        weight_decay: of AdamW.
        beta_2: of AdamW.
        sequences: how many are read in all, whatever the batch size.
        length: tokens of a sequence, S.
        seed: of the first weights and of the order of the text.
    """

    norm: str = "rms_norm"
    placement: str = "pre_norm"
    feedforward: str = "swiglu"
    positions: str = "rotary"
    scaled_outputs: bool = False
    decayed: str = "matrices"
    learning_rate: float = 2e-3
    warmup: float = 0.05
    batch_size: int = 16
    global_clipnorm: float | None = 1.0
    weight_decay: float = 0.1
    beta_2: float = 0.98
    sequences: int = 25_600
    length: int = 128
    vocabulary_size: int = 1024
    num_layers: int = 6
    num_query_heads: int = 4
    num_key_value_heads: int = 2
    hidden_dim: int = 128
    intermediate_dim: int = 256
    seed: int = 0

    @property
    def steps(self) -> int:
        return self.sequences // self.batch_size


class Ungated(keras.layers.Layer):
    """`down(activation(up(x)))`, half as wide again as a gated network of as many parameters."""

    def __init__(self, intermediate_dim: int, activation, **kwargs):
        super().__init__(**kwargs)
        self.width = 3 * intermediate_dim // 2
        self.activation = activation

    def build(self, input_shape: tuple):
        self.up = Projection(self.width, name="up")
        self.down = Projection(input_shape[-1], name="down")
        self.up.build(input_shape)
        self.down.build((*input_shape[:-1], self.width))

    def call(self, hidden_states):
        return self.down(self.activation(self.up(hidden_states)))


NORMS = {
    "rms_norm": RMSNorm,
    "layer_norm": lambda epsilon, name: keras.layers.LayerNormalization(epsilon=epsilon, name=name),
    "none": lambda epsilon, name: keras.layers.Identity(name=name),
}
FEEDFORWARDS = {
    "swiglu": SwiGLU,
    "silu": lambda width, name: Ungated(width, jax.nn.silu, name=name),
    "relu": lambda width, name: Ungated(width, jax.nn.relu, name=name),
}


class Block(keras.layers.Layer):
    """`MistralDecoder` with the settings' norm, in the settings' place, and feed-forward network.

    Source of post-norm: Vaswani et al., "Attention Is All You Need", 2017, section 3.1.
    """

    def __init__(self, settings: Settings, config: MistralConfig, **kwargs):
        super().__init__(**kwargs)
        self.post_norm = settings.placement == "post_norm"
        make_norm = NORMS[settings.norm]
        epsilon = config.layer_norm_epsilon
        self.self_attention_layernorm = make_norm(epsilon, name="self_attention_layernorm")
        self.self_attention = MistralAttention(
            config, attention_path="short_blocks", name="self_attention"
        )
        self.feedforward_layernorm = make_norm(epsilon, name="feedforward_layernorm")
        self.feedforward = FEEDFORWARDS[settings.feedforward](
            config.intermediate_dim, name="feedforward"
        )

    def call(self, hidden_states, positions):
        def add(part, norm, x):
            return norm(x + part(x)) if self.post_norm else x + part(norm(x))

        def attention(x):
            return self.self_attention(x, positions=positions)

        hidden_states = add(attention, self.self_attention_layernorm, hidden_states)
        return add(self.feedforward, self.feedforward_layernorm, hidden_states)


class Variant(keras.Model):
    """`MistralCausalLM` without padding, its parts chosen by the settings.

    Call arguments:
        token_ids: integer array (B, S).

    Returns:
        Logits (B, S, V).
    """

    def __init__(self, settings: Settings):
        super().__init__(name="variant")
        config = MistralConfig(
            settings.vocabulary_size,
            settings.num_layers,
            settings.num_query_heads,
            settings.hidden_dim,
            settings.intermediate_dim,
            settings.num_key_value_heads,
            sliding_window=None,
        )
        self.rotary = settings.positions == "rotary"
        self.token_embedding = TokenEmbedding(
            config.vocabulary_size, config.hidden_dim, tie_weights=False, name="token_embedding"
        )
        self.blocks = [
            Block(settings, config, name=f"transformer_layer_{index}")
            for index in range(config.num_layers)
        ]
        make_norm = NORMS["none" if settings.placement == "post_norm" else settings.norm]
        self.layer_norm = make_norm(config.layer_norm_epsilon, name="sequence_output_layernorm")

    def call(self, token_ids):
        # At position 0 no pair of features is turned: attention then knows no places.
        positions = jnp.arange(token_ids.shape[1]) * self.rotary
        hidden_states = self.token_embedding(token_ids)
        for block in self.blocks:
            hidden_states = block(hidden_states, positions)
        return self.token_embedding(self.layer_norm(hidden_states), reverse=True)


def build_variant(settings: Settings) -> Variant:
    """The model of some settings, with its first weights."""
    model = Variant(settings)
    model(np.zeros((1, settings.length), "int32"))  # makes the weights
    for variable in model.trainable_variables:
        if len(variable.shape) < 2:
            continue  # scales begin with ones, shifts with zeros
        deviation = STANDARD_DEVIATION
        if settings.scaled_outputs and variable.path.split("/")[-2] in ("attention_output", "down"):
            deviation /= math.sqrt(2 * settings.num_layers)
        random = np.random.default_rng([settings.seed, zlib.crc32(variable.path.encode())])
        variable.assign(deviation * random.standard_normal(variable.shape, "float32"))
    return model


def build_optimizer(settings: Settings, model: Variant) -> keras.optimizers.Optimizer:
    """AdamW with warm-up and cosine, built for the weights of a model."""
    warmup_steps = round(settings.warmup * settings.steps)
    peak = settings.learning_rate
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup_steps else peak,
        warmup_target=peak if warmup_steps else None,
        warmup_steps=warmup_steps,
        decay_steps=settings.steps - warmup_steps,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=settings.weight_decay,
        beta_2=settings.beta_2,
        global_clipnorm=settings.global_clipnorm,
    )
    spared = [v for v in model.trainable_variables if not DECAYED[settings.decayed](v)]
    optimizer.exclude_from_weight_decay(var_list=spared)
    optimizer.build(model.trainable_variables)
    return optimizer


DECAYED = {
    "everything": lambda variable: True,
    "matrices": lambda variable: len(variable.shape) == 2,
    "kernels": lambda variable: variable.name == "kernel",
    "nothing": lambda variable: False,
}

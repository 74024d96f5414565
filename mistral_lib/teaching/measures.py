"""What a model makes of the panel, item by item (used by chapters 4 to 18).

Each measure returns one number for each text, so that an estimate can draw texts again. The first
ones take the logits of all texts and the texts: they can be called on the result of `read`, and
`sweep` and `lens` compile them.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib import MistralCausalLM
from mistral_lib.arrays import Array, Float, Float32, Int
from mistral_lib.teaching.interventions import activations
from mistral_lib.teaching.panel import NOTHING, Prompts, Rows
from mistral_lib.teaching.repeats import Repeats


def log_chances(logits: Float[Array, "B S V"], rows: Rows) -> Float32[Array, "B T"]:
    """The log-probability, in nats, of each token but the first; 0 for padding. T is S - 1."""
    log_p = jax.nn.log_softmax(logits[:, :-1])
    found = jnp.take_along_axis(log_p, jnp.asarray(rows.token_ids)[:, 1:, None], axis=-1)[..., 0]
    return jnp.where(rows.padding_mask[:, 1:], found, 0.0)


def bits(logits: Float[Array, "B S V"], rows: Rows) -> Float32[Array, " B"]:
    """What each text costs, in bits.

    For bits per byte over documents, `estimates.ratio(bits(...), documents.bytes)`.
    """
    return -log_chances(logits, rows).sum(axis=1) / math.log(2)


def at_ends(logits: Float[Array, "B S V"], prompts: Prompts) -> Float[Array, "B V"]:
    """The logits from which the first piece of each name is chosen."""
    return jnp.take_along_axis(logits, jnp.asarray(prompts.ends)[:, None, None], axis=1)[:, 0]


def chance(
    logits: Float[Array, "B S V"], prompts: Prompts, pieces: Int[Array, " B"] | None = None
) -> Float32[Array, " B"]:
    """The probability of the name's first piece after each prompt.

    Args:
        logits: of the prompts.
        prompts: the prompts.
        pieces: other tokens, one for each prompt, such as `prompts.rivals`; 0 where there is none.
    """
    pieces = jnp.asarray(prompts.answers[:, 0] if pieces is None else pieces)
    chances = jax.nn.softmax(at_ends(logits, prompts))
    return jnp.where(pieces == NOTHING, 0.0, _chosen(chances, pieces))


def name_chance(logits: Float[Array, "B S V"], prompts: Prompts) -> Float32[Array, " B"]:
    """The probability of the whole name after each prompt, piece by piece."""
    places = jnp.arange(logits.shape[1] - 1)
    named = places >= jnp.asarray(prompts.ends)[:, None]  # the name is all that follows
    return jnp.exp((log_chances(logits, prompts) * named).sum(axis=1))


def logit_difference(logits: Float[Array, "B S V"], prompts: Prompts) -> Float32[Array, " B"]:
    """How far the name's first piece is ahead of its partner's, in logits."""
    last, answers, partners = at_ends(logits, prompts), prompts.answers, prompts.partners
    return _chosen(last, answers[:, 0]) - _chosen(last, partners[:, 0])


def rank(logits: Float[Array, "B S V"], prompts: Prompts) -> Int[Array, " B"]:
    """The place of the name's first piece among all tokens; 1 is the likeliest."""
    last = at_ends(logits, prompts)
    return 1 + (last > _chosen(last, prompts.answers[:, 0])[:, None]).sum(axis=1)


def repeat_chance(logits: Float[Array, "B S V"], repeats: Repeats) -> Float32[Array, " B"]:
    """The probability of the right token, on average over a sequence that comes again.

    Its first token is left out: nothing says that the sequence will begin again.
    """
    right = jnp.exp(log_chances(logits, repeats)) * _again(repeats, logits.shape[1] - 1)
    return right.sum(axis=1) / (jnp.asarray(repeats.periods) - 1)


def first_chance(logits: Float[Array, "B S V"], repeats: Repeats) -> Float32[Array, " B"]:
    """The same when the sequence comes first, as what to compare with."""
    periods = jnp.asarray(repeats.periods)[:, None]
    places = jnp.arange(logits.shape[1] - 1)
    first = (places >= 1) & (places < periods)
    return (jnp.exp(log_chances(logits, repeats)) * first).sum(axis=1) / (periods[:, 0] - 1)


def induction(
    weights: Float[np.ndarray, "L B H S S"], repeats: Repeats
) -> Float[np.ndarray, "L H B"]:
    """Induction scores: the weight on the token that came after this one the first time.

    Of [A][B] ... [A], it is the weight that the second [A] puts on [B], on average over a sequence
    that comes again.

    Args:
        weights: as `activations(model, repeats, "weights")["weights"]`.
        repeats: the sequences.

    Source: Olsson et al., "In-context Learning and Induction Heads", 2022.
    """
    S = weights.shape[-1]
    targets = np.arange(S) - np.asarray(repeats.periods)[:, None] + 1  # (B, S)
    asked = np.asarray(_again(repeats, S))
    index = np.clip(targets, 0, S - 1)[None, :, None, :, None]
    found = np.take_along_axis(weights, index, axis=-1)[..., 0]  # (L, B, H, S)
    total = np.einsum("lbns,bs->lnb", found, asked.astype(weights.dtype))
    return total / asked.sum(axis=1)


def attention_to_name(
    weights: Float[np.ndarray, "L B H S S"], prompts: Prompts
) -> Float[np.ndarray, "L H B"]:
    """The weight that the end of each prompt puts on the name's first piece, where it came first.

    Args:
        weights: as `activations(model, prompts, "weights")["weights"]`.
        prompts: the prompts.
    """
    texts = np.arange(len(prompts))
    return np.moveaxis(weights[:, texts, :, prompts.ends, prompts.mentions], 0, -1)


def direct_effects(model: MistralCausalLM, prompts: Prompts) -> Float32[np.ndarray, "L H B"]:
    """What each head by itself adds to the lead of the name over its partner, in logits.

    Only the direct way counts: from the head's output at the end of the prompt into the residual
    stream, and past all later blocks to the logits of the first pieces. The last norm divides by
    what it divides by in the whole model, so that the effects of all parts add up to the lead.

    Args:
        model: a model with an output kernel of its own.
        prompts: the prompts.

    Returns:
        A float32 array (L, H, B).

    Source: Elhage et al., "A Mathematical Framework for Transformer Circuits", 2021.
    """
    backbone, texts = model.backbone, np.arange(len(prompts))
    found = activations(model, prompts, "heads", "stream")
    last = found["stream"][-1][texts, prompts.ends]  # (B, D)
    size = np.sqrt((last**2).mean(axis=1, keepdims=True) + backbone.layer_norm_epsilon)
    columns = np.asarray(backbone.token_embedding.reverse_embeddings.value)  # (D, V)
    lead = columns[:, prompts.answers[:, 0]] - columns[:, prompts.partners[:, 0]]
    directions = lead.T * np.asarray(backbone.layer_norm.scale.value) / size  # (B, D)
    heads = found["heads"][:, texts, prompts.ends]  # (L, B, H, h)
    outputs = [block.self_attention.attention_output for block in backbone.transformer_layers]
    kernels = np.array([output.kernel.value for output in outputs])
    kernels = kernels.reshape(len(heads), *heads.shape[2:], -1)  # (L, H, h, D)
    return np.einsum("lbnh,lnhd,bd->lnb", heads, kernels, directions)


def _chosen(values, ids):
    return jnp.take_along_axis(values, jnp.asarray(ids)[:, None], axis=1)[:, 0]


def _again(repeats, length):
    """Where the second coming predicts itself: from its first token to its last but one."""
    periods, places = jnp.asarray(repeats.periods)[:, None], jnp.arange(length)
    return (places > periods) & (places < 2 * periods)

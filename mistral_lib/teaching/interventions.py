"""Reading a model from inside and changing what flows through it (used by chapters 4 to 18).

`read` gives the logits of a whole batch of texts. An *edit* is a function of a site, a layer and
what arrives there, which returns what goes on from there:

>>> def without_networks(site, layer, x):
...     return 0 * x if site == "network" else x

`read(model, prompts, without_networks)` asks it at each of `SITES` in every block. `sweep` compiles
one pass for many edits of one kind, all heads in turn for example. `activations` keeps what arrived
at some sites, and `lens` unembeds the residual stream before and after each block.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from mistral_lib import MistralBackbone, MistralCausalLM
from mistral_lib.arrays import Array, Bool, Float, Float32, Int
from mistral_lib.generation.compiled import CompiledFunction
from mistral_lib.layers.dense import masked_softmax
from mistral_lib.masks import attention_mask
from mistral_lib.teaching.panel import Rows

# Where an edit is asked, and with what. `layer` is the number of the block, but for the stream.
# In a network that is transplanted it is not asked for gate, up and products.
SITES = {
    "stream": "(B, S, D), the residual stream: layer 0 before the first block, i after i blocks",
    "query": "(B, S, H, h), turned by their positions",
    "key": "(B, S, K, h), turned by their positions",
    "value": "(B, S, K, h)",
    "weights": "(B, H, S, S), of each head's queries on the keys",
    "heads": "(B, S, H, h), the outputs of the heads, before the projection",
    "attention": "(B, S, D), what attention adds to the stream",
    "gate": "(B, S, F), of each unit of the network, before silu",
    "up": "(B, S, F), what each unit multiplies by its opened gate",
    "products": "(B, S, F), of the two, from which the network projects down",
    "network": "(B, S, D), what the feed-forward network adds to the stream",
}

Edit = Callable[[str, int, jax.Array], jax.Array]
Measure = Callable[[Any, Any], Any]  # of logits and rows


def read(
    model: MistralCausalLM,
    rows: Rows,
    edit: Edit | None = None,
    order: Sequence[int] | None = None,
    positions: Int[Array, "*#B S"] | None = None,
) -> Float32[np.ndarray, "B S V"]:
    """The logits of all texts, in one compiled pass.

    Args:
        model: any model, also inside `transplanted`.
        rows: the texts.
        edit: what to change on the way; see `SITES`.
        order: the numbers of the blocks to run, in that order; by default all of them.
        positions: what queries and keys are turned by, instead of 0 to S - 1.

    Raises:
        ValueError: parts of the model are transplanted that an edit would go around.

    >>> from mistral_lib.teaching import panel
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> prompts = panel.docstrings(model.preprocessor.tokenizer).where([True, True] + 70 * [False])
    >>> swapped = read(model, prompts, order=[0, 1, 3, 2, 4, 5])
    >>> bool(abs(swapped - read(model, prompts)).max() > 1)
    True
    """
    if edit is None and order is None and positions is None:
        return model.predict(rows.inputs, batch_size=len(rows), verbose=0)

    def run(rows, positions):
        return unembed(model, stream(model, rows, edit or _unchanged, order, positions))

    return np.asarray(CompiledFunction(run, model.backbone, donate=False)(rows, positions))


def sweep(
    model: MistralCausalLM,
    rows: Rows,
    edit_of: Callable[..., Edit],
    settings: Any,
    measure: Measure,
    *shared: Any,
) -> np.ndarray:
    """What a measure says under each of many edits, compiled once for all of them.

    Args:
        model: the model.
        rows: the texts.
        edit_of: makes the edit of one setting: `edit_of(setting, *shared)`.
        settings: an array (N, ...), or a tree of such arrays, with a setting in each entry.
        measure: a function of the logits (B, S, V) and the rows, such as those of `measures`.
        *shared: arrays that all edits use.

    Returns:
        The measures, an array (N, ...).

    >>> from mistral_lib.teaching import panel
    >>> from mistral_lib.teaching.measures import chance
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> prompts = panel.docstrings(model.preprocessor.tokenizer).where([True, True] + 70 * [False])
    >>> sweep(model, prompts, silence, each_head(model), chance).shape
    (36, 2)
    """

    def run(rows, settings, shared):
        def one(setting):
            edit = edit_of(setting, *shared)
            return measure(unembed(model, stream(model, rows, edit)), rows)

        return jax.lax.map(one, settings)

    compiled = CompiledFunction(run, model.backbone, donate=False)
    return np.asarray(compiled(rows, jax.tree.map(jnp.asarray, settings), shared))


def activations(
    model: MistralCausalLM, rows: Rows, *sites: str, edit: Edit | None = None
) -> dict[str, np.ndarray]:
    """What arrives at some sites, after their edit, in one compiled pass.

    Returns:
        For each site an array (L, ...), with the axes that `SITES` names; the stream has L + 1.

    Raises:
        ValueError: no site has that name.

    >>> from mistral_lib.teaching import repeats
    >>> model = MistralCausalLM.from_preset("mistral_tiny_en")
    >>> sentences = repeats.sentences(model.preprocessor.tokenizer)
    >>> activations(model, sentences, "weights")["weights"].shape  # (L, B, H, S, S)
    (6, 24, 6, 51, 51)
    """
    if unknown := set(sites) - SITES.keys():
        raise ValueError(f"No site is called {min(unknown)!r}: there are {', '.join(SITES)}.")

    def run(rows):
        kept: dict[str, list] = {site: [] for site in sites}

        def keep(site, layer, x):
            x = (edit or _unchanged)(site, layer, x)
            if site in kept:
                kept[site].append(x)
            return x

        stream(model, rows, keep)
        return {site: jnp.stack(found) for site, found in kept.items()}

    found = CompiledFunction(run, model.backbone, donate=False)(rows)
    return {site: np.asarray(array) for site, array in found.items()}


def lens(model: MistralCausalLM, rows: Rows, measure: Measure) -> np.ndarray:
    """What a measure says of the residual stream, unembedded before and after every block.

    Returns:
        An array (L + 1, ...), the embeddings first. The last entry is the model's own.

    Source: nostalgebraist, "interpreting GPT: the logit lens", 2020.
    """

    def run(rows, stations):
        return jax.lax.map(lambda x: measure(unembed(model, x), rows), stations)

    stations = activations(model, rows, "stream")["stream"]
    return np.asarray(CompiledFunction(run, model.backbone, donate=False)(rows, stations))


def replace(site: str, where: Bool[Array, "..."], values: Any = None) -> Edit:
    """An edit that puts other values at one site: zeros, or those of another run.

    Args:
        site: where.
        where: bool array (layers, ...) that broadcasts against what arrives there, without its last
            axis: true where the value is replaced.
        values: an array (layers, ...) as `activations` gives it, or that broadcasts against it;
            zeros by default.
    """

    def edit(at, layer, x):
        if at != site:
            return x
        new = jnp.zeros_like(x) if values is None else values[layer]
        return jnp.where(where[layer][..., None], new, x)

    return edit


def silence(off: Bool[Array, "L #B #S H"]) -> Edit:
    """An edit that has heads return zeros: bool array (L, B, S, H), where B and S may be 1."""
    return replace("heads", off)


def scale(factors: Float[Array, "L 2"]) -> Edit:
    """An edit that multiplies what each block adds: column 0 for attention, 1 for the network."""

    def edit(site, layer, x):
        if site not in ("attention", "network"):
            return x
        return factors[layer, int(site == "network")] * x

    return edit


def each_head(model: MistralCausalLM) -> Bool[np.ndarray, "N L 1 1 H"]:
    """For `sweep` and `silence`: one setting for each head, which silences it alone."""
    layers, heads = model.backbone.num_layers, model.backbone.num_query_heads
    return np.eye(layers * heads, dtype=bool).reshape(-1, layers, 1, 1, heads)


def unembed(
    model: MistralCausalLM, hidden_states: Float[Array, "B S D"]
) -> Float32[Array, "B S V"]:
    """Logits of the residual stream: the last norm and the output kernel."""
    backbone = model.backbone
    return backbone.token_embedding(backbone.layer_norm(hidden_states), reverse=True)


def stream(
    model: MistralCausalLM,
    rows: Rows,
    edit: Edit,
    order: Sequence[int] | None = None,
    positions: Int[Array, "*#B S"] | None = None,
) -> Float[Array, "B S D"]:
    """The residual stream after the last block: the forward pass with its edits."""
    backbone = model.backbone
    _check_whole(backbone)
    token_ids, real = jnp.asarray(rows.token_ids), jnp.asarray(rows.padding_mask)
    places = jnp.arange(token_ids.shape[1])
    x = edit("stream", 0, backbone.token_embedding(token_ids))
    for step, layer in enumerate(range(backbone.num_layers) if order is None else order):
        block = backbone.transformer_layers[layer]
        attention = block.self_attention
        mask = attention_mask(places, places, attention.sliding_window, real)
        added = attention(
            block.self_attention_layernorm(x),
            padding_mask=real,
            positions=positions,
            attend=partial(_attend, edit, layer, mask),
        )
        x = x + edit("attention", layer, added)
        added = _feed_forward(edit, layer, block.feedforward, block.feedforward_layernorm(x))
        x = x + edit("network", layer, added)
        x = edit("stream", step + 1, x)
    return x


def _attend(edit, layer, mask, query, key, value):
    """Attention of query (B, S, K, G, h) over key and value (B, S, K, h), with its edits."""
    grouped, merged = query.shape, (*query.shape[:2], -1, query.shape[-1])
    query = edit("query", layer, query.reshape(merged)).reshape(grouped)
    key, value = edit("key", layer, key), edit("value", layer, value)
    scores = jnp.einsum("bskgh,btkh->bkgst", query, key, preferred_element_type="float32")
    weights = masked_softmax(scores * query.shape[-1] ** -0.5, mask[:, None, None])
    by_head = edit("weights", layer, weights.reshape(len(weights), -1, *weights.shape[3:]))
    weights = by_head.reshape(weights.shape).astype(value.dtype)
    output = jnp.einsum("bkgst,btkh->bskgh", weights, value)
    return edit("heads", layer, output.reshape(merged)).reshape(grouped)


def _feed_forward(edit, layer, network, x):
    """The network of (B, S, D), with its edits; one that is transplanted has units of its own."""
    if "call" in vars(network):
        return network(x)
    gate, up = edit("gate", layer, network.gate(x)), edit("up", layer, network.up(x))
    opened = jax.nn.silu(gate.astype("float32")).astype(up.dtype)
    return network.down(edit("products", layer, opened * up))


def _unchanged(site, layer, x):
    return x


def _check_whole(backbone: MistralBackbone) -> None:
    """Refuses parts that `transplanted` has put where an edited pass goes around them."""
    blocks = backbone.transformer_layers
    if any("call" in vars(b) or b.self_attention.attention_path == "transplant" for b in blocks):
        raise ValueError(
            "An edited pass does not call a block, attention, heads or mask that is transplanted. "
            "Read without edit, order and positions, or transplant another part."
        )

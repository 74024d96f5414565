"""Which key a query may see (chapter 7, "Sliding windows and masks").

One predicate decides everything about causal, sliding-window and padded attention. Each attention
path, the rolling cache and every picture in the book ask it.
"""

from mistral_lib.arrays import Array, Bool, Int


def can_see(
    query_positions: Int[Array, "..."] | int,
    key_positions: Int[Array, "..."] | int,
    window: int | Int[Array, ""] | None = None,
) -> Bool[Array, "..."] | bool:
    """Whether the query at one position may see the key at another.

    A query sees a key that is not in its future and fewer than `window` tokens back:
    `0 <= query_position - key_position < window`. A window of W therefore shows W tokens, the
    query's own included.

    Args:
        query_positions: integer array (NumPy or JAX), or an int.
        key_positions: integer array that broadcasts against `query_positions`.
        window: number of visible tokens, at least 1; `None` is full causal attention.

    Returns:
        A bool array of the broadcast shape.

    Source: Jiang et al., "Mistral 7B", 2023, section 2.

    >>> [bool(can_see(5, key, window=3)) for key in range(8)]
    [False, False, False, True, True, True, False, False]
    """
    distance = query_positions - key_positions
    visible = distance >= 0
    if window is not None:
        visible = visible & (distance < window)
    return visible


def attention_mask(
    query_positions: Int[Array, "*#B S"],
    key_positions: Int[Array, "*#B T"],
    window: int | Int[Array, ""] | None = None,
    key_mask: Bool[Array, "*#B T"] | None = None,
) -> Bool[Array, "... S T"]:
    """The mask of a whole attention call: `can_see` for every pair, and no padded key.

    Args:
        query_positions: integer array (..., S).
        key_positions: integer array (..., T).
        window: number of visible tokens, or `None`.
        key_mask: bool array (..., T), true for the keys that are real tokens; or `None`.

    Returns:
        A bool array (..., S, T), true where the query of that row may see the key of that column.

    >>> import numpy as np
    >>> positions = np.arange(4)
    >>> print(attention_mask(positions, positions, window=2).astype(int))
    [[1 0 0 0]
     [1 1 0 0]
     [0 1 1 0]
     [0 0 1 1]]
    """
    # (..., S, 1) against (..., 1, T): one question for every pair.
    mask = can_see(query_positions[..., :, None], key_positions[..., None, :], window)
    if key_mask is not None:
        mask = mask & key_mask[..., None, :]
    return mask  # pyright: ignore[reportReturnType]  # arrays came in

"""Progress bars for long reads and writes, in bytes (chapter 17, "Presets and checkpoints")."""

from tqdm import tqdm

PROGRESS_FROM = 2**28  # bytes; less is done before a bar can be read


def progress_bar(description: str, size: int) -> tqdm:
    """A bar on stderr, to be used as a context and told of bytes with `update`.

    Args:
        description: what is being done.
        size: bytes in all. With few of them nothing is shown.

    >>> with progress_bar("Loading nothing", 10) as progress:
    ...     _ = progress.update(10)
    """
    hidden = size < PROGRESS_FROM
    return tqdm(total=size, unit="B", unit_scale=True, desc=description, disable=hidden)

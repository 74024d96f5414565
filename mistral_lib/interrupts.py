"""Delaying Ctrl-C (chapter 13, "Training a Mistral from nothing")."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Makes Ctrl-C wait until the end of the block, so that changes are never half done.

    Python handles signals only in its main thread; in any other thread this does nothing.

    >>> done = []
    >>> with contextlib.suppress(KeyboardInterrupt), uninterrupted():
    ...     signal.raise_signal(signal.SIGINT)
    ...     done.append("all of it")
    >>> done
    ['all of it']
    """
    handler, waiting = signal.getsignal(signal.SIGINT), []
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    signal.signal(signal.SIGINT, lambda *arguments: waiting.append(arguments))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if waiting:
            handler(*waiting[0])

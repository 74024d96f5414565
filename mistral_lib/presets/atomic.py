"""Replacing a whole folder at once (chapter 17, "Presets and checkpoints")."""

import contextlib
import ctypes
import errno
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A folder to write into, which takes the place of `folder` when the block ends.

    It begins with what `folder` holds, by hard links where the file system has them: write new
    files, never into old ones. An exception in the block leaves `folder` as it was. So does a
    crash, which also leaves the unfinished folder beside it, named `….saving-…`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "preset"
    >>> with replaced(folder) as new:
    ...     _ = (new / "config.json").write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['config.json']
    """
    folder = folder.resolve()  # a link to a folder stays a link
    folder.parent.mkdir(parents=True, exist_ok=True)
    new = folder.with_name(f"{folder.name}.saving-{secrets.token_hex(4)}")
    try:
        if folder.exists():
            shutil.copytree(folder, new, copy_function=_link, symlinks=True)
        else:
            new.mkdir()
        yield new
        _write_through(new)
        _swap(new, folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # no hard links in this file system
        shutil.copy2(source, target)


def _write_through(folder: Path) -> None:
    """Waits until the files are on the disk: a name must not survive a crash without them."""
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            with file.open("rb") as opened:
                os.fsync(opened.fileno())


def _swap(new: Path, folder: Path) -> None:
    if not folder.exists():
        new.rename(folder)
    elif not _exchange(new, folder):
        # The next best: for an instant, only the old folder's other name exists.
        old = folder.with_name(f"{folder.name}.old-{secrets.token_hex(4)}")
        folder.rename(old)
        new.rename(folder)
        shutil.rmtree(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchanges two names in one step. Returns False where the system cannot."""
    libc = ctypes.CDLL(None, use_errno=True)
    paths = os.fsencode(one), os.fsencode(other)
    at_cwd, exchange = -100, 2
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        failed = libc.renameat2(at_cwd, paths[0], at_cwd, paths[1], exchange)
    elif sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        failed = libc.renamex_np(*paths, exchange)
    else:
        return False
    if failed:
        code = ctypes.get_errno()
        if code in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            return False
        raise OSError(code, os.strerror(code), str(other))
    return True

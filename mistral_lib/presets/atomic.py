"""Replacing the files of a folder, all or none (chapter 17, "Presets and checkpoints").

New files are written inside the folder itself, into `.saving-…/new`, so only the folder has to be
writable, and it keeps its owner, its mode and all other files in it. Once all new files are on the
disk, a journal lists the files that are to be added and those that are to be removed. Then the old
files are moved to `.saving-…/old`, the new files are moved to their places, and the journal is
deleted.

A process can die after any of these steps. Each file is then in one of two places, both known from
the journal, so the next process that opens the folder can finish the save or undo it.
"""

import contextlib
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mistral_lib.presets.json_files import read_json, write_json

try:
    import fcntl
except ImportError:  # on Windows, where no folder can be locked
    fcntl = None

PREFIX, JOURNAL = ".saving-", "journal.json"
# The files that a journal may move.
SUFFIXES = (".json", ".h5", ".safetensors", ".spm", ".model", ".bin", ".jinja", ".txt")
LOST_AND_FOUND = "lost+found"  # in the root folder of a disk


@contextlib.contextmanager
def replaced(folder: Path, stale: Iterable[str] = ()) -> Iterator[Path]:
    """An empty folder to write into, whose files are moved into `folder` when the block ends.

    Args:
        folder: made if it is missing. Its files stay, except those with the names of new files.
        stale: patterns, as `Path.glob` takes them, of files to remove.

    Raises:
        OSError: writing failed, for example because the disk is full. `folder` is as it was before,
            as after any other exception in the block.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "preset"
    >>> with replaced(folder) as new:
    ...     _ = (new / "config.json").write_text("{}")
    >>> [file.name for file in folder.iterdir()]
    ['config.json']
    """
    folder = folder.resolve()  # a link to a folder stays a link
    made = not folder.exists()
    try:
        with _naming(folder):
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder) as alone:
                _settle(folder)
                for left in sorted(folder.glob(f"{PREFIX}*")) if alone else ():
                    # It was left by a process that was killed before it wrote a journal.
                    shutil.rmtree(left, ignore_errors=True)
                yield from _staged(folder, stale)
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _staged(folder: Path, stale: Iterable[str]) -> Iterator[Path]:
    saving = folder / f"{PREFIX}{secrets.token_hex(4)}"
    try:
        (saving / "new").mkdir(parents=True)
        yield saving / "new"
        _commit(saving, folder, stale)
    finally:
        if not (saving / JOURNAL).exists():
            shutil.rmtree(saving, ignore_errors=True)


@contextlib.contextmanager
def replaced_file(file: Path) -> Iterator[Path]:
    """A path to write to; the file written there replaces `file` when the block ends.

    Args:
        file: its folder is made if it is missing.

    Raises:
        OSError: writing failed. The old file is as it was.
    """
    partial = file.with_name(f"{file.name}.{os.getpid()}.partial")
    try:
        with _naming(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            _write_through(partial)
            os.replace(partial, file)
            _sync_folders(file.parent)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


def finish(folder: Path) -> None:
    """Finishes a save that was interrupted, or undoes it if it cannot be finished.

    Raises:
        OSError: neither is possible, usually because the folder cannot be written here.
        ValueError: the folder has a journal that `replaced` did not write.
    """
    if any(folder.glob(f"{PREFIX}*/{JOURNAL}")):
        with _locked(folder.resolve()):  # which waits for a save that is still running
            _settle(folder.resolve())


def names_in(folder: Path) -> set[str]:
    """The names in a folder, without those of unfinished saves and of the file system."""
    if not folder.exists():
        return set()
    finish(folder)
    names = {file.name for file in folder.iterdir()} - {LOST_AND_FOUND}
    return {name for name in names if not name.startswith(PREFIX)}


# Descriptors of locked folders, by thread and folder. Ctrl-C can end a save at a moment at which
# Python does not yet know that there is something to clean up. A thread saves only once at a time,
# so a lock of its own that it meets is left from such a save.
_locks: dict[tuple[int, Path], list[int]] = {}


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Waits for other saves into a folder to end; yields whether the folder could be locked."""
    key = threading.get_ident(), folder
    _unlock(_locks.get(key, []))
    opened = _locks[key] = []
    try:
        locked = False
        if fcntl is not None:
            with contextlib.suppress(OSError):
                opened.extend(map(os.open, [folder], [os.O_RDONLY]))  # Ctrl-C comes between no two
                fcntl.flock(opened[0], fcntl.LOCK_EX)
                locked = True
        yield locked
    finally:
        _unlock(opened)
        if _locks.get(key) is opened:
            del _locks[key]


def _unlock(opened: list[int]) -> None:
    """Closes descriptors, as the end of the process does; each is taken out of the list."""
    list(map(os.close, map(opened.pop, [0] * len(opened))))  # Ctrl-C comes between no two


def _commit(saving: Path, folder: Path, stale: Iterable[str]) -> None:
    """Moves the new files to their places; after an exception, the old files are still there."""
    new = saving / "new"
    incoming = {_name(file, new) for file in new.rglob("*") if not file.is_dir()}
    for name in incoming:
        if not _stays_inside(name, folder):
            raise ValueError(
                f"{folder / name} is inside a linked folder. Save elsewhere, or replace the link."
            )
    going = (file for pattern in stale for file in folder.glob(pattern) if not file.is_dir())
    outgoing = {name for name in (_name(f, folder) for f in going) if _stays_inside(name, folder)}
    outgoing |= {name for name in incoming if os.path.lexists(folder / name)}
    journal = {"incoming": _in_order(incoming), "outgoing": _in_order(outgoing)}
    for name in incoming:
        _write_through(new / name)
    _sync_folders(new, incoming)
    write_json(saving / f"{JOURNAL}.new", journal)
    _write_through(saving / f"{JOURNAL}.new")
    os.replace(saving / f"{JOURNAL}.new", saving / JOURNAL)
    _sync_folders(saving)
    _sync_folders(folder)
    try:
        _forward(saving, folder, **journal)
    except BaseException:
        _back(saving, folder, **journal)
        _close(saving, folder, **journal)
        raise
    _close(saving, folder, **journal)


def _settle(folder: Path) -> None:
    """Finishes or undoes each save that has left a journal in the folder."""
    for file in sorted(folder.glob(f"{PREFIX}*/{JOURNAL}")):
        saving, journal = file.parent, _read_journal(file, folder)
        try:
            try:
                _forward(saving, folder, **journal)
            except OSError:
                _back(saving, folder, **journal)
        except OSError as error:
            raise OSError(
                error.errno,
                f"saving into {folder} was interrupted, and can neither be finished nor taken back "
                f"here ({error.strerror}): open the preset once where its folder can be written",
            ) from error
        with contextlib.suppress(OSError):  # the preset is complete, even in a read-only folder
            _close(saving, folder, **journal)


def _forward(saving: Path, folder: Path, incoming: list[str], outgoing: list[str]) -> None:
    """Moves old files out and new files in, except those that have been moved already."""
    old, new = saving / "old", saving / "new"
    for name in outgoing:
        if not os.path.lexists(old / name):
            _move(folder / name, old / name)
    for name in reversed(incoming):
        _move(new / name, folder / name)
    for name in incoming:
        (folder / name).lstat()  # fails if a new file is missing


def _back(saving: Path, folder: Path, incoming: list[str], outgoing: list[str]) -> None:
    """Undoes whatever `_forward` has done."""
    old, new = saving / "old", saving / "new"
    for name in incoming:
        if name not in outgoing or os.path.lexists(old / name):
            _move(folder / name, new / name)
    for name in reversed(outgoing):
        _move(old / name, folder / name)
    parents = {parent for name in incoming for parent in Path(name).parents[:-1]}
    for parent in sorted(parents, reverse=True):
        with contextlib.suppress(OSError):  # not empty
            (folder / parent).rmdir()


def _close(saving: Path, folder: Path, incoming: list[str], outgoing: list[str]) -> None:
    """Deletes the journal once its changes are on the disk, and then the remaining files."""
    _sync_folders(folder, [*incoming, *outgoing])
    (saving / JOURNAL).unlink()
    _sync_folders(saving)
    shutil.rmtree(saving, ignore_errors=True)


def _move(source: Path, target: Path) -> None:
    """Moves a file, unless it has been moved already."""
    if os.path.lexists(source):
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(source, target)


def _name(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix()


def _in_order(names: Iterable[str]) -> list[str]:
    """The names with JSON files first, because these are removed first and added last.

    So a program that knows nothing of journals finds no config, rather than one for other weights.
    """
    return sorted(names, key=lambda name: (not name.endswith(".json"), name))


def _read_journal(file: Path, folder: Path) -> dict[str, list[str]]:
    """The two lists of a journal, checked: a downloaded preset may contain any journal."""
    content: dict[str, Any] = read_json(file)
    ways = ("", f"{file.parent.name}/old/", f"{file.parent.name}/new/")
    for key in ("incoming", "outgoing"):
        names = content.get(key)
        if not (
            content.keys() == {"incoming", "outgoing"}
            and isinstance(names, list)
            and all(isinstance(name, str) for name in names)
            and all(_stays_inside(way + name, folder) for name in names for way in ways)
        ):
            raise ValueError(
                f"{file} was not written by mistral_lib: {key} must be a list of a preset's files, "
                f"but is {names!r:.80}. Delete {file.parent}."
            )
    return content


def _stays_inside(name: str, folder: Path) -> bool:
    """Whether a name is a preset's file inside the folder, with no link on the way to it."""
    *parents, last = name.split("/")
    if any(part in ("", ".", "..") or set(part) & set("\\:\0") for part in (*parents, last)):
        return False
    links = (folder.joinpath(*parents[: depth + 1]).is_symlink() for depth in range(len(parents)))
    return last.endswith(SUFFIXES) and not any(links)


@contextlib.contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Adds to an operating system's error what could not be saved."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # our own message, which says so already
            raise
        raise OSError(error.errno, f"{path} could not be saved: {error.strerror}") from error


def _write_through(file: Path) -> None:
    """Waits until a file is on the disk: a name must not survive a crash without its content."""
    with file.open("r+b") as opened:  # Windows can sync only files that are open for writing
        os.fsync(opened.fileno())


def _sync_folders(folder: Path, names: Iterable[str] = ()) -> None:
    """Waits until the names in a folder, and in the folders of some files, are on the disk."""
    for parent in {folder, *((folder / name).parent for name in names)}:
        with contextlib.suppress(OSError):  # Windows, and some network drives, cannot
            opened = os.open(parent, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)

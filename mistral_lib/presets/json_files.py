"""Strict reading of small JSON files (chapter 17, "Presets and checkpoints")."""

import json
import stat
from pathlib import Path
from typing import Any

LARGEST_FILE = 16 * 2**20  # bytes; the configs of presets have a few thousand
LFS_POINTER, LFS_BYTES = b"version https://git-lfs", 1024  # how one begins; the most that it has


def check_file(file: Path) -> int:
    """The size of a regular file in bytes.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: something is there that is no regular file (a folder, a device, a pipe), or what
            git leaves in place of a large file that it did not download.
    """
    try:
        status = file.stat()
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{file} does not exist.") from error
    if not stat.S_ISREG(status.st_mode):
        raise ValueError(f"{file} is not a regular file, so it is not read.")
    if status.st_size <= LFS_BYTES and file.read_bytes().startswith(LFS_POINTER):
        raise ValueError(
            f"{file} is a git-lfs pointer, not the file that it stands for. Run `git lfs pull` in "
            "its folder, or download the file itself."
        )
    return status.st_size


def read_json(file: Path, largest: int | None = None) -> dict[str, Any]:
    """The object in a JSON file, or an error that names the file and the place.

    Standard JSON only: what Python's parser lets through (`NaN`, a key given twice) is refused,
    since two readers could take it in two ways.

    Args:
        file: where it is.
        largest: how many bytes it may have; `None` means `LARGEST_FILE`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not JSON, not an object, or larger than `largest`.

    >>> import tempfile
    >>> file = Path(tempfile.mkdtemp()) / "config.json"
    >>> _ = file.write_text('{"hidden_dim": 16, "hidden_dim": 32}')
    >>> read_json(file)
    Traceback (most recent call last):
    ValueError: .../config.json is not valid JSON: the key 'hidden_dim' stands twice ...
    """
    size = check_file(file)
    largest = LARGEST_FILE if largest is None else largest
    if size > largest:
        raise ValueError(
            f"{file} has {size:,} bytes; a JSON file of a preset has at most {largest:,}."
        )
    return parse_json(file.read_bytes(), str(file))


def parse_json(text: bytes, source: str) -> dict[str, Any]:
    """The object in UTF-8 text, as strictly as `read_json`; `source` names it in an error.

    >>> parse_json(b'{"epsilon": NaN}', "config.json")
    Traceback (most recent call last):
    ValueError: config.json is not valid JSON: NaN is no number. It may be ...
    """
    try:
        content = json.loads(
            text.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{source} is not valid JSON: {error}. It may be cut off or edited; get it again from "
            "its source."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(f"{source} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def check_ids(value: Any, name: str) -> tuple[int, ...]:
    """Token ids that stand in a file, where one may stand without a list, and null is none.

    Args:
        value: what stands there.
        name: the file and the entry, for the error.

    Raises:
        ValueError: something else stands there.

    >>> check_ids(2, "generation_config.json: eos_token_id")
    (2,)
    """
    ids = [] if value is None else value if isinstance(value, list) else [value]
    if not all(type(id) is int and 0 <= id < 2**31 for id in ids):
        raise ValueError(f"{name} must be ids of tokens, but is {value!r:.80}.")
    return tuple(ids)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A dictionary of key and value pairs, unless a key comes twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice!r} stands twice in one object")
    return found


def _refuse_constant(constant: str):
    raise ValueError(f"{constant} is no number")


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Writes an object as indented JSON in place of `file`."""
    # A new file: the old one may be shared with another folder by a hard link.
    file.unlink(missing_ok=True)
    file.write_text(json.dumps(content, indent=4, allow_nan=False) + "\n", encoding="utf-8")

"""The reader's own package: stubs to fill, and what is right of them (used by all chapters).

    python -m mistral_lib exercises init my_mistral        writes it
    python -m mistral_lib exercises check my_mistral       says what is right, and runs the whole
    python -m mistral_lib exercises progress my_mistral    says what is done

It is judged by the exercises of the chapters (`own_parts`), and by the whole model (`own_model`).
"""

from __future__ import annotations

import functools
import importlib
import io
import keyword
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from mistral_lib.checks import as_path
from mistral_lib.teaching import own_model
from mistral_lib.teaching.exercises import print_progress as print_progress
from mistral_lib.teaching.exercises.answers import Unreadable
from mistral_lib.teaching.exercises.running import NotTried, check_arguments
from mistral_lib.teaching.own_parts import PARTS, TEMPLATE, Part

NAME = "my_mistral"  # in the template
PROGRAM = "python -m mistral_lib exercises"
FINISHED = ("files", "writer")  # modules that the reader need not write
RUN_IT = "Run this call to see in which line."
STATES = {True: "right", False: "not yet", None: "not tried"}


@dataclass(frozen=True)
class Result:
    """What was found about one part: `right` is `None` if it cannot be judged yet."""

    part: Part
    right: bool | None
    said: str = ""

    def __str__(self):
        if self.right is None and self.said:
            return f"{self.part.chapter:2}  {self.part!s:20} {self.said}"
        state = STATES[self.right]
        lines = [f"{self.part.chapter:2}  {self.part!s:20} {state}", *self.said.splitlines()]
        return "\n      ".join(lines)


class Stopped(Exception):
    """The reader's code stopped; the message says where."""


def init(folder: str | Path) -> Path:
    """Writes a package of stubs.

    Args:
        folder: a new folder; its name becomes that of the package.

    Returns:
        The folder.

    Raises:
        FileExistsError: there is something of that name already.
        ValueError: the name cannot be a package's, or belongs to another package.

    >>> import tempfile
    >>> parent = Path(tempfile.mkdtemp())
    >>> sorted(path.name for path in init(parent / "my_mistral").iterdir())[:3]
    ['README.md', '__init__.py', '__main__.py']
    """
    folder = as_path(folder)
    name = folder.absolute().name
    if not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(
            f"{name!r} cannot be the name of a package: take letters, digits and underscores, such "
            f"as {NAME}."
        )
    if folder.exists():
        raise FileExistsError(
            f"{folder} exists already, and nothing in it was changed. Take another name, or see "
            f"what is right of it: {PROGRAM} check {folder}"
        )
    if name in sys.modules or find_spec(name):
        raise ValueError(f"{name} is the name of another package: take another, such as {NAME}.")
    folder.mkdir(parents=True)
    for source in sorted(TEMPLATE.iterdir()):
        text = source.read_text(encoding="utf-8").replace(NAME, name)
        (folder / source.stem).write_text(text, encoding="utf-8")
    return folder


def check(folder: str | Path) -> bool:
    """Prints for each part of a package whether it is right; runs it all if every part is.

    Args:
        folder: that of the package.

    Returns:
        Whether nothing is wrong with what is written.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no package of this book.
    """
    with imported(folder) as own:
        results = judged(own, as_path(folder))
        for result in results:
            print(result)
        count = sum(result.right is True for result in results)
        print(f"\n{count} of {len(results)} parts are right.")
        if count < len(results):
            if not count:
                print("Begin with chapter 1: loop.py.")
            return all(result.right is not False for result in results)
        print("All together, with the weights of the shipped model:")
        return _finished(own, as_path(folder))


def progress(folder: str | Path) -> None:
    """Prints for each chapter how many of its parts are right.

    Args:
        folder: that of the package.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no package of this book.
    """
    with imported(folder) as own:
        results = judged(own, as_path(folder))
    for chapter in dict.fromkeys(part.chapter for part in PARTS):
        of_it = [result for result in results if result.part.chapter == chapter]
        done = sum(result.right is True for result in of_it)
        left = ", ".join(str(result.part) for result in of_it if result.right is not True)
        print(f"chapter {chapter:2}  {done} of {len(of_it)}  {left and f'left: {left}'}".rstrip())
    print(f"{sum(result.right is True for result in results)} of {len(results)} parts are right.")


@contextmanager
def imported(folder: str | Path) -> Iterator[dict[str, ModuleType | str]]:
    """The modules of a package by their names, or a sentence about what stops one.

    Args:
        folder: that of the package.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is no package of this book.
    """
    folder = as_path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}. Write one: {PROGRAM} init {folder}")
    names = [*dict.fromkeys(part.module for part in PARTS), *FINISHED]
    if not all((folder / file).is_file() for file in ("__init__.py", "files.py")):
        raise ValueError(
            f"{folder} is no package of this book: an __init__.py and a files.py are expected "
            f"there. Write a new one: {PROGRAM} init {NAME}"
        )
    package = folder.resolve().name
    kept = {n: sys.modules.pop(n) for n in [*sys.modules] if n.partition(".")[0] == package}
    writes, sys.dont_write_bytecode = sys.dont_write_bytecode, True  # files may change any moment
    sys.path.insert(0, str(folder.resolve().parent))
    importlib.invalidate_caches()
    try:
        yield {name: _imported(package, name, folder) for name in names}
    finally:
        sys.path.remove(str(folder.resolve().parent))
        sys.dont_write_bytecode = writes
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]
        sys.modules.update(kept)


def _imported(package: str, name: str, folder: Path) -> ModuleType | str:
    if not (folder / f"{name}.py").is_file():
        return f"{folder / name}.py is missing: {PROGRAM} init writes a folder that has one."
    try:
        with _stops_at(folder):
            return importlib.import_module(f"{package}.{name}")
    except Stopped as stopped:
        return str(stopped)


def judged(own: dict[str, ModuleType | str], folder: Path) -> list[Result]:
    """What is right of each part of a package.

    Args:
        own: the modules by their names, as `imported` gives them.
        folder: that of the package.
    """
    results: list[Result] = []
    for part in PARTS:
        module = own[part.module]
        if isinstance(module, str):
            results.append(Result(part, False, module))
        elif not callable(mine := getattr(module, part.name, None)):
            said = f"{part.module}.py has no function `{part.name}`: keep the name of the stub."
            results.append(Result(part, False, said))
        elif part.judge:
            results.append(_by_exercise(part, mine, folder))
        else:
            ready = all(result.right for result in results)
            results.append(_in_the_model(part, mine, folder, ready))
        if results[-1].right is False and not isinstance(module, str):
            results[-1] = Result(part, False, results[-1].said + _not_its_fault(module, results))
    return results


def _not_its_fault(module: ModuleType, results: list[Result]) -> str:
    """A line for each part that a module imports and that is not right itself."""
    others = [r.part for r in results if r.right is not True and r.part.name in vars(module)]
    imported = [p for p in others if vars(module)[p.name].__module__.endswith(f".{p.module}")]
    named = [part for part in imported if not module.__name__.endswith(f".{part.module}")]
    return "".join(f"\n{p.module}.py is not right yet, and this uses its {p.name}." for p in named)


def _by_exercise(part: Part, mine: Callable, folder: Path) -> Result:
    """What the exercise says of a function; an error is told with its file and line."""
    stopped: list[str] = []

    @functools.wraps(mine)
    def watched(*arguments):
        try:
            with _stops_at(folder):
                return mine(*arguments)
        except Stopped as error:
            stopped.append(str(error))
            raise

    assert part.judge is not None
    verdict = part.judge.examine(watched)
    if verdict.right is not False:
        return Result(part, verdict.right)
    said = verdict.message.partition("\n")[2]
    if RUN_IT in said and stopped:
        said = said.partition("It stops there")[0] + f"It stops there. {stopped[0]}"
    return Result(part, False, said)


def _in_the_model(part: Part, mine: Callable, folder: Path, ready: bool) -> Result:
    """What the whole model says of one of its functions, once the parts before it are right."""
    if not ready:
        return Result(part, None, "waits until all parts above it are right")
    try:
        check_arguments(mine, 3 if part.name == "attention" else 1)
        with _stops_at(folder):
            said = own_model.complaint(part.name, mine)
    except NotTried:
        return Result(part, None)
    except Unreadable as what:
        said = f"Yours is {what}. The stub says which arguments are asked for."
    except Stopped as error:
        said = f"It stops. {error}"
    return Result(part, said is None, said or "")


def _finished(own: dict[str, ModuleType | str], folder: Path) -> bool:
    """Prints what the whole package does; whether all of it is right."""
    for name in FINISHED:
        if isinstance(said := own[name], str):
            print(f"  not yet  {name}.py, which was finished, stops: {said}")
            return False
    steps = own_model.finish({name: m for name, m in own.items() if isinstance(m, ModuleType)})
    verdicts = []
    while True:
        try:
            with _stops_at(folder):
                what, said = next(steps, (None, None))
        except Stopped as error:
            print(f"  not yet  {error}")
            return False
        if what is None:
            break
        verdicts.append(said is None)
        print(f"  {'not yet' if said else 'right'}  {what}{f': {said}.' if said else ''}")
    if all(verdicts):
        print(f'It is your model: python -m {folder.resolve().name} "Return the name of"')
    return all(verdicts)


@contextmanager
def _stops_at(folder: Path) -> Iterator[None]:
    """Makes a `Stopped` of whatever the reader's code raises; what it prints is not shown."""
    try:
        with redirect_stdout(io.StringIO()):
            yield
    except (KeyboardInterrupt, NotTried, Stopped):
        raise
    except BaseException as error:
        raise Stopped(_told(error, folder.resolve())) from error


def _told(error: BaseException, folder: Path) -> str:
    """An error with its file and line, as `norm.py, line 7: NameError: ...`."""
    kind = f"{type(error).__name__}: {error}".rstrip(": ")
    if isinstance(error, SyntaxError) and error.filename:
        name = os.path.basename(error.filename)
        return f"{name}, line {error.lineno}: {type(error).__name__}: {error.msg}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if Path(f.filename).resolve().parent == folder]
    place = f"{Path(own[-1].filename).name}, line {own[-1].lineno}: " if own else ""
    return f"{place}{kind}"

"""mistral_lib/presets/atomic.py: a folder gets all new files or keeps all old ones."""

import contextlib
import errno
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from mistral_lib.presets import atomic
from mistral_lib.presets.atomic import finish, names_in, replaced, replaced_file

OLD = {"config.json": "old", "gone.h5": "old", "assets/vocabulary.spm": "old", "notes": "mine"}
NEW = {"config.json": "new", "added.h5": "new", "assets/vocabulary.spm": "old", "notes": "mine"}


def content(folder):
    """The texts of all files, but for what an interrupted save left over."""
    files = (f for f in folder.rglob("*") if f.is_file() and atomic.PREFIX not in str(f))
    return {f.relative_to(folder).as_posix(): f.read_text() for f in files}


def write(folder, texts):
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def save(folder):
    with replaced(folder, stale=["g*.h5"]) as new:
        assert list(new.iterdir()) == []
        write(new, {name: text for name, text in NEW.items() if text == "new"})
        assert content(folder).get("config.json") != "new"


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "preset", OLD)
    return tmp_path / "preset"


@pytest.fixture
def failing(monkeypatch):
    """Has moving a file fail: the first time, the second, … or each time."""

    def fail(times, code=errno.EROFS):
        moves, replace = itertools.count(), os.replace

        def move(source, target):
            if "journal" not in str(source) and next(moves) in times:
                raise OSError(code, os.strerror(code))
            replace(source, target)

        monkeypatch.setattr(os, "replace", move)

    return fail


def test_new_folder(tmp_path):
    save(tmp_path / "a/b")
    assert content(tmp_path) == {"a/b/config.json": "new", "a/b/added.h5": "new"}
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_replaced(folder):
    save(folder)
    assert content(folder) == NEW
    assert {path.name for path in folder.iterdir()} == {*NEW, "assets"} - {"assets/vocabulary.spm"}
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("missing", [False, True])
def test_exception_leaves_the_old(folder, missing):
    def interrupted():
        with replaced(folder / "inner" if missing else folder, stale=["*"]) as new:
            write(new, {"config.json": "new"})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert content(folder) == OLD
    assert {path.name for path in folder.iterdir()} == {"config.json", "gone.h5", "assets", "notes"}


@pytest.mark.parametrize("move", range(4))
def test_a_file_that_cannot_be_moved(folder, failing, move):
    """On Windows, one that another program has open. What was moved is moved back."""
    failing([move], errno.EACCES)
    with pytest.raises(PermissionError, match="preset could not be saved: Permission denied"):
        save(folder)
    assert content(folder) == OLD
    assert names_in(folder) == {path.name for path in folder.iterdir()}


def test_the_folder_itself_stays(folder):
    """With its owner, mode and inode, as the working directory or a mounted disk needs it."""
    folder.chmod(0o2770)
    if os.getuid() == 0:
        os.chown(folder, 65534, 65534)
        folder.chmod(0o2770)
    before = folder.stat()
    with contextlib.chdir(folder):
        save(Path())
        assert Path("config.json").read_text() == "new"
    after = folder.stat()
    for name in ("st_ino", "st_uid", "st_gid", "st_mode"):
        assert getattr(before, name) == getattr(after, name)
    assert content(folder) == NEW


@contextlib.contextmanager
def without_rights():
    """As somebody to whom the permissions of files apply."""
    if os.getuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def parent():
    """A folder that nobody may write into."""
    folder = Path(tempfile.mkdtemp())
    yield folder
    for path in (folder, *folder.rglob("*")):
        if path.is_dir():
            path.chmod(0o700)
    shutil.rmtree(folder)


@pytest.mark.skipif(os.name != "posix", reason="needs the permissions of POSIX")
def test_only_the_folder_must_be_writable(parent):
    write(parent / "preset", OLD)
    for path in parent.rglob("*"):
        path.chmod(0o777)
    parent.chmod(0o555)
    with without_rights():
        save(parent / "preset")
    assert content(parent / "preset") == NEW
    (parent / "preset").chmod(0o555)
    with without_rights(), pytest.raises(PermissionError) as caught:
        save(parent / "preset")
    assert (
        str(caught.value) == f"[Errno 13] {parent / 'preset'} could not be saved: Permission denied"
    )


def test_link_to_a_folder_stays_a_link(folder, tmp_path):
    link = tmp_path / "link"
    link.symlink_to(folder)
    save(link)
    assert link.is_symlink()
    assert content(folder) == NEW


def test_links_inside_are_replaced_not_followed(folder, tmp_path):
    (tmp_path / "far").write_text("far")
    for name in ("near", "config.json"):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(tmp_path / "far")
    save(folder)
    assert (folder / "near").is_symlink()
    assert not (folder / "config.json").is_symlink()
    assert (tmp_path / "far").read_text() == "far"
    (tmp_path / "outside").mkdir()
    (folder / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(ValueError, match="is inside a linked folder"), replaced(folder) as new:
        write(new, {"linked/a.json": "new"})
    assert list((tmp_path / "outside").iterdir()) == []


def test_one_after_the_other(folder):
    """A second save waits for the first."""
    started, order = threading.Event(), []

    def second():
        started.wait()
        with replaced(folder) as new:
            order.append("second")
            write(new, {"config.json": "second"})

    thread = threading.Thread(target=second)
    thread.start()
    with replaced(folder) as new:
        started.set()
        thread.join(0.2)
        assert thread.is_alive()
        order.append("first")
        write(new, {"config.json": "first"})
    thread.join(10)
    assert order == ["first", "second"]
    assert content(folder) == {**OLD, "config.json": "second"}


def test_where_no_folder_can_be_locked(folder, monkeypatch):
    """On Windows. What another save may be writing is left alone."""
    monkeypatch.setattr(atomic, "fcntl", None)
    (folder / ".saving-0/new").mkdir(parents=True)
    save(folder)
    assert content(folder) == NEW
    assert (folder / ".saving-0/new").exists()
    monkeypatch.undo()
    with replaced(folder):
        pass
    assert not (folder / ".saving-0").exists()


def test_everything_is_on_the_disk_before_the_journal(folder, monkeypatch):
    """Otherwise a power failure could leave a name without its content."""
    synced, expected, replace, fsync = set(), set(), os.replace, os.fsync

    def remember(opened):
        synced.add(os.fstat(opened).st_ino)
        fsync(opened)

    def check(source, target):
        saving = Path(target).parent
        if Path(target).name == atomic.JOURNAL:
            files = [Path(source), saving / "new", *(saving / "new").rglob("*")]
            assert len(files) == 4
            expected.update(path.stat().st_ino for path in files)
        assert expected
        assert expected <= synced
        if Path(target).name == atomic.JOURNAL:  # which is on the disk before the first move
            expected.update(path.stat().st_ino for path in (saving, folder))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", remember)
    monkeypatch.setattr(os, "replace", check)
    save(folder)
    assert content(folder) == NEW


# --- An interrupted save -------------------------------------------------------------------------


def interrupt(folder, moves):
    """Leaves a folder as a process does that is killed after some moves."""
    (saving,) = [folder / ".saving-1"]
    write(saving / "new", {"config.json": "new", "added.h5": "new"})
    journal = {"incoming": ["config.json", "added.h5"], "outgoing": ["config.json", "gone.h5"]}
    write(saving, {"journal.json": json.dumps(journal)})
    steps = [(folder, "old", "config.json"), (folder, "old", "gone.h5")]
    steps += [(saving / "new", "", "added.h5"), (saving / "new", "", "config.json")]
    for source, target, name in steps[:moves]:
        to = saving / target if target else folder
        to.mkdir(exist_ok=True)
        os.replace(source / name, to / name)


@pytest.mark.parametrize("moves", range(5))
def test_finished_by_the_next_to_open_it(folder, moves):
    interrupt(folder, moves)
    finish(folder)
    assert content(folder) == NEW
    assert not list(folder.glob(".saving*"))


@pytest.mark.parametrize("moves", range(3))
def test_taken_back_where_a_new_file_is_gone(folder, moves):
    interrupt(folder, moves)
    (folder / ".saving-1/new/added.h5").unlink()
    finish(folder)
    assert content(folder) == OLD
    assert not list(folder.glob(".saving*"))


@pytest.mark.parametrize("moves", range(5))
def test_the_next_save_finishes_it_first(folder, moves):
    interrupt(folder, moves)
    with pytest.raises(KeyboardInterrupt), replaced(folder):
        raise KeyboardInterrupt
    assert content(folder) == NEW
    assert not list(folder.glob(".saving*"))


@pytest.mark.parametrize("moves", range(1, 4))
def test_where_nothing_can_be_written(folder, failing, moves):
    """One sentence; what is whole in any case is read."""
    interrupt(folder, moves)
    failing(range(99))
    with pytest.raises(OSError, match="neither be finished nor taken back") as caught:
        finish(folder)
    assert str(caught.value) == (
        f"[Errno 30] saving into {folder} was interrupted, and can neither be finished nor taken "
        "back here (Read-only file system): open the preset once where its folder can be written"
    )


def test_what_is_whole_is_read_where_nothing_can_be_written(folder, failing, monkeypatch):
    def refuse(*arguments, **keywords):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    interrupt(folder, 0)
    failing(range(99))
    monkeypatch.setattr(Path, "unlink", refuse)
    finish(folder)
    assert content(folder) == OLD


@pytest.mark.parametrize(
    "names",
    [
        ["../secret.json"],
        ["/etc/passwd.json"],
        ["assets/../../secret.json"],
        ["notes"],  # no file of a preset
        ["C:secret.json"],
        ["out/secret.json"],  # a link
        [3],
        "config.json",
        None,
    ],
)
@pytest.mark.parametrize("key", ["incoming", "outgoing"])
def test_a_journal_of_somebody_else_moves_nothing(folder, tmp_path, names, key):
    """A preset may come from anywhere, and its journal with it."""
    (tmp_path / "secret.json").write_text("secret")
    (folder / "out").symlink_to(tmp_path)
    journal = {"incoming": [], "outgoing": [], key: names}
    write(folder, {".saving-1/journal.json": json.dumps(journal)})
    (folder / ".saving-1/new").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"was not written by mistral_lib: .* Delete"):
        finish(folder)
    (folder / "out").unlink()
    assert content(folder) == OLD
    assert (tmp_path / "secret.json").read_text() == "secret"


def test_names_in(folder):
    interrupt(folder, 2)
    (folder / "lost+found").mkdir()
    assert names_in(folder) == {"config.json", "added.h5", "assets", "notes"}
    assert names_in(folder / "missing") == set()


# Ends a save before each of its steps, and its finishing before each of its own.
KILLED = """
import itertools, os, shutil, signal, sys
from pathlib import Path

sys.path.insert(0, sys.argv[2])
import test_atomic
from mistral_lib.presets.atomic import finish, replaced
from test_atomic import NEW, OLD, content, save, write

folder = Path(sys.argv[1])
STEPS = ("open", "os.", "shutil.", "fcntl.", "fsync")
left, kill = None, None

def count(event, arguments=()):
    global left
    if left is not None and event.startswith(STEPS):
        left -= 1
        if left < 0:
            kill()

class Killed(BaseException):
    pass

def stop():  # nothing that the process does afterwards takes effect
    raise Killed

def attempt(action, steps):
    global left
    left = steps
    try:
        action(folder)
        return True
    except Killed:
        return False
    finally:
        left = None

def reset(source):
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)

sys.addaudithook(count)
os.fsync = lambda opened: count("fsync")  # of which no hook hears, and which takes long
write(folder.with_name("old"), OLD)
kill, states, pairs = stop, [], 0
for steps in itertools.count():
    reset(folder.with_name("old"))
    saved = attempt(save, steps)
    shutil.rmtree(folder.with_name("killed"), ignore_errors=True)
    folder.rename(folder.with_name("killed"))
    for more in itertools.count():
        reset(folder.with_name("killed"))
        finished = attempt(finish, more)
        finish(folder)
        found = content(folder)
        assert found in (OLD, NEW), (steps, more, found)
        pairs += 1
        if finished:
            break
    states.append(found == NEW)
    if saved:
        break
assert states == sorted(states) and states[-1] and not states[0]

# And by the system, with all that a process leaves behind.
def by_signal():
    global left
    left = None  # or it would count itself
    os.kill(os.getpid(), signal.SIGKILL)

kill = by_signal
for steps in itertools.count():
    reset(folder.with_name("old"))
    child = os.fork()
    if child == 0:
        attempt(save, steps)
        os._exit(0)
    killed = os.waitpid(child, 0)[1]
    assert killed in (0, signal.SIGKILL)
    finish(folder)
    assert content(folder) == (NEW if states[steps] else OLD), steps
    with replaced(folder):
        pass
    assert not list(folder.glob(".saving-*"))
    if not killed:
        break
assert steps == len(states) - 1
print(steps, pairs)
"""


@pytest.mark.skipif(sys.platform not in ("linux", "darwin"), reason="needs fork")
def test_killed_at_every_step(tmp_path):
    here = os.path.dirname(__file__)
    command = [sys.executable, "-c", KILLED, tmp_path / "preset", here]
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(here)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    steps, pairs = map(int, result.stdout.split())
    assert steps > 40
    assert pairs > 500


# --- One file ------------------------------------------------------------------------------------


def write_half(file):
    with replaced_file(file) as new:
        new.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_one_file(tmp_path):
    file = tmp_path / "a/b/a.lora.h5"
    for text in ("old", "new"):
        with replaced_file(file) as new:
            new.write_text(text)
            assert not file.exists() or file.read_text() == "old"
        assert file.read_text() == text
    with pytest.raises(OSError, match=r"a\.lora\.h5 could not be saved: No space left"):
        write_half(file)
    assert [path.name for path in file.parent.iterdir()] == ["a.lora.h5"]
    assert file.read_text() == "new"

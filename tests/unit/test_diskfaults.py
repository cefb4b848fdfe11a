"""The disk that fails on command and writes down what was asked of it: every call that Python and SQLite use is seen."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdtstore.testing import diskfaults
from crdtstore.testing.diskfaults import Call, DiskFaults
from crdtstore.testing.disktrace import EventKind, Marks, read_trace
from crdtstore.testing.powercut_images import Disk

pytestmark = pytest.mark.skipif(diskfaults.available() is not None, reason=str(diskfaults.available()))

HEAD = """
import os, sys, sqlite3
os.chdir(sys.argv[1])
def attempt(call, *arguments):
    try:
        print(call(*arguments), flush=True)
    except OSError as error:
        print(f"E{error.errno}", flush=True)
"""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[DiskFaults]:
    (tmp_path / "disk").mkdir()
    with DiskFaults(tmp_path / "disk", tmp_path / "control", tmp_path / "trace") as made:
        yield made


def run(disk: DiskFaults, program: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", HEAD + program, str(disk.directory)]
    return subprocess.run(command, env=os.environ | disk.environment(), capture_output=True, text=True, check=False)


def said(disk: DiskFaults, program: str) -> list[str]:
    child = run(disk, program)
    assert child.stderr == ""
    return child.stdout.split()


def content(directory: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in sorted(directory.rglob("*"))
    }


EVERY_CALL = """
fd = os.open("file", os.O_RDWR | os.O_CREAT)
os.write(fd, b"write,")
os.writev(fd, [b"wri", b"tev,"])
os.pwrite(fd, b"pwrite," * 200, 13)
os.pwritev(fd, [b"pwri", b"tev,"], 20)
os.ftruncate(fd, 700)
os.ftruncate(fd, 1500)
with open("file", "ab") as other:
    other.write(b"append")
os.fsync(fd)
os.mkdir("sub")
os.rename("file", "sub/renamed")
os.pwrite(fd, b"after", 1)
for name in ("a", "b"):
    with open("sub/" + name, "w") as made:
        made.write("made")
os.replace("sub/a", "sub/b")
with open("sub/b", "w") as made:
    made.write("again")
with open("gone", "w") as made:
    made.write("gone")
os.unlink("gone")
os.mkdir("empty")
os.rmdir("empty")
here = os.open(".", os.O_RDONLY)
fd = os.open("at", os.O_WRONLY | os.O_CREAT | os.O_DSYNC, dir_fd=here)
os.write(fd, b"dsync")
os.unlink("at", dir_fd=here)
os.fsync(here)
with open("../elsewhere", "wb") as outside:
    outside.write(b"outside")
for name in ("one", "two"):
    rows = sqlite3.connect("rows.db")
    rows.execute("pragma journal_mode = wal")
    rows.execute(f"create table {name} (x)")
    with rows:
        rows.executemany(f"insert into {name} values (?)", [(b"x" * 5000,)] * 50)
    rows.execute("pragma wal_checkpoint(truncate)")
    with rows:
        rows.execute(f"insert into {name} values (2)")
    rows.close()
"""


def test_a_trace_played_back_gives_the_very_directory(disk: DiskFaults) -> None:
    assert said(disk, EVERY_CALL) == []
    assert disk.trace_path is not None
    played, events = Disk(), read_trace(disk.trace_path)
    for event in events:
        played.apply(event)
    assert played.everything() == content(disk.directory)
    assert {event.kind for event in events} == set(EventKind) - {
        EventKind.MARK,
        EventKind.SYNC_FAILED,
        EventKind.NOT_MODELLED,
    }
    assert not any("elsewhere" in event.name for event in events)


@pytest.mark.parametrize(
    "call",
    [
        "os.truncate('file', 1)",
        "os.link('file', 'other')",
        "os.posix_fallocate(fd, 0, 100)",
        "os.sendfile(fd, os.open('/etc/passwd', os.O_RDONLY), 0, 9)",
        "mmap.mmap(fd, 3)",
    ],
)
def test_what_is_not_modelled_is_said(disk: DiskFaults, call: str) -> None:
    assert said(disk, f"import mmap\nfd = os.open('file', os.O_RDWR | os.O_CREAT)\nos.write(fd, b'abc')\n{call}") == []
    assert disk.trace_path is not None
    with pytest.raises(AssertionError, match="not modelled"):
        read_trace(disk.trace_path)


def test_marks_stand_in_the_order_of_the_calls(disk: DiskFaults) -> None:
    assert disk.trace_path is not None
    with Marks(disk.trace_path) as marks:
        marks.mark("before")
        said(disk, "open('file', 'w').close()")
        marks.mark("after")
    assert [(event.kind, event.name) for event in read_trace(disk.trace_path)] == [
        (EventKind.MARK, "before"),
        (EventKind.CREATE, "file"),
        (EventKind.MARK, "after"),
    ]


FAILING = [
    (Call.WRITE, errno.ENOSPC, "os.write, fd, b'x'"),
    (Call.WRITE, errno.EDQUOT, "os.pwrite, fd, b'x', 3"),
    (Call.WRITE, errno.ENOSPC, "os.posix_fallocate, fd, 0, 9"),
    (Call.SYNC, errno.EIO, "os.fsync, fd"),
    (Call.SYNC, errno.ENOSPC, "os.fdatasync, fd"),
    (Call.SYNC_DIRECTORY, errno.EIO, "os.fsync, os.open('DIR', os.O_RDONLY)"),
    (Call.READ, errno.EIO, "os.read, fd, 3"),
    (Call.READ, errno.EIO, "os.pread, fd, 3, 0"),
    (Call.OPEN, errno.EIO, "os.open, 'DIR/file', os.O_RDONLY"),
    (Call.OPEN_TO_WRITE, errno.EROFS, "os.open, 'DIR/file', os.O_WRONLY"),
    (Call.OPEN_TO_WRITE, errno.EROFS, "os.open, 'DIR/file', os.O_RDWR | os.O_CREAT"),
    (Call.CREATE, errno.EROFS, "os.open, 'DIR/new', os.O_WRONLY | os.O_CREAT"),
    (Call.TRUNCATE, errno.EIO, "os.ftruncate, fd, 0"),
    (Call.RENAME, errno.EIO, "os.replace, 'DIR/file', 'DIR/other'"),
    (Call.UNLINK, errno.EROFS, "os.unlink, 'DIR/file'"),
    (Call.MKDIR, errno.EROFS, "os.mkdir, 'DIR/sub'"),
]


def test_a_call_fails_as_told_and_does_nothing(disk: DiskFaults) -> None:
    rules, program = [], ""
    for number, (call, error, attempted) in enumerate(FAILING):
        (disk.directory / str(number)).mkdir()
        (disk.directory / str(number) / "file").write_bytes(b"old")
        first = 2 if call is Call.OPEN_TO_WRITE else 1  # the descriptor is to be had
        rules.append(disk.fail(call, error, first=first, name=f"{number}*"))
        program += f"fd = os.open('{number}/file', os.O_RDWR)\nattempt({attempted.replace('DIR', str(number))})\n"
    before = content(disk.directory)
    assert said(disk, program) == [f"E{error}" for _, error, _ in FAILING]
    assert content(disk.directory) == before
    assert [rule.hits for rule in rules] == [1] * len(FAILING)
    assert disk.failed(Call.WRITE) == disk.calls(Call.WRITE) == 3


def test_the_nth_call_on_files_of_a_name(disk: DiskFaults) -> None:
    disk.fail(Call.WRITE | Call.SYNC, errno.EIO, first=2, last=3, name="log/*.log")
    disk.fail(Call.WRITE, errno.ENOSPC, first=2, name="log/other")
    program = """
os.mkdir("log")
fd = [os.open(name, os.O_WRONLY | os.O_CREAT) for name in ("log/1.log", "log/other")]
for _ in range(4):
    attempt(os.write, fd[0], b"x")
    attempt(os.write, fd[1], b"xy")
attempt(os.fsync, fd[0])
"""
    assert said(disk, program) == ["1", "2", "E5", "E28", "E5", "E28", "1", "E28", "None"]
    assert content(disk.directory / "log") == {"1.log": b"xx", "other": b"xy"}


def test_a_write_may_be_short_or_fail_half_done(disk: DiskFaults) -> None:
    disk.put(Call.WRITE, keep_bytes=2, last=1)
    disk.put(Call.WRITE, error=errno.EIO, keep_bytes=3, first=2)
    program = "fd = os.open('file', os.O_WRONLY | os.O_CREAT)\nattempt(os.pwrite, fd, b'abcdef', 0)\n"
    assert said(disk, program + "attempt(os.pwrite, fd, b'ABCDEF', 2)") == ["2", "E5"]
    assert content(disk.directory) == {"file": b"abABC"}


def test_a_full_disk_may_still_take_what_needs_no_room(disk: DiskFaults) -> None:
    (disk.directory / "file").write_bytes(b"old")
    disk.fail(Call.WRITE, errno.ENOSPC, only_growing=True)
    program = "fd = os.open('file', os.O_RDWR)\nattempt(os.pwrite, fd, b'new', 0)\nattempt(os.pwrite, fd, b'x', 3)"
    assert said(disk, program) == ["3", "E28"]


def test_a_rule_comes_and_goes_while_the_process_runs(disk: DiskFaults) -> None:
    program = (
        "fd = os.open('file', os.O_WRONLY | os.O_CREAT)\nwhile sys.stdin.readline():\n    attempt(os.write, fd, b'x')"
    )
    command = [sys.executable, "-c", HEAD + program, str(disk.directory)]
    variables = os.environ | disk.environment()
    with subprocess.Popen(
        command, env=variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as child:
        assert child.stdin is not None
        assert child.stdout is not None

        def next_word() -> str:
            child.stdin.write("\n")
            return child.stdout.readline().strip()

        words = [next_word()]
        rule = disk.fail(Call.WRITE, errno.ENOSPC)
        words += [next_word(), next_word()]
        rule.clear()
        words.append(next_word())
        disk.fail(Call.WRITE, errno.EROFS)
        words.append(next_word())
        child.stdin.close()
    assert words == ["1", "E28", "E28", "1", "E30"]
    assert (rule.seen, rule.hits, rule.is_active) == (2, 2, False)


@pytest.mark.parametrize(("stop", "left"), [(1, b"a"), (2, b"ab")])
def test_a_process_ends_before_or_after_a_call(disk: DiskFaults, stop: int, left: bytes) -> None:
    disk.put(Call.WRITE, first=2, stop=stop)
    child = run(
        disk, "fd = os.open('file', os.O_WRONLY | os.O_CREAT)\nfor word in (b'a', b'b', b'c'): os.write(fd, word)"
    )
    assert child.returncode == -signal.SIGKILL
    assert content(disk.directory) == {"file": left}


def test_a_sync_that_is_ignored_is_not_recorded(disk: DiskFaults) -> None:
    disk.ignore_sync = True
    said(disk, "fd = os.open('file', os.O_WRONLY | os.O_CREAT)\nos.write(fd, b'x')\nos.fsync(fd)")
    assert disk.trace_path is not None
    assert [event.kind for event in read_trace(disk.trace_path)] == [EventKind.CREATE, EventKind.WRITE]
    assert disk.calls(Call.SYNC) == 1

"""The commit log under a power cut: a real process, a disk that forgets what was not synced, and SIGKILL.

The child acknowledges on its standard output after ``write`` returned. Everything acknowledged has to be there
afterwards; the same child with its sync planted out has to fail that, or the test would prove nothing.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from crdtstore.storage.log import SegmentedLog
from crdtstore.testing import powercut

pytestmark = pytest.mark.skipif(powercut.available() is not None, reason=str(powercut.available()))

WRITER = """
import os, sys
from crdtstore.causal import ReplicaId
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry

PLANT
log = SegmentedLog.open(sys.argv[1], 8192)
number = sum(len(entries) for _, entries in log.replay())
me = ReplicaId("us-1.0123456789abcdef")
while True:
    number += 1
    log.write([log.encode([Entry("shop/0", me, b"%d " % number * (number % 40 * 30))])])
    print(number, flush=True)
"""
NO_SYNC = "os.fdatasync = lambda fd: None"
STOP_BEFORE_SYNC = """
from itertools import count
import time
syncs, fdatasync = count(), os.fdatasync
def stop(fd):
    while next(syncs) == 25:
        print("stopped", flush=True)
        time.sleep(60)
    fdatasync(fd)
os.fdatasync = stop
"""


def acknowledged(directory: Path, plant: str = "", *, ignore_sync: bool = False, leak: int | None = None) -> int:
    """Let a child write under the shim, kill it after some acknowledgements; the last number it acknowledged."""
    variables = powercut.environment(directory, ignore_sync=ignore_sync, leak=leak)
    command = [sys.executable, "-c", WRITER.replace("PLANT", plant), str(directory)]
    with subprocess.Popen(command, env=os.environ | variables, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        lines = []
        for line in child.stdout:
            lines.append(line)
            if line == "stopped\n" or len(lines) == 60:
                child.kill()
                break
        lines += child.stdout
    numbers = [int(line) for line in lines if line.endswith("\n") and line != "stopped\n"]
    assert numbers, "the child died before it acknowledged anything"
    return numbers[-1]


def kept(directory: Path) -> int:
    """How many entries the log holds, each one checked."""
    with SegmentedLog.open(directory, 8192) as log:
        entries = [entry for _, batch in log.replay() for entry in batch]
    for number, entry in enumerate(entries, start=1):
        assert entry.data == b"%d " % number * (number % 40 * 30)
    return len(entries)


def test_what_was_acknowledged_survives_several_power_cuts(tmp_path: Path) -> None:
    for _ in range(3):
        last = acknowledged(tmp_path)
        assert last <= kept(tmp_path) <= last + 1


def test_without_its_sync_the_log_loses_what_it_acknowledged(tmp_path: Path) -> None:
    last = acknowledged(tmp_path, NO_SYNC)
    assert kept(tmp_path) < last


def test_a_disk_that_lies_about_syncs_is_found_too(tmp_path: Path) -> None:
    last = acknowledged(tmp_path, ignore_sync=True)
    assert kept(tmp_path) < last


def test_a_torn_write_is_cut_and_nothing_acknowledged_with_it(tmp_path: Path) -> None:
    """Half of the sectors of the last, unsynced write reach the disk."""
    last = acknowledged(tmp_path, STOP_BEFORE_SYNC, leak=7)
    with SegmentedLog.open(tmp_path, 8192) as log:
        assert sum(len(batch) for _, batch in log.replay()) == last == 25
        assert "never acknowledged" in str(log.torn)
    assert acknowledged(tmp_path) <= kept(tmp_path)


EVERY_CALL = """
import os, sys
directory, sync = sys.argv[1], sys.argv[2] == "sync"
path = os.path.join(directory, "file")
fd = os.open(path, os.O_RDWR | os.O_CREAT)
assert os.write(fd, b"write,") == 6
assert os.writev(fd, [b"wri", b"tev,"]) == 7
assert os.pwrite(fd, b"pwrite,", 13) == 7
assert os.pwritev(fd, [b"pwri", b"tev,"], 20) == 8
assert os.fstat(fd).st_size == os.stat(path).st_size == os.path.getsize(path) == 28
assert os.lseek(fd, 0, os.SEEK_CUR) == 13 and os.lseek(fd, 0, os.SEEK_END) == 28
assert os.pread(fd, 100, 6) == b"writev,pwrite,pwritev,"
parts = [bytearray(5), bytearray(50)]
assert os.preadv(fd, parts, 0) == 28 and parts[0] == b"write" and parts[1][:9] == b",writev,p"
os.lseek(fd, 1, os.SEEK_SET)
assert os.read(fd, 4) == b"rite" and os.read(fd, 3) == b",wr"
os.ftruncate(fd, 5)
os.ftruncate(fd, 8)
assert os.pread(fd, 100, 0) == b"write" + bytes(3)
with open(path, "ab") as other:
    other.write(b"append")
with open(path, "rb") as other:
    assert other.read() == b"write" + bytes(3) + b"append"
if sync:
    os.fsync(fd)
os.close(fd)
os.rename(path, path + "2")
fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_DSYNC)
os.write(fd, b"dsync")
flagged = os.open(path + "3", os.O_WRONLY | os.O_CREAT)
os.pwritev(flagged, [b"flag"], 0, os.RWF_DSYNC)
with open(os.path.join(directory, "..", "elsewhere"), "wb") as outside:
    outside.write(b"outside")
if os.fork() == 0:
    os._exit(0)
os.wait()
print("done", flush=True)
"""


@pytest.mark.parametrize("sync", [True, False])
def test_the_shim_holds_back_every_call_that_python_writes_with(tmp_path: Path, sync: bool) -> None:
    directory = tmp_path / "disk"
    directory.mkdir()
    command = [sys.executable, "-c", EVERY_CALL, str(directory), "sync" if sync else "none"]
    variables = os.environ | powercut.environment(directory)
    child = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert (child.stdout, child.stderr) == ("done\n", "")
    assert (directory / "file2").read_bytes() == (b"write" + bytes(3) + b"append" if sync else b"")
    assert (directory / "file").read_bytes() == b"dsync"
    assert (directory / "file3").read_bytes() == b"flag"
    assert (tmp_path / "elsewhere").read_bytes() == b"outside"


def test_the_library_is_compiled_once(tmp_path: Path) -> None:
    compiled = powercut.library(tmp_path / "cache")
    inode = compiled.stat().st_ino
    assert powercut.library(tmp_path / "cache").stat().st_ino == inode
    assert list(compiled.parent.iterdir()) == [compiled]


def test_where_it_cannot_be_used_it_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "powercut.c"
    monkeypatch.setattr(powercut, "_SOURCE", source)
    assert str(powercut.available.__wrapped__()).startswith(f"no source at {source}")
    source.write_text("not C")
    assert str(powercut.available.__wrapped__()).startswith(f"the C compiler refused {source}: ")
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert powercut.available.__wrapped__() == "no C compiler (cc, gcc or clang; apt install gcc)"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert "darwin" in str(powercut.available.__wrapped__())

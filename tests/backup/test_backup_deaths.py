"""Deaths and full disks in the middle of a backup or a restore: what is half-done does not count, and is named."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from crdtstore.errors import StorageError, UsageError
from crdtstore.testing.diskfaults import Call, DiskFaults, available
from crdtstore_node.backup.source import listing, open_backup, prune
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from tests.backup.conftest import a_life
from tests.backup.world import Reader, make_cluster, restore, state_of
from tests.node.running import environment

CLUSTER = make_cluster(1)


class _Dies(Exception):
    pass


class _Dying(Folder):
    """A folder that takes so many objects."""

    def __init__(self, path: Path, takes: int) -> None:
        super().__init__(path)
        self._takes = takes

    def put(self, name: str, data: bytes) -> None:
        if not self._takes:
            raise _Dies
        self._takes -= 1
        super().put(name, data)


def test_a_backup_that_was_interrupted_is_none(place: Path) -> None:
    world = a_life(place)
    try:
        for takes in range(100):
            try:
                take(world.first.directory, _Dying(place / "backups", takes), chunk_bytes=1_500)
                break
            except _Dies:
                continue
    finally:
        world.close()
    assert takes > 4
    target = Folder(place / "backups")
    listed = listing(target)
    assert [each.is_whole for each in listed].count(True) == 1
    whole = next(each.name for each in listed if each.is_whole)
    assert open_backup(str(place / "backups"), newest=True).name.endswith(whole)
    for each in listed:
        if not each.is_whole:
            with pytest.raises(UsageError, match="there is no backup"):
                open_backup(str(place / "backups" / each.name))
    assert prune(target, 3600, time.time()) == []
    assert len(prune(target, 0, time.time() + 1)) == len(listed) - 1
    assert [path.name for path in (place / "backups").iterdir()] == [whole]


def crdtstore(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "crdtstore.cli", *arguments]
    return subprocess.run(command, env=environment() | variables, capture_output=True, text=True, check=False)


def write_cluster(place: Path) -> str:
    member = CLUSTER.members[0]
    text = f'cluster = "{CLUSTER.name}"\nnonce = "{CLUSTER.nonce.hex()}"\n[[member]]\nnode = "{member.node}"\n'
    text += f'region = "{member.region}"\nreplica = "{member.replica}"\ngossip = "{member.gossip}"\n'
    (place / "cluster.toml").write_text(text)
    return str(place / "cluster.toml")


def test_a_restore_that_is_killed_leaves_nothing_or_all(folder: Path, place: Path) -> None:
    arguments = [
        "restore",
        str(folder),
        "--data",
        str(place / "new"),
        "--cluster",
        write_cluster(place),
        "--node",
        "r0-1",
    ]
    died = crdtstore(*arguments, CRDTSTORE_CRASH_AT="snapshot-rename-before")
    assert died.returncode == -9, died.stderr
    assert not (place / "new").exists()
    assert (place / "new.partial").exists()
    died = crdtstore(*arguments, CRDTSTORE_CRASH_AT="snapshot-rename-after")
    assert died.returncode == -9, died.stderr
    assert not (place / "new.partial").exists()
    with Reader(CLUSTER, place / "new") as reader:
        assert any(any(vector) for vector, _ in state_of(reader.host).values())
    refused = crdtstore(*arguments)
    assert refused.returncode == 2
    assert "not empty" in refused.stderr


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_processes_that_are_killed_at_any_call(folder: Path, place: Path) -> None:
    """Some calls on the disk of each: what is left is no backup and no data directory, and the same command goes through afterwards."""
    world = a_life(place / "other")
    world.close()
    disk_directory = place / "disk"
    disk_directory.mkdir()
    backup = ["backup", str(disk_directory / "backups"), "--data", str(world.first.directory)]
    restoring = ["restore", str(folder), "--data", str(disk_directory / "new"), "--node", "r0-1"]
    restoring += ["--cluster", write_cluster(place)]
    calls = Call.WRITE | Call.SYNC | Call.RENAME
    with DiskFaults(disk_directory, place / "control") as disk:
        for arguments, at in ((backup, 2), (backup, 5), (restoring, 3), (restoring, 9), (restoring, 16)):
            rule = disk.put(calls, stop=1 + at % 2, first=at)
            died = crdtstore(*arguments, **disk.environment())
            assert (died.returncode, rule.hits) == (-9, 1), (arguments[0], at, died.stderr)
            disk.clear()
            assert not any(each.is_whole for each in listing(Folder(disk_directory / "backups")))
            assert not (disk_directory / "new").exists()
    for arguments in (backup, restoring):
        done = crdtstore(*arguments)
        assert done.returncode == 0, done.stderr
    assert not (disk_directory / "new.partial").exists()
    with Reader(CLUSTER, disk_directory / "new"):
        pass
    assert [each.is_whole for each in listing(Folder(disk_directory / "backups"))].count(True) == 1


# --- disks

CHILD = """
import json, sys
from click.testing import CliRunner
from crdtstore.cli import main
for line in sys.stdin:
    result = CliRunner().invoke(main, json.loads(line))
    print(json.dumps([result.exit_code, result.output]), flush=True)
"""


class Child:
    """A process with a disk that fails on command, which runs commands."""

    def __init__(self, disk: DiskFaults) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            env=environment() | disk.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str) -> tuple[int, str]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(arguments) + "\n")
        self._process.stdin.flush()
        code, output = json.loads(self._process.stdout.readline())
        return code, output

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.mark.skipif(available() is not None, reason=str(available()))
@pytest.mark.parametrize(
    ("calls", "error"),
    [(Call.WRITE | Call.CREATE | Call.MKDIR, errno.ENOSPC), (Call.SYNC | Call.SYNC_DIRECTORY | Call.RENAME, errno.EIO)],
    ids=["full", "sync"],
)
def test_a_disk_that_fails_while_restoring(folder: Path, place: Path, calls: Call, error: int) -> None:
    """At its n-th call, for n until it is done: refused by the name of a file there, and nothing is left."""
    restore(open_backup(str(folder)), place / "whole", CLUSTER, "r0-1")
    with Reader(CLUSTER, place / "whole") as reader:
        truth = state_of(reader.host)
    disk_directory = place / "disk"
    disk_directory.mkdir()
    with DiskFaults(disk_directory, place / "control") as disk, Child(disk) as child:
        arguments = ["restore", str(folder), "--data", str(disk_directory / "new"), "--node", "r0-1"]
        arguments += ["--cluster", write_cluster(place)]
        first = refusals = 0
        while True:
            first += 1 + first // 12
            rule = disk.fail(calls, error, first=first, name="*")
            code, output = child.run(*arguments)
            hits = rule.hits
            disk.clear()
            if not hits:
                assert code == 0, output
                break
            if code == 0:  # what failed was moving what is durable already: all of it is there
                with Reader(CLUSTER, disk_directory / "new") as reader:
                    assert state_of(reader.host) == truth
                shutil.rmtree(disk_directory / "new")
                continue
            refusals += 1
            assert code == 1, output
            assert f"{disk_directory}/" in output
            full = "storage-full" in output or "SQLITE_CANTOPEN" in output
            assert full if error == errno.ENOSPC else "storage-failed" in output
            assert list(disk_directory.iterdir()) == []
        assert refusals > 3
        with Reader(CLUSTER, disk_directory / "new") as reader:
            assert state_of(reader.host) == truth


@pytest.mark.skipif(available() is not None, reason=str(available()))
def test_a_target_that_fails_while_a_backup_is_taken(place: Path) -> None:
    world = a_life(place)
    world.close()
    disk_directory = place / "disk"
    disk_directory.mkdir()
    with DiskFaults(disk_directory, place / "control") as disk, Child(disk) as child:
        for first in range(1, 30):
            rule = disk.fail(Call.WRITE | Call.SYNC | Call.RENAME, errno.ENOSPC, first=first, name="*")
            code, output = child.run("backup", str(disk_directory), "--data", str(world.first.directory))
            hits = rule.hits
            disk.clear()
            if not hits:
                break
            assert code == 1, output
            assert "storage-full" in output
            assert not any(each.is_whole for each in listing(Folder(disk_directory)))
            assert not list(disk_directory.rglob("*.new"))
        assert first > 5
        assert [each.is_whole for each in listing(Folder(disk_directory))].count(True) == 1


def test_a_damaged_log_or_state_is_not_backed_up(place: Path) -> None:
    world = a_life(place)
    for _ in range(20):
        world.write(0, "shop/counter/more", op="add", amount=1)
    world.close()
    needed = world.first.host.needed
    log = max((world.first.directory / "log").glob("*.log"))
    whole = log.read_bytes()
    at = whole.rindex(b"more") - 400
    log.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
    with pytest.raises(StorageError, match=r"\.log: damaged at byte \d+: no valid block, but a later one") as failed:
        take(world.first.directory, Folder(place / "backups"))
    assert 0 < failed.value.more["offset"] <= at
    log.write_bytes(whole)
    take(world.first.directory, Folder(place / "backups"))
    assert needed
    log.unlink()
    with pytest.raises(StorageError, match="the checkpoint needs it"):
        take(world.first.directory, Folder(place / "backups"))
    log.write_bytes(whole)
    state = world.first.directory / "state.sqlite"
    data = bytearray(state.read_bytes())
    at = data.rindex(b"aw_set")
    data[at + 10] ^= 1
    state.write_bytes(data)
    with pytest.raises(StorageError, match=r"state\.sqlite"):
        take(world.first.directory, Folder(place / "backups"))
    assert (
        len(listing(Folder(place / "backups")))
        - [each.is_whole for each in listing(Folder(place / "backups"))].count(True)
        <= 3
    )

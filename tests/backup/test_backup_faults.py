"""What can go wrong with a backup: bits, missing objects, deaths in the middle, full disks. Each is named, and nothing half-done counts."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crdtstore.errors import CrdtStoreError, StorageError, UsageError
from crdtstore.storage import snapshot
from crdtstore.storage.snapshot import MANIFEST_NAME, decode_manifest, encode_manifest
from crdtstore.testing.diskfaults import Call, DiskFaults, available
from crdtstore_node.backup import restore as restore_module
from crdtstore_node.backup import source
from crdtstore_node.backup.source import listing, open_backup, prune, verify
from crdtstore_node.backup.take import take
from crdtstore_node.backup.target import Folder
from tests.backup.world import Reader, World, make_cluster, random_life, restore, state_of
from tests.node.running import environment

CLUSTER = make_cluster(1)


def a_life(place: Path) -> World:
    world = World(place / "world", 1)
    random_life(world, 30, checkpoint_at=(15,))
    return world


@pytest.fixture
def folder(place: Path) -> Path:
    """A backup of several objects of each kind."""
    world = a_life(place)
    try:
        taken = take(world.first.directory, Folder(place / "backups"), chunk_bytes=1_500)
    finally:
        world.close()
    assert {part.kind: part.name for part in taken.manifest.objects}.keys() == {"rows", "blocks"}
    return place / "backups" / taken.name


def failure(folder: Path, place: Path) -> CrdtStoreError | None:
    """What ``restore`` says, after ``verify`` was asked too; nothing may be left of an attempt that failed."""
    directory = place / "new"
    try:
        verified = [check.why for check in verify(open_backup(str(folder)))]
        restore(open_backup(str(folder)), directory, CLUSTER, "r0-1")
    except CrdtStoreError as error:
        assert not directory.exists()
        assert not directory.with_name("new.partial").exists()
        return error
    shutil.rmtree(directory)
    assert verified == [None, None]  # what restore takes verify has to take
    return None


def damages(data: bytes, step: int) -> Iterator[tuple[str, bytes]]:
    """One flipped bit here and there, the end cut off, something appended, nothing at all."""
    for at in range(0, len(data), step):
        bit = 1 << (at * 5 + 3) % 8
        yield f"bit {bit} of byte {at}", data[:at] + bytes((data[at] ^ bit,)) + data[at + 1 :]
    for upto in (0, 1, len(data) // 2, len(data) - 1):
        yield f"cut to {upto}", data[:upto]
    yield "a byte appended", data + b"\0"


def unnoticed(folder: Path, place: Path, steps: int = 12) -> list[str]:
    """Damage of which nobody says anything, or nothing that names the object."""
    found = []
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for what, data in damages(whole, max(1, len(whole) // steps)):
            path.write_bytes(data)
            error = failure(folder, place)
            if error is None or path.name not in error.detail:
                found.append(f"{path.name}: {what}: {error}")
        path.write_bytes(whole)
    assert failure(folder, place) is None
    return found


def test_damage_of_any_object_is_named(folder: Path, place: Path) -> None:
    assert unnoticed(folder, place) == []


def refusal(data: bytes) -> str:
    try:
        decode_manifest(data, "here")
    except StorageError as error:
        return error.detail
    return "none"


def test_any_flipped_bit_of_a_manifest_is_noticed(folder: Path) -> None:
    whole = (folder / MANIFEST_NAME).read_bytes()
    assert refusal(whole) == "none"
    for what, data in damages(whole, 1):
        assert refusal(data).startswith("here: "), what


def test_planted_manifest_is_believed(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant: a manifest that is not held against its own hash."""

    def believe(data: bytes, where: str) -> snapshot.Manifest:
        try:
            return msgspec.json.decode(data, type=snapshot.Manifest)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise StorageError(f"{where}: {error}") from error

    monkeypatch.setattr(source, "decode_manifest", believe)
    assert any(MANIFEST_NAME in each for each in unnoticed(folder, place, 60))


def test_planted_objects_are_believed(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plant: an object whose hash is not looked at. (Its compression has a checksum, so it is given another content.)"""

    class Believing:
        def __init__(self, data: bytes) -> None:
            pass

        def hexdigest(self) -> Any:
            return Anything()

    class Anything:
        def __ne__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    path = folder / "rows-000001.zst"
    whole = path.read_bytes()
    replaced = bytes(len(whole))
    path.write_bytes(replaced)
    assert "its hash" in (failure(folder, place) or UsageError("")).detail
    monkeypatch.setattr(snapshot, "sha256", lambda data: Believing(data) if data == replaced else sha256(data))
    assert "its hash" not in (failure(folder, place) or UsageError("")).detail


def exchanged(folder: Path, kind: str, change: Callable[[list[Any]], None]) -> None:
    """Change what an object holds, and let object and manifest fit: what no hash can notice."""
    manifest = decode_manifest((folder / MANIFEST_NAME).read_bytes(), "")
    parts = list(manifest.objects)
    at, part = next((at, part) for at, part in enumerate(parts) if part.kind == kind)
    data = (folder / part.name).read_bytes()
    unpack = snapshot.unpack_rows if kind == "rows" else snapshot.unpack_blocks
    content: list[Any] = unpack(part, data, "")
    change(content)
    data = snapshot._pack(content)
    (folder / part.name).write_bytes(data)
    parts[at] = snapshot.part_of(part.name, part.kind, data, len(content))
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(msgspec.structs.replace(manifest, objects=parts)))


def lose_a_leaf(rows: list[Any]) -> None:
    at = next(at for at, (path, _) in enumerate(rows) if path[2] == 1)
    del rows[at]


def lose_a_block(blocks: list[Any]) -> None:
    del blocks[len(blocks) // 2]


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [("rows", lose_a_leaf, "the rows give the state digest"), ("blocks", lose_a_block, "goes from commit")],
)
def test_what_fits_its_hashes_still_has_to_fit_digest_and_chains(
    folder: Path, place: Path, kind: str, change: Callable[[list[Any]], None], why: str
) -> None:
    exchanged(folder, kind, change)
    assert why in (failure(folder, place) or UsageError("")).detail
    assert any(why in (check.why or "") for check in verify(open_backup(str(folder))))


def test_planted_digest_is_believed(folder: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exchanged(folder, "rows", lose_a_leaf)
    for module in (source, restore_module):
        monkeypatch.setattr(module, "check_rows", lambda backup, walk: None)
    assert failure(folder, place) is None


def test_a_missing_object_is_named(folder: Path, place: Path) -> None:
    for path in sorted(folder.iterdir()):
        path.rename(place / "aside")
        error = failure(folder, place)
        assert error is not None
        if path.name == MANIFEST_NAME:
            assert isinstance(error, UsageError)
            assert "there is no backup" in error.detail
        else:
            assert str(path) in error.detail
            assert "no such object" in error.detail
        (place / "aside").rename(path)


# --- deaths in the middle


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


def test_nobody_but_the_owner_may_read_what_is_copied(folder: Path, place: Path) -> None:
    assert all(path.stat().st_mode & 0o007 == 0 for path in folder.iterdir())
    restore(open_backup(str(folder)), place / "new", CLUSTER, "r0-1")
    assert os.stat(place / "new").st_mode & 0o007 == 0

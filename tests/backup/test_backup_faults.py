"""What can go wrong with a backup: bits, missing objects, deaths in the middle, full disks. Each is named, and nothing half-done counts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crdtstore.errors import CrdtStoreError, StorageError, UsageError
from crdtstore.storage import snapshot
from crdtstore.storage.rows import LEAVES, OPERATIONS
from crdtstore.storage.snapshot import MANIFEST_NAME, decode_manifest, encode_manifest
from crdtstore_node.backup import restore as restore_module
from crdtstore_node.backup import source
from crdtstore_node.backup.source import open_backup, verify
from tests.backup.world import make_cluster, restore

CLUSTER = make_cluster(1)


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
    unpack = snapshot.unpack_rows if kind == "rows" else snapshot.unpack_blocks
    content: list[Any] = []
    for at, part in enumerate(parts):  # noqa: B007 - the one that holds what is to be changed
        if part.kind == kind:
            content = unpack(part, (folder / part.name).read_bytes(), "")  # type: ignore[assignment]
            with suppress(StopIteration):
                change(content)
                break
    else:
        pytest.fail("nothing to change")
    data = snapshot._pack(content)
    (folder / part.name).write_bytes(data)
    parts[at] = snapshot.part_of(part.name, part.kind, data, len(content))
    (folder / MANIFEST_NAME).write_bytes(encode_manifest(msgspec.structs.replace(manifest, objects=parts)))


def lose_a_leaf(rows: list[Any]) -> None:
    at = next(at for at, (path, _) in enumerate(rows) if path[2] == LEAVES)
    del rows[at]


def lose_an_operation(rows: list[Any]) -> None:
    at = next(at for at, (path, _) in enumerate(rows) if path[2] == OPERATIONS)
    del rows[at]


def lose_a_block(blocks: list[Any]) -> None:
    del blocks[len(blocks) // 2]


@pytest.mark.parametrize(
    ("kind", "change", "why"),
    [
        ("rows", lose_a_leaf, "the rows give the state digest"),
        ("rows", lose_an_operation, "rows per group"),
        ("blocks", lose_a_block, "goes from commit"),
    ],
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


def test_nobody_but_the_owner_may_read_what_is_copied(folder: Path, place: Path) -> None:
    assert all(path.stat().st_mode & 0o007 == 0 for path in folder.iterdir())
    restore(open_backup(str(folder)), place / "new", CLUSTER, "r0-1")
    assert os.stat(place / "new").st_mode & 0o007 == 0

"""The file in memory that says how far a log was durable: torn, foreign, left over, or impossible."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from crdtstore.causal import make_replica_id
from crdtstore_node.identity.anchor import (
    Anchor,
    Anchored,
    anchor_places,
    boot_id,
    find_anchors,
    make_anchor,
    open_anchor,
)
from crdtstore_node.identity.seal import Facts

ME = make_replica_id("us-1", 1)
FACTS = Facts("machine", "fs", 1, 2, 3)
HEAD_AT, SLOT_BYTES = 128, 24


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "memory"
    place.mkdir()
    return place


@pytest.fixture
def anchor(place: Path, tmp_path: Path) -> Iterator[Anchor]:
    made = make(place, tmp_path)
    assert made is not None
    yield made
    made.close()


def make(place: Path, directory: Path, position: int = 10, facts: Facts = FACTS, number: int = 1) -> Anchor | None:
    return make_anchor([place], facts, directory, ME, number, position)


def position(place: Path) -> int | None:
    found = find_anchors([place], FACTS)
    return found[0].position if found else None


def test_it_says_what_was_held_last(place: Path, anchor: Anchor) -> None:
    assert find_anchors([place], FACTS) == [Anchored(anchor.path, ME, 1, 10)]
    for durable in (11, 1 << 62, 12):
        anchor.hold(durable)
        assert position(place) == durable
    for facts in (FACTS._replace(device=9), FACTS._replace(inode=9), FACTS._replace(birth_ns=None)):
        assert find_anchors([place], facts) == []


def test_who_goes_on_with_it_goes_on_with_its_turns(place: Path, anchor: Anchor) -> None:
    anchor.hold(11)
    (said,) = find_anchors([place], FACTS)
    again = open_anchor(said)
    assert again is not None
    for durable in (12, 13, 14):
        again.hold(durable)
        assert position(place) == durable
    again.close()
    said.path.unlink()
    assert open_anchor(said) is None


def test_a_torn_write_leaves_the_one_before(place: Path, anchor: Anchor) -> None:
    anchor.hold(11)
    before = anchor.path.read_bytes()
    anchor.hold(12)
    after = anchor.path.read_bytes()
    changed = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if old != new]
    assert changed[-1] - changed[0] < SLOT_BYTES
    for at in range(changed[0], changed[-1] + 1):
        for torn in (after[:at] + before[at:], before[:at] + after[at:]):  # written from either end
            anchor.path.write_bytes(torn)
            assert position(place) in (11, 12)
    anchor.path.write_bytes(before[: changed[0]] + bytes(SLOT_BYTES) + before[changed[0] + SLOT_BYTES :])
    assert position(place) == 11


@pytest.mark.parametrize("spoilt", [(0, 128), (HEAD_AT, HEAD_AT + 1), (HEAD_AT + 8, HEAD_AT + 9), (HEAD_AT + 30, 200)])
def test_what_is_not_whole_is_none(place: Path, anchor: Anchor, spoilt: tuple[int, int]) -> None:
    held = bytearray(anchor.path.read_bytes())
    held[spoilt[0] : spoilt[1]] = b"\xff" * (spoilt[1] - spoilt[0])
    anchor.path.write_bytes(held)
    assert position(place) is None


@pytest.mark.parametrize("held", [b"", b"short", bytes(4096), bytes(4097)])
def test_a_file_of_another_kind_is_none(place: Path, anchor: Anchor, held: bytes) -> None:
    said = find_anchors([place], FACTS)[0]
    anchor.path.unlink()
    anchor.path.write_bytes(held)
    anchor.path.chmod(0o600)
    assert position(place) is None
    assert open_anchor(said) is None


def test_what_others_can_write_is_not_believed(place: Path, anchor: Anchor, tmp_path: Path) -> None:
    for path in (anchor.path, anchor.path.parent):
        mode = path.stat().st_mode
        path.chmod(0o777)
        assert position(place) is None
        path.chmod(mode)
    assert position(place) == 10
    real = anchor.path.rename(tmp_path / "real")
    anchor.path.symlink_to(real)
    assert position(place) is None


def test_a_folder_that_is_not_ours_is_not_used(tmp_path: Path) -> None:
    places = [tmp_path / name for name in ("none", "file", "open", "linked", "good")]
    places[1].touch()
    for place in places[2:]:
        place.mkdir()
    folder = f"crdtstore-{os.geteuid()}"
    (places[2] / folder).mkdir()
    (places[2] / folder).chmod(0o777)
    (tmp_path / "target").mkdir(mode=0o700)
    (places[3] / folder).symlink_to(tmp_path / "target")
    made = make_anchor(places, FACTS, tmp_path, ME, 1, 10)
    assert made is not None
    assert made.path.parent == places[4] / folder
    assert made.path.stat().st_mode & 0o777 == 0o600
    assert list((tmp_path / "target").iterdir()) == list((places[2] / folder).iterdir()) == []
    made.close()


def test_a_new_one_replaces_those_in_all_places(tmp_path: Path) -> None:
    places = [tmp_path / "a", tmp_path / "b"]
    for place in places:
        place.mkdir()
    for place in places:
        made = make(place, tmp_path, number=5)
        assert made is not None
        made.close()
    made = make_anchor(places, FACTS, tmp_path, ME, 6, 7)
    assert made is not None
    made.close()
    assert find_anchors(places, FACTS) == [Anchored(made.path, ME, 6, 7)]
    assert made.path.is_relative_to(places[0])


def test_what_nobody_needs_is_swept_away(place: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    for inode, directory in ((10, gone), (11, tmp_path)):
        made = make(place, directory, facts=FACTS._replace(inode=inode))
        assert made is not None
        made.close()
    folder = made.path.parent
    (folder / "another-boot.1.2.3").touch()
    (folder / f"{boot_id()}.9.9.9.new").touch()
    gone.rmdir()
    made = make(place, tmp_path)
    assert made is not None
    made.close()
    left = sorted(path.name.removeprefix(f"{boot_id()}.") for path in folder.iterdir())
    assert left == ["1.2.3", "1.b.3", "9.9.9.new"]


def test_where_there_is_no_memory_there_is_none(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", full)
    assert make(place, tmp_path) is None
    monkeypatch.undo()
    assert [path for path in place.rglob("*") if path.is_file()] == []


def test_a_path_that_is_too_long_is_left_out(place: Path) -> None:
    made = make(place, Path("/" + "x" * 5_000))
    assert made is not None
    made.close()
    assert position(place) == 10


def test_where_anchors_may_be() -> None:
    user = Path(f"/run/user/{os.geteuid()}")
    assert anchor_places({}) == [user, Path("/dev/shm")]
    assert anchor_places({"XDG_RUNTIME_DIR": str(user)}) == [user, Path("/dev/shm")]
    assert anchor_places({"XDG_RUNTIME_DIR": "/own"}) == [Path("/own"), user, Path("/dev/shm")]
    assert anchor_places({"XDG_RUNTIME_DIR": "relative"}) == [user, Path("/dev/shm")]


def test_it_costs_little(anchor: Anchor) -> None:
    rounds = []
    for _ in range(10):
        began = time.perf_counter()
        for durable in range(1_000):
            anchor.hold(durable)
        rounds.append(time.perf_counter() - began)
    assert min(rounds) / 1_000 < 5e-6, f"{min(rounds) * 1e3:.2f} µs"

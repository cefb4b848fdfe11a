"""What a power cut may leave: exactly the set of images, for traces small enough to name them all."""

from __future__ import annotations

from pathlib import Path
from random import Random

from crdtstore.testing.disktrace import Event, EventKind
from crdtstore.testing.powercut_images import (
    SECTOR_BYTES,
    Disk,
    Image,
    cut_points,
    cuts,
    uncertain_cut_points,
    write_image,
)

K = EventKind
OLD = b"o" * SECTOR_BYTES
A, B, C = (letter * SECTOR_BYTES for letter in (b"a", b"b", b"c"))
DURABLE = {"f": OLD}
OPEN_F = Event(K.OPEN, 1, name="f")
SYNC_F = [Event(K.SYNC_BEGUN, 1, 7, "f"), Event(K.SYNCED, 1, 7, "f")]
SYNC_ROOT = [Event(K.SYNC_DIRECTORY_BEGUN, 9, 8), Event(K.DIRECTORY_SYNCED, 9, 8)]


def write(data: bytes, offset: int = 0, file: int = 1, name: str = "f") -> Event:
    return Event(K.WRITE, file, offset, name, data=data)


def possible(*events: Event, initial: Image = DURABLE, seeds: int = 600) -> list[Image]:
    """All images that show up."""
    disk = Disk(initial)
    for event in events:
        disk.apply(event)
    found: list[Image] = []
    for seed in range(seeds):
        image = disk.sample(Random(seed))
        if image not in found:
            found.append(image)
    assert (len(found) == 1) == disk.is_certain
    assert disk.everything() in found
    return found


def contents(images: list[Image]) -> set[bytes | None]:
    return {image.get("f", b"no name") for image in images}


def test_an_unsynced_write_is_there_or_not() -> None:
    assert contents(possible(OPEN_F, write(A))) == {OLD, A}
    assert contents(possible(OPEN_F, write(b"x", 7))) == {OLD, OLD[:7] + b"x" + OLD[8:]}


def test_a_sync_that_has_returned_holds() -> None:
    assert contents(possible(OPEN_F, write(A), *SYNC_F)) == {A}
    assert contents(possible(OPEN_F, write(A), SYNC_F[0])) == {OLD, A}
    assert contents(possible(OPEN_F, SYNC_F[0], write(A), SYNC_F[1])) == {OLD, A}, "written while the sync ran"
    assert contents(possible(OPEN_F, write(A), *SYNC_F, write(B))) == {A, B}


def test_the_sync_of_one_file_holds_nothing_of_another() -> None:
    images = possible(OPEN_F, write(A), write(B, 0, 2, "g"), *SYNC_F, initial={"f": OLD, "g": OLD})
    assert {(image["f"], image["g"]) for image in images} == {(A, OLD), (A, B)}


def test_sectors_are_torn_and_writes_reordered() -> None:
    images = possible(OPEN_F, write(A + A), write(B, SECTOR_BYTES))
    sectors = {(data[:SECTOR_BYTES], data[SECTOR_BYTES:]) for data in contents(images) if data is not None}
    zeros = bytes(SECTOR_BYTES)
    assert sectors == {(first, second) for first in (OLD, A) for second in (b"", zeros, A, B)}


def test_a_part_of_a_sector_does_not_come_without_what_was_there_before() -> None:
    both = b"xy" + OLD[2:]
    assert contents(possible(OPEN_F, write(b"x"), write(b"y", 1))) == {OLD, b"x" + OLD[1:], both}


def test_after_a_failed_sync_the_next_one_promises_only_what_is_written_anew() -> None:
    failed = [Event(K.SYNC_BEGUN, 1, 3, "f"), Event(K.SYNC_FAILED, 1, 3, "f")]
    assert contents(possible(OPEN_F, write(A), *failed, *SYNC_F)) == {OLD, A}
    assert contents(possible(OPEN_F, write(A), *failed, write(B), *SYNC_F)) == {B}
    assert contents(possible(OPEN_F, write(A), *failed, write(A), *SYNC_F)) == {A}
    again = [Event(K.SYNC_BEGUN, 1, 4, "f"), Event(K.SYNCED, 1, 4, "f")]
    assert contents(possible(OPEN_F, write(A), *failed, write(B), *SYNC_F, write(C), *again)) == {C}


def test_sizes() -> None:
    less, more = Event(K.SIZE, 1, 3, "f"), Event(K.SIZE, 1, 5, "f")
    assert contents(possible(OPEN_F, less)) == {OLD, b"ooo"}
    assert contents(possible(OPEN_F, less, more)) == {OLD, b"ooo", b"ooo\0\0"}
    assert contents(possible(OPEN_F, less, more, *SYNC_F)) == {b"ooo\0\0"}
    assert contents(possible(OPEN_F, less, write(OLD), *SYNC_F)) == {OLD}
    assert contents(possible(OPEN_F, less, write(A), *SYNC_F)) == {A}
    shorter = contents(possible(OPEN_F, less, write(A)))
    assert shorter == {OLD, b"ooo", A, b"aaa", b"ooo".ljust(SECTOR_BYTES, b"\0")}, "no new content at the old size"


def test_a_new_name_is_there_once_its_directory_is_synced() -> None:
    made = [Event(K.CREATE, 1, name="f"), write(A), *SYNC_F]
    assert possible(*made, initial={}) in ([{}, {"f": A}], [{"f": A}, {}])
    assert possible(*made, *SYNC_ROOT, initial={}) == [{"f": A}]
    unsynced = possible(made[0], made[1], *SYNC_ROOT, initial={})
    assert contents(unsynced) == {b"", bytes(SECTOR_BYTES), A}, "a name is no content"


def test_a_rename_happens_whole_or_not() -> None:
    made = [Event(K.CREATE, 1, name="f.new"), write(A, name="f.new"), Event(K.SYNC_BEGUN, 1, 7, "f.new")]
    made += [Event(K.SYNCED, 1, 7, "f.new"), Event(K.RENAME, 1, name="f.new", to="f")]
    images = possible(*made)
    assert {"f": OLD} in images
    assert {"f": OLD, "f.new": A} in images
    assert {"f": A} in images
    assert len(images) == 3
    assert possible(*made, *SYNC_ROOT) == [{"f": A}]


def test_what_is_removed_may_come_back_until_the_directory_is_synced() -> None:
    gone = Event(K.UNLINK, 1, name="f")
    assert contents(possible(OPEN_F, gone)) == {OLD, b"no name"}
    assert contents(possible(OPEN_F, gone, *SYNC_ROOT)) == {b"no name"}


def test_the_sync_of_one_directory_holds_nothing_of_another() -> None:
    made = [Event(K.MKDIR, name="d"), Event(K.CREATE, 1, name="d/f"), write(A, name="d/f"), *SYNC_F]
    synced = [Event(K.SYNC_DIRECTORY_BEGUN, 4, 5, "d"), Event(K.DIRECTORY_SYNCED, 4, 5, "d")]
    assert len(possible(*made, initial={})) == 3  # nothing, the directory, all
    images = possible(*made, *synced, initial={})
    assert {} in images
    assert {"d": None, "d/f": A} in images
    assert len(images) == 2, "a file in a directory that is not there is not there"
    assert len(possible(*made, *SYNC_ROOT, initial={})) == 2


def test_an_inode_number_is_used_again() -> None:
    events = [OPEN_F, Event(K.UNLINK, 1, name="f"), *SYNC_ROOT, Event(K.CREATE, 1, name="g"), write(B, name="g")]
    assert {image.get("g") for image in possible(*events)} == {None, b"", bytes(SECTOR_BYTES), B}


def test_an_index_of_sqlite_is_left_out() -> None:
    assert possible(Event(K.CREATE, 3, name="x-shm"), Event(K.WRITE, 3, 0, "x-shm", data=b"x"), initial={}) == [{}]


def test_cuts_come_in_order_with_the_marks_before_them(tmp_path: Path) -> None:
    events = [
        Event(K.MARK, name="attempted 1"),
        OPEN_F,
        write(A),
        *SYNC_F,
        Event(K.MARK, name="acknowledged 1"),
        Event(K.MARK, name="attempted 2"),
        write(B),
    ]
    assert cut_points(events) == [1, 2, 3, 4, 7, 8]
    assert uncertain_cut_points(events, DURABLE) == [3, 4, 8]
    found = list(cuts(events, [(8, 1), (3, None), (7, None), (3, 5)], DURABLE))
    assert [(cut.at, cut.seed, len(cut.marks)) for cut in found] == [(3, None, 1), (3, 5, 1), (7, None, 3), (8, 1, 3)]
    assert found[0].image == {"f": A}
    again = list(cuts(events, [(8, 1), (3, 5)], DURABLE))
    assert [cut.image for cut in again] == [found[1].image, found[3].image], "a seed says it all"
    write_image({"f": A, "d": None, "d/g": B}, tmp_path / "image")
    assert (tmp_path / "image/f").read_bytes() == A
    assert (tmp_path / "image/d/g").read_bytes() == B

"""What a directory may look like after a power cut, made from a recorded trace.

The question: what does a disk owe? Of a file, what was written before a sync began that has returned; of a directory, the names that
stood in it when its sync began. Everything else is free, each thing for itself:

* a sector of 512 bytes shows one of the contents it has had since the last sync: so writes are kept, lost, torn or reordered;
* a file has one of its sizes since then; what is not there is zeros;
* a name that was made, renamed or removed may be there or not, also when the data of its file are safe, and the other way round;
* after a failed sync the kernel takes what it held for clean: a later sync that succeeds promises nothing of it, unless it was written
  again.

The first image of a cut, without a seed, holds everything: that is what SIGKILL leaves.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from random import Random
from typing import NamedTuple

from crdtstore.testing.disktrace import Event, EventKind

__all__ = ["Cut", "Disk", "Image", "cut_points", "cuts", "uncertain_cut_points", "write_image"]

SECTOR_BYTES = 512
IGNORED = ("*-shm",)
"""SQLite's index of its log, which is made anew after a power cut."""

Image = dict[str, bytes | None]
"""Path below the directory to content; None for a directory."""


_Step = tuple[int, int, bytes | None]
"""Sequence, then the number of a sector and its content, or a size to shorten to and None."""


class Cut(NamedTuple):
    """The power went after so many records of the trace; ``seed`` chose what of the rest was kept, None: everything."""

    at: int
    seed: int | None
    image: Image
    marks: list[str]


class _File:
    """Contents of one inode: what is durable, and per sector what came after. Sequence numbers are those of the trace."""

    def __init__(self, data: bytes = b"") -> None:
        self.now = bytearray(data)
        self._durable = bytearray(data)
        self._durable_size = len(data)
        self._sizes: list[tuple[int, int, bool]] = []  # (sequence, size, is it less than before)
        self._sectors: dict[int, list[tuple[int, bytes]]] = {}
        self._failed_at = -1

    @property
    def is_certain(self) -> bool:
        return not self._sectors and not self._sizes

    def write(self, sequence: int, offset: int, data: bytes) -> None:
        end = offset + len(data)
        if end > len(self.now):
            self.now.extend(bytes(end - len(self.now)))
            self._sizes.append((sequence, end, False))
        self.now[offset:end] = data
        for number in range(offset // SECTOR_BYTES, (end - 1) // SECTOR_BYTES + 1):
            self._touch(sequence, number)

    def _touch(self, sequence: int, number: int) -> None:
        content = _sector(self.now, number)
        versions = self._sectors.get(number)
        is_shortened = any(is_less for _, _, is_less in self._sizes)
        is_forgotten = versions is not None and versions[-1][0] <= self._failed_at  # the same again is news to the disk
        if is_shortened or is_forgotten or content != (versions[-1][1] if versions else _sector(self._durable, number)):
            self._sectors.setdefault(number, []).append((sequence, content))

    def resize(self, sequence: int, size: int) -> None:
        if size < len(self.now):
            del self.now[size:]
            self._sizes.append((sequence, size, True))
        elif size > len(self.now):
            self.now.extend(bytes(size - len(self.now)))
            self._sizes.append((sequence, size, False))

    def fail_sync(self, begun: int) -> None:
        self._failed_at = max(self._failed_at, begun)

    def sync(self, begun: int) -> None:
        """Everything up to here is durable, but for what an earlier failed sync made doubtful."""
        steps = self._shortenings(begun)
        for number, versions in list(self._sectors.items()):
            covered = [each for each in versions if self._failed_at < each[0] <= begun]
            if covered:
                steps.append((covered[-1][0], number, covered[-1][1]))
                self._keep(number, [each for each in versions if each[0] > covered[-1][0]])
        for sequence, size, is_less in self._sizes:
            if is_less and sequence <= begun:
                for number in [number for number in self._sectors if number * SECTOR_BYTES >= size]:
                    self._keep(number, [each for each in self._sectors[number] if each[0] > sequence])
        self._durable_size = next((size for at, size, _ in reversed(self._sizes) if at <= begun), self._durable_size)
        _replay(self._durable, steps)
        del self._durable[self._durable_size :]
        self._sizes = [each for each in self._sizes if each[0] > begun]

    def _shortenings(self, upto: int) -> list[_Step]:
        return [(sequence, size, None) for sequence, size, is_less in self._sizes if is_less and sequence <= upto]

    def _keep(self, number: int, versions: list[tuple[int, bytes]]) -> None:
        if versions:
            self._sectors[number] = versions
        else:
            del self._sectors[number]

    def sample(self, random: Random, chance: float) -> bytes:
        """One of the contents that a power cut may leave."""
        at, size = 0, self._durable_size
        if self._sizes and random.random() < chance:
            at, size, _ = random.choice(self._sizes)
        cuts = [sequence for sequence, _, is_less in self._sizes if is_less and sequence > at]
        latest = min(cuts, default=1 << 62)  # what was written after a shortening that did not happen cannot be there
        steps = self._shortenings(at)
        for number, versions in self._sectors.items():
            possible = [each for each in versions if each[0] < latest]
            if possible and random.random() < chance:
                sequence, content = possible[-1] if random.random() < 0.5 else random.choice(possible)
                steps.append((sequence, number, content))
        data = bytearray(self._durable)
        _replay(data, steps)
        return bytes(data[:size]).ljust(size, b"\0")


def _sector(data: bytearray, number: int) -> bytes:
    return bytes(data[number * SECTOR_BYTES : (number + 1) * SECTOR_BYTES]).ljust(SECTOR_BYTES, b"\0")


def _replay(data: bytearray, steps: list[_Step]) -> None:
    for _, where, content in sorted(steps, key=lambda step: step[0]):
        if content is None:
            del data[where:]
            continue
        begin = where * SECTOR_BYTES
        data.extend(bytes(max(0, begin + SECTOR_BYTES - len(data))))
        data[begin : begin + SECTOR_BYTES] = content


class _NameChange(NamedTuple):
    """A directory's entry that came, moved (``old`` to ``new``) or went (``new`` empty)."""

    sequence: int
    old: str
    new: str
    file: _File | None

    @property
    def directory(self) -> str:
        return (self.new or self.old).rpartition("/")[0]

    def apply(self, names: dict[str, _File | None]) -> None:
        if self.old and names.get(self.old, self) is self.file:
            del names[self.old]
        if self.new:
            names[self.new] = self.file


class Disk:
    """Follows a trace record by record; says at any point what a power cut may leave. ``initial`` was durable before it."""

    def __init__(self, initial: Mapping[str, bytes | None] | None = None) -> None:
        self._names: dict[str, _File | None] = {}
        for name, data in (initial or {}).items():
            self._names[name] = None if data is None else _File(data)
        self._durable = dict(self._names)
        self._changes: list[_NameChange] = []
        self._files: dict[int, _File | None] = {}  # by inode; None: not followed
        self._begun: dict[int, int] = {}  # by the number of the sync
        self._sequence = 0

    @property
    def is_certain(self) -> bool:
        """Whether a power cut now would change nothing."""
        files = {id(file): file for file in self._files.values() if file is not None}
        return not self._changes and all(file.is_certain for file in files.values())

    def apply(self, event: Event) -> None:
        """The next record."""
        self._sequence += 1
        kind, sequence = event.kind, self._sequence
        if kind in _NAMING:
            self._on_name(event, sequence)
        elif kind in (EventKind.SYNC_BEGUN, EventKind.SYNC_DIRECTORY_BEGUN):
            self._begun[event.offset] = sequence
        elif kind is EventKind.DIRECTORY_SYNCED:
            self._on_directory_synced(event.name, self._begun.pop(event.offset))
        elif kind is not EventKind.MARK and (file := self._file(event)) is not None:
            if kind is EventKind.WRITE:
                file.write(sequence, event.offset, event.data)
            elif kind is EventKind.SIZE:
                file.resize(sequence, event.offset)
            elif kind is EventKind.SYNCED:
                file.sync(self._begun.pop(event.offset))
            elif kind is EventKind.SYNC_FAILED:
                file.fail_sync(self._begun.pop(event.offset))

    def _file(self, event: Event) -> _File | None:
        if event.file not in self._files:
            assert event.name in self._names, f"{event.name} is neither in the trace nor was it there before"
            self._files[event.file] = self._names[event.name]
        return self._files[event.file]

    def _on_name(self, event: Event, sequence: int) -> None:
        if not event.name or any(fnmatch(event.name, pattern) for pattern in IGNORED):
            if event.kind is EventKind.CREATE:
                self._files[event.file] = None
            return
        if event.kind is EventKind.CREATE:
            file = self._files[event.file] = _File()
            self._change(_NameChange(sequence, "", event.name, file))
        elif event.kind is EventKind.MKDIR:
            self._change(_NameChange(sequence, "", event.name, None))
        elif event.kind is EventKind.RENAME:
            self._change(_NameChange(sequence, event.name, event.to, self._names[event.name]))
        else:
            self._change(_NameChange(sequence, event.name, "", self._names[event.name]))

    def _change(self, change: _NameChange) -> None:
        change.apply(self._names)
        self._changes.append(change)

    def _on_directory_synced(self, directory: str, begun: int) -> None:
        left = []
        for change in self._changes:
            if change.directory == directory and change.sequence <= begun:
                change.apply(self._durable)
            else:
                left.append(change)
        self._changes = left

    def everything(self) -> Image:
        """As the process sees it."""
        return {name: None if file is None else bytes(file.now) for name, file in self._names.items()}

    def sample(self, random: Random) -> Image:
        """One of the images that a power cut may leave."""
        chance = random.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        names = dict(self._durable)
        for change in self._changes:
            if random.random() < chance:
                change.apply(names)
        chance = random.choice((0.0, 0.1, 0.5, 0.5, 0.9, 1.0))
        files = {id(file): file for file in names.values() if file is not None}
        contents = {key: file.sample(random, chance) for key, file in files.items()}
        image: Image = {}
        for name in sorted(names):
            parent = name.rpartition("/")[0]
            if not parent or parent in image:
                file = names[name]
                image[name] = None if file is None else contents[id(file)]
        return image


_NAMING = (EventKind.CREATE, EventKind.RENAME, EventKind.UNLINK, EventKind.MKDIR, EventKind.RMDIR)


def cut_points(events: Sequence[Event]) -> list[int]:
    """How many records may have happened when the power goes: before each call, with all marks before it, and at the end."""
    return [at for at, event in enumerate(events) if event.kind is not EventKind.MARK] + [len(events)]


def uncertain_cut_points(events: Sequence[Event], initial: Image | None = None) -> list[int]:
    """Those of them where a power cut may leave something else than the process saw."""
    points, disk, found = set(cut_points(events)), Disk(initial), []
    for at, event in enumerate([*events, Event(EventKind.MARK)]):
        if at in points and not disk.is_certain:
            found.append(at)
        disk.apply(event)
    return found


def cuts(
    events: Sequence[Event],
    picks: Iterable[tuple[int, int | None]],
    initial: Image | None = None,
    initial_marks: Sequence[str] = (),
) -> Iterator[Cut]:
    """The images of these (cut point, seed), in the order of the cut points; the trace is followed once."""
    disk, at, marks = Disk(initial), 0, list(initial_marks)
    for point, seed in sorted(picks, key=lambda pick: (pick[0], -1 if pick[1] is None else pick[1])):
        for event in events[at:point]:
            disk.apply(event)
            if event.kind is EventKind.MARK:
                marks.append(event.name)
        at = point
        image = disk.everything() if seed is None else disk.sample(Random(seed))  # noqa: S311 (to be repeated)
        yield Cut(point, seed, image, list(marks))


def write_image(image: Image, directory: Path) -> None:
    """Make this directory, which must not exist, with this content."""
    directory.mkdir(parents=True)
    for name in sorted(image):
        data = image[name]
        if data is None:
            (directory / name).mkdir()
        else:
            (directory / name).write_bytes(data)

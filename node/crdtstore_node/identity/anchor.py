"""The anchor: how far the log was durable, in a file that lives in memory and ends with the boot.

The question: what proves at a restart that a directory was not put back from an older copy? Something that no copy of the directory
contains, that outlives the process but not the machine's memory. The file is named after the boot and the log's directory (device, inode,
birth time), so a copy finds none, and none is believed after a reboot, even where its folder is on a disk after all.

It is written after each sync of the log and before anything that was synced is told to anybody: the log that is found reaches at least as
far. Two places take turns, each with a checksum, so that a process that is killed amid a write leaves the other one whole.

Places, the first that is there and ours: $XDG_RUNTIME_DIR, /run/user/<uid>, /dev/shm. All of them are looked at, because a node may be
started from a session once and by the system the next time. Where there is none there is no anchor, and every start asks the peers.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from struct import Struct
from typing import NamedTuple

import msgspec
from xxhash import xxh3_64_intdigest

from crdtstore.causal import ReplicaId
from crdtstore_node.identity.seal import Facts

__all__ = ["Anchor", "Anchored", "anchor_places", "boot_id", "find_anchors", "make_anchor", "open_anchor"]

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_BYTES = mmap.PAGESIZE
_SLOTS = (0, 64)
"""A cache line each."""
_TURN = Struct("<QQ")
_CHECK = Struct("<Q")
_SLOT_BYTES = _TURN.size + _CHECK.size
_HEAD_AT = 128
_HEAD = Struct("<8sQQ")
_MAGIC = b"anchor 1"
_SWEPT = 1_000
"""So many files are looked at for those that nobody needs any more."""


class Anchored(NamedTuple):
    """What an anchor says."""

    path: Path
    replica: str
    number: int
    """Which anchor of its directory it is; the seal names the last one."""
    position: int
    """The log was durable at least up to here."""


class _Head(msgspec.Struct, array_like=True):
    replica: str
    number: int
    directory: str


class Anchor:
    """The anchor of a running node. Mutable; belongs to one thread."""

    def __init__(self, path: Path, memory: mmap.mmap, turn: int) -> None:
        self.path = path
        self._memory = memory
        self._turn = turn

    def hold(self, position: int) -> None:
        """The log is durable up to here.

        Cost:    about 1 µs, no system call.
        """
        turn = self._turn = self._turn + 1
        said = _TURN.pack(turn, position)
        self._memory[(at := _SLOTS[turn & 1]) : at + _SLOT_BYTES] = said + _CHECK.pack(xxh3_64_intdigest(said))

    def close(self) -> None:
        """Keep it for the next start."""
        self._memory.close()


def anchor_places(environ: Mapping[str, str]) -> list[Path]:
    """Where anchors may be, the best first."""
    places = [Path("/run/user") / str(os.geteuid()), Path("/dev/shm")]  # noqa: S108 - only a folder that is ours is used
    own = environ.get("XDG_RUNTIME_DIR", "")
    if own.startswith("/"):
        places.insert(0, Path(own))
    return list(dict.fromkeys(places))


def boot_id() -> str | None:
    """Names the time since this machine was started; None where that cannot be known."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def find_anchors(places: Sequence[Path], facts: Facts) -> list[Anchored]:
    """All whole anchors of this directory in this boot, the newest first."""
    boot = boot_id()
    if boot is None:
        return []
    found = [said for place in places if (said := _read(_folder(place) / _name(boot, facts))) is not None]
    return sorted(found, key=lambda each: (each.number, each.position), reverse=True)


def make_anchor(
    places: Sequence[Path],
    facts: Facts,
    directory: Path,
    replica: ReplicaId,
    number: int,
    position: int,
) -> Anchor | None:
    """The only anchor of this directory from now on, in the first place that takes it; None: there is no such place."""
    boot = boot_id()
    if boot is None:
        return None
    name = _name(boot, facts)
    for place in places:
        with suppress(OSError):
            (_folder(place) / name).unlink()
    for place in places:
        with suppress(OSError):
            folder = _own_folder(place)
            _sweep(folder, boot)
            return _make(folder / name, _head(replica, number, directory), position)
    return None


def open_anchor(said: Anchored) -> Anchor | None:
    """Go on with an anchor that was found; None: it cannot be had."""
    try:
        memory = _map(said.path)
    except (OSError, ValueError):
        return None
    turns = [turn for turn, _ in _turns(memory)]
    if not turns:
        memory.close()
        return None
    return Anchor(said.path, memory, max(turns))


def _name(boot: str, facts: Facts) -> str:
    return f"{boot}.{facts.device:x}.{facts.inode:x}.{facts.birth_ns or 0:x}"


def _folder(place: Path) -> Path:
    return place / f"crdtstore-{os.geteuid()}"


def _own_folder(place: Path) -> Path:
    """The folder for anchors, made if it is not there.

    Raises:  OSError when it cannot be made, or is not ours alone: /dev/shm is everybody's.
    """
    folder = _folder(place)
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_ours(os.lstat(folder), stat.S_ISDIR):
        raise PermissionError(f"{folder} is not ours alone")
    return folder


def _is_ours(status: os.stat_result, is_kind: Callable[[int], bool]) -> bool:
    return is_kind(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022


def _head(replica: str, number: int, directory: Path) -> bytes:
    body = msgspec.msgpack.encode(_Head(replica, number, str(directory.absolute())))
    head = _HEAD.pack(_MAGIC, len(body), xxh3_64_intdigest(body)) + body
    if _HEAD_AT + len(head) > _BYTES:  # the name is for people and for the sweep
        return _head(replica, number, Path("/"))
    return head


def _make(path: Path, head: bytes, position: int) -> Anchor:
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        # Written out in full: a store into a page for which there is no memory would kill the process.
        os.pwrite(fd, (bytes(_HEAD_AT) + head).ljust(_BYTES, b"\0"), 0)
        anchor = Anchor(path, mmap.mmap(fd, _BYTES), 0)
        anchor.hold(position)
        os.replace(draft, path)
    except OSError:
        with suppress(OSError):
            draft.unlink()
        raise
    finally:
        os.close(fd)
    return anchor


def _map(path: Path) -> mmap.mmap:
    fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        status = os.fstat(fd)
        if (
            not _is_ours(status, stat.S_ISREG)
            or status.st_size != _BYTES
            or not _is_ours(os.lstat(path.parent), stat.S_ISDIR)
        ):
            raise PermissionError(f"{path} is no anchor of ours")
        return mmap.mmap(fd, _BYTES)
    finally:
        os.close(fd)


def _read(path: Path) -> Anchored | None:
    try:
        memory = _map(path)
    except (OSError, ValueError):
        return None
    with memory:
        head = _read_head(memory)
        newest = max(_turns(memory), default=None)
    if head is None or newest is None:
        return None
    return Anchored(path, head.replica, head.number, newest[1])


def _turns(memory: mmap.mmap) -> Iterator[tuple[int, int]]:
    """Turn and position of each place that is whole."""
    for at in _SLOTS:
        said = memory[at : at + _TURN.size]
        turn, position = _TURN.unpack(said)
        if memory[at + _TURN.size : at + _SLOT_BYTES] == _CHECK.pack(xxh3_64_intdigest(said)):
            yield turn, position


def _read_head(memory: mmap.mmap) -> _Head | None:
    magic, length, check = _HEAD.unpack_from(memory, _HEAD_AT)
    body = memory[_HEAD_AT + _HEAD.size :][:length]
    if magic != _MAGIC or xxh3_64_intdigest(body) != check:
        return None
    try:
        return msgspec.msgpack.decode(body, type=_Head)
    except msgspec.DecodeError:
        return None


def _sweep(folder: Path, boot: str) -> None:
    """Remove what is of another boot, and of directories that are not there any more: memory is dear."""
    for path in islice(folder.iterdir(), _SWEPT):
        with suppress(OSError):
            is_draft = path.suffix == ".new"  # somebody else may be writing it
            if not path.name.startswith(boot) or not (is_draft or _is_needed(path)):
                path.unlink()


def _is_needed(path: Path) -> bool:
    try:
        memory = _map(path)
    except (OSError, ValueError):
        return False
    with memory:
        head = _read_head(memory)
    return head is not None and Path(head.directory).exists()

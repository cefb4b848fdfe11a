"""seal.json: to which directory of which machine an id was given.

The question: how does a copy look different from the original after a reboot? A copy has another inode, and a birth time of its own that
no program can set. So the seal names inode and birth time of the log's directory (whose lock is what keeps two processes apart), its file
system, and the machine. All of them have to be as they were; what differs is said.

Which facts are compared, and why not simply the device number: it is handed out anew at every boot, and at every mount for overlay,
btrfs and network file systems; a node would lose its id by being restarted. The id of the file system (``f_fsid``) lasts, and differs
between the snapshots of btrfs and ZFS, which keep inodes and birth times. Some file systems (XFS, f2fs) give their device number as this
id, others 0: those have none that counts, and then inode and birth time have to do. Only where there is no birth time either is the
device compared. The machine is known by a hash of /etc/machine-id. In a container that file is of the image or of this one container,
the same everywhere or another after each upgrade: it is not looked at there, and directory and file system have to carry it alone.

What no file can show: a disk that was copied block by block, or rolled back by a snapshot below the file system. A matching seal is
therefore never a proof: the node waits whether a peer contradicts.

Each anchor that is made for the directory has a number one higher than the last, which stands here: an anchor found later that has another
number is not of this state of the directory.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from struct import unpack_from
from typing import NamedTuple

from msgspec import DecodeError, Struct, ValidationError, to_builtins
from msgspec.json import decode

from crdtstore.causal import ReplicaId
from crdtstore.storage.segment import naming
from crdtstore_node.identity.document import LOG_NAME, write_document

__all__ = ["SEAL_NAME", "Facts", "Seal", "difference", "gather_facts", "read_seal", "renew_seal", "write_seal"]

SEAL_NAME = "seal.json"
_FORMAT = 1
_MACHINE_ID = Path("/etc/machine-id")
_CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"), Path("/run/systemd/container"))
_AT_FDCWD, _STATX_BTIME = -100, 0x800


class Facts(NamedTuple):
    """What can be seen of a log's directory and of the machine it is on."""

    machine: str | None
    """A hash of the machine's id; None: it has none."""
    file_system: str | None
    """Its own id, not its device's; None: it has none that lasts."""
    device: int
    inode: int
    birth_ns: int | None
    """When the directory was made; None: the file system does not say."""


class Seal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    replica: str
    anchor: int
    """The number of the anchor that was made last."""
    machine: str | None
    file_system: str | None
    device: int
    inode: int
    birth_ns: int | None

    @property
    def facts(self) -> Facts:
        return Facts(self.machine, self.file_system, self.device, self.inode, self.birth_ns)


def difference(sealed: Facts, now: Facts) -> str | None:
    """Which fact is not what it was, as a sentence; None: this is the directory that was sealed, as far as can be seen."""
    for name, what in _COMPARED:
        before, after = getattr(sealed, name), getattr(now, name)
        if before != after:
            return f"{what} is {_said(after)}, and was {_said(before)} when the id was given to it"
    if sealed.file_system is None and sealed.birth_ns is None and sealed.device != now.device:
        return f"the device of the log's directory is {now.device}, and was {sealed.device} when the id was given to it"
    return None


_COMPARED = (
    ("machine", "the machine (a hash of /etc/machine-id)"),
    ("file_system", "the file system of the log's directory"),
    ("inode", "the inode of the log's directory"),
    ("birth_ns", "the birth time of the log's directory (Unix ns)"),
)


def _said(fact: str | int | None) -> str:
    return "unknown" if fact is None else str(fact)


# --- the file


def read_seal(data: Path) -> tuple[Seal | None, str]:
    """The directory's seal; None, and why: nobody can say whose directory this was.

    Raises:  StorageError when the disk cannot be read.
    """
    path = data / SEAL_NAME
    with naming(path):
        try:
            seal = decode(path.read_bytes(), type=Seal)
        except FileNotFoundError:
            return None, f"there is no {SEAL_NAME}"
        except (DecodeError, ValidationError) as error:
            return None, f"{SEAL_NAME} is not what was written there: {error}"
    if seal.format != _FORMAT:
        return None, f"{SEAL_NAME} has format {seal.format}, this program reads {_FORMAT}"
    return seal, ""


def write_seal(data: Path, replica: ReplicaId, anchor: int, facts: Facts) -> None:
    """Give the id to this directory, durably.

    Raises:  StorageError; the old seal is still there, or the new one.
    """
    seal = Seal(format=_FORMAT, replica=replica, anchor=anchor, **facts._asdict())
    write_document(data / SEAL_NAME, to_builtins(seal))


def renew_seal(data: Path, replica: ReplicaId, found: Iterable[int] = ()) -> int:
    """Give the id to this directory as it is now; return the number for its next anchor: above the last, and above those that were found.

    Raises:  StorageError as ``write_seal``.
    """
    seal, _ = read_seal(data)
    number = max((0 if seal is None else seal.anchor, *found)) + 1
    write_seal(data, replica, number, gather_facts(data / LOG_NAME))
    return number


# --- the facts


def gather_facts(directory: Path) -> Facts:
    """What can be seen of a log's directory now.

    Raises:  StorageError when it cannot be asked.
    """
    with naming(directory):
        status = os.stat(directory)
        file_system = file_system_of(os.statvfs(directory).f_fsid, status.st_dev)
    return Facts(_machine(), file_system, status.st_dev, status.st_ino, _birth_ns(directory))


def file_system_of(id_: int, device: int) -> str | None:
    """The id of a file system; None when it is none, or the number of its device in the kernel's encoding."""
    major, minor = os.major(device), os.minor(device)
    encoded = (minor & 0xFF) | (major << 8) | ((minor & ~0xFF) << 12)
    return None if id_ in (0, encoded, device) else f"{id_:016x}"


def _machine() -> str | None:
    if any(mark.exists() for mark in _CONTAINER_MARKS):
        return None
    try:
        text = _MACHINE_ID.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not text or text == "uninitialized":
        return None
    return sha256(b"crdtstore seal " + text.encode()).hexdigest()[:16]  # the id itself is not to be told


def _birth_ns(directory: Path) -> int | None:
    """The ``stx_btime`` of statx(2), which this Python does not offer."""
    statx = getattr(ctypes.CDLL(None), "statx", None)
    if statx is None:
        return None
    buffer = ctypes.create_string_buffer(256)
    if statx(_AT_FDCWD, os.fsencode(directory), 0, _STATX_BTIME, buffer) != 0:
        return None
    (mask,) = unpack_from("<I", buffer, 0)
    seconds, nanoseconds = unpack_from("<qI", buffer, 80)
    return int(seconds * 1_000_000_000 + nanoseconds) or None if mask & _STATX_BTIME else None

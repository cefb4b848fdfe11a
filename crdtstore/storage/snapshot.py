"""The form of a backup: objects that hold rows or blocks of the log, and the manifest that names them.

The question: how does whoever restores know that nothing is missing and nothing was altered? The manifest is written last and names every
object with its size and hash; it carries a hash of itself and has one form only, so any other bit in it is noticed too. What it says of
the groups (vectors, digest, heads of the hash chains) can be computed anew from the objects, and is, before anything is believed.

Why a backup is causally closed: rows are a checkpoint, the state after a prefix of the log in the order in which this replica applied it;
the blocks go on from there. Commits are applied only after all that they depend on (law L2), so every prefix of that order is closed, and
so is a checkpoint with any further prefix on top. Nothing is chosen by time or by key, so nothing can be torn.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Literal, TypeVar

import msgspec
import zstandard
from msgspec import UNSET, Struct, UnsetType

from crdtstore.errors import StorageError
from crdtstore.storage.protocol import Row

__all__ = [
    "CHUNK_BYTES",
    "FORMAT",
    "MANIFEST_NAME",
    "Edge",
    "GroupPart",
    "Manifest",
    "ObjectPart",
    "Position",
    "decode_manifest",
    "encode_manifest",
    "pack_blocks",
    "pack_rows",
    "part_of",
    "unpack_blocks",
    "unpack_rows",
]

FORMAT = 1
MANIFEST_NAME = "manifest.json"
CHUNK_BYTES = 4 << 20
"""An object is closed when what it holds, uncompressed, reaches this size: nobody has to hold more at a time."""

_MAX_CHUNK_BYTES = 1 << 30
"""What an object may unpack to: a block is never cut in two, and holds what one write call of a node gathered."""
_LEVEL = 3

Blocks = list[tuple[int, list[bytes]]]
"""Per block its position and its records."""

_Item = TypeVar("_Item")
_encode = msgspec.msgpack.Encoder().encode
_decode_rows = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode
_decode_blocks = msgspec.msgpack.Decoder(Blocks).decode


class ObjectPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One object: its name below the backup, what it holds, and by what it is known to be whole."""

    name: str
    kind: Literal["rows", "blocks"]
    bytes: int
    sha256: str
    count: int
    """How many rows or blocks."""


class Edge(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Up to where a group reaches: per replica the number of its last commit, and the hash of its chain there."""

    vector: dict[str, int]
    chains: dict[str, str]


class GroupPart(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One group. ``checkpoint`` is what the rows hold (None: it is younger than they are), ``end`` is with the log on top."""

    members: list[str]
    configuration: tuple[int, str] | None
    checkpoint: Edge | None
    stable: dict[str, int]
    digest: str | None
    """The state digest of the checkpoint."""
    newest_ms: int
    """No commit in the checkpoint is stamped later (Unix ms)."""
    end: Edge


class Position(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which part of the log there is: from where the checkpoint needs it to where it ended."""

    needed: int
    end: int
    commits: int


class Manifest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a backup is."""

    format: int
    cluster: str
    nonce: str
    replica: str
    """Whose copy this is of."""
    taken: str
    """When the backup began, by the clock of that machine: RFC 3339."""
    log: Position
    groups: dict[str, GroupPart]
    objects: list[ObjectPart]
    left_out: list[str] | UnsetType = UNSET
    """Groups whose state was just being taken over from others: nothing of them counts yet. Unset when there are none."""
    check: str = ""
    """The hash of all of the above."""

    @property
    def arriving(self) -> frozenset[str]:
        """The groups that are left out."""
        return frozenset() if isinstance(self.left_out, UnsetType) else frozenset(self.left_out)


def encode_manifest(manifest: Manifest) -> bytes:
    """The one form of a manifest, with its own hash in it."""
    check = sha256(_form(msgspec.structs.replace(manifest, check=""))).hexdigest()
    return _form(msgspec.structs.replace(manifest, check=check))


def _form(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=1) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in these bytes, which stand at ``where``.

    Raises:  StorageError when these are not the bytes that were written.
    """
    try:
        format_ = msgspec.json.decode(data, type=_OnlyFormat).format
        if format_ != FORMAT:
            raise StorageError(f"{where}: format {format_}, this program reads {FORMAT}. Nothing changed.")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
        raise _altered(where, f"not a manifest: {error}") from None
    if encode_manifest(manifest) != data:
        raise _altered(where, "its hash does not fit what it says")
    return manifest


class _OnlyFormat(Struct):
    format: int


def _altered(where: str, why: str) -> StorageError:
    return StorageError(f"{where}: damaged: {why}. Nothing changed.", file=where)


# --- objects


def pack_rows(rows: Sequence[Row]) -> bytes:
    """Rows as an object."""
    return _pack(rows)


def pack_blocks(blocks: Sequence[tuple[int, Sequence[bytes]]]) -> bytes:
    """Blocks as an object."""
    return _pack(blocks)


def _pack(content: Sequence[object]) -> bytes:
    return zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(_encode(content))


def part_of(name: str, kind: Literal["rows", "blocks"], data: bytes, count: int) -> ObjectPart:
    """What the manifest says of an object."""
    return ObjectPart(name=name, kind=kind, bytes=len(data), sha256=sha256(data).hexdigest(), count=count)


def unpack_rows(part: ObjectPart, data: bytes, where: str) -> list[Row]:
    """The rows in an object.

    Raises:  StorageError naming the object when it is not what the manifest says; nothing was taken from it.
    """
    return _unpack(part, data, where, _decode_rows)


def unpack_blocks(part: ObjectPart, data: bytes, where: str) -> Blocks:
    """The blocks in an object.

    Raises:  StorageError naming the object when it is not what the manifest says; nothing was taken from it.
    """
    return _unpack(part, data, where, _decode_blocks)


def _unpack(part: ObjectPart, data: bytes, where: str, decode: Callable[[bytes], list[_Item]]) -> list[_Item]:
    if len(data) != part.bytes:
        raise StorageError(
            f"{where}: {len(data)} bytes, the manifest says {part.bytes}. Nothing was taken from it.",
            file=where,
            offset=min(len(data), part.bytes),
        )
    if sha256(data).hexdigest() != part.sha256:
        raise _altered(where, "its hash is not that in the manifest")
    try:
        content = decode(zstandard.ZstdDecompressor().decompress(data, max_output_size=_MAX_CHUNK_BYTES))
    except (zstandard.ZstdError, msgspec.MsgspecError) as error:
        raise _altered(where, f"the hash is right, but this is no object of a backup: {error}") from error
    if len(content) != part.count:
        raise _altered(where, f"{len(content)} {part.kind}, the manifest says {part.count}")
    return content

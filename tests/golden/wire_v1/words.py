"""The first wire format, frozen: what is in a message and in a commit, told once more with nothing of crdtstore.

The question: what would a node of the first version understand of a node of today? This file is that node's understanding. It is never
changed; a later format gets a folder of its own, and the tests beside it hold today's code against all of them.

A message is ``version, flag, payload``: payload is msgpack, with zstd when the flag is 1. Structs are arrays in the order of their fields;
the tag comes first. A commit is ``[format, origin, seq, hlc, deps, author, attributes, effects]``.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import msgspec
import zstandard

VERSION = 1
FLAT = {"array_like": True, "frozen": True}


class ConfigurationId(msgspec.Struct, **FLAT):
    number: int
    nonce: bytes


class Member(msgspec.Struct, **FLAT):
    replica: str
    region: str
    gossip: str = ""


class Removed(msgspec.Struct, **FLAT):
    member: Member
    final: int | None = None


class Configuration(msgspec.Struct, **FLAT):
    number: int
    epochs: tuple[tuple[int, bytes], ...]
    members: tuple[Member, ...]
    removed: tuple[Removed, ...] = ()


class Row(msgspec.Struct, **FLAT):
    configuration: ConfigurationId
    vector: list[int]
    hlc: int
    chains: list[bytes]
    votes: int = 0
    is_leaving: bool = False


class Segment(msgspec.Struct, **FLAT):
    origin: int
    after: int
    chain: bytes


class Frame(msgspec.Struct, tag=1, **FLAT):
    group: str
    configuration: ConfigurationId
    segments: list[Segment]
    order: list[int]
    commits: list[bytes]


class Digest(msgspec.Struct, tag=2, **FLAT):
    group: str
    configuration: ConfigurationId
    row: Row
    others: list[Row | None]
    wants_answer: bool
    is_missing: bool = False


class Ack(msgspec.Struct, tag=3, **FLAT):
    group: str
    configuration: ConfigurationId
    row: Row


class Want(msgspec.Struct, tag=5, **FLAT):
    group: str
    configuration: ConfigurationId
    collection: str
    key: str
    amount: int
    waits: int
    seen: int


class Claim(msgspec.Struct, **FLAT):
    configuration: ConfigurationId
    vector: dict[str, int]
    votes: int


class Standing(msgspec.Struct, **FLAT):
    configuration: ConfigurationId
    vector: dict[str, tuple[int, bytes]]
    yours: Claim | None
    has: int
    chain: bytes


class Hello(msgspec.Struct, tag=4, **FLAT):
    protocol: int
    cluster: bytes
    replica: str
    node: str
    region: str
    groups: dict[str, Standing]
    gossip: str = ""
    process: int = 0


class Ballot(msgspec.Struct, **FLAT):
    round: int
    replica: str


class Vote(msgspec.Struct, **FLAT):
    ballot: Ballot
    value: Configuration


class Configure(msgspec.Struct, tag=6, **FLAT):
    group: str
    value: Configuration


class Prepare(msgspec.Struct, tag=7, **FLAT):
    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int


class Promise(msgspec.Struct, tag=8, **FLAT):
    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int
    accepted: Vote | None
    higher: Ballot | None = None


class Accept(msgspec.Struct, tag=9, **FLAT):
    group: str
    configuration: ConfigurationId
    vote: Vote
    votes: int


class Accepted(msgspec.Struct, tag=10, **FLAT):
    group: str
    configuration: ConfigurationId
    ballot: Ballot
    votes: int
    higher: Ballot | None = None


class Fetch(msgspec.Struct, tag=11, **FLAT):
    group: str
    configuration: ConfigurationId
    snapshot: bytes
    number: int
    count: int


class Part(msgspec.Struct, tag=12, **FLAT):
    group: str
    configuration: ConfigurationId
    snapshot: bytes
    number: int
    body: bytes


class Ask(msgspec.Struct, tag=13, **FLAT):
    member: Member
    leaves: str | None = None
    group: str = "_sys/0"


Message = Frame | Digest | Ack | Want | Hello | Configure | Prepare | Promise | Accept | Accepted | Fetch | Part | Ask
_encoder = msgspec.msgpack.Encoder(order="deterministic")
_decoder = msgspec.msgpack.Decoder(Message)


def payload_of(data: bytes) -> bytes:
    """What stands behind the first two bytes, unpacked: two versions of zstd may pack the same differently."""
    if data[0] != VERSION:
        raise ValueError(f"version {data[0]}")
    return data[2:] if data[1] == 0 else zstandard.ZstdDecompressor().decompress(data[2:])


def decode(data: bytes) -> Any:
    """The message in these bytes."""
    return _decoder.decode(payload_of(data))


def encode(message: Any) -> bytes:
    """The bytes of a message; never compressed."""
    return bytes((VERSION, 0)) + _encoder.encode(message)


# --- commits


class Commit(msgspec.Struct, **FLAT):
    format: int
    origin: str | int
    seq: int
    hlc: int
    deps: list[str | int]
    author: str
    attributes: list[Any]
    effects: list[Any]


def _large_in(code: int, data: memoryview) -> Any:
    return int.from_bytes(data, "big", signed=True) if code == 1 else msgspec.msgpack.Ext(code, bytes(data))


def _plain(value: Any) -> Any:
    """Integers beyond 64 bits are extension 1."""
    if isinstance(value, int) and not -(1 << 63) <= value < 1 << 64:
        size = value.bit_length() // 8 + 1
        return msgspec.msgpack.Ext(1, value.to_bytes(size, "big", signed=True))
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return value


_commit_decoder = msgspec.msgpack.Decoder(Commit, ext_hook=_large_in)


def decode_commit(data: bytes) -> Commit:
    return _commit_decoder.decode(data)


def encode_commit(commit: Commit) -> bytes:
    return _encoder.encode([_plain(value) for value in msgspec.structs.astuple(commit)])


# --- what is derived


def first_chain(cluster: str, group: str, replica: str) -> bytes:
    return sha256(_encoder.encode([cluster, group, replica])).digest()


def next_chain(before: bytes, data: bytes) -> bytes:
    return sha256(before + data).digest()


def first_configuration(nonce: bytes, group: str, members: tuple[Member, ...]) -> Configuration:
    return Configuration(0, ((0, sha256(nonce + group.encode()).digest()[:16]),), members)


def id_of(configuration: Configuration) -> ConfigurationId:
    return ConfigurationId(configuration.number, configuration.epochs[-1][1])


def origins_of(configuration: Configuration) -> list[str]:
    """Whose commits the vectors of a configuration count, in order."""
    removed = [each.member.replica for each in configuration.removed if each.final is None]
    return [*(member.replica for member in configuration.members), *removed]

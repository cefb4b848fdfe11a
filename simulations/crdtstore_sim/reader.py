"""A second reader of commit bytes, written from the format and sharing no line with the engine.

The question: how can a checker know what a commit depends on, if the engine's own reading may be wrong? By reading the bytes again, with
another msgpack library, and by keeping every origin's roster itself. Format: DESIGN 3.
"""

from __future__ import annotations

from typing import Any

import msgpack

__all__ = ["Record", "Roster", "read_commit"]

_OPERATION, _EXPIRY, _TRACE = 2, 3, 4
_SYSTEM = "crdtstore"


class Record:
    """One commit as the second reader sees it.

    Shape:   ``deps[i]`` is how much of replica ``i`` its issuer had applied; its own entry is ``seq - 1``.
    """

    __slots__ = (
        "data",
        "deps",
        "expiry_hlc",
        "hlc",
        "is_system",
        "made_us",
        "missing_at",
        "name",
        "origin",
        "roster_size",
        "seq",
        "trace",
    )

    def __init__(self, origin: int, seq: int, hlc: int, deps: tuple[int, ...], roster_size: int, data: bytes) -> None:
        self.origin = origin
        self.seq = seq
        self.hlc = hlc
        self.deps = deps
        self.roster_size = roster_size
        """How many replicas the origin had named up to and with this commit."""
        self.data = data
        self.trace: str | None = None
        self.is_system = False
        """Whether the store made it by itself."""
        self.expiry_hlc = 0
        """Until when its operation id holds; 0: it has none."""
        self.name = ""
        """How what it makes is named: after its operation, or after itself."""
        self.made_us = 0
        self.missing_at = 0
        """Bits of the replicas that have not applied it yet."""

    def effects(self) -> list[tuple[int, list[Any], Any]]:
        """What it does, read from its bytes: kind, path and value of each effect."""
        flat = _unpack(self.data)[7]
        return [(flat[at], flat[at + 1], flat[at + 2]) for at in range(0, len(flat), 3)]


class Roster:
    """What the positions in one origin's deps stand for. Mutable."""

    __slots__ = ("names",)

    def __init__(self, origin: str) -> None:
        self.names = [origin]


def read_commit(data: bytes, origin: int, members: list[str], roster: Roster, before: Record | None) -> Record:
    """The next commit of an origin; the roster moves on.

    Raises:  ValueError when the bytes are not what the format says, or not the commit that comes next.
    """
    form, name, seq, hlc, increases, author, attributes, _effects = _unpack(data)
    expected = before.seq + 1 if before else 1
    if form != 1 or seq != expected:
        raise ValueError(f"format {form}, commit {seq} in the place of {expected}")
    if name != (members[origin] if seq == 1 else 0):
        raise ValueError(f"commit {seq} names {name!r} as its origin")
    deps = list(before.deps) if before else [0] * len(members)
    deps[origin] = seq - 1
    for at in range(0, len(increases), 2):
        position, increase = increases[at], increases[at + 1]
        if isinstance(position, str):
            if position in roster.names:
                raise ValueError(f"deps introduce {position} a second time")
            roster.names.append(position)
            replica = members.index(position)
        else:
            replica = members.index(roster.names[position])
        if replica == origin or increase < 1:
            raise ValueError("deps name the origin itself, or increase by nothing")
        deps[replica] += increase
    record = Record(origin, seq, hlc, tuple(deps), len(roster.names), data)
    record.is_system = author == _SYSTEM
    record.name = f"{members[origin]}:{seq}"
    for at in range(0, len(attributes), 2):
        if attributes[at] == _TRACE:
            record.trace = attributes[at + 1]
        elif attributes[at] == _OPERATION:
            record.name = attributes[at + 1][0].hex()
        elif attributes[at] == _EXPIRY:
            record.expiry_hlc = attributes[at + 1]
    return record


def _unpack(data: bytes) -> Any:
    return msgpack.unpackb(data, raw=False, strict_map_key=False, ext_hook=_ext)


def _ext(code: int, data: bytes) -> Any:
    if code != 1:
        raise ValueError(f"extension {code}")
    return int.from_bytes(data, "big", signed=True)

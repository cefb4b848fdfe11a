"""Durability (laws L5 and L3): nothing acknowledged is lost, and nothing is spoken of before it is durable.

The question: when is it too late to notice? At the crash. So every reply, every row and every frame is held against the disk in the
moment it leaves; that the disk keeps what it synced is checked at every crash, and that everybody has it at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import gt
from typing import Any

import msgspec
import zstandard

from crdtstore.causal import Dot
from crdtstore_sim.facts import Facts, Group

__all__ = ["Durability", "Heard"]

_ZSTD = 1


class Row(msgspec.Struct, array_like=True, gc=False):
    """What a node says of itself, as far as a checker needs it."""

    configuration: msgspec.Raw
    vector: list[int]
    hlc: int


class _Segment(msgspec.Struct, array_like=True, gc=False):
    origin: int
    after: int


class _Frame(msgspec.Struct, array_like=True, tag=1, gc=False):
    group: str
    configuration: msgspec.Raw
    segments: list[_Segment]
    order: list[int]
    commits: list[msgspec.Raw]


class _Digest(msgspec.Struct, array_like=True, tag=2, gc=False):
    group: str
    configuration: msgspec.Raw
    row: Row


class _Ack(msgspec.Struct, array_like=True, tag=3, gc=False):
    group: str
    configuration: msgspec.Raw
    row: Row


class _Want(msgspec.Struct, array_like=True, tag=5, gc=False):
    group: str


Heard = _Frame | _Digest | _Ack | _Want
_decode = msgspec.msgpack.Decoder(Heard).decode
_decompressor = zstandard.ZstdDecompressor()


_TAGS = frozenset((1, 2, 3, 5))


def listen(data: bytes) -> Heard | None:
    """A message as somebody on the wire would read it; None for one that is not about commits."""
    if data[1] != _ZSTD and data[3] not in _TAGS:
        return None
    payload: bytes | memoryview = memoryview(data)[2:]
    if data[1] == _ZSTD:
        payload = _decompressor.decompress(payload)
        if payload[1] not in _TAGS:
            return None
    heard: Heard = _decode(payload)
    return heard


class Durability:
    """Mutable: the greatest acknowledged number per group and origin, and which records were acknowledged."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._acknowledged: dict[tuple[str, int], dict[int, bytes]] = {}
        self._said: tuple[bytes, Heard | None] | None = None

    # --- speaking

    def on_send(self, node: int, data: bytes) -> tuple[Group, Row] | None:
        """A message leaves a node; returns the row in it, if it has one."""
        if self._said is None or self._said[0] is not data:  # one frame often goes to several peers
            self._said = data, listen(data)
        message = self._said[1]
        if message is None:
            return None
        group = self._facts.groups.get(message.group)
        if group is None:
            return None
        durable = group.durable[node]
        if type(message) is _Frame:
            self.on_frame(group, node, message, durable)
            return None
        if type(message) is _Want:
            return None
        row: Row = message.row  # type: ignore[union-attr]
        if row.vector != durable:
            self.on_row(group, node, row.vector, durable)
        return group, row

    def on_row(self, group: Group, node: int, vector: Sequence[int], durable: Sequence[int]) -> None:
        """A node says what it has."""
        if any(map(gt, vector, durable)):
            self._report(group, f"a row of {self._facts.members[node]} names {vector}, durable is {durable}")

    def on_frame(
        self, group: Group, node: int, frame: _Frame, durable: Sequence[int], origins: Sequence[int] | None = None
    ) -> None:
        """A node sends commits; ``origins``: whose they are, by the places of the message, where these are not the places of members."""
        for at, segment in enumerate(frame.segments):
            upto = segment.after + (frame.order.count(at) if frame.order else len(frame.commits))
            origin = segment.origin if origins is None else origins[segment.origin]
            if upto > durable[origin]:
                self._report(
                    group,
                    f"{self._facts.members[node]} sends {self._facts.members[origin]}:{upto}, durable is {durable[origin]}",
                )

    # --- acknowledging

    def on_acknowledged(self, group: Group, node: int, dot: Dot) -> None:
        """A user was told that a commit is safe."""
        origin = self._facts.index.get(dot.replica, -1)
        if origin < 0 or dot.seq > group.durable[node][origin]:
            self._report(group, f"{self._facts.members[node]} acknowledges {dot}, durable is {group.durable[node]}")
        elif dot.seq <= len(group.records[origin]):
            self._acknowledged.setdefault((group.name, origin), {})[dot.seq] = group.records[origin][dot.seq - 1].data

    def on_crash(self, node: int) -> None:
        """What a node's log still holds has all that was ever acknowledged of its commits."""
        for (name, origin), acknowledged in self._acknowledged.items():
            if origin == node:
                self._check(self._facts.groups[name], node, origin, acknowledged, "after a crash")

    def acknowledged(self, group: str, origin: int) -> dict[int, bytes]:
        """What users were told that is safe, of what a replica made: by number."""
        return self._acknowledged.get((group, origin), {})

    def on_end(self) -> None:
        """Everybody has everything that was acknowledged."""
        for (name, origin), acknowledged in self._acknowledged.items():
            for node in range(len(self._facts.members)):
                self._check(self._facts.groups[name], node, origin, acknowledged, "at the end")

    def _check(self, group: Group, node: int, origin: int, acknowledged: dict[int, bytes], when: str) -> None:
        held, records = group.durable[node][origin], group.records[origin]
        lost = [seq for seq, data in acknowledged.items() if seq > held or records[seq - 1].data != data]
        if lost:
            dots = ", ".join(f"{self._facts.members[origin]}:{seq}" for seq in lost[:5])
            self._report(group, f"{self._facts.members[node]} lacks {len(lost)} acknowledged {when}: {dots}")

    def on_recovered(self, group: Group, node: int, applied: list[int]) -> None:
        """A node came back from its log."""
        if applied != group.durable[node]:
            self._report(
                group,
                f"{self._facts.members[node]} comes back with {applied}, its log holds {group.durable[node]}",
            )

    def _report(self, group: Group, detail: Any) -> None:
        self._facts.report("durability", f"{group.name}: {detail}")

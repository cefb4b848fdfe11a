"""The writers' own record of what was acknowledged: one file per airport, one JSON line per reply.

The question: how do we know what the store promised, without asking the store? A writer appends a line when the reply
arrives, before it does anything else. In the end the files are read back from disk: each dot must be covered by each
node's vector, and the amounts per counter must be what each node reads. An operation that was retried and answered
twice has one dot, so it counts once here too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

__all__ = ["Ack", "AckFile", "Acknowledged", "read_acks", "split_dot"]


class Ack(msgspec.Struct, frozen=True, omit_defaults=True):
    """One acknowledged commit. ``amount`` is what it adds to a counter, 0 for all other writes; ``time_ms`` is the
    writer's clock.
    """

    dot: str
    collection: str
    key: str
    time_ms: int
    amount: int = 0
    replayed: bool = False


class AckFile:
    """Appends acknowledgements; each is with the operating system when ``append`` returns, so a killed demo leaves
    whole lines.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._encoder = msgspec.json.Encoder()

    def append(self, ack: Ack) -> None:
        os.write(self._fd, self._encoder.encode(ack) + b"\n")

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """All acknowledgements of a run, each dot once."""

    dots: frozenset[str]
    amounts: Mapping[str, Mapping[str, int]]  # collection -> key -> sum
    replayed: int  # replies that named an earlier attempt

    @property
    def writes(self) -> int:
        return len(self.dots)

    def uncovered(self, vector: Mapping[str, int]) -> int:
        """How many acknowledged commits a replica with this vector does not have."""
        return sum(seq > vector.get(replica, 0) for replica, seq in map(split_dot, self.dots))


def read_acks(paths: Iterable[Path]) -> Acknowledged:
    """Read the files back.

    Raises: msgspec.DecodeError when a line is no acknowledgement; ValueError when one dot names two different commits.
    """
    commits: dict[str, tuple[str, str, int]] = {}
    replayed = 0
    decoder = msgspec.json.Decoder(Ack)
    for path in paths:
        for ack in decoder.decode_lines(path.read_bytes()):
            replayed += ack.replayed
            commit = (ack.collection, ack.key, ack.amount)
            if commits.setdefault(ack.dot, commit) != commit:
                raise ValueError(
                    f"dot {ack.dot} was acknowledged for {commits[ack.dot]} and for {commit}: a dot names one commit"
                )
    amounts: dict[str, dict[str, int]] = {}
    for collection, key, amount in commits.values():
        if amount:
            keys = amounts.setdefault(collection, {})
            keys[key] = keys.get(key, 0) + amount
    return Acknowledged(frozenset(commits), amounts, replayed)


def split_dot(dot: str) -> tuple[str, int]:
    """'eu-1.0123456789abcdef:42' -> replica and seq."""
    replica, _, seq = dot.rpartition(":")
    return replica, int(seq)

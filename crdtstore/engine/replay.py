"""Replay: how a start takes in what its log holds, on top of what its checkpoint holds.

The question: what is a commit of the log to a checkpoint that holds it? Bytes that a peer may still lack, and a link of the chain of
hashes, and nothing else: it is not even decoded. Only what came after the checkpoint is applied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.clock import physical_ms
from crdtstore.commit import Commit, decode_commit, head_of
from crdtstore.errors import ProtocolError, StorageError

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Replay"]


class Replay:
    """The replay of one group's commits, in the order of the log, before the first event. Mutable; part of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._reached: list[int | None] = [None] * len(engine.replicas)
        """Per origin the last commit that was taken in."""

    def admit(self) -> None:
        """There is one more replica, of which nothing was taken in yet."""
        self._reached.append(None)

    def take_all(self, origin: int, datas: list[bytes]) -> list[Commit]:
        """Take in commits of an origin that stand one after the other, and are durable already; return those that are applied now, the
        checkpoint holds the others.

        Cost:    1 us for each that the checkpoint holds.
        Raises:  DecodeError or ProtocolError when the log holds what this replica cannot have written, StorageError when a key cannot
                 be read.
        """
        engine, history, before = self._engine, self._engine.history, self._reached[origin]
        if before is None:  # the log may begin below what the history needs, not above
            first, _ = head_of(datas[0])
            before = min(first - 1, history.base[origin])
            self._check_next(origin, before + 1, first)
        covered = min(engine.applied[origin] - before, len(datas))
        known = datas[max(0, min(history.base[origin] - before, covered)) : covered]
        if known:
            history.extend(origin, known)
            if origin == engine.me:  # in one record, so issued at about the same time
                engine.measures.note_issued(physical_ms(head_of(known[-1])[1]), len(known), is_recovered=True)
        self._reached[origin] = before + covered
        return self._apply(origin, datas[covered:]) if covered < len(datas) else []

    def _apply(self, origin: int, datas: list[bytes]) -> list[Commit]:
        """Apply commits that follow on what is applied."""
        engine = self._engine
        before = engine.applied[origin]
        commits = list(map(decode_commit, datas))
        for number, commit in enumerate(commits, before + 1):
            self._check_next(origin, number, commit.seq)
        self._reached[origin] = before + len(commits)
        if engine.apply(origin, commits, datas) < len(commits):
            replica = engine.replicas[origin]
            raise ProtocolError(f"the log of {engine.group} holds a commit of {replica} before what that had seen")
        last = commits[-1]
        engine.durability.vector[origin] = last.seq
        if (
            origin == engine.me
        ):  # stamps of others never drag the clock unjudged, or a poisoned one would after a restart
            engine.clock.last = max(engine.clock.last, last.hlc)
            for commit in commits:
                engine.measures.note_issued(physical_ms(commit.hlc), is_recovered=True)
            return commits
        engine.stability.applied(origin, last.hlc)
        if engine.clock.last:  # it came after our last commit, so not before that was made; when, nobody knows any more
            engine.rows.applied(origin, last.seq, last.hlc, physical_ms(engine.clock.last))
        return commits

    def _check_next(self, origin: int, expected: int, seq: int) -> None:
        if seq != expected:
            group, replica = self._engine.group, self._engine.replicas[origin]
            raise ProtocolError(f"the log of {group} goes from {expected - 1} to {seq} of {replica}")

    def placed(self, position: int) -> None:
        """All that was taken in so far and has no place yet stands in the block of the log at this position."""
        history = self._engine.history
        history.place([max(base, seq or 0) for base, seq in zip(history.base, self._reached, strict=True)], position)

    def finish(self) -> None:
        """That was all.

        Raises:  StorageError when it is not all that the checkpoint stands on.
        """
        engine = self._engine
        for origin, seq in enumerate(self._reached):
            reached = max(engine.history.base[origin], seq or 0)
            if reached < engine.applied[origin]:
                raise StorageError(
                    f"{engine.group}: the checkpoint holds {engine.applied[origin]} commits of {engine.replicas[origin]}, the log "
                    f"only {reached}: acknowledged commits are missing. Nothing changed."
                )
        if engine.checkpoint is not None:
            engine.checkpoint.check()

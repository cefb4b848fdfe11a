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

    def take(self, origin: int, data: bytes) -> Commit | None:
        """Take in a commit, which is durable already. Return it if it is applied now; None: the checkpoint holds it.

        Raises:  DecodeError or ProtocolError when the log holds what this replica cannot have written, StorageError when a key cannot
                 be read.
        """
        engine, before = self._engine, self._reached[origin]
        if before is None or before >= engine.applied[origin]:
            seq, hlc = head_of(data)
        else:
            seq, hlc = before + 1, 0
        if before is None:  # the log may begin below what the history needs, not above
            before = min(seq - 1, engine.history.base[origin])
        if seq != before + 1:
            raise ProtocolError(f"the log of {engine.group} goes from {before} to {seq} of {engine.replicas[origin]}")
        self._reached[origin] = seq
        if seq > engine.applied[origin]:
            return self._apply(origin, data)
        if seq > engine.history.base[origin]:
            engine.history.append(origin, data)
            if origin == engine.me:
                engine.measures.note_issued(physical_ms(hlc or head_of(data)[1]), is_recovered=True)
        return None

    def take_all(self, origin: int, commits: list[bytes]) -> list[Commit]:
        """Take in commits of an origin that stand one after the other; return those that are applied now.

        Cost:    1 us for each that the checkpoint holds.
        Raises:  as ``take``.
        """
        engine, taken, applied = self._engine, 0, list[Commit]()
        history = engine.history
        while taken < len(commits):
            before = self._reached[origin]
            covered = 0 if before is None else min(engine.applied[origin] - before, len(commits) - taken)
            if before is None or covered <= 0:
                commit = self.take(origin, commits[taken])
                taken += 1
                if commit is not None:
                    applied.append(commit)
                continue
            known = commits[taken + max(0, min(history.base[origin] - before, covered)) : taken + covered]
            if known:
                history.extend(origin, known)
                if origin == engine.me:  # in one record, so issued at about the same time
                    engine.measures.note_issued(physical_ms(head_of(known[-1])[1]), len(known), is_recovered=True)
            self._reached[origin] = before + covered
            taken += covered
        return applied

    def _apply(self, origin: int, data: bytes) -> Commit:
        engine = self._engine
        commit = decode_commit(data)
        engine.keyspace.tree.bring_all(commit.effects)
        engine.apply(origin, commit, data, engine.causality.resolve(origin, commit.deps))
        engine.durability.vector[origin] = commit.seq
        if (
            origin == engine.me
        ):  # stamps of others never drag the clock unjudged, or a poisoned one would after a restart
            engine.clock.last = max(engine.clock.last, commit.hlc)
            engine.measures.note_issued(physical_ms(commit.hlc), is_recovered=True)
            return commit
        engine.stability.applied(origin, commit.hlc)
        if engine.clock.last:  # it came after our last commit, so not before that was made; when, nobody knows any more
            engine.rows.applied(origin, commit.seq, commit.hlc, physical_ms(engine.clock.last))
        return commit

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

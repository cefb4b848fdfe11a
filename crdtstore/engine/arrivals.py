"""Arrivals: what peers say, taken in.

The question: what of it happens? First whether it counts at all (``Membership.hears``), then whether it can be true (``Trust``). Commits
whose deps are here are applied, in the order in which they came; the others wait in a bounded buffer. What cannot be true is refused and
counted; what was applied before it in the same frame stands.
"""

from __future__ import annotations

from itertools import repeat
from typing import TYPE_CHECKING

from crdtstore.engine.output import Output
from crdtstore.engine.trust import Contested, Stretch
from crdtstore.errors import CrdtStoreError, DecodeError, ProtocolError, StorageError
from crdtstore.messages import Ack, Digest, Fetch, Frame, Part, Regroup, Row, Want

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Arrivals"]


class Arrivals:
    """What comes to one replica. Part of the engine, of which it keeps nothing."""

    __slots__ = ("_engine",)

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def take(
        self, peer: int, message: Frame | Digest | Ack | Want | Regroup | Fetch | Part, now_ms: int, out: Output
    ) -> None:
        """Take in what a peer says; whatever it is, it never raises."""
        engine = self._engine
        try:
            membership = engine.membership
            if not membership.hears(engine.replicas[peer], message, now_ms, out):
                return
            if isinstance(message, Frame):
                membership.shape.take(message)
                self._on_frame(peer, message, now_ms, out)
            elif isinstance(message, Ack):
                membership.shape.take(message)
                self._check_row(peer, message.row)
                engine.antientropy.take_row(peer, message.row, now_ms, out)
            elif isinstance(message, Digest):
                membership.shape.take(message)
                self._on_digest(peer, message, now_ms, out)
            elif isinstance(message, Want):
                engine.rights.on_want(peer, message, now_ms, out)
            # parts of snapshots are the host's
        except (ProtocolError, DecodeError) as error:
            self._refuse(peer, error, out)

    def _check_row(self, member: int, row: Row) -> None:
        engine = self._engine
        engine.trust.check_row(member, row)
        engine.membership.claims.note(engine.replicas[member], row)

    def _refuse(self, peer: int, error: CrdtStoreError, out: Output, what: str = "") -> None:
        engine = self._engine
        engine.measures.refused += 1
        out.rejected.append((peer, f"{engine.group}: {what}{error.detail}"))

    def _on_digest(self, peer: int, message: Digest, now_ms: int, out: Output) -> None:
        engine = self._engine
        rows = [(peer, message.row)]
        engine.trust.check_row(peer, message.row)
        for member, row in enumerate(message.others):
            if row is None or member in (engine.me, peer):
                continue
            try:
                engine.trust.check_row(member, row)
            except Contested as error:  # the peer was told so, and is not to be silenced by it
                self._refuse(peer, error, out, f"a row of {engine.replicas[member]}, passed on: ")
                message.others[member] = None
            else:
                rows.append((member, row))
        for member, row in rows:
            engine.membership.claims.note(engine.replicas[member], row)
        engine.antientropy.on_digest(peer, message, now_ms, out)

    def _on_frame(self, peer: int, frame: Frame, now_ms: int, out: Output) -> None:
        engine = self._engine
        stretches = engine.trust.unpack(frame)
        applied, early = engine.applied, engine.early
        has_gap = False
        starts: dict[tuple[int, int], bytes] = {}
        for segment in frame.segments:
            if segment.after > applied[segment.origin]:
                starts[segment.origin, segment.after + 1] = segment.chain
                has_gap = has_gap or segment.after > early.reach(segment.origin, applied)
        measures = engine.measures
        twice = measures.commits_received_twice
        try:
            for stretch in stretches:
                self._take_in(stretch, starts, now_ms, out)
        except ProtocolError as error:  # what was applied before it stands, and must be written
            self._refuse(peer, error, out)
        except StorageError as error:  # so it does here; the rest is asked for again
            engine.note_unreadable(error)
        if early and measures.commits_received_twice > twice:
            self._try_early(now_ms, out)
        measures.note_received(frame.commits)
        if out.persist:
            self._note_applied(now_ms, out)
            out.number = engine.durability.hold(applied, 0, [], out.changed)
        engine.antientropy.on_frame(peer, has_gap, bool(out.persist), now_ms, out)

    def _take_in(self, stretch: Stretch, starts: dict[tuple[int, int], bytes], now_ms: int, out: Output) -> None:
        """Apply what can be applied, let wait what cannot, compare what is here already.

        Raises:  ProtocolError, StorageError; what came before stands.
        """
        engine = self._engine
        applied, early = engine.applied, engine.early
        origin, commits, datas = stretch
        at = 0
        while at < len(commits):
            seq = commits[at].seq
            if seq <= applied[origin] or (early and early.has(origin, seq)):
                engine.trust.check_same(origin, seq, datas[at])
                engine.measures.commits_received_twice += 1
                at += 1
                continue
            count = 0
            if seq == applied[origin] + 1:
                upto = at + 1 if early and early.waits(origin) else len(commits)
                count = self._apply(Stretch(origin, commits[at:upto], datas[at:upto]), now_ms, out)
            if not count:
                early.add(origin, commits[at], datas[at], applied, starts.get((origin, seq)))
            elif early:
                self._apply_early(now_ms, out)
            at += count or 1

    def _apply(self, stretch: Stretch, now_ms: int, out: Output) -> int:
        """Apply the next commits of an origin, as far as their deps are satisfied; return how many.

        Raises:  ProtocolError for deps that cannot be, StorageError when a key cannot be read; what came before stands.
        """
        engine = self._engine
        origin, commits, datas = stretch
        before = engine.applied[origin]
        try:
            return engine.apply(origin, commits, datas)
        finally:
            count = engine.applied[origin] - before
            out.persist += zip(repeat(origin), datas[:count])
            out.changed += zip(repeat(origin), commits[:count])
            engine.measures.note_visible(origin, commits[:count], now_ms)

    def _note_applied(self, now_ms: int, out: Output) -> None:
        """What others made was applied: what it says of their clocks."""
        engine = self._engine
        for origin, commit in {origin: commit for origin, commit in out.changed}.items():  # noqa: C416 - the last of each origin
            engine.clock.observe(commit.hlc, now_ms)
            engine.rows.applied(origin, commit.seq, commit.hlc, now_ms)
            engine.stability.applied(origin, commit.hlc)

    def _try_early(self, now_ms: int, out: Output) -> None:
        """What is sent again may wait here since a key could not be read."""
        try:
            self._apply_early(now_ms, out)
        except StorageError as error:
            self._engine.note_unreadable(error)

    def _apply_early(self, now_ms: int, out: Output) -> None:
        """Apply what waited and can be applied now; what turns out not to be true is dropped, with all that stands on it."""
        engine = self._engine
        has_moved = True
        while has_moved and engine.early:
            has_moved = False
            for origin in engine.early.origins:
                while (waiting := engine.early.next(origin, engine.applied[origin])) is not None:
                    try:
                        if waiting.start is not None:
                            engine.trust.check_chain(origin, engine.applied[origin], waiting.start)
                        if not self._apply(Stretch(origin, [waiting.commit], [waiting.data]), now_ms, out):
                            break
                        engine.early.forget(origin, waiting.commit.seq)
                    except ProtocolError as error:
                        engine.early.drop_from(origin, waiting.commit.seq)
                        self._refuse(origin, error, out)
                        break
                    has_moved = True

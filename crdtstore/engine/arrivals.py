"""Arrivals: what peers say, taken in.

The question: what of it happens? First whether it counts at all (``Membership.hears``), then whether it can be true (``Trust``). Commits
whose deps are here are applied, in the order in which they came; the others wait in a bounded buffer. What cannot be true is refused and
counted; what was applied before it in the same frame stands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.clock import physical_ms
from crdtstore.commit import Commit
from crdtstore.engine.output import Output
from crdtstore.engine.trust import Contested
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
        commits = engine.trust.unpack(frame)
        applied, early = engine.applied, engine.early
        has_gap = False
        starts: dict[tuple[int, int], bytes] = {}
        for segment in frame.segments:
            if segment.after > applied[segment.origin]:
                starts[segment.origin, segment.after + 1] = segment.chain
                has_gap = has_gap or segment.after > early.reach(segment.origin, applied)
        twice = 0
        for origin, commit, data in commits:
            seq = commit.seq
            try:
                if seq <= applied[origin] or (early and early.has(origin, seq)):
                    engine.trust.check_same(origin, seq, data)
                    twice += 1
                elif seq > applied[origin] + 1 or not self._try_apply(origin, commit, data, out):
                    early.add(origin, commit, data, applied, starts.get((origin, seq)))
                elif early:
                    self._apply_early(out)
            except ProtocolError as error:  # what was applied before it stands, and must be written
                self._refuse(peer, error, out)
                break
            except StorageError as error:  # so it does here; the rest is asked for again
                engine.note_unreadable(error)
                break
        if twice and early:
            self._try_early(out)
        engine.measures.note_received(frame.commits, twice)
        if out.persist:
            self._note_applied(now_ms, out)
            out.number = engine.durability.hold(applied, 0, [], out.changed)
        engine.antientropy.on_frame(peer, has_gap, bool(out.persist), now_ms, out)

    def _note_applied(self, now_ms: int, out: Output) -> None:
        """What others made was applied: how old it was, and what it says of their clocks."""
        engine = self._engine
        for origin, commit in out.changed:
            engine.measures.note_visible(origin, now_ms - physical_ms(commit.hlc))
        for origin, commit in {origin: commit for origin, commit in out.changed}.items():  # noqa: C416 - the last of each origin
            engine.clock.observe(commit.hlc, now_ms)
            engine.rows.applied(origin, commit.seq, commit.hlc, now_ms)
            engine.stability.applied(origin, commit.hlc)

    def _try_apply(self, origin: int, commit: Commit, data: bytes, out: Output) -> bool:
        """Apply the next commit of an origin if its deps are satisfied.

        Raises:  ProtocolError for deps that cannot be, StorageError when a key cannot be read; nothing changed.
        """
        engine = self._engine
        resolved = engine.causality.resolve(origin, commit.deps)
        if resolved and not engine.is_ready(resolved):
            return False
        engine.keyspace.tree.bring_all(commit.effects)
        engine.apply(origin, commit, data, resolved)
        out.persist.append((origin, data))
        out.changed.append((origin, commit))
        return True

    def _try_early(self, out: Output) -> None:
        """What is sent again may wait here since a key could not be read."""
        try:
            self._apply_early(out)
        except StorageError as error:
            self._engine.note_unreadable(error)

    def _apply_early(self, out: Output) -> None:
        """Apply what waited and can be applied now; what turns out not to be true is dropped, with all that stands on it."""
        engine = self._engine
        has_moved = True
        while has_moved and engine.early:
            has_moved = False
            for origin in range(len(engine.replicas)):
                while (waiting := engine.early.next(origin, engine.applied[origin])) is not None:
                    try:
                        if waiting.start is not None:
                            engine.trust.check_chain(origin, engine.applied[origin], waiting.start)
                        if not self._try_apply(origin, waiting.commit, waiting.data, out):
                            break
                    except ProtocolError as error:
                        engine.early.drop_from(origin, waiting.commit.seq)
                        self._refuse(origin, error, out)
                        break
                    has_moved = True

"""Trust: what a peer says is held against what is known here, before anything of it counts.

The question: whose word is it? Of another replica's past a peer may say what this one does not know yet, but nothing that contradicts
the chain of hashes. Of this replica's own past nobody may know more than it does itself: then it has forgotten what it acknowledged, or
somebody else writes under its id, and it is fenced.
"""

from __future__ import annotations

from itertools import groupby
from operator import le
from typing import TYPE_CHECKING, NamedTuple

from crdtstore.commit import Commit, decode_commit
from crdtstore.engine.history_index import HASH_BYTES
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.leaves import SEQ_MASK
from crdtstore.messages import Frame, Row

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Contested", "Stretch", "Trust"]

_MAX_HLC = (1 << 63) - 1


class Stretch(NamedTuple):
    """Commits of one origin that follow each other, and their bytes."""

    origin: int
    commits: list[Commit]
    datas: list[bytes]


class Contested(ProtocolError):
    """What is said of somebody's past contradicts what is known of it here; whoever says it may only have been told so."""


class Trust:
    """The checks of one replica. Mutable: it remembers which rows were compared already."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._checked: list[Row | None] = [None] * len(engine.replicas)
        """Per member a row whose chains were all compared: rows are relayed with every digest, most say what is known."""
        self.contested: dict[int, str] = {}
        """Of whom two histories were heard, and what was heard: somebody else writes under that id, or it lies."""

    def admit(self) -> None:
        """There is one more replica: every row says more from now on."""
        self._checked.append(None)

    def adopt(self) -> None:
        """Rows of another configuration begin."""
        self._checked = [None] * len(self._checked)

    def check_row(self, member: int, row: Row) -> None:
        """Refuse a row that cannot be true; fence this replica when it is our own past that is contested."""
        engine = self._engine
        if row.hlc < 0:
            raise ProtocolError("a row counts from zero")
        known = self._checked[member]
        if known is not None and known.vector == row.vector and known.chains == row.chains:
            return
        if not 0 <= min(row.vector) <= max(row.vector) <= SEQ_MASK:
            raise ProtocolError("a row counts from zero, and not for ever")
        if row.hlc > _MAX_HLC or max(map(len, row.chains)) > HASH_BYTES:  # it is kept, and passed on
            raise ProtocolError("a row says until when, and a hash for each")
        is_judged = True
        for origin in engine.membership.shape.origins:
            is_judged = self.check_chain(origin, row.vector[origin], row.chains[origin]) and is_judged
        if row.vector[engine.me] > engine.applied[engine.me]:
            has, made = row.vector[engine.me], engine.applied[engine.me]
            why = f"{engine.replicas[member]} has {has} commits of this replica, which made {made}"
            engine.fence(why)
            raise ProtocolError(why)
        if is_judged and all(map(le, row.vector, engine.applied)):  # else there is more to check once that is here
            self._checked[member] = row

    def check_chain(self, origin: int, seq: int, chain: bytes) -> bool:
        """Refuse another history than ours; return whether it could be judged."""
        engine = self._engine
        try:
            is_other = 0 <= seq <= engine.applied[origin] and not engine.history.has_chain(origin, seq, chain)
        except StorageError as error:  # it cannot be judged now, and may be true
            engine.note_unreadable(error)
            return False
        if is_other:
            why = f"another history of {engine.replicas[origin]} up to commit {seq}: its id is used twice"
            self.contested[origin] = why
            if origin == engine.me:
                engine.fence(why)
            raise Contested(why)
        return True

    def check_same(self, origin: int, seq: int, data: bytes) -> None:
        """A commit that is here already must be the one that is here; of two that wait neither is kept."""
        engine = self._engine
        is_applied = seq <= engine.applied[origin]
        if is_applied and not engine.history.holds(origin, seq):
            return  # all members have it, and nobody can tell any more
        known = engine.history.commit(origin, seq) if is_applied else engine.early.data(origin, seq)
        if known != data:
            if not is_applied:
                engine.early.drop_from(origin, seq)
            why = f"two commits {seq} of {engine.replicas[origin]}: its id is used twice"
            self.contested[origin] = why
            if origin == engine.me:
                engine.fence(why)
            raise ProtocolError(why)

    def unpack(self, frame: Frame) -> list[Stretch]:
        """All commits of a frame, in its order, or nothing of it.

        Raises:  ProtocolError, DecodeError; nothing changed.
        """
        engine = self._engine
        segments = frame.segments
        order = frame.order or [0] * len(frame.commits)
        if (
            len(order) != len(frame.commits)
            or not segments
            or (order and not 0 <= min(order) <= max(order) < len(segments))
        ):
            raise ProtocolError("a frame says for every commit whose it is")
        if len({segment.origin for segment in segments}) != len(segments):
            raise ProtocolError("a frame says once where it starts at a member")
        next_seq: list[int] = []
        for segment in segments:
            if not 0 <= segment.origin < len(engine.replicas) or not 0 <= segment.after <= SEQ_MASK:
                raise ProtocolError("a frame starts somewhere at a member")
            if segment.origin == engine.me and segment.after + order.count(len(next_seq)) > engine.applied[engine.me]:
                why = f"commits of this replica which it has not made, after {segment.after}"
                engine.fence(why)
                raise ProtocolError(why)
            self.check_chain(segment.origin, segment.after, segment.chain)
            next_seq.append(segment.after)
        unpacked = []
        begin = 0
        for at, several in groupby(order):
            datas = frame.commits[begin : begin + len(list(several))]
            begin += len(datas)
            unpacked.append(self._decode(segments[at].origin, next_seq[at], datas))
            next_seq[at] += len(datas)
        return unpacked

    def _decode(self, origin: int, after: int, datas: list[bytes]) -> Stretch:
        """Commits that follow on number ``after`` of an origin."""
        commits = list(map(decode_commit, datas))
        replica = self._engine.replicas[origin]
        for number, commit in enumerate(commits, after + 1):
            if commit.seq != number:
                raise ProtocolError(f"commit {commit.seq} in the place of {number} of {replica}")
        if not after and commits[0].origin != replica:
            raise ProtocolError(f"commit 1 in the place of 1 of {replica}")
        return Stretch(origin, commits, datas)

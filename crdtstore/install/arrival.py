"""Arrival: a replica that is a member of a group and holds nothing of it takes the state over from another member.

The question: at which instant is it installed, and what of a failed attempt may be left behind? All of it is written first: the rows to the
state store, under a number that nobody names; the history to the log. When both are on disk, one commit of the store names the group:
before it nothing counts, after it everything does, and only after it does anybody hear of this replica. What failed attempts leave is
waste: rows under other numbers, and commits in the log below the position that the summary says (``begins``), where a start passes
over them.

What comes is held against the rules before it counts: rows ascend, so none is there twice; they have the state digest of the summary;
commits of an origin follow each other and lead to the chain hashes of the summary; all bodies have the hash that the last part says. What
does not fit is refused as a whole, and another member is asked. So it is when the sender has lost the snapshot, when nothing more is
heard of it, or when the store fails; a crash forgets the attempt. Parts are asked for again and may come twice and in any order.

The stamps of this replica begin above those of the sender: whatever the others have promised each other about the members of a
configuration without it, the sender's clock has passed it.
"""

from __future__ import annotations

from collections import deque
from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from crdtstore.causal import ReplicaId
from crdtstore.commit import head_of
from crdtstore.engine.checkpoint import Saved
from crdtstore.engine.engine import Engine
from crdtstore.engine.history import History
from crdtstore.engine.membership.notes import Adopted, decode_kept
from crdtstore.engine.membership.notes import encode as encode_note
from crdtstore.errors import DecodeError, ProtocolError
from crdtstore.install.landing import Landing
from crdtstore.install.parts import (
    NOT_YET,
    SHARED,
    WINDOW,
    Commits,
    End,
    Head,
    Piece,
    Rows,
    check_head,
    decode_body,
)
from crdtstore.install.received import ReceivedRows
from crdtstore.messages import Fetch, Part
from crdtstore.storage.protocol import NO_ORIGIN, Entry, Slice
from crdtstore.storage.protocol import Row as StoredRow

if TYPE_CHECKING:
    from crdtstore.host import HostOutput
    from crdtstore.install.installs import Installs

__all__ = ["Arrival"]

_RESEND_MS = 1_000
_SILENT_MS = 20_000
"""So long nothing was heard of a sender: another one is tried."""
_AGAIN_MS = 250
"""A sender that has to make a checkpoint first is asked again so much later."""
_PAUSE_MS = 500
"""After an attempt that came to nothing."""
_STORE_PAUSE_MS = 5_000
_NEVER = 1 << 63
_NUMBER_BYTES, _SPACE_BYTES, _LARGEST_ROW = 2, 1, 1 << 31

_encode = msgspec.msgpack.Encoder().encode
_SHARED_BYTES = tuple(bytes((space,)) for space in SHARED)


class Arrival:
    """The install of one group. Mutable; a ``Guest`` of the node's saving as long as it has a sender."""

    def __init__(self, installs: Installs, engine: Engine) -> None:
        self._installs, self._host, self._engine = installs, installs.host, engine
        self.group = engine.group
        self.attempts = 0
        self.bytes = 0
        """Of bodies that were taken, in this attempt."""
        self.why: str | None = None
        """Why the last attempt came to nothing."""
        self._last_sender: ReplicaId | None = None
        self.wake_ms = 0
        self._forget()

    def _forget(self) -> None:
        """There is no attempt under way."""
        self.sender: ReplicaId | None = None
        self.number = 0
        self.rows = 0
        self.summary: bytes | None = None
        self.log_from: int | None = None
        self._snapshot = b""
        self._next = self._asked = 0
        """The part that is to be taken next, and up to which parts were asked for."""
        self._held: dict[int, bytes] = {}
        """Parts that came before their turn."""
        self._unwritten = 0
        """Parts on their way to the store or the log."""
        self._records: deque[tuple[int, list[int]]] = deque()
        """Records of the log that are not durable yet, and how far the history comes with them."""
        self._heard_ms = 0
        self._has_all = False
        """Whether all parts were taken."""
        self._hash = sha256()
        self._saved: Saved | None = None
        self._received: ReceivedRows | None = None
        self._last_path = b""
        self._piece: tuple[bytes, int, bytearray] | None = None
        """Of a large row what has come: its path, its size, its data."""
        self._history: History | None = None
        self._at: list[int] = []
        self._landing: Landing | None = None

    @property
    def parts(self) -> int:
        """How many parts were taken."""
        return self._next

    @property
    def is_idle(self) -> bool:
        """Whether no attempt is under way."""
        return self.sender is None

    @property
    def is_fetching(self) -> bool:
        """Whether parts are still to come."""
        return self.sender is not None and not self._has_all

    # --- asking

    def on_tick(self, now_ms: int, out: HostOutput) -> None:
        """Begin, ask again, or turn to another member."""
        if self._landing is not None:
            self._land(now_ms, out)
        elif now_ms >= self.wake_ms:
            if self._has_all:
                self.wake_ms = _NEVER
            elif not self._engine.membership.is_member:
                self._end("this replica is not a member any more", now_ms, out)
            elif self.sender is None:
                self._begin(now_ms, out)
            elif now_ms - self._heard_ms >= _SILENT_MS:
                self._end("nothing more was heard of its sender", now_ms, out)
            else:
                self._ask(now_ms, out, is_again=True)

    def _begin(self, now_ms: int, out: HostOutput) -> None:
        host, engine = self._host, self._engine
        self.wake_ms = now_ms + _PAUSE_MS
        members = [engine.replicas[other] for other in engine.others]
        reachable = [member for member in members if host.is_connected(member)]
        is_clear = host.durable_number >= self._installs.last_record  # what an earlier attempt wrote stands below
        if not reachable or not is_clear or engine.membership.is_silent or not self._installs.has_room:
            return
        others = [member for member in reachable if member != self._last_sender] or reachable
        self.sender = self._last_sender = others[self._installs.random.randrange(len(others))]
        self.attempts += 1
        self.bytes = 0
        self._heard_ms = now_ms
        self._ask(now_ms, out)

    def _ask(self, now_ms: int, out: HostOutput, *, is_again: bool = False) -> None:
        """Ask for what may come now: no more than the window, with what is on its way to the disk."""
        engine, sender = self._engine, self.sender
        assert sender is not None
        self.wake_ms = now_ms + _RESEND_MS
        if engine.membership.is_silent or not self._host.is_connected(sender):
            return
        upto = self._next + WINDOW - self._unwritten if self._snapshot else 1
        if upto <= self._next:  # it is our disk that all wait for
            self._heard_ms = now_ms
            return
        first = self._next if is_again or not self._snapshot else self._asked
        while first in self._held:
            first += 1
        self._asked = max(self._asked, upto)
        if first < upto:
            fetch = Fetch(self.group, engine.configuration.id, self._snapshot, first, upto - first)
            self._host.tell(sender, fetch, out)

    def _end(self, why: str, now_ms: int, out: HostOutput | None, pause_ms: int = _PAUSE_MS) -> None:
        """This attempt came to nothing."""
        self.why = why
        if out is not None:
            self._let_go(out)
        saving = self._installs.saving
        if self.number:
            saving.guests.dismiss(self)
            saving.numbering.give_up(self.number)
        self._forget()
        self.wake_ms = now_ms + pause_ms

    def _let_go(self, out: HostOutput) -> None:
        """The sender need not hold the snapshot any more."""
        if self.sender is not None and self._snapshot:
            fetch = Fetch(self.group, self._engine.configuration.id, self._snapshot, self._next, 0)
            self._host.tell(self.sender, fetch, out)

    # --- what comes

    def on_part(self, peer: ReplicaId, part: Part, now_ms: int, out: HostOutput) -> None:
        """A part came, or word that there is none.

        Raises:  ProtocolError when it cannot be one; then the attempt has ended.
        """
        if peer != self.sender or self._has_all:
            return
        if part.number < 0:
            if part.snapshot != self._snapshot:
                return
            self._heard_ms = now_ms
            if part.number == NOT_YET:
                self.wake_ms = now_ms + _AGAIN_MS
            else:
                self._end("its sender does not hold the snapshot any more", now_ms, None)
            return
        if not self._snapshot and part.number == 0 and part.snapshot:
            self._snapshot = part.snapshot
        if part.snapshot != self._snapshot or not self._next <= part.number < self._next + 2 * WINDOW:
            return
        self._heard_ms = now_ms
        self._held[part.number] = part.body
        try:
            while not self._has_all and (body := self._held.pop(self._next, None)) is not None:
                self._take(body, now_ms, out)
        except (ProtocolError, DecodeError) as error:
            self._end(error.detail, now_ms, out)
            raise ProtocolError(f"{self.group}: {error.detail}") from error
        if not self._has_all:
            self._ask(now_ms, out)

    def _take(self, data: bytes, now_ms: int, out: HostOutput) -> None:
        body = decode_body(data)
        if isinstance(body, Head) != (self._next == 0):
            raise ProtocolError("a snapshot begins with its summary")
        self._next += 1
        self.bytes += len(data)
        if isinstance(body, End):
            self._finish(body, now_ms, out)
            return
        self._hash.update(data)
        if isinstance(body, Head):
            self._take_head(body.saved, out)
        elif isinstance(body, Commits):
            self._take_commits(body, out)
        elif self._at_history:
            raise ProtocolError("rows after the history has begun")
        elif isinstance(body, Piece):
            self._take_piece(body, out)
        else:
            self._take_rows(body, out)

    @property
    def _at_history(self) -> bool:
        return self._saved is not None and self._at != self._saved.base

    def _take_head(self, saved: Saved, out: HostOutput) -> None:
        engine, saving = self._engine, self._installs.saving
        check_head(saved, self.group, engine.replicas[engine.me], engine.configuration.finals)
        self._saved, self._at = saved, list(saved.base)
        self._received = ReceivedRows(saved.members, saved.applied)
        replicas = [ReplicaId(member) for member in saved.members]
        budget = engine.options.history_bytes
        self._history = History(saved.base_chains, saved.base, self.group, replicas, engine.read_log, budget)
        self.number = saving.numbering.lend()
        self.log_from = saving.retention.position
        saving.guests.admit(self)
        # Whoever reads the log is told what the commits are that follow, however much of it is cut off.
        out.persist.append(Entry(self.group, NO_ORIGIN, encode_note(Adopted(engine.configuration))))

    # --- rows

    def _take_rows(self, body: Rows, out: HostOutput) -> None:
        if self._piece is not None or len(body.flat) % 2:
            raise ProtocolError("a snapshot with half a row")
        rows = [self._row(body.flat[at], body.flat[at + 1]) for at in range(0, len(body.flat), 2)]
        if rows:
            self._put(rows, out)

    def _take_piece(self, body: Piece, out: HostOutput) -> None:
        if self._piece is None:
            if body.offset or not 0 < body.total <= _LARGEST_ROW:
                raise ProtocolError("a large row that begins in its middle")
            self._piece = body.path, body.total, bytearray()
        path, total, data = self._piece
        if (path, total, len(data)) != (body.path, body.total, body.offset) or not body.data:
            raise ProtocolError("pieces that are not of one row")
        data += body.data
        if len(data) > total:
            raise ProtocolError("a large row that is larger than it says")
        if len(data) == total:
            self._piece = None
            self._put([self._row(path, bytes(data))], out)

    def _row(self, path: bytes, data: bytes) -> StoredRow:
        """A row as it is to be stored here."""
        if path[:_SPACE_BYTES] not in _SHARED_BYTES or path <= self._last_path:
            raise ProtocolError("rows of a snapshot that do not belong there or do not ascend")
        self._last_path = path
        assert self._received is not None
        self._received.add(path, data)
        return self.number.to_bytes(_NUMBER_BYTES, "big") + path, data

    def _put(self, rows: list[StoredRow], out: HostOutput) -> None:
        self._unwritten += 1
        self._installs.saving.put(self, Slice(rows=rows), out)

    # --- history

    def _take_commits(self, body: Commits, out: HostOutput) -> None:
        saved, history, at = self._saved, self._history, self._at
        assert saved is not None
        assert history is not None
        if len(body.origins) != len(body.commits) or self._piece is not None:
            raise ProtocolError("a snapshot with half a commit")
        for origin, data in zip(body.origins, body.commits, strict=True):
            if not 0 <= origin < len(at) or head_of(data)[0] != at[origin] + 1 or at[origin] >= saved.applied[origin]:
                raise ProtocolError("commits of a snapshot that do not follow each other")
            at[origin] += 1
            history.append(origin, data)
            out.persist.append(Entry(self.group, ReplicaId(saved.members[origin]), data))
        if body.commits:
            number = self._host.last_number + 1
            self._records.append((number, list(at)))
            self._installs.last_record = number
            self._unwritten += 1

    def _finish(self, body: End, now_ms: int, out: HostOutput) -> None:
        """All has come; is it what the summary says?"""
        saved, history, received = self._saved, self._history, self._received
        assert saved is not None
        assert history is not None
        assert received is not None
        if body.hash != self._hash.digest():
            raise ProtocolError("parts of a snapshot that were altered on their way")
        if self._piece is not None or self._at != saved.applied or history.heads != saved.heads:
            raise ProtocolError("a snapshot whose history does not lead to its summary")
        if received.digest != int.from_bytes(saved.digest, "big"):
            raise ProtocolError("rows of a snapshot that do not have its state digest")
        self._let_go(out)
        self._has_all = True
        self._held.clear()
        self._close()

    # --- what is on disk

    def written(self, rows: int, now_ms: int, out: HostOutput) -> None:
        self.rows += rows
        self._one_less(now_ms, out)

    def on_persisted(self, number: int, position: int, now_ms: int, out: HostOutput) -> None:
        """The log is durable up to a record."""
        while self._records and self._records[0][0] <= number:
            _, vector = self._records.popleft()
            assert self._history is not None
            if position >= 0:
                self._history.place(vector, position)
            self._one_less(now_ms, out)

    def _one_less(self, now_ms: int, out: HostOutput) -> None:
        self._unwritten -= 1
        if self._has_all:
            self._close()
        else:
            self._ask(now_ms, out)

    def failed(self, now_ms: int) -> None:
        if self._landing is None:
            self._end("the state store failed", now_ms, None, _STORE_PAUSE_MS)

    def _close(self) -> None:
        """Once all is on disk: let the next checkpoint name the group."""
        self.wake_ms = _NEVER
        if self._unwritten:
            return
        saved = self._saved
        assert saved is not None
        kept = msgspec.structs.replace(decode_kept(self._engine.membership.keep()), is_installed=True)
        assert self.log_from is not None
        begins = self.log_from + 1 if self._installs.saving.retention.has_logged else 0
        self.summary = _encode(msgspec.structs.replace(saved, begins=begins, membership=_encode(kept)))
        self._installs.saving.wanted()

    def landed(self, now_ms: int, out: HostOutput) -> None:
        if self._landing is None:
            assert self._history is not None
            self._landing = Landing(self._engine, self._installs.saving, self._history)
        self._land(now_ms, out)

    def _land(self, now_ms: int, out: HostOutput) -> None:
        self.wake_ms = now_ms + 1
        assert self._landing is not None
        if self._landing.go_on():
            self._installs.saving.guests.dismiss(self)
            self._installs.landed(self._engine, now_ms, out)

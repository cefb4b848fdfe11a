"""Lending: the snapshots that one node holds for joiners, and the parts that it sends of them.

The question: what must be true of a snapshot so that law L7 holds (every commit that arrives has seen what is stable)? Let i have made S
from a row of s, and let joiner o issue a commit c. If s sent o its snapshot, and the checkpoint was *begun after s adopted a configuration
that names o*, then every row that s made in a configuration without o was made before that instant, so V(snapshot) >= that row >= S, and c
has seen it. A checkpoint begun earlier may lie below such a row, and c would arrive where what it has not seen is folded. So the table
of replicas in a checkpoint must name the joiner: an id enters it by adoption only. By induction the same holds of what s itself took
over when it joined. Several joiners are served by one checkpoint, and if there is none one is begun.

The rows are pinned, so nothing that is committed later is seen, and nobody waits. The history is not: but it cannot shrink past what was
stable at that instant, since nothing more becomes stable while a member has no row. If it did (the joiner was evicted, say) the
snapshot is let go.

A part can be asked for again: all that is remembered of it is where it begins. How much is read at once, and how often, is limited:
others wait for this node meanwhile.
"""

from __future__ import annotations

from hashlib import sha256
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.engine.checkpoint import Saved, read_saved
from crdtstore.engine.engine import Engine
from crdtstore.errors import StorageError
from crdtstore.install.parts import (
    GONE,
    NOT_YET,
    PART_BYTES,
    PART_ROWS,
    SHARED,
    WINDOW,
    Body,
    Commits,
    End,
    Head,
    Piece,
    Rows,
    encode_body,
    fits,
    for_joiner,
)
from crdtstore.messages import Fetch, Part
from crdtstore.storage.protocol import Pinned, StateStore
from crdtstore.storage.rows import row_path

if TYPE_CHECKING:
    from crdtstore.host import Host, HostOutput
    from crdtstore.saving import Saving

__all__ = ["Lending"]

MOST_PINS = 4
"""So many snapshots are held at a time: what is committed meanwhile stays in the store's log."""
_FORGOTTEN_MS = 60_000
"""Nobody asked for so long: the joiner is gone, or has turned to another member."""
_LEAST_PART_BYTES = 1_024
"""No part takes much longer than a second, however low the rate is: whoever waits for it would turn to another member."""
_PAUSE_MS = 4
"""Between two parts others have their turn."""
_LEAST_READ, _MOST_READ = 16, 250
_NUMBER_BYTES = 2
_ID_BYTES = 16
_NEVER = 1 << 63


class _Place(NamedTuple):
    """Where a part begins: at a byte of a row, or where the history reached this vector, or at the end."""

    path: bytes
    offset: int = 0
    vector: tuple[int, ...] | None = None
    is_end: bool = False


class _Loan:
    """One snapshot for one joiner. Mutable."""

    def __init__(self, engine: Engine, pinned: Pinned, number: int, saved: Saved, name: bytes, now_ms: int) -> None:
        """Raises:  LookupError or StorageError when the history does not reach back to what was stable."""
        self.engine, self.pinned, self.name = engine, pinned, name
        rate = engine.options.install_bytes_per_s
        self._part_bytes = max(_LEAST_PART_BYTES, min(PART_BYTES, rate)) if rate else PART_BYTES
        chains = [engine.history.chain(origin, seq) for origin, seq in enumerate(saved.stable)]
        self.saved = for_joiner(saved, engine.me, chains)
        self.used_ms = now_ms
        self.wanted: list[int] = []
        self.sent = 0
        """Bytes."""
        self._read = _LEAST_READ
        self._hash = sha256()
        self._places: dict[int, _Place] = {1: _Place(row_path(number, SHARED[0], []))}
        self._rows_end = row_path(number, SHARED[-1] + 1, [])
        self._last = 0
        """The last part that was made."""

    @property
    def is_fresh(self) -> bool:
        """Whether nothing but the first part was made of it."""
        return self._last == 0

    @property
    def is_whole(self) -> bool:
        """Whether the history still reaches back to what was stable."""
        base = self.engine.history.base
        return all(known <= stable for known, stable in zip(base, self.saved.stable, strict=False))

    def has(self, number: int) -> bool:
        """Whether it is known where a part begins."""
        return number == 0 or number in self._places

    def part(self, number: int) -> bytes:
        """The body of a part of which it is known where it begins.

        Raises:  StorageError when something cannot be read.
        """
        following: _Place | None = None
        if number == 0:
            body: Body = Head(self.saved)
        else:
            place = self._places[number]
            if place.is_end:
                return encode_body(End(self._hash.digest()))
            body, following = self._commits(place.vector) if place.vector is not None else self._rows(place)
        data = encode_body(body)
        if number == self._last == 0 and not self.sent:
            self._hash.update(data)
        elif number > self._last:
            self._hash.update(data)
            self._last = number
            assert following is not None
            self._places[number + 1] = following
        self.sent += len(data)
        return data

    def _rows(self, place: _Place) -> tuple[Body, _Place]:
        if place.offset:
            return self._piece(place.path, place.offset)
        flat: list[bytes] = []
        start, size = place.path, 0
        while True:
            limit = min(self._read, PART_ROWS - len(flat) // 2)
            found = self.pinned.rows(start, self._rows_end, limit)
            for path, data in found:
                if len(data) > self._part_bytes:
                    return (Rows(flat), _Place(path)) if flat else self._piece(path, 0, data)
                if flat and size + len(data) > self._part_bytes:
                    return Rows(flat), _Place(path)
                flat += path[_NUMBER_BYTES:], data
                size += len(data)
            if len(found) < limit:
                return Rows(flat), _Place(b"", vector=tuple(self.saved.stable))
            start = found[-1][0] + b"\0"
            if len(flat) >= 2 * PART_ROWS:
                return Rows(flat), _Place(start)
            self._read = max(_LEAST_READ, min(_MOST_READ, self._part_bytes * len(flat) // 4 // max(1, size)))

    def _piece(self, path: bytes, offset: int, data: bytes | None = None) -> tuple[Body, _Place]:
        if data is None:
            data = self.pinned.rows(path, path + b"\0", 1)[0][1]
        end = offset + self._part_bytes
        following = _Place(path, end) if end < len(data) else _Place(path + b"\0")
        return Piece(path[_NUMBER_BYTES:], offset, len(data), data[offset:end]), following

    def _commits(self, vector: tuple[int, ...]) -> tuple[Body, _Place]:
        """The next commits of the history; the table may have grown, and what came later is not part of the snapshot."""
        history, count = self.engine.history, len(vector)
        rest = history.base[count:]
        found = history.lacking([*vector, *rest], [*self.saved.applied, *rest], range(count), self._part_bytes // 2)
        at = list(vector)
        for origin, _ in found:
            at[origin] += 1
        is_all = at == self.saved.applied
        assert found or is_all, "the history holds what the checkpoint does"
        body = Commits([origin for origin, _ in found], [data for _, data in found])
        return body, _Place(b"", vector=tuple(at), is_end=is_all)


class Lending:
    """The loans of one node. Mutable; part of the host."""

    def __init__(self, host: Host, store: StateStore, random: Random) -> None:
        self._host = host
        self._store, self._random = store, random
        self._loans: dict[tuple[ReplicaId, str], _Loan] = {}
        self._awaited: dict[tuple[ReplicaId, str], int] = {}
        """Who waits for a checkpoint: how many had been begun when he first asked."""
        self._next_ms = 0
        """No part is sent before."""
        self.wake_ms = _NEVER
        self.parts_sent = self.bytes_sent = 0

    def __len__(self) -> int:
        """How many snapshots are held."""
        return len(self._loans)

    # --- what joiners ask

    def on_fetch(self, engine: Engine, peer: ReplicaId, fetch: Fetch, now_ms: int, out: HostOutput) -> None:
        """A member that joins asks for parts."""
        at = (peer, engine.group)
        loan = self._loans.get(at)
        if not fetch.snapshot:
            if loan is None or not loan.is_fresh:
                self._let_go(at)
                loan = self._lend(engine, peer, now_ms, out)
            if loan is None:
                return
            loan.wanted = [0]
        elif loan is None or loan.name != fetch.snapshot:
            self._answer(engine, peer, fetch.snapshot, GONE, out)
            return
        elif fetch.count < 1:
            self._let_go(at)
            return
        else:
            first = max(0, fetch.number)
            loan.wanted = sorted({*loan.wanted, *range(first, first + min(fetch.count, WINDOW))})[: 2 * WINDOW]
        loan.used_ms = now_ms
        self.on_tick(now_ms, out)

    def _lend(self, engine: Engine, peer: ReplicaId, now_ms: int, out: HostOutput) -> _Loan | None:
        """Hold a snapshot for a joiner; None: there is none yet, or none can be had here."""
        saving = self._host.saving
        number = saving.numbering.find(engine.group) if saving is not None else None
        if saving is None or number is None or not engine.is_installed or engine.is_fenced:
            self._answer(engine, peer, b"", GONE, out)
            return None
        finals = engine.configuration.finals
        try:
            saved = read_saved(self._store, number)
            if len(self._loans) < MOST_PINS and saved is not None and fits(saved, peer, finals):
                pinned = self._store.pin()
                try:
                    saved = read_saved(pinned, number)
                    assert saved is not None, "what was committed stays"
                    name = self._random.randbytes(_ID_BYTES)
                    self._awaited.pop((peer, engine.group), None)
                    loan = self._loans[peer, engine.group] = _Loan(engine, pinned, number, saved, name, now_ms)
                except BaseException:
                    pinned.close()
                    raise
                return loan
        except (StorageError, LookupError) as error:
            if isinstance(error, StorageError):
                engine.note_unreadable(error)
            else:  # what was stable when it was begun is not kept any more
                saving.wanted()
            self._answer(engine, peer, b"", GONE, out)
            return None
        if saved is None or not fits(saved, peer, finals):
            self._want(saving, (peer, engine.group))
        self._answer(engine, peer, b"", NOT_YET, out)
        return None

    def _want(self, saving: Saving, at: tuple[ReplicaId, str]) -> None:
        """Have a checkpoint begun, unless one is under way that was begun since the joiner first asked."""
        begun = self._awaited.setdefault(at, saving.begun)
        if saving.begun == begun or not saving.is_under_way:
            self._awaited[at] = saving.begun
            saving.wanted()

    def _answer(self, engine: Engine, peer: ReplicaId, snapshot: bytes, why: int, out: HostOutput) -> None:
        self._host.tell(peer, Part(engine.group, engine.configuration.id, snapshot, why, b""), out)

    # --- what goes out

    def on_tick(self, now_ms: int, out: HostOutput) -> None:
        """Send the next part, if it is time; let go of what nobody asks for."""
        for at, loan in list(self._loans.items()):
            if loan.engine.is_fenced or now_ms - loan.used_ms >= _FORGOTTEN_MS:  # whose history it is nobody knows
                self._let_go(at)
        waiting = [(at, loan) for at, loan in self._loans.items() if loan.wanted]
        if waiting and now_ms >= self._next_ms:
            at, loan = waiting.pop(0)
            self._loans[at] = self._loans.pop(at)  # the others first, next time
            self._send(at, loan, now_ms, out)
            waiting = [each for each in self._loans.items() if each[1].wanted]
        oldest_ms = min([loan.used_ms for loan in self._loans.values()], default=_NEVER - _FORGOTTEN_MS)
        self.wake_ms = max(self._next_ms, now_ms + 1) if waiting else oldest_ms + _FORGOTTEN_MS

    def _send(self, at: tuple[ReplicaId, str], loan: _Loan, now_ms: int, out: HostOutput) -> None:
        engine, number = loan.engine, loan.wanted.pop(0)
        if not loan.has(number):  # beyond the end, or out of turn
            return
        try:
            if not loan.is_whole:
                raise LookupError("what was stable has moved on")
            body = loan.part(number)
        except (StorageError, LookupError) as error:
            if isinstance(error, StorageError):
                engine.note_unreadable(error)
            self._let_go(at)
            self._answer(engine, at[0], loan.name, GONE, out)
            return
        self._host.tell(at[0], Part(engine.group, engine.configuration.id, loan.name, number, body), out)
        self.parts_sent += 1
        self.bytes_sent += len(body)
        rate = self._host.options.install_bytes_per_s
        pause_ms = -(-len(body) * 1000 // rate) if rate else 0
        self._next_ms = now_ms + max(_PAUSE_MS, pause_ms)

    def _let_go(self, at: tuple[ReplicaId, str]) -> None:
        loan = self._loans.pop(at, None)
        if loan is not None:
            loan.pinned.close()

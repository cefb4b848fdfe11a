"""Saving: when a node begins a checkpoint, how it goes on, and what may be forgotten once it is on disk.

The question: what must be true when a checkpoint is committed? The log is durable up to everything that the checkpoint holds, or a peer
could lack for ever what only the checkpoint knows. And what must be true when the log is cut? The checkpoint is on disk, all members have
what is cut off, and a start needs none of it. So the steps are: freeze (between two events), write in parts while writes go on, wait for
the log, commit, cut.

A checkpoint that fails is forgotten as a whole; what it would have held is unsaved again, and the next one comes after a pause.

Source: DESIGN 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from crdtstore.engine.checkpoint import FORMAT, NODE_PATH, Checkpoint, SavedNode, encode_node, read_node
from crdtstore.engine.engine import Engine
from crdtstore.errors import StorageError
from crdtstore.guests import Guest, Guests
from crdtstore.numbering import Numbering
from crdtstore.residence import ROW_BYTES, Usage
from crdtstore.retention import Retention
from crdtstore.scrub import Scrub
from crdtstore.storage.protocol import Entry, Slice, StateStore

if TYPE_CHECKING:
    from crdtstore.host import Host, HostOutput

__all__ = ["Save", "Saved", "Saving"]

_AHEAD = 2
"""Parts on their way to the disk: one being written, one waiting."""
_EVICT_LOOKS = 500
_FIRST_MS = 1_000
_WARM_ROWS = 250
_PATIENCE_MS = 1_000
_RETRY_MS = 5_000
_PAUSE_MS = 2
_LOOK_BYTES = 256 << 10
_SWEPT = 5_000
_TIDIED = 1_000


class Save(Struct, frozen=True, gc=False):
    """Something for the state store: a part to write, or, without one, a commit; then ``Saved(number)`` is due."""

    number: int
    part: Slice | None


class Saved(Struct, frozen=True, gc=False):
    """The state store has done this; by how much the number of rows and the bytes of their data changed."""

    number: int
    rows: int = 0
    data_bytes: int = 0
    failure: StorageError | None = None
    """It could not, and has rolled everything back; nothing handed out before is done any more."""


class Saving:
    """The checkpoints of one node. Mutable; part of the host."""

    def __init__(self, host: Host, store: StateStore) -> None:
        self._host = host
        self._store = store
        self._options = host.options
        self.numbering = Numbering()
        self.guests = Guests()
        """Groups that are being installed."""
        self._is_wanted = False
        self._counts: dict[str, int] = {}
        self.usage = Usage()
        self.needed = 0
        """From where a start replays the log, by the checkpoint that is on disk."""
        self.begun = self.checkpoints = self.failures = self.withdrawals = 0
        """How many began, how many are on disk, how many failed, and how many were begun anew because a large key was dropped under way."""
        self.failure: StorageError | None = None
        """Why the last checkpoint failed; None: it did not."""
        self.last_ms: int | None = None
        """When the last checkpoint that is on disk began."""
        self.last_took_ms = 0
        self.log_bytes = 0
        """Bytes written to the log since the last checkpoint began."""
        self._log_bytes_before = 0
        self._look_bytes = _LOOK_BYTES
        """When the log has grown by so much, it is looked at how many keys are unsaved."""
        self._has_commits = False
        """Whether there are commits among them: a node that is idle notes no more than the time."""
        self._next_ms = 0
        self._scrub_ms = self._began_ms = 0
        self.wake_ms = 0
        """When a tick may have something to do: never later than it has."""
        self._is_warming = False
        self._untidy: list[Checkpoint] = []
        self.retention = Retention(host)
        self._waits_since_ms: int | None = None
        self.scrub = Scrub(host, store)
        self._is_begun = False
        """Whether a checkpoint is under way; it may be of no group yet."""
        self._turn: dict[str, Checkpoint] = {}
        """The groups whose checkpoint is under way."""
        self._parts: Iterator[tuple[Checkpoint | None, Slice]] | None = None
        self._mark_ms = 0
        self._log_number = 0
        """The last record that was handed to the log when it began."""
        self._commit_after: int | None = None
        """The commit waits until this record of the log is durable."""
        self._is_last_due = False
        self._due: dict[int, Checkpoint | None] = {}
        """What is on its way to the disk: whose part it is, None: nobody's any more."""
        self._number = 0
        self._commit_number = 0
        self._cut = 0

    # --- start

    def load_node(self) -> SavedNode | None:
        """What the checkpoint on disk says of this node, None when there is none.

        Raises:  StorageError when it cannot be read.
        """
        saved = read_node(self._store)
        if saved is None:
            return None
        self.numbering.load(self._store, saved.groups)
        self._counts = saved.counts
        self.needed = self.retention.position = saved.needed
        self.last_ms = saved.made_ms
        self._is_warming = True
        return saved

    def open(self, engine: Engine) -> Checkpoint:
        """Give a group its place in the store."""
        number = self.numbering.of(engine.group)
        return Checkpoint(engine, self._store, number, self.usage, self._counts.get(engine.group))

    # --- groups that are being installed

    def wanted(self) -> None:
        """Somebody needs a checkpoint that begins from now on; several share one."""
        self._is_wanted = True

    def put(self, guest: Guest, part: Slice, out: HostOutput) -> None:
        """Write rows of a group that is being installed, after all that was handed out before."""
        self._number += 1
        self.guests.due(self._number, guest)
        out.save.append(Save(self._number, part))

    # --- what happens

    def noted(self, entries: Sequence[Entry]) -> None:
        """The log is to hold these, or was found to, and no checkpoint does."""
        self.log_bytes += sum([len(entry[2]) for entry in entries])
        if not self._has_commits:
            self._has_commits = any(entry[0] for entry in entries)

    def _tidy(self) -> bool:
        """Let go of a little of what is not needed any more; return whether there is more."""
        if self._untidy and not self._untidy[-1].tidy(_TIDIED):
            self._untidy.pop()
        return self.retention.forget_some() or bool(self._untidy)

    def on_step(self, now_ms: int, out: HostOutput) -> None:
        """The end of a step: begin a checkpoint if one is due, let go of what is too much."""
        if not self._next_ms:  # the first one soon: it names groups and members to whoever looks at the directory
            first_ms = self._options.checkpoint_ms if self.last_ms is not None else _FIRST_MS
            self._next_ms = now_ms + min(first_ms, self._options.checkpoint_ms)
        if any(checkpoint.residence.unsaved.is_void for checkpoint in self._turn.values()):
            self._withdraw(now_ms)
        if not self._is_begun and not self._due and self._is_due(now_ms):
            self._try_begin(now_ms, out)
        is_busy = self._is_warming or self._tidy()
        if self.usage.memory_bytes > self._options.memory_bytes:
            is_busy = self._relieve() or is_busy
        is_awaited = not self._is_begun and (self._has_commits or self._is_wanted or self.failure is not None)
        next_ms = min(self._next_ms, self._scrub_ms) if is_awaited else self._scrub_ms
        is_busy = is_busy or (is_awaited and self._is_wanted and self.failure is None)
        self.wake_ms = now_ms + _PAUSE_MS if is_busy else next_ms

    @property
    def unsaved_bytes(self) -> int:
        """What the log holds that no checkpoint on disk does."""
        return self.log_bytes + (self._log_bytes_before if self.is_under_way else 0)

    @property
    def is_under_way(self) -> bool:
        return self._is_begun

    @property
    def is_late(self) -> bool:
        """Whether the next checkpoint may become due before this one is done: what is unsaved is in memory, whatever it takes."""
        return (
            self.guests.is_writing
            or self.log_bytes * 2 > self._options.checkpoint_bytes
            or self.unsaved * ROW_BYTES > self._options.memory_bytes // 2
        )

    @property
    def unsaved(self) -> int:
        """Keys whose last changes no checkpoint holds."""
        return sum(len(checkpoint.residence.unsaved) for checkpoint in self._checkpoints())

    def _checkpoints(self) -> list[Checkpoint]:
        return [engine.checkpoint for engine in self._host.groups.values() if engine.checkpoint is not None]

    def _is_due(self, now_ms: int) -> bool:
        if self.failure is not None:
            return now_ms >= self._next_ms
        if self._is_wanted or self.log_bytes >= self._options.checkpoint_bytes:
            return True
        if self.log_bytes >= self._look_bytes:
            self._look_bytes = self.log_bytes + _LOOK_BYTES
            if self.unsaved * ROW_BYTES > self._options.memory_bytes // 4:
                return True
        return now_ms >= self._next_ms and self._has_commits

    def _try_begin(self, now_ms: int, out: HostOutput) -> None:
        """Begin, once all drops of big branches are carried out; who waits too long carries them out at once."""
        engines = list(self._host.groups.values())
        waiting = [engine for engine in engines if not engine.keyspace.tree.is_settled]
        if waiting:
            if self._waits_since_ms is None:
                self._waits_since_ms = now_ms
            if now_ms - self._waits_since_ms < _PATIENCE_MS:
                return
            for engine in waiting:  # faster than new ones can come
                engine.keyspace.tree.run_sweeps(_SWEPT)
            if not all(engine.keyspace.tree.is_settled for engine in waiting):
                return
        self._waits_since_ms = None
        self.begin(now_ms)
        self._hand_out(out)

    def begin(self, now_ms: int) -> None:
        """From now on the checkpoint is the state as it is now."""
        host = self._host
        self._is_begun = True
        self.begun += 1
        self._began_ms = now_ms
        self._log_bytes_before, self.log_bytes = self.log_bytes, 0
        self._look_bytes = _LOOK_BYTES
        self._has_commits = self._is_wanted = False
        self._log_number = host.last_number
        self.retention.look_again()
        positions = [self.retention.position]
        self.guests.kept = {}
        for group, engine in host.groups.items():
            if engine.checkpoint is None:
                self.guests.kept[group] = engine.membership.keep()
                continue
            first = engine.history.first_position()
            if first is not None:
                positions.append(first)
            engine.checkpoint.begin(self._options.checkpoint_rows)
            self._turn[group] = engine.checkpoint
        self._cut = min(positions + self.guests.begin())
        self._mark_ms = host.promises.mark_ms
        self._parts = self._all_parts()

    def _all_parts(self) -> Iterator[tuple[Checkpoint | None, Slice]]:
        for waste in self.numbering.remove():
            yield None, waste
        for checkpoint in self._turn.values():
            while (part := checkpoint.take()) is not None:
                yield checkpoint, part

    def _last_part(self) -> Slice:
        """What is written when it is known how many rows there are, and how far the log has to reach."""
        host, (rows, numbers, counts) = self._host, self.guests.rows()
        for group, checkpoint in self._turn.items():
            numbers[group], counts[group] = checkpoint.number, checkpoint.rows
        about = host.cluster.nonce, str(host.replica), numbers, self._cut, self._mark_ms, self._began_ms, counts
        saved = SavedNode(FORMAT, *about, logged=self.retention.position, uninstalled=self.guests.kept)
        return Slice(rows=[*rows, (NODE_PATH, encode_node(saved))])

    def _hand_out(self, out: HostOutput) -> None:
        """Give the store its next parts, and at last the commit."""
        while self._parts is not None and len(self._due) < _AHEAD:
            following = next(self._parts, None)
            if following is None:
                self._parts, self._is_last_due = None, True
                break
            checkpoint, part = following
            self._number += 1
            self._due[self._number] = checkpoint
            out.save.append(Save(self._number, part))
        if self._is_last_due and not self._due:
            self._is_last_due = False
            self._commit_after = self._log_number
        if self._commit_after is not None and self._commit_after <= self._host.durable_number:
            self._commit_after = None
            self._commit_number = self._number = self._number + 2
            out.save += Save(self._number - 1, self._last_part()), Save(self._number, None)

    def on_persisted(self, out: HostOutput) -> None:
        """More of the log is durable."""
        if self._commit_after is not None:
            self._hand_out(out)

    def on_saved(self, event: Saved, now_ms: int, out: HostOutput) -> None:
        """The store has done something, or failed."""
        if event.failure is not None:
            self._fail(event.failure, now_ms)
            return
        if event.number == self._commit_number:
            self._finish(now_ms, out)
            return
        if event.number in self._due:
            checkpoint = self._due.pop(event.number)
            if checkpoint is not None:
                checkpoint.written(event.rows, event.data_bytes)
            self._hand_out(out)
        else:
            self.guests.written(event.number, event.rows, now_ms, out)

    def _finish(self, now_ms: int, out: HostOutput) -> None:
        for checkpoint in self._turn.values():
            checkpoint.end(is_saved=True)
        self._untidy += self._turn.values()
        self._turn, self._is_begun = {}, False
        self.checkpoints += 1
        self.failure = None
        self.last_ms, self.last_took_ms = self._began_ms, max(0, now_ms - self._began_ms)
        self.needed = self._cut
        out.cut = self._cut
        self._next_ms = now_ms + self._options.checkpoint_ms
        self.numbering.saved()
        for guest in self.guests.landed():
            self.numbering.keep(guest.group, guest.number)
            self._counts[guest.group] = guest.rows + 1
            guest.landed(now_ms, out)

    def _fail(self, failure: StorageError, now_ms: int) -> None:
        for checkpoint in self._checkpoints():
            checkpoint.end(is_saved=False)
        self._due.clear()
        self.guests.fail(now_ms)
        self.failures += 1
        self.failure = failure
        self._give_up(now_ms + _RETRY_MS)

    def _withdraw(self, now_ms: int) -> None:
        """Begin again: to go on would be a stall (``Unsaved.is_void``)."""
        self.withdrawals += 1
        for checkpoint in self._turn.values():
            checkpoint.withdraw()
        self._give_up(now_ms)

    def _give_up(self, next_ms: int) -> None:
        if self._is_begun:
            self.log_bytes += self._log_bytes_before
        self._turn, self._parts, self._commit_after, self._is_last_due = {}, None, None, False
        self._is_begun = False
        self._commit_number = 0
        self.guests.wait()
        self._has_commits = True
        self._next_ms = next_ms

    # --- memory

    def _relieve(self) -> bool:
        """Let go of what is saved, as long as the keys in memory take more than they may; a slice of it. Return whether there is more."""
        greatest = max(self._checkpoints(), key=lambda checkpoint: checkpoint.residence.rows)
        return greatest.residence.evict(self._options.memory_bytes, _EVICT_LOOKS)

    def on_tick(self, now_ms: int) -> None:
        """Time has passed: go on with what is done on the side."""
        self._scrub_ms = self.scrub.on_tick(now_ms)
        if self._is_warming:
            self._warm_up()

    def _warm_up(self) -> None:
        """Read a few of the keys in advance that are on disk only, as long as there is room."""
        for checkpoint in self._checkpoints():
            try:
                if checkpoint.residence.warm_up(_WARM_ROWS, self._options.memory_bytes * 3 // 4):
                    return
            except StorageError as error:  # whoever wants it will be told
                checkpoint.note_unreadable(error)
        self._is_warming = False

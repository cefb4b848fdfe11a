"""Checkpoints of one group: what of it goes to the state store, and how a start gets it back.

The question: what must the log give beside a checkpoint? Only what came after it began. The rows of the leaves and of the ledgers, and one
row about the group (``Saved``), are all that the kernel, the causality and the history of a group stood on at that instant.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.configuration import ConfigurationId
from crdtstore.engine import growth
from crdtstore.engine.history import History
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.ledger import Ledger
from crdtstore.residence import Residence, Usage
from crdtstore.storage.protocol import Slice, StateRows, StateStore
from crdtstore.storage.rows import META, row_path

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = [
    "FORMAT",
    "NODE_PATH",
    "Checkpoint",
    "Saved",
    "SavedNode",
    "encode_node",
    "read_node",
    "read_saved",
    "saved_path",
]

FORMAT = 1
_DIGEST_BYTES = 16


class Saved(Struct, frozen=True, array_like=True):
    """What a checkpoint says of a group beside its leaves and ledgers; vectors are in the order of ``members``."""

    format: int
    group: str
    members: list[str]
    """Every replica that was ever known there: dots in rows are made of indexes in this list."""
    configuration: ConfigurationId
    applied: list[int]
    heads: list[bytes]
    """Chain hashes at ``applied``."""
    base: list[int]
    """The history reaches back to this vector."""
    base_chains: list[bytes]
    stable: list[int]
    frontiers: list[int]
    heard_ms: list[int | None]
    """Per origin the time up to which everything of it was surely here."""
    last_hlc: int
    rosters: list[list[int]]
    deps: list[list[int]]
    digest: bytes
    membership: bytes = b""
    """Which configuration is in force, what was voted, who was heard to say what (``engine/membership``)."""
    begins: int = 0
    """What the log holds of the group below this position counts for nothing: it is of installs that came to nothing."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Saved).decode


class SavedNode(Struct, frozen=True, array_like=True):
    """What a checkpoint says of a node as a whole."""

    format: int
    cluster: bytes
    replica: str
    groups: dict[str, int]
    """The number of each group in the paths of rows."""
    needed: int
    """The log is replayed from this position."""
    mark_ms: int
    made_ms: int
    counts: dict[str, int]
    """How many rows there are of each group."""
    logged: int = 0
    """The log reached beyond this position: a block that began here was durable. 0 where it was not yet noted."""
    uninstalled: dict[str, bytes] = {}
    """What is known of who holds the groups of which nothing is held here yet (``Membership.keep``): the log may be cut above it."""


NODE_PATH = row_path(0, META, ["node"])
encode_node = _encode
_decode_node = msgspec.msgpack.Decoder(SavedNode).decode


def read_node(rows: StateRows) -> SavedNode | None:
    """What the checkpoint says of its node; None: there is none.

    Raises:  StorageError when it cannot be read.
    """
    found = rows.rows(NODE_PATH, NODE_PATH + b"\0")
    if not found:
        return None
    try:
        saved = _decode_node(found[0][1])
    except msgspec.MsgspecError as error:
        raise StorageError(f"the checkpoint's row about the node is not one: {error}. Nothing changed.") from error
    if saved.format != FORMAT:
        raise StorageError(f"a checkpoint of format {saved.format}, this program reads {FORMAT}. Nothing changed.")
    return saved


def saved_path(number: int) -> bytes:
    """Where the row about a group stands."""
    return row_path(number, META, ["group"])


def read_saved(rows: StateRows, number: int) -> Saved | None:
    """What the checkpoint says of a group; None: it holds nothing of it.

    Raises:  StorageError when it cannot be read.
    """
    found = rows.rows(saved_path(number), saved_path(number) + b"\0")
    if not found:
        return None
    try:
        saved = _decode(found[0][1])
    except msgspec.MsgspecError as error:
        raise StorageError(
            f"the checkpoint's row about group {number} is not one: {error}. Nothing changed."
        ) from error
    if saved.format != FORMAT:
        raise StorageError(f"a checkpoint of format {saved.format}, this program reads {FORMAT}. Nothing changed.")
    return saved


class Checkpoint:
    """The checkpoints of one group. Mutable; part of the engine once there is a store."""

    def __init__(self, engine: Engine, store: StateStore, number: int, usage: Usage, rows: int | None) -> None:
        """``rows`` are in the store; None: it has never heard of this group, so nothing has to be read, and nothing can fail."""
        self._engine = engine
        self.rows = rows or 0
        """How many rows there are of this group, of every kind."""
        self._store = store
        self.number = number
        self._is_new = rows is None
        self.residence = Residence(engine.keyspace.tree, store, number, usage, is_empty=self._is_new)
        engine.keyspace.tree.residence = self.residence
        self._ledgers: list[Ledger] = [*engine.keyspace.ledgers, *engine.rights.ledgers]
        for ledger in self._ledgers:
            ledger.is_kept = True
        self._saved = b""
        self._parts: Iterator[Slice] = iter(())
        self._written = (0, 0, 0)
        self._takes_leaves = False
        self._has_leaves: deque[bool] = deque()
        """Of each part that is on its way to the disk whether it holds leaves."""
        self._loaded: Saved | None = None
        self.begins = 0
        """Where in the log the group begins."""

    # --- writing

    @property
    def is_ready(self) -> bool:
        """Whether one may begin: drops of big branches have to be carried out first."""
        return self._engine.keyspace.tree.is_settled

    def begin(self, limit: int) -> None:
        """From now on ``take`` gives this group as it is now, in parts of about so many rows."""
        self.residence.unsaved.begin()
        for ledger in self._ledgers:
            ledger.begin()
        self._saved = _encode(self._now())
        self._parts = self._take(limit)

    def take(self) -> Slice | None:
        """The next part; None: that was all."""
        part = next(self._parts, None)
        if part is not None:
            self._has_leaves.append(self._takes_leaves)
        return part

    def _take(self, limit: int) -> Iterator[Slice]:
        self._takes_leaves = True
        while (part := self.residence.unsaved.take(limit)) is not None:
            yield part
        self._takes_leaves = False
        for ledger in self._ledgers:
            part, taken = ledger.take(self.number, limit, 0)
            while part is not None:
                yield part
                part, taken = ledger.take(self.number, limit, taken)
        yield Slice(rows=[(saved_path(self.number), self._saved)])

    def note_unreadable(self, error: StorageError) -> None:
        """Something of it could not be read in advance."""
        self._engine.note_unreadable(error)

    def tidy(self, limit: int) -> bool:
        """Free up to so many entries of what the last one needed; return whether there are more."""
        return any([self.residence.unsaved.tidy(limit), *[ledger.tidy(limit) for ledger in self._ledgers]])

    def written(self, rows: int, data_bytes: int) -> None:
        """The next part was written: by so much what is saved has changed. What is not leaves is never let go, and so not counted."""
        total, leaves, leaf_bytes = self._written
        self.rows += rows
        if self._has_leaves.popleft():
            self.residence.counted(rows, data_bytes)
            leaves, leaf_bytes = leaves + rows, leaf_bytes + data_bytes
        self._written = (total + rows, leaves, leaf_bytes)

    def end(self, *, is_saved: bool) -> None:
        """It is on disk, or it failed."""
        total, leaves, leaf_bytes = self._written
        if not is_saved:
            self.rows -= total
            self.residence.counted(-leaves, -leaf_bytes)
        self._written = (0, 0, 0)
        self._has_leaves.clear()
        self._close(is_saved=is_saved)

    def withdraw(self) -> None:
        """It is not to be committed; what of it was written stays in the transaction, and the next one writes all of it again."""
        self._close(is_saved=False)

    def _close(self, *, is_saved: bool) -> None:
        self.residence.unsaved.end(is_saved=is_saved)
        for ledger in self._ledgers:
            ledger.end(is_saved=is_saved)
        self._parts = iter(())

    def _now(self) -> Saved:
        engine = self._engine
        history, causality = engine.history, engine.causality
        return Saved(
            FORMAT,
            engine.group,
            [str(member) for member in engine.replicas],
            engine.configuration.id,
            list(engine.applied),
            [history.chain(origin, seq) for origin, seq in enumerate(engine.applied)],
            list(history.base),
            [history.chain(origin, seq) for origin, seq in enumerate(history.base)],
            list(engine.stability.stable),
            list(engine.stability.frontiers),
            engine.rows.frontier,
            engine.clock.last,
            [list(roster) for roster in causality.rosters],
            [list(deps) for deps in causality.deps],
            engine.digest.to_bytes(_DIGEST_BYTES, "big"),
            engine.membership.keep(),
            self.begins,
        )

    # --- reading

    def check(self) -> None:
        """The log was replayed: does it lead to where the checkpoint was?

        Raises:  StorageError when it does not; nothing changed.
        """
        saved, self._loaded = self._loaded, None
        if saved is None:
            return
        history = self._engine.history
        for origin, (seq, head) in enumerate(zip(saved.applied, saved.heads, strict=True)):
            if not history.has_chain(origin, seq, head):
                raise StorageError(
                    f"{saved.group}: the log holds other commits of {saved.members[origin]} than the checkpoint stands on: "
                    "they are not of one directory. Nothing changed."
                )

    def load(self, *, has_ledgers: bool = False) -> Saved | None:
        """Take in what the store holds of this group, before the log is replayed; None: it holds nothing. ``has_ledgers``: the ledgers were
        taken in already.

        Raises:  StorageError when it cannot be read, ProtocolError when it is of another group.
        """
        if self._is_new:
            return None
        saved = read_saved(self._store, self.number)
        if saved is None:
            raise StorageError(
                f"the checkpoint does not hold the group {self._engine.group} any more. Nothing changed."
            )
        engine = self._engine
        self._loaded = saved
        self.begins = saved.begins
        if saved.group != engine.group:
            raise ProtocolError(f"the checkpoint of {engine.group} is one of {saved.group}")
        me, members = engine.replicas[engine.me], growth.members_of(engine)
        growth.renumber(engine, [ReplicaId(member) for member in saved.members])
        engine.applied[:] = saved.applied
        engine.durability.vector = list(saved.applied)
        engine.keyspace.tree.digest = int.from_bytes(saved.digest, "big")
        engine.causality.rosters = saved.rosters
        engine.causality.deps = saved.deps
        engine.stability.stable = saved.stable
        engine.stability.frontiers = saved.frontiers
        engine.rows.frontier = saved.heard_ms
        engine.clock.last = max(engine.clock.last, saved.last_hlc)
        engine.history = History(
            saved.base_chains, saved.base, engine.group, engine.replicas, engine.read_log, engine.options.history_bytes
        )
        growth.count_members(engine, members, me)
        engine.membership.restore(saved.membership)
        engine.measures.start(engine.history.base[engine.me])
        if not has_ledgers:
            for _ in self.load_ledgers():
                pass
        return saved

    def load_ledgers(self) -> Iterator[None]:
        """Take in the ledgers that the store holds, an entry at a time.

        Raises:  StorageError when they cannot be read.
        """
        engine = self._engine
        for ledger, take in (*engine.keyspace.loaders(), *engine.rights.loaders()):
            for name, value in ledger.load(self._store, self.number):
                take(name, value)
                yield

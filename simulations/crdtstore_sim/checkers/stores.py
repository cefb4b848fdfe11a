"""Stores: what a checkpoint says is true when it is committed, what is left of the log does for a start, and what is in memory of a saved
key is what is on disk.

The question: when does a wrong checkpoint do harm? After a crash that comes days later, when the log that could have told is cut off. So
each one is held against the facts at the moment it is on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import gt
from typing import Any

from crdtstore.commit import head_of
from crdtstore.engine.checkpoint import Saved, read_node, read_saved
from crdtstore.engine.engine import Engine
from crdtstore.host import Host
from crdtstore.leaves import Branch
from crdtstore.storage.leafrows import encode_leaves, walk_entry
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import StateRows, StateStore
from crdtstore.storage.rows import LEAVES, key_range, row_path
from crdtstore_sim.facts import Facts, Group

__all__ = ["Stores"]


class Stores:
    """Told of commits of checkpoints; looks at memory now and then."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    # --- what a checkpoint says

    def on_saved(self, node: int, state: StateStore, log: MemoryLog) -> None:
        """A checkpoint was committed; the log is not cut yet."""
        saved_node = read_node(state)
        assert saved_node is not None, "a checkpoint says something of its node"
        found: dict[str, Saved] = {}
        for name, number in saved_node.groups.items():
            saved = read_saved(state, number)
            assert saved is not None, "a checkpoint says something of each of its groups"
            found[name] = saved
            if (group := self._facts.groups.get(name)) is not None:
                self._check(group, node, saved)
        for position, entries in log.replay(log.first_position):
            if position >= saved_node.needed:
                break
            for name, origin, data in entries:
                if name in found and origin:
                    self._check_below(node, found[name], self._facts.index[origin], head_of(data)[0])

    def on_cut(self, node: int, state: StateStore, log: MemoryLog) -> None:
        """The log was cut."""
        saved_node = read_node(state)
        assert saved_node is not None, "a checkpoint says something of its node"
        if log.first_position > saved_node.needed:
            held, needed = log.first_position, saved_node.needed
            self._report(node, "", f"holds its log from {held} on, and needs it from {needed} on")

    def _check(self, group: Group, node: int, saved: Saved) -> None:
        self._check_vectors(group, node, saved, saved.applied, saved.base, range(len(group.durable)))

    def _check_vectors(
        self,
        group: Group,
        node: int,
        saved: Saved,
        vector: Sequence[int],
        base: Sequence[int],
        members: Iterable[int],
    ) -> None:
        name = group.name
        if any(map(gt, vector, group.durable[node])):
            self._report(node, name, f"is saved with {vector}, durable in the log is {group.durable[node]}")
        digest = group.digests.get(tuple(vector))
        if digest is not None and digest.to_bytes(16, "big") != saved.digest:
            self._report(node, name, f"is saved with the digest {saved.digest.hex()}, at {vector} it was {digest:032x}")
        for member in members:
            durable = group.durable[member]
            if any(map(gt, base, durable)):
                who = self._facts.members[member]
                self._report(node, name, f"keeps commits above {base} only, {who} has {durable} on disk")

    def _check_below(self, node: int, saved: Saved, origin: int, seq: int) -> None:
        """A commit that no start replays any more."""
        if seq > min(saved.base[origin], saved.applied[origin]):
            who = self._facts.members[origin]
            self._report(node, saved.group, f"will not replay {who}:{seq}, its history begins above {saved.base}")

    # --- what is in memory

    def on_look(self, node: int, host: Host, state: MemoryState) -> None:
        """Saved keys are as on disk, and what they take is counted."""
        saving = host.saving
        if saving is None:
            return
        if saving.scrub.failure is not None:
            self._report(node, "", f"scrubbed, and found {saving.scrub.failure}")
        if saving.is_under_way or state.is_open:  # or one was withdrawn, of which something is written
            return
        if not all(engine.keyspace.tree.is_settled for engine in host.groups.values()):
            return
        kept = [engine.checkpoint for engine in host.groups.values() if engine.checkpoint is not None]
        if any(checkpoint.residence.is_leaving for checkpoint in kept):
            return
        rows = data_bytes = 0
        for engine in host.groups.values():
            for data in self._look(node, engine, state):
                rows, data_bytes = rows + 1, data_bytes + len(data)
        usage = saving.usage
        if (usage.rows, usage.data_bytes) != (rows, data_bytes):
            counted = f"counts {usage.rows} rows with {usage.data_bytes} bytes in memory"
            self._report(node, "", f"{counted}, there are {rows} with {data_bytes}")

    def _look(self, node: int, engine: Engine, store: StateRows) -> list[bytes]:
        """The data of all rows on disk that are of keys in memory, or of keys that are gone from memory and not yet from disk."""
        checkpoint = engine.checkpoint
        assert checkpoint is not None
        unsaved, number = checkpoint.residence.unsaved, checkpoint.number
        root = engine.keyspace.tree.root
        keys: dict[tuple[str, Any], None] = {}
        for collection, branch in root.children.items():
            if type(branch) is Branch:
                keys |= dict.fromkeys((collection, key) for key in branch.children)
        for collection, changed in unsaved._changes.items():
            keys |= dict.fromkeys((collection, key) for key in changed if key is not None)
        counted: list[bytes] = []
        for collection, key in keys:
            stored = dict(store.rows(*key_range(number, LEAVES, [collection, key])))
            counted += stored.values()
            if unsaved.has(collection, key):
                continue
            there = {
                row_path(number, LEAVES, [collection, key, *below]): encode_leaves(leaves)
                for below, leaves in walk_entry(root.children[collection].children[key])
            }
            if there != stored:
                what = f"{len(there)} rows of {collection}/{key}, which is saved"
                self._report(node, engine.group, f"holds {what}; on disk are {len(stored)}, or others")
        return counted

    def _report(self, node: int, group: str, detail: str) -> None:
        where = f"{group}: " if group else ""
        self._facts.report("stores", f"{where}{self._facts.members[node]} {detail}")

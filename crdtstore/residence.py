"""Residence: which keys of a state are in memory, and which are on disk only.

The question: what may be in both places, and differ? Nothing that anybody reads. A key is in memory whole, or cold. Whoever touches a cold
key brings it in first; a key with anything unsaved is never cold, so it never has to be merged with what is on disk. Above its budget the
residence lets go of keys that are saved, those first that were neither read nor written lately.

Source: DESIGN 5; of the algorithms that need no list of what was read when: Corbato, "A Paging Experiment with the Multics System", 1968.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crdtstore.errors import DecodeError, StorageError
from crdtstore.folding import is_foldable
from crdtstore.leaves import Branch, Entry, Leaf
from crdtstore.levels import attach, keys_of
from crdtstore.storage.leafrows import build_entry, decode_leaves, encode_leaves
from crdtstore.storage.protocol import StateRows
from crdtstore.storage.rows import LEAVES, PREFIX_BYTES, describe, key_range, parts_of, row_path
from crdtstore.storage.rows import after as after_path
from crdtstore.unsaved import Unsaved

if TYPE_CHECKING:
    from crdtstore.state import State

__all__ = ["ROW_BYTES", "Residence", "Usage"]

ROW_BYTES = 400
"""What a leaf costs in memory beside what it holds, about."""
_DATA_FACTOR = 2
_LEAST, _FIRST, _CHUNK, _CHUNK_BYTES = 4, 16, 256, 1 << 20
"""A scan reads at least, at first and at most so many rows at once, and about so many bytes."""
_MOST_READ = 1 << 16
"""Of so many keys it is remembered that they were read; then anew."""

_Found = tuple[list[Any], bytes]
"""The path that a row stands for, and its data."""


class Usage(Struct):
    """What all saved keys in memory take, over all groups of a node: rows, and bytes of their data. Mutable."""

    rows: int = 0
    data_bytes: int = 0

    @property
    def memory_bytes(self) -> int:
        """What that is in memory, about."""
        return self.rows * ROW_BYTES + self.data_bytes * _DATA_FACTOR


class Residence:
    """The residence of one state. Mutable; told of every change before it happens."""

    def __init__(self, state: State, rows: StateRows, number: int, usage: Usage, *, is_empty: bool) -> None:
        """``number`` is that of the group in the store; ``is_empty``: the store has no leaves of it."""
        self._state = state
        self._store = rows
        self._number = number
        self.unsaved = Unsaved(state, number, self._meet)
        self.note = self.unsaved.note
        """What stands at this very path is about to change."""
        self._residents: dict[str, deque[Any]] = {}
        """Keys in memory by collection, oldest first; those that are gone again may still stand there."""
        self._read: set[tuple[str, Any]] = set()
        """Keys that were read since it was last thought of letting them go."""
        self.is_whole = is_empty
        """Nothing is cold, so nothing has to be looked for on disk."""
        self._warmed: bytes | None = None if is_empty else row_path(number, LEAVES, [])
        """Up to where the store was read in advance; None: nothing more is."""
        self.is_pressed = False
        """Whether keys had to be let go, so it matters which ones are read."""
        self._leaving: list[Entry] = []
        """What is left of keys that are not here any more: the way from one of them down to where it is being taken apart."""
        self._at_once = _FIRST
        self._usage = usage
        self.rows = 0
        """How many rows of what is saved are in memory."""
        self.loads = self.evictions = 0

    # --- what changes

    def note_gone(self, path: list[Any]) -> None:
        """All that stands below a path is about to go; what outlives it is noted by itself."""
        self.unsaved.note_gone(path)

    def note_all(self, entry: Entry, path: list[Any]) -> None:
        """What is left at a path and below has to be written anew."""
        self.unsaved.note_all(entry, path)

    def _meet(self, collection: str, key: Any) -> None:
        """A key changes for the first time since the last checkpoint; if it was not there, it may be from now on."""
        branch = self._state.root.children.get(collection)
        if type(branch) is not Branch or key not in branch.children:
            self._enlist(collection, key)

    def _enlist(self, collection: str, key: Any) -> None:
        residents = self._residents.get(collection)
        if residents is None:
            residents = self._residents[collection] = deque()
        residents.append(key)
        if not len(residents) & 0xFFF:
            branch = self._state.root.children.get(collection)
            live = branch.children if type(branch) is Branch else {}
            if len(residents) > 2 * (len(live) + self.unsaved.count(collection)) + 0x2000:
                gone = [each for each in residents if each not in live and self.unsaved.has(collection, each)]
                self._residents[collection] = deque(dict.fromkeys([*live, *gone]))  # they may come back unseen

    # --- what is cold

    def is_cold(self, path: Sequence[Any]) -> bool:
        """Whether what stands at a path may be on disk only."""
        if self.is_whole:
            return False
        branch = self._state.root.children.get(path[0])
        key = path[1] if len(path) > 1 else None
        return not (type(branch) is Branch and key in branch.children) and not self.unsaved.has(path[0], key)

    def bring(self, collection: str, key: Any) -> None:
        """Have a key in memory, if there is one.

        Raises:  StorageError when it cannot be read; nothing changed.
        """
        branch = self._state.root.children.get(collection)
        if type(branch) is Branch and key in branch.children:
            if self.is_pressed:
                if len(self._read) >= _MOST_READ:  # keys that are gone stand there too
                    self._read.clear()
                self._read.add((collection, key))
            return
        if self.is_whole or self.unsaved.has(collection, key):
            return
        if (
            self._warmed is not None
            and row_path(self._number, LEAVES, [collection, key]) < self._warmed
            and not self.is_pressed
        ):
            return  # all up to there was read, and nothing was let go since
        self._load(collection, key, self._found(*key_range(self._number, LEAVES, [collection, key])))

    def _found(self, start: bytes, end: bytes, limit: int = -1) -> list[_Found]:
        return [(parts_of(where, PREFIX_BYTES), data) for where, data in self._store.rows(start, end, limit)]

    def _leaves(self, path: list[Any], data: bytes) -> list[Leaf]:
        try:
            return decode_leaves(data, partial(self._state.weigh, path))
        except DecodeError as error:  # of a later version: no peer is to blame
            where = row_path(self._number, LEAVES, path)
            raise StorageError(f"{describe(where)} cannot be read here: {error.detail}. Nothing changed.") from error

    def bring_path(self, path: Sequence[Any]) -> None:
        """Have in memory what stands at a path: a key, or everything in a collection.

        Raises:  StorageError when it cannot be read.
        """
        if len(path) > 1:
            self.bring(path[0], path[1])
        elif not self.is_whole:
            self._bring_top(path[0])
            for _ in self._cold_keys(path[0], "", ""):
                pass

    def bring_all(self, effects: Sequence[Any]) -> None:
        """Have in memory all that a commit touches, before any of it changes.

        Raises:  StorageError when something cannot be read.
        """
        if not self.is_whole:
            for at in range(1, len(effects), 3):
                self.bring_path(effects[at])

    def _bring_top(self, collection: str) -> None:
        """What stands at a collection itself, which no operation of ours puts there, stays in memory once it was read."""
        top = row_path(self._number, LEAVES, [collection])
        if not self.unsaved.has(collection, None):
            for _, data in self._store.rows(top, top + b"\0"):
                entry = self._state.root.children.get(collection)
                if entry is None or (type(entry) is Branch and not entry.leaves):
                    leaves = self._leaves([collection], data)
                    for leaf in leaves:
                        attach(self._state.root, collection, self._state.root.children.get(collection), leaf)
                    if any(map(is_foldable, leaves)):
                        self._state.to_fold_later([collection])
                    self.counted(1, len(data))

    def _load(self, collection: str, key: Any, rows: list[_Found]) -> None:
        if not rows:
            return
        built: list[tuple[list[Any], list[Leaf]]] = []
        dirty = self._state.to_fold_later
        for path, data in rows:
            leaves = self._leaves(path, data)
            built.append((path[2:], leaves))
            if any(map(is_foldable, leaves)):
                dirty(path)
        entry = build_entry(built)
        if entry is None:
            return
        root = self._state.root
        branch = root.children.get(collection)
        if type(branch) is not Branch:
            level = Branch([], {})
            attach(root, collection, branch, level)
            branch = level
        attach(branch, key, None, entry)
        self._enlist(collection, key)
        self.loads += 1
        self.counted(len(rows), sum([len(data) for _, data in rows]))

    # --- scans

    def keys(self, collection: str, after: str, prefix: str) -> Iterator[str]:
        """The keys of a collection in order, in memory and on disk; those on disk are in memory when they are given out."""
        branch = self._state.root.children.get(collection)
        warm = keys_of(branch, after, prefix) if type(branch) is Branch else iter(())
        if self.is_whole:
            yield from warm
            return
        while True:
            chunk, is_last = self._read_chunk(collection, after, prefix)
            upto = chunk[-1] if chunk and not is_last else None
            branch = self._state.root.children.get(collection)
            if type(branch) is Branch:
                for key in keys_of(branch, after, prefix):
                    if upto is not None and key > upto:
                        break
                    yield key
            if upto is None:
                return
            after = upto

    def _cold_keys(self, collection: str, after: str, prefix: str) -> Iterator[str]:
        while True:
            chunk, is_last = self._read_chunk(collection, after, prefix)
            yield from chunk
            if is_last:
                return
            after = chunk[-1]

    def _read_chunk(self, collection: str, after: str, prefix: str) -> tuple[list[str], bool]:
        """Bring in the next keys of a collection after one; return them, and whether there are no more on disk."""
        start = row_path(self._number, LEAVES, [collection, max(after, prefix)])
        if after and after >= prefix:
            start = after_path(start)
        _, end = key_range(self._number, LEAVES, [collection])
        rows, is_last = self._some(start, end)
        keys: list[str] = []
        for (_, key), group in _by_key(rows):
            if not key.startswith(prefix):
                return keys, True
            keys.append(key)
            if not is_last and group[-1] is rows[-1]:  # there may be more of it
                self.bring(collection, key)
            elif self.is_cold((collection, key)):
                self._load(collection, key, group)
        return keys, is_last

    def _some(self, start: bytes, end: bytes, limit: int = 1 << 30) -> tuple[list[_Found], bool]:
        """The next rows of a scan, and whether there are no more; as many as may be read in one step if they are like those before."""
        count = min(limit, self._at_once)
        rows = self._found(start, end, count)
        if rows:
            mean = sum([len(data) for _, data in rows]) // len(rows)
            self._at_once = max(_LEAST, min(_CHUNK, _CHUNK_BYTES // max(1, mean)))
        return rows, len(rows) < count

    def warm_up(self, limit: int, budget_bytes: int) -> bool:
        """Read up to so many of the next rows in advance while there is room; return whether there may be more to read.

        Raises:  StorageError when they cannot be read.
        """
        if self._warmed is None:
            return False
        if self.is_pressed or self._usage.memory_bytes > budget_bytes:
            self._warmed = None
            return False
        start, end = self._warmed, after_path(row_path(self._number, LEAVES, []))
        rows, is_last = self._some(start, end, limit)
        for collection in {path[0] for path, _ in rows if len(path) == 1}:
            self._bring_top(collection)
        for at, group in _by_key([row for row in rows if len(row[0]) > 1]):
            if not self.is_cold(at):
                continue
            if not is_last and group[-1] is rows[-1]:  # there may be more of it
                group = self._found(*key_range(self._number, LEAVES, at))  # noqa: PLW2901
            self._load(at[0], at[1], group)
        if is_last:
            self._warmed, self.is_whole = None, True
        else:
            self._warmed = self._behind(rows[-1][0])
        return not self.is_whole

    def _behind(self, path: list[Any]) -> bytes:
        """Behind all rows of the key that this path belongs to; what stands at a collection itself is one row."""
        where = row_path(self._number, LEAVES, path[:2])
        return after_path(where) if len(path) > 1 else where + b"\0"

    def cold(self, path: Sequence[Any]) -> Iterator[tuple[list[Any], Entry]]:
        """What is on disk only at a path and below, key by key, without bringing it in.

        Raises:  StorageError when it cannot be read.
        """
        if self.is_whole:
            return
        start, end = key_range(self._number, LEAVES, list(path[:2]))
        while True:
            rows, is_last = self._some(start, end)
            for at, group in _by_key(rows):
                if len(at) == 1:
                    self._bring_top(at[0])
                if len(at) == 1 or not self.is_cold(at):
                    continue
                if not is_last and group[-1] is rows[-1]:
                    group = self._found(*key_range(self._number, LEAVES, at))  # noqa: PLW2901
                found = [(path[2:], self._leaves(path, data)) for path, data in group]
                entry = build_entry(found)
                if entry is not None:
                    yield at, entry
            if is_last:
                return
            start = self._behind(rows[-1][0])

    # --- what is let go

    def counted(self, rows: int, data_bytes: int) -> None:
        """By so much a part that was written changed what is saved; all of it is in memory."""
        self.rows += rows
        self._usage.rows += rows
        self._usage.data_bytes += data_bytes

    @property
    def is_leaving(self) -> bool:
        """Whether something that was let go is still counted."""
        return bool(self._leaving)

    def evict(self, budget_bytes: int, limit: int) -> bool:
        """Let go of keys that are saved, looking at up to so many and at so many rows, until what is left fits; return whether more may go.
        A large key is cold at once, and taken apart over many calls.
        """
        limit -= self._take_apart(limit)
        before = self.evictions
        limit = min(limit, sum(map(len, self._residents.values())))
        while self._usage.memory_bytes > budget_bytes and limit > 0 and self._residents and not self._leaving:
            collection, residents = max(self._residents.items(), key=lambda item: len(item[1]))
            for _ in range(min(len(residents), limit, 64)):
                self._let_go(collection, residents)
                limit -= 1 + self._take_apart(limit)
                if limit <= 0 or self._leaving or self._usage.memory_bytes <= budget_bytes:
                    break
            if not residents:
                del self._residents[collection]
        return bool(self._leaving) or (self._usage.memory_bytes > budget_bytes and self.evictions > before)

    def _take_apart(self, limit: int) -> int:
        """Take keys that were let go out of memory, up to so many rows; return how many."""
        rows = 0
        while self._leaving and rows < limit:
            entry = self._leaving[-1]
            if type(entry) is Branch and entry.children:
                self._leaving.append(entry.children.popitem()[1])
                continue
            self._leaving.pop()
            data = encode_leaves(entry)
            if data is not None:
                rows += 1
                self.counted(-1, -len(data))
        return rows

    def _let_go(self, collection: str, residents: deque[Any]) -> None:
        """Look at the oldest key: let it go, or give it another turn."""
        key = residents.popleft()
        branch = self._state.root.children.get(collection)
        entry = branch.children.get(key) if type(branch) is Branch else None
        if entry is None:
            self._read.discard((collection, key))
            if key is not None and self.unsaved.has(collection, key):
                residents.append(key)  # it was met already, so nobody would say that it has come back
            return
        assert type(branch) is Branch
        self.is_pressed = True
        if self.unsaved.has(collection, key) or (collection, key) in self._read or _is_swept(entry):
            self._read.discard((collection, key))
            residents.append(key)
            return
        self._leaving.append(entry)
        del branch.children[key]
        if branch.order is not None:
            branch.order.discard(key)
        if not branch.children and not branch.leaves and branch.sweep is None:
            del self._state.root.children[collection]
        self.is_whole = False
        self.evictions += 1


def _by_key(rows: list[_Found]) -> Iterator[tuple[list[Any], list[_Found]]]:
    """Rows of keys, together: collection and key, and the rows."""
    for at, group in groupby(rows, lambda row: row[0][:2]):
        yield at, list(group)


def _is_swept(entry: Entry) -> bool:
    """Whether a drop is still being carried out at an entry or below."""
    return type(entry) is Branch and (entry.sweep is not None or any(map(_is_swept, entry.children.values())))

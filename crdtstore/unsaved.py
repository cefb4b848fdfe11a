"""Unsaved: what of a state no checkpoint holds yet, and how a checkpoint comes to hold exactly the state at one instant.

The question: how, while writes go on? What had changed by that instant is frozen as a list of paths. It is encoded in slices; a path that
is about to change before its turn is encoded first. So nothing is copied that does not change.

A drop of a whole branch is one range of rows to remove; what outlives it is written anew.

Source: DESIGN 5.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from crdtstore.leaves import Branch, Entry
from crdtstore.levels import walk
from crdtstore.storage.leafrows import encode_leaves
from crdtstore.storage.protocol import Slice
from crdtstore.storage.rows import LEAVES, row_path
from crdtstore.storage.rows import after as after_path

if TYPE_CHECKING:
    from crdtstore.state import State

__all__ = ["Unsaved"]

_MISSING: Any = object()
_VOIDS = 3
"""So often in a row a checkpoint is withdrawn for it; then it is encoded all the same."""
_PART_BYTES = 1 << 20
"""A part is no larger, but for its last row."""
_HERE: tuple[tuple[Any, ...], ...] = ((),)

_Below = dict[tuple[Any, ...], bool] | None
"""Paths below a key that changed, True: all that was below is gone from there. None: only what stands at the key itself."""
_Changes = dict[str, dict[Any, _Below]]
"""Changes by collection and key; the key None stands for what stands at a collection itself."""


class Unsaved:
    """The changes of one state since its last checkpoint. Mutable; told of every change before it happens."""

    many: ClassVar[int] = 2_000
    """To encode more paths than so many in one step would be a stall."""

    __slots__ = (
        "_changes",
        "_done",
        "_frozen",
        "_litter",
        "_met",
        "_number",
        "_part",
        "_part_bytes",
        "_state",
        "_turns",
        "_voids",
        "is_void",
    )

    def __init__(self, state: State, number: int, met: Callable[[str, Any], None]) -> None:
        """``number`` is that of the group in the store; ``met`` is told of each key at its first change since the last checkpoint."""
        self._state = state
        self._number = number
        self._met = met
        self._changes: _Changes = {}
        self._frozen: _Changes = {}
        self._done: set[tuple[Any, ...]] = set()
        """Frozen paths that are encoded, and (collection, key, None) for keys whose ranges are."""
        self._turns: Iterator[None] | None = None
        self._part = Slice()
        self._part_bytes = 0
        self.is_void = False
        """Whether a large key was dropped that the checkpoint had yet to write: it is withdrawn, and begun again without it."""
        self._voids = 0
        self._litter: list[dict[Any, _Below] | set[tuple[Any, ...]]] = []
        """What the last checkpoint needed: a million entries freed at once would be a stall."""

    def __len__(self) -> int:
        """How many keys have changes that no checkpoint holds yet."""
        return sum(map(len, self._changes.values())) + sum(map(len, self._frozen.values()))

    def has(self, collection: str, key: Any) -> bool:
        """Whether a key has such changes."""
        now, frozen = self._changes.get(collection), self._frozen.get(collection)
        return (now is not None and key in now) or (frozen is not None and key in frozen)

    def count(self, collection: str) -> int:
        """How many keys of a collection have such changes, at most."""
        return len(self._changes.get(collection, ())) + len(self._frozen.get(collection, ()))

    # --- what changes

    def note(self, path: Sequence[Any]) -> None:
        """What stands at this very path is about to change."""
        keys = self._changes.get(path[0])
        if keys is None:
            keys = self._changes[path[0]] = {}
        key = path[1] if len(path) > 1 else None
        below: Any = keys.get(key, _MISSING)
        if len(path) <= 2:
            if below is None:  # the hottest case
                return
            if below is _MISSING:
                self._met(path[0], key)
                keys[key] = None
            elif () in below:
                return
            else:
                below[()] = False
        else:
            name = tuple(path[2:])
            if below is _MISSING:
                self._met(path[0], key)
                keys[key] = {name: False}
            elif below is None:
                keys[key] = {(): False, name: False}
            elif name in below:
                return
            else:
                below[name] = False
        if self._frozen:
            self._save_before(path)

    def note_gone(self, path: Sequence[Any]) -> None:
        """All that stands below a path is about to go; what outlives it is noted by itself."""
        if len(path) < 2:
            for key in list(self._state.root.children[path[0]].children):
                self.note_gone([path[0], key])
            return
        self.note(path)
        if self._frozen:
            self._save_below(path)
        below = self._changes[path[0]][path[1]]
        if below is None:
            below = self._changes[path[0]][path[1]] = {(): False}
        below[tuple(path[2:])] = True

    def note_all(self, entry: Entry, path: list[Any]) -> None:
        """What is left at a path and below has to be written anew."""
        if type(entry) is not Branch:
            self.note(path)
            return
        if entry.leaves:
            self.note(path)
        for part, child in entry.children.items():
            self.note_all(child, [*path, part])

    # --- the checkpoint

    def begin(self) -> None:
        """From now on ``take`` gives the state as it is now."""
        assert not self._frozen, "one checkpoint at a time"
        assert self._state.is_settled, "drops of big branches are carried out first"
        self._frozen, self._changes = self._changes, {}
        self._done = set()
        self._turns = self._encode_frozen()

    def take(self, limit: int) -> Slice | None:
        """The next part of the checkpoint, of about so many rows; None: there is nothing more."""
        part = self._part
        if self._turns is not None:
            while len(part.rows) + len(part.gone) + len(part.ranges) < limit and self._part_bytes < _PART_BYTES:
                if next(self._turns, _MISSING) is _MISSING:
                    self._turns = None
                    break
        self._part, self._part_bytes = Slice(), 0
        return part if part.rows or part.gone or part.ranges else None

    def end(self, *, is_saved: bool) -> None:
        """The checkpoint is on disk, or it failed and all of it is unsaved again."""
        frozen, self._frozen = self._frozen, {}
        self._litter += [*(frozen.values() if is_saved else ()), self._done]
        self._done, self._turns, self._part, self._part_bytes = set(), None, Slice(), 0
        self.is_void = False
        if is_saved:
            self._voids = 0
            return
        now, self._changes = self._changes, frozen
        for collection, keys in now.items():  # few, beside what was frozen
            before = frozen.setdefault(collection, {})
            for key, later in keys.items():
                below = before.get(key, _MISSING)
                if below is _MISSING or (below is None and later is None):
                    before[key] = later
                    continue
                if below is None:
                    below = before[key] = {(): False}
                for name, is_gone in ({(): False} if later is None else later).items():
                    below[name] = below.get(name, False) or is_gone

    def tidy(self, limit: int) -> bool:
        """Free up to so many entries of what the last checkpoint needed; return whether there are more."""
        while self._litter and limit > 0:
            entries = self._litter[-1]
            count = min(limit, len(entries))
            limit -= max(1, count)
            for _ in range(count):
                if isinstance(entries, dict):
                    entries.popitem()
                else:
                    entries.pop()
            if not entries:
                self._litter.pop()
        return bool(self._litter)

    def _encode_frozen(self) -> Iterator[None]:
        for collection, keys in self._frozen.items():
            for key, below in keys.items():
                for name in _HERE if below is None else below:
                    self._save(collection, key, name)
                    yield

    def _save(self, collection: str, key: Any, name: tuple[Any, ...]) -> None:
        """Encode a frozen path, unless that is done."""
        path = [collection] if key is None else [collection, key, *name]
        done = tuple(path)
        if done in self._done or self.is_void:
            return
        levels = walk(self._state.root, path)  # which may carry out a drop there, and so lead here
        if done in self._done:
            return
        self._done.add(done)
        self._save_ranges(collection, key)
        entry = levels[-1].children.get(path[-1]) if levels else None
        data = None if entry is None else encode_leaves(entry)
        where = row_path(self._number, LEAVES, path)
        if data is None:
            self._part.gone.append(where)
        else:
            self._part.rows.append((where, data))
            self._part_bytes += len(data)

    def _save_ranges(self, collection: str, key: Any) -> None:
        """What is gone as a whole goes before anything of its key is written."""
        below = self._frozen[collection][key]
        if below is None or (collection, key, None) in self._done:
            return
        self._done.add((collection, key, None))
        for name, is_gone in below.items():
            if is_gone:
                where = row_path(self._number, LEAVES, [collection, key, *name])
                self._part.ranges.append((where + b"\0", after_path(where)))

    def _save_before(self, path: Sequence[Any]) -> None:
        """A path changes: if the checkpoint has yet to write it, that is done first."""
        key = path[1] if len(path) > 1 else None
        below: Any = self._frozen.get(path[0], {}).get(key, _MISSING)
        if below is _MISSING:
            return
        name = tuple(path[2:])
        if name in (_HERE if below is None else below):
            self._save(path[0], key, name)

    def _save_below(self, path: Sequence[Any]) -> None:
        below: Any = self._frozen.get(path[0], {}).get(path[1], _MISSING)
        if below is _MISSING:
            return
        if below is not None and len(below) > self.many and self._turns is not None and self._voids < _VOIDS:
            self.is_void = True
            self._voids += 1
            return
        prefix = tuple(path[2:])
        for name in _HERE if below is None else below:
            if name[: len(prefix)] == prefix:
                self._save(path[0], path[1], name)

"""The state of a group: what is kept, what is read of it, and how it becomes smaller without anybody seeing it.

The question: what may change although no commit came? What no reading and no digest shows: stable dots are folded (``folding``), and drops
of big branches, which hold at once, are carried out in slices (``sweeps``). How commits change the state is in ``kernel``.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from crdtstore.causal import ReplicaId
from crdtstore.folding import extent, fold_entry
from crdtstore.leaves import Branch, Entry, Many
from crdtstore.ledger import Ledger
from crdtstore.levels import collapse, disorder, keys_of, settle, walk
from crdtstore.residence import Residence
from crdtstore.shares import MODULUS, Shares
from crdtstore.storage.rows import CONTESTED
from crdtstore.sweeps import Discard, Sweep

__all__ = ["State"]

_COLD_LOOKS = 50
"""Of so many contested keys a review reads what is on disk only."""


class Contested(OrderedDict[tuple[Any, Any], None]):
    """Keys (collection, key) where concurrent writes met; whoever finds that nothing is left of it may take one out."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(CONTESTED, lambda at: True if at in self or (*at, None)[:2] in self else None)

    def __setitem__(self, at: tuple[Any, Any], value: None) -> None:
        if at not in self:
            self.ledger.note(at if at[1] is not None else at[:1])
            super().__setitem__(at, value)

    def discard(self, at: tuple[Any, Any]) -> None:
        """Nothing is left of it."""
        if at in self:
            self.ledger.note(at if at[1] is not None else at[:1])
            del self[at]

    def load(self, name: list[Any], _: Any) -> None:
        """Take in what a checkpoint holds."""
        super().__setitem__((name[0], name[1] if len(name) > 1 else None), None)


class State:
    """The tree of one group at one replica.

    Mutable; ``fold`` and ``run_sweeps`` change it, which no reading shows. ``replicas`` gives the ids that the indexes in dots stand for;
    it may grow, never change.
    """

    sweep_above: ClassVar[int] = 100
    """A drop of a branch with more children is carried out in slices."""

    __slots__ = (
        "_dirty",
        "_shares",
        "_sweeps",
        "_to_fold",
        "contested",
        "defers",
        "digest",
        "replicas",
        "residence",
        "root",
    )

    def __init__(self, replicas: list[ReplicaId]) -> None:
        self.replicas = replicas
        self.root = Branch([], {})
        self._shares = Shares(replicas)
        self.digest = 0
        """The state digest; late while a sweep is under way (``is_settled``)."""
        self.contested = Contested()
        self._dirty: dict[tuple[Any, ...], None] = {}
        """Paths where something is to be folded once it is stable."""
        self._to_fold: dict[tuple[Any, ...], None] = {}
        """Those of them at which this round has yet to look."""
        self._sweeps: deque[Sweep | Discard] = deque()
        self.defers = True
        """Whether big drops may be carried out in slices."""
        self.residence: Residence | None = None
        """What is on disk; None: nothing is, and nothing is to be."""

    def admit(self) -> None:
        """There is one more replica: the drops that are being carried out have seen nothing of it."""
        for sweep in self._sweeps:
            if isinstance(sweep, Sweep):
                sweep.cut.append(0)

    # --- what no reading shows

    @property
    def is_settled(self) -> bool:
        """Whether ``digest`` is that of the state: no drop of a big branch is still being carried out."""
        return not self._sweeps

    def run_sweeps(self, budget: int) -> None:
        """Go on with the drops of big branches, at up to so many children."""
        while budget > 0 and self._sweeps:
            budget -= max(1, self._sweeps[0].run(budget))

    def discard(self, gone: Discard) -> None:
        """What is not in the tree any more still has to leave the digest."""
        self._sweeps.append(gone)

    def subtract(self, path: list[Any], entry: Entry) -> None:
        """Take away from the digest what stood at this very path."""
        self.digest = (self.digest - self._shares.here(path, entry)) % MODULUS

    def end_sweep(self, sweep: Sweep | Discard) -> None:
        """A sweep is done: what is empty now goes."""
        self._sweeps.remove(sweep)
        if isinstance(sweep, Discard):
            return
        path = sweep.path
        levels = walk(self.root, path)
        entry = levels[-1].children.get(path[-1]) if levels else None
        if type(entry) is Branch and entry.sweep is None:
            settle(levels, path, collapse(entry))

    @property
    def dirty_count(self) -> int:
        """At how many paths something waits to be folded."""
        return len(self._dirty) + len(self._to_fold)

    def fold(self, stable: Sequence[int], budget: int) -> int:
        """Fold what is stable, at up to so many paths; return at how many. Where something is left it is looked at again later."""
        count = min(budget, self.dirty_count)
        for _ in range(count):
            if not self._to_fold:
                self._to_fold, self._dirty = self._dirty, {}
            name, _ = self._to_fold.popitem()
            path = list(name)
            levels = walk(self.root, path)
            entry = levels[-1].children.get(path[-1]) if levels else None
            if entry is None:
                continue
            if type(entry) is Branch:  # what a mark hid may go
                disorder(levels[-1])
            before = 0 if self.residence is None else extent(entry)
            left, is_more = fold_entry(entry, stable)
            if self.residence is not None and (left is not entry or extent(entry) != before):
                self.residence.note(path)  # what went must not come back, and its size is counted
            if left is not entry or type(left) is Branch:
                settle(levels, path, left if type(left) is not Branch else collapse(left))
            if is_more:
                self._dirty[name] = None
        return count

    def review_contested(self, budget: int) -> None:
        """Look at up to so many contested keys in turn, and take out those where at most one dot is left: else keys that are long gone
        would be held for ever.
        """
        contested, looks = self.contested, _COLD_LOOKS
        for _ in range(min(budget, len(contested))):
            at = next(iter(contested))
            contested.move_to_end(at)
            if not self.is_cold(at):
                entry = self.at(at)
            elif at[1] is None or self.residence is None:
                continue
            elif looks:
                looks -= 1
                entry = next((entry for _, entry in self.residence.cold(at)), None)
            else:
                return
            if type(entry) is not Branch and type(entry) is not Many:
                contested.discard(at)

    def to_fold_later(self, path: list[Any]) -> None:
        """Something at a path that was brought in is to be folded once it is stable."""
        self._dirty[tuple(path)] = None

    def _finish(self, path: list[Any]) -> None:
        """Finish the sweeps at and below a path."""
        self.at(path)  # those above it are carried out there, which may leave others further down
        while pending := [sweep for sweep in self._sweeps if sweep.is_below(path)]:
            pending[0].finish()

    # --- the state digest

    def share(self, path: list[Any], now_ms: int | None = None) -> int:
        """The part of the state digest that belongs to a path and all below it, computed anew; of the root path: the whole. With a time:
        without what has expired by then.
        """
        self._finish(path)
        if len(path) > 1 or self.residence is None:
            entry = self.at(path)
            return 0 if entry is None else self._shares.total(path, entry, now_ms) % MODULUS
        cold = sum([self._shares.total(at, entry, now_ms) for at, entry in self.residence.cold(path)])
        levels = walk(self.root, path) if path else []
        warm = self.root if not path else levels[-1].children.get(path[-1]) if levels else None
        total = 0 if warm is None else self._shares.total(path, warm, now_ms)
        return (total + cold) % MODULUS

    def weigh(self, path: list[Any], origin: int) -> int:
        """The hash by which each amount of a replica at a path counts."""
        return self._shares.origin(path, origin)

    # --- reading

    def is_cold(self, path: Sequence[Any]) -> bool:
        """Whether what stands at a path may be on disk only."""
        return self.residence is not None and self.residence.is_cold(path)

    def bring_all(self, effects: Sequence[Any]) -> None:
        """Have in memory all that a commit touches, before any of it changes.

        Raises:  StorageError when something cannot be read; nothing changed.
        """
        if self.residence is not None and not self.residence.is_whole:
            self.residence.bring_all(effects)

    def at(self, path: Sequence[Any]) -> Entry | None:
        """What stands at a path, or None; of a whole collection, and of the root, what is in memory."""
        if not path:
            return self.root
        if self.residence is not None and len(path) > 1:
            self.residence.bring(path[0], path[1])
        return self.here(path)

    def here(self, path: Sequence[Any]) -> Entry | None:
        """The same where the key was brought in before: reads nothing, so it never fails, also where there was nothing to bring in."""
        levels = walk(self.root, path)
        return levels[-1].children.get(path[-1]) if levels else None

    def entry(self, collection: str, key: Any) -> Entry | None:
        """What stands at a key, or None; not to be changed."""
        if self.residence is not None:
            self.residence.bring(collection, key)
        return self.entry_here(collection, key)

    def entry_here(self, collection: str, key: Any) -> Entry | None:
        """The same where the key was brought in before: reads nothing, so it never fails."""
        branch = self.root.children.get(collection)
        if type(branch) is not Branch:
            return None
        if branch.sweep is not None:
            branch.sweep.touch(key)
        return branch.children.get(key)

    def keys(self, collection: str, after: str = "", prefix: str = "") -> Iterator[str]:
        """The keys of a collection in the order of their bytes, from the first greater than ``after``; also such of which nothing can be
        read.

        Cost:  the first call sorts; then O(log n) per write and O(1) per key read.
        """
        if self.residence is not None:
            return self.residence.keys(collection, after, prefix)
        branch = self.root.children.get(collection)
        return keys_of(branch, after, prefix) if type(branch) is Branch else iter(())

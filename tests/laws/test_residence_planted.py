"""The twin histories bite: each of these bugs in what is on disk is found by one of them."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import find, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from crdtstore.engine.operations import Operations
from crdtstore.kernel import Tree
from crdtstore.ledger import Ledger
from crdtstore.residence import Residence
from crdtstore.state import State
from crdtstore.testing.laws import members
from crdtstore.types import REGISTRY
from crdtstore.unsaved import Unsaved
from tests.laws.kept import Twins
from tests.laws.test_laws import NAMES, upkeep
from tests.laws.test_planted import SEARCH


def _is_found(name: str, max_examples: int = 400) -> bool:
    """Whether one of so many histories with a store is another than without."""

    def breaks(drawn: tuple[Any, int]) -> bool:
        steps, seed = drawn
        try:
            twins = Twins(REGISTRY[name], members(NAMES), Random(seed), id_window_ms=3)
            twins.run(steps)
            twins.delete_everything()
        except (AssertionError, LookupError):
            return True
        return False

    examples = st.tuples(upkeep(REGISTRY[name]), st.integers(0, 1 << 30))
    try:
        find(examples, breaks, settings=settings(SEARCH, max_examples=max_examples))
    except NoSuchExample:
        return False
    return True


def _nothing(*_: Any, **__: Any) -> None:
    """What should have happened does not."""


_end = Unsaved.end
_take = Ledger.take


def _forgiven(self: Unsaved, *, is_saved: bool) -> None:
    _end(self, is_saved=True)


def _no_older(self: Unsaved, *, is_saved: bool) -> None:
    """Of what a failed checkpoint held only what changed again is unsaved."""
    before = {collection: dict(keys) for collection, keys in self._changes.items()}
    _end(self, is_saved=is_saved)
    if not is_saved:
        self._changes = before


def _not_dirty(self: State, path: list[Any]) -> None:
    """What was brought in is never folded."""


def _without_gone(self: Ledger, number: int, limit: int, taken: int) -> Any:
    """What is gone from a table stays on disk."""
    part, upto = _take(self, number, limit, taken)
    if part is not None:
        part.gone.clear()
    return part, upto


def _has_no_frozen(self: Unsaved, collection: str, key: Any) -> bool:
    """What is being written counts as saved already."""
    return key in self._changes.get(collection, ())


PLANTS: dict[str, tuple[str, Any, str, Callable[..., Any]]] = {
    "no copy on write": ("counter", Unsaved, "_save_before", _nothing),
    "no copy before a drop": ("aw_set", Unsaved, "_save_below", _nothing),
    "a dropped branch stays": ("aw_set", Unsaved, "note_gone", _nothing),
    "what outlives a drop is not written": ("aw_set", Unsaved, "note_all", _nothing),
    "a failed checkpoint counts": ("lww_map", Unsaved, "end", _forgiven),
    "a failed checkpoint is forgotten": ("lww_map", Unsaved, "end", _no_older),
    "what is being written is let go": ("counter", Unsaved, "has", _has_no_frozen),
    "ranges are not removed": ("aw_set", Unsaved, "_save_ranges", _nothing),
    "tables keep what is gone": ("counter", Ledger, "take", _without_gone),
    "operations are not read": ("counter", Operations, "load", _nothing),
    "what was read is not folded": ("rw_set", State, "to_fold_later", _not_dirty),
    "a commit meets cold keys": ("aw_set", State, "bring_all", _nothing),
    "nothing is counted": ("aw_set", Residence, "counted", _nothing),
    "a cold key is never read": ("aw_set", Residence, "_load", _nothing),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLANTS))
def test_a_bug_in_what_is_on_disk_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    type_name, owner, function, bug = PLANTS[name]
    monkeypatch.setattr(Tree, "sweep_above", 1)
    monkeypatch.setattr(owner, function, bug)
    assert _is_found(type_name), f"nobody noticed: {name}"


def test_what_the_bugs_are_put_into_is_still_there() -> None:
    assert all(callable(getattr(owner, function)) for _, owner, function, _ in PLANTS.values())

"""Each promise of a text can be broken: a one-line fault in one production function, and the stories that show it."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from crdtstore.errors import UsageError
from crdtstore.leaves import ValueOrder
from crdtstore.types import View, _positions, text
from crdtstore.types._positions import between
from tests.laws.text_story import Story

STORIES = 300


def broken_at() -> int | None:
    """The first of the stories that breaks a promise."""
    for seed in range(STORIES):
        try:
            Story(Random(seed)).run(12)
        except (AssertionError, UsageError):  # the edits of a story always fit
            return seed
    return None


Patch = pytest.MonkeyPatch


def shared_run(patch: Patch) -> None:
    """Anyone goes on in any run: two writers come to share a position."""
    patch.setattr(
        text, "between", lambda left, right, count, who: between(left, right, count, who._replace(owner=bytes(8)))
    )


def lost_side(patch: Patch) -> None:
    """The right neighbour is not looked at."""
    patch.setattr(text, "between", lambda left, right, count, who: between(left, None, count, who))


def never_before(patch: Patch) -> None:
    """New runs are always begun after the left neighbour, also where the right one hangs there."""
    place = _positions._place

    def after(left: bytes, right: bytes | None, count: int, who: Any) -> tuple[bytes, int]:
        return place(left, right if right is None or not right.startswith(left) else None, count, who)

    patch.setattr(_positions, "_place", after)


def nameless_at_the_edge(patch: Patch) -> None:
    """What an owner hangs behind his own character stands next to it, in front of what others hang there."""
    patch.setattr(_positions, "_NAMELESS_AFTER", b"\x00")


def _issued(view: View, **otherwise: Any) -> View:
    """The same view, as somebody else's."""
    assert view.issuer is not None
    return View(view.replicas, view.entry, view.now_ms, view.options, view.issuer._replace(**otherwise))


def names_of_attempts(patch: Patch) -> None:
    """A character is named after the commit, also where the commit is an attempt at an operation."""
    name = text._name
    patch.setattr(text, "_name", lambda view, count: name(_issued(view, operation=None), count))


def one_name_an_operation(patch: Patch) -> None:
    """All operations of a commit name their characters alike."""
    name = text._name
    patch.setattr(text, "_name", lambda view, count: name(_issued(view, index=0), count))


def in_order_of_arrival(patch: Patch) -> None:
    """Characters stand in the order in which they came."""
    patch.setattr(text, "_order", lambda branch: ValueOrder(branch.children, lambda part: (b"", b"")))


PLANTS: list[Callable[[Patch], None]] = [
    shared_run,
    lost_side,
    never_before,
    nameless_at_the_edge,
    names_of_attempts,
    one_name_an_operation,
    in_order_of_arrival,
]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_breaks_a_story(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    seed = broken_at()
    print(f"{plant.__name__}: story {seed}")
    assert seed is not None


def test_without_a_fault_no_story_is_broken() -> None:
    assert broken_at() is None

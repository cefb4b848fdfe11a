"""Each law can fail: a one-line fault planted in one production function, and the histories that show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

from crdtstore import kernel
from crdtstore.engine import causality, keyspace
from crdtstore.engine.operations import Operations
from crdtstore.kernel import Tree
from crdtstore.leaves import DROP, PUT, Many, One
from crdtstore.testing.strategies import histories
from crdtstore.types import REGISTRY, View
from crdtstore.types.aw_set import AwSet
from tests.laws.test_laws import run

SEARCH = settings(
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def is_broken(name: str, max_examples: int) -> bool:
    """Whether one of so many histories breaks a law."""

    def breaks(steps: Any) -> bool:
        try:
            run(REGISTRY[name], steps)
        except AssertionError:
            return True
        return False

    try:
        find(
            histories(REGISTRY[name], has_operations=True), breaks, settings=settings(SEARCH, max_examples=max_examples)
        )
    except NoSuchExample:
        return False
    return True


Patch = pytest.MonkeyPatch


def drop_without_cut(patch: Patch) -> None:
    """A drop removes everything, seen or not."""
    drop = Tree._drop
    patch.setattr(Tree, "_drop", lambda self, path, cut: drop(self, path, [1 << 47] * len(cut)))


def elided_add(patch: Patch) -> None:
    """An add of an element that is there writes nothing."""
    add = AwSet.add

    def elided(self: AwSet, view: View, elements: Sequence[Any]) -> list[Any]:
        return add(self, view, [element for element in elements if not view.child(element).exists])

    mutator = REGISTRY["aw_set"].mutators["add"]
    patch.setattr(REGISTRY["aw_set"], "mutators", {**REGISTRY["aw_set"].mutators, "add": _with(mutator, elided)})


def _with(mutator: Any, method: Callable[..., Any]) -> Any:
    return type(mutator)(mutator.name, mutator.arguments, mutator.doc, method)


def tie_by_arrival(patch: Patch) -> None:
    """Of concurrent writes the last to arrive is read."""

    def live(self: View, kind: int = PUT) -> list[Any]:
        leaf = self._leaf(kind)
        if isinstance(leaf, One):
            return [self._live(leaf.dot, leaf.hlc, leaf.value)]
        return [self._live(dot, *held) for dot, held in leaf.dots.items()] if isinstance(leaf, Many) else []

    patch.setattr(View, "live", live)


def digest_not_subtracted(patch: Patch) -> None:
    """What a cut removes stays in the digest."""
    cut = Tree._cut

    def keeping(self: Tree, *args: Any) -> Any:
        before = self.digest
        left = cut(self, *args)
        self.digest = before
        return left

    patch.setattr(Tree, "_cut", keeping)


def causal_check_off(patch: Patch) -> None:
    """Deps are never looked at."""
    patch.setattr("crdtstore.testing.laws.Bare.is_ready", lambda self, origin, data: True)


def deps_of_nothing(patch: Patch) -> None:
    """A commit says that it saw nothing new."""
    patch.setattr(causality.Causality, "increase", lambda self, origin, applied: ([], []))


def operations_forgotten(patch: Patch) -> None:
    """Every attempt at an operation counts."""
    patch.setattr(Operations, "record", lambda self, operation, dot, commit: None)


def first_attempt_to_arrive_counts(patch: Patch) -> None:
    """Of several attempts the one that came first counts, not the least."""
    patch.setattr(Tree, "_order", lambda self, hlc, dot: (0, "", 0))


def shadows_not_spent(patch: Patch) -> None:
    """A drop that saw only an attempt that does not count leaves the one that does."""
    patch.setattr(kernel, "spent", lambda shadows, cut: [])


def puts_before_drops(patch: Patch) -> None:
    """Normal form forgets that a later drop covers an earlier put of the same commit."""
    normal_form = kernel.normal_form

    def forgetful(effects: Sequence[Any]) -> list[Any]:
        triples = [effects[at : at + 3] for at in range(0, len(effects), 3)]
        drops = [part for triple in triples if triple[0] == DROP for part in triple]
        return normal_form(drops + [part for triple in triples if triple[0] != DROP for part in triple])

    patch.setattr(keyspace, "normal_form", forgetful)


PLANTS: list[tuple[Callable[[Patch], None], str]] = [
    (drop_without_cut, "aw_set"),
    (drop_without_cut, "counter"),
    (drop_without_cut, "lww_map"),
    (elided_add, "aw_set"),
    (tie_by_arrival, "lww_register"),
    (tie_by_arrival, "event_log"),
    (digest_not_subtracted, "lww_register"),
    (causal_check_off, "aw_set"),
    (deps_of_nothing, "lww_map"),
    (operations_forgotten, "counter"),
    (first_attempt_to_arrive_counts, "lww_register"),
    (shadows_not_spent, "lww_map"),
    (puts_before_drops, "counter"),
]


@pytest.mark.parametrize(("plant", "name"), PLANTS, ids=lambda value: getattr(value, "__name__", value))
def test_a_planted_fault_breaks_a_law(plant: Callable[[Patch], None], name: str, monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert is_broken(name, 1_000)


@pytest.mark.parametrize("name", sorted({name for _, name in PLANTS}))
def test_without_a_fault_none_is_broken(name: str) -> None:
    assert not is_broken(name, 100)

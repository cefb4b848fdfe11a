"""Each law can fail: a one-line fault planted in one production function, and the histories that show it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis.errors import NoSuchExample

from crdtstore import effects, kernel, leaves
from crdtstore.engine import causality, expiry, keyspace
from crdtstore.engine.operations import Operations
from crdtstore.kernel import Tree
from crdtstore.leaves import BEST, DEADLINE, DROP, MARK, PUT, Branch, Many, One
from crdtstore.sweeps import Sweep
from crdtstore.testing.laws import World
from crdtstore.types import REGISTRY, CrdtType, Mutator, View, event_log, or_map
from crdtstore.types.aw_set import AwSet
from crdtstore.types.dw_flag import DwFlag
from crdtstore.types.ew_flag import EwFlag
from crdtstore.types.g_set import GSet
from crdtstore.types.max_register import MaxRegister
from crdtstore.types.min_register import MinRegister
from crdtstore.types.mv_register import MvRegister
from crdtstore.types.or_map import OrMap
from crdtstore.types.rw_set import RwSet
from tests.laws.test_laws import run, run_by_the_clock, run_in_slices, upkeep

SEARCH = settings(
    phases=[Phase.generate],
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


def is_broken(
    name: str, max_examples: int, law: Callable[..., Any] = run, palette: tuple[str, ...] | None = None
) -> bool:
    """Whether one of so many histories breaks a law."""

    def breaks(steps: Any) -> bool:
        try:
            law(REGISTRY[name], steps)
        except AssertionError:
            return True
        return False

    try:
        find(upkeep(REGISTRY[name], palette), breaks, settings=settings(SEARCH, max_examples=max_examples))
    except NoSuchExample:
        return False
    return True


def folding(crdt: CrdtType, steps: Any) -> None:
    run(crdt, steps, id_window_ms=3)


Patch = pytest.MonkeyPatch


def drop_without_cut(patch: Patch) -> None:
    """A drop removes everything, seen or not."""
    drop = Tree._drop
    patch.setattr(Tree, "_drop", lambda self, path, cut, *kind: drop(self, path, [1 << 47] * len(cut), *kind))


def replaced(patch: Patch, type_name: str, op: str, method: Callable[..., Any]) -> None:
    """Let an operation of a type do something else."""
    mutators = REGISTRY[type_name].mutators
    other = Mutator(op, mutators[op].arguments, mutators[op].doc, True, method)
    patch.setattr(REGISTRY[type_name], "mutators", {**mutators, op: other})


def elided_add(patch: Patch) -> None:
    """An add of an element that is there writes nothing."""
    for crdt in (AwSet, GSet, RwSet):
        add = crdt.add

        def elided(self: Any, view: View, elements: Sequence[Any], add: Any = add) -> list[Any]:
            return add(self, view, [element for element in elements if not view.child(element).exists])  # type: ignore[no-any-return]

        replaced(patch, crdt.name, "add", elided)


def elided_set(patch: Patch) -> None:
    """A value that is not better writes nothing."""
    for crdt in (MaxRegister, MinRegister):

        def elided(self: Any, view: View, value: Any, crdt: Any = crdt) -> list[Any]:
            effects: list[Any] = crdt.set(self, view, value)
            present = view.best(self.kind)
            return effects if present is None or BEST[self.kind]((present, value)) != present else []

        replaced(patch, crdt.name, "set", elided)


def elided_enable(patch: Patch) -> None:
    """A flag that is set is not set again."""
    enable = EwFlag.enable
    replaced(patch, "ew_flag", "enable", lambda self, view: [] if view.exists else enable(self, view))


def remove_without_mark(patch: Patch) -> None:
    """A remove leaves nothing behind."""
    remove = RwSet.remove
    replaced(patch, "rw_set", "remove", lambda self, view, elements: _without(MARK, remove(self, view, elements)))


def disable_by_drop(patch: Patch) -> None:
    """A disable leaves nothing behind."""
    disable = DwFlag.disable
    replaced(patch, "dw_flag", "disable", lambda self, view: _without(PUT, disable(self, view)))


def _without(kind: int, effects: list[Any]) -> list[Any]:
    triples = [effects[at : at + 3] for at in range(0, len(effects), 3)]
    return [part for triple in triples if triple[0] != kind for part in triple]


def any_enable_counts(patch: Patch) -> None:
    """One yes is enough."""
    patch.setattr(DwFlag, "read", lambda self, view: any(one.value for one in view.live()))


def set_over_everything(patch: Patch) -> None:
    """Of concurrent values only the last is kept."""
    patch.setattr(MvRegister, "read", lambda self, view: [one.value for one in view.live()[-1:]])


def last_event_of_an_id(patch: Patch) -> None:
    """An event appended again takes the place of the first."""
    patch.setattr(
        event_log,
        "first_events",
        lambda view: sorted(
            ((name, child.live()[-1]) for name, child in view.children()), key=lambda event: event[1][:3]
        ),
    )


def remove_of_what_can_be_read(patch: Patch) -> None:
    """A field of which only marks are left is not removed."""
    patch.setattr(or_map, "_parts", lambda view: [part for part, _ in view.children()])


def remove_of_the_type_that_serves(patch: Patch) -> None:
    """What stands under the name in another type outlives a remove."""
    remove = OrMap.remove
    replaced(patch, "or_map", "remove", lambda self, view, field: remove(self, view, field)[:3])


def types_clash(patch: Patch) -> None:
    """The type that comes last serves under a name."""
    fields = OrMap._fields

    def last(self: OrMap, view: View) -> Any:
        found = list(fields(self, view))
        names = [field[1] for field in found]
        return [(*field[:-1], field[1] not in names[at + 1 :]) for at, field in enumerate(found)]

    patch.setattr(OrMap, "_fields", last)


def tie_by_arrival(patch: Patch) -> None:
    """Of concurrent writes the last to arrive is read."""

    def live(self: View, kind: int = PUT) -> list[Any]:
        leaf = self._leaf(kind)
        if isinstance(leaf, One):
            return [self._live(leaf.dot, leaf.hlc, leaf.value)]
        return [self._live(dot, *held) for dot, held in leaf.dots.items()] if isinstance(leaf, Many) else []

    patch.setattr(View, "live", live)


def fold_above_stable(patch: Patch) -> None:
    """What this replica has is taken for stable."""
    patch.setattr(World, "stable", lambda self, replica: replica.applied)


def rows_that_name_more(patch: Patch) -> None:
    """The vector of another is used although it names commits that are not here."""
    patch.setattr(
        World,
        "stable",
        lambda self, replica: [min(each) for each in zip(*(other.applied for other in self.replicas), strict=True)],
    )


def ids_forgotten_by_age(patch: Patch) -> None:
    """An operation is forgotten when its id has expired, whatever may still be on its way."""
    patch.setattr(World, "frontier", lambda self, replica: replica.clock.last)
    forget = Operations.forget
    patch.setattr(
        Operations,
        "forget",
        lambda self, stable, frontier, budget: forget(self, [1 << 47] * len(stable), frontier, budget),
    )


def deadline_not_put_again(patch: Patch) -> None:
    """A write leaves the deadline to those who set it, and at its end puts nothing in its place."""

    def once(op: Any, entry: Any, path: Any, effects: list[Any], now_ms: int) -> list[Any]:
        found = expiry.with_deadlines(op, entry, path, effects, now_ms)
        return found if DEADLINE in effects[::3] else _without(DEADLINE, found)

    patch.setattr(keyspace, "with_deadlines", once)


def dropped_at_the_deadline_and_nothing_put(patch: Patch) -> None:
    """A write to an expired key ends its deadline with the rest, for those who saw what it saw."""

    def bare(op: Any, entry: Any, path: Any, effects: list[Any], now_ms: int) -> list[Any]:
        found = expiry.with_deadlines(op, entry, path, effects, now_ms)
        triples = [found[at : at + 3] for at in range(0, len(found), 3)]
        return [part for triple in triples if triple[0] != DEADLINE or triple[2] is not None for part in triple]

    patch.setattr(keyspace, "with_deadlines", bare)


def expired_not_dropped(patch: Patch) -> None:
    """A write to an expired key goes on where it ended."""
    patch.setattr(expiry, "is_expired", lambda node, now_ms: False)


def expired_although_written_since(patch: Patch) -> None:
    """A deadline ends also what was written after it by those who had not heard of it."""
    patch.setattr(leaves, "newest_hlc", lambda entry: 0)


def least_deadline(patch: Patch) -> None:
    """Of concurrent deadlines the earliest counts."""
    deadline_of = leaves.deadline_of

    def least(entry: Any) -> tuple[bool, int | None]:
        leaf = entry.leaf_of(DEADLINE) if isinstance(entry, Branch) else entry
        if isinstance(leaf, Many) and leaf.kind == DEADLINE:
            return True, min((due for _, due in leaf.dots.values() if due is not None), default=None)
        return deadline_of(entry)

    for module in (leaves, expiry):
        patch.setattr(module, "deadline_of", least)


def second_drop_not_joined(patch: Patch) -> None:
    """A drop of what is being swept already is forgotten."""
    patch.setattr(Sweep, "join", lambda self, cut: None)


def digest_not_subtracted(patch: Patch) -> None:
    """What a cut removes stays in the digest."""
    cut = Tree._cut_leaf

    def keeping(self: Tree, *args: Any) -> Any:
        before = self.digest
        left = cut(self, *args)
        self.digest = before
        return left

    patch.setattr(Tree, "_cut_leaf", keeping)


def causal_check_off(patch: Patch) -> None:
    """Deps are never looked at."""
    patch.setattr("crdtstore.testing.laws.Bare.is_ready", lambda self, origin, data: True)


def deps_of_nothing(patch: Patch) -> None:
    """A commit says that it saw nothing new."""
    patch.setattr(causality.Causality, "increase", lambda self, origin, applied: ([], []))


def operations_forgotten(patch: Patch) -> None:
    """Every attempt at an operation counts."""
    patch.setattr(Operations, "record", lambda self, *commit: None)


def first_attempt_to_arrive_counts(patch: Patch) -> None:
    """Of several attempts the one that came first counts, not the least."""
    patch.setattr(Tree, "_order", lambda self, hlc, dot: (0, "", 0))


def shadows_not_spent(patch: Patch) -> None:
    """A drop that saw only an attempt that does not count leaves the one that does."""
    patch.setattr(kernel, "spent", lambda shadows, cut: [])


def puts_before_drops(patch: Patch) -> None:
    """Normal form forgets that a later drop covers an earlier put of the same commit."""
    normal_form = effects.normal_form

    def forgetful(given: Sequence[Any]) -> list[Any]:
        triples = [given[at : at + 3] for at in range(0, len(given), 3)]
        drops = [part for triple in triples if triple[0] == DROP for part in triple]
        return normal_form(drops + [part for triple in triples if triple[0] != DROP for part in triple])

    patch.setattr(keyspace, "normal_form", forgetful)


class Plant(NamedTuple):
    """A fault, the type and the law that show it; for maps the types of their fields."""

    fault: Callable[[Patch], None]
    name: str
    law: Callable[..., Any] = run
    palette: tuple[str, ...] | None = None

    def __str__(self) -> str:
        return "-".join([self.fault.__name__, self.name, self.law.__name__, *(self.palette or ())[:1]])


PLANTS = [
    *(Plant(drop_without_cut, name) for name in sorted(REGISTRY) if REGISTRY[name].deletable and name != "text"),
    Plant(elided_add, "aw_set"),
    Plant(elided_add, "or_map", palette=("g_set",)),
    Plant(elided_add, "rw_set"),
    Plant(elided_set, "max_register"),
    Plant(elided_set, "min_register"),
    Plant(elided_enable, "ew_flag"),
    Plant(remove_without_mark, "rw_set"),
    Plant(disable_by_drop, "dw_flag"),
    Plant(any_enable_counts, "dw_flag"),
    Plant(set_over_everything, "mv_register"),
    Plant(last_event_of_an_id, "event_log"),
    Plant(remove_of_what_can_be_read, "or_map", palette=("rw_set",)),
    Plant(remove_of_the_type_that_serves, "or_map", palette=("counter", "g_set")),
    Plant(types_clash, "or_map", palette=("counter", "ew_flag")),
    Plant(tie_by_arrival, "lww_register"),
    Plant(tie_by_arrival, "mv_register"),
    Plant(tie_by_arrival, "lww_map"),
    Plant(tie_by_arrival, "event_log"),
    Plant(fold_above_stable, "counter", folding),
    Plant(fold_above_stable, "rw_set", folding),
    Plant(rows_that_name_more, "rw_set", folding),
    Plant(ids_forgotten_by_age, "counter", folding),
    Plant(deadline_not_put_again, "lww_register", run_by_the_clock),
    Plant(deadline_not_put_again, "counter", run_by_the_clock),
    Plant(dropped_at_the_deadline_and_nothing_put, "lww_map", run_by_the_clock),
    Plant(expired_not_dropped, "counter"),
    Plant(expired_although_written_since, "lww_register", run_by_the_clock),
    Plant(least_deadline, "counter", run_by_the_clock),
    Plant(second_drop_not_joined, "lww_map", run_in_slices),
    Plant(digest_not_subtracted, "lww_register"),
    Plant(causal_check_off, "aw_set"),
    Plant(deps_of_nothing, "lww_map"),
    Plant(operations_forgotten, "counter"),
    Plant(first_attempt_to_arrive_counts, "lww_register"),
    Plant(shadows_not_spent, "lww_map"),
    Plant(puts_before_drops, "counter"),
]


@pytest.mark.parametrize("plant", PLANTS, ids=str)
def test_a_planted_fault_breaks_a_law(plant: Plant, monkeypatch: Patch) -> None:
    plant.fault(monkeypatch)
    assert is_broken(plant.name, 1_500, plant.law, plant.palette)


@pytest.mark.parametrize("law", [run, folding, run_by_the_clock, run_in_slices])
@pytest.mark.parametrize("name", sorted({plant.name for plant in PLANTS}))
def test_without_a_fault_none_is_broken(name: str, law: Callable[..., Any]) -> None:
    assert not is_broken(name, 10, law)

"""Bugs in the types, in what keeps them small for ever, in what ends by itself, and in where keys are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from msgspec.structs import replace as altered

from crdtstore import reading
from crdtstore.declarations import Declarations
from crdtstore.engine import keyspace
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.operations import Operations
from crdtstore.engine.stability import Stability
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, SEQ_MASK
from crdtstore.runs import Run
from crdtstore.types import REGISTRY, View, text
from crdtstore.types._positions import _steps
from crdtstore.types.bounded_counter import BoundedCounter
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.scenario import Scenario, load
from crdtstore_sim.swarm import draw

__all__ = ["IN_CATALOGUE"]


# --- what is written, and what a delete takes


def _elided(mutator: Any) -> Any:
    """The add of an element that is there writes nothing."""
    method = mutator.effects

    def add(crdt: Any, view: View, elements: Sequence[Any]) -> Any:
        return method(crdt, view, [element for element in elements if not view.child(element).exists])

    return replace(mutator, effects=add, reads=True)


# --- what is stable, what has ended


def _any_row(is_usable: Any) -> Any:
    """A row may be used although not everything in it is here: who wrote it may have made something before it that is not."""
    return lambda self, vector, durable: True


def _silence_is_consent(advance: Any) -> Any:
    """A member that was never heard counts as if it had everything."""

    def lenient(self: Stability, durable: Sequence[int]) -> bool:
        self._usable = [list(durable) if row is None else row for row in self._usable]
        return bool(advance(self, durable))

    return lenient


def _first_hand_only(on_digest: Any) -> Any:
    """What others say of a third is not listened to."""

    def deaf(self: AntiEntropy, peer: int, message: Any, *rest: Any) -> None:
        on_digest(self, peer, altered(message, others=[None] * len(message.others)), *rest)

    return deaf


def _fold_everything(fold: Any) -> Any:
    """Whatever is here is folded."""
    return lambda self, stable, budget: fold(self, [SEQ_MASK] * len(stable), budget)


def _by_age(forget: Any) -> Any:
    """Operation ids are forgotten when the newest stamp is past their expiry, whoever has not heard of them."""

    def early(self: Operations, stable: Sequence[int], frontier_hlc: int, budget: int) -> None:
        known = [attempt.hlc for name in self._attempts for attempt in self.attempts(name)]
        forget(self, [SEQ_MASK] * len(stable), max(known, default=0), budget)

    return early


def _deadline_once(with_deadlines: Any) -> Any:
    """Only ``expire`` puts a deadline."""
    return lambda op, entry, path, effects, now_ms: effects


# --- counts, stock, text


def _reset_all(cut: Any) -> Any:
    """A delete of a counter takes increments that it had not seen."""
    return lambda self, seq: cut(self, SEQ_MASK)


def _released_twice(mutator: Any) -> Any:
    """What a hold had put aside comes back when it is dropped, and again as an amount."""

    def release(crdt: BoundedCounter, view: View, hold: str) -> list[Any]:
        amount = crdt._own_hold(view, hold).value[0]
        return [*mutator.effects(crdt, view, hold), ADD, ["U"], -amount]

    return replace(mutator, effects=release)


def _rights_of_all(need: Any) -> Any:
    """A region sells what others hold the rights to."""

    def lenient(self: BoundedCounter, view: View, amount: int) -> None:
        if amount > self.read(view) - view.options.get("lower", 0):
            need(self, view, amount)

    return lenient


def _shared_runs(between: Any) -> Any:
    """Whoever types beside a character goes on in its run, whose ever it is."""

    def anyone(left: bytes, right: bytes | None, count: int, who: Any) -> Any:
        steps = _steps(left) or _steps(right or b"")
        return between(left, right, count, who._replace(owner=steps[-1].owner) if steps else who)

    return anyone


def _with_types(*types: str, **work: Any) -> Callable[[int], Scenario]:
    """The scenario of a seed in which users work on these types only."""

    def drawn(seed: int) -> Scenario:
        scenario = draw(seed, "all-types")
        return altered(scenario, work=altered(scenario.work, types=list(types), **work))

    return drawn


def _impatient(seed: int) -> Scenario:
    """Ids that expire soon, and requests that come again elsewhere after a cut."""
    scenario = _with_types("counter", "aw_set", "event_log", with_id=0.9, retry=0.6, slowest_retry_s=3.0)(seed)
    return altered(scenario, engine=altered(scenario.engine, retry_window_ms=1_000, fold_interval_ms=20))


# --- where keys are


def _latest(numbers: Any) -> Any:
    """The latest number of shards serves, as the fields of a map do."""
    return lambda self, domain: numbers(self, domain)[::-1]


def _wherever(keys: Any) -> Any:
    """A list shows what is in a group, whether its key belongs there or not."""

    def shown(engines: Any, division: Any, declared: Any, asked: Any) -> Any:
        for key, engine in keys(engines, division, declared, asked):
            holders = (each for each in engines.values() if each.keyspace.view(declared.path, key).exists)
            yield key, next(holders, None) if engine is None else engine

    return shown


def _two_numbers(seed: int) -> Scenario:
    """Everybody declares by himself, the first replica with another number than the second."""
    scenario = draw(seed)
    work = altered(scenario.work, is_declared_everywhere=True, shards=3, other_shards=5, keys=6, reads_per_s=40)
    return altered(scenario, work=work)


IN_CATALOGUE: dict[str, Plant] = {
    "elided-effects": Plant(
        REGISTRY["aw_set"].mutators,
        "add",
        _elided,
        "adding a present element writes nothing",
        _with_types("aw_set", delete=0.15),
    ),
    "reset-of-unobserved": Plant(
        Run, "cut", _reset_all, "a delete takes increments that it had not seen", _with_types("counter", delete=0.15)
    ),
    "naive-stability": Plant(Stability, "is_usable", _any_row, "a row counts although not all that it names is here"),
    "silence-is-consent": Plant(
        Stability, "advance", _silence_is_consent, "a member that was never heard counts as if it had everything"
    ),
    "first-hand-only": Plant(
        AntiEntropy,
        "on_digest",
        _first_hand_only,
        "nobody listens to what others say of a third",
        lambda seed: load("relay"),
    ),
    "fold-above-stable": Plant(
        Tree,
        "fold",
        _fold_everything,
        "whatever is here is folded",
        _with_types("counter", "rw_set", "max_register", delete=0.15),
    ),
    "ids-forgotten-by-age": Plant(
        Operations, "forget", _by_age, "an operation id is forgotten when it is old", _impatient
    ),
    "deadline-put-once": Plant(
        keyspace,
        "with_deadlines",
        _deadline_once,
        "a write does not put the deadline again",
        _with_types("counter", "aw_set", "lww_map", expire=0.2),
    ),
    "double-release": Plant(
        REGISTRY["bounded_counter"].mutators,
        "release",
        _released_twice,
        "what a hold had put aside comes back twice",
        _with_types("bounded_counter"),
    ),
    "rights-of-others": Plant(
        BoundedCounter,
        "need",
        _rights_of_all,
        "a region sells what others hold the rights to",
        _with_types("bounded_counter"),
    ),
    "text-shared-run": Plant(
        text, "between", _shared_runs, "anybody may go on in another writer's run", _with_types("text")
    ),
    "latest-number-serves": Plant(
        Declarations, "numbers", _latest, "of two numbers of shards the latest serves", _two_numbers
    ),
    "listed-wherever": Plant(
        reading, "_keys", _wherever, "a list shows keys that are in a group that is not theirs", _two_numbers
    ),
}

"""Plants: known bugs, each a small change of one production function, put in to see that the checkers bite.

The question: would a checker notice? A checker that never failed has shown nothing. Each plant is applied to the code that nodes run, for
the time of a run, and must be found within a bounded number of seeds, which pass without it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace as altered

from crdtstore.engine import keyspace
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.durability import Durability
from crdtstore.engine.engine import Engine
from crdtstore.engine.history import History
from crdtstore.engine.operations import Operations
from crdtstore.engine.progress import Progress
from crdtstore.engine.stability import Stability
from crdtstore.errors import UsageError
from crdtstore.host import Host
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, SEQ_MASK
from crdtstore.runs import Run
from crdtstore.sessions import Sessions
from crdtstore.storage.protocol import Entry
from crdtstore.types import REGISTRY, Live, View, text
from crdtstore.types._positions import _steps
from crdtstore.types.bounded_counter import BoundedCounter
from crdtstore_sim.scenario import Scenario, load
from crdtstore_sim.swarm import draw

__all__ = ["PLANTS", "Plant", "planted"]

Change = Callable[[Any], Any]
"""Takes the production function, gives the changed one."""


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug to put in: where, how, and the scenario of a seed in which it is looked for (the swarm's by default)."""

    owner: Any
    """The class (or map) that holds the function."""
    function: str
    change: Change
    says: str
    scenario: Callable[[int], Scenario] = draw


@contextmanager
def planted(name: str | None) -> Iterator[None]:
    """Production code with one bug; without a name as it is.

    Raises:  UsageError for a name that does not exist.
    """
    if name is None:
        yield
        return
    plant = plant_of(name)
    if isinstance(plant.owner, dict):
        with patch.dict(plant.owner, {plant.function: plant.change(plant.owner[plant.function])}):
            yield
    else:
        with patch.object(plant.owner, plant.function, plant.change(getattr(plant.owner, plant.function))):
            yield


def plant_of(name: str) -> Plant:
    plant = PLANTS.get(name)
    if plant is None:
        raise UsageError(f"there is no plant {name[:100]}; there are {', '.join(PLANTS)}")
    return plant


# --- what replicas say of themselves


def _heard_digest(own_row: Any) -> Any:
    """A row names what was heard, buffered commits too, with their true chain hashes."""

    def heard(self: Engine, now_ms: int) -> Any:
        row = own_row(self, now_ms)
        vector, chains = list(row.vector), list(row.chains)
        for origin, seq in enumerate(self.applied):
            chain = self.history.chain(origin, seq)
            while (waiting := self.early.next(origin, seq)) is not None:
                seq += 1  # noqa: PLW2901
                chain = sha256(chain + waiting[1]).digest()
            vector[origin], chains[origin] = seq, chain
        return type(row)(row.configuration, vector, row.hlc, chains)

    return heard


def _acknowledge_before_durable(on_local_commit: Any) -> Any:
    """Replies go out when a commit is applied."""

    def early(self: Engine, drafts: Any, now_ms: int, out: Any) -> None:
        on_local_commit(self, drafts, now_ms, out)
        if out.number:
            batch = self.durability._batches[-1]
            out.replies += batch.replies
            batch.replies.clear()

    return early


def _send_before_durable(hold: Any) -> Any:
    """Rows and frames speak of what is applied."""

    def early(self: Durability, applied: list[int], *rest: Any) -> Any:
        self.vector = list(applied)
        return hold(self, applied, *rest)

    return early


def _amnesia(recover: Any) -> Any:
    """The last commit of the log is not read at the start, and its number is used again."""

    def forgetful(self: Host, entries: Iterable[Entry]) -> int:
        return int(recover(self, list(entries)[:-1]))

    return forgetful


# --- when a commit may be applied


def _any_order(is_ready: Any) -> Any:
    return lambda self, resolved: True


def _one_too_early(is_ready: Any) -> Any:
    """A commit is applied just before one of another origin that it depends on."""
    return lambda self, resolved: all(self.applied[replica] + 1 >= seq for replica, seq in resolved)


# --- what is left to read


def _by_arrival(live: Any) -> Any:
    """Concurrent writes in the order in which they came."""

    def unsorted(self: View, kind: int = 1) -> list[Live]:
        leaf = self._leaf(kind)
        dots = getattr(leaf, "dots", None)
        if not dots:
            return live(self, kind)  # type: ignore[no-any-return]
        return [self._live(dot, hlc, value) for dot, (hlc, value) in dots.items()]

    return unsorted


def _remove_everything(drop: Any) -> Any:
    return lambda self, path, cut: drop(self, path, [SEQ_MASK] * len(cut))


def _elided(mutator: Any) -> Any:
    """The add of an element that is there writes nothing."""
    method = mutator._method

    def add(crdt: Any, view: View, elements: Sequence[Any]) -> Any:
        return method(crdt, view, [element for element in elements if not view.child(element).exists])

    return replace(mutator, _method=add)


def _forgotten(record: Any) -> Any:
    """An operation that comes again from elsewhere counts again."""

    def forget(self: Operations, *rest: Any) -> None:
        record(self, *rest)

    return forget


# --- who is sent what


def _grouped(lacking: Any) -> Any:
    """What is relayed comes grouped by origin."""

    def grouped(
        self: History, vector: Sequence[int], upto: Sequence[int], origins: Any, max_bytes: int
    ) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for origin in sorted(origins):
            for seq in range(vector[origin] + 1, upto[origin] + 1):
                data = self.commit(origin, seq)
                max_bytes -= len(data)
                if found and max_bytes < 0:
                    return found
                found.append((origin, data))
        return found

    return grouped


def _silence_is_health(is_overdue: Any) -> Any:
    """Nobody is asked why it does not acknowledge."""
    return lambda self, *rest: False


def _never_waits(waits_for: Any) -> Any:
    """A read shows what is not durable yet."""
    return lambda self, *rest: 0


def _no_limit(heartbeat_limit: Any) -> Any:
    """A heartbeat promises more than the disk holds."""
    return lambda self: None


def _token_ignored(has_seen: Any) -> Any:
    return lambda self, seen: True


def _no_relay(relay: Any) -> Any:
    return lambda self, *rest: None


# --- what is stable, what has ended


def _any_row(is_usable: Any) -> Any:
    """A row may be used although not everything in it is here: who wrote it may have made something before it that is not."""
    return lambda self, vector, durable: True


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
        return [*mutator._method(crdt, view, hold), ADD, ["U"], -amount]

    return replace(mutator, _method=release)


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


PLANTS: dict[str, Plant] = {
    "heard-digest": Plant(
        Engine, "own_row", _heard_digest, "a row names what was heard, not what is applied and durable"
    ),
    "causal-check-off": Plant(Engine, "is_ready", _any_order, "every commit counts as ready"),
    "wrong-causal-order": Plant(Engine, "is_ready", _one_too_early, "a commit may go before the one it depends on"),
    "ack-before-durable": Plant(
        Engine, "_on_local_commit", _acknowledge_before_durable, "replies do not wait for the disk"
    ),
    "send-before-durable": Plant(Durability, "hold", _send_before_durable, "rows and frames do not wait for the disk"),
    "tie-by-arrival": Plant(View, "live", _by_arrival, "concurrent writes are read in the order of their arrival"),
    "drop-without-cut": Plant(Tree, "_drop", _remove_everything, "a drop removes what it has not seen too"),
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
    "grouped-per-origin": Plant(
        History,
        "lacking",
        _grouped,
        "what is relayed comes grouped by origin",
        lambda seed: load("narrow-relay"),
    ),
    "dot-reuse-after-amnesia": Plant(Host, "recover", _amnesia, "a start forgets the last commit of its log"),
    "forgotten-operations": Plant(Operations, "record", _forgotten, "a repeated operation counts twice"),
    "silence-is-health": Plant(Progress, "is_overdue", _silence_is_health, "who never acknowledges is left alone"),
    "read-before-durable": Plant(Durability, "waits_for", _never_waits, "reads do not wait for the disk"),
    "heartbeat-too-far": Plant(Durability, "heartbeat_limit", _no_limit, "a heartbeat promises more than is durable"),
    "token-ignored": Plant(Sessions, "has_seen", _token_ignored, "a session is served whatever it has seen"),
    "no-relay": Plant(AntiEntropy, "_relay", _no_relay, "nobody carries what others made"),
}

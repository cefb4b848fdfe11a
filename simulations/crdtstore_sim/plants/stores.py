"""Bugs in what is on disk: checkpoints that hold too much or too little, keys let go or read at the wrong time, logs cut too far."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace as altered

from crdtstore import state
from crdtstore.engine.checkpoint import Checkpoint
from crdtstore.engine.history import History
from crdtstore.ledger import Ledger
from crdtstore.residence import Residence
from crdtstore.saving import Saving
from crdtstore.state import State
from crdtstore.storage.rows import CONTESTED, GIFTS, HOLDS, OPERATIONS, PLANS
from crdtstore.unsaved import Unsaved
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.scenario import Crash, Scenario, names
from crdtstore_sim.swarm import draw

__all__ = ["IN_STORES"]


# --- what a checkpoint holds


def _no_copy(save_before: Any) -> Any:
    """What changes while a checkpoint is written is written as it is by then."""
    return lambda self, path: None


def _as_of_now(note: Any) -> Any:
    """What is remembered is written as it is when its turn comes."""

    def late(self: Ledger, name: Any) -> None:
        if self.is_kept:
            self._changed[name] = None

    return late


def _left_out(space: int) -> Callable[[Any], Any]:
    """One of the tables is in no checkpoint."""

    def change(begin: Any) -> Any:
        def forgetful(self: Ledger) -> None:
            if self._space == space:
                self._changed = {}
            begin(self)

        return forgetful

    return change


def _wrong_digest(now: Any) -> Any:
    """A checkpoint says another digest than its state has."""

    def wrong(self: Checkpoint) -> Any:
        saved = now(self)
        return altered(saved, digest=bytes([saved.digest[0] ^ 1]) + saved.digest[1:])

    return wrong


def _unnoted(note_gone: Any) -> Any:
    """A branch that is dropped as a whole stays on disk."""
    return lambda self, path: None


def _unnoted_fold(extent: Any) -> Any:
    """What folding takes is not written anew."""
    return lambda entry: 0


def _counted_on(counted: Any) -> Any:
    """What a failed checkpoint wrote stays counted."""
    return lambda self, rows, data_bytes: counted(self, max(0, rows), max(0, data_bytes))


def _forgiven(end: Any) -> Any:
    """What a failed checkpoint held counts as saved."""
    return lambda self, *, is_saved: end(self, is_saved=True)


def _withdrawn_for_good(withdraw: Any) -> Any:
    """What a checkpoint that was withdrawn held counts as saved."""
    return lambda self: self._close(is_saved=True)


# --- when it is committed, and what is cut off


def _no_wait(hand_out: Any) -> Any:
    """A checkpoint is committed before the log is durable that far."""

    def early(self: Saving, out: Any) -> None:
        self._log_number = 0
        hand_out(self, out)

    return early


def _needs_less(begin: Any) -> Any:
    """A start replays what came after the checkpoint began, and nothing that peers may lack."""

    def short(self: Saving, now_ms: int) -> None:
        begin(self, now_ms)
        self._cut = self.retention.position

    return short


def _cut_more(finish: Any) -> Any:
    """The log is cut up to where it is durable."""

    def greedy(self: Saving, now_ms: int, out: Any) -> None:
        finish(self, now_ms, out)
        out.cut = self.retention.position

    return greedy


def _forget_all(forget: Any) -> Any:
    """Commits are forgotten when they are durable here, whoever lacks them."""
    return lambda self, stable: forget(self, self.placed)


# --- what is in memory


def _careless(let_go: Any) -> Any:
    """Keys are let go whether they are saved or not."""

    def careless(self: Residence, *rest: Any) -> None:
        with patch.object(Unsaved, "has", lambda *_: False):
            let_go(self, *rest)

    return careless


def _not_brought(bring_all: Any) -> Any:
    """A commit is applied to keys as far as they are in memory."""
    return lambda self, effects: None


def _not_met(keys: Any) -> Any:
    """A list shows the keys that are in memory."""

    def warm(self: Residence, *rest: Any) -> Any:
        with patch.object(self, "is_whole", True):
            yield from list(keys(self, *rest))

    return warm


def _stored(mix: str, *types: str, **work: Any) -> Callable[[int], Scenario]:
    """The scenario of a seed, with a small store that is written all the time, and crashes."""

    def drawn(seed: int) -> Scenario:
        scenario = draw(seed, mix)
        engine = altered(
            scenario.engine,
            checkpoint_ms=100 + seed % 3 * 200,
            checkpoint_rows=1 + seed % 4,
            memory_bytes=1_024,
            history_bytes=1_024,
            retain_bytes=1_024,
        )
        crashes = [
            Crash(replica=name, at_s=2.0 + at + 0.37 * seed % 1, down_s=0.5, is_orderly=bool((at + seed) % 2))
            for at, name in enumerate(names(scenario.replicas))
        ]
        changes = {"types": list(types), **work} if types else work
        seconds = min(scenario.seconds, 5.0)
        return altered(
            scenario, seconds=seconds, engine=engine, crashes=crashes, work=altered(scenario.work, **changes)
        )

    return drawn


def _slow(seed: int) -> Scenario:
    """A log that is much slower than the store, now and then."""
    scenario = _stored("basic")(seed)
    return altered(scenario, disk=altered(scenario.disk, sync_ms=20.0, slowest_ms=80.0, stalls=0.05))


def _retried(seed: int) -> Scenario:
    """A store that is slow, and requests that come again elsewhere while it writes."""
    scenario = _stored("basic", with_id=0.9, retry=0.6, writes_per_s=120)(seed)
    engine = altered(scenario.engine, checkpoint_rows=1, checkpoint_ms=100)
    return altered(scenario, engine=engine, disk=altered(scenario.disk, sync_ms=5.0, slowest_ms=30.0))


def _failing(seed: int) -> Scenario:
    scenario = _stored("basic")(seed)
    return altered(scenario, disk=altered(scenario.disk, save_fails=0.1))


def _sliced(seed: int) -> Scenario:
    scenario = _stored("all-types", "aw_set", "lww_map", "or_map", delete=0.2)(seed)
    return altered(scenario, sweep_above=2, engine=altered(scenario.engine, checkpoint_rows=1))


IN_STORES: dict[str, Plant] = {
    "no-copy-on-write": Plant(
        Unsaved, "_save_before", _no_copy, "a checkpoint holds what was written after it began", _stored("basic")
    ),
    "ledger-as-of-now": Plant(
        Ledger, "note", _as_of_now, "a checkpoint remembers what happened after it began", _retried
    ),
    "operations-not-saved": Plant(
        Ledger, "begin", _left_out(OPERATIONS), "operation ids are in no checkpoint", _stored("basic", with_id=0.9)
    ),
    "plans-not-saved": Plant(
        Ledger, "begin", _left_out(PLANS), "plans of deadlines are in no checkpoint", _stored("all-types", expire=0.15)
    ),
    "holds-not-saved": Plant(
        Ledger, "begin", _left_out(HOLDS), "holds are in no checkpoint", _stored("all-types", "bounded_counter")
    ),
    "gifts-not-saved": Plant(
        Ledger,
        "begin",
        _left_out(GIFTS),
        "gifts of rights are in no checkpoint",
        _stored("all-types", "bounded_counter"),
    ),
    "contested-not-saved": Plant(
        Ledger, "begin", _left_out(CONTESTED), "contested keys are in no checkpoint", _stored("all-types")
    ),
    "wrong-digest-saved": Plant(
        Checkpoint, "_now", _wrong_digest, "a checkpoint says another digest than its state has", _stored("basic")
    ),
    "drop-not-noted": Plant(
        Unsaved, "note_gone", _unnoted, "a branch that is dropped as a whole stays on disk", _sliced
    ),
    "fold-not-noted": Plant(state, "extent", _unnoted_fold, "what folding takes is not written anew", _stored("basic")),
    "failed-counts-as-saved": Plant(
        Unsaved, "end", _forgiven, "what a failed checkpoint held counts as saved", _failing
    ),
    "withdrawn-counts-as-saved": Plant(
        Checkpoint, "withdraw", _withdrawn_for_good, "what a withdrawn checkpoint held counts as saved", _sliced
    ),
    "failed-stays-counted": Plant(
        Residence, "counted", _counted_on, "what a failed checkpoint wrote stays counted", _failing
    ),
    "commit-before-log": Plant(
        Saving, "_hand_out", _no_wait, "a checkpoint is committed before the log is durable that far", _slow
    ),
    "needed-too-high": Plant(
        Saving, "begin", _needs_less, "a start replays less than peers may lack", _stored("basic")
    ),
    "cut-too-far": Plant(Saving, "_finish", _cut_more, "the log is cut up to where it is durable", _stored("basic")),
    "history-beyond-stable": Plant(
        History, "forget", _forget_all, "commits are forgotten when they are durable here", _stored("basic")
    ),
    "let-go-unsaved": Plant(
        Residence, "_let_go", _careless, "keys are let go whether they are saved or not", _stored("basic")
    ),
    "cold-not-brought": Plant(
        State, "bring_all", _not_brought, "a commit is applied to keys as far as they are in memory", _stored("basic")
    ),
    "cold-not-listed": Plant(
        Residence, "keys", _not_met, "a list shows the keys that are in memory only", _stored("basic")
    ),
}

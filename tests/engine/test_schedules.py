"""Engines under any schedule: loss, doubling, reorder, slow disks, crashes; then anti-entropy brings all to what the models say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st

from crdtstore.causal import Dot
from crdtstore.commit import decode_commit
from crdtstore.engine import Engine, antientropy, early, engine
from crdtstore.engine.causality import Causality
from crdtstore.engine.durability import Durability
from crdtstore.engine.engine import SYSTEM_AUTHOR
from crdtstore.engine.output import Committed, Refused
from crdtstore.engine.stability import Stability
from crdtstore.engine.trust import Trust
from crdtstore.leaves import DROP
from crdtstore.testing.laws import Fact
from crdtstore.testing.strategies import DELETE, Call, writes
from crdtstore.types import REGISTRY
from tests.engine.wire import Wire, call_op
from tests.laws.models import reading

NAMES = ("us", "eu", "ap")
PAIRS = [(a, b) for a in NAMES for b in NAMES if a != b]
TYPES = sorted(name for name in REGISTRY if name != "bounded_counter")
"""Of that one the store itself moves rights and ends holds (``test_rights_schedules``)."""


class History:
    """A wire, and what was written on it as the models want it."""

    def __init__(self, type_name: str) -> None:
        self.crdt = REGISTRY[type_name]
        self.wire = Wire(
            *NAMES, gossip_interval_ms=100, relay_after_ms=200, ack_timeout_ms=400, early_bytes=1_024, frame_bytes=1_024
        )
        self.facts: dict[Dot, Fact] = {}
        self.wire.connect()

    def write(self, name: str, calls: list[tuple[str, Call]], operation: int | None = None) -> None:
        wire, made = self.wire, self.wire.engines[name]
        deps = dict(zip(made.replicas, made.applied, strict=True))
        named = None if operation is None else (operation.to_bytes(16, "big"), operation)
        ticket = wire.write(name, *(call_op(self.crdt.name, key, call) for key, call in calls), operation=named)
        if made.applied[made.me] > deps[made.replicas[made.me]]:
            dot = Dot(made.replicas[made.me], made.applied[made.me])
            self.facts[dot] = Fact(dot, made.clock.last, deps, calls, operation)
        answer = wire.answer_to(ticket)
        is_refused = isinstance(answer, Refused) and answer.error.code == "invalid-value"  # an integer beside texts
        assert answer is None or operation is not None or is_refused

    def crash(self, name: str, keep: int) -> None:
        self.wire.crash(name, keep)
        started = self.wire.engines[name]
        me = started.replicas[started.me]
        self.facts = {
            dot: fact for dot, fact in self.facts.items() if dot.replica != me or dot.seq <= started.applied[started.me]
        }

    def end(self) -> None:
        """Everything heals; nothing acknowledged is lost, all are the same and as the model says."""
        wire = self.wire
        wire.connect()
        wire.settle()
        first = wire.engines["us"]
        plans = first.keyspace.expiry._order
        while removals(first) and plans and plans[0][0] < wire.now_ms:  # they go by and by, and in the model at once
            wire.tick(50)
            wire.settle()
        wire.check_same()
        self.facts |= removals(first)
        for _, reply in wire.replies:
            if isinstance(reply, Committed):
                assert reply.seq <= first.applied[reply.origin], "an acknowledged commit is lost"
        for key in ("a", "b"):
            view = first.keyspace.view(f"things:{self.crdt.name}", key)
            found = (self.crdt.read(view), view.exists, self.crdt.conflicts(view))
            assert found == reading(self.crdt.name, self.facts.values(), key)
        assert len(first.history) == len(self.facts)
        assert wire.rejected == []


def removals(engine: Engine) -> dict[Dot, Fact]:
    """What the store removed by itself because it had expired, as if somebody had deleted it."""
    found = {}
    for origin, upto in enumerate(engine.applied):
        commits = engine.history.span(origin, 0, upto, 1 << 30)
        deps = [0] * len(engine.replicas)
        causality = Causality(engine.replicas)
        for data in commits:
            commit = decode_commit(data)
            resolved = causality.resolve(origin, commit.deps)
            deps = list(causality.advance(origin, commit.seq, resolved))
            if commit.author != SYSTEM_AUTHOR:
                continue
            assert commit.effects[::3] == [DROP] * (len(commit.effects) // 3)
            calls = [(path[1], _removal(path[0], path[2:])) for path in commit.effects[1::3]]
            dot = Dot(engine.replicas[origin], commit.seq)
            found[dot] = Fact(dot, commit.hlc, dict(zip(engine.replicas, deps, strict=True)), calls, None)
    return found


def _removal(collection: str, below: list[str]) -> Call:
    if not below:
        return Call(DELETE, {})
    if collection.endswith(":lww_map"):
        return Call("unset", {"fields": below})
    return Call(DELETE, {}, tuple(tuple(part.rpartition(":")[::2]) for part in below))


WHAT = ("write",) * 5 + ("deliver",) * 5 + ("attempt", "sync", "lose", "mix", "tick", "crash", "cut")


class Player:
    """Does with a wire what is drawn."""

    def __init__(self, draw: Any, history: History) -> None:
        self.draw, self.history, self.wire = draw, history, history.wire
        self.pool = [draw(writes(history.crdt)) for _ in range(2)]

    def step(self) -> None:
        getattr(self, self.draw(st.sampled_from(WHAT)))(self.draw(st.sampled_from(NAMES)))

    def _pair(self) -> tuple[str, str]:
        """A link, one with something on its way if there is any."""
        return self.draw(st.sampled_from([pair for pair in PAIRS if self.wire.links[pair]] or PAIRS))  # type: ignore[no-any-return]

    def write(self, name: str) -> None:
        self.history.write(name, self.draw(writes(self.history.crdt, 1)))
        if self.draw(st.integers(0, 3)):
            self.wire.sync(name)

    def attempt(self, name: str) -> None:
        at = self.draw(st.integers(0, 1))
        self.history.write(name, self.pool[at], at)

    def sync(self, name: str) -> None:
        self.wire.sync(name)

    def deliver(self, _: str) -> None:
        source, target = self._pair()
        self.wire.deliver(source, target, self.draw(st.integers(1, 2)))
        if self.draw(st.booleans()):
            self.wire.sync(target)

    def lose(self, _: str) -> None:
        if link := self.wire.links[self._pair()]:
            del link[self.draw(st.integers(0, len(link) - 1))]

    def mix(self, _: str) -> None:
        """The same message again, at another place."""
        if link := self.wire.links[self._pair()]:
            link.insert(self.draw(st.integers(0, len(link))), link[self.draw(st.integers(0, len(link) - 1))])

    def tick(self, _: str) -> None:
        self.wire.tick(self.draw(st.sampled_from((1, 50, 300, 1_000))))

    def crash(self, name: str) -> None:
        self.history.crash(name, self.draw(st.integers(0, 2)))
        if self.draw(st.booleans()):
            self.wire.connect()

    def cut(self, _: str) -> None:
        pair = self._pair()
        self.wire.cut(*pair)
        if self.draw(st.booleans()):
            self.wire.connect(pair)


def play(draw: Any, type_name: str, steps: int) -> None:
    """Draw and do so many things, then heal."""
    history = History(type_name)
    history.wire.settle()  # all have heard each other: what is written is pushed
    player = Player(draw, history)
    for _ in range(steps):
        player.step()
    history.end()


@pytest.mark.parametrize("type_name", TYPES)
@given(data=st.data())
def test_any_schedule_heals(type_name: str, data: st.DataObject) -> None:
    play(data.draw, type_name, data.draw(st.integers(5, 40)))


# --- the same histories find planted faults


def acknowledge_before_durable(patch: pytest.MonkeyPatch) -> None:
    hold = Durability.hold

    def eager(self: Durability, applied: list[int], *rest: Any) -> int:
        number = hold(self, applied, *rest)
        self.vector = list(applied)
        return number

    patch.setattr(Durability, "hold", eager)


def causal_check_off(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(engine.Engine, "is_ready", lambda self, resolved: True)


def heard_instead_of_delivered(patch: pytest.MonkeyPatch) -> None:
    own_row = engine.Engine.own_row

    def heard(self: engine.Engine, now_ms: int) -> Any:
        row = own_row(self, now_ms)
        known = self.rows.known(row.vector)
        known[self.me] = row.vector[self.me]
        return type(row)(row.configuration, known, row.hlc, row.chains, row.votes)

    patch.setattr(engine.Engine, "own_row", heard)


def heartbeat_over_what_is_not_durable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Durability, "heartbeat_limit", lambda self: None)


def early_never_tried_again(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(early.Early, "next", lambda self, origin, applied: None)
    patch.setattr(early.Early, "has", lambda self, origin, seq: True)
    patch.setattr(early.Early, "data", lambda self, origin, seq: b"")
    patch.setattr(Trust, "check_same", lambda self, origin, seq, data: None)


def any_row_tells_what_is_stable(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Stability, "is_usable", lambda self, vector, durable: True)


def no_relay_and_no_push(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(antientropy.AntiEntropy, "_push", lambda self, now_ms, out: None)
    patch.setattr(antientropy.AntiEntropy, "_relay", lambda self, peer, progress, now_ms, out: None)


@pytest.mark.parametrize(
    "plant",
    [
        acknowledge_before_durable,
        causal_check_off,
        heard_instead_of_delivered,
        heartbeat_over_what_is_not_durable,
        early_never_tried_again,
        any_row_tells_what_is_stable,
        no_relay_and_no_push,
    ],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_fault_is_found(plant: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)

    def breaks(drawn: Any) -> bool:
        try:
            play(drawn.draw, "lww_map", 30)
        except AssertionError:
            return True
        return False

    find(
        st.data(), breaks, settings=settings(max_examples=300, phases=[Phase.generate], database=None, derandomize=True)
    )

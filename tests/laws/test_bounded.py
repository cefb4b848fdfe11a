"""A bounded counter is never oversold: any schedule of writes, deliveries, syncs and crashes."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.engine.events import Op
from crdtstore.errors import HoldEnded, InsufficientRights
from crdtstore.leaves import ADD
from crdtstore.types import Mutator, View
from crdtstore.types.bounded_counter import USED, BoundedCounter, account, live_hold
from tests.laws.bounded_market import (
    BASE_MS,
    COLLECTION,
    KEY,
    LOWER,
    OPTIONS,
    REPLICAS,
    TYPE,
    Crash,
    Deliver,
    Do,
    Expire,
    Market,
    Step,
    Sync,
    Till,
)

# --- any schedule


@st.composite
def schedules(draw: st.DrawFn, max_steps: int = 30) -> list[Step]:
    """What happens; it begins with a grant that everybody knows more or less of."""
    region = st.integers(0, len(REPLICAS) - 1)
    operation = st.none() | st.none() | st.integers(1, 3)
    ops = st.sampled_from(["consume", "consume", "reserve", "reserve", "transfer", "confirm", "release", "grant"])
    do = st.builds(Do, region, ops, st.integers(1, 6), st.integers(0, 5), st.sampled_from([5, 50, 500]), operation)
    home = do.map(lambda step: step._replace(region=0))  # else a hold is seldom ended where it was made
    deliver = st.builds(Deliver, region, st.integers(0, 3), st.integers(1, 6))
    others: list[st.SearchStrategy[Step]] = [st.builds(kind, region) for kind in (Sync, Sync, Crash, Expire)]
    steps = st.one_of(do, do, home, home, deliver, deliver, *others)
    begin: list[Step] = [Do(0, "grant", draw(st.integers(4, 12))), Do(0, "transfer", 3, 1), Sync(0), Deliver(1, 0, 2)]
    return [*begin, *draw(st.lists(steps, min_size=max_steps // 2, max_size=max_steps))]


@settings(max_examples=150)
@given(schedules())
def test_nothing_is_oversold_in_any_schedule(steps: list[Step]) -> None:
    Market().run(steps)


# --- told by hand


def test_one_operation_that_consumes_in_two_regions_counts_once_and_the_loser_has_its_rights_back() -> None:
    market = Market()
    begin: list[Step] = [Do(0, "grant", 10), Do(0, "transfer", 5, 1), Sync(0), Deliver(1, 0, 9)]
    twice = [Do(0, "consume", 4, operation=1), Do(1, "consume", 4, operation=1)]
    market.run([*begin, *twice])
    us, eu, _ = REPLICAS
    for till in market.tills:
        assert TYPE.read(till.view()) == LOWER + 6
        assert account(till.view()).rights[us] + account(till.view()).rights[eu] == 6
    assert account(market.tills[0].view()).rights == {us: 1, eu: 5}, "us was first"


def test_one_operation_that_reserves_in_two_regions_is_one_hold_and_ends_once() -> None:
    market = Market()
    begin: list[Step] = [Do(0, "grant", 10), Do(0, "transfer", 5, 1), Sync(0), Deliver(1, 0, 9)]
    twice: list[Step] = [Do(0, "reserve", 4, operation=1), Do(1, "reserve", 4, operation=1)]
    market.run([*begin, *twice])
    assert len({hold for hold, _ in market.holds}) == 1, "every attempt names the same hold"
    assert TYPE.read(market.tills[2].view()) == LOWER + 6
    market.run([Do(0, "release", other=0)])
    for till in market.tills:
        assert TYPE.read(till.view()) == LOWER + 10
        assert not account(till.view()).held


def test_two_who_each_confirm_their_attempt_before_they_meet_are_not_oversold() -> None:
    """The one case in which a hold takes its amount twice: two different operations confirm it, each where it was made."""
    market = Market()
    begin: list[Step] = [Do(0, "grant", 10), Do(0, "transfer", 5, 1), Sync(0), Deliver(1, 0, 9)]
    twice: list[Step] = [Do(0, "reserve", 4, operation=1), Do(1, "reserve", 4, operation=1)]
    for step in [*begin, *twice, Do(0, "confirm"), Do(1, "confirm")]:
        market.step(step)
        market.check()
    market.run([])
    assert TYPE.read(market.tills[2].view()) == LOWER + 2


def test_one_operation_that_confirms_in_two_regions_counts_once() -> None:
    market = Market()
    begin: list[Step] = [Do(0, "grant", 10), Do(0, "transfer", 5, 1), Sync(0), Deliver(1, 0, 9)]
    twice: list[Step] = [Do(0, "reserve", 4, operation=1), Do(1, "reserve", 4, operation=1)]
    for step in [*begin, *twice, Do(0, "confirm", operation=2), Do(1, "confirm", operation=2)]:
        market.step(step)
        market.check()
    market.run([])
    assert TYPE.read(market.tills[2].view()) == LOWER + 6


def test_a_grant_tried_in_two_regions_that_both_spend_it_falls_below_the_bound() -> None:
    """Why it must not be: what the type says of grants is true."""
    tills = [Till(0), Till(1)]
    for till in tills:
        for name, operation in (("grant", 1), ("consume", None)):
            mutator = TYPE.mutators[name]
            till.write([Op(TYPE, COLLECTION, KEY, mutator, {"amount": 5}, options=OPTIONS)], [], BASE_MS, operation)
        till.durable = len(till.log)
    for data in tills[1].own():
        tills[0].apply(1, data)
    assert TYPE.read(tills[0].view()) == LOWER - 5


def test_a_key_used_for_two_requests_in_two_regions_takes_nothing_back() -> None:
    """Were they one operation, ap would have spent what it then did not receive."""
    us, eu, ap = (Till(at) for at in range(3))

    def write(till: Till, name: str, at_ms: int, operation: int | None = None, **given: Any) -> None:
        till.write([Op(TYPE, COLLECTION, KEY, TYPE.mutators[name], given)], [], BASE_MS + at_ms, operation, str(given))
        till.durable = len(till.log)

    def receive(till: Till, *others: Till) -> None:
        for other in others:
            for data in other.own()[till.applied[other.me] :]:
                till.apply(other.me, data)

    write(us, "grant", 0, amount=10)
    write(us, "transfer", 0, amount=5, to="eu")
    receive(eu, us)
    receive(ap, us)
    write(us, "transfer", 5, 7, amount=5, to="ap")
    write(eu, "transfer", 3, 7, amount=1, to="ap")
    receive(ap, us)
    write(ap, "consume", 9, amount=5)
    receive(ap, eu)
    assert account(ap.view()).rights == {REPLICAS[0]: 0, REPLICAS[1]: 4, REPLICAS[2]: 1}


# --- plants

Patch = pytest.MonkeyPatch


def schedule(seed: int, length: int = 60) -> list[Step]:
    """A longer schedule than Hypothesis likes to draw, in which most holds are ended, by their owners or others."""
    random = Random(seed)
    steps: list[Step] = [Do(0, "grant", random.randint(4, 12)), Do(0, "transfer", 3, 1), Sync(0), Deliver(1, 0, 2)]
    ops = ["consume", "consume", "reserve", "reserve", "confirm", "release", "transfer", "grant"]
    while len(steps) < length:
        region, draw = random.randrange(len(REPLICAS)), random.random()
        if draw < 0.5:
            operation = random.choice([None, None, None, 1, 2, 3])
            ttl_ms = random.choice([5, 100, 1_000])
            steps.append(Do(region, random.choice(ops), random.randint(1, 5), random.randrange(6), ttl_ms, operation))
        elif draw < 0.7:
            steps.append(Sync(region))
        elif draw < 0.92:
            steps.append(Deliver(region, random.randrange(4), random.randint(1, 6)))
        else:
            steps.append(Crash(region) if random.random() < 0.3 else Expire(region))
    return steps


def is_broken(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            Market().run(schedule(seed))
        except AssertionError:
            return True
    return False


def _plant(patch: Patch, name: str, method: Callable[..., list[Any]]) -> None:
    old = TYPE.mutators[name]
    new = Mutator(old.name, old.arguments, old.doc, old.reads, method)
    patch.setattr(TYPE, "mutators", {**TYPE.mutators, name: new})


def double_release(patch: Patch) -> None:
    """A release gives the rights back by an add, where a drop could do it only once."""

    def release(self: BoundedCounter, view: View, hold: str) -> list[Any]:
        return [ADD, [USED], -self._own_hold(view, hold).value[0]]

    _plant(patch, "release", release)


def rights_of_others_spent(patch: Patch) -> None:
    """What others hold is taken for one's own."""

    def need(self: BoundedCounter, view: View, amount: int) -> None:
        assert view.issuer is not None
        rights = self.rights(view, view.issuer.replica, view.issuer.regions)
        here = rights["here"] + sum(rights["elsewhere"].values())
        if here < amount:
            raise InsufficientRights("planted", requested=amount, here=rights["here"], elsewhere=rights["elsewhere"])

    patch.setattr(BoundedCounter, "need", need)


def consume_without_check(patch: Patch) -> None:
    """Nobody looks whether there is enough."""
    _plant(patch, "consume", lambda self, view, amount: [ADD, [USED], amount])


def hold_ended_by_anybody(patch: Patch) -> None:
    """A hold is confirmed where it happens to be seen."""

    def own_hold(self: BoundedCounter, view: View, hold: str) -> Any:
        live = live_hold(view, hold)
        if live is None:
            raise HoldEnded("planted", outcome="released")
        return live

    patch.setattr(BoundedCounter, "_own_hold", own_hold)


PLANTS = [double_release, rights_of_others_spent, consume_without_check, hold_ended_by_anybody]


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_is_found(plant: Callable[[Patch], None], monkeypatch: Patch) -> None:
    plant(monkeypatch)
    assert is_broken(200)


def test_without_a_fault_none_is_found() -> None:
    assert not is_broken(200)

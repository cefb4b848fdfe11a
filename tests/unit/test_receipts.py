"""Write receipts: who waits for whom, how long, and that a receipt names only who has it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crdtstore.configuration import Removed
from crdtstore.engine.events import Forced, Persisted
from crdtstore.errors import NotReplicated, UsageError, not_replicated
from crdtstore.receipts import Receipts
from crdtstore.service import Cancelled, Received, Request
from tests.engine.wire import cluster_of
from tests.unit.regions import Regions, op, shop

ADD = op("counter", "k", "add")


@pytest.fixture
def made() -> Regions:
    made = shop("us", "eu", "ap")
    made.lose()
    return made


def ask(made: Regions, region: str = "us", **fields: Any) -> int:
    """A commit that is durable where it was made."""
    ticket = made.ask(region, "commit", domain="shop", ops=[ADD], **fields)
    made.sync(region)
    return ticket


def carry(made: Regions, source: str, target: str, ms: int = 60) -> None:
    """A commit goes one way, and word that it is durable there goes the other."""
    made.deliver(source, target)
    made.sync(target)
    made.tick(ms)
    made.deliver(target, source)


# --- waiting


def test_nobody_waits_who_does_not_ask(made: Regions) -> None:
    assert made.reply(ask(made))["durable_in"] == ["us"]


def test_one_other_region_is_enough_for_one(made: Regions) -> None:
    ticket = ask(made, regions=1)
    assert made.answer(ticket) is None
    carry(made, "us", "ap")
    assert made.reply(ticket)["durable_in"] == ["us", "ap"]
    assert not made.services["us"].receipts


def test_two_regions_are_waited_for(made: Regions) -> None:
    ticket = ask(made, regions=2)
    carry(made, "us", "ap")
    assert made.answer(ticket) is None
    carry(made, "us", "eu")
    assert made.reply(ticket)["durable_in"] == ["us", "ap", "eu"], "this region, then the others in their order"


def test_what_is_applied_elsewhere_and_not_durable_counts_not(made: Regions) -> None:
    ticket = ask(made, regions=1)
    made.deliver("us", "eu")
    made.tick(60)
    made.deliver("eu", "us")
    assert made.answer(ticket) is None
    made.sync("eu")
    made.tick(60)
    made.deliver("eu", "us")
    assert made.reply(ticket)["durable_in"] == ["us", "eu"]


def test_word_may_come_by_way_of_a_third(made: Regions) -> None:
    """us hears nothing of ap itself, only from eu what ap has."""
    ticket = ask(made, regions=2, wait_ms=60_000)
    made.deliver("us", "ap")
    made.deliver("us", "eu")
    for _ in range(200):
        made.sync()
        made.tick(50)
        for pair in (("ap", "eu"), ("eu", "ap"), ("eu", "us"), ("us", "eu")):
            made.deliver(*pair)
        made.links["ap", "us"].clear()
    assert made.reply(ticket)["durable_in"] == ["us", "ap", "eu"]


def test_writes_are_answered_in_their_order_as_far_as_a_row_says(made: Regions) -> None:
    first, second = ask(made, regions=1), ask(made, regions=1)
    carry(made, "us", "eu")
    third = ask(made, regions=1)
    assert (made.reply(first)["values"], made.reply(second)["values"]) == ([1], [2])
    assert made.answer(third) is None
    carry(made, "us", "eu")
    assert made.reply(third)["durable_in"] == ["us", "eu"]


def test_too_late_tells_who_has_it(made: Regions) -> None:
    ticket = ask(made, regions=2, wait_ms=200)
    carry(made, "us", "eu")
    assert made.answer(ticket) is None
    assert made.output.wake_ms <= made.now_ms + 200
    made.tick(200)
    late = made.reply(ticket)
    assert (late["durable_in"], late["values"]) == (["us", "eu"], [1])
    error = not_replicated(late, 2)
    assert isinstance(error, NotReplicated)
    assert (error.status, error.effect, error.retryable, error.durable_in) == (202, "applied", False, ["us", "eu"])
    assert not_replicated(late, 1) is None
    assert made.services["us"].receipts.late == 1


def test_who_does_not_wait_is_told_at_once(made: Regions) -> None:
    assert made.reply(ask(made, regions=1, wait_ms=0))["durable_in"] == ["us"]


def test_time_counts_from_the_question(made: Regions) -> None:
    """The disk took so long that nothing is left to wait."""
    ticket = made.ask("us", "commit", domain="shop", ops=[ADD], regions=1, wait_ms=100)
    made.tick(100)
    assert made.answer(ticket) is None, "it is not durable here"
    made.sync("us")
    assert made.reply(ticket)["durable_in"] == ["us"]


def test_a_node_bounds_how_long(made: Regions) -> None:
    ticket = ask(made, regions=1, wait_ms=10**9)
    made.tick(made.services["us"].host.options.max_wait_ms - 1)
    made.lose()
    assert made.answer(ticket) is None
    made.tick(1)
    assert made.reply(ticket)["durable_in"] == ["us"]


def test_nobody_looks_when_nothing_has_moved(made: Regions, monkeypatch: pytest.MonkeyPatch) -> None:
    receipts, looks = made.services["us"].receipts, []
    reached = receipts._reached
    monkeypatch.setattr(receipts, "_reached", lambda *rest: (looks.append(rest), reached(*rest))[1])
    tickets = [ask(made, regions=1, wait_ms=60_000) for _ in range(50)]
    before = len(looks)
    for _ in range(100):
        made.tick(1)
    assert len(looks) == before
    carry(made, "us", "eu")
    assert all(made.answer(ticket) for ticket in tickets)
    assert len(looks) <= before + 1 + 50, "one look, and one for each answer"


# --- what cannot be


@pytest.mark.parametrize("wanted", [3, 4, 255])
def test_more_regions_than_there_are(made: Regions, wanted: int) -> None:
    error = made.refused("us", "commit", domain="shop", ops=[ADD], regions=wanted)
    assert (error.code, error.status, error.effect) == ("bad-request", 400, "none")
    assert f"there are 2 (ap, eu), got {wanted}" in error.detail
    assert made.do("us", "read", domain="shop", collection="counter", key="k")["exists"] is False


def test_a_region_on_its_own() -> None:
    made = shop("us")
    error = made.refused("us", "commit", domain="shop", ops=[ADD], regions=1)
    assert "there are none, got 1" in error.detail
    assert made.reply(ask(made, regions=0))["durable_in"] == ["us"]


def test_fewer_than_none(made: Regions) -> None:
    assert made.refused("us", "commit", domain="shop", ops=[ADD], regions=-1).code == "bad-request"


def test_so_many_may_wait_and_no_more() -> None:
    made = shop("us", "eu", max_waiting=3)
    made.lose()
    tickets = [ask(made, regions=1, wait_ms=5_000) for _ in range(3)]
    error = made.refused("us", "commit", domain="shop", ops=[ADD], regions=1)
    assert (error.code, error.effect) == ("overloaded", "none")
    made.tick(5_000)
    made.lose()
    assert [made.reply(ticket)["values"] for ticket in tickets] == [[1], [2], [3]]
    assert made.reply(ask(made))["values"] == [4]


# --- who leaves


def test_who_asked_may_leave_and_the_write_stays(made: Regions) -> None:
    waiting, unwritten = ask(made, regions=1), made.ask("us", "commit", domain="shop", ops=[ADD], regions=1)
    made.step("us", Cancelled(waiting), Cancelled(unwritten))
    made.sync("us")
    service = made.services["us"]
    assert not service.receipts
    assert not service._pending
    assert service.receipts.wake_ms > made.now_ms + 10**9
    made.settle(1_000)
    assert (made.answer(waiting), made.answer(unwritten)) == (None, None)
    assert made.do("eu", "read", domain="shop", collection="counter", key="k")["value"] == 2


# --- replays


def test_a_repetition_tells_who_has_it_and_waits_too(made: Regions) -> None:
    first = ask(made, id="order-1", regions=1, wait_ms=0)
    assert made.reply(first)["durable_in"] == ["us"]
    again = ask(made, id="order-1", regions=1)
    assert made.answer(again) is None
    carry(made, "us", "eu")
    assert (made.reply(again)["replayed"], made.reply(again)["durable_in"]) == (True, ["us", "eu"])
    assert made.reply(ask(made, id="order-1"))["durable_in"] == ["us", "eu"], "whoever asks for none is told too"
    elsewhere = ask(made, "eu", id="order-1", regions=1)
    assert made.reply(elsewhere)["durable_in"] == ["eu", "us"], "its maker had it before anybody else"
    made.settle(1_000)
    assert made.reply(ask(made, "ap", id="order-1", regions=2))["durable_in"] == ["ap", "eu", "us"]


# --- members


def removed(made: Regions, *regions: str) -> Any:
    """The configuration after these were evicted."""
    before = made.services["us"].host.groups["shop/0"].configuration
    gone = {made.replicas[region] for region in regions}
    return type(before)(
        before.number + 1,
        before.epochs,
        tuple(member for member in before.members if member.replica not in gone),
        tuple(Removed(member) for member in before.members if member.replica in gone),
    )


def adopt(made: Regions, region: str, configuration: Any) -> None:
    service, out = made.services[region], made.output
    service.host.step("shop/0", Forced(configuration), made.now_ms, out)
    if out.persist:
        service.host.finish(made.now_ms, out)
        made.numbers[region].append(out.persist_number)
    made.step(region, Cancelled(0))
    made.sync(region)


def test_an_evicted_region_counts_no_more(made: Regions) -> None:
    ticket = ask(made, regions=2, wait_ms=5_000)
    carry(made, "us", "ap")
    assert made.answer(ticket) is None
    configuration = removed(made, "ap")
    adopt(made, "us", configuration)
    adopt(made, "eu", configuration)
    for _ in range(90):
        made.tick(50)
        made.flush()
    assert made.answer(ticket) is None, "there may be two again before it is time"
    made.tick(1_000)
    assert made.reply(ticket)["durable_in"] == ["us", "eu"]
    error = made.refused("us", "commit", domain="shop", ops=[ADD], regions=2)
    assert "there are 1 (eu), got 2" in error.detail


def test_rows_of_another_configuration_count_no_more_and_new_ones_do(made: Regions) -> None:
    ticket = ask(made, regions=1, id="a", wait_ms=60_000)
    configuration = removed(made, "ap")
    adopt(made, "us", configuration)
    assert made.answer(ticket) is None
    adopt(made, "eu", configuration)
    for _ in range(100):
        made.tick(50)
        made.flush()
    assert made.reply(ticket)["durable_in"] == ["us", "eu"]
    assert made.reply(ask(made, id="a"))["durable_in"] == ["us", "eu"]


def test_who_is_removed_while_it_waits_does_not_know(made: Regions) -> None:
    ticket = ask(made, regions=1, wait_ms=5_000)
    adopt(made, "us", removed(made, "us"))
    error = made.error(ticket)
    assert (error.code, error.effect, error.retryable) == ("fenced", "unknown", True)


def test_who_is_fenced_while_it_waits_does_not_know(made: Regions) -> None:
    ticket = ask(made, regions=1, wait_ms=5_000)
    made.services["us"].host.fence("eu has 7 commits of this replica, which made 1")
    made.step("us", Cancelled(0))
    assert made.error(ticket).effect == "unknown"


# --- against an oracle

_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from(["us", "eu", "ap", "sa"]), st.integers(0, 3), st.integers(0, 400)),
        st.tuples(st.just("repeat"), st.sampled_from(["us", "eu", "ap", "sa"]), st.integers(0, 3), st.integers(0, 5)),
        st.tuples(st.just("sync"), st.sampled_from(["us", "eu", "ap", "sa"])),
        st.tuples(
            st.just("deliver"), st.sampled_from(["us", "eu", "ap", "sa"]), st.sampled_from(["us", "eu", "ap", "sa"])
        ),
        st.tuples(st.just("tick"), st.integers(1, 150)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
    ),
    max_size=60,
)


class _Asked(NamedTuple):
    region: str
    wanted: int
    until_ms: int


class _Oracle:
    """Regions of which messages are lost, late or out of step with the disks; it looks into all of these, which no receipt can."""

    def __init__(self) -> None:
        self.made = shop("us", "eu", "ap", "sa")
        self.made.lose()
        self.asked: dict[int, _Asked] = {}
        self.ids: list[str] = []
        self.answered: set[int] = set()
        self.gone: set[int] = set()

    def write(self, region: str, wanted: int, wait_ms: int) -> None:
        self.ids.append(f"id-{len(self.ids)}")
        self._ask(region, wanted, wait_ms, self.ids[-1])

    def repeat(self, region: str, wanted: int, which: int) -> None:
        if which < len(self.ids):
            self._ask(region, wanted, 200, self.ids[which])

    def _ask(self, region: str, wanted: int, wait_ms: int, op_id: str) -> None:
        ticket = self.made.ask(region, "commit", domain="shop", ops=[ADD], regions=wanted, wait_ms=wait_ms, id=op_id)
        self.asked[ticket] = _Asked(region, wanted, self.made.now_ms + wait_ms)

    def sync(self, region: str) -> None:
        self.made.sync(region)

    def deliver(self, source: str, target: str) -> None:
        self.made.deliver(source, target)

    def tick(self, ms: int) -> None:
        self.made.tick(ms)

    def leave(self, which: int) -> None:
        if which < len(self.asked) and (ticket := list(self.asked)[which]) not in self.made.replies:
            self.gone.add(ticket)
            self.made.step(self.asked[ticket].region, Cancelled(ticket))

    def judge(self) -> None:
        for ticket in self.asked.keys() - self.answered - self.gone:
            answer = self.made.answer(ticket)
            if answer is not None:
                self.answered.add(ticket)
                assert isinstance(answer, dict), answer
                self._judge(self.asked[ticket], answer)

    def _judge(self, asked: _Asked, answer: dict[str, Any]) -> None:
        where = answer["durable_in"]
        assert where[0] == asked.region
        assert where[1:] == sorted(set(where[1:]) - {asked.region})
        replica, _, seq = answer["dot"].rpartition(":")
        for name in where:
            engine = self.made.services[name].host.groups["shop/0"]
            assert engine.durability.vector[engine.replicas.index(replica)] >= int(seq), f"{name} has it not"
        assert len(where) > asked.wanted or self.made.now_ms >= asked.until_ms, "it was early"


_REGION = st.sampled_from(["us", "eu", "ap", "sa"])
_STEP = st.one_of(
    st.tuples(st.just("write"), _REGION, st.integers(0, 3), st.integers(0, 400)),
    st.tuples(st.just("repeat"), _REGION, st.integers(0, 3), st.integers(0, 5)),
    st.tuples(st.just("sync"), _REGION),
    st.tuples(st.just("deliver"), _REGION, _REGION),
    st.tuples(st.just("tick"), st.integers(1, 150)),
    st.tuples(st.just("leave"), st.integers(0, 5)),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(_STEP, max_size=60))
def test_a_receipt_names_only_who_has_it_and_all_are_answered_in_time(steps: list[Any]) -> None:
    oracle = _Oracle()
    for name, *arguments in steps:
        getattr(oracle, name)(*arguments)
        oracle.judge()
    oracle.made.sync()
    oracle.made.tick(400)
    oracle.judge()
    assert oracle.asked.keys() - oracle.gone == oracle.answered, "everybody is answered when it is time"
    for service in oracle.made.services.values():
        receipts = service.receipts
        assert (receipts._waiting, receipts._lines, list(receipts._deadlines)) == ({}, {}, [])


def test_the_requests_of_one_step_wait_together(made: Regions) -> None:
    requests = [Request(900 + at, "commit", {"domain": "shop", "ops": [ADD], "regions": 1}) for at in range(5)]
    made.step("us", *requests)
    numbers, made.numbers["us"] = made.numbers["us"], []
    assert len(numbers) == 1
    made.step("us", Persisted(numbers[0]))
    carry(made, "us", "eu")
    assert [made.reply(900 + at)["values"] for at in range(5)] == [[1], [2], [3], [4], [5]]


# --- regions of several nodes


def test_where_a_receipt_says_that_it_is_its_token_is_served(made: Regions) -> None:
    """Another write of the same step, too large for the same frame, has not come there, and never will."""
    large = op("lww-register", "k", "set", value="x" * 20_000)
    asked = ({"ops": [ADD], "regions": 1}, {"ops": [large]})
    made.step("us", *[Request(900 + at, "commit", {"domain": "shop", **each}) for at, each in enumerate(asked)])
    made.sync("us")
    made.step("eu", Received(made.replicas["us"], made.links["us", "eu"].popleft()))
    made.lose()
    made.sync("eu")
    made.tick(60)
    made.deliver("eu", "us")
    receipt = made.reply(900)
    assert receipt["durable_in"] == ["us", "eu"]
    found = made.do("eu", "read", domain="shop", collection="counter", key="k", token=receipt["token"], wait_ms=0)
    assert found["value"] == 1


def engine_of(rows: dict[str, int | None], me: str, origin: str, here: int) -> Any:
    """An engine, as far as receipts look at it: what the row of each member says of the commits of ``origin``."""
    cluster = cluster_of(*rows)
    names = list(rows)
    newest = [None if upto is None else SimpleNamespace(vector=[upto] * len(rows)) for upto in rows.values()]
    vector = [0] * len(rows)
    vector[names.index(origin)] = here
    return SimpleNamespace(
        configuration=SimpleNamespace(members=cluster.members),
        membership=SimpleNamespace(shape=SimpleNamespace(members=list(range(len(rows))))),
        rows=SimpleNamespace(newest=newest),
        durability=SimpleNamespace(vector=vector),
        me=names.index(me),
    )


def test_a_region_has_it_when_one_of_its_nodes_has_and_counts_once() -> None:
    receipts = Receipts("us")
    engine = engine_of({"us-1": None, "us-2": 9, "eu-1": 3, "eu-2": 5, "ap-1": None}, "us-1", "us-1", 9)
    assert receipts.durable_in(engine, 0, 5) == ["us", "eu"], "its own region is named once, whoever else is in it"
    assert receipts.durable_in(engine, 0, 6) == ["us"]
    receipts.check(engine, 2)
    with pytest.raises(UsageError, match=r"there are 2 \(ap, eu\), got 3"):
        receipts.check(engine, 3)


def test_the_region_of_its_maker_has_it_before_any_row_says_so() -> None:
    engine = engine_of({"us-1": None, "eu-1": None, "eu-2": 0}, "us-1", "eu-1", 4)
    assert Receipts("us").durable_in(engine, 1, 4) == ["us", "eu"]

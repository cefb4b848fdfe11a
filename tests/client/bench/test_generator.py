"""The generator in virtual time, against servers that are slow, stand still or refuse."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from crdtstore.errors import NotReplicated, OutcomeUnknown, Unavailable, UsageError
from crdtstore_client.bench.books import Books, Checked
from crdtstore_client.bench.generator import GRACE_S, NOT_SENT, Generator, Plan
from crdtstore_client.bench.mix import KINDS, Kind, parse_mix
from tests.client.bench.virtual import run

PLAN = Plan(
    mix=parse_mix("add=50,read=50"),
    keys=100,
    zipf=0.0,
    connections=1,
    tasks=8,
    seconds=10.0,
    warm_up=0.0,
    rate=100.0,
    value_bytes=16,
    seed=1,
)
MS = 1_000_000


class Server:
    """Answers after ``takes_s``; stands still between ``from_s`` and ``to_s``. Its own measure is that of a naive client."""

    def __init__(self, takes_s: float = 0.001, from_s: float = 0.0, to_s: float = 0.0) -> None:
        self.takes_s = takes_s
        self.from_s, self.to_s = from_s, to_s
        self.asked: list[tuple[int, str, int, dict[str, Any]]] = []
        self.naive: list[float] = []
        """How long each took from the moment in which it was sent: what is not to be told."""
        self.at_once = self.most_at_once = 0

    async def send(self, connection: int, kind: Kind, key: int, arguments: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        sent = loop.time()
        self.asked.append((connection, kind.name, key, arguments))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        if self.from_s <= sent < self.to_s:
            await asyncio.sleep(self.to_s - sent)
        await asyncio.sleep(self.takes_s)
        self.at_once -= 1
        self.naive.append(loop.time() - sent)


def measure(plan: Plan, server: Any, stop_at: float | None = None) -> Generator:
    async def whole() -> Generator:
        loop = asyncio.get_running_loop()
        generator = Generator(plan, Books(plan.mix), server.send, loop.time)
        if stop_at is not None:
            loop.call_later(stop_at, generator.stop)
        await generator.run()
        return generator

    return run(whole())


def latency(generator: Generator, share: float) -> float:
    """Milliseconds, over all kinds and connections."""
    from crdtstore_client.bench.results import joined  # noqa: PLC0415

    return (joined(list(generator.series.values())).latency.quantile(share) or 0) / MS


def naive(server: Server, share: float) -> float:
    taken = sorted(server.naive)
    return taken[min(len(taken) - 1, int(share * len(taken)))] * 1000


# --- when requests begin


def test_an_open_loop_asks_as_often_as_it_was_told() -> None:
    server = Server()
    generator = measure(PLAN, server)
    assert len(server.asked) == generator.requests == 1_000
    assert (generator.late, generator.not_sent, generator.failures) == (0, 0, 0)
    assert latency(generator, 0.5) == pytest.approx(1.0, rel=0.01)
    assert generator.elapsed_s == pytest.approx(10.0, rel=0.01)


def test_a_closed_loop_asks_when_it_was_answered() -> None:
    server = Server(takes_s=0.01)
    generator = measure(replace(PLAN, rate=None), server)
    assert server.most_at_once == 8
    assert generator.requests == pytest.approx(8 * 1_000, rel=0.01)
    assert latency(generator, 0.99) == pytest.approx(10.0, rel=0.01)


@pytest.mark.parametrize("rate", [None, 100.0])
def test_what_was_asked_while_warming_up_is_not_measured_but_written(rate: float | None) -> None:
    plan = replace(PLAN, rate=rate, warm_up=5.0, seconds=5.0, mix=parse_mix("add"))
    generator = measure(plan, Server(takes_s=0.05))
    measured = sum(series.done.count for series in generator.series.values())
    assert measured == pytest.approx(generator.requests / 2, rel=0.05)
    assert generator.elapsed_s == pytest.approx(5.0, rel=0.05)
    checked = Checked()
    generator.books.check("counter", {}, checked)
    assert checked.acknowledged == generator.requests


# --- coordinated omission


def test_the_open_loop_shows_that_the_server_stood_still_and_a_naive_measure_does_not() -> None:
    """For one second of ten nobody is answered: a tenth of all requests waited, half a second on the average."""
    server = Server(from_s=4.0, to_s=5.0)
    generator = measure(PLAN, server)
    assert naive(server, 0.99) < 2, "eight tasks saw one slow answer each: 8 of 1,000"
    assert latency(generator, 0.99) > 880
    assert latency(generator, 0.95) == pytest.approx(500, rel=0.2)
    assert latency(generator, 0.5) == pytest.approx(1.0, rel=0.01)
    assert generator.late > 80
    assert generator.requests == 1_000, "nothing that was due is left out"


def test_the_closed_loop_hides_it() -> None:
    """The same server: this is why the closed loop says so."""
    generator = measure(replace(PLAN, rate=None, tasks=8), Server(takes_s=0.08, from_s=4.0, to_s=5.0))
    assert latency(generator, 0.99) < 100
    assert latency(generator, 1.0) > 900


def test_what_was_due_and_never_sent_counts_with_what_it_had_waited() -> None:
    """The server stands still for ever but for one answer a second: nobody can keep up."""
    generator = measure(replace(PLAN, tasks=1), Server(takes_s=1.0))
    sent = generator.requests
    assert sent == pytest.approx(10 + GRACE_S, abs=1)
    assert generator.not_sent == 1_000 - sent
    assert generator.series[0, "add"].failed[NOT_SENT].count == generator.not_sent
    assert latency(generator, 0.5) > 5_000


# --- what goes wrong


class Refusing(Server):
    """Each fifth request goes wrong, each time otherwise."""

    ERRORS = (
        UsageError("x", code="invalid-op"),
        NotReplicated("x", durable_in=["us"]),
        OutcomeUnknown("x"),
        Unavailable("x", code="unreachable"),
    )

    async def send(self, connection: int, kind: Kind, key: int, arguments: dict[str, Any]) -> None:
        await super().send(connection, kind, key, arguments)
        number = len(self.asked)
        if number % 5 == 0:
            raise self.ERRORS[number // 5 % 4]


def test_failures_are_counted_by_code_and_booked_by_effect() -> None:
    plan = replace(PLAN, mix=parse_mix("add"), tasks=1)
    generator = measure(plan, Refusing())
    (series,) = generator.series.values()
    assert {code: took.count for code, took in series.failed.items()} == {
        "invalid-op": 50,
        "not-replicated": 50,
        "outcome-unknown": 50,
        "unreachable": 50,
    }
    assert (series.done.count, series.failures, generator.failures) == (800, 200, 200)
    assert series.latency.count == 800 + 100, "who waited for an answer in vain has waited"
    checked = Checked()
    generator.books.check("counter", {}, checked)
    assert (checked.acknowledged, checked.unknown) == (850, 50)


def test_what_is_no_error_of_the_store_ends_the_run() -> None:
    class Broken:
        async def send(self, *_: Any) -> None:
            raise RuntimeError("ours")

    with pytest.raises(RuntimeError, match="ours"):
        measure(PLAN, Broken())


@pytest.mark.parametrize("rate", [None, 100.0])
def test_it_stops_when_it_is_told(rate: float | None) -> None:
    generator = measure(replace(PLAN, rate=rate), Server(takes_s=0.1), stop_at=3.0)
    assert generator.is_stopped
    assert generator.elapsed_s == pytest.approx(3.0, rel=0.3)
    assert generator.requests == pytest.approx(300 if rate else 240, rel=0.2)
    assert generator.not_sent < 300


# --- what is asked


def test_a_seed_repeats_what_is_asked() -> None:
    def asked(seed: int) -> list[Any]:
        server = Server()
        measure(replace(PLAN, tasks=3, connections=3, seed=seed, seconds=1.0), server)
        return server.asked

    assert asked(1) == asked(1)
    assert asked(1) != asked(2)
    assert {connection for connection, *_ in asked(1)} == {0, 1, 2}


def test_weights_are_kept() -> None:
    mix, random = parse_mix("add=10,aw_set.add=30,read=60"), Random(3)
    drawn = Counter((kind.type_name, kind.op) for kind in (mix.draw(random) for _ in range(40_000)))
    expected = {
        ("counter", "add"): 0.1,
        ("aw_set", "add"): 0.3,
        ("counter", "read"): 0.15,
        ("aw_set", "read"): 0.45,
    }
    assert drawn.keys() == expected.keys()
    for what, share in expected.items():
        assert drawn[what] / 40_000 == pytest.approx(share, abs=0.01)
    assert mix.names == ["add", "aw_set.add", "read"]
    assert mix.types == ["aw_set", "counter"]


def test_reads_alone_read_counters_and_zeros_are_left_out() -> None:
    assert [(kind.type_name, kind.op) for kind in parse_mix("read").kinds] == [("counter", "read")]
    assert parse_mix("add=0,aw_set.read=2").names == ["aw_set.read"]
    assert len(parse_mix(",".join(KINDS)).kinds) == len(KINDS)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is no ''"),
        ("add=50,fly=50", "there is no 'fly'"),
        ("counter.fly", "there is no 'counter.fly'"),
        ("text.read", "there is no 'text.read'"),
        ("add=x", "the weight of add is a number, not 'x'"),
        ("add=-1", "from 0 on, not '-1'"),
        ("add=nan", "from 0 on, not 'nan'"),
        ("add=inf", "from 0 on, not 'inf'"),
        ("add=1,add=2", "'add' stands there twice"),
        ("add=0,read=0", "all weights are 0"),
    ],
)
def test_a_mix_that_cannot_be_meant(text: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_mix(text)
    assert message in caught.value.detail
    assert "counter.add" in caught.value.detail
    assert "Nothing changed." in caught.value.detail


# --- books


def test_books_that_add_up_and_books_that_do_not() -> None:
    mix = parse_mix("add,aw_set.add,rw_set.add,rw_set.remove")
    books = Books(mix)
    add, element = mix.kinds[0], mix.kinds[1]
    books.note(add, 1, {"amount": 1}, is_known=True)
    books.note(add, 1, {"amount": 1}, is_known=False)
    books.note(element, 7, {"elements": [3]}, is_known=True)
    books.note(element, 7, {"elements": [4]}, is_known=False)
    assert books.checkable == ["aw_set", "counter"]
    for found in (1, 2):
        checked = Checked()
        books.check("counter", {1: found}, checked)
        assert (checked.wrong, checked.acknowledged, checked.unknown, checked.found) == (0, 1, 1, found)
    for values in ({1: 0}, {1: 3}, {}, {1: 1, 9: 1}):
        checked = Checked()
        books.check("counter", values, checked)
        assert checked.wrong == 1
    assert checked.examples == ["counter key 9 holds 1, acknowledged are 0"]
    for there, wrong in (({3}, 0), ({3, 4}, 0), ({4}, 1), ({3, 5}, 1), (set(), 1)):
        checked = Checked()
        books.check("aw_set", {7: there}, checked)
        assert (checked.wrong, checked.elements) == (wrong, 1)

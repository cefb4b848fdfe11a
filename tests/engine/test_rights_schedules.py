"""Any schedule of writes that wait, words lost and said twice, cuts and crashes: nobody ever spends what it has not."""

from __future__ import annotations

from random import Random
from typing import Any

from crdtstore.engine.output import Committed
from crdtstore.messages import Want, decode_message
from crdtstore.types.bounded_counter import account
from tests.engine.markets import TYPE, pass_time, view
from tests.engine.wire import Wire, op


class Schedule:
    """A seeded run of three regions. Mutable."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.wire = Wire("us", "eu", "ap", seed=seed)
        self.wire.connect()
        self.granted = 0
        self.holds: list[int] = []
        """The tickets of reservations."""
        self.spending: dict[int, tuple[Any, int]] = {}
        """What was asked for, by ticket: operation id and amount."""
        self.said: list[tuple[str, str, bytes]] = []

    def run(self, steps: int = 150) -> None:
        """Chances first, then peace: everything arrives, and nobody waits any more."""
        draws = (
            (0.08, self.grant),
            (0.24, self.consume),
            (0.08, self.reserve),
            (0.05, self.end_a_hold),
            (0.25, self.deliver),
            (0.15, self.sync),
            (0.03, self.lose),
            (0.05, self.say_again),
            (0.03, self.cut_or_connect),
            (0.02, self.crash),
        )
        weights, actions = zip(*draws, strict=True)
        for _ in range(steps):
            [action] = self.random.choices(actions, weights)
            action(*self.random.sample(self.wire.names, 2))
            self.wire.tick(self.random.choice([0, 5, 20, 100]))
            self.check()
        for at, name in enumerate(self.wire.names):
            for other in self.wire.names[at + 1 :]:
                if frozenset((name, other)) not in self.wire.connected:
                    self.wire.connect((name, other))
        pass_time(self.wire, 5_000, 50)
        self.wire.settle()
        self.wire.check_same()
        self.check()
        assert self.sold <= self.granted, f"{self.sold} sold of {self.granted}"
        for engine in self.wire.engines.values():
            assert not engine.rights.waiting
            assert not engine.rights._waiting

    def check(self) -> None:
        for name in self.wire.names:
            seen = account(view(self.wire, name))
            assert sum(seen.rights.values()) >= 0, "oversold"
            assert all(amount >= 0 for amount in seen.rights.values()), "somebody spent what it did not have"
            assert all(amount > 0 for amount in seen.held.values())

    @property
    def sold(self) -> int:
        """What was acknowledged as consumed; an operation tried twice once."""
        once: dict[Any, int] = {}
        for ticket, (operation, amount) in self.spending.items():
            if isinstance(self.wire.answer_to(ticket), Committed):
                once[operation or ticket] = amount
        return sum(once.values())

    # --- what may happen

    def grant(self, name: str, other: str) -> None:
        amount = self.random.randint(1, 20)
        self.granted += amount
        self.wire.write(self.random.choice(["us", "us", "us", name]), op(TYPE, "k", "grant", amount=amount))

    def consume(self, name: str, other: str) -> None:
        amount, operation = self.random.randint(1, 6), None
        if self.random.random() < 0.3:
            key = self.random.randrange(40)
            amount, operation = key % 5 + 1, (bytes([key]) * 16, 1)
        wait_ms = self.random.choice([0, 100, 1_000])
        ticket = self.wire.write(name, op(TYPE, "k", "consume", amount=amount), operation=operation, wait_ms=wait_ms)
        self.spending[ticket] = (operation, amount)

    def reserve(self, name: str, other: str) -> None:
        amount, ttl_ms = self.random.randint(1, 6), self.random.choice([50, 2_000])
        self.holds.append(self.wire.write(name, op(TYPE, "k", "reserve", amount=amount, ttl_ms=ttl_ms), wait_ms=100))

    def end_a_hold(self, name: str, other: str) -> None:
        answer = self.wire.answer_to(self.random.choice(self.holds)) if self.holds else None
        if isinstance(answer, Committed):
            where = self.random.choice([name, self.wire.names[answer.origin]])
            call = self.random.choice(["confirm", "release"])
            self.wire.write(where, op(TYPE, "k", call, hold=answer.values[0]))

    def deliver(self, name: str, other: str) -> None:
        for source in self.wire.names:
            for target in self.wire.names:
                if self.random.random() < 0.7:
                    self.said += [(source, target, data) for data in list(self.wire.links[source, target])[:2]]
                    self.wire.deliver(source, target, self.random.randint(1, 5))

    def sync(self, name: str, other: str) -> None:
        self.wire.sync(*self.random.sample(self.wire.names, self.random.randint(1, 3)))

    def lose(self, name: str, other: str) -> None:
        self.wire.lose(name, other)

    def say_again(self, name: str, other: str) -> None:
        wants = [said for said in self.said if isinstance(decode_message(said[2]), Want)]
        for source, target, data in wants[-3:]:
            if frozenset((source, target)) in self.wire.connected:
                self.wire.receive(source, target, data)

    def cut_or_connect(self, name: str, other: str) -> None:
        if frozenset((name, other)) in self.wire.connected:
            self.wire.cut(name, other)
        else:
            self.wire.connect((name, other))

    def crash(self, name: str, other: str) -> None:
        self.wire.crash(name, self.random.randint(0, 1))


def test_nothing_is_oversold_whatever_is_lost_late_or_said_twice() -> None:
    runs = [Schedule(seed) for seed in range(25)]
    for run in runs:
        run.run()
    assert sum(run.sold for run in runs) > sum(run.granted for run in runs) // 4, "they do sell"
    served = sum(engine.rights.wants_served for run in runs for engine in run.wire.engines.values())
    assert served > 40, "and rights have moved"

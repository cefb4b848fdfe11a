"""An install that is cut, lost, repeated, altered: it begins again or goes on, and counts only as a whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from crdtstore.configuration import Member
from crdtstore.engine.checkpoint import Checkpoint
from crdtstore.errors import ProtocolError, StorageError
from crdtstore.install import landing, lending
from crdtstore.install.parts import GONE, Commits, decode_body
from crdtstore.messages import Fetch, Message, Part, encode_message
from crdtstore.saving import Saved
from tests.engine.install_runs import begin_again, finish, with_history
from tests.engine.installing import AP, EU, GROUP, US, Site, World, altered, watch_l7


class Crash(Exception):
    """The power is cut, now."""


@pytest.fixture(autouse=True)
def laws(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    monkeypatch.setattr(lending, "PART_ROWS", 12)
    monkeypatch.setattr(lending, "PART_BYTES", 1_500)
    broken = watch_l7(monkeypatch)
    yield broken
    assert not broken


def kinds(world: World) -> Counter[str]:
    return Counter(type(decode_body(part.body)).__name__ for part in world.parts if part.number >= 0)


def test_all_kinds_of_parts_come() -> None:
    world = with_history()
    begin_again(world)
    finish(world)
    assert set(kinds(world)) == {"Head", "Rows", "Piece", "Commits", "End"}
    assert kinds(world)["Rows"] > 5
    assert kinds(world)["Commits"] > 2
    assert max(Counter(part.number for part in world.parts if part.number >= 0).values()) == 1, "nothing twice"


def events(what: str) -> int:
    """How many of these there are while it installs."""
    world = with_history()
    site = begin_again(world)
    seen = 0

    def count(event: str) -> None:
        nonlocal seen
        seen += event == what

    site.on_event = count
    world.run_until(lambda: site.is_installed)
    return seen


def crash_at(world: World, site: Site, what: str, number: int) -> None:
    """Cut the power at one event; then go on."""
    left = number

    def fail(event: str) -> None:
        nonlocal left
        left -= event == what
        if left < 0:
            site.on_event = lambda event: None
            raise Crash

    site.on_event = fail
    try:
        world.run_until(lambda: site.is_installed)
    except Crash:
        site.crash()
        world.run(50)
        site.start()
    site.on_event = lambda event: None


@pytest.mark.parametrize("what", ["part", "persisted", "saved"])
def test_it_may_crash_at_every_event(what: str) -> None:
    most = events(what)
    assert most > 3
    for number in range(most):
        world = with_history()
        site = begin_again(world)
        crash_at(world, site, what, number)
        finish(world)


def test_it_may_crash_again_and_again() -> None:
    world = with_history()
    site = begin_again(world)
    for number in (9, 14, 11, 17, 12):
        crash_at(world, site, "part", number)
    finish(world)


@pytest.mark.parametrize(("second", "counts"), [(US, False), (EU, False), (US, True)])
def test_what_failed_attempts_left_in_the_log_counts_for_nothing(
    monkeypatch: pytest.MonkeyPatch, second: Member, *, counts: bool
) -> None:
    """The second attempt takes its history from the same member, or from another who has seen other commits. ``counts``: did a start
    take in what the first left, it would not come up.
    """
    world = with_history()
    world.part(EU, AP)
    site = begin_again(world)
    world.run_until(
        lambda: any(part.number > 0 and isinstance(decode_body(part.body), Commits) for part in world.parts)
    )
    world.run(30)
    site.crash()
    if second is EU:
        world.part(US, AP)
        world.heal(EU, AP)
    site.start()
    world.run_until(lambda: site.is_installed)
    checkpoint = site.engine().checkpoint
    assert checkpoint is not None
    left = [
        entry.data
        for position, record in site.log.replay(site.host.needed)
        for entry in record
        if entry.group == GROUP and entry.origin and position < checkpoint.begins
    ]
    assert left, "a start finds what the first attempt wrote"
    site.crash()
    if counts:
        none = property(lambda self: 0, lambda self, begins: None)
        monkeypatch.setattr(Checkpoint, "begins", none, raising=False)
        with pytest.raises((ProtocolError, StorageError)):
            site.start()
        return
    site.start()
    world.heal(US if second is EU else EU, AP)
    finish(world)


def shuffled(world: World, site: Site) -> Callable[[Site, Any, Message], list[bytes] | None]:
    held: list[bytes] = []

    def edit(source: Site, peer: Any, message: Message) -> list[bytes] | None:
        if not isinstance(message, Part | Fetch) or message.group != GROUP:
            return None
        chance = world.random.random()
        data = encode_message(message)
        if chance < 0.2:
            return []
        if chance < 0.4:
            return [data, data]
        if chance < 0.6:
            held.append(data)
            return []
        now, held[:] = [*held, data] if isinstance(message, Part) else [data], [] if isinstance(message, Part) else held
        world.random.shuffle(now)
        return now

    return edit


@pytest.mark.parametrize("seed", range(12))
def test_parts_may_be_lost_repeated_and_reordered(seed: int) -> None:
    world = with_history()
    world.random.seed(seed)
    site = begin_again(world)
    world.edit = shuffled(world, site)
    world.run_until(lambda: site.is_installed, 200_000)
    assert site.host.installs is not None
    world.edit = lambda source, peer, message: None
    finish(world)


def test_it_goes_on_where_it_was_after_a_lost_connection() -> None:
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 8)
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    sender = next(who for who in (US, EU) if who.replica == arrival.sender)
    world.part(sender, AP)
    world.waiting.clear()
    world.run(8_000)
    taken = arrival._next
    assert taken > 3
    world.heal(sender, AP)
    world.run_until(lambda: site.is_installed)
    assert arrival.attempts == 1
    finish(world)
    assert kinds(world)["Head"] == 1


def test_it_turns_to_another_member_when_its_sender_stays_away() -> None:
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 8)
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    sender = next(who for who in (US, EU) if who.replica == arrival.sender)
    world.part(sender, AP)
    world.run_until(lambda: site.is_installed)
    assert arrival.attempts == 2
    world.heal(sender, AP)
    finish(world)


def test_a_sender_that_starts_again_has_lost_the_snapshot() -> None:
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 8)
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    sender = world.sites[arrival.sender]  # type: ignore[index]
    sender.crash()
    sender.start()
    world.part(US, EU)
    world.run_until(lambda: site.is_installed)
    assert arrival.attempts >= 2
    assert any(part.number == GONE for part in world.parts)
    finish(world)


def test_a_store_that_fails_takes_the_attempt_with_it() -> None:
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(site.saves) > 1 and len(world.parts) > 8)
    site.state.rollback()
    number = site.saves[0].number
    site.saves.clear()
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    site.step(Saved(number, failure=StorageError("no room")))
    assert arrival.sender is None
    finish(world)
    assert arrival.attempts == 2


def test_it_begins_again_only_when_what_the_last_attempt_wrote_is_durable() -> None:
    """Else both would stand in one stretch of the log, and a start could not tell them apart."""
    world = with_history()
    site = begin_again(world)
    came = 0

    def second_is_altered(source: Site, peer: Any, message: Message) -> list[bytes] | None:
        nonlocal came
        if isinstance(message, Part) and message.number > 0 and isinstance(decode_body(message.body), Commits):
            came += 1
            site.holds_log = True
            return [altered(message, b"")] if came == 2 else None
        return None

    world.edit = second_is_altered
    world.run_until(lambda: came == 2)
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    world.run(3_000)
    assert (arrival.attempts, arrival.sender) == (1, None)
    world.edit = lambda source, peer, message: None
    site.holds_log = False
    world.run_until(lambda: site.is_installed)
    finish(world)


def test_a_sender_whose_history_does_not_reach_back_any_more_says_so() -> None:
    """Nothing more becomes stable while a member has no row; were it otherwise, the joiner would not take what has gaps."""
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 3)
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    engine = world.sites[arrival.sender].engine()  # type: ignore[index]
    engine.stability.stable = list(engine.applied)
    engine.history.forget(engine.applied)
    world.run_until(lambda: site.is_installed)
    assert any(part.number == GONE for part in world.parts)
    assert not world.rejected
    assert arrival.attempts >= 2


@pytest.mark.parametrize("crashes", [False, True])
def test_what_is_read_at_the_end_is_read_in_slices(monkeypatch: pytest.MonkeyPatch, *, crashes: bool) -> None:
    """Others are served meanwhile; and a crash in the middle of it finds the group installed."""
    monkeypatch.setattr(landing, "_SLICE", 3)
    world = with_history()
    site = begin_again(world)
    arrival = None
    world.run_until(lambda: GROUP in site.host.installs.arrivals)  # type: ignore[union-attr]
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    world.run_until(lambda: arrival._landing is not None)
    world.run(20)
    assert not site.engine().is_installed
    assert 3 < len(site.engine().keyspace.operations) < 25
    if crashes:
        site.crash()
        site.start()
        assert site.engine().is_installed
    finish(world)


def test_a_store_that_fails_after_the_commit_takes_nothing_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landing, "_SLICE", 1)
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: GROUP in site.host.installs.arrivals)  # type: ignore[union-attr]
    arrival = site.host.installs.arrivals[GROUP]  # type: ignore[union-attr]
    world.run_until(lambda: arrival._landing is not None)
    assert site.host.saving is not None
    site.host.saving.wanted()
    world.run_until(lambda: bool(site.saves))
    site.state.rollback()
    number = site.saves[0].number
    site.saves.clear()
    site.step(Saved(number, failure=StorageError("no room")))
    finish(world)
    assert arrival.attempts == 1


def test_a_sender_that_is_fenced_sends_nothing_more() -> None:
    world = with_history()
    site = begin_again(world)
    world.run_until(lambda: len(kinds(world)) > 1)
    assert site.host.installs is not None
    sender = site.host.installs.arrivals[GROUP].sender
    assert sender is not None
    said = list[Part]()

    def edit(source: Site, peer: Any, message: Message) -> None:
        if source.me.replica == sender and isinstance(message, Part):
            said.append(message)

    world.edit = edit
    world.sites[sender].host.fence("another one speaks under its id")
    world.run(10_000)
    assert not said, "whose history it is nobody knows"
    assert not site.is_installed

"""What an install must carry, each with what happens without it; and installs while the members change."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
import pytest

from crdtstore.causal import make_replica_id
from crdtstore.commit import chain_start
from crdtstore.configuration import SYSTEM_GROUP, Member
from crdtstore.engine.checkpoint import Saved
from crdtstore.install import lending
from crdtstore.install.parts import for_joiner
from crdtstore.messages import Frame, Message
from tests.engine.install_runs import begin_again, check_rows, checkpoint, finish, joined, loaded, with_history, write
from tests.engine.installing import AP, EU, GROUP, OPTIONS, SA, US, Site, World, watch_l7

SLOW = msgspec.structs.replace(OPTIONS, install_bytes_per_s=8_000)
_YET_ANOTHER = Member(make_replica_id("af-1", 9), "af")


@pytest.fixture
def laws(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Where a law was broken; whoever expects none says so."""
    return watch_l7(monkeypatch)


@pytest.fixture
def all_hold(laws: list[str]) -> Iterator[None]:
    yield
    assert not laws


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "PART_ROWS", 12)
    monkeypatch.setattr(lending, "PART_BYTES", 1_500)


def nothing_to(who: Any) -> Any:
    """Nothing that is written reaches this one."""

    def edit(source: Site, peer: Any, message: Message) -> list[bytes] | None:
        is_news = isinstance(message, Frame) and message.group == GROUP
        return [] if is_news and peer == who.replica else None

    return edit


# --- the checkpoint is begun after the adoption


def writes_at_once() -> tuple[World, Site]:
    """A checkpoint, then what becomes stable, then a joiner that writes before it hears of anything but its snapshot."""
    world = loaded(World())
    for who in (US, EU):
        checkpoint(world, world.site(who))
    for at in range(20):
        write(world, US, at)
        write(world, EU, at)
    world.run_until(lambda: world.are_equal(US, EU))
    world.run(500)
    for who in (US, EU):
        engine = world.site(who).engine()
        assert engine.stability.stable == engine.applied
    site = world.join(AP)
    world.edit = nothing_to(AP)
    world.run_until(lambda: site.is_installed)
    write(world, AP, 3)
    world.run(500)
    return world, site


def test_a_joiner_has_seen_what_is_stable(laws: list[str]) -> None:
    world, _ = writes_at_once()
    world.edit = lambda source, peer, message: None
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert not laws


def test_plant_a_checkpoint_from_before_the_adoption_breaks_l7(
    laws: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def with_joiner(saved: Saved, maker: int, chains: Sequence[bytes]) -> Saved:
        """A table that names the joiner, though its maker did not know of it."""
        made = for_joiner(saved, maker, chains)
        if str(AP.replica) in made.members:
            return made
        count = len(made.members)
        start = world_start(made.group)
        return msgspec.structs.replace(
            made,
            members=[*made.members, str(AP.replica)],
            applied=[*made.applied, 0],
            heads=[*made.heads, start],
            base=[*made.base, 0],
            base_chains=[*made.base_chains, start],
            stable=[*made.stable, 0],
            frontiers=[*made.frontiers, 0],
            heard_ms=[*made.heard_ms, None],
            rosters=[*made.rosters, [count]],
            deps=[*([*deps, 0] for deps in made.deps), [0] * (count + 1)],
        )

    def world_start(group: str) -> bytes:
        return chain_start("test", group, AP.replica)

    monkeypatch.setattr(lending, "for_joiner", with_joiner)
    monkeypatch.setattr(lending, "fits", lambda saved, joiner, finals: True)
    writes_at_once()
    assert any("had seen" in why for why in laws)


# --- the stamps


def writes_behind() -> World:
    world = World()
    for who in (US, EU):
        world.site(who).off_ms = 600_000
    loaded(world)
    site = world.join(AP)
    world.run_until(lambda: site.is_installed)
    write(world, AP, 3)
    world.run(2_000)
    return world


def test_a_joiner_whose_clock_is_behind_stamps_above_the_frontier(laws: list[str]) -> None:
    world = writes_behind()
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    assert not laws


def test_plant_stamps_of_its_own_clock_break_the_frontier(laws: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def without_clock(*arguments: Any) -> Saved:
        return msgspec.structs.replace(for_joiner(*arguments), last_hlc=0)

    monkeypatch.setattr(lending, "for_joiner", without_clock)
    writes_behind()
    assert any("stamped too low" in why for why in laws)


# --- the history


def only_holder() -> tuple[World, Site]:
    """What ``us`` wrote while it was cut off reaches the joiner alone, in its snapshot; then ``us`` is gone."""
    world = loaded(World())
    site = world.join(AP)
    world.run_until(lambda: world.is_named(AP))
    site.crash()
    world.part(US, EU)
    for at in range(30):
        write(world, US, at)
    world.run(300)
    world.part(EU, AP)
    site.start()
    world.run_until(lambda: site.is_installed)
    world.site(US).crash()
    world.heal(EU, AP)
    return world, site


@pytest.mark.usefixtures("all_hold")
def test_a_joiner_hands_the_history_on_to_who_lacks_it() -> None:
    world, site = only_holder()
    assert site.engine().history.base != site.engine().applied
    world.run_until(lambda: world.are_equal(EU, AP))
    world.check_equal(EU, AP)
    site.crash()
    site.start()
    world.check_equal(EU, AP)


@pytest.mark.usefixtures("all_hold")
def test_it_starts_again_with_the_history_it_took_over() -> None:
    world, site = only_holder()
    world.part(EU, AP)
    history = site.engine().history
    base, heads, upto = list(history.base), list(history.heads), list(site.engine().applied)
    order = history.lacking([0] * 3, upto, range(2), 1 << 20)
    assert len(order) >= 20
    site.crash()
    site.start()
    history = site.engine().history
    assert (history.base, history.heads, history.lacking([0] * 3, upto, range(2), 1 << 20)) == (base, heads, order)
    world.heal(EU, AP)
    world.run_until(lambda: world.are_equal(EU, AP))
    world.check_equal(EU, AP)


def test_plant_without_the_history_what_only_the_joiner_has_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_history(saved: Saved, maker: int, chains: Sequence[bytes]) -> Saved:
        made = for_joiner(saved, maker, chains)
        return msgspec.structs.replace(
            made, stable=list(saved.applied), base=list(saved.applied), base_chains=saved.heads
        )

    monkeypatch.setattr(lending, "for_joiner", without_history)
    world, _ = only_holder()
    world.run(10_000)
    assert not world.are_equal(EU, AP)


# --- members change meanwhile


@pytest.mark.usefixtures("all_hold", "small")
def test_another_one_joins_meanwhile() -> None:
    world = with_history(SLOW)
    world.heal(US, EU)
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 6)
    other = world.join(SA)
    world.run_until(lambda: world.is_named(SA))
    assert not site.is_installed
    world.run_until(lambda: site.is_installed and other.is_installed)
    finish(world)
    world.run_until(lambda: world.are_equal(US, EU, AP, SA))
    world.check_equal(US, EU, AP, SA)
    checkpoint(world, other)
    check_rows(other)


@pytest.mark.usefixtures("all_hold", "small")
def test_somebody_is_evicted_meanwhile() -> None:
    world = loaded(World(SLOW))
    joined(world, SA)
    write(world, SA, 5)
    world.run_until(lambda: world.are_equal(US, EU, SA))
    world.parts.clear()
    site = world.join(AP)
    world.run_until(lambda: len(world.parts) > 6)
    world.evict(SA)
    world.run_until(lambda: site.is_installed)
    world.run_until(lambda: site.engine().configuration.removal(SA.replica) is not None)
    world.run_until(lambda: bool(site.engine().configuration.finals))
    write(world, AP, 7)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    third = world.add(_YET_ANOTHER)
    world.join(_YET_ANOTHER)
    world.run_until(lambda: third.is_installed)
    world.run_until(lambda: world.are_equal(US, EU, AP, _YET_ANOTHER))
    world.check_equal(US, EU, AP, _YET_ANOTHER)


@pytest.mark.usefixtures("all_hold", "small")
def test_the_joiner_is_evicted_meanwhile() -> None:
    world = with_history(SLOW)
    world.heal(US, EU)
    site = begin_again(world)
    world.run_until(lambda: len(world.parts) > 6)
    world.evict(AP)
    world.run_until(lambda: site.engine().configuration.member(AP.replica) is None)
    assert not site.is_installed
    world.run(70_000, step_ms=50)
    assert not site.engine().is_installed
    assert not any(world.site(who).state._pins for who in (US, EU))
    assert site.host.installs is not None
    assert not site.host.installs.arrivals
    world.run_until(lambda: world.are_equal(US, EU))
    engine = world.site(US).engine()
    write(world, US, 5)
    world.run_until(lambda: engine.stability.stable[engine.me] == engine.applied[engine.me], step_ms=20)


@pytest.mark.parametrize("begins_another", [False, True])
@pytest.mark.usefixtures("all_hold")
def test_it_is_installed_while_its_own_adoption_is_on_its_way_to_the_disk(*, begins_another: bool) -> None:
    """The commit of the checkpoint comes while a later configuration is not durable yet: the group waits for it, and whatever checkpoint
    is under way meanwhile names it too.
    """
    world = loaded(World())
    site = world.join(AP)
    saving, arrivals = site.host.saving, site.host.installs.arrivals  # type: ignore[union-attr]
    assert saving is not None
    world.run_until(lambda: GROUP in arrivals and arrivals[GROUP].summary is not None and saving.is_under_way)
    site.holds_state = True
    world.run(50)
    site.holds_log = True
    world.join(SA)
    world.run_until(lambda: site.engine().membership.is_silent)
    site.holds_state = False
    world.run_until(lambda: not saving.is_under_way)
    world.run(50)
    assert arrivals[GROUP]._landing is not None
    assert not site.engine().is_installed
    if begins_another:
        saving.wanted()
        world.run_until(lambda: saving.is_under_way)
        site.holds_state = True
        site.holds_log = False
        world.run_until(lambda: not site.engine().membership.is_silent)
        world.run(50)
        site.holds_state = False
        world.run_until(lambda: not saving.is_under_way)
    site.holds_log = False
    world.run_until(lambda: site.is_installed)
    site.crash()
    site.start()
    assert site.engine().is_installed
    world.run_until(lambda: world.site(SA).is_installed)
    world.run_until(lambda: world.are_equal(US, EU, AP, SA))
    world.check_equal(US, EU, AP, SA)


@pytest.mark.usefixtures("all_hold")
def test_a_group_that_is_declared_meanwhile_is_open_everywhere() -> None:
    world = loaded(World(OPTIONS))
    site = world.join(AP)
    world.run_until(lambda: site.engine(SYSTEM_GROUP).configuration.member(AP.replica) is not None)
    world.ask(US, "declare_domain", domain="e")
    world.run_until(lambda: site.is_installed)
    world.run_until(lambda: "e/0" in site.host.groups and site.engine("e/0").takes_part)
    world.ask(EU, "declare_domain", domain="f")
    world.run_until(lambda: "f/0" in site.host.groups and site.engine("f/0").takes_part)
    world.run(200)  # until it is durable
    site.crash()
    site.start()
    assert {GROUP, "e/0", "f/0"} <= set(site.host.groups)
    assert all(engine.is_installed for engine in site.host.groups.values())

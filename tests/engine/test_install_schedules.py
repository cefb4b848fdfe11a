"""Installs in random schedules: members join while links are cut, messages lost, and nodes crash, those that join among them.

At the end, when all can hear each other again, all have the same, every joiner is installed, and the stores hold what they say.
"""

from __future__ import annotations

from random import Random
from typing import Any

import msgspec
import pytest

from crdtstore.install import lending
from crdtstore.messages import Fetch, Message, Part
from tests.engine.install_runs import check_rows, checkpoint, loaded, write
from tests.engine.installing import AP, EU, OPTIONS, SA, US, Site, World, watch_l7

EVERYBODY = (US, EU, AP, SA)


def lossy(random: Random, rate: float) -> Any:
    def edit(source: Site, peer: Any, message: Message) -> list[bytes] | None:
        return [] if isinstance(message, Part | Fetch) and random.random() < rate else None

    return edit


def disturb(world: World, random: Random) -> None:
    """One thing that happens."""
    up = [site for site in world.sites.values() if site.is_up]
    what = random.choice(
        ["write", "write", "write", "checkpoint", "cut", "heal", "heal", "crash", "start", "start", "run"]
    )
    if what == "write":
        site = random.choice(up)
        if site.is_installed:
            write(world, site.me, random.randrange(200))
    elif what == "checkpoint":
        saving = random.choice(up).host.saving
        assert saving is not None
        saving.wanted()
    elif what == "cut":
        one, other = random.sample(up, 2) if len(up) > 1 else (up[0], up[0])
        if one is not other and frozenset((one.me.replica, other.me.replica)) not in world.cut:
            world.part(one.me, other.me)
    elif what == "heal" and world.cut:
        left, right = sorted(random.choice(sorted(map(sorted, world.cut))))
        world.cut.discard(frozenset((left, right)))
        if world.sites[left].is_up and world.sites[right].is_up:
            world.meet(world.sites[left], world.sites[right])
    elif what == "crash" and len(up) > 1:
        random.choice(up).crash()
    elif what == "start":
        down = [site for site in world.sites.values() if not site.is_up]
        if down:
            random.choice(down).start()


def play(seed: int) -> World:
    random = Random(seed)
    rate = random.choice([0, 0, 4_000, 20_000])
    options = msgspec.structs.replace(
        OPTIONS, install_bytes_per_s=rate, checkpoint_ms=random.choice([200, 1_000, 60_000])
    )
    world = loaded(World(options, seed), 40)
    world.edit = lossy(random, random.choice([0.0, 0.1, 0.3]))
    for who in random.sample((AP, SA), 2):
        sponsor = random.choice((US, EU))
        if world.site(sponsor).is_up:
            world.join(who, sponsor)
        for _ in range(random.randrange(5, 40)):
            disturb(world, random)
            world.run(random.choice([5, 10, 50, 200]))
    world.edit = lambda source, peer, message: None
    for site in world.sites.values():
        if not site.is_up:
            site.start()
    for left, right in map(sorted, list(world.cut)):
        world.cut.discard(frozenset((left, right)))
        world.meet(world.sites[left], world.sites[right])
    for who in (AP, SA):
        if who.replica not in world.sites or not world.is_named(who):
            world.join(who)
            world.run(1_000)
    return world


def check_end(world: World) -> None:
    def are_installed() -> bool:
        groups = [world.site(who).host.groups for who in EVERYBODY]
        return all(len(each) == 2 and all(engine.takes_part for engine in each.values()) for each in groups)

    world.run_until(are_installed, 120_000, step_ms=10)
    for at, who in enumerate(EVERYBODY):
        write(world, who, at)
    world.run_until(lambda: world.are_equal(*EVERYBODY), step_ms=10)
    world.check_equal(*EVERYBODY)
    for who in EVERYBODY:
        site = world.site(who)
        checkpoint(world, site)
        checkpoint(world, site)
        check_rows(site)
        site.crash()
        site.start()
    world.check_equal(*EVERYBODY)


@pytest.mark.parametrize("seed", range(16))
def test_all_come_to_the_same(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "PART_ROWS", 12)
    monkeypatch.setattr(lending, "PART_BYTES", 1_500)
    broken = watch_l7(monkeypatch)
    check_end(play(seed))
    assert not broken

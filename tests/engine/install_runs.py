"""What tests of installs do in common: a loaded domain, a joiner in the middle of writes, and what must be true at the end."""

from __future__ import annotations

from typing import Any

from crdtstore.configuration import Member
from crdtstore.engine.checkpoint import read_node
from crdtstore.engine.options import Options
from crdtstore.errors import CrdtStoreError
from crdtstore.scrub import group_steps
from crdtstore.storage.rows import split_path
from tests.engine.installing import AP, EU, GROUP, OPTIONS, US, Site, World

# --- what is written

TYPES = {
    "amounts": "counter",
    "names": "lww_register",
    "tags": "aw_set",
    "notes": "text",
    "stock": "bounded_counter",
}


def write(world: World, who: Member, at: int, **fields: Any) -> None:
    """One operation on one key; which, follows from the number."""
    name = list(TYPES)[at % len(TYPES)]
    what: dict[str, Any] = {
        "amounts": {"op": "add", "amount": at},
        "names": {"op": "set", "value": f"name {at}"},
        "tags": {"op": "add", "elements": [f"tag {at}", "all"]},
        "notes": {"op": "insert", "index": 0, "text": f"note {at}"},
        "stock": {"op": "grant", "amount": 3},
    }[name]
    world.tell(who, {"collection": name, "key": f"k{at}", **what}, id=f"op {at} {world.now_ms}", **fields)


def loaded(world: World, keys: int = 60) -> World:
    """A domain with so many keys of several types, written at both founders."""
    world.run(300)
    world.ask(US, "declare_domain", domain="d")
    for name, kind in TYPES.items():
        world.ask(US, "declare", domain="d", collection=name, type=kind)
    world.run_until(lambda: GROUP in world.site(EU).host.groups)
    world.run(300)
    for at in range(keys):
        write(world, US if at % 2 else EU, at)
        if at % 100 == 0:
            world.run(10)
    world.run_until(lambda: world.are_equal(US, EU))
    failed = [reply for reply in world.replies.values() if isinstance(reply, CrdtStoreError)]
    assert not failed, failed[0]
    return world


def joined(world: World, who: Member = AP, most_ms: int = 60_000) -> Site:
    site = world.join(who)
    world.run_until(lambda: site.is_installed, most_ms)
    return site


def readings(world: World, who: Member, keys: int) -> list[Any]:
    names = list(TYPES)
    return [
        world.site(who).engine().keyspace.etag(f"{name}:{TYPES[name]}", f"k{at}")
        for at in range(keys)
        for name in names
    ]


def check_rows(site: Site) -> None:
    """The store holds what it says, of every group."""
    node = read_node(site.state)
    assert node is not None
    for group, number in node.groups.items():
        for _ in group_steps(site.state, group, number, node.counts[group]):
            pass
    numbers = {split_path(path)[0] for path, _ in site.state.rows(b"", b"\xff")}
    assert numbers == {0, *node.groups.values()}, "rows that nobody names"


def checkpoint(world: World, site: Site) -> None:
    saving = site.host.saving
    assert saving is not None
    before = saving.checkpoints
    saving.wanted()
    world.run_until(lambda: saving.checkpoints > before)


def with_history(options: Options = OPTIONS, keys: int = 25) -> World:
    """A world in which not all is stable: what is written while the two founders do not hear each other comes as history."""
    world = loaded(World(options), keys)
    world.ask(US, "commit", domain="d", ops=[{"collection": "names", "key": "long", "op": "set", "value": "x" * 5_000}])
    world.run(300)
    site = world.join(AP)
    world.run_until(lambda: world.is_named(AP))
    site.crash()
    world.part(US, EU)
    for at in range(keys):
        for who in (US, EU):
            write(world, who, at)
            world.run(5)
    return world


def begin_again(world: World) -> Site:
    site = world.site(AP)
    world.parts.clear()
    world.fetches.clear()
    site.start()
    return site


def finish(world: World, *, is_joined: bool = True) -> None:
    site = world.site(AP)
    if is_joined:
        world.run_until(lambda: site.is_installed)
    world.heal(US, EU)
    write(world, AP, 77)
    world.run_until(lambda: world.are_equal(US, EU, AP))
    world.check_equal(US, EU, AP)
    checkpoint(world, site)
    check_rows(site)
    site.crash()
    site.start()
    world.check_equal(US, EU, AP)
    world.run(500)

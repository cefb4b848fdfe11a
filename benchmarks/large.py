"""Large values: what a big set, a busy set, a big drop, a long counter and a long text cost. Engines in memory, two replicas where the
figure is about both; operations, elements and characters are numbered, so every run does the same.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from time import perf_counter_ns, process_time
from typing import Any

from benchmarks.core import NOW_MS
from benchmarks.figures import Figure
from benchmarks.sites import KEY, Site, World, footprint, metadata, op_of
from crdtstore.clock import COUNTER_BITS
from crdtstore.engine.events import Op
from crdtstore.kernel import Tree
from crdtstore.leaves import ADD, SEQ_BITS, Sum
from crdtstore.members import has_member, members
from crdtstore.types import REGISTRY, View

__all__ = ["figures"]

SMALL, LARGE = 100, 100_000
BLOCK = 50
BLOCKS = 40
PAGE = 100
LIVE = 100
CHURN = 1_000_000
BATCH = 64
WINDOW_MS = 10_000
DROPPED = 1_000_000
ADDS = 3_000_000
FOLDED = 500_000
TYPED = 10_000

_SET = REGISTRY["aw_set"]


@contextmanager
def _collected() -> Iterator[None]:
    """What is here already is none of the collector's business, as in a node that has started."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _cpu_s(work: Callable[[], Any]) -> float:
    start = process_time()
    work()
    return process_time() - start


# --- a set of 100,000 against one of 100


def _element(number: int) -> str:
    return f"element-{number:07d}"


def _add(*numbers: int) -> Op:
    return op_of("aw_set", "add", elements=[_element(number) for number in numbers])


def _remove(*numbers: int) -> Op:
    return op_of("aw_set", "remove", elements=[_element(number) for number in numbers])


def _world_of(elements: int, count: int = 1) -> World:
    """Replicas that have a set with so many elements."""
    world = World(count)
    for first in range(0, elements, 10_000):
        world.write(0, [_add(*range(first, min(elements, first + 10_000)))])
        while world.deliver():
            pass
        world.tick()
    return world


def _blocks(world: World, fresh: int, *, is_listed: bool) -> dict[str, float]:
    """CPU-seconds of single adds of fresh elements, of looks at them, of their removes: a block each in turn, so that the set stays as
    large as it is.
    """
    if is_listed:
        members(_SET, world.sites[0].view("aw_set"), None, PAGE)
    spent = {"add": 0.0, "membership": 0.0, "remove": 0.0}
    numbers = range(fresh, fresh + BLOCK * BLOCKS)
    adds, removes = [_add(number) for number in numbers], [_remove(number) for number in numbers]

    def write(ops: list[Op]) -> None:
        for op in ops:
            world.write(0, [op])

    def look(block: range) -> None:
        for number in block:
            assert has_member(_SET, world.sites[0].view("aw_set"), _element(number))
            assert not has_member(_SET, world.sites[0].view("aw_set"), _element(-number))

    for first in range(0, len(adds), BLOCK):
        block = slice(first, first + BLOCK)
        spent["add"] += _cpu_s(partial(write, adds[block]))
        spent["membership"] += _cpu_s(partial(look, numbers[block]))
        spent["remove"] += _cpu_s(partial(write, removes[block]))
    return spent


def _against_small(runs: int) -> list[Figure]:
    small, large = _world_of(SMALL), _world_of(LARGE)
    ratios: dict[str, list[float]] = {"add": [], "remove": [], "membership": []}
    notes: dict[str, dict[str, Any]] = {name: {} for name in ratios}
    fresh = 10 * LARGE
    for run in range(2 * runs):  # first as it is, then with the order that paged listing keeps
        is_listed = run >= runs
        with _collected():
            pair = []
            for world in (small, large):
                pair.append(_blocks(world, fresh, is_listed=is_listed))
                fresh += BLOCK * BLOCKS
        for name, values in ratios.items():
            values.append(pair[1][name] / pair[0][name])
            notes[name]["us each, listed before" if is_listed else "us each"] = round(
                pair[1][name] / BLOCK / BLOCKS * 1e6, 1
            )
    return [
        Figure(
            f"aw_set of {LARGE:,} against {SMALL}: {name}",
            "x",
            values,
            1.5,
            is_at_least=False,
            notes={**notes[name], "with the order kept for pages, x": round(statistics.median(values[runs:]), 2)},
        )
        for name, values in ratios.items()
    ]


def _pages(runs: int) -> list[Figure]:
    """Pages of 100 in a set of 100,000 against the same in one of 1,000, all over the set."""
    worlds = [_world_of(1_000), _world_of(LARGE)]
    first_s = [_cpu_s(partial(members, _SET, world.sites[0].view("aw_set"), None, PAGE)) for world in worlds]

    def pages(world: World, step: int) -> None:
        for number in range(100):
            page = members(_SET, world.sites[0].view("aw_set"), _element(number * step), PAGE)
            assert page.items[0] == _element(number * step + 1)
            world.write(0, [_add(LARGE * 20 + number)])  # a write between two pages, as there will be

    ratios, each_us = [], 0.0
    for _ in range(runs):
        with _collected():
            small_s = _cpu_s(partial(pages, worlds[0], 8))
            large_s = _cpu_s(partial(pages, worlds[1], 900))
        ratios.append(large_s / small_s)
        each_us = large_s / 100 * 1e6
    notes = {"us a page with a write": round(each_us), "first page, which sorts, ms": round(first_s[1] * 1e3)}
    name = f"a page of {PAGE} of {LARGE:,} members against one of 1,000"
    return [Figure(name, "x", ratios, 1.5, is_at_least=False, notes=notes)]


# --- a million adds and removes on 100 elements


def _churned(commits: int, *, has_ids: bool) -> World:
    """Two replicas that add and remove, each what the other added before: 100 elements stay."""
    world = World(2)
    world.write(0, [_add(number) for number in range(LIVE)])
    world.pass_ms(3_000)
    count = 0
    numbers = iter(range(LIVE, LIVE + commits))
    while batch := list(islice(numbers, BATCH // 2)):
        ops = [op for number in batch for op in (_add(number), _remove(number - LIVE))]
        ids = None
        if has_ids:
            ids = [
                {"operation": ((count + at).to_bytes(16, "big"), at), "expires_ms": world.now_ms + WINDOW_MS}
                for at in range(len(ops))
            ]
        world.write(count // BATCH % 2, ops, ids)
        count += len(ops)
        world.tick(10)
        while world.deliver():
            pass
        if count >= commits:
            break
    return world


def _churn(*, has_ids: bool) -> Figure:
    before = _world_of(LIVE, 2)
    before.pass_ms(3_000)
    start = process_time()
    world = _churned(CHURN, has_ids=has_ids)
    spent_s = process_time() - start
    peak = len(world.sites[0].engine.keyspace.operations)
    world.pass_ms(WINDOW_MS + 5_000)
    left = world.sites[0].engine
    assert len(_SET.read(world.sites[0].view("aw_set"))) == LIVE
    assert left.digest == world.sites[1].engine.digest
    assert not left.keyspace.operations
    base_bytes, bytes_ = metadata(before.sites[0].engine), metadata(left)
    notes: dict[str, Any] = {
        "bytes before": base_bytes,
        "bytes after": bytes_,
        "paths to fold": left.keyspace.tree.dirty_count,
    }
    if has_ids:
        notes["operation ids at the end of the load"] = peak
    name = f"{CHURN:,} adds and removes on {LIVE} elements{', with operation ids' if has_ids else ''}: metadata"
    notes["CPU-s, two replicas"] = round(spent_s, 1)
    return Figure(name, "x", [bytes_ / base_bytes], 2, is_at_least=False, notes=notes)


# --- a drop of a million elements


def _exists(site: Site) -> bool:
    return site.view("aw_set").exists


def _elements(site: Site) -> list[Any]:
    elements: list[Any] = _SET.read(site.view("aw_set"))
    return elements


def _drop(*, is_listed: bool, is_concurrent: bool) -> tuple[list[Site], int, dict[str, float]]:
    """One drop in one region; both go on with other things while it is carried out, and read. Returns the longest of all steps."""
    world = _world_of(DROPPED, 2)
    world.pass_ms(2_000)
    if is_listed:
        for site in world.sites:
            members(_SET, site.view("aw_set"), None, PAGE)
    gc.collect()
    for site in world.sites:
        site.longest_ms = site.longest_cpu_ms = 0.0
    if is_concurrent:  # the drop has not seen it, so it cannot take the whole branch away there
        world.write(1, [_add(DROPPED)])
    world.write(0, [op_of("aw_set", None)])
    drop_ms = world.sites[0].longest_ms
    while world.deliver():
        pass
    ticks = 0
    while not all(site.engine.keyspace.tree.is_settled for site in world.sites):
        world.tick()
        ticks += 1
        at = ticks % 2
        if ticks % 10 == 0:
            world.write(at, [_add(2 * DROPPED + ticks), _remove(2 * DROPPED + ticks - 10)])
            site = world.sites[at]
            site.read(partial(_exists, site))
            if not is_concurrent:
                site.read(partial(_elements, site))
        while world.deliver():
            pass
    world.pass_ms(2_000)
    assert world.sites[0].engine.digest == world.sites[1].engine.digest == world.sites[0].engine.keyspace.tree.share([])
    assert len(_SET.read(world.sites[0].view("aw_set"))) <= 3
    return world.sites, ticks, {"the drop itself, ms": round(drop_ms, 2)}


def _drops(runs: int) -> list[Figure]:
    longest: list[float] = []
    concurrent: list[float] = []
    notes: dict[str, Any] = {}
    for run in range(runs):
        sites, ticks, extra = _drop(is_listed=run % 2 == 1, is_concurrent=False)
        longest.append(max(site.longest_ms for site in sites))
        cpu_ms = max(notes.get("in CPU-ms", 0.0), *(round(site.longest_cpu_ms, 1) for site in sites))
        notes |= {"in CPU-ms": cpu_ms, "ticks": ticks, **extra}
    sites, _, _ = _drop(is_listed=True, is_concurrent=True)
    concurrent.append(max(site.longest_ms for site in sites))
    beside = {"in CPU-ms": round(max(site.longest_cpu_ms for site in sites), 1)}
    return [
        Figure(
            f"{DROPPED:,} elements removed by one drop, longest step in both regions, reads and writes among them",
            "ms",
            longest,
            20,
            is_at_least=False,
            notes=notes,
        ),
        Figure(
            "the same, while the other region adds to the set", "ms", concurrent, 20, is_at_least=False, notes=beside
        ),
    ]


# --- a counter with three million adds that are not stable


def _counter(runs: int, *, has_ids: bool) -> list[Figure]:
    """The leaf alone: three replicas add in turn, and nobody knows that anybody else has it."""
    replicas = [member.replica for member in World(3, is_connected=False).cluster.members]
    sizes: list[float] = []
    reads: list[float] = []
    folds: list[float] = []
    path = ["things:counter", KEY]
    stable = [FOLDED // 3 + (origin < FOLDED % 3) for origin in range(3)]
    for _ in range(runs):
        tree = Tree(replicas)
        for seq in range(1, ADDS // 3 + 1):
            for origin in range(3):
                dot, hlc = origin << SEQ_BITS | seq, (NOW_MS + seq) << COUNTER_BITS
                tree.apply(dot, hlc, [0, 0, 0], [ADD, path, 1], is_repeatable=has_ids)
        leaf = tree.entry(*path)
        assert isinstance(leaf, Sum)
        sizes.append(footprint(leaf) / ADDS)
        start = perf_counter_ns()
        for _ in range(10_000):
            total = View(replicas, tree.entry(*path)).total()
        reads.append((perf_counter_ns() - start) / 10_000)
        start_s = process_time()
        tree.fold(stable, 1)
        folds.append((process_time() - start_s) * 1000)
        assert total == ADDS == View(replicas, tree.entry(*path)).total()
    name = f"counter with {ADDS:,} adds{' with operation ids' if has_ids else ''} that are not stable"
    return [
        Figure(f"{name}: each", "bytes", sizes, 24, is_at_least=False),
        Figure(f"{name}: reading it", "ns", reads, 5_000, is_at_least=False),
        Figure(f"{name}: folding {FOLDED:,} of them", "CPU-ms", folds, 5, is_at_least=False),
    ]


# --- text


def _typing(world: World, at: int) -> float:
    """A replica types 10,000 characters, one operation each; CPU-seconds."""
    ops = [op_of("text", "insert", index=number, text=chr(97 + number % 26)) for number in range(TYPED)]

    def type_all() -> None:
        for op in ops:
            world.write(at, [op])

    with _collected():
        return _cpu_s(type_all)


def _text(runs: int) -> list[Figure]:
    typed: list[float] = []
    merged: list[float] = []
    for _ in range(runs):
        world = World(2, is_connected=False)
        typed.append(_typing(world, 0))
        _typing(world, 1)
        world.connect()
        with _collected():
            start = process_time()
            while world.sites[0].engine.applied[1] < TYPED or world.sites[1].engine.applied[0] < TYPED:
                world.tick(1)
                world.deliver()
            said = [REGISTRY["text"].read(site.view("text")) for site in world.sites]
            merged.append((process_time() - start) / 2)
        assert said[0] == said[1]
        assert len(said[0]) == 2 * TYPED
    return [
        Figure(f"text: {TYPED:,} characters typed, one operation each", "CPU-s", typed, 1, is_at_least=False),
        Figure("text: two such merged, at each replica", "CPU-s", merged, 1, is_at_least=False),
    ]


def figures(runs: int) -> list[Figure]:
    """What large values cost. The million commits once, with and without operation ids; the million elements no more than twice."""
    return [
        *_against_small(runs),
        *_pages(runs),
        _churn(has_ids=False),
        _churn(has_ids=True),
        *_drops(min(runs, 2)),
        *_counter(min(runs, 3), has_ids=False),
        *_counter(min(runs, 3), has_ids=True),
        *_text(runs),
    ]

"""A run: connections, declarations, the load, then the proof and the cleaning.

The question: what may a load generator touch? What it made itself. Its keys begin with the name of the run, in collections
``bench-TYPE`` of a domain that is ``bench`` unless somebody names another; at the end they are removed again.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from crdtstore.errors import CrdtStoreError, Unavailable, UsageError
from crdtstore.types import REGISTRY
from crdtstore_client.bench.books import Books, Checked
from crdtstore_client.bench.display import Progress
from crdtstore_client.bench.generator import Generator, Plan
from crdtstore_client.bench.histogram import Histogram
from crdtstore_client.bench.mix import Kind
from crdtstore_client.bench.results import Cleaned, Result
from crdtstore_client.cli_support import ask_all, open_store
from crdtstore_client.domain import Domain
from crdtstore_client.ops import Op
from crdtstore_client.store import Store

__all__ = ["Wanted", "run"]

_FRAME_S = 0.5
_ATTEMPTS = 3
"""So often what comes after the load is tried, for the cluster may be about to heal."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for beside the plan."""

    plan: Plan
    run: str
    domain: str
    shards: int | None = None
    spread: bool = False
    """Connections take turns over the regions, and stay in theirs."""
    waits_for: int = 0
    keep: bool = False


def collection_of(type_name: str) -> str:
    return f"bench-{type_name.replace('_', '-')}"


async def run(wanted: Wanted, settings: Mapping[str, Any], progress: Progress) -> Result:
    """Declare, load, verify, clean.

    Raises:  CrdtStoreError when it cannot begin; then nothing was written.
    """
    plan = wanted.plan
    async with _connected(settings, plan.connections, spread=wanted.spread) as stores:
        progress.say(f"declaring {', '.join(map(collection_of, plan.mix.types))} in the domain {wanted.domain}")
        await _declare(wanted, stores)
        books = Books(plan.mix)
        domains = [store.domain(wanted.domain) for store in stores]
        generator = Generator(plan, books, _sender(wanted, domains), time.perf_counter)
        try:
            await generator.try_out()
        except UsageError:
            await _clean(wanted, books, domains[0])
            raise
        cpu_share = await _load(generator, progress)
        joined = stores[0].session(token=",".join(filter(None, {store.token for store in stores})) or None)
        progress.say("reading back what was acknowledged")
        checked, unchecked = await _verify(wanted, books, joined.domain(wanted.domain))
        progress.say("removing what was written")
        cleaned = await _clean(wanted, books, joined.domain(wanted.domain))
        regions = [store.region for store in stores]
    return Result(
        plan, wanted.run, wanted.domain, regions, generator, cpu_share, checked, unchecked, cleaned, wanted.waits_for
    )


# --- before


@asynccontextmanager
async def _connected(settings: Mapping[str, Any], count: int, *, spread: bool) -> AsyncIterator[list[Store]]:
    """Stores with connections of their own."""
    settings = {**settings, "is_busy": True}
    stores = [await open_store(dict(settings))]
    try:
        urls = await _urls_by_region(stores[0])
        if not urls:
            asked = ", ".join(node.url for node in stores[0]._link.nodes)
            raise Unavailable(f"no answer from {asked}. Nothing changed.", code="unreachable")
        if spread:
            await stores.pop().close()
            regions = sorted(urls)
            chosen = [regions[at % len(regions)] for at in range(count)]
            stores += [await open_store({**settings, "urls": ",".join(urls[name]), "region": None}) for name in chosen]
        else:
            stores += [await open_store(dict(settings)) for _ in range(count - 1)]
        for store in stores:
            await store  # it is measured which node is the nearest
        yield stores
    finally:
        await asyncio.gather(*(store.close() for store in stores))


async def _urls_by_region(store: Store) -> dict[str, list[str]]:
    urls: dict[str, list[str]] = {}
    for url, status in (await ask_all(store)).items():
        if status is not None:
            urls.setdefault(status["region"], []).append(url)
    return urls


async def _declare(wanted: Wanted, stores: Sequence[Store]) -> None:
    """Once; and all sessions have seen it, so that no region answers that it does not know of it."""
    first = stores[0].domain(wanted.domain)
    await first.declare_domain(shards=wanted.shards)
    for type_name in wanted.plan.mix.types:
        await first.declare_collection(collection_of(type_name), type_name, {})
    for store in stores[1:]:
        session = store.session(token=stores[0].token)
        for type_name in wanted.plan.mix.types:
            await session.domain(wanted.domain).describe(collection_of(type_name))


# --- the load


def _sender(wanted: Wanted, domains: Sequence[Domain]) -> Callable[[int, Kind, int, dict[str, Any]], Any]:
    names = {type_name: collection_of(type_name) for type_name in wanted.plan.mix.types}
    collections = [
        {type_name: domain.collection(name, type_name) for type_name, name in names.items()} for domain in domains
    ]

    async def send(connection: int, kind: Kind, key: int, arguments: dict[str, Any]) -> None:
        name = f"{wanted.run}-{key}"
        if kind.is_read:
            await domains[connection].read_key(names[kind.type_name], name, "session", None)
        else:
            op = collections[connection][kind.type_name][name].op(kind.op, **arguments)
            await domains[connection].commit(op, regions=wanted.waits_for)

    return send


async def _load(generator: Generator, progress: Progress) -> float:
    """Run it and say how it goes; returns how much of a core that took."""
    showing = asyncio.create_task(_show(generator, progress))
    began, used = time.perf_counter(), time.process_time()
    try:
        with _stoppable(generator):
            await generator.run()
    finally:
        showing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await showing
    return (time.process_time() - used) / max(time.perf_counter() - began, 1e-9)


async def _show(generator: Generator, progress: Progress) -> None:
    last = time.perf_counter()
    while True:
        await asyncio.sleep(_FRAME_S)
        recent, generator.recent = generator.recent, Histogram()
        now = time.perf_counter()
        progress.frame(generator, recent, recent.count / (now - last))
        last = now


@contextlib.contextmanager
def _stoppable(generator: Generator) -> Iterator[None]:
    """Ctrl-C ends the load, and what follows is done; once more ends everything."""
    loop = asyncio.get_running_loop()

    def stop() -> None:
        generator.stop()
        loop.remove_signal_handler(signal.SIGINT)

    try:
        loop.add_signal_handler(signal.SIGINT, stop)
    except (NotImplementedError, RuntimeError, ValueError):  # no such thing here, or not the main thread
        yield
        return
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGINT)


# --- after


async def _verify(wanted: Wanted, books: Books, domain: Domain) -> tuple[Checked | None, str]:
    """Read back what was acknowledged, with all that the sessions of the load have seen."""
    if not books.checkable:
        return None, ""
    checked = Checked()
    for type_name in books.checkable:
        for attempt in range(_ATTEMPTS):
            try:
                books.check(type_name, await _values(wanted, domain, type_name), checked)
                break
            except CrdtStoreError as error:
                if attempt + 1 == _ATTEMPTS or not error.retryable:
                    return None, f"{collection_of(type_name)} could not be read back: {error}"
                await asyncio.sleep(1.0)
    return checked, ""


async def _values(wanted: Wanted, domain: Domain, type_name: str) -> dict[int, Any]:
    collection, prefix = domain.collection(collection_of(type_name), type_name), f"{wanted.run}-"
    return {int(key.removeprefix(prefix)): value async for key, value in collection.items(prefix=prefix)}


async def _clean(wanted: Wanted, books: Books, domain: Domain) -> Cleaned:
    """Remove the keys of this run; what a region writes that has not seen the removal is not there, for nobody writes any more."""
    count = sum(map(len, books.written.values()))
    if wanted.keep:
        return Cleaned(left=count, why="--keep")
    lasting = {name for name in books.written if not REGISTRY[name].deletable}
    why = f"keys of {' and '.join(sorted(lasting))} cannot be deleted"
    keep = sum(len(books.written[name]) for name in lasting)
    try:
        removed = await domain.load(_deletes(wanted, books, domain, lasting))
    except CrdtStoreError as error:
        return Cleaned(left=count, why=f"they could not all be removed: {error}")
    return Cleaned(removed, keep, why if keep else "")


def _deletes(wanted: Wanted, books: Books, domain: Domain, lasting: set[str]) -> Iterator[Op[None]]:
    for type_name, keys in books.written.items():
        if type_name not in lasting:
            collection = domain.collection(collection_of(type_name), type_name)
            yield from (collection[f"{wanted.run}-{key}"].delete() for key in sorted(keys))

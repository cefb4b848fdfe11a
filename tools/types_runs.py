"""What the page of types shows is what happened: two regions in memory that are cut apart, and examples that are run.

The question: what makes a table of outcomes true? The same engine and request rules as in a node, given the operations as the HTTP API
takes them, under a clock and a network that do only what is said here. So nothing depends on the machine or the moment.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, NamedTuple

from crdtstore.errors import CrdtStoreError
from crdtstore.leaves import Branch, Entry, Many, Sum
from crdtstore.service import Event
from crdtstore_client import connect
from tests.client.regions import Regions as Nodes
from tests.unit.regions import Regions
from tools.catalogue import Case, Cost, Example, Op

__all__ = ["COLLECTION", "KEY", "Outcome", "Pair", "kept", "printed", "run_case", "run_cost", "run_example"]

DOMAIN, COLLECTION, KEY = "shop", "things", "k"
_PATIENCE_MS = 5_000


class Outcome(NamedTuple):
    """What both regions read in the end, and how their operations were refused (None: they were not)."""

    reading: dict[str, Any]
    rights: dict[str, int]
    """Of a bounded counter, what each region may consume."""
    us: list[CrdtStoreError | None]
    eu: list[CrdtStoreError | None]


class Pair(Regions):
    """Two regions and one key of a type."""

    def __init__(self, type_name: str, options: dict[str, Any], us_ahead_ms: int = 0) -> None:
        self._ahead_ms = {"us": us_ahead_ms}
        self._written = 0
        self.is_cut = True
        super().__init__("us", "eu")
        self.do("us", "declare_domain", domain=DOMAIN)
        self.do("us", "declare", domain=DOMAIN, collection=COLLECTION, type=type_name, options=options)
        self.settle()

    def step(self, region: str, *events: Event) -> Any:
        before = self.now_ms
        self.now_ms += self._ahead_ms.get(region, 0)
        try:
            return super().step(region, *events)
        finally:
            self.now_ms = before

    def write(self, region: str, op: Op) -> CrdtStoreError | None:
        """Commit under an operation id, as clients do; how it was refused."""
        self._written += 1
        address = {"collection": COLLECTION, "key": KEY}
        ticket = self.ask(region, "commit", domain=DOMAIN, ops=[{**address, **op}], id=f"write {self._written}")
        for _ in range(0, _PATIENCE_MS, 50):
            self.sync(region)
            if ticket in self.replies:
                break
            if self.is_cut:
                self.lose()
            else:
                self.flush()
            self.tick(50)
        found = self.replies[ticket]
        return found if isinstance(found, CrdtStoreError) else None

    def read(self, region: str) -> dict[str, Any]:
        return self.do(region, "read", domain=DOMAIN, collection=COLLECTION, key=KEY)

    def entry(self, region: str, type_name: str) -> Entry | None:
        group = self.services[region].host.groups[f"{DOMAIN}/0"]
        return group.keyspace.tree.entry(f"{COLLECTION}:{type_name}", KEY)


def run_case(type_name: str, options: dict[str, Any], case: Case) -> Outcome:
    """Do what a case says; AssertionError if the regions do not agree in the end."""
    pair = Pair(type_name, options, case.us_ahead_ms)
    for region, ops in (("us", case.before), ("eu", case.before_eu)):
        for op in ops:
            error = pair.write(region, op)
            assert error is None, error
        pair.settle()
    pair.tick(case.wait_ms)
    pair.is_cut = case.is_cut
    us = [pair.write("us", op) for op in case.us]
    pair.now_ms += case.between_ms
    eu = [pair.write("eu", op) for op in case.eu]
    if case.is_cut:
        pair.lose()
    pair.settle(10_000)
    pair.tick(case.later_ms)
    pair.settle()
    here, there = pair.read("us"), pair.read("eu")
    shown = ("value", "exists", "conflicts", "etag")
    assert [here[name] for name in shown] == [there[name] for name in shown], (here, there)
    rights = {region: body["rights"]["here"] for region, body in (("us", here), ("eu", there)) if "rights" in body}
    return Outcome(here, rights, us, eu)


# --- what is kept


def kept(entry: Entry | None) -> int:
    """How many writes a key still consists of."""
    if entry is None:
        return 0
    if isinstance(entry, Branch):
        return sum(map(kept, entry.leaves)) + sum(map(kept, entry.children.values()))
    if isinstance(entry, Sum):
        return sum(
            (run.base is not None)
            + (len(run._pairs()) + 1 if run.last_seq else 0)
            + (run.loose._length() - len(run.loose.holes or ()) if run.loose is not None else 0)
            for run in entry.runs
        )
    return len(entry.dots) if isinstance(entry, Many) else 1


def run_cost(type_name: str, options: dict[str, Any], cost: Cost) -> tuple[int, int]:
    """How many writes are kept when both regions have all of them but nobody knows that yet, and afterwards."""

    def count(pair: Pair) -> int:
        entries = [pair.entry(region, type_name) for region in ("us", "eu")]
        counts = [kept(entry) for entry in entries]
        assert len(set(counts)) == 1, counts
        assert all(bool(count) == (entry is not None) for count, entry in zip(counts, entries, strict=True)), entries
        return counts[0]

    pair = Pair(type_name, options)
    for region, ops in (("us", cost.us), ("eu", cost.eu)):
        for op in ops:
            error = pair.write(region, op)
            assert error is None, error
    pair.flush()
    before = count(pair)
    pair.settle(5_000)
    return before, count(pair)


# --- examples


def run_example(example: Example) -> dict[int, list[str]]:
    """Run an example with the client against three regions in memory; what it printed, by line of its source."""
    said: dict[int, list[str]] = defaultdict(list)
    first = inspect.getsourcelines(example)[1]

    def note(*values: Any) -> None:
        said[sys._getframe(1).f_lineno - first].append(" ".join(map(str, values)))

    async def run() -> None:
        async with connect("http://us", transport=Nodes()) as store:
            await example(store.domain(DOMAIN))

    scope = example.__globals__
    scope["print"] = note
    try:
        asyncio.run(run())
    finally:
        del scope["print"]
    return dict(said)


def printed(source: Sequence[str], said: dict[int, list[str]]) -> list[str]:
    """The body of an example with what it printed beside each line."""
    lines = []
    for at, line in enumerate(source[1:], 1):
        plain = line[4:].rstrip() if line.strip() else ""
        found = said.get(at, [])
        if not found:
            lines.append(plain)
        elif len(found) == 1:
            lines.append(f"{plain}  # {found[0]}")
        else:
            indent = plain[: len(plain) - len(plain.lstrip())]
            lines += [plain, *(f"{indent}# {each}" for each in found)]
    return lines

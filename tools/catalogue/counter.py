"""``counter`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("orders", "counter", grow_only=True)
    orders = shop.counter("orders")
    ack = await orders["de"].add(3)
    print(ack.value)
    await orders["de"].add()
    print(await orders["de"].get())


ENTRY = Entry(
    words="orders, visits, likes: whatever is added up",
    about="""
A sum of integers of any size. Every add counts once, wherever it was made and however often it was sent. An amount
may be negative, unless the collection is declared `grow_only`.

**`counter` or `bounded_counter`?** A counter takes every write, in every region, always; two regions can both sell
the last seat, and the sum is then below zero in both. Where that must not happen, take a `bounded_counter`, and live
with its refusals. To count what happened is a matter for a counter; to give away what is there, for a bounded one.
""",
    cases=[
        Case(
            before=[do("add", amount=5)], us=[do("add", amount=3)], eu=[do("add", amount=4)], because="every add counts"
        ),
        Case(
            before=[do("add", amount=5)],
            us=[do("delete")],
            eu=[do("add", amount=4)],
            because="a delete takes exactly what it has seen",
        ),
        Case(
            before=[do("add", amount=1)],
            us=[do("add", amount=-1)],
            eu=[do("add", amount=-1)],
            because="both sold the last one: a counter has no bound",
        ),
    ],
    cost="""
An amount takes some 20 bytes until every region has it, 16 if it was sent without an idempotency key (the client gives
every write one); then the amounts of a region become one. A read looks at one number, however many adds there were.
""",
    costs=[
        Cost(
            what="400 adds in each of two regions",
            us=[do("add", amount=1)] * 400,
            eu=[do("add", amount=1)] * 400,
        ),
        Cost(what="400 adds in one region, then a delete", us=[*[do("add", amount=1)] * 400, do("delete")]),
    ],
    example=example,
)

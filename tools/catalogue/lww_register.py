"""``lww_register`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("tier", "lww_register")
    tier = shop.lww_register("tier", str)
    await tier["c-42"].set("gold")
    reading = await tier["c-42"].read()
    print(reading.value, reading.conflicts)
    print(await tier["c-43"].get())


ENTRY = Entry(
    words="a status, an address, a price: one value, replaced as a whole",
    about="""
One value. A set replaces every write that its region has seen, *whatever their clocks said*; clocks decide only
between writes that did not know of each other. The write that lost is not forgotten: a read counts it in `conflicts`,
`explain` shows it, until somebody who has seen both sets again. What changes in parts belongs in an `lww_map`, which
decides field by field; where no write may lose, take an `mv_register`.
""",
    cases=[
        Case(
            before=[do("set", value="silver")],
            us=[do("set", value="gold")],
            eu=[do("set", value="bronze")],
            because="neither knew of the other: the later one",
        ),
        Case(
            before=[do("set", value="gold")],
            before_eu=[do("set", value="bronze")],
            us_ahead_ms=3_600_000,
            because="no cut, but the clock of us is an hour ahead: eu had seen gold, so eu wins",
        ),
        Case(
            before=[do("set", value="silver")],
            us=[do("delete")],
            eu=[do("set", value="bronze")],
            because="the delete had not seen the set",
        ),
    ],
    cost="""
One entry per key, and one for each concurrent write until the next set. A deleted key leaves nothing.
""",
    costs=[
        Cost(
            what="100 sets in each of two regions, cut off from each other",
            us=[do("set", value=n) for n in range(100)],
            eu=[do("set", value=n) for n in range(100)],
        ),
    ],
    example=example,
)

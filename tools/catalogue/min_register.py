"""``min_register`` on the page of types."""

from __future__ import annotations

from datetime import UTC, datetime

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("first-seen", "min_register")
    first = shop.min_register("first-seen", datetime)["c-42"]
    await first.set(datetime(2026, 1, 5, 10, tzinfo=UTC))
    print((await first.set(datetime(2026, 1, 6, 9, tzinfo=UTC))).value)


ENTRY = Entry(
    words="when was it first seen, the best offer, the oldest version still in use",
    about="""
The least value that was ever set; in all else a `max_register`.
""",
    cases=[
        Case(
            before=[do("set", value=50)],
            us=[do("set", value=10)],
            eu=[do("set", value=30)],
            because="the order of writes does not matter",
        ),
        Case(
            before=[do("set", value=10)],
            us=[do("delete")],
            eu=[do("set", value=30)],
            because="the delete took the 10 it had seen, not the 30",
        ),
    ],
    cost="""
As of a `max_register`.
""",
    costs=[
        Cost(
            what="100 sets in each of two regions",
            us=[do("set", value=n) for n in range(100)],
            eu=[do("set", value=n) for n in range(100)],
        ),
    ],
    example=example,
)

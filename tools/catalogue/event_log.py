"""``event_log`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("payments", "event_log")
    payments = shop.event_log("payments")["c-42"]
    await payments.append("p-981", {"cents": 4200})
    await payments.append("p-981", {"cents": 4200})  # the same event: no second entry
    await payments.append("p-982", {"cents": 700})
    for event in await payments.get():
        print(event["id"], event["body"])


ENTRY = Entry(
    words="payments, changes, messages: each once, in one order",
    about="""
Events with an id and a body, in one order that is the same in every region: by the time of the append, and after all
that its region had seen unless a clock is more than half a second ahead. The id decides what is the same event:
appended again, it is no second entry; with another body, the first in the order is read and the other counts in
`conflicts`. What arrives from another region may take its place before what was read already. Events are never
deleted.
""",
    cases=[
        Case(
            before=[do("append", id="p-1", body=10)],
            us=[do("append", id="p-2", body=20)],
            eu=[do("append", id="p-3", body=30)],
            because="both are there, the earlier first",
        ),
        Case(
            us=[do("append", id="p-1", body=10)],
            eu=[do("append", id="p-1", body=10)],
            because="one id, one event",
        ),
        Case(
            us=[do("append", id="p-1", body=10)],
            eu=[do("append", id="p-1", body=99)],
            because="the first counts, and the other can be seen",
        ),
    ],
    cost="""
One entry per append: an event appended again is stored again, and read once. A page sorts the whole log (as a read
does): keep one log per customer or per day, not one for all.
""",
    costs=[
        Cost(
            what="100 events appended in each of two regions, the same ids",
            us=[do("append", id=f"e-{n}") for n in range(100)],
            eu=[do("append", id=f"e-{n}") for n in range(100)],
        ),
    ],
    example=example,
)

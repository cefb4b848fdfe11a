"""``or_map`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    fields = {"name": "lww_register", "tags": "aw_set", "visits": "counter"}
    await shop.declare("customers", "or_map", fields=fields)
    ada = shop.or_map("customers", fields=fields)["c-42"]
    await shop.commit(  # all of it, or nothing
        ada.lww_register("name").set("Ada"), ada.aw_set("tags").add("vip"), ada.counter("visits").add(2)
    )
    print(await ada.get())
    await ada.remove("tags")
    print(await ada.counter("visits").get(), await ada.aw_set("tags").get())


ENTRY = Entry(
    words="a customer, an order: a record with counters, sets and maps in it",
    about="""
A map whose fields are of any type but `bounded_counter`, themselves maps if need be. An operation goes to a field by
`path`. Declare `fields` and their names suffice, and no others are taken; without it every step of a path names the
type too (`[["visits", "counter"]]`), and if two regions give one name to two types, both keep their data, one is
read, and the other counts in `conflicts`. `remove` takes what it has seen of a field; what was done to the field
concurrently survives, and nothing else of it.
""",
    options={"fields": {"visits": "counter", "tags": "aw_set", "tier": "lww_register"}},
    cases=[
        Case(
            before=[do("add", path=["visits"], amount=5)],
            us=[do("remove", field="visits")],
            eu=[do("add", path=["visits"], amount=1)],
            because="the remove took the 5 it had seen",
        ),
        Case(
            before=[do("add", path=["tags"], elements=["new"])],
            us=[do("add", path=["tags"], elements=["vip"])],
            eu=[do("set", path=["tier"], value="gold")],
            because="different fields never meet",
        ),
        Case(
            before=[do("add", path=["tags"], elements=["new"]), do("set", path=["tier"], value="gold")],
            us=[do("delete")],
            eu=[do("remove", path=["tags"], elements=["new"]), do("add", path=["tags"], elements=["vip"])],
            because="what the delete had not seen is there, in its field",
        ),
    ],
    cost="""
What its fields cost. Nothing is left of a removed field, or of a map of which all fields are gone.
""",
    costs=[
        Cost(
            what="100 adds to a counter in it, then its field removed",
            us=[*[do("add", path=["visits"], amount=1)] * 100, do("remove", field="visits")],
        ),
    ],
    example=example,
)

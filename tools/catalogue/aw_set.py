"""``aw_set`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("guests", "aw_set")
    guests = shop.aw_set("guests", str)["party"]
    await guests.add("ann", "bob")
    await guests.remove("bob")
    print(await guests.get(), await guests.has("bob"))
    async for guest in guests.members():  # page by page, however large it is
        print(guest)


ENTRY = Entry(
    words="tags, guests, the open orders: an add must not get lost",
    about="""
A set of texts, integers and bytes (`1` and `"1"` are two). A `remove` takes the adds that its region has seen; an
`add` it has not seen wins. So nothing that was added disappears by a remove that did not mean it, and now and then
something removed is in again: harmless for a cart, wrong for permissions, for which there is the `rw_set`.
""",
    cases=[
        Case(
            before=[do("add", elements=["ann", "bob"])],
            us=[do("remove", elements=["ann"])],
            eu=[do("add", elements=["ann"])],
            because="the remove had not seen this add",
        ),
        Case(
            before=[do("add", elements=["ann", "bob"])],
            us=[do("remove", elements=["ann"])],
            eu=[do("add", elements=["eve"])],
            because="nobody added ann meanwhile",
        ),
        Case(
            before=[do("add", elements=["ann", "bob"])],
            us=[do("delete")],
            eu=[do("add", elements=["eve"])],
            because="a delete removes all that it has seen",
        ),
    ],
    cost="""
One entry for each add that not every region has yet, then one per element. Nothing is left of an element that was
removed, not even while a region is cut off. Add, remove and `has` cost about the same in a set of ten elements and of
100,000.
""",
    costs=[
        Cost(
            what="100 elements, each added and removed",
            us=[op for n in range(100) for op in (do("add", elements=[n]), do("remove", elements=[n]))],
        ),
        Cost(
            what="one element, added 100 times in each of two regions",
            us=[do("add", elements=["ann"])] * 100,
            eu=[do("add", elements=["ann"])] * 100,
        ),
    ],
    example=example,
)

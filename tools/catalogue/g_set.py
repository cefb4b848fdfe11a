"""``g_set`` on the page of types."""

from __future__ import annotations

from uuid import UUID

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("seen-by", "g_set")
    seen_by = shop.g_set("seen-by", UUID)["notice-3"]
    await seen_by.add(UUID(int=1))
    print(await seen_by.has(UUID(int=1)), await seen_by.has(UUID(int=2)))


ENTRY = Entry(
    words="who has seen the notice, which ids were used: nothing is ever taken out",
    about="""
A set that only grows: elements are texts, integers and bytes (`1` and `"1"` are two). It has no `delete` and no
`expire`; what ends, ends with the map that it is a field of. Take it where a removal would be a mistake; otherwise an
`aw_set`.
""",
    cases=[
        Case(
            before=[do("add", elements=["ann"])],
            us=[do("add", elements=["bob"])],
            eu=[do("add", elements=["eve", "bob"])],
            because="every add counts, an element is in once",
        ),
    ],
    cost="""
One entry for each add that not every region has yet, then one per element.
""",
    costs=[
        Cost(
            what="the same 100 elements added in each of two regions",
            us=[do("add", elements=[n]) for n in range(100)],
            eu=[do("add", elements=[n]) for n in range(100)],
        ),
    ],
    example=example,
)

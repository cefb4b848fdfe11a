"""``rw_set`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("admins", "rw_set")
    admins = shop.rw_set("admins", str)["shop-1"]
    await admins.add("ann", "bob")
    await admins.remove("bob")
    print(await admins.get())


ENTRY = Entry(
    words="admins, grants, an allow list: a remove must not get lost",
    about="""
A set of texts, integers and bytes. An `add` counts if no `remove` of the element is concurrent to it; a `remove` also
outlasts adds that it has not seen. Elements whose add lost are counted in `conflicts` until every region has both.
Who was removed by mistake is added again by somebody who has seen the remove.
""",
    cases=[
        Case(
            before=[do("add", elements=["ann", "bob"])],
            us=[do("remove", elements=["ann"])],
            eu=[do("add", elements=["ann"])],
            because="the add had not seen the remove",
        ),
        Case(
            before=[do("remove", elements=["ann"])],
            us=[do("add", elements=["ann"])],
            because="the add had seen every remove",
        ),
        Case(
            before=[do("add", elements=["ann"])],
            us=[do("delete")],
            eu=[do("add", elements=["ann"])],
            because="a delete removes what it has seen and leaves no mark; to keep somebody out, remove",
        ),
    ],
    cost="""
One entry per element. A removed element leaves a mark in its place until every region has it, then nothing.
""",
    costs=[
        Cost(
            what="100 elements, each added and removed",
            us=[op for n in range(100) for op in (do("add", elements=[n]), do("remove", elements=[n]))],
        ),
    ],
    example=example,
)

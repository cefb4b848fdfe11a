"""``text`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("notes", "text")
    note = shop.text("notes")["c-42"]
    await note.insert(0, "Call Ada today")
    await note.cut(9, 5)
    await note.insert(9, "on Monday")
    print(await note.get())


ENTRY = Entry(
    words="notes, descriptions, a page that several people edit",
    about="""
Characters in an order; indexes count code points of the text *as the region has it at that moment*. An insertion
stands between the two characters it was made between, whatever happens around it; two passages typed at one place
stand one after the other, not mixed. A `cut` removes the characters it names, and nothing that was inserted
among them meanwhile. At most 10,000 characters an operation.
""",
    cases=[
        Case(
            before=[do("insert", index=0, text="a day")],
            us=[do("insert", index=2, text="rainy ")],
            eu=[do("insert", index=5, text="!")],
            because="each stands where it was meant",
        ),
        Case(
            before=[do("insert", index=0, text="a day")],
            us=[do("insert", index=2, text="rainy ")],
            eu=[do("insert", index=2, text="sunny ")],
            because="one after the other",
        ),
        Case(
            before=[do("insert", index=0, text="a rainy day")],
            us=[do("cut", index=2, length=6)],
            eu=[do("insert", index=7, text="!")],
            because="the cut had not seen the exclamation mark",
        ),
    ],
    cost="""
One entry per character, some 300 bytes: each has a name (22 bytes) and says its place (20 bytes where one writer types
on, up to 100 where several insert here and there). Nothing is left of a character that was cut.
""",
    costs=[
        Cost(
            what="100 characters typed one by one, then cut",
            us=[*[do("insert", index=n, text="x") for n in range(100)], do("cut", index=0, length=100)],
        ),
    ],
    example=example,
)

"""``max_register`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("scores", "max_register")
    score = shop.max_register("scores", int)["ann"]
    print((await score.set(70)).value)
    print((await score.set(50)).value)


ENTRY = Entry(
    words="a high score, the last number seen, the newest version",
    about="""
The greatest value that was ever set: integers or texts (in the order of their code points), one kind per key. Instants work
as RFC 3339 text in UTC of one form. A set that is not greater is not to be seen, but it counts when a delete that had not
seen it takes the greater ones.
""",
    cases=[
        Case(
            before=[do("set", value=50)],
            us=[do("set", value=90)],
            eu=[do("set", value=70)],
            because="the order of writes does not matter",
        ),
        Case(
            before=[do("set", value=90)],
            us=[do("delete")],
            eu=[do("set", value=70)],
            because="the delete took the 90 it had seen, not the 70",
        ),
    ],
    cost="""
One entry for each set that not every region has yet, then one.
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

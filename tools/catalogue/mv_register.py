"""``mv_register`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("carts", "mv_register")
    cart = shop.mv_register("carts")["c-42"]
    await cart.set({"apple": 1})
    values = await cart.get()
    print(values)
    merged = {name: max(each.get(name, 0) for each in values) for value in values for name in value}
    print((await cart.set(merged)).value)


ENTRY = Entry(
    words="a value that your code, or a person, decides on when two regions wrote at once",
    about="""
One value, of which all concurrent writes are kept side by side: a read gives a list, usually of one, oldest first. A
set replaces those that its region has seen. So nothing loses until somebody who has seen it writes again. Choose it
only if something does read the list and sets the merged value; otherwise take an `lww_register`, whose reads count
the writes that lost in `conflicts`.
""",
    cases=[
        Case(
            before=[do("set", value="silver")],
            us=[do("set", value="gold")],
            eu=[do("set", value="bronze")],
            because="both have replaced silver, neither the other",
        ),
        Case(
            before=[do("set", value="silver")],
            us=[do("delete")],
            eu=[do("set", value="bronze")],
            because="the delete had not seen the set",
        ),
    ],
    cost="""
One entry for each value that is read.
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

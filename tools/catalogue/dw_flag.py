"""``dw_flag`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("newsletter", "dw_flag")
    newsletter = shop.dw_flag("newsletter")["c-42"]
    print((await newsletter.enable()).value)
    print((await newsletter.disable()).value)


ENTRY = Entry(
    words="may we still, is it released: a no must not get lost",
    about="""
True or false; false at first. An `enable` replaces the disables that its region has seen; a `disable` it has not seen
wins. Enables that lost are counted in `conflicts`. Take it for consent and permissions, and an `ew_flag` where the
yes must win.
""",
    cases=[
        Case(
            before=[do("enable")],
            us=[do("disable")],
            eu=[do("enable")],
            because="the enable had not seen the disable",
        ),
        Case(
            before=[do("disable")],
            us=[do("enable")],
            because="the enable had seen every disable",
        ),
    ],
    cost="""
One entry, and one for each concurrent answer until the next.
""",
    costs=[
        Cost(
            what="100 enables in one region, 100 disables in the other",
            us=[do("enable")] * 100,
            eu=[do("disable")] * 100,
        ),
    ],
    example=example,
)

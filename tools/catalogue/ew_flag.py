"""``ew_flag`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("recall", "ew_flag")
    recall = shop.ew_flag("recall")["sku-7"]
    print(await recall.get())
    print((await recall.enable()).value)


ENTRY = Entry(
    words="an alarm, a recall, a request: a yes must not get lost",
    about="""
True or false; false at first. A `disable` ends the enables that its region has seen; an `enable` it has not seen
wins. Take it where a yes that was overlooked does harm, and a `dw_flag` where a no that was overlooked does.
""",
    cases=[
        Case(
            before=[do("enable")],
            us=[do("disable")],
            eu=[do("enable")],
            because="the disable had not seen this enable",
        ),
        Case(before=[do("enable")], us=[do("disable")], because="nobody enabled it meanwhile"),
    ],
    cost="""
One entry for each enable that not every region has yet, then one; none when it is disabled.
""",
    costs=[
        Cost(what="100 enables in each of two regions", us=[do("enable")] * 100, eu=[do("enable")] * 100),
        Cost(what="100 enables, each disabled", us=[do("enable"), do("disable")] * 100),
    ],
    example=example,
)

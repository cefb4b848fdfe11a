"""``lww_map`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("profiles", "lww_map")
    ada = shop.lww_map("profiles")["c-42"]
    await ada.set({"name": "Ada", "city": "Oslo", "code": "1234"})
    await ada.unset("city")
    await ada.expire(600, fields=["code"])
    reading = await ada.read()
    print(reading.value, list(reading.field_expires))


ENTRY = Entry(
    words="a profile, settings, master data: fields that change one by one",
    about="""
Names and values; each field is an `lww_register` of its own, so writes to different fields never meet. A `set`
replaces the fields it names and no others. Fields may expire by themselves (`expire` with `fields`). For fields that
are counted, or sets, take an `or_map`.
""",
    cases=[
        Case(
            before=[do("set", fields={"name": "Ada"})],
            us=[do("set", fields={"tier": "gold"})],
            eu=[do("set", fields={"city": "Oslo"})],
            because="different fields never meet",
        ),
        Case(
            before=[do("set", fields={"tier": "silver"})],
            us=[do("set", fields={"tier": "gold"})],
            eu=[do("set", fields={"tier": "bronze"})],
            because="neither knew of the other: the later one",
        ),
        Case(
            before=[do("set", fields={"tier": "silver"})],
            us=[do("unset", fields=["tier"])],
            eu=[do("set", fields={"tier": "gold"})],
            because="the unset had not seen the set",
        ),
    ],
    cost="""
One entry per field, and one for each concurrent write to it until the next. Nothing is left of a field that was
unset.
""",
    costs=[
        Cost(
            what="one field set 100 times in each of two regions, cut off from each other",
            us=[do("set", fields={"n": n}) for n in range(100)],
            eu=[do("set", fields={"n": n}) for n in range(100)],
        ),
        Cost(
            what="100 fields, each set and unset",
            us=[op for n in range(100) for op in (do("set", fields={f"f{n}": n}), do("unset", fields=[f"f{n}"]))],
        ),
    ],
    example=example,
)

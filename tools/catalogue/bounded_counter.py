"""``bounded_counter`` on the page of types."""

from __future__ import annotations

from crdtstore_client import Domain, InsufficientRights
from tools.catalogue._entry import Case, Cost, Entry, do

__all__ = ["ENTRY"]


async def example(shop: Domain) -> None:
    await shop.declare("stock", "bounded_counter")
    stock = shop.bounded_counter("stock")
    await stock["sku-7"].grant(10)
    print((await stock["sku-7"].consume(3)).value)
    async with stock["sku-7"].reserve(2, ttl=900) as hold:  # confirms at the end, releases on an exception
        print(hold.amount, (await stock["sku-7"].read()).rights)
    try:
        await stock["sku-7"].consume(6)
    except InsufficientRights as error:
        print(error.requested, error.here, error.elsewhere)


ENTRY = Entry(
    words="stock, seats, a budget: never below a bound, whoever is cut off",
    about="""
An amount that no region, cut off or not, can bring below the bound `lower`. It is divided: each region holds *rights*
to a part of it, and spends only its own. `grant` makes more (the rights are those of the region that takes the
request), `consume` spends, `transfer` moves rights to another region. A region that has not enough asks the others
and waits for the answer, `wait_ms` of the request at most; rights also move ahead of time to where much was spent
lately. A read shows them: `rights` is `{"here", "held", "elsewhere"}`.

A **hold** puts rights aside for a while, say until a card is charged: `reserve` answers with its name, `confirm`
spends it, `release` gives it back, and at its deadline it ends by itself. Only the region that made it can end it;
the client sees to that. A hold that has ended is `hold-ended`, for ever.

**What a cut costs:** a region that is cut off can spend what it holds and no more. Then it refuses
(`insufficient-rights`: nothing changed), although others may have plenty. Before a planned cut, `transfer`. **What a
crash costs:** the rights of a region that is down wait for it.

**A grant is repeated in its own region only.** All other operations may be retried anywhere and count once. A grant
whose outcome is unknown may not, since two regions that cannot hear each other would both make the rights, and both
could be spent: repeat it, under its operation id, where it was sent. The client does so.

An upper bound is a second counter: of the room that is left. To count without a bound, see `counter`.
""",
    cases=[
        Case(
            before=[do("grant", amount=6), do("transfer", amount=3, to="eu")],
            us=[do("consume", amount=3)],
            eu=[do("consume", amount=2)],
            because="each spends rights of its own",
        ),
        Case(
            before=[do("grant", amount=6), do("transfer", amount=3, to="eu")],
            us=[do("consume", amount=4)],
            eu=[do("consume", amount=1)],
            because="more than 4 were left, but us held 3 and could not ask",
        ),
        Case(
            before=[do("grant", amount=6), do("transfer", amount=3, to="eu")],
            us=[do("consume", amount=4)],
            eu=[do("consume", amount=1)],
            is_cut=False,
            because="no cut: us asked eu for what it lacked",
        ),
        Case(
            before=[do("grant", amount=6), do("transfer", amount=3, to="eu")],
            us=[do("reserve", amount=2, ttl_ms=60_000)],
            eu=[do("consume", amount=3)],
            because="what is held is not left",
        ),
        Case(
            before=[do("grant", amount=6), do("transfer", amount=3, to="eu")],
            us=[do("reserve", amount=2, ttl_ms=60_000)],
            eu=[do("consume", amount=3)],
            later_ms=120_000,
            because="the hold ended by itself, and its rights are back",
        ),
    ],
    kinds={
        "confirm.hold": "name of a hold",
        "release.hold": "name of a hold",
        "reserve.ttl_ms": "milliseconds",
        "transfer.to": "name of another region",
    },
    cost="""
Amounts as in a `counter`; per key at most one sum for what a region granted, one for what it consumed, one for each
region it moved rights to. An open hold takes one entry, an ended one another for 24 hours, so that who asks again
learns how it ended. An operation that spends looks at each of the sums and at each open hold of the key.
""",
    costs=[
        Cost(
            what="100 grants and 100 consumes in one region",
            us=[op for _ in range(100) for op in (do("grant", amount=2), do("consume", amount=1))],
        ),
    ],
    example=example,
)

"""What the page of types says of all types."""

from __future__ import annotations

from tools.catalogue._entry import Case, do

__all__ = ["ABOUT", "ENDING", "ENDING_CASES", "ENDING_TYPE", "NOT_HERE", "RUNNING"]

ABOUT = """
Choose a type by the question that your data answers. Regions that have seen the same writes read the same value,
whatever the type, and every type but `bounded_counter` takes every write in every region, cut off or not. Types
differ in what becomes of two writes that did not know of each other, so that is what this page shows. `make
types-page` makes it: each table is what happened when two regions did this, each output in an example what it
printed.
"""

NOT_HERE = """
*Who was the first to take this name?* No type answers that, nor anything else that takes an agreement between
regions: one that is cut off cannot know. Make names unique by what they contain (a region, a UUID), or let one region
give them out.
"""

RUNNING = """
**Examples** run as they stand in `python -m asyncio`; beside the lines stands what they print in a new store, in region us. First:
```
$ crdtstore dev up && eval "$(crdtstore dev env)" && python -m asyncio
>>> from crdtstore_client import connect
>>> store = await connect()
>>> shop = store.domain("shop")
```

**Tables**: `add amount=3` is `{"op": "add", "amount": 3}` over HTTP ([api.md](api.md)), and on the command line
`crdtstore add shop/orders/de 3`. Two regions, us and eu, have both seen what stands on the left; then they are cut off
from each other, us writes, and eu writes 10 ms later;
then they hear each other again, and both read the same.

**Arguments**: *elements* of sets are texts, integers or bytes, and `1` and `"1"` are two; a *value* is null, a
boolean, a number, text, bytes, a list or a map with text keys. Integers may have 1,024 bytes; NaN and infinities are
refused.

**Conflicts**: a read counts in `conflicts` the concurrent writes that nobody has decided on yet: those that lost to
another, or stand beside it. `explain` shows whose they are, and why each counts or does not. What an overwrite or a
remove has seen is no conflict.

**Cost**: what is kept in memory of a key. A write that is kept takes some 150 bytes and its value. A second or two
after every region has a write, what nobody can tell apart any more becomes one; while a region is cut off, that
waits. Operation ids, which the client gives every write, and the log are kept besides
([architecture.md](architecture.md)).
"""

ENDING = """
**`delete`** removes what its region has seen of the key; writes it has not seen survive it. It leaves nothing behind.

**`expire`** sets a deadline for a key, or for a field of a map: every later write keeps it, the next `expire`
replaces it (`ttl_ms` null: it never ends), and of concurrent deadlines the latest counts. From then on it is hidden
from every read in every region, and a write begins anew; what a region wrote after a deadline that it had not heard
of is not lost: then the key lives on.
"""

ENDING_TYPE = "aw_set"
_MINUTE_MS = 60_000
ENDING_CASES = [
    Case(
        before=[do("add", elements=["ann"])],
        us=[do("delete")],
        eu=[do("add", elements=["bob"])],
        because="the delete had not seen bob",
    ),
    Case(
        before=[do("add", elements=["ann"]), do("expire", ttl_ms=_MINUTE_MS)],
        us=[do("add", elements=["bob"])],
        later_ms=2 * _MINUTE_MS,
        because="a write keeps the deadline",
    ),
    Case(
        before=[do("add", elements=["ann"]), do("expire", ttl_ms=_MINUTE_MS)],
        wait_ms=2 * _MINUTE_MS,
        us=[do("add", elements=["bob"])],
        because="what has ended is not there any more",
    ),
    Case(
        before=[do("add", elements=["ann"])],
        us=[do("expire", ttl_ms=_MINUTE_MS)],
        eu=[do("expire", ttl_ms=60 * _MINUTE_MS)],
        later_ms=2 * _MINUTE_MS,
        because="the latest deadline counts",
    ),
    Case(
        before=[do("add", elements=["ann"])],
        us=[do("expire", ttl_ms=_MINUTE_MS)],
        between_ms=2 * _MINUTE_MS,
        eu=[do("add", elements=["bob"])],
        because="eu had not heard of the deadline, and wrote after it",
    ),
]

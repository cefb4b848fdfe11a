"""The other members decide what is stable, how stale a read is, and who is spoken to; who else was ever known does not."""

from __future__ import annotations

from crdtstore.configuration import ConfigurationId
from crdtstore.engine import growth
from crdtstore.engine.durability import Durability
from crdtstore.engine.progress import Progress
from crdtstore.engine.rows import Rows
from crdtstore.engine.stability import Stability
from crdtstore.messages import Row
from tests.engine.markets import ask, error, market, values
from tests.engine.wire import Wire, add, flush, op

_ID = ConfigurationId(0, bytes(16))


def row(ms: int, *vector: int) -> Row:
    return Row(_ID, list(vector), ms << 16, [bytes(32) for _ in vector])


def test_the_floor_is_what_all_others_have() -> None:
    rows = Rows(3, 0)
    rows.take(1, row(1, 3, 1, 0), [9, 9, 9], 5)
    assert rows.floor == [0, 0, 0], "the third was never heard"
    rows.adopt([1])
    assert rows.newest == [None, None, None], "said before"
    rows.take(1, row(2, 3, 1, 0), [9, 9, 9], 5)
    assert rows.floor == [3, 1, 0]
    rows.take(2, row(3, 1, 0, 0), [9, 9, 9], 5)
    assert rows.floor == [3, 1, 0], "it does not count"
    rows.admit(bytes(32))
    rows.adopt([1, 3])
    assert rows.floor == [0, 0, 0, 0], "nobody knows what the new one has"
    rows.take(1, row(4, 4, 1, 0, 2), [9, 9, 9, 9], 5)
    rows.take(3, row(4, 2, 1, 0, 2), [9, 9, 9, 9], 5)
    assert rows.floor == [2, 1, 0, 2]
    assert rows.known([3, 3, 3, 0]) == [4, 3, 3, 2]
    rows.adopt([])
    rows.take(1, row(5, 4, 1, 0, 2), [9, 9, 9, 9], 5)
    assert rows.floor == [0, 0, 0, 0]


def test_reads_are_as_stale_as_the_others_are_silent() -> None:
    rows = Rows(3, 0)
    rows.take(1, row(4_000, 0, 0, 0), [0, 0, 0], 5_000)
    rows.take(2, row(1_000, 0, 0, 0), [0, 0, 0], 5_000)
    assert rows.staleness_ms(5_000) == 4_000
    rows.adopt([1], awaited=[2])
    assert rows.staleness_ms(5_000) == 4_000, "others may have what it wrote last"
    rows.adopt([1])
    assert rows.staleness_ms(5_000) == 1_000, "what was surely here still is"
    rows.admit(bytes(32))
    assert rows.staleness_ms(5_000) == 1_000
    rows.adopt([1, 3])
    assert rows.staleness_ms(5_000) is None, "the new one was never heard"
    rows.adopt([])
    assert rows.staleness_ms(5_000) == 0


def test_what_the_others_have_is_stable() -> None:
    stability = Stability(3, 0)
    stability.take(1, row(1, 3, 1, 0), [5, 1, 0])
    assert not stability.advance([5, 1, 0]), "the third was never heard"
    stability.adopt([1])
    assert not stability.advance([5, 1, 0]), "said before"
    stability.take(1, row(1, 3, 1, 0), [5, 1, 0])
    assert stability.advance([5, 1, 0])
    assert stability.stable == [3, 1, 0]
    stability.take(1, row(2, 4, 2, 0), [5, 1, 0])
    stability.admit()
    assert stability.advance([5, 2, 0, 0]), "what could not be used yet can be"
    assert stability.stable == [4, 2, 0, 0]
    stability.adopt([1, 3])
    stability.take(1, row(3, 5, 2, 0, 1), [5, 2, 0, 1])
    assert not stability.advance([5, 2, 0, 1]), "the new one was never heard"
    stability.take(3, row(3, 1, 2, 0, 1), [5, 2, 0, 1])
    assert stability.advance([5, 2, 0, 1])
    assert stability.stable == [4, 2, 0, 1], "what was stable stays so"
    stability.adopt([])
    assert stability.advance([6, 2, 0, 1])
    assert stability.stable == [6, 2, 0, 1], "whoever is alone is all"


def test_the_frontier_is_that_of_the_others() -> None:
    stability = Stability(3, 0)
    stability.take(1, row(7, 0, 0, 0), [0, 0, 0])
    stability.take(2, row(4, 0, 0, 0), [0, 0, 0])
    assert stability.frontier_hlc(9 << 16) == 4 << 16
    stability.adopt([1], awaited=[2])
    assert stability.frontier_hlc(9 << 16) == 4 << 16, "others may have what it wrote last"
    stability.adopt([1])
    assert stability.frontier_hlc(9 << 16) == 7 << 16
    assert stability.frontier_hlc(6 << 16) == 6 << 16
    stability.admit()
    stability.adopt([1, 3])
    assert stability.frontier_hlc(9 << 16) == 0
    stability.adopt([])
    assert stability.frontier_hlc(9 << 16) == 9 << 16


def test_an_engine_counts_its_members_in_their_order() -> None:
    wire = Wire("us", "eu", "ap")
    us = wire.engines["us"]
    ids = wire.configuration.ids
    growth.count_members(us, [ids[2], ids[0], ids[1]], ids[0])
    assert (us.others, us.position, us.me) == ([2, 1], 1, 0)
    assert growth.members_of(us) == [ids[2], ids[0], ids[1]]
    growth.count_members(us, [ids[2], ids[0]], ids[0], awaited=[ids[1]])
    assert (us.others, us.position, list(us.antientropy.peers)) == ([2], 1, [2])
    growth.count_members(us, [ids[2]], ids[0])
    assert (us.others, us.position) == ([2], 1), "it is none of them"


def test_who_is_gone_holds_up_nobody() -> None:
    """Of three one is gone: what the other two have is stable, and is spoken of to each other only."""
    wire = Wire("us", "eu", "ap", fold_interval_ms=50)
    wire.connect()
    add(wire, "us")
    wire.settle()
    wire.cut("us", "ap")
    wire.cut("eu", "ap")
    ids = wire.configuration.ids
    add(wire, "eu")
    wire.settle(without=("ap",))
    for _ in range(100):
        wire.tick(100)
        flush(wire)
    us = wire.engines["us"]
    stable, stale_ms = us.stability.stable, us.rows.staleness_ms(wire.now_ms)
    assert stable[1] == 0
    assert stale_ms is not None
    assert stale_ms >= 10_000
    for name in ("us", "eu"):
        growth.count_members(wire.engines[name], ids[:2], wire.replica(name))
    wire.connect(("us", "eu"))
    for _ in range(10):
        wire.tick(500)
        flush(wire)
    assert us.stability.stable == us.applied == [1, 1, 0]
    assert (us.rows.staleness_ms(wire.now_ms) or 0) < 2_000
    assert not wire.links["us", "ap"]
    assert us.antientropy.peers.keys() == {1}
    add(wire, "us")
    wire.settle(without=("ap",))
    wire.tick(500)
    flush(wire)
    assert us.measures.window_ms.count == 2, "that all others have it takes no word of who is gone"


def count(wire: Wire, *names: str) -> None:
    """These are the members, in this order, and they know it; nobody else is heard."""
    for gone in [name for name in wire.names if name not in names]:
        for name in names:
            wire.cut(gone, name)
    for name in names:
        growth.count_members(wire.engines[name], [wire.replica(other) for other in names], wire.replica(name))
    for at, name in enumerate(names):
        for other in names[at + 1 :]:
            wire.connect((name, other))
    flush(wire)


def test_who_comes_first_among_the_members_removes_what_has_expired() -> None:
    wire = Wire("us", "eu", "ap", fold_interval_ms=50)
    wire.connect()
    wire.settle()
    count(wire, "eu", "us")
    wire.write("us", op("lww_register", "k", "set", value="v"), op("lww_register", "k", "expire", ttl_ms=500))
    wire.settle(without=("ap",))
    for _ in range(30):
        wire.tick(100)
        flush(wire)
    assert wire.engines["us"].applied == [1, 1, 0], "eu is the second in the table, and the first member"


def test_nobody_waits_for_rights_of_who_is_gone() -> None:
    wire = market()
    wire.cut("us", "eu")
    wire.cut("us", "ap")
    waiting = ask(wire, "eu", "consume", wait_ms=60_000, amount=3)
    assert wire.answer_to(waiting) is None, "us may come back"
    count(wire, "eu", "ap")
    refused = ask(wire, "eu", "consume", wait_ms=60_000, amount=3)
    assert error(wire, refused).code == "insufficient-rights"


def test_of_two_who_wait_the_one_that_comes_later_among_the_members_gives() -> None:
    wire = market()
    count(wire, "eu", "us")
    ask(wire, "us", "consume", amount=4)
    ask(wire, "us", "transfer", amount=3, to="eu")
    flush(wire)  # no time passes, or us would ask ahead
    first = ask(wire, "us", "consume", wait_ms=1_000, amount=5)
    second = ask(wire, "eu", "consume", wait_ms=1_000, amount=5)
    for _ in range(30):
        wire.tick(50)
        flush(wire)
    assert values(wire, second) == [1]
    assert error(wire, first).code == "insufficient-rights"


def test_what_waited_for_others_is_asked_for_again() -> None:
    wire = Wire("us", "eu", early_bytes=1 << 20)
    wire.connect()
    wire.settle()
    flush(wire)
    for _ in range(2):
        add(wire, "us")
        wire.sync()
    wire.links["us", "eu"].popleft()
    wire.deliver("us", "eu")
    eu = wire.engines["eu"]
    assert len(eu.early) == 1
    growth.count_members(eu, wire.configuration.ids, wire.replica("eu"))
    assert len(eu.early) == 0
    count(wire, "us", "eu")
    wire.settle()
    wire.check_same()


def test_a_relay_goes_on_when_the_table_grows() -> None:
    progress = Progress(3)
    durable = [0, 0, 5, 2]
    progress.take_vector([0, 0, 0], durable[:3], 0, 0)
    progress.begin_relay(0)
    progress.note_relayed(2, 3)
    progress.admit()
    progress.take_vector([0, 0, 3, 0], durable, 0, 10)
    assert progress.to_relay(0, 1, 10, 1_000) == [2], "what was relayed has come, and nobody else gives it more"
    assert progress.to_relay(0, 1, 1_010, 1_000) == [2, 3]


def test_what_was_said_does_not_change_when_the_table_grows() -> None:
    durability = Durability(2)
    durability.hold([1, 0], 0, [], [])
    said = durability.vector
    durability.admit()
    assert (said, durability.vector) == ([0, 0], [0, 0, 0])
    durability.release(1)
    assert durability.vector == [1, 0, 0], "what was on its way to the disk has grown too"

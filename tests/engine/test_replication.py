"""Push, acknowledgement, gaps, windows, relay: what engines say to each other, and what they must not say."""

from __future__ import annotations

import pytest

from crdtstore.engine.events import Draft, LocalCommit, Received
from crdtstore.engine.output import Committed
from crdtstore.messages import Ack, Digest, Frame
from tests.engine.wire import Wire, add, op, pair

QUIET = 3_600_000


def state(wire: Wire) -> str:
    """How us stands to eu."""
    return wire.engines["us"].antientropy.peers[1].state


# --- durable first


def test_nothing_is_sent_answered_or_named_before_it_is_durable() -> None:
    wire = pair(gossip_interval_ms=10)
    ticket = add(wire, "us")
    assert wire.answer_to(ticket) is None
    for _ in range(5):
        wire.tick(20)
    assert wire.frames("us", "eu") == []
    said = wire.sent("us", "eu")
    assert said
    assert all(isinstance(message, Digest) and message.row.vector == [0, 0] for message in said)
    wire.sync("us")
    assert isinstance(wire.answer_to(ticket), Committed)
    assert [frame.commits for frame in wire.frames("us", "eu")] == [[wire.engines["us"].history.commit(0, 1)]]


def test_a_heartbeat_stays_below_the_first_commit_that_is_not_durable() -> None:
    wire = pair(gossip_interval_ms=10)
    add(wire, "us")
    first = wire.engines["us"].clock.last
    wire.tick(1_000)
    row = wire.engines["us"].own_row(wire.now_ms)
    assert row.hlc == first - 1
    wire.sync("us")
    row = wire.engines["us"].own_row(wire.now_ms)
    assert row.hlc >> 16 == wire.now_ms
    add(wire, "us")
    assert wire.engines["us"].clock.last > row.hlc


def test_a_receiver_names_a_commit_only_when_its_own_disk_has_it() -> None:
    wire = pair(ack_delay_ms=0, gossip_interval_ms=QUIET)
    add(wire, "us")
    wire.sync("us")
    wire.deliver("us", "eu")
    assert wire.sent("eu", "us") == []
    wire.sync("eu")
    (ack,) = wire.sent("eu", "us")
    assert isinstance(ack, Ack)
    assert ack.row.vector == [1, 0]


def test_syncs_may_cover_several_batches_at_once() -> None:
    wire = pair()
    tickets = [add(wire, "us") for _ in range(3)]
    numbers = wire.numbers["us"]
    assert numbers == sorted(numbers)
    wire.synced["us"] = len(wire.disks["us"])
    wire.numbers["us"] = numbers[-1:]
    wire.synced["us"] -= 1
    wire.sync("us")
    assert all(isinstance(wire.answer_to(ticket), Committed) for ticket in tickets)


def test_several_drafts_are_one_batch_and_judged_in_turn() -> None:
    wire = pair()
    drafts = [Draft(100 + n, [op("counter", "k", "add", amount=n)]) for n in range(1, 4)]
    wire.step("us", LocalCommit(drafts))
    assert len(wire.numbers["us"]) == 1
    wire.sync("us")
    values = [reply.values for _, reply in wire.replies if isinstance(reply, Committed) and reply.ticket >= 100]
    assert values == [[1], [3], [6]]


# --- operation ids


OPERATION = (b"0123456789abcdef", 42)


def test_a_replayed_answer_waits_for_all_it_shows() -> None:
    """The first attempt is durable, a later write to its key is not: the reading in the answer must not show it yet."""
    wire = pair()
    wire.write("us", op("counter", "k", "add", amount=1), operation=OPERATION)
    wire.sync("us")
    add(wire, "us", 10)
    again = wire.write("us", op("counter", "k", "add", amount=1), operation=OPERATION)
    assert wire.answer_to(again) is None
    wire.sync("us")
    reply = wire.answer_to(again)
    assert isinstance(reply, Committed)
    assert (reply.is_replayed, reply.seq, reply.values) == (True, 1, [11])


def test_a_retry_in_the_same_batch_is_one_commit() -> None:
    wire = pair()
    drafts = [
        Draft(n, [op("counter", "k", "add")], operation=OPERATION, expires_ms=wire.now_ms + 1) for n in (101, 102)
    ]
    wire.step("us", LocalCommit(drafts))
    assert wire.replies == []
    wire.sync("us")
    found = {reply.ticket: reply for _, reply in wire.replies}
    first, second = found[101], found[102]
    assert isinstance(first, Committed)
    assert isinstance(second, Committed)
    assert (first.seq, second.seq) == (1, 1)
    assert (first.is_replayed, second.is_replayed) == (False, True)


def test_an_expired_key_is_refused_unless_it_is_known() -> None:
    wire = pair()
    refused = wire.write("us", op("counter", "k", "add"), operation=OPERATION, expires_in_ms=0)
    assert wire.answer(wire.answer_to(refused)) == "refused: key-expired"  # type: ignore[arg-type]
    wire.write("us", op("counter", "k", "add"), operation=OPERATION)
    wire.sync("us")
    known = wire.write("us", op("counter", "k", "add"), operation=OPERATION, expires_in_ms=0)
    assert isinstance(wire.answer_to(known), Committed)


def test_an_operation_that_came_from_elsewhere_is_answered_once_it_is_durable_here() -> None:
    wire = pair()
    wire.write("us", op("counter", "k", "add"), operation=OPERATION)
    wire.sync("us")
    wire.deliver("us", "eu")
    ticket = wire.write("eu", op("counter", "k", "add"), operation=OPERATION)
    assert wire.answer_to(ticket) is None
    wire.sync("eu")
    reply = wire.answer_to(ticket)
    assert isinstance(reply, Committed)
    assert (reply.origin, reply.seq, reply.is_replayed) == (0, 1, True)


# --- gaps, windows, silence


def test_a_peer_that_acknowledges_nothing_is_probed_and_streamed_to_again() -> None:
    wire = pair(gossip_interval_ms=QUIET, ack_timeout_ms=1_000)
    add(wire, "us")
    wire.sync("us")
    wire.lose("us", "eu")
    wire.tick(999)
    assert state(wire) == "streaming"
    wire.lose("us", "eu")
    wire.tick(1)
    assert state(wire) == "probing"
    (digest,) = wire.sent("us", "eu")
    assert isinstance(digest, Digest)
    assert digest.wants_answer
    add(wire, "us")
    wire.sync("us")
    assert wire.frames("us", "eu") == []
    wire.deliver("us", "eu")
    wire.deliver("eu", "us")
    assert state(wire) == "streaming"
    assert [wire.words(frame) for frame in wire.frames("us", "eu")] == ["frame us:1 us:2"]
    wire.settle()
    wire.check_same()


def test_silence_of_a_peer_that_owes_nothing_is_no_fault() -> None:
    wire = pair(gossip_interval_ms=QUIET, ack_timeout_ms=1_000)
    for _ in range(5):
        wire.tick(900)
        wire.lose("us", "eu")
    assert state(wire) == "streaming"


def test_a_probe_is_repeated_until_it_is_answered() -> None:
    wire = Wire("us", "eu", gossip_interval_ms=QUIET, ack_timeout_ms=1_000)
    wire.connect()
    wire.lose("us", "eu")
    wire.lose("eu", "us")
    wire.tick()
    wire.lose("us", "eu")
    for _ in range(3):
        wire.tick(1_000)
        assert len(wire.sent("us", "eu")) == 1
        wire.lose("us", "eu")


def test_the_window_closes_and_opens() -> None:
    wire = pair(gossip_interval_ms=QUIET, window_bytes=1_024, frame_bytes=1_024)
    for _ in range(60):
        wire.write("us", op("lww_register", "k", "set", value="x" * 50))
    wire.sync("us")
    sent = sum(len(frame.commits) for frame in wire.frames("us", "eu"))
    assert 5 < sent < 30, "the window is closed"
    before = sent
    wire.deliver("us", "eu")
    wire.sync("eu")
    wire.tick(10)
    wire.deliver("eu", "us")
    assert sum(len(frame.commits) for frame in wire.frames("us", "eu")) >= before // 2, "and opens"
    wire.settle()
    wire.check_same()
    assert wire.engines["eu"].measures.commits_received == 60


def test_what_is_asked_for_again_is_asked_for_once_in_a_while() -> None:
    wire = pair(gossip_interval_ms=QUIET, resend_after_ms=100)
    wire.now_ms += 1_000
    for _ in range(4):
        add(wire, "us")
        wire.sync("us")
    wire.links["us", "eu"].popleft()
    wire.deliver("us", "eu")
    asked = [message for message in wire.sent("eu", "us") if isinstance(message, Digest) and message.is_missing]
    assert len(asked) == 1
    assert len(wire.engines["eu"].early) == 3


def test_the_early_buffer_is_bounded_and_what_it_drops_comes_again() -> None:
    wire = pair(gossip_interval_ms=200, early_bytes=1_024)
    for _ in range(40):
        wire.write("us", op("lww_register", "k", "set", value="x" * 50))
    wire.sync("us")
    eu = wire.engines["eu"]
    link = wire.links["us", "eu"]
    frames = list(link)
    link.clear()
    for data in frames[1:]:
        wire.receive("us", "eu", data)
    assert eu.applied == [0, 0]
    assert eu.early.dropped > 0
    assert 0 < len(eu.early) < 20
    wire.settle()
    wire.check_same()
    assert len(eu.early) == 0
    assert not eu.early


def test_duplicates_are_counted_and_change_nothing() -> None:
    wire = pair(gossip_interval_ms=QUIET)
    add(wire, "us")
    wire.sync("us")
    (data,) = wire.links["us", "eu"]
    wire.deliver("us", "eu")
    digest, measures = wire.engines["eu"].digest, wire.engines["eu"].measures
    persisted = len(wire.disks["eu"])
    wire.receive("us", "eu", data)
    assert (measures.commits_received, measures.commits_received_twice) == (2, 1)
    assert wire.engines["eu"].digest == digest
    assert len(wire.disks["eu"]) == persisted
    wire.sync("eu")
    wire.receive("us", "eu", data)
    wire.tick(10)
    assert any(isinstance(message, Ack) for message in wire.sent("eu", "us")), (
        "who repeats does not know how far we are"
    )


def test_words_of_a_connection_that_is_gone_open_nothing() -> None:
    wire = pair()
    add(wire, "eu")
    wire.sync("eu")
    (data,) = wire.links["eu", "us"]
    ack = Ack("shop/0", wire.configuration.id, wire.engines["eu"].own_row(wire.now_ms))
    asking = Digest("shop/0", wire.configuration.id, ack.row, [None, None], wants_answer=True, is_missing=True)
    wire.cut("us", "eu")
    wire.receive("eu", "us", data)
    wire.step("us", Received(1, ack))
    wire.step("us", Received(1, asking))
    wire.sync("us")
    assert wire.sent("us", "eu") == []
    assert wire.engines["us"].applied == [0, 1], "what it said is taken all the same"


# --- relay


def test_a_relay_comes_late_and_in_apply_order() -> None:
    """sa hears only ap. What us and eu wrote in turn reaches it in the order in which ap applied it, never grouped."""
    wire = Wire("us", "eu", "ap", "sa", gossip_interval_ms=100, relay_after_ms=1_000)
    wire.connect(("us", "eu"), ("ap", "us"), ("ap", "eu"), ("ap", "sa"))
    wire.settle()
    sent: list[Frame] = []
    for name in ("us", "eu", "us", "eu"):
        add(wire, name)
        wire.sync()
        wire.deliver("us", "eu")
        wire.deliver("eu", "us")
        wire.deliver("us", "ap")
        wire.deliver("eu", "ap")
        wire.sync()
    started = wire.now_ms
    while not sent:
        wire.tick(50)
        for _ in range(2):
            wire.deliver("sa", "ap")
            sent = sent or wire.frames("ap", "sa")
            wire.deliver("ap", "sa")
        assert wire.now_ms - started < 5_000
    assert wire.now_ms - started >= 1_000, "not before sa had lacked it for so long"
    assert [wire.words(frame) for frame in sent] == ["frame us:1 eu:1 us:2 eu:2"]
    assert sent[0].order in ([0, 1, 0, 1], [1, 0, 1, 0])
    assert wire.engines["ap"].measures.commits_relayed == 4
    wire.settle()
    wire.check_same()


def test_in_a_whole_mesh_nothing_is_relayed() -> None:
    wire = Wire("us", "eu", "ap")
    wire.connect()
    for at in range(30):
        add(wire, wire.names[at % 3])
        wire.sync()
        for source, target in list(wire.links):
            wire.deliver(source, target)
        wire.tick(50)
    wire.settle()
    wire.check_same()
    assert sum(engine.measures.commits_relayed for engine in wire.engines.values()) == 0
    assert sum(engine.measures.commits_received_twice for engine in wire.engines.values()) == 0


def test_a_large_relay_is_cut_into_frames_and_windows() -> None:
    wire = Wire("us", "eu", "ap", gossip_interval_ms=100, relay_after_ms=200, frame_bytes=1_024, window_bytes=4_096)
    wire.connect(("us", "ap"), ("ap", "eu"))
    for at in range(100):
        wire.write("us", op("lww_register", str(at), "set", value="x" * 50))
    wire.settle()
    wire.check_same()
    assert wire.engines["ap"].measures.commits_relayed >= 100


@pytest.mark.parametrize("keep", [0, 1])
def test_a_relay_may_carry_what_the_relayer_got_together(keep: int) -> None:
    wire = Wire("us", "eu", "ap", gossip_interval_ms=100, relay_after_ms=200)
    wire.connect(("us", "ap"), ("ap", "eu"))
    for _ in range(5):
        add(wire, "us")
        add(wire, "ap", key="other")
    wire.settle()
    wire.crash("ap", keep)
    wire.connect(("us", "ap"), ("ap", "eu"))
    add(wire, "us")
    wire.settle()
    wire.check_same()
    assert wire.value("eu", "counter", "k") == 6

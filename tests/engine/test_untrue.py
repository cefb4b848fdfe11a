"""What peers say that cannot be true: refused as a whole where it can be, counted, never raised, never half applied."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from crdtstore.commit import MAX_COMMIT_BYTES, Commit, chain_next, decode_commit, encode_commit
from crdtstore.configuration import ConfigurationId
from crdtstore.engine.events import Received
from crdtstore.engine.output import Refused
from crdtstore.errors import DecodeError
from crdtstore.leaves import ADD, DROP, MARK, MAX, PUT
from crdtstore.messages import Ack, Configure, Digest, Frame, Row, Segment
from tests.engine.wire import GROUP, Wire, op


@pytest.fixture
def wire() -> Wire:
    """us has made two commits, eu and ap have the first."""
    wire = Wire("us", "eu", "ap", gossip_interval_ms=3_600_000)
    wire.connect()
    wire.write("us", op("counter", "k", "add"))
    wire.settle()
    wire.write("us", op("counter", "k", "add"))
    wire.sync("us")
    return wire


def told(wire: Wire, name: str, peer: str, message: Any) -> list[str]:
    """What an engine refuses of a message; its state is as it was."""
    engine = wire.engines[name]
    before = (list(engine.applied), engine.digest, len(wire.disks[name]), len(engine.early), engine.measures.refused)
    out = wire.step(name, Received(wire.names.index(peer), message))
    reasons = [reason for _, reason in out.rejected]
    assert reasons, "nothing was refused"
    assert (list(engine.applied), engine.digest, len(wire.disks[name]), len(engine.early)) == before[:4]
    assert engine.measures.refused + engine.measures.foreign_configuration > before[4]
    return reasons


def frame_of(wire: Wire, origin: int, after: int, *commits: bytes, chain: bytes | None = None) -> Frame:
    head = wire.engines[wire.names[origin]].history.chain(origin, after) if chain is None else chain
    return Frame(GROUP, wire.configuration.id, [Segment(origin, after, head)], [], list(commits))


def commit_of(seq: int, *, origin: Any = 0, deps: list[Any] | None = None, effects: list[Any] | None = None) -> bytes:
    return encode_commit(Commit(1, origin, seq, 5 << 16, deps or [], "x", [], effects or []))


# --- rows


def row_of(wire: Wire, name: str, **changes: Any) -> Row:
    return msgspec.structs.replace(wire.engines[name].own_row(wire.now_ms), **changes)


def test_a_row_of_another_history_is_refused_once_its_commits_are_here(wire: Wire) -> None:
    eu, ap = wire.engines["eu"], wire.engines["ap"]
    row = row_of(wire, "ap", vector=[2, 0, 0], chains=[b"another", *ap.own_row(wire.now_ms).chains[1:]])
    assert wire.step("eu", Received(2, Ack(GROUP, wire.configuration.id, row))).rejected == []
    wire.deliver("us", "eu")
    wire.sync("eu")
    assert eu.applied == [2, 0, 0]
    [reason] = told(wire, "eu", "ap", Ack(GROUP, wire.configuration.id, row))
    assert "another history" in reason


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"vector": [1, 0]}, "size"),
        ({"chains": []}, "size"),
        ({"configuration": ConfigurationId(1, b"other")}, "another configuration"),
        ({"vector": [1, -1, 0]}, "counts from zero"),
        ({"vector": [1, 1 << 48, 0]}, "not for ever"),
        ({"hlc": -1}, "counts from zero"),
        ({"hlc": 1 << 63}, "until when"),
        ({"vector": [9, 9, 9], "chains": [b"x" * 32, b"x" * 33, b"x" * 32]}, "a hash for each"),
        ({"chains": [b"x" * 32] * 3}, "another history"),
    ],
)
def test_a_row_that_cannot_be_true(wire: Wire, changes: dict[str, Any], why: str) -> None:
    ack = Ack(GROUP, wire.configuration.id, row_of(wire, "ap", **changes))
    assert any(why in reason for reason in told(wire, "eu", "ap", ack))
    digest = Digest(GROUP, wire.configuration.id, row_of(wire, "us"), [None, None, ack.row], wants_answer=True)
    assert any(why in reason for reason in told(wire, "eu", "us", digest)), "nor when another passes it on"


def test_a_digest_has_a_row_for_every_member(wire: Wire) -> None:
    digest = Digest(GROUP, wire.configuration.id, row_of(wire, "us"), [None], wants_answer=True)
    assert "1 rows for 3 members" in told(wire, "eu", "us", digest)[0]


def test_a_row_that_says_less_than_before_changes_nothing_that_is_known(wire: Wire) -> None:
    us = wire.engines["us"]
    wire.settle()
    known, stable = us.rows.newest[1], list(us.stability.stable)
    assert known is not None
    less = msgspec.structs.replace(known, vector=[0, 0, 0], chains=[us.history.chain(at, 0) for at in range(3)])
    assert wire.step("us", Received(1, Ack(GROUP, wire.configuration.id, less))).rejected == []
    assert us.rows.newest[1] == known
    assert us.stability.stable == stable


def test_another_configuration_counts_for_nothing_and_is_answered_with_ours(wire: Wire) -> None:
    eu = wire.engines["eu"]
    before = list(eu.applied), eu.digest, list(eu.rows.newest), eu.measures.refused
    other = ConfigurationId(7, b"other")
    frame = msgspec.structs.replace(frame_of(wire, 0, 1, wire.engines["us"].history.commit(0, 2)), configuration=other)
    for at, message in enumerate((Ack(GROUP, other, row_of(wire, "us", vector=[9, 9, 9])), frame)):
        out = wire.step("eu", Received(0, message))
        assert (out.rejected, out.persist, out.send) == ([], [], [])
        told_us = [(replica, said.value) for replica, said in out.tell if isinstance(said, Configure)]
        assert told_us == ([(wire.replica("us"), eu.configuration)] if at == 0 else []), (
            "not more often than it is of use"
        )
    assert (list(eu.applied), eu.digest, list(eu.rows.newest), eu.measures.refused) == before
    assert eu.measures.foreign_configuration == 2
    assert eu.membership.heard[wire.replica("us")][0] == other


# --- the own past


def test_a_peer_that_has_more_of_me_than_i_made_fences_me(wire: Wire) -> None:
    us = wire.engines["us"]
    row = row_of(wire, "eu", vector=[3, 0, 0])
    assert "has 3 commits of this replica" in told(wire, "us", "eu", Ack(GROUP, wire.configuration.id, row))[0]
    assert us.is_fenced
    ticket = wire.write("us", op("counter", "k", "add"))
    refused = wire.answer_to(ticket)
    assert isinstance(refused, Refused)
    assert (refused.error.code, refused.error.status, refused.error.effect) == ("fenced", 503, "none")
    keyed = wire.write("us", op("counter", "k", "add"), operation=(b"0" * 16, 1))
    assert wire.answer(wire.answer_to(keyed)) == "refused: fenced"  # type: ignore[arg-type]
    assert us.applied == [2, 0, 0]


def test_commits_of_mine_that_i_never_made_fence_me(wire: Wire) -> None:
    frame = frame_of(wire, 0, 2, commit_of(3))
    assert "which it has not made" in told(wire, "us", "eu", frame)[0]
    assert wire.engines["us"].is_fenced


def test_another_past_of_mine_fences_me(wire: Wire) -> None:
    row = row_of(wire, "eu", chains=[b"x" * 32, *row_of(wire, "eu").chains[1:]])
    assert "its id is used twice" in told(wire, "us", "eu", Ack(GROUP, wire.configuration.id, row))[0]
    assert wire.engines["us"].is_fenced


def test_another_commit_under_a_number_of_mine_fences_me(wire: Wire) -> None:
    frame = frame_of(wire, 0, 1, commit_of(2))
    assert "two commits 2 of us" in told(wire, "us", "eu", frame)[0]
    assert wire.engines["us"].is_fenced


# --- frames


def test_a_frame_that_starts_on_another_history(wire: Wire) -> None:
    second = wire.engines["us"].history.commit(0, 2)
    frame = frame_of(wire, 0, 1, second, chain=b"x" * 32)
    assert "another history" in told(wire, "eu", "us", frame)[0]
    assert not wire.engines["eu"].is_fenced, "it is not eu whose id is used twice"


def test_a_clone_that_overlaps_is_found_before_its_next_commit_is_applied(wire: Wire) -> None:
    """Two hold the id of us since commit 1; eu has commit 2 of one and is sent 2 and 3 of the other."""
    wire.deliver("us", "eu")
    wire.sync("eu")
    frame = frame_of(wire, 0, 1, commit_of(2), commit_of(3))
    assert "two commits 2 of us" in told(wire, "eu", "ap", frame)[0]


def test_a_clone_behind_a_gap_is_found_when_the_gap_closes(wire: Wire) -> None:
    wire.lose("us", "eu")
    other = commit_of(2)
    chain = chain_next(wire.engines["us"].history.chain(0, 1), other)
    eu = wire.engines["eu"]
    wire.step("eu", Received(2, frame_of(wire, 0, 2, commit_of(3), commit_of(4), chain=chain)))
    assert len(eu.early) == 2
    second = wire.engines["us"].history.commit(0, 2)
    wire.step("eu", Received(0, frame_of(wire, 0, 1, second)))
    assert eu.applied == [2, 0, 0], "the true one stands"
    assert len(eu.early) == 0, "and nothing of the other is kept"
    assert "another history" in wire.rejected[-1][1]
    wire.settle()
    wire.check_same()


def test_of_two_commits_that_wait_under_one_number_neither_is_kept(wire: Wire) -> None:
    eu = wire.engines["eu"]
    missing = [wire.replica("ap"), 1]
    wire.step("eu", Received(0, frame_of(wire, 0, 1, commit_of(2, deps=missing))))
    assert len(eu.early) == 1
    out = wire.step("eu", Received(0, frame_of(wire, 0, 1, wire.engines["us"].history.commit(0, 2))))
    assert "two commits 2" in out.rejected[0][1]
    assert len(eu.early) == 0
    wire.lose("us", "eu")
    wire.tick(3_000)
    wire.settle()
    wire.check_same()


@pytest.mark.parametrize(
    ("deps", "why"),
    [
        (["stranger.0123456789abcdef", 1], "not a member"),
        ([1, 1], "position 1 of a roster of 1"),
        ([0, 1], "position 0"),
        ([-1, 1], "position -1"),
    ],
)
def test_deps_that_cannot_be(wire: Wire, deps: list[Any], why: str) -> None:
    wire.lose("us", "eu")
    assert why in told(wire, "eu", "us", frame_of(wire, 0, 1, commit_of(2, deps=deps)))[0]


def test_what_came_before_a_bad_commit_in_its_frame_stands_and_is_written(wire: Wire) -> None:
    eu = wire.engines["eu"]
    second = wire.engines["us"].history.commit(0, 2)
    out = wire.step("eu", Received(0, frame_of(wire, 0, 1, second, commit_of(3, deps=[5, 1]), commit_of(4))))
    assert "position 5" in out.rejected[0][1]
    assert eu.applied == [2, 0, 0]
    wire.sync("eu")
    assert eu.durability.vector == [2, 0, 0]
    assert eu.measures.commits_received_twice == 0


def test_a_bad_commit_that_waited_does_not_poison_those_to_come(wire: Wire) -> None:
    wire.lose("us", "eu")
    eu = wire.engines["eu"]
    second = wire.engines["us"].history.commit(0, 2)
    chain = wire.engines["us"].history.chain(0, 2)
    wire.step("eu", Received(0, frame_of(wire, 0, 2, commit_of(3, deps=[5, 1]), chain=chain)))
    out = wire.step("eu", Received(0, frame_of(wire, 0, 1, second)))
    assert "position 5" in out.rejected[0][1]
    wire.write("ap", op("counter", "k", "add"))
    wire.settle()
    assert eu.durability.vector == [2, 0, 1]
    assert not eu.early
    wire.check_same()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda frame: frame.segments.clear(), "whose it is"),
        (lambda frame: frame.order.extend((0, 0)), "whose it is"),
        (lambda frame: frame.order.extend((5,) * len(frame.commits)), "whose it is"),
        (lambda frame: frame.segments.__setitem__(0, Segment(9, 1, b"")), "starts somewhere"),
        (lambda frame: frame.segments.__setitem__(0, Segment(0, -1, b"")), "starts somewhere"),
        (lambda frame: frame.segments.__setitem__(0, Segment(0, 1 << 48, b"")), "starts somewhere"),
        (lambda frame: frame.segments.append(frame.segments[0]), "says once"),
        (lambda frame: frame.commits.append(frame.commits[0]), "commit 2 in the place of 3"),
        (lambda frame: frame.commits.__setitem__(0, b"\xc1"), "not a commit"),
        (
            lambda frame: frame.commits.__setitem__(0, commit_of(1, origin="eu.0000000000000002")),
            "commit 1 in the place of 2",
        ),
    ],
)
def test_a_frame_that_does_not_say_whose_its_commits_are(wire: Wire, change: Callable[[Frame], None], why: str) -> None:
    frame = frame_of(wire, 0, 1, wire.engines["us"].history.commit(0, 2))
    change(frame)
    assert why in told(wire, "eu", "us", frame)[0]


def test_commit_1_names_its_origin(wire: Wire) -> None:
    frame = frame_of(wire, 2, 0, commit_of(1, origin=str(wire.replica("eu"))))
    assert "commit 1 in the place of 1 of ap" in told(wire, "eu", "ap", frame)[0]


# --- commits


def raw(*fields: Any) -> bytes:
    return msgspec.msgpack.encode(list(fields))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not a commit"),
        (b"x" * (MAX_COMMIT_BYTES + 1), "at most"),
        (raw(2, 0, 2, 0, [], "", [], []), "format 2"),
        (raw(1, 0, 0, 0, [], "", [], []), "numbered from 1"),
        (raw(1, 0, 2, -1, [], "", [], []), "stamped from 0"),
        (raw(1, 0, 1, 0, [], "", [], []), "full replica id"),
        (raw(1, "us.0000000000000001", 2, 0, [], "", [], []), "full replica id"),
        (raw(1, 0, 2, 0, [1], "", [], []), "pairs of index and increase"),
        (raw(1, 0, 2, 0, [1, 0], "", [], []), "positive integer"),
        (raw(1, 0, 2, 0, [1, "x"], "", [], []), "positive integer"),
        (raw(1, 0, 2, 0, ["x", 1], "", [], []), "replica id is"),
        (raw(1, 0, 2, 0, [], "", [1], []), "pairs of key and value"),
        (raw(1, 0, 2, 0, [], "", [], [1]), "triples"),
        (raw(1, 0, 2, 0, [], "", [], [256, ["c", "k"], 1]), "number up to 255"),
        (raw(1, 0, 2, 0, [], "", [], ["a", ["c", "k"], 1]), "number up to 255"),
        (raw(1, 0, 2, 0, [], "", [], [True, ["c", "k"], 1]), "number up to 255"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, "c", 1]), "1 to 64 parts"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, [], 1]), "1 to 64 parts"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c"] * 65, 1]), "1 to 64 parts"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, [1, "k"], 1]), "begins with a collection"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", 1], 1]), "begins with a collection"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", "k", 1.5], 1]), "a part of a path"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", "k", None], 1]), "a part of a path"),
        (raw(1, 0, 2, 0, [], "", [], [ADD, ["c", "k"], "1"]), "an amount"),
        (raw(1, 0, 2, 0, [], "", [], [ADD, ["c", "k"], True]), "an amount"),
        (raw(1, 0, 2, 0, [], "", [], [DROP, ["c", "k"], 1]), "has no value"),
        (raw(1, 0, 2, 0, [], "", [], [MARK, ["c", "k"], 1]), "has no value"),
        (raw(1, 0, 2, 0, [], "", [], [MAX, ["c", "k"], 1.5]), "greatest or least"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", "k"], {1: 2, "a": 3}]), "named by text"),
        (raw(1, 0, 2, 0, [], "", [], [77, ["c", "k"], [{b"a": 2}]]), "named by text"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", "k"], float("nan")]), "no value"),
        (raw(1, 0, 2, 0, [], "", [], [PUT, ["c", "k"], [float("inf")]]), "no value"),
        (b"\x98\x01\x00\x02\x00\x90\xa0\x90\x93\x01\x92\xa1c\xa1k\xd6\xff\x00\x00\x00\x00", "no value"),
        (b"\x98\x01\x00\x02\x00\x90\xa0\x90\x93\x01\x92\xa1c\xa1k" + b"\x91" * 70 + b"\x01", "deeper than"),
        (b"\x98\x01\x00\x02\x00\x90\xa0\x90\x93\x01\x92\xa1c\xa1k" + b"\x91" * 5000 + b"\x01", "not a commit"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_bytes_that_no_origin_makes(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        decode_commit(data)


def test_the_least_commit() -> None:
    commit = decode_commit(raw(1, 0, 2, 0, [], "", [], []))
    assert commit.operation is None
    assert commit.attribute(1) is None


def test_an_operation_id_of_another_form_is_kept_and_means_nothing() -> None:
    for attribute in ([b"short", 1], [b"x" * 16], "x", None):
        commit = decode_commit(raw(1, 0, 2, 0, [], "", [2, attribute, 9, "of the future"], []))
        assert commit.operation is None
        assert commit.attribute(9) == "of the future"


# --- effects of a later version


def test_effects_nobody_understands_are_kept_digested_and_passed_on(wire: Wire) -> None:
    """A field with a leaf of a future class beside it: readable, equal everywhere, removed by a drop."""
    future = [
        9,
        ["things:lww_map", "k", "f"],
        {"x": 1},
        9,
        ["things:event_log", "k", "e"],
        1,
        MARK,
        ["things:aw_set", "k", "m"],
        None,
    ]
    mixed = [
        MAX,
        ["things:counter", "k"],
        5,
        MAX,
        ["things:counter", "k"],
        "text",
        PUT,
        ["alone"],
        1,
        PUT,
        ["things:lww_map", "k", 7],
        1,
    ]
    data = commit_of(1, origin=str(wire.replica("ap")), effects=[*future, *mixed])
    wire.settle()
    wire.now_ms += 1
    frame = frame_of(wire, 2, 0, data)
    for name in ("us", "eu"):
        out = wire.step(name, Received(2, frame))
        assert out.rejected == []
        assert wire.value(name, "lww_map", "k") == {}
        assert wire.value(name, "event_log", "k") == []
        assert wire.value(name, "aw_set", "k") == []
        assert wire.value(name, "counter", "k") == 2
        engine = wire.engines[name]
        assert engine.digest == engine.keyspace.tree.share([])
    assert wire.engines["us"].digest == wire.engines["eu"].digest
    wire.sync("us", "eu")
    wire.write("us", op("lww_map", "k", "set", fields={"f": 1}), op("lww_map", "other", "set", fields={"f": 1}))
    wire.sync("us")
    wire.deliver("us", "eu")
    assert wire.value("eu", "lww_map", "k") == {"f": 1}
    assert list(wire.engines["eu"].keyspace.tree.keys("alone")) == []

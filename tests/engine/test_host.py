"""The groups of a node: hello, recovery, domains that open, and bytes from anywhere that must never raise."""

from __future__ import annotations

from random import Random
from typing import Any

import msgpack
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.engine import Engine
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.options import Options
from crdtstore.errors import DecodeError, ProtocolError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import MAX_MESSAGE_BYTES, Frame, decode_message, encode_message
from crdtstore.service import PeerChanged, Request, Service
from crdtstore.storage.protocol import Entry
from tests.engine.two_nodes import CLUSTER, EU, US, hello_of, nodes
from tests.engine.wire import START_MS


def test_only_members_have_a_host() -> None:
    with pytest.raises(ProtocolError, match="not a member"):
        Host(CLUSTER, make_replica_id("ap-1", 9), Options(), Random(1))


# --- recovery


def test_a_node_starts_again_from_its_log_with_all_its_groups() -> None:
    made = nodes()
    before = made.services[US].host
    again = Host(CLUSTER, US, Options(), Random(1))
    records = list(made.logs[US].replay())
    assert again.recover(records) == sum(bool(entry.group) for _, entries in records for entry in entries)
    assert set(again.groups) == set(before.groups)
    for group, engine in again.groups.items():
        assert engine.digest == before.groups[group].digest
        assert engine.durability.vector == before.groups[group].durability.vector
        assert engine.causality.rosters == before.groups[group].causality.rosters
    made.services[US] = Service(again)
    made.connect()
    reply = made.ask(US, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}])
    assert reply["dot"] == f"{US}:2"
    made.pass_time(1_000)
    assert made.ask(EU, "read", domain="shop", collection="counter", key="k")["value"] == 2
    repeated = made.ask(US, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}], id="x")
    assert repeated["replayed"] is True


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda entries: [entry for entry in entries if entry.group != SYSTEM_GROUP], "not declared before it"),
        (lambda entries: [entries[0], *entries], "goes from 1 to 1"),
        (lambda entries: entries[1:], "goes from 0 to 2"),
        (lambda entries: [entries[0]._replace(origin=ReplicaId("ap-1.0000000000000009"))], "not a member"),
    ],
)
def test_a_log_of_something_else_is_refused(spoil: Any, why: str) -> None:
    entries = [entry for _, entries in nodes().logs[US].replay() for entry in entries if entry.group]
    with pytest.raises(ProtocolError, match=why):
        Host(CLUSTER, US, Options(), Random(1)).recover([(0, spoil(entries))])


def test_a_log_entry_that_is_no_commit_is_refused() -> None:
    with pytest.raises(DecodeError):
        Host(CLUSTER, US, Options(), Random(1)).recover([(0, [Entry(SYSTEM_GROUP, US, b"\xc1")])])


# --- bytes from anywhere


def check_untouched(host: Host, before: dict[str, list[int]]) -> None:
    """Whatever came, vectors only moved forward and digests are those of the state."""
    for group, engine in host.groups.items():
        assert engine.digest == engine.keyspace.tree.share([])
        assert all(now >= then for now, then in zip(engine.applied, before.get(group, [0, 0]), strict=True))


RECORDED = nodes()
MESSAGES = sorted({data for sender, data in RECORDED.heard if sender == EU}, key=lambda data: (len(data), data))[-60:]
FRAMES = [data for sender, data in RECORDED.heard if sender == EU and isinstance(decode_message(data), Frame)]


def fresh() -> Host:
    """A host that has what us wrote itself, to be spoken to: what eu wrote is news."""
    service = Service(Host(CLUSTER, US, Options(), Random(1)))
    service.host.recover(
        (position, [entry for entry in entries if entry.origin == US])
        for position, entries in RECORDED.logs[US].replay()
    )
    service.step([PeerChanged(EU, True)], START_MS + 2_000)
    return service.host


def receive(data: bytes) -> None:
    """Take in the bytes, and after them everything true: whatever they were, they are not in its way."""
    host = fresh()
    before = {group: list(engine.applied) for group, engine in host.groups.items()}
    for message in (data, *FRAMES):
        out = HostOutput()
        host.receive(EU, message, START_MS + 2_000, out)
        host.finish(START_MS + 2_000, out)
        host.persisted(Persisted(out.persist_number), START_MS + 2_000, HostOutput())
    check_untouched(host, before)
    for group, engine in host.groups.items():
        assert engine.durability.vector == engine.applied, f"{group} waits for a batch that nobody writes"
        for collection in list(engine.keyspace.tree.root.children):
            list(engine.keyspace.tree.keys(collection))


@given(st.binary(max_size=200))
def test_random_bytes_never_raise(data: bytes) -> None:
    receive(data)


@given(st.sampled_from(FRAMES) | st.sampled_from(MESSAGES), st.data())
def test_spoilt_messages_never_raise(message: bytes, data: st.DataObject) -> None:
    spoilt = bytearray(message)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(spoilt) - 1))
        what = data.draw(st.sampled_from(("flip", "cut", "insert", "repeat")))
        if what == "flip":
            spoilt[at] ^= 1 << data.draw(st.integers(0, 7))
        elif what == "cut":
            del spoilt[at : at + data.draw(st.integers(1, 9))]
        elif what == "insert":
            spoilt[at:at] = data.draw(st.binary(min_size=1, max_size=9))
        else:
            spoilt[at:at] = spoilt[at : at + 9]
        if not spoilt:
            break
    receive(bytes(spoilt))


def _nodes_of(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path]
    if isinstance(value, list):
        for at, item in enumerate(value):
            found += _nodes_of(item, (*path, at))
    return found


STRANGE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 64) - 1),
    st.floats(),
    st.text(max_size=5),
    st.binary(max_size=40),
    st.just([]),
    st.just({1: 2, "a": 3}),
    st.just(msgpack.Timestamp(1, 2)),
    st.just(msgpack.ExtType(1, b"\x01")),
)


@given(st.sampled_from(FRAMES) | st.sampled_from(MESSAGES), st.data())
def test_messages_with_strange_parts_never_raise(message: bytes, data: st.DataObject) -> None:
    """The form is right, a part anywhere is not, also inside a commit."""
    payload = message[2:] if message[1] == 0 else zstandard.decompress(message[2:])
    words = msgpack.unpackb(payload, strict_map_key=False)
    inner = data.draw(st.booleans()) and words[0] == 1 and words[-1]
    target = msgpack.unpackb(words[-1][0], strict_map_key=False) if inner else words
    for _ in range(data.draw(st.integers(1, 2))):
        path = data.draw(st.sampled_from(_nodes_of(target)[1:]))
        place = target
        for at in path[:-1]:
            place = place[at]
            if not isinstance(place, list) or path[-1] == ():
                break
        if isinstance(place, list) and isinstance(path[-1], int) and path[-1] < len(place):
            place[path[-1]] = data.draw(STRANGE)
    if inner:
        words[-1] = [msgpack.packb(target), *words[-1][1:]]
    receive(bytes((message[0], 0)) + msgpack.packb(words))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "2 to"),
        (b"\x01\x00" + bytes(MAX_MESSAGE_BYTES), "2 to"),
        (b"\x02\x00x", "protocol version 2"),
        (b"\x01\x07x", "unknown flag"),
        (b"\x01\x01not zstd", "not a compressed message"),
        (b"\x01\x01" + zstandard.ZstdCompressor().compress(bytes(MAX_MESSAGE_BYTES + 1)), "declare a size"),
        (b"\x01\x01" + zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 99), "declare a size"),
        (b"\x01\x00\xc1", "not a message"),
        (b"\x01\x00" + msgpack.packb([9, "shop/0"]), "not a message"),
        (b"\x01\x00" + b"\x91" * 5_000 + b"\x01", "not a message"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_message_is_refused_and_counted(data: bytes, why: str) -> None:
    host, out = fresh(), HostOutput()
    host.receive(EU, data, START_MS, out)
    assert [why in rejected.reason and rejected.peer == EU for rejected in out.rejected] == [True]
    assert host.rejected_count == 1
    assert out.send == []


def test_a_second_hello_and_an_unknown_group() -> None:
    made, host, out = nodes(), fresh(), HostOutput()
    host.receive(EU, hello_of(made), START_MS, out)
    assert "second hello" in out.rejected[0].reason
    words = msgpack.unpackb(MESSAGES[0][2:], strict_map_key=False)
    words[1] = "later/0"
    host.receive(EU, b"\x01\x00" + msgpack.packb(words), START_MS, out)
    assert len(out.rejected) == 1, "its declaration may be on its way"
    assert set(host.groups) == {SYSTEM_GROUP, "shop/0"}


def test_large_messages_are_compressed() -> None:
    assert any(data[1] == 1 for data in MESSAGES)
    assert all(encode_message(decode_message(data)) == data for data in MESSAGES)


def test_a_cluster_of_one_is_never_behind() -> None:
    alone = Cluster("solo", b"0" * 16, (Member(US, "us"),))
    service = Service(Host(alone, US, Options(), Random(1)))
    out = service.step([Request(1, "declare_domain", {"domain": "shop"})], START_MS)
    service.step([Persisted(out.persist_number)], START_MS)
    status = service.status(START_MS)
    assert [group["staleness_ms"] for group in status["groups"]] == [0, 0]
    assert [group["unacked"] for group in status["groups"]] == [0, 0]
    assert status["peers"] == []


def test_a_tick_is_for_the_groups_that_have_something_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    service = Service(Host(CLUSTER, US, Options(), Random(1)))
    for at in range(9):
        service.step([Request(at, "declare_domain", {"domain": f"domain{at}"})], START_MS)
    stepped: list[str] = []
    step = Engine.step
    monkeypatch.setattr(Engine, "step", lambda engine, *event: stepped.append(engine.group) or step(engine, *event))
    service.step([Tick()], START_MS)
    assert len(set(stepped)) == len(stepped) == 10
    now_ms = START_MS
    for _ in range(10):
        stepped.clear()
        now_ms = service.step([], now_ms).wake_ms
        service.step([Tick()], now_ms)
        due = [engine for engine in service.host.groups.values() if engine.group in stepped]
        assert 0 < len(stepped) < 10
        assert all(engine.antientropy.wake_ms > now_ms for engine in due)

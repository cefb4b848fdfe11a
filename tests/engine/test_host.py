"""The groups of a node: hello, recovery, domains that open, and bytes from anywhere that must never raise."""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Any

import msgpack
import msgspec
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
from crdtstore.messages import MAX_MESSAGE_BYTES, Frame, Hello, decode_message, encode_message
from crdtstore.service import Event, PeerChanged, Received, Request, Service
from crdtstore.storage.memory import MemoryLog
from crdtstore.storage.protocol import Entry
from tests.engine.wire import START_MS, cluster_of

CLUSTER = cluster_of("us-1", "eu-1")
US, EU = (member.replica for member in CLUSTER.members)


class Nodes:
    """Two services on a wire that delivers at once; every message is kept."""

    def __init__(self) -> None:
        self.logs = {replica: MemoryLog() for replica in (US, EU)}
        self.services = {replica: Service(Host(CLUSTER, replica, Options(), Random(1))) for replica in (US, EU)}
        self.now_ms = START_MS
        self.replies: dict[int, Any] = {}
        self.heard: list[tuple[ReplicaId, bytes]] = []
        self._ticket = 0

    def run(self, who: ReplicaId, *events: Event) -> HostOutput:
        waiting = deque([(who, event) for event in events])
        first = HostOutput()
        while waiting:
            at, event = waiting.popleft()
            out = self.services[at].step([event], self.now_ms)
            first.rejected += out.rejected
            if out.persist_number:
                self.logs[at].write([self.logs[at].encode(out.persist)])
                waiting.append((at, Persisted(out.persist_number)))
            for peer, data in out.send:
                self.heard.append((at, data))
                waiting.append((peer, Received(at, data)))
            self.replies.update(out.replies)
        return first

    def connect(self) -> None:
        self.run(US, PeerChanged(EU, True))
        self.run(EU, PeerChanged(US, True))

    def ask(self, who: ReplicaId, do: str, **fields: Any) -> Any:
        self._ticket += 1
        self.run(who, Request(self._ticket, do, fields))
        return self.replies.get(self._ticket)

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 100):
            self.now_ms += 100
            self.run(US, Tick())
            self.run(EU, Tick())


def nodes() -> Nodes:
    """Two nodes that share a domain with some keys."""
    made = Nodes()
    made.connect()
    made.ask(US, "declare_domain", domain="shop")
    for name in ("counter", "lww_map"):
        made.ask(US, "declare", domain="shop", collection=name.replace("_", "-"), type=name)
    made.ask(US, "commit", domain="shop", ops=[{"collection": "counter", "key": "k", "op": "add"}], id="x")
    made.ask(
        EU,
        "commit",
        domain="shop",
        ops=[{"collection": "lww-map", "key": "k", "op": "set", "fields": {"f": "x" * 2_000}}],
    )
    made.pass_time(1_000)
    return made


# --- hello


def hello_of(made: Nodes, who: ReplicaId = EU, **changes: Any) -> bytes:
    hello = decode_message(made.services[who].host.hello(US, made.now_ms))
    assert isinstance(hello, Hello)
    return encode_message(msgspec.structs.replace(hello, **changes))


def test_a_member_says_hello() -> None:
    made = nodes()
    assert made.services[US].host.check_hello(hello_of(made)) == EU
    assert made.services[EU].host.check_hello(made.services[US].host.hello(None, made.now_ms)) == US


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"protocol": 2}, "protocol 2"),
        ({"cluster": b"other"}, "another cluster"),
        ({"replica": "ap-1.0000000000000003", "node": "ap-1"}, "not a member"),
        ({"node": "eu-2"}, "not a member"),
        ({"region": "ap"}, "not a member"),
        ({"replica": str(US), "node": "us-1", "region": "us"}, "under this node's id"),
    ],
)
def test_who_is_refused_at_the_door(changes: dict[str, Any], why: str) -> None:
    made = nodes()
    with pytest.raises(ProtocolError, match=why):
        made.services[US].host.check_hello(hello_of(made, **changes))


def test_the_first_words_are_a_hello_of_this_version() -> None:
    made = nodes()
    host = made.services[US].host
    sender, data = next((sender, data) for sender, data in made.heard if sender == EU)
    with pytest.raises(ProtocolError, match="begins with a hello"):
        host.check_hello(data)
    with pytest.raises(ProtocolError, match="protocol version 9"):
        host.check_hello(b"\x09" + data[1:])
    with pytest.raises(DecodeError):
        host.check_hello(b"")
    assert sender == EU


def test_a_group_that_is_not_declared_here_yet_is_no_reason_to_refuse() -> None:
    made = nodes()
    fresh = Host(CLUSTER, US, Options(), Random(1))
    eu = made.services[EU].host
    hello = decode_message(eu.hello(None, made.now_ms))
    assert isinstance(hello, Hello)
    groups = {name: words for name, words in hello.groups.items() if name != SYSTEM_GROUP}
    assert groups
    assert fresh.check_hello(encode_message(msgspec.structs.replace(hello, groups=groups))) == EU


def test_another_configuration_of_a_group_is_refused_at_the_door() -> None:
    made = nodes()
    hello = decode_message(made.services[EU].host.hello(US, made.now_ms))
    assert isinstance(hello, Hello)
    configuration, row, mine = hello.groups["shop/0"]
    other = msgspec.structs.replace(configuration, number=5)
    with pytest.raises(ProtocolError, match="another configuration there"):
        made.services[US].host.check_hello(hello_of(made, groups={"shop/0": (other, row, mine)}))


def test_a_peer_that_remembers_more_of_me_fences_me_before_any_write() -> None:
    """us lost its log and comes back under its old id: eu tells it what it has forgotten."""
    made = nodes()
    made.services[US] = Service(Host(CLUSTER, US, Options(), Random(1)))
    us = made.services[US].host
    with pytest.raises(ProtocolError):
        us.check_hello(made.services[EU].host.hello(US, made.now_ms))
    assert us.groups[SYSTEM_GROUP].is_fenced
    error = made.ask(US, "declare_domain", domain="other")
    assert (error.code, error.effect) == ("fenced", "none")
    status = made.services[US].status(made.now_ms)
    assert status["ready"] is False
    assert "fenced in _sys" in status["why"]


def test_a_row_of_mine_that_names_more_than_i_have_fences_me() -> None:
    """What us has made is all there, but it has forgotten what it had acknowledged of eu."""
    made = nodes()
    us, eu = made.services[US].host, made.services[EU].host
    mine = eu.groups["shop/0"].rows.newest[0]
    assert mine is not None
    more = msgspec.structs.replace(mine, vector=[mine.vector[0], mine.vector[1] + 1])
    hello = decode_message(eu.hello(US, made.now_ms))
    assert isinstance(hello, Hello)
    configuration, row, _ = hello.groups["shop/0"]
    with pytest.raises(ProtocolError, match="remembers more of this replica"):
        us.check_hello(hello_of(made, groups={"shop/0": (configuration, row, more)}))
    assert us.groups["shop/0"].is_fenced


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


def test_a_second_hello_a_stranger_and_an_unknown_group() -> None:
    made, host, out = nodes(), fresh(), HostOutput()
    host.receive(EU, hello_of(made), START_MS, out)
    assert "second hello" in out.rejected[0].reason
    stranger = make_replica_id("ap-1", 9)
    host.receive(stranger, MESSAGES[-1], START_MS, out)
    assert "not a member" in out.rejected[1].reason
    words = msgpack.unpackb(MESSAGES[0][2:], strict_map_key=False)
    words[1] = "later/0"
    host.receive(EU, b"\x01\x00" + msgpack.packb(words), START_MS, out)
    assert len(out.rejected) == 2, "its declaration may be on its way"


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

"""The first wire format beside today's: the same bytes mean the same, and a node that knows only the first one takes part."""

from __future__ import annotations

import ast
from collections import deque
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from crdtstore.causal import make_replica_id
from crdtstore.commit import Commit, chain_next, chain_start, decode_commit, encode_commit
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Configuration, ConfigurationId, Member
from crdtstore.engine.events import Persisted, Tick
from crdtstore.engine.membership.changes import Join
from crdtstore.engine.options import Options
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Ask, Fetch, Part, Want, decode_message, encode_message
from crdtstore.service import PeerChanged, Received, Request, Service
from tests.engine.wire import START_MS
from tests.golden.wire_v1 import words
from tests.golden.wire_v1.peer import Peer

HERE = Path(__file__).parent
SESSION = HERE / "wire_v1" / "session.hex"
SHOP = "shop/0"


def session() -> list[bytes]:
    """What nodes of the first version said to each other, one message a line, of every kind."""
    return [bytes.fromhex(line) for line in SESSION.read_text().split()]


def test_the_frozen_copy_imports_nothing_of_ours() -> None:
    for path in (HERE / "wire_v1").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not [name for name in names if name.split(".")[0].startswith("crdtstore")], path.name


def recorded(most: int = 6) -> list[bytes]:
    """A session of today, a few messages of each kind: for the file, once."""
    from tests.engine.test_mutations import WORLD  # noqa: PLC0415 - it runs a world

    found: dict[str, list[bytes]] = {}
    for _, _, data in WORLD.said:
        kind = found.setdefault(type(decode_message(data)).__name__, [])
        if data not in kind:
            kind.append(data)
    return [data for name in sorted(found) for data in found[name][:most] + found[name][-most:]]


def test_the_session_is_kept(pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--rewrite") and not SESSION.exists():
        SESSION.write_text("\n".join(data.hex() for data in recorded()) + "\n")
    kinds = {type(words.decode(data)).__name__ for data in session()}
    assert kinds == {
        "Frame", "Digest", "Ack", "Hello", "Configure", "Prepare", "Promise", "Accept", "Accepted",
    }  # fmt: skip


def same(new: Any, old: Any) -> bool:
    """Whether two messages say the same: field by field, by name."""
    if isinstance(new, msgspec.Struct):
        names = new.__struct_fields__
        return names[: len(old.__struct_fields__)] == old.__struct_fields__ and all(
            same(getattr(new, name), getattr(old, name)) for name in old.__struct_fields__
        )
    if isinstance(new, list | tuple):
        return len(new) == len(old) and all(map(same, new, old))
    if isinstance(new, dict):
        return new.keys() == old.keys() and all(same(new[name], old[name]) for name in new)
    return bool(new == old)


@pytest.mark.parametrize("source", ["recorded", "today"])
def test_the_same_bytes_mean_the_same(source: str) -> None:
    messages = session() if source == "recorded" else recorded(most=40)
    for data in messages:
        new, old = decode_message(data), words.decode(data)
        assert type(new).__name__ == type(old).__name__
        assert same(new, old)
        assert words.payload_of(encode_message(new)) == words.payload_of(data), "today makes what was recorded"
        assert words.encode(old)[2:] == words.payload_of(data)
        assert decode_message(words.encode(old)) == new
        for commit in old.commits if isinstance(old, words.Frame) else []:
            assert same(decode_commit(commit), words.decode_commit(commit))
            assert encode_commit(decode_commit(commit)) == words.encode_commit(words.decode_commit(commit)) == commit


OTHERS = [
    Want(SHOP, ConfigurationId(3, b"n" * 16), "stock:bounded_counter", "sku-7", 12, 3, 4711),
    Fetch(SHOP, ConfigurationId(3, b"n" * 16), b"s" * 16, 7, 4),
    Part(SHOP, ConfigurationId(3, b"n" * 16), b"s" * 16, -1, b"gone"),
    Ask(Member(make_replica_id("ap-1", 3), "ap", "ap:7000")),
    Ask(Member(make_replica_id("ap-1", 3), "ap"), "ap-1.00000000000000ff"),
]


@pytest.mark.parametrize("message", OTHERS, ids=lambda message: type(message).__name__)
def test_what_no_session_has_means_the_same(message: Any) -> None:
    data = encode_message(message)
    old = words.decode(data)
    assert type(old).__name__ == type(message).__name__
    assert same(message, old)
    assert words.encode(old) == data


def test_what_is_compared_can_differ() -> None:
    [data] = [data for data in session() if isinstance(words.decode(data), words.Prepare)][:1]
    old = words.decode(data)
    assert not same(decode_message(data), msgspec.structs.replace(old, votes=old.votes + 1))
    assert not same(decode_message(data), msgspec.structs.replace(old, ballot=words.Ballot(9, "x")))


def test_golden_commits_are_those_of_the_frozen_copy() -> None:
    paths = list((HERE / "v1").glob("commit-*.hex"))
    assert len(paths) > 10
    for path in paths:
        data = bytes.fromhex(path.read_text())
        assert words.encode_commit(words.decode_commit(data)) == data
        assert same(decode_commit(data), words.decode_commit(data))
        assert encode_commit(Commit(*msgspec.structs.astuple(words.decode_commit(data)))) == data


def test_what_is_derived_is_the_same() -> None:
    replica = make_replica_id("us-1", 7)
    start = chain_start("demo", SHOP, replica)
    assert start == words.first_chain("demo", SHOP, replica)
    assert chain_next(start, b"x") == words.next_chain(start, b"x")
    cluster = Cluster("demo", b"n" * 16, (Member(replica, "us", "us:1"),))
    members = (words.Member(str(replica), "us", "us:1"),)
    assert same(cluster.configuration(SHOP), words.first_configuration(b"n" * 16, SHOP, members))


# --- a node of the first version among those of today

OLD, US = make_replica_id("old-1", 1), make_replica_id("us-1", 2)
CLUSTER = Cluster("test", b"0123456789abcdef", (Member(OLD, "old"), Member(US, "us")))


class Mixed:
    """us of today and an old node that is the oldest member: nothing is decided without it. Mutable."""

    def __init__(self) -> None:
        members = tuple(words.Member(str(each.replica), each.region, each.gossip) for each in CLUSTER.members)
        self.old = Peer("test", CLUSTER.nonce, members, str(OLD))
        self.service = Service(Host(CLUSTER, US, Options(), Random(1)))
        self.now_ms = self.old.now_ms = START_MS
        self.replies: dict[int, Any] = {}
        self.rejected: list[str] = []
        self._ticket = 0
        for group in (SYSTEM_GROUP, SHOP):
            self.old.log(group)
        assert self.service.host.check_hello(self.old.hello()).replica == OLD
        assert self.old.heard(self.service.host.hello(OLD, self.now_ms)) == []
        self.run(PeerChanged(OLD, True))

    def run(self, *events: Any) -> None:
        waiting = deque(events)
        while waiting:
            self.carry(self.service.step([waiting.popleft()], self.now_ms), waiting)

    def carry(self, out: HostOutput, waiting: deque[Any]) -> None:
        self.rejected += [each.reason for each in out.rejected]
        self.replies.update(out.replies)
        if out.persist_number:
            waiting.append(Persisted(out.persist_number))
        for peer, data in out.send:
            if peer == OLD:
                waiting.extend(Received(OLD, answer) for answer in self.old.heard(data))

    def ask(self, do: str, **fields: Any) -> Any:
        self._ticket += 1
        self.run(Request(self._ticket, do, fields))
        return self.replies[self._ticket]

    def pass_time(self, ms: int) -> None:
        for _ in range(ms // 100):
            self.now_ms += 100
            self.old.now_ms = self.now_ms
            self.run(Tick())
            for group in self.service.host.groups:
                self.run(Received(OLD, self.old.digest(group)))

    def order(self, group: str, member: Member) -> None:
        out = HostOutput()
        host = self.service.host
        host.order(group, Join(member), 1, self.now_ms, out)
        host.finish(self.now_ms, out)
        waiting: deque[Any] = deque()
        self.carry(out, waiting)
        self.run(*waiting)


def test_an_old_node_and_one_of_today_come_to_have_the_same() -> None:
    mixed = Mixed()
    mixed.ask("declare_domain", domain="shop")
    mixed.ask("declare", domain="shop", collection="visits", type="counter")
    path = ["visits:counter", "k"]
    for at in range(1, 6):
        ops = [{"collection": "visits", "key": "k", "op": "add", "amount": at}]
        assert "dot" in mixed.ask("commit", domain="shop", ops=ops)
        mixed.old.add(SHOP, path, 100 * at)
        if at % 2:
            mixed.pass_time(300)
    mixed.pass_time(3_000)
    assert mixed.rejected == []
    engine = mixed.service.host.groups[SHOP]
    log = mixed.old.log(SHOP)
    assert engine.applied == [5, 5]
    assert [engine.history.commit(at, seq) for at in (0, 1) for seq in range(1, 6)] == [
        *log.of(str(OLD)), *log.of(str(US)),
    ]  # fmt: skip
    assert mixed.ask("read", domain="shop", collection="visits", key="k")["value"] == 1_515
    assert log.value(path) == 1_515
    assert engine.stability.stable == [5, 5], "what it says of itself counts"
    assert {"Frame", "Digest", "Ack", "Hello"} <= mixed.old.tags | {"Hello"}
    mixed.service.host.check_hello(mixed.old.hello())
    assert mixed.service.host.fenced_by is None


def test_an_old_node_votes() -> None:
    mixed = Mixed()
    mixed.ask("declare_domain", domain="shop")
    mixed.pass_time(1_000)
    mixed.order(SHOP, Member(make_replica_id("ap-1", 3), "ap"))
    mixed.pass_time(2_000)
    engine = mixed.service.host.groups[SHOP]
    assert engine.configuration.number == 1
    assert same(engine.configuration, mixed.old.log(SHOP).configuration)
    assert {"Prepare", "Accept", "Configure"} <= mixed.old.tags
    assert mixed.old.log(SHOP).votes == 2
    mixed.old.add(SHOP, ["visits:counter", "k"], 7)
    mixed.pass_time(1_000)
    assert engine.applied == [1, 0, 0]
    assert mixed.rejected == []


def test_configurations_are_the_same_in_both() -> None:
    value = Configuration(3, ((0, b"n"), (2, b"o")), CLUSTER.members)
    raw = words._encoder.encode(words.Configure(SHOP, msgspec.convert(msgspec.to_builtins(value), words.Configuration)))
    assert decode_message(b"\x01\x00" + raw).value == value  # type: ignore[union-attr]

"""Any message of a session, changed anywhere, said by anybody at any time: no step raises, laws hold, nothing grows without bound."""

from __future__ import annotations

from contextlib import suppress
from operator import le
from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Configuration, Member
from crdtstore.engine import Engine
from crdtstore.engine.events import Persisted
from crdtstore.engine.membership.changes import Join
from crdtstore.engine.options import Options
from crdtstore.errors import DecodeError, ProtocolError
from crdtstore.host import Host, HostOutput
from crdtstore.messages import Configure, Digest, Frame, decode_message, encode_message
from crdtstore.storage.memory_state import MemoryState
from crdtstore.storage.protocol import Entry
from tests.engine.mutations import mutated
from tests.engine.test_membership import Regrouping

Said = tuple[ReplicaId, ReplicaId, bytes]


class Recorded(Regrouping):
    """A world that keeps what was said, first words too."""

    def __init__(self, *names: str) -> None:
        self.said: list[Said] = []
        super().__init__(*names)

    def deliver(self) -> None:
        self.said += self.waiting
        super().deliver()

    def greet(self) -> None:
        for one in self.sites.values():
            for other in self.sites.values():
                if one is not other and one.is_up and other.is_up:
                    data = one.host.hello(other.replica, self.time_ms)
                    self.said.append((other.replica, one.replica, data))


def session() -> Recorded:
    """Writes, an eviction with its final, a join that is decided, a part that leaves."""
    world = Recorded("us", "eu", "ap", "sa")
    for name in world.sites:
        world.write(name, "add")
    world.greet()
    world.evict("eu", "sa")
    world.run(2_000)
    world.order("ap", Join(Member(make_replica_id("af-1", 7), "af", "af:7")), "shop/0")
    world.run(1_500)
    world.write("ap", "add", op_fields={"amount": 7})
    world.run(1_000)
    world.greet()
    return world


WORLD = session()
JOINER = Member(make_replica_id("af-1", 7), "af", "af:7")
US, EU, AP = (WORLD.replica(name) for name in ("us", "eu", "ap"))
STRANGER = make_replica_id("zz-1", 99)
HEARD = sorted({data for to, _, data in WORLD.said if to == US}, key=lambda data: (len(data), data))
KINDS = {type(decode_message(data)).__name__ for data in HEARD}
BY_KIND = [[data for data in HEARD if type(decode_message(data)).__name__ == kind][-40:] for kind in sorted(KINDS)]
RECORDS: list[tuple[int, list[Entry]]] = list(WORLD.sites["us"].log.replay())


def test_the_session_has_everything_in_it() -> None:
    kinds = {type(decode_message(data)).__name__ for _, _, data in WORLD.said}
    assert kinds >= {"Frame", "Digest", "Ack", "Hello", "Configure", "Prepare", "Promise", "Accept", "Accepted"}
    assert {"Frame", "Digest", "Ack", "Hello", "Configure", "Prepare", "Accept"} <= KINDS
    assert WORLD.configuration("us", "shop/0").number >= 2


def victim(records: int) -> Host:
    """us as it was after so much of its log."""
    host = Host(WORLD.cluster, US, Options(), Random(1))
    host.recover(RECORDS[:records])
    out = HostOutput()
    for peer in (EU, AP):
        host.peer_changed(peer, True, WORLD.time_ms, out)
    settle(host, out)
    return host


def settle(host: Host, out: HostOutput) -> list[Any]:
    """Write what is to be written, until nothing is."""
    refused: list[Any] = []
    for _ in range(20):
        host.finish(WORLD.time_ms, out)
        refused += out.rejected
        number, out = out.persist_number, HostOutput()
        if not number:
            return refused
        host.persisted(Persisted(number), WORLD.time_ms, out)
    raise AssertionError("it writes for ever")


def seen(engine: Engine) -> dict[str, Any]:
    """What a refused message must not change."""
    return {
        "configuration": engine.configuration,
        "state": (engine.digest, list(engine.applied), list(engine.durability.vector), list(engine.replicas)),
        "rows": (list(engine.rows.newest), list(engine.rows.floor), list(engine.stability.stable)),
        "claims": engine.membership.claims.keep(),
        "votes": engine.membership.decision.voted(),
        "early": len(engine.early),
    }


def check(engine: Engine, before: Configuration, applied: list[int]) -> None:
    """What holds whatever was said."""
    assert engine.digest == engine.keyspace.tree.share([])
    assert all(map(le, applied, engine.applied))
    assert engine.durability.vector == engine.applied
    assert all(map(le, engine.stability.stable, engine.applied))
    engine.configuration.check()
    engine.configuration.check_follows(before)
    assert before.precedes(engine.configuration)
    known, membership = len(engine.replicas), engine.membership
    assert known <= 256 + 4_096
    for table in (membership.heard, membership._offered, membership.splits):
        assert len(table) <= known + 64
    assert len(membership.claims.keep()) <= known
    assert len(membership.orders) <= 64
    assert len(engine.rows.newest) == known
    assert all(row is None or len(row.vector) == known for row in engine.rows.newest)


def hear(host: Host, peer: ReplicaId, data: bytes) -> list[Any]:
    """Take it in, then let time pass: what it left behind must not raise later."""
    out = HostOutput()
    with suppress(ProtocolError, DecodeError):
        host.check_hello(data)
    host.receive(peer, data, WORLD.time_ms, out)
    refused = settle(host, out)
    host.hello(peer, WORLD.time_ms)
    return refused


@given(
    st.lists(
        st.tuples(st.sampled_from(BY_KIND).flatmap(mutated), st.sampled_from((EU, AP, STRANGER))),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, len(RECORDS)) | st.just(len(RECORDS)),
)
def test_whatever_peers_say_the_laws_hold(said: list[tuple[bytes, ReplicaId]], records: int) -> None:
    host = victim(records)
    began = {group: (each.configuration, list(each.applied)) for group, each in host.groups.items()}
    named = set(began)
    for data, peer in said:
        before = {group: seen(each) for group, each in host.groups.items()}
        refused = hear(host, peer, data)
        try:
            message: Any = decode_message(data)
            named.add(getattr(message, "group", SYSTEM_GROUP))
        except (ProtocolError, DecodeError):
            message = None
            assert refused
        is_passed_on = isinstance(message, Digest) and all("passed on" in each.reason for each in refused)
        # What came before a bad commit in a frame stands.
        if refused and not isinstance(message, Frame) and not is_passed_on:
            assert {group: seen(each) for group, each in host.groups.items()} == before
        for group, (configuration, applied) in began.items():
            check(host.groups[group], configuration, applied)
    for ms in range(0, 1_500, 100):
        out = HostOutput()
        host.tick(WORLD.time_ms + ms, out)
        settle(host, out)
    for group, (configuration, applied) in began.items():
        check(host.groups[group], configuration, applied)
    assert set(host.groups) <= named


def joiner(*, has_store: bool) -> Host:
    """af, which a configuration names, and which holds nothing yet."""
    store = MemoryState() if has_store else None
    host = Host(WORLD.cluster, JOINER, Options(), Random(1), store)
    host.recover([])
    for peer in (US, EU, AP):
        out = HostOutput()
        host.peer_changed(peer, True, WORLD.time_ms, out)
        host.receive(US, encode_message(Configure("shop/0", WORLD.configuration("us", "shop/0"))), WORLD.time_ms, out)
        settle(host, out)
    return host


@given(
    st.lists(
        st.tuples(st.sampled_from(BY_KIND).flatmap(mutated), st.sampled_from((US, EU, AP, STRANGER))),
        min_size=1,
        max_size=3,
    ),
    st.booleans(),
)
def test_who_holds_nothing_yet_takes_nothing_but_configurations(
    said: list[tuple[bytes, ReplicaId]], has_store: bool
) -> None:
    host = joiner(has_store=has_store)
    began = {group: engine.configuration for group, engine in host.groups.items()}
    assert "shop/0" in began
    for data, peer in said:
        hear(host, peer, data)
        for ms in range(0, 800, 100):
            out = HostOutput()
            host.tick(WORLD.time_ms + ms, out)
            settle(host, out)
        for group, configuration in began.items():
            engine = host.groups[group]
            assert not engine.is_installed
            assert not engine.takes_part
            assert not any(engine.applied)
            check(engine, configuration, [0] * len(engine.applied))

"""Checkers bite: every plant is found within a few seeds, by a checker that it concerns, and the same seeds pass without it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from random import Random
from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import Persisted
from crdtstore.engine.options import Options
from crdtstore.errors import UsageError
from crdtstore.host import Host, HostOutput
from crdtstore.kernel import Tree
from crdtstore.messages import Digest, Frame, Segment, decode_message, encode_message
from crdtstore.service import PeerChanged, Received, Request, Service
from crdtstore_sim.facts import Facts
from crdtstore_sim.fuzz import prove_one, run_seed
from crdtstore_sim.observer import Observer
from crdtstore_sim.plants import PLANTS, Plant, planted
from crdtstore_sim.plants.identity import IN_IDENTITY
from crdtstore_sim.plants.members import IN_MEMBERS

WITHIN = range(20)
AMONG_MEMBERS = range(40)
"""What goes wrong between two messages about members needs more seeds."""

NOTICED_BY = {
    "ack-before-durable": {"durability"},
    "causal-check-off": {"causality"},
    "deadline-put-once": {"model values"},
    "dot-reuse-after-amnesia": {"durability"},
    "double-release": {"model values"},
    "drop-without-cut": {"model values", "convergence"},
    "elided-effects": {"model values"},
    "first-hand-only": {"stability"},
    "fold-above-stable": {"model values", "convergence"},
    "forgotten-operations": {"model values", "convergence"},
    "grouped-per-origin": {"progress"},
    "heard-digest": {"durability"},
    "heartbeat-too-far": {"stamps"},
    "ids-forgotten-by-age": {"model values", "convergence"},
    "latest-number-serves": {"shards"},
    "listed-wherever": {"model values"},
    "naive-stability": {"stability"},
    "no-relay": {"progress"},
    "promise-without-mark": {"stamps"},
    "read-before-durable": {"model values"},
    "reset-of-unobserved": {"model values", "convergence"},
    "rights-of-others": {"bounds"},
    "send-before-durable": {"durability"},
    "silence-is-consent": {"stability"},
    "silence-is-health": {"progress"},
    "text-shared-run": {"model values"},
    "tie-by-arrival": {"model values", "convergence"},
    "token-ignored": {"sessions"},
    "wrong-causal-order": {"causality"},
    "cold-not-brought": {"convergence"},
    "cold-not-listed": {"model values"},
    "commit-before-log": {"stores"},
    "contested-not-saved": {"restarts"},
    "cut-too-far": {"stores"},
    "drop-not-noted": {"convergence"},
    "failed-counts-as-saved": {"stores"},
    "failed-stays-counted": {"stores"},
    "fold-not-noted": {"stores"},
    "gifts-not-saved": {"restarts"},
    "history-beyond-stable": {"stores"},
    "holds-not-saved": {"restarts"},
    "ledger-as-of-now": {"restarts", "convergence"},
    "let-go-unsaved": {"convergence"},
    "needed-too-high": {"stores"},
    "no-copy-on-write": {"convergence", "stores"},
    "operations-not-saved": {"restarts"},
    "plans-not-saved": {"restarts"},
    "withdrawn-counts-as-saved": {"stores", "convergence"},
    "wrong-digest-saved": {"stores"},
    "receipt-of-anybody": {"receipts"},
    "receipt-of-fewer": {"receipts"},
    "receipt-when-applied": {"durability"},
    "receipt-when-sent": {"receipts"},
    "accepted-forgotten": {"configurations"},
    "any-row-among-members": {"stability"},
    "commits-of-the-evicted": {"stability", "finals"},
    "data-of-another-configuration": {"stability", "finals"},
    "early-kept": {"stability", "finals"},
    "fenced-speaks": {"stability", "configurations"},
    "final-too-early": {"finals"},
    "hello-by-own-entry": {"stability"},
    "hello-not-heard": {"stability", "dots"},
    "joiner-by-own-clock": {"stability"},
    "joiner-not-counted": {"stability"},
    "line-by-number": {"configurations"},
    "log-cut-early": {"stores"},
    "members-without-votes": {"configurations"},
    "orphans-miscounted": {"orphans"},
    "quorum-of-any": {"configurations"},
    "removed-id-returns": {"configurations"},
    "rows-by-own-entry": {"stability"},
    "rows-of-any-configuration": {"stability", "finals"},
    "snapshot-of-before": {"stability"},
    "stale-evict": {"configurations"},
    "votes-before-durable": {"refusals", "configurations"},
    "votes-forgotten": {"refusals", "configurations"},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(PLANTS))
def test_a_plant_is_found_and_the_same_seeds_pass_without_it(name: str) -> None:
    seeds = AMONG_MEMBERS if name in IN_MEMBERS | IN_IDENTITY else WITHIN
    found = prove_one(name, seeds)
    assert found.seed is not None, f"{name} was not found in seeds {seeds}"
    assert found.clean, f"seeds up to {found.seed} fail without {name} too"
    assert NOTICED_BY[name] & set(found.checkers), f"{name} was noticed by {found.checkers} only"


def test_a_bounded_counter_that_sells_what_others_hold_is_caught_in_the_sale() -> None:
    result = run_seed(0, "oversell", "rights-of-others")
    assert result.violations[0].checker == "bounds"
    assert result.sold is not None
    assert result.sold[0].oversold > 0


def test_every_plant_says_what_it_is_and_is_taken_out_again() -> None:
    before: list[Callable[..., Any]] = [Engine.own_row, Tree._drop, AntiEntropy._relay]
    for name in PLANTS:
        with planted(name):
            assert name
    assert [Engine.own_row, Tree._drop, AntiEntropy._relay] == before
    assert sorted(NOTICED_BY) == sorted(PLANTS)
    assert all(plant.says for plant in PLANTS.values())
    assert {field.name for field in fields(Plant)} >= {"owner", "function", "change", "says"}


def test_an_unknown_plant_is_refused_with_those_there_are() -> None:
    with pytest.raises(UsageError, match="heard-digest"), planted("weed"):
        pass


class _Pair:
    """Three nodes by hand: a and b speak, c is handed what the test makes of it."""

    def __init__(self) -> None:
        self.members = tuple(Member(make_replica_id(f"{name}-1", at + 1), name) for at, name in enumerate("abc"))
        self.cluster = Cluster("test", bytes(16), self.members)
        self.nodes = [
            Service(Host(self.cluster, member.replica, Options(gossip_interval_ms=50, ack_delay_ms=0), Random(at)))
            for at, member in enumerate(self.members)
        ]
        self.facts = Facts([member.replica for member in self.members], lambda: 0)
        self.observer = Observer(self.facts, Random(1))
        self.now_ms = 1_700_000_000_000

    def step(self, node: int, event: Any) -> HostOutput:
        self.now_ms += 1
        out = self.nodes[node].step([event], self.now_ms)
        if out.persist_number:
            self.observer.on_applied(node, out.persist, self.nodes[node].host.groups, has_between=False)
            self.observer.on_synced(node, out.persist)
            later = self.step(node, Persisted(out.persist_number))
            out.send += later.send
            out.replies += later.replies
        return out

    def ask(self, node: int, do: str, **given: Any) -> HostOutput:
        return self.step(node, Request(1, do, given))

    def engine(self, node: int, group: str = "d/0") -> Engine:
        return self.nodes[node].host.groups[group]

    def hand(self, node: int, maker: int, group: str, *commits: tuple[int, int]) -> HostOutput:
        """Hand a node commits (origin, seq) of a group, in this order, in a frame of ``maker``."""
        engine = self.engine(maker, group)
        origins = sorted({origin for origin, _ in commits})
        starts = {origin: min(seq for of, seq in commits if of == origin) - 1 for origin in origins}
        segments = [Segment(origin, starts[origin], engine.history.chain(origin, starts[origin])) for origin in origins]
        order = [origins.index(origin) for origin, _ in commits] if len(origins) > 1 else []
        data = [engine.history.commit(origin, seq) for origin, seq in commits]
        frame = Frame(group, engine.configuration.id, segments, order, data)
        return self.step(node, Received(self.members[maker].replica, encode_message(frame)))


def _two_commits_of_which_the_second_saw_the_first() -> _Pair:
    three = _Pair()
    three.ask(0, "declare_domain", domain="d")
    three.ask(0, "declare", domain="d", collection="names", type="lww_register")
    for node in (1, 2):
        three.hand(node, 0, "_sys/0", (0, 1), (0, 2))
    op = {"collection": "names", "key": "k", "op": "set"}
    three.ask(0, "commit", domain="d", ops=[{**op, "value": "first"}])
    three.hand(1, 0, "d/0", (0, 1))
    three.ask(1, "commit", domain="d", ops=[{**op, "value": "second"}])
    assert three.engine(1).applied == [1, 1, 0]
    return three


def test_commits_of_two_origins_delivered_in_the_wrong_causal_order_wait_for_each_other() -> None:
    three = _two_commits_of_which_the_second_saw_the_first()
    three.hand(2, 1, "d/0", (1, 1), (0, 1))  # the second, then the first
    assert three.engine(2).applied == [1, 1, 0]
    assert not three.facts.violations
    assert three.engine(2).digest == three.engine(1).digest


@pytest.mark.parametrize("plant", ["causal-check-off", "wrong-causal-order"])
def test_commits_accepted_in_the_wrong_causal_order_are_noticed(plant: str) -> None:
    three = _two_commits_of_which_the_second_saw_the_first()
    with planted(plant):
        three.hand(2, 1, "d/0", (1, 1), (0, 1))
    assert "causality" in [violation.checker for violation in three.facts.violations]


def test_a_digest_that_names_what_was_only_heard_is_noticed_on_the_wire() -> None:
    three = _two_commits_of_which_the_second_saw_the_first()
    three.step(2, PeerChanged(three.members[1].replica, True))
    three.hand(2, 1, "d/0", (1, 1))  # too early: it waits for the first
    with planted("heard-digest"):
        out = three.step(2, PeerChanged(three.members[0].replica, True))
        for _, data in out.send:
            three.observer.on_send(2, data)
    said = [decode_message(data) for _, data in out.send]
    assert [message.row.vector for message in said if isinstance(message, Digest) and message.group == "d/0"] == [
        [0, 1, 0]
    ]
    assert [violation.checker for violation in three.facts.violations] == ["durability"]

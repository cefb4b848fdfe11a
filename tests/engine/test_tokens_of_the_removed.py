"""Tokens whose session lived through a change of the members: what they name is seen, lost, or not known yet."""

from __future__ import annotations

from typing import Any

import pytest

from crdtstore.causal import make_replica_id
from crdtstore.errors import Compacted, CrdtStoreError, ReplicaBehind
from crdtstore.storage.protocol import NO_ORIGIN
from crdtstore.tokens import Tokens
from tests.engine.test_membership_requests import Asking


class Sessions(Asking):
    def add(self, name: str) -> str:
        body = self.write(name, "add")
        assert isinstance(body, dict), body
        return str(body["token"])

    def look(self, name: str, token: str, **fields: Any) -> Any:
        return self.ask(name, "read", domain="shop", collection="visits", key="k", token=token, wait_ms=300, **fields)

    def named(self, token: str) -> dict[str, dict[str, int]]:
        """The commits that a token names."""
        seen = Tokens(self.cluster.nonce).decode(token)
        named = {
            group: {name: seq for name, seq in vector.items() if name != NO_ORIGIN} for group, vector in seen.items()
        }
        return {group: vector for group, vector in named.items() if vector}

    def cut_off_and_evict(self, is_settled: bool = True) -> None:
        self.ask("us", "member_evict", nodes=["ap"], configuration=self.at("us"), yes=True)
        if is_settled:
            self.run(3_000)


@pytest.fixture
def world() -> Sessions:
    world = Sessions("us", "eu", "ap")
    world.run(500)
    return world


def test_what_the_final_covers_is_seen(world: Sessions) -> None:
    token = world.add("ap")
    world.run(1_000)
    world.cut(("ap", "us"), ("ap", "eu"))
    world.cut_off_and_evict()
    assert world.named(token) == {"shop/0": {world.replica("ap"): 1}}
    for name in ("us", "eu"):
        assert world.look(name, token)["value"] == 1
        body = world.look(name, token)
        assert world.replica("ap") not in world.named(body["token"]).get("shop/0", {}), "it names the removed no more"


def test_a_final_is_left_out_although_a_member_was_not_heard_yet(world: Sessions) -> None:
    token = world.add("ap")
    world.run(1_000)
    world.sites["ap"].end(is_orderly=True)
    world.cut_off_and_evict()
    for name in ("eu", "us"):
        world.sites[name].end(is_orderly=True)
    world.sites["us"].start()
    body = world.look("us", token)
    assert world.replica("ap") not in world.named(body["token"]).get("shop/0", {})


def test_what_went_with_it_is_lost_and_the_rest_of_the_token_is_handed_back(world: Sessions) -> None:
    world.cut(("ap", "us"), ("ap", "eu"))
    world.run(200)
    lost, kept = [world.add("ap") for _ in range(3)][-1], world.add("us")
    world.cut_off_and_evict()
    for name in ("us", "eu"):
        error = world.look(name, f"{lost}, {kept}")
        assert isinstance(error, Compacted), error
        assert (error.code, error.status, error.effect, error.retryable) == ("token-lost", 410, "none", False)
        assert (error.more["lost"], error.more["node"], error.more["replica"]) == (3, "ap", world.replica("ap"))
        assert "3 commits" in error.detail
        assert "orphan" in error.detail
        assert world.named(error.more["token"]) == world.named(kept)
        assert world.look(name, error.more["token"])["value"] == 1
        written = world.write(name, "add", token=lost)
        assert isinstance(written, Compacted), "writes follow reads: a write with it is refused too"


def test_while_it_is_not_settled_the_region_is_behind_and_who_waits_is_told_when_it_is(world: Sessions) -> None:
    world.cut(("ap", "us"), ("ap", "eu"))
    world.run(200)
    lost = world.add("ap")
    error = world.look("us", lost)
    assert isinstance(error, ReplicaBehind), "it may still come"
    ticket = world.start_asking("us", "read", domain="shop", collection="visits", key="k", token=lost, wait_ms=20_000)
    world.cut_off_and_evict()
    answer = world.replies[ticket]
    assert isinstance(answer, Compacted), "it waited for what went"
    assert answer.code == "token-lost"


def test_what_the_members_still_pass_on_is_waited_for() -> None:
    world = Sessions("us", "eu", "ap", relay_after_ms=100)
    world.run(500)
    world.cut(("ap", "us"))
    token = world.add("ap")
    world.run(100)
    world.cut(("ap", "us"), ("ap", "eu"), ("us", "eu"))
    assert isinstance(world.look("us", token), ReplicaBehind)
    world.cut(("ap", "us"), ("ap", "eu"))
    world.cut_off_and_evict()
    assert world.look("us", token)["value"] == 1, "eu had it, so it counts"


def test_an_id_that_was_never_heard_of_is_waited_for(world: Sessions) -> None:
    stranger = make_replica_id("sa", 99)
    token = Tokens(world.cluster.nonce).encode({"shop/0": {stranger: 1}})
    error = world.look("us", token)
    assert isinstance(error, ReplicaBehind)
    assert error.status == 503


def test_a_token_of_a_domain_that_is_not_here_waits(world: Sessions) -> None:
    token = Tokens(world.cluster.nonce).encode({"crm/0": {world.replica("us"): 1}})
    error = world.ask("us", "read", domain="crm", collection="c", key="k", token=token, wait_ms=100)
    assert isinstance(error, ReplicaBehind)


def test_foreign_and_altered_tokens_stay_what_they_are(world: Sessions) -> None:
    token = world.add("ap")
    world.cut_off_and_evict()
    other = Tokens(b"x" * 16).encode({"shop/0": {world.replica("ap"): 1}})
    for text in (other, token[:-2] + ("AA" if not token.endswith("AA") else "BB")):
        error = world.look("us", text)
        assert isinstance(error, CrdtStoreError)
        assert (error.code, error.status) == ("foreign-token", 422)


def test_the_removed_node_serves_no_session_and_marks_what_it_serves(world: Sessions) -> None:
    """It may lack what all members have, and tokens leave that out."""
    world.cut(("ap", "us"), ("ap", "eu"))
    world.run(200)
    token = world.add("ap")
    world.cut_off_and_evict()
    world.cut()
    world.run(3_000)
    assert isinstance(world.look("ap", token), ReplicaBehind)
    body = world.read("ap")
    assert (body["value"], body["identity"]) == (1, "removed")
    assert world.named(body["token"])["shop/0"] == {world.replica("ap"): 1}, "elsewhere it is lost, and said so"
    assert isinstance(world.look("us", body["token"]), Compacted)


def test_tokens_stay_short_when_many_ids_are_gone(world: Sessions) -> None:
    """A token of the only region left names nobody else."""
    world.sites["ap"].end(is_orderly=True)
    world.cut_off_and_evict()
    world.sites["eu"].end(is_orderly=True)
    world.ask("us", "member_evict", nodes=["eu"], configuration=world.at("us"), yes=True)
    world.run(2_000)
    assert set(world.named(world.add("us"))["shop/0"]) == {world.replica("us")}
    status = world.ask("us", "status")["groups"][1]
    assert set(status["vector"]) == {world.replica("us")}

"""A peer that tells one something else than another: two commits under one number of its id.

Whoever has one of them refuses what stands on the other, also when an honest member passes it on: the rest of what that one says counts.
It is an alarm on both, which names the peer, and ends when it is evicted before both have applied something of theirs. If both have,
they can never be one again: one side has to go on by force, and the other to rejoin.
"""

from __future__ import annotations

from typing import Any

from crdtstore.commit import Commit, chain_next, encode_commit
from crdtstore.errors import CrdtStoreError
from crdtstore.messages import Digest, Frame, Row, Segment
from tests.engine.broken import SHOP, Broken


def commit_of(world: Broken, amount: int) -> bytes:
    effects: list[Any] = [2, ["visits:counter", "k"], amount]
    return encode_commit(Commit(1, str(world.replica("ap")), 1, world.time_ms << 16, [], "ap", [], effects))


def tell(world: Broken, to: str, commit: bytes) -> None:
    """ap sends its first commit, and says that it has made it."""
    engine = world.engine(to)
    shape, origin = engine.membership.shape, engine.replicas.index(world.replica("ap"))
    start = engine.history.chain(origin, 0)
    place = shape.origins.index(origin)
    frame = Frame(SHOP, engine.configuration.id, [Segment(place, 0, start)], [], [commit])
    assert world.say(frame, to=to) == []


def claim(world: Broken, to: str, commit: bytes) -> None:
    """ap says that it has made it, and does not send it."""
    engine = world.engine(to)
    origin = engine.replicas.index(world.replica("ap"))
    row = engine.membership.shape.narrow(engine.own_row(world.time_ms))
    place = engine.membership.shape.origins.index(origin)
    vector, chains = list(row.vector), list(row.chains)
    vector[place], chains[place] = 1, chain_next(engine.history.chain(origin, 0), commit)
    said = Row(row.configuration, vector, row.hlc, chains)
    assert world.say(Digest(SHOP, engine.configuration.id, said, [None] * 3, wants_answer=False), to=to) == []


def values(world: Broken) -> list[Any]:
    return [world.read(name)["value"] for name in ("us", "eu")]


def test_who_is_told_two_things_agrees_again_when_the_liar_is_gone() -> None:
    world = Broken()
    tell(world, "us", commit_of(world, 100))
    world.run(100)
    claim(world, "eu", commit_of(world, 7))
    world.run(500)
    for name in ("us", "eu"):
        assert not isinstance(world.write(name, "add"), CrdtStoreError), "nobody honest is fenced"
    refused = world.us.measures.refused
    world.run(3_000)
    assert world.us.measures.refused > refused, "it is counted, and goes on being so"
    assert values(world) == [103, 103], "the honest ones hear each other all the same"
    said = world.ask("us", "members_status")["what_now"]
    assert any(f"crdtstore member evict {world.replica('ap')}" in each for each in said), said
    assert world.evict("us", "ap") == []
    world.run(6_000)
    assert world.members("us", SHOP) == world.members("eu", SHOP) == ["us", "eu"]
    assert world.configuration("us", SHOP).finals[world.replica("ap")] == 1
    assert values(world) == [103, 103]
    assert world.us.digest == world.engine("eu").digest


def test_who_has_applied_two_things_stays_apart_and_says_so() -> None:
    world = Broken()
    tell(world, "us", commit_of(world, 100))
    tell(world, "eu", commit_of(world, 7))
    world.run(1_000)
    world.evict("us", "ap")
    world.run(5_000)
    assert values(world) == [101, 8]
    for name in ("us", "eu"):
        engine = world.engine(name)
        assert engine.configuration.removal(world.replica("ap")) is not None
        assert world.replica("ap") not in engine.configuration.finals, "they do not agree how much of it counts"
        assert not engine.is_fenced
    refused = world.us.measures.refused
    world.run(3_000)
    assert world.us.measures.refused > refused, "an alarm for as long as it is so"
    world.force("us", "us")
    world.run(5_000)
    assert world.sites["eu"].host.roster.is_removed
    assert world.configuration("us", SHOP).finals[world.replica("ap")] == 1

"""A peer of a later version: what it says beyond what is understood here is kept where it stands in a commit, and passed over elsewhere.

A commit's bytes are never made again, so whatever is in it survives: in the log, in checkpoints, on the way to others, and an upgrade
reads it (law L4). Of messages only what is understood is taken; fields after those known are passed over. What is made anew from what was
understood has lost them: rows of others in a digest, and configurations, which is why a later version may not put anything there under
this protocol version.
"""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from crdtstore.causal import ReplicaId
from crdtstore.commit import chain_start, decode_commit
from crdtstore.configuration import Configuration
from crdtstore.errors import CrdtStoreError, DecodeError, ProtocolError
from crdtstore.messages import Configure, Digest, Row, decode_message, encode_message
from crdtstore.service import PeerChanged, Received
from crdtstore.types import REGISTRY, CrdtType, View
from tests.engine.test_membership import Regrouping

SHOP = "shop/0"
NEW_KIND = 200
ATTRIBUTES = [1, "of the future", 99, {"new": [1, None]}, 100, b"x"]


class Tagged(CrdtType):
    """A type of the future: tags, each an effect of a kind that this version does not know."""

    name = "tagged"
    question = "Which tags does it have?"
    shows_value = True

    def read(self, view: View) -> Any:
        return [live.value for _, child in view.children() for live in child.live(NEW_KIND)]


class Later(Regrouping):
    """us and eu of today, and ap of a later version, for which the test speaks: to us only."""

    def __init__(self, **options: Any) -> None:
        super().__init__("us", "eu", "ap", **options)
        self.sites["ap"].end(is_orderly=True)
        self.sites["us"].step(PeerChanged(self.ap, True))
        self.run(200)
        self.refused: list[str] = []
        self.made: list[bytes] = []

    @property
    def ap(self) -> ReplicaId:
        return self.replica("ap")

    def say(self, words: list[Any]) -> None:
        data = b"\x01\x00" + msgpack.packb(words)
        self.hear(data)

    def hear(self, data: bytes) -> None:
        out = self.sites["us"].step(Received(self.ap, data))
        self.refused += [each.reason for each in out.rejected]

    def id(self) -> list[Any]:
        return [0, self.configuration("us", SHOP).id.nonce, "of the future"]

    def commit(self, *effects: Any, beyond: tuple[Any, ...] = ()) -> bytes:
        """The next commit of ap, with fields behind the last one known."""
        seq = len(self.made) + 1
        origin = str(self.ap) if seq == 1 else 0
        flat = [part for effect in effects for part in effect]
        fields = [1, origin, seq, self.time_ms << 16, [], "later", ATTRIBUTES, flat, *beyond]
        self.made.append(msgpack.packb(fields))
        return self.made[-1]

    def send(self, *commits: bytes) -> None:
        """In a frame with something more at the end of every array."""
        after = len(self.made) - len(commits)
        engine = self.sites["us"].host.groups[SHOP]
        chain = engine.history.chain(engine.replicas.index(self.ap), after)
        self.say([1, SHOP, self.id(), [[2, after, chain, "more"]], [], list(commits), "more", {"and": "more"}])

    def kept(self, name: str) -> list[bytes]:
        engine = self.sites[name].host.groups[SHOP]
        origin = engine.replicas.index(self.ap)
        return [engine.history.commit(origin, seq) for seq in range(1, engine.applied[origin] + 1)]

    def check(self, *names: str) -> None:
        """All have the very bytes, and the same state of them."""
        digests = set()
        for name in names:
            assert self.kept(name) == self.made
            engine = self.sites[name].host.groups[SHOP]
            assert engine.digest == engine.keyspace.tree.share([])
            digests.add(engine.digest)
        assert len(digests) == 1

    def restart(self, name: str) -> None:
        self.sites[name].end(is_orderly=False)
        self.run(100)
        self.sites[name].start()
        if name == "us":
            self.sites[name].step(PeerChanged(self.ap, True))
        self.run(1_000)


def told(**options: Any) -> Later:
    """A world in which ap has said what nobody else understands."""
    world = Later(**options)
    tag = ["tags:tagged", "k", "a"], ["tags:tagged", "k", "b"]
    world.send(
        world.commit(
            (NEW_KIND, tag[0], {"since": 7}), (2, ["visits:counter", "k"], 5), beyond=("a ninth field", {"and": [10]})
        )
    )
    world.send(world.commit((NEW_KIND, tag[1], ["deep", ["er"]]), (7, ["unknown:none", "k"], "x")))
    world.run(3_000)
    return world


@pytest.mark.parametrize("has_stores", [False, True])
def test_what_nobody_understands_is_kept_counted_and_passed_on(has_stores: bool) -> None:
    world = told(has_stores=has_stores)
    assert world.refused == []
    world.check("us", "eu")
    for name in ("us", "eu"):
        assert world.read(name)["value"] == 5, "what is understood of it counts"
        commit = decode_commit(world.kept(name)[0])
        assert commit.attribute(99) == {"new": [1, None]}
    world.restart("us")
    world.check("us", "eu")
    world.restart("eu")
    world.check("us", "eu")
    assert not isinstance(world.write("us", "add"), CrdtStoreError)
    world.run(1_000)
    assert [world.read(name)["value"] for name in ("us", "eu")] == [6, 6]


@pytest.mark.parametrize("has_stores", [False, True])
def test_an_upgrade_reads_what_was_kept(has_stores: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    world = told(has_stores=has_stores)
    refused = world.ask("us", "declare", domain="shop", collection="tags", type="tagged")
    assert isinstance(refused, CrdtStoreError), "this version does not know the type"
    world.run(2_000)
    monkeypatch.setitem(REGISTRY, "tagged", Tagged())
    for name in ("us", "eu"):
        world.restart(name)
    world.ask("us", "declare", domain="shop", collection="tags", type="tagged")
    world.run(1_000)
    for name in ("us", "eu"):
        assert world.read(name, collection="tags")["value"] == [{"since": 7}, ["deep", ["er"]]]
    world.check("us", "eu")


def test_a_drop_of_today_takes_effects_of_the_future_along() -> None:
    world = told()
    world.send(world.commit((0, ["tags:tagged", "k", "a"], None)))
    world.run(2_000)
    world.check("us", "eu")
    for name in ("us", "eu"):
        view = world.sites[name].host.groups[SHOP].keyspace.view("tags:tagged", "k")
        assert Tagged().read(view) == [["deep", ["er"]]]


def row(world: Later, *beyond: Any) -> list[Any]:
    engine = world.sites["us"].host.groups[SHOP]
    chains = [chain_start("test", SHOP, replica) for replica in engine.replicas]
    vector = [0, 0, len(world.made)]
    chains[2] = engine.history.chain(2, vector[2])
    return [world.id(), vector, (world.time_ms - 1) << 16, chains, 0, False, *beyond]


def test_fields_behind_those_known_are_passed_over() -> None:
    """Everywhere in a message; what is made of it anew has lost them."""
    world = told()
    said = row(world, "more", {"and": 1})
    world.say([3, SHOP, world.id(), said, "more"])
    world.say([2, SHOP, world.id(), said, [said, None, None], False, False, "more", [1]])
    world.say([5, SHOP, world.id(), "stock:bounded_counter", "k", 1, 1, 0, "more"])
    world.say([7, SHOP, world.id(), [1, str(world.ap), "more"], 0, "more"])
    assert world.refused == []
    engine = world.sites["us"].host.groups[SHOP]
    newest = engine.rows.newest[2]
    assert isinstance(newest, Row)
    assert newest.vector[2] == 2
    told_eu = [
        message
        for target, source, data in world.waiting
        if target == world.replica("eu") and isinstance(message := decode_message(data), Digest)
    ]
    assert all(b"more" not in encode_message(message) for message in told_eu)
    world.run(500)
    world.check("us", "eu")


def test_first_words_with_more_at_their_end() -> None:
    world = told()
    words = [4, 1, world.cluster.nonce, str(world.ap), "ap", "ap"]
    standing = [world.id(), {str(world.ap): [2, row(world)[3][2]]}, None, 0, b"", "more"]
    data = b"\x01\x00" + msgpack.packb([*words, {SHOP: standing}, "", 0, "more", {}])
    assert world.sites["us"].host.check_hello(data).replica == world.ap
    with pytest.raises(ProtocolError, match="protocol version 2, this node speaks 1"):
        world.sites["us"].host.check_hello(b"\x02" + data[1:])
    with pytest.raises(ProtocolError, match="protocol 2, this node speaks 1"):
        world.sites["us"].host.check_hello(b"\x01\x00" + msgpack.packb([4, 2, *words[2:], {}]))


def test_two_places_cannot_grow() -> None:
    """A pair stays a pair: the number and the chain of an origin in first words, and an epoch."""
    world = told()
    standing = [world.id(), {str(world.ap): [2, b"x" * 32, "more"]}, None, 0, b""]
    hello = msgpack.packb([4, 1, world.cluster.nonce, str(world.ap), "ap", "ap", {SHOP: standing}])
    configure = msgpack.unpackb(encode_message(Configure(SHOP, world.configuration("us", SHOP)))[2:])
    configure[2][1][0].append("more")
    for data in (hello, msgpack.packb(configure)):
        with pytest.raises(DecodeError, match="of length 2, got 3"):
            decode_message(b"\x01\x00" + data)


def test_a_configuration_loses_what_is_not_understood() -> None:
    """It is kept decoded, and told anew: a later version may not extend it under this protocol version."""
    world = told()
    value = world.configuration("us", SHOP)
    plain = msgpack.unpackb(encode_message(Configure(SHOP, value))[2:])
    plain[2].append("more")
    message = decode_message(b"\x01\x00" + msgpack.packb(plain))
    assert isinstance(message, Configure)
    assert isinstance(message.value, Configuration)
    assert message.value == value
    world.say(plain)
    assert world.refused == []


def test_words_of_an_unknown_kind_are_refused_and_counted_and_the_rest_is_heard() -> None:
    world = told()
    host = world.sites["us"].host
    before = host.rejected_count
    for tag in (0, 14, 99, -1, "digest"):
        world.say([tag, SHOP, world.id(), "whatever"])
    world.hear(b"\x02\x00" + msgpack.packb([3, SHOP]))
    assert host.rejected_count == before + 6
    assert all("not a message" in reason for reason in world.refused[:5])
    assert "protocol version 2, this node speaks 1" in world.refused[5]
    world.refused.clear()
    world.send(world.commit((2, ["visits:counter", "k"], 10)))
    world.run(2_000)
    assert world.refused == []
    world.check("us", "eu")
    assert world.read("eu")["value"] == 15

"""A cluster in which one peer is not itself: a test speaks for it, and everything that it says is watched."""

from __future__ import annotations

from typing import Any

from msgspec import structs

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import Configuration, Member
from crdtstore.engine import Engine
from crdtstore.errors import CrdtStoreError
from crdtstore.messages import (
    Message,
    Standing,
    encode_message,
)
from crdtstore.service import PeerChanged, Received
from tests.engine.test_membership import Regrouping

SHOP = "shop/0"


class Broken(Regrouping):
    """us, eu and ap are members, sa was one and has left 1 commit. ap is not itself: the test speaks for it."""

    def __init__(self, **options: Any) -> None:
        self.refused: list[str] = []
        super().__init__("us", "eu", "ap", "sa", **options)
        self.write("sa", "add")
        self.run(500)
        self.evict("us", "sa")
        self.run(2_000)
        self.sites["sa"].end(is_orderly=True)
        assert self.us.configuration.finals == {self.replica("sa"): 1}
        self.sites["ap"].end(is_orderly=True)
        for name in ("us", "eu"):
            self.sites[name].step(PeerChanged(self.replica("ap"), True))
        self.run(200)

    @property
    def us(self) -> Engine:
        return self.engine("us")

    def engine(self, name: str, group: str = SHOP) -> Engine:
        return self.sites[name].host.groups[group]

    def say(self, message: Message | bytes, by: ReplicaId | None = None, to: str = "us") -> list[str]:
        """Speak for ap, or for a stranger; what is refused of it."""
        data = message if isinstance(message, bytes) else encode_message(message)
        out = self.sites[to].step(Received(by or self.replica("ap"), data))
        return [rejected.reason for rejected in out.rejected]

    def state(self) -> Any:
        """What nobody may change by words that are refused."""
        return [
            (
                group,
                engine.configuration,
                (engine.digest, list(engine.applied), list(engine.durability.vector), list(engine.replicas)),
                (list(engine.rows.newest), list(engine.stability.stable), len(engine.early)),
                (engine.membership.claims.keep(), engine.membership.decision.voted(), engine.membership.orders),
                engine.fenced_by,
            )
            for group, engine in self.sites["us"].host.groups.items()
        ]

    def check_refused(self, message: Message | bytes, why: str, by: ReplicaId | None = None) -> None:
        """It is refused and counted, once, and changes nothing."""
        before, count = self.state(), self.sites["us"].host.rejected_count
        reasons = self.say(message, by)
        assert len(reasons) == 1, f"refused {len(reasons)} times"
        assert why in reasons[0]
        assert self.sites["us"].host.rejected_count == count + 1
        assert self.state() == before

    def check_unaffected(self) -> None:
        """The others write, read, and change their members as if nothing had been."""
        for name in ("us", "eu"):
            assert not isinstance(self.write(name, "add"), CrdtStoreError)
        self.run(1_000)
        assert self.read("us")["value"] == self.read("eu")["value"]
        assert self.evict("us", "ap") == []
        self.run(4_000)
        assert self.members("us") == self.members("eu", SHOP) == ["us", "eu"]
        assert self.replica("ap") in self.configuration("eu", SHOP).finals


def next_of(configuration: Configuration, **changes: Any) -> Configuration:
    return structs.replace(configuration, **{"number": configuration.number + 1, **changes})


def strangers(count: int) -> list[Member]:
    return [Member(make_replica_id(f"z{at}", at), "z") for at in range(count)]


def standing(world: Broken) -> Standing:
    return Standing(world.us.configuration.id, {}, None, 0, b"")

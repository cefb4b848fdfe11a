"""The proxies between the nodes of a local cluster, and which of them are cut.

The question: who dials whom, and where? Every pair has a link for each direction of dialing, at an address of its own:
those who know of each other at their start find it in their configuration. Who joins later tells all others one address;
behind it a switch finds the link of whoever dials. So a cut of two nodes cuts two links, whoever of them dials, and
nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial

from crdtstore.testing.proxy import Link, Proxy
from crdtstore.testing.proxy_pipe import Address
from crdtstore.testing.proxy_switch import Switch

__all__ = ["ClusterLinks"]

_ANYBODY = "*"
"""Who dials and is no node of this cluster."""


class ClusterLinks:
    """Links by the names of nodes. Mutable."""

    def __init__(self, *, seed: int = 0) -> None:
        self.proxy = Proxy(seed=seed)
        self.cuts: set[tuple[str, str]] = set()
        """Pairs: who is not heard, by whom."""
        self._gossip: dict[str, Address] = {}
        self._switches: dict[str, Switch] = {}

    async def add(self, node: str, gossip: Address, *, joins: bool = False) -> None:
        """Links between a node and all that are there; ``joins``: also a switch for those who were there before."""
        for other, address in self._gossip.items():
            await self.proxy.add(_name(node, other), address)
            await self.proxy.add(_name(other, node), gossip)
        self._gossip[node] = gossip
        if joins:
            await self.proxy.add(_name(_ANYBODY, node), gossip)
            switch = self._switches[node] = Switch(partial(self._chosen, node))
            await switch.start()

    async def remove(self, node: str) -> None:
        """Forget a node that is gone for good."""
        self._gossip.pop(node, None)
        self.cuts = {pair for pair in self.cuts if node not in pair}
        if (switch := self._switches.pop(node, None)) is not None:
            await switch.stop()
        for name in [name for name in self.proxy.links if node in name.split(">")]:
            await self.proxy.links.pop(name).stop()

    async def stop(self) -> None:
        """End everything; what was cut is forgotten."""
        switches, self._switches, self._gossip, self.cuts = list(self._switches.values()), {}, {}, set()
        await asyncio.gather(*(switch.stop() for switch in switches))
        await self.proxy.stop()

    def link(self, dialer: str, target: str) -> Link:
        return self.proxy.links[_name(dialer, target)]

    def address(self, dialer: str, target: str) -> Address:
        """Where ``dialer`` finds ``target``."""
        return self.link(dialer, target).address

    def advertised(self, node: str) -> Address:
        """Where a node that joined says that it is."""
        return self._switches[node].address

    def move(self, node: str, gossip: Address) -> None:
        """A node listens elsewhere now."""
        if node in self._gossip:
            self._gossip[node] = gossip
        for name, link in self.proxy.links.items():
            if name.endswith(f">{node}"):
                link.target = gossip

    def cut(self, pairs: Iterable[tuple[str, str]]) -> None:
        """What the first of a pair says no longer reaches the second; the way back stays open for connections that exist.

        A stranger to this cluster loses who is cut from anybody.
        """
        for source, target in pairs:
            self.cuts.add((source, target))
            self.link(source, target).cut("out")
            self.link(target, source).cut("in")
            if target in self._switches:
                self.link(_ANYBODY, target).cut("out")
            if source in self._switches:
                self.link(_ANYBODY, source).cut("in")

    def heal(self, *, reset: bool = True) -> int:
        """End all cuts; returns how many connections were reset."""
        self.cuts.clear()
        return self.proxy.heal(reset=reset)

    def _chosen(self, target: str, dialer: str) -> Link:
        return self.proxy.links.get(_name(dialer, target)) or self.link(_ANYBODY, target)


def _name(dialer: str, target: str) -> str:
    return f"{dialer}>{target}"

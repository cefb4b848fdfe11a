"""The lives of a node: when it has to give up its id, it ends, leaves the id with all that belongs to it, and starts again under another.

The question: what outlives a life? The process, its listeners' addresses, what was told of it, and where the members were: the directory it
starts with is empty. What the old id had stands in ``left/<old id>/``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crdtstore_node.identity import LEFT_NAME, Verdict
from crdtstore_node.node import Node
from crdtstore_node.opening import Opened, leave
from crdtstore_node.story import Story

__all__ = ["Lives"]


class Lives:
    """One node through all its ids. Mutable; ``node`` is the one that runs now."""

    def __init__(self, opened: Opened, settled: Callable[[], None] = lambda: None) -> None:
        """``settled`` is called when a life has begun."""
        self.story = Story()
        self.node = Node(opened, self.story)
        self._settled = settled

    async def run(self, stop: asyncio.Event) -> int:
        """Serve until told to stop; the exit code.

        Raises:  CrdtStoreError when a start fails; nothing is left running.
        """
        while True:
            node = self.node
            await node.start()
            self._settled()
            await _first(stop, node.failed, node.ended)
            await node.stop()
            if node.failed.is_set() or stop.is_set():
                return int(node.failed.is_set())
            self.node = Node(self._begin_anew(node), self.story)

    def _begin_anew(self, node: Node) -> Opened:
        opened = node.opened
        seeds = node.transport.dialers.next_seeds()
        old = opened.me.replica
        new = leave(opened, node.ended_by, may_live=_may_live(node))
        self.story.tell("left", replica=old, why=node.ended_by, new=new, kept=str(opened.data / LEFT_NAME / old))
        return Opened(opened.config, is_bootstrap=False, has_left=True, seeds=seeds)


def _may_live(node: Node) -> bool:
    """Whether another directory may go on under this node's id, perhaps the one that this was copied from. Not, when this one has gone
    on, or was put back from an older copy of itself.
    """
    return not node.has_gone_on and node.opened.continuity.verdict is not Verdict.FORGOTTEN


async def _first(*events: asyncio.Event) -> None:
    """Wait until one of these is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()

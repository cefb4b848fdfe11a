"""What happens to a node as a member, noticed from outside: the host decides, here it is told, and what follows from it is done.

The question: what follows by itself? A node that is fenced gives up its id at once and joins under a new one: whatever it still had to say
under the old one nobody may hear. A node that was removed does nothing: somebody wanted that, and only an operator takes it back.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from crdtstore_node.identity import mark_joined, read_identity

if TYPE_CHECKING:
    from crdtstore_node.node import Node

__all__ = ["Watch"]

_log = logging.getLogger(__name__)
_LOOK_S = 0.05
_GROUPS_EVERY = 10
"""There may be many groups: they are looked at less often, unless one is to be taken over."""


class Watch:
    """Looks at one node for as long as it runs. Mutable."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._host = node.host
        self._awaited: set[str] = set()
        """Groups that are to be taken over."""
        self._looks = 0
        self._is_member = self._host.roster.is_member
        self._is_removed = self._is_fenced = False
        self._splits: set[tuple[str, str]] = set()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.ensure_future(self._keep_looking())

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep_looking(self) -> None:
        while True:
            try:
                self.look()
            except Exception:
                _log.exception("what became of this node could not be told")
            await asyncio.sleep(_LOOK_S)

    def look(self) -> None:
        """Tell what is new."""
        host, tell = self._host, self._node.story.tell
        if host.reads_only or self._node.opened.continuity.must_leave:
            return
        if host.fenced_by is not None and not self._is_fenced:
            self._is_fenced = True
            tell("fenced", replica=host.me.replica, why=host.fenced_by)
            self._node.end(f"fenced: {host.fenced_by}")
        self._look_at_members()
        self._looks += 1
        if self._awaited or self._looks % _GROUPS_EVERY == 1:
            self._look_at_groups()

    def _look_at_groups(self) -> None:
        tell = self._node.story.tell
        for group, engine in list(self._host.groups.items()):
            if not engine.is_installed:
                self._awaited.add(group)
            elif group in self._awaited:
                self._awaited.discard(group)
                tell("installed", group=group, commits=sum(engine.durability.vector))
            for replica, configuration in engine.membership.splits.items():
                if (group, replica) not in self._splits:
                    self._splits.add((group, replica))
                    tell("split", group=group, peer=replica, configuration=str(configuration))

    def _look_at_members(self) -> None:
        roster, tell = self._host.roster, self._node.story.tell
        if roster.is_member and not self._is_member:
            identity = read_identity(Path(self._node.config.data))
            mark_joined(Path(self._node.config.data))
            self._is_member = True
            what = "rejoined" if identity is not None and identity.left else "joined"
            tell(what, replica=self._host.me.replica)
        if roster.is_removed and not self._is_removed:
            self._is_removed = True
            tell("evicted", replica=self._host.me.replica)

"""Orphans: of a removed id its machine keeps, and shows, exactly what was cut off: what it made above the number that counts.

The question: who knows what was cut off? Only the machine that had the id, by the log that it keeps. Nothing of what users were told is
safe may be missing both from what counts and from there.
"""

from __future__ import annotations

from collections.abc import Collection

from crdtstore_sim.checkers.durability import Durability
from crdtstore_sim.facts import Facts, Group

__all__ = ["Orphans"]


class Orphans:
    """Mutable: how many were shown."""

    def __init__(self, facts: Facts, durability: Durability) -> None:
        self._facts = facts
        self._durability = durability
        self.shown = 0

    def on_shown(self, group: Group, origin: int, final: int, shown: Collection[int], *, has_forgotten: bool) -> None:
        """A machine shows the numbers of all orphans of an id that it had; ``has_forgotten``: its disk is not what it was."""
        replica, made = self._facts.members[origin], len(group.records[origin])
        self.shown += len(shown)
        if wrong := [seq for seq in shown if not final < seq <= made]:
            self._report(group, f"{replica} made {made}, of which {final} count; {wrong[0]} is shown as an orphan")
        if has_forgotten:
            return
        safe = self._durability.acknowledged(group.name, origin)
        if lost := [seq for seq in safe if seq > final and seq not in shown]:
            self._report(group, f"{replica}:{lost[0]} was acknowledged, {final} count, and it is no orphan")

    def _report(self, group: Group, detail: str) -> None:
        self._facts.report("orphans", f"{group.name}: {detail}")

"""Finals: whoever adopts how many commits of a removed replica count has exactly so many, and never applies one above.

The question: when is a final wrong? When somebody who lives on has more of the removed one, which then would have to be taken back, or
less, which nobody may be left to send.
"""

from __future__ import annotations

from collections.abc import Sequence

from crdtstore.configuration import Configuration
from crdtstore_sim.facts import Facts, Group
from crdtstore_sim.reader import Record

__all__ = ["Finals"]


class Finals:
    """Keeps nothing of its own."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts

    def on_adopted(self, group: Group, node: int, configuration: Configuration, applied: Sequence[int]) -> None:
        """A node that holds the state goes by this configuration from now on."""
        for replica, final in configuration.finals.items():
            at = self._facts.index[replica]
            if applied[at] != final and at != node:
                self._report(
                    group, node, f"adopts {configuration.id} with {final} commits of {replica}, and has {applied[at]}"
                )

    def on_commit(self, group: Group, node: int, record: Record, configuration: Configuration | None) -> None:
        """Before a commit counts as applied at a node."""
        if configuration is None:
            return
        origin = self._facts.members[record.origin]
        final = configuration.finals.get(origin)  # type: ignore[call-overload]
        if final is not None and record.seq > final:
            self._report(group, node, f"applies {origin}:{record.seq}, of which {final} count")
        elif configuration.member(origin) is None and configuration.removal(origin) is None:
            self._report(group, node, f"applies {origin}:{record.seq}, whom {configuration.id} does not name")

    def _report(self, group: Group, node: int, detail: str) -> None:
        self._facts.report("finals", f"{group.name}: {self._facts.members[node]} {detail}")

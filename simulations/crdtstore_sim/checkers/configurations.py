"""Configurations: one per id, each follows from the one before, and an id that was removed never returns.

The question: how would two decisions for one number be noticed? By whoever adopts the second one: all that any node ever adopted is kept
here, by group and id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crdtstore.configuration import SYSTEM_GROUP, Configuration, ConfigurationId
from crdtstore_sim.facts import Facts

__all__ = ["Configurations", "leads_to"]


class Configurations:
    """Mutable: what was adopted, by group and id."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._ordered: dict[frozenset[str], set[tuple[int, bytes]]] = {}
        """Whom operators ordered out of ``_sys``, and under which configurations."""
        self._adopters: dict[tuple[str, int, bytes], set[int]] = {}
        self._known: dict[tuple[str, int, bytes], tuple[Configuration, str]] = {}

    def forget(self, node: int) -> None:
        """A node's disk was put back: what it alone went by never was."""
        for at in [at for at, nodes in self._adopters.items() if nodes == {node}]:
            del self._known[at], self._adopters[at]

    def of(self, group: str, configuration: ConfigurationId) -> Configuration | None:
        known = self._known.get((group, configuration.number, configuration.nonce))
        return known[0] if known is not None else None

    def on_ordered(self, replicas: Iterable[str], at: ConfigurationId) -> None:
        """An operator, who sees this configuration, orders an eviction."""
        self._ordered.setdefault(frozenset(replicas), set()).add((at.number, at.nonce))

    def _check_evicted(self, group: str, now: Configuration, may_go: Callable[[str], bool]) -> None:
        """Who goes was ordered out as things stood just before, or goes by itself."""
        at = now.number - 1, now.epochs[-1][1]
        known = self._known.get((group, *at))
        if group != SYSTEM_GROUP or known is None:  # forced, or nobody stood there for long
            return
        gone = frozenset(known[0].ids) - frozenset(now.ids)
        if gone and gone in self._ordered and at not in self._ordered[gone] and not any(map(may_go, gone)):
            self._report(
                group, f"{now.id} is without {sorted(gone)}, which was ordered under other configurations only"
            )

    def on_adopted(
        self,
        node: int,
        group: str,
        before: Configuration | None,
        now: Configuration,
        *,
        is_free: bool,
        may_go: Callable[[str], bool] | None = None,
    ) -> None:
        """A node goes by this configuration from now on; ``is_free``: it may go back, for its disk was put back, or
        it holds nothing yet. ``may_go``: whether somebody leaves, or is gone already."""
        who = self._facts.members[node]
        at = group, now.number, now.epochs[-1][1]
        known, first = self._known.setdefault(at, (now, who))
        self._adopters.setdefault(at, set()).add(node)
        if known is now and may_go is not None:
            self._check_evicted(group, now, may_go)
        if known != now:
            self._report(group, f"two configurations {now.id}: {first} adopted {_shown(known)}, {who} {_shown(now)}")
        removed = {each.replica for each in now.removed}
        if back := removed & {*now.ids}:
            self._report(group, f"{who} adopted {now.id} with {sorted(back)}, which were removed, as members")
        if before is None or before == now or is_free:
            return
        if not leads_to(before, now):
            self._report(group, f"{who} went from {before.id} to {now.id}, which does not follow from it")
        for each in before.removed:
            if each.replica in now.ids:
                self._report(group, f"{each.replica} was removed in {before.id} and is a member in {now.id}")
            found = now.removal(each.replica)
            if each.final is not None and (found is None or found.final != each.final):
                self._report(group, f"the final of {each.replica} was {each.final} in {before.id}, not in {now.id}")

    def _report(self, group: str, detail: str) -> None:
        self._facts.report("configurations", f"{group}: {detail}")


def leads_to(before: Configuration, now: Configuration) -> bool:
    """Whether a line had the one configuration, as it leads to the other: it had its nonce at its number."""
    there = [nonce for first, nonce in now.epochs if first <= before.number]
    return before.number <= now.number and there[-1:] == [before.epochs[-1][1]]


def _shown(configuration: Configuration) -> str:
    removed = ", ".join(f"{each.replica}={each.final}" for each in configuration.removed)
    return f"({', '.join(configuration.ids)}; removed: {removed or 'nobody'})"

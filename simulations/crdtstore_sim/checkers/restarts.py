"""Restarts: what a node remembered before a crash, beside its keys, it remembers again.

The question: what may a restart change? It may know more: what was forgotten since the checkpoint began, because it was over, is forgotten
again. It may not know less, or anything else: an operation counts twice, a key never ends, a hold is never given back, and nobody notices
for days. Where a crash took commits nothing is compared, for what they had said is gone too.
"""

from __future__ import annotations

from typing import Any

from crdtstore.engine.engine import Engine
from crdtstore_sim.facts import Facts, shown

__all__ = ["Restarts"]

_Table = dict[Any, Any]


class Restarts:
    """Mutable: what each node remembered when it went down."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._before: dict[tuple[str, int], tuple[list[int], dict[str, _Table]]] = {}

    def on_down(self, node: int, engines: dict[str, Engine]) -> None:
        """Memory is about to be lost."""
        for name, engine in engines.items():
            self._before[name, node] = list(engine.applied), _remembered(engine)

    def on_recovered(self, node: int, engines: dict[str, Engine]) -> None:
        """It is back."""
        for name, engine in engines.items():
            applied, before = self._before.pop((name, node), (None, {}))
            if applied != engine.applied:
                continue
            after = _remembered(engine)
            for table, entries in before.items():
                lost = [at for at, value in entries.items() if not _is_kept(table, value, after[table].get(at))]
                if lost:
                    was, found = entries[lost[0]], after[table].get(lost[0])
                    self._facts.report(
                        "restarts",
                        f"{name}: {self._facts.members[node]} remembered {len(lost)} {table} that it does not after a "
                        f"restart, {shown(lost[0])} as {shown(was)}, now {shown(found)}",
                    )


def _is_kept(table: str, value: Any, found: Any) -> bool:
    if table == "plans":  # it may be looked at once more
        return found is not None and found <= value
    return bool(found == value)


def _remembered(engine: Engine) -> dict[str, _Table]:
    keyspace, rights = engine.keyspace, engine.rights
    operations = keyspace.operations
    return {
        "operations": {name: operations.attempts(name) for name in operations._attempts},
        "plans": {path: due_ms for path, (due_ms, _) in keyspace.expiry._planned.items()},
        "contested keys": dict.fromkeys(keyspace.tree.contested, True),
        "holds": dict(rights.holds._open._at),
        "ended holds": dict(rights.holds._ended._at),
        "gifts": dict(rights._given),
    }

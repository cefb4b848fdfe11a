"""What is due: changes that follow from what all members say, so that nobody has to order them.

The question: when is it known how many commits of a removed replica count? When all members have said, in the configuration that removed
it, how many they have, and all have equally many: what none of them had then nobody will get, for none of them hears it any more. And when
may a member go that wants to leave? When it says that no commit of its own follows, and all others have those it made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from crdtstore.engine.membership.changes import Change, Evict, Final

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["due_changes", "is_anything_pending"]


def due_changes(engine: Engine) -> list[Change]:
    """The changes that any member may propose now."""
    shape, configuration = engine.membership.shape, engine.configuration
    due: list[Change] = []
    for index in shape.origins[len(shape.members) :]:
        seq = _agreed(engine, index)
        if seq is not None:
            due.append(Final(engine.replicas[index], seq, configuration.id))
    for index in engine.others:
        row = engine.rows.newest[index]
        if row is not None and row.is_leaving and _all_have(engine, index, row.vector[index]):
            due.append(Evict((engine.replicas[index],), configuration.id))
    return due


def is_anything_pending(engine: Engine) -> bool:
    """Whether a change may be due soon."""
    newest, shape = engine.rows.newest, engine.membership.shape
    is_somebody_leaving = any((row := newest[other]) is not None and row.is_leaving for other in engine.others)
    return is_somebody_leaving or len(shape.origins) > len(shape.members)


def _agreed(engine: Engine, index: int) -> int | None:
    """How many commits of a removed replica all members have, if all have equally many."""
    seq = engine.durability.vector[index]
    rows = [engine.stability.usable(other) for other in engine.others]
    return seq if all(row is not None and row[index] == seq for row in rows) else None


def _all_have(engine: Engine, index: int, seq: int) -> bool:
    """Whether all members but that one have so many commits of it."""
    rows = [engine.stability.usable(other) for other in engine.others if other != index]
    is_here = engine.durability.vector[index] >= seq
    return is_here and all(row is not None and row[index] >= seq for row in rows)

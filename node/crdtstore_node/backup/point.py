"""Points in time: which commits of a log belong to a token or an instant.

The question: what was there at an instant? Of the commits stamped up to it those whose deps are in the set themselves: one that is left out
leaves out all that has seen it, so the set is causally closed whatever the clocks said. A token names commits, not a time: the shortest
prefix of the log, in the order in which it was applied, that covers it.

Nothing can be taken out of a checkpoint. One that is beyond the point cannot be used: an older backup can, with the log that later ones
hold on top (``line``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Protocol

from crdtstore.causal import ReplicaId, covers, node_of, worker_of
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import decode_commit
from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.declarations import DOMAINS, declared_groups
from crdtstore.errors import StorageError, UsageError
from crdtstore.storage.protocol import NO_ORIGIN, Entry
from crdtstore.storage.snapshot import Manifest
from crdtstore.tokens import Seen, Tokens
from crdtstore_node.backup.checkpoint import Checkpoint, newest_stamp
from crdtstore_node.backup.ends import head_of

__all__ = [
    "InstantPoint",
    "Point",
    "TokenPoint",
    "Wanted",
    "is_beyond",
    "is_reached",
    "parse_wanted",
    "point_of",
    "unix_ms",
]

_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_TOKEN = re.compile(r"A[Qg][\w-]{12,}")
"""What at least looks like one: then it is another cluster's, or was altered."""
_OLDER = "use an older backup. Nothing changed."


class Point(Protocol):
    """Chooses among the entries above a checkpoint, offered in the order of the log. Mutable."""

    def below(self, entry: Entry, where: str) -> None:
        """This one is in the checkpoint."""

    def admits(self, entry: Entry, where: str) -> bool:
        """Whether this one, which is not in the checkpoint, belongs to the point.

        Raises:  UsageError when the checkpoint is beyond the point.
        """

    def finish(self) -> None:
        """There are no more entries.

        Raises:  UsageError when the point is not reached, or the checkpoint is beyond it.
        """


Wanted = int | Seen
"""An instant (Unix ms), or what a token has seen."""


def parse_wanted(text: str, manifest: Manifest) -> Wanted:
    """The point that an operator names to which a backup is restored: a token of its cluster, or an instant with its zone (RFC 3339).

    Raises:  UsageError when it is neither, or a token that names what other workers of the node hold; nothing changed.
    """
    if _DATE.match(text) or not text:
        return unix_ms(text)
    nonce = bytes.fromhex(manifest.nonce)
    try:
        seen = Tokens(nonce).decode(text)
    except UsageError:
        if _TOKEN.match(text):
            raise
        raise _neither(text) from None
    if worker_of(node_of(ReplicaId(manifest.replica))) is not None:
        raise UsageError(
            "a backup of one of several workers is restored to an instant: a token names what the others hold too. Nothing changed."
        )
    # An entry of nobody is the number of a configuration: no commit that could be missing.
    return {group: {name: seq for name, seq in vector.items() if name != NO_ORIGIN} for group, vector in seen.items()}


def _neither(text: str) -> UsageError:
    return UsageError(
        "expected a token (AQ…, the field `token` of a reply) or an instant with its zone (2026-01-05T10:00:00Z or "
        f"2026-01-05T11:00:00+01:00), got {text[:100]!r}. Nothing changed."
    )


def is_beyond(manifest: Manifest, wanted: Wanted) -> bool:
    """Whether the checkpoint of a backup already holds what the point does not."""
    held = {group: part.checkpoint.vector for group, part in manifest.groups.items() if part.checkpoint is not None}
    if isinstance(wanted, int):
        return any(manifest.groups[group].newest_ms > wanted for group in held)
    return all(covers(held.get(group, {}), vector) for group, vector in wanted.items())  # type: ignore[arg-type]


def is_reached(manifest: Manifest, wanted: Wanted) -> bool:
    """Whether a backup has all that the point asks for."""
    if isinstance(wanted, int):
        return wanted <= unix_ms(manifest.taken)
    ends = {group: part.end.vector for group, part in manifest.groups.items()}
    return all(covers(ends.get(group, {}), vector) for group, vector in wanted.items())  # type: ignore[arg-type]


def point_of(wanted: Wanted, checkpoint: Checkpoint) -> Point:
    """What chooses the commits on top of a checkpoint.

    Raises:  UsageError when the checkpoint is beyond the point; nothing changed.
    """
    return InstantPoint(wanted, checkpoint) if isinstance(wanted, int) else TokenPoint(wanted, checkpoint)


def unix_ms(text: str) -> int:
    """An instant with its zone.

    Raises:  UsageError.
    """
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        at = None
    if at is None or at.tzinfo is None:
        raise _neither(text)
    return int(at.timestamp() * 1000)


class TokenPoint:
    """The shortest prefix of the log that covers what a token has seen."""

    def __init__(self, wanted: Seen, checkpoint: Checkpoint) -> None:
        self._missing = {
            (group, origin): seq for group, vector in wanted.items() for origin, seq in vector.items() if seq
        }
        self._wanted = dict(self._missing)
        self._is_beyond = True
        """Whether the checkpoint holds more than a shortest prefix would: unless its last commit is one that the token names."""
        for group, saved in checkpoint.groups.items():
            for origin, seq in zip(saved.members, saved.applied, strict=True):
                self._reach(group, origin, seq)
        self._is_begun = not any(seq for saved in checkpoint.groups.values() for seq in saved.applied)

    def _reach(self, group: str, origin: str, seq: int) -> None:
        name = (group, ReplicaId(origin))
        if seq >= self._missing.get(name, seq + 1):
            del self._missing[name]

    def below(self, entry: Entry, where: str) -> None:
        group, origin, _ = entry
        self._is_beyond = self._wanted.get((group, origin)) != head_of(entry, where).seq

    def _begin(self) -> None:
        if not self._is_begun and not self._missing and self._is_beyond:
            raise UsageError(f"the checkpoint of this backup holds more than the token has seen: {_OLDER}")
        self._is_begun = True

    def admits(self, entry: Entry, where: str) -> bool:
        self._begin()
        if not self._missing:
            return False
        self._reach(entry.group, entry.origin, head_of(entry, where).seq)
        return True

    def finish(self) -> None:
        self._begin()
        if self._missing:
            (group, origin), seq = next(iter(sorted(self._missing.items())))
            raise UsageError(
                f"this backup does not reach the token: it lacks commit {seq} of {origin} in {group}; "
                "use a newer backup, or one of another region. Nothing changed."
            )


class InstantPoint:
    """All commits stamped up to an instant whose deps are included."""

    def __init__(self, at_ms: int, checkpoint: Checkpoint) -> None:
        self._at_ms = at_ms
        self._included: dict[str, dict[str, int]] = {}
        self._rosters: dict[tuple[str, str], list[str]] = {}
        self._deps: dict[tuple[str, str], dict[str, int]] = {}
        self._declared = {SYSTEM_GROUP}
        for group, saved in checkpoint.groups.items():
            newest = newest_stamp(saved)
            if physical_ms(newest) > at_ms:
                raise UsageError(
                    f"the checkpoint of this backup holds commits up to {rfc3339(physical_ms(newest))}, after {rfc3339(at_ms)}: "
                    + _OLDER
                )
            self._declared.add(group)
            names = saved.members
            self._included[group] = dict(zip(names, saved.applied, strict=True))
            for at, origin in enumerate(names):
                self._rosters[group, origin] = [names[index] for index in saved.rosters[at]]
                self._deps[group, origin] = dict(zip(names, saved.deps[at] or [0] * len(names), strict=True))

    def below(self, entry: Entry, where: str) -> None:
        pass

    def admits(self, entry: Entry, where: str) -> bool:
        group, origin, _ = entry
        head = head_of(entry, where)
        included = self._included.setdefault(group, {})
        if group not in self._declared or head.seq != included.get(origin, 0) + 1:
            return False
        name = (group, str(origin))
        roster = [*self._rosters.get(name, [origin])]
        deps = self._increased(self._deps.get(name, {}), roster, head.deps, where)
        if physical_ms(head.hlc) > self._at_ms or not covers(included, deps):  # type: ignore[arg-type]
            return False
        deps[origin] = head.seq - 1
        included[origin], self._rosters[name], self._deps[name] = head.seq, roster, deps
        if group == SYSTEM_GROUP:
            self._declare(entry)
        return True

    @staticmethod
    def _increased(
        deps: Mapping[str, int], roster: list[str], increases: list[str | int], where: str
    ) -> dict[str, int]:
        """The vector that an origin had seen at a commit, by name; ``roster`` grows by those that it introduces."""
        result = dict(deps)
        for name, increase in zip(increases[::2], increases[1::2], strict=True):
            if isinstance(name, str):
                roster.append(name)
            elif not 0 < name < len(roster):
                raise StorageError(f"{where}: deps name position {name} of a roster of {len(roster)}", file=where)
            replica = name if isinstance(name, str) else roster[name]
            result[replica] = result.get(replica, 0) + int(increase)
        return result

    def _declare(self, entry: Entry) -> None:
        """A commit of ``_sys`` may declare domains, whose groups begin with it."""
        effects = decode_commit(entry.data).effects
        for path, value in zip(effects[1::3], effects[2::3], strict=True):
            if len(path) > 1 and path[0] == DOMAINS:
                self._declared.update(declared_groups(path, value))

    def finish(self) -> None:
        pass

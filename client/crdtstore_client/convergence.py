"""Convergence: what the statuses of several nodes say together.

The question: may we say that all regions hold the same? Only for those that answered, only by vectors, and only if
digests agree where vectors do; a region that did not answer is named, never assumed. What is behind is measured against
the join of all vectors at hand.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from crdtstore.causal import Vector, join, node_of
from crdtstore_client.members import number_of
from crdtstore_client.status import PeerStatus, Status

__all__ = ["SILENT_MS", "Convergence", "Row", "Verdict", "assess", "silent_peers", "span"]

SILENT_MS = 2000
"""A peer not heard of for so long is shown as cut off: ten times the pause between two messages of an idle node."""

PARTED = "lines parted, see crdtstore doctor"
EVICTED = "evicted, and has not heard of it"

Verdict = Literal["converged", "diverged", "unknown", "false-convergence"]


@dataclass(frozen=True, slots=True)
class Row:
    """One node. Milliseconds; None is unknown. ``digest`` is empty for a node that did not answer."""

    region: str
    node: str
    ready: str
    commits: int | None = None
    behind: int | None = None
    lag_ms: float | None = None
    staleness_ms: float | None = None
    unacked: int | None = None
    clock_ms: float | None = None
    digest: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Convergence:
    """The whole picture: rows, verdict and the sentence that says it."""

    rows: tuple[Row, ...]
    verdict: Verdict
    sentence: str


def span(ms: float) -> str:
    """A span of time as people say it: 6 s, 3 min, 2 h."""
    seconds = ms / 1000
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"


def silent_peers(status: Status) -> list[PeerStatus]:
    """Peers this node has not heard of for long, or never."""
    return [peer for peer in status.peers if peer.heard_ms is None or peer.heard_ms > SILENT_MS]


def assess(
    answers: Mapping[str, Status | None], *, parted: Collection[str] = (), deaf: Collection[str] = ()
) -> Convergence:
    """From url -> status, None for a node that did not answer.

    ``parted``: urls of nodes whose lines of configurations contradict each other, ``deaf``: of those that were evicted and
    do not know it, as far as their answers about members tell; what statuses alone tell of both is found here.
    """
    statuses = [status for status in answers.values() if status is not None]
    names = _Names(statuses)
    lacking = {status.node: _lacking(status, statuses, names) for status in statuses}
    gone = [*names.unheard(), *(url for url, status in answers.items() if status is None and not names.unheard())]
    apart_of = [
        url for url, each in answers.items() if each is not None and (url in parted or _is_parted(each, statuses))
    ]
    unaware = [url for url, each in answers.items() if each is not None and (url in deaf or _is_deaf(each, statuses))]
    apart = _Apart(
        [each for url, each in answers.items() if each is not None and url in apart_of],
        [each for url, each in answers.items() if each is not None and url in unaware and url not in apart_of],
    )
    rows = [_row(status, statuses, lacking[status.node], names, apart) for status in statuses]
    rows += [_gone(name, statuses, names) for name in gone]
    verdict, sentence = _judge(statuses, lacking, gone, names, apart)
    return Convergence(tuple(rows), verdict, sentence)


@dataclass(frozen=True, slots=True)
class _Apart:
    """Nodes that do not belong together with the others any more, though they take writes."""

    parted: list[Status]
    deaf: list[Status]

    def note(self, status: Status) -> str:
        if status in self.parted:
            return PARTED
        return EVICTED if status in self.deaf else ""

    def sentence(self, names: _Names) -> str:
        """What does not come right by itself; empty: nothing."""
        said = ""
        if self.deaf:
            what = ", ".join(names[status.node] for status in self.deaf)
            said += f" {what}: {EVICTED}; what is written there does not count, see crdtstore doctor."
        if self.parted:
            said += f" {', '.join(names[status.node] for status in self.parted)}: {PARTED}."
        return said


def _line(status: Status) -> tuple[int, str]:
    """The number and the random word of the configuration that it goes by; -1: it does not say."""
    at = next((group.configuration for group in status.groups if group.domain == "_sys"), "")
    return number_of(at), at.partition(".")[2]


def _knows(status: Status, other: Status) -> bool:
    return any(peer.node == other.node for peer in status.peers)


def _is_parted(status: Status, statuses: Sequence[Status]) -> bool:
    """Whether it says so itself, or it and another one removed each other, or decided otherwise at the same place."""
    if any(group.split > 0 for group in status.groups):
        return True
    number, word = _line(status)
    for other in statuses:
        there, other_word = _line(other)
        if number < 0 or there < 0 or word == other_word or not (status.ready and other.ready):
            continue
        if number == there or not (_knows(status, other) or _knows(other, status)):
            return True
    return False


def _is_deaf(status: Status, statuses: Sequence[Status]) -> bool:
    """Whether who knows of a newer configuration does not count it among its peers, while it takes writes."""
    newest = max((other for other in statuses if other.ready), key=_line, default=status)
    is_older = 0 <= _line(status)[0] < _line(newest)[0]
    return status.ready and is_older and _knows(status, newest) and not _knows(newest, status)


class _Names:
    """What nodes are called: by their region, if it has one node only."""

    def __init__(self, statuses: Sequence[Status]) -> None:
        self.regions: dict[str, str] = {status.node: status.region for status in statuses}
        self._answered = set(self.regions)
        for status in statuses:
            for peer in status.peers:
                self.regions.setdefault(peer.node, peer.region)

    def __getitem__(self, node: str) -> str:
        region = self.regions.get(node, node)
        return region if list(self.regions.values()).count(region) == 1 else node

    def unheard(self) -> list[str]:
        """Nodes that others know and that did not answer."""
        return [node for node in self.regions if node not in self._answered]


def _vectors(statuses: Sequence[Status]) -> dict[tuple[str, int], dict[str, Vector]]:
    """Per group the vector of each node that has it."""
    vectors: dict[tuple[str, int], dict[str, Vector]] = {}
    for status in statuses:
        for group in status.groups:
            vectors.setdefault((group.domain, group.shard), {})[status.node] = group.vector
    return vectors


def _lacking(status: Status, statuses: Sequence[Status], names: _Names) -> dict[str, int]:
    """How many commits of which origin this node lacks."""
    lacking: dict[str, int] = {}
    for (domain, shard), by_node in _vectors(statuses).items():
        if not status.is_to_hold(domain, shard):
            continue
        mine: Vector = by_node.get(status.node, {})
        for replica, seq in join(by_node.values()).items():
            if (missing := seq - mine.get(replica, 0)) > 0:
                origin = names[node_of(replica)]
                lacking[origin] = lacking.get(origin, 0) + missing
    return lacking


def _row(status: Status, statuses: Sequence[Status], lacking: Mapping[str, int], names: _Names, apart: _Apart) -> Row:
    staleness = _most([group.staleness_ms for group in status.groups])
    lag = _most([group.lag_ms for group in status.groups])
    if staleness is not None and staleness > SILENT_MS:  # no news is never no lag
        lag = max(lag or 0.0, staleness)
    return Row(
        region=status.region,
        node=status.node,
        ready="yes" if status.ready else "no",
        commits=sum(sum(group.vector.values()) for group in status.groups),
        behind=sum(lacking.values()),
        lag_ms=lag,
        staleness_ms=None if any(group.staleness_ms is None for group in status.groups) else staleness,
        unacked=sum(group.unacked for group in status.groups),
        clock_ms=_clock(status, statuses),
        digest=_digest(status),
        note="; ".join(filter(None, (apart.note(status), _note(status, statuses, names)))),
    )


def _most(values: Sequence[float | None]) -> float | None:
    return max((value for value in values if value is not None), default=None)


def _clock(status: Status, statuses: Sequence[Status]) -> float | None:
    """How far the node's clock is ahead: as the others measure it, or, where nobody else answered, as it sees the others."""
    theirs = [
        peer.offset_ms
        for other in statuses
        for peer in other.peers
        if peer.node == status.node and peer.offset_ms is not None
    ]
    if not theirs:
        theirs = [-peer.offset_ms for peer in status.peers if peer.offset_ms is not None]
    return sum(theirs) / len(theirs) if theirs else None


def _digest(status: Status) -> str:
    """One digest over all groups of a node."""
    if len(status.groups) == 1:
        return status.groups[0].digest or ""
    if any(group.digest is None for group in status.groups):
        return ""
    whole = hashlib.sha256()
    for group in sorted(status.groups, key=lambda group: (group.domain, group.shard)):
        whole.update(f"{group.domain}/{group.shard}={group.digest}\n".encode())
    return whole.hexdigest()[:32]


def _note(status: Status, statuses: Sequence[Status], names: _Names) -> str:
    if not status.ready:
        return f"{_trouble(status)}: {_why(status)}"
    silent = silent_peers(status)
    if not silent:
        return ""
    is_alone = len(silent) == len(status.peers)
    if not is_alone:  # those who answer nobody, or hear nobody, have that in their own row
        others = {other.node for other in statuses if len(silent_peers(other)) < len(other.peers)}
        silent = [peer for peer in silent if peer.node in others]
    if not silent:
        return ""
    heard = [peer.heard_ms for peer in silent if peer.heard_ms is not None]
    since = f"for {span(min(heard))}" if heard else "since it started"
    what = "cut off from" if is_alone else "does not hear"
    return f"{what} {', '.join(names[peer.node] for peer in silent)} {since}"


def _trouble(status: Status) -> str:
    """A node that found damage on its disk goes on, but requests had better go elsewhere."""
    storage = status.storage
    is_damaged = storage.get("takes_writes") and (storage.get("scrub") or {}).get("failure")
    return "is not ready" if is_damaged else "takes no writes"


def _why(status: Status) -> str:
    return str(status.why).removesuffix(".") if status.why else "not ready"


def _gone(name: str, statuses: Sequence[Status], names: _Names) -> Row:
    heard = [peer.heard_ms for status in statuses for peer in status.peers if peer.node == name]
    known = [ms for ms in heard if ms is not None]
    note = f"no answer; others heard it {span(min(known))} ago" if known else "no answer"
    return Row(region=names.regions.get(name, "?"), node=name, ready="?", note=note)


def _judge(
    statuses: Sequence[Status],
    lacking: Mapping[str, Mapping[str, int]],
    gone: Sequence[str],
    names: _Names,
    apart: _Apart,
) -> tuple[Verdict, str]:
    if fault := _false_convergence(statuses, names):
        return "false-convergence", fault
    total = sum(sum(join(by_node.values()).values()) for by_node in _vectors(statuses).values())
    missing = f" No answer from {', '.join(names[name] for name in gone)}." if gone else ""
    trouble = apart.sentence(names)
    if trouble and not any(lacking.values()):
        return (
            "diverged",
            f"diverged, though {_commits(total)} are the same so far.{trouble}{_refusing(statuses)}{missing}",
        )
    if any(lacking.values()):
        writes = f"{trouble}{_refusing(statuses)}" if trouble else _writes(statuses)
        return "diverged", f"diverged: {_clauses(lacking, names)}.{writes}{missing}"
    if gone:
        seen = ", ".join(names[status.node] for status in statuses)
        holds = "holds" if len(statuses) == 1 else "hold the same"
        return "unknown", f"unknown: {seen} {holds} {_commits(total)}.{missing}"
    return "converged", f"converged: all regions hold the same {_commits(total)}."


def _commits(count: int) -> str:
    return f"{count:,} commit{'' if count == 1 else 's'}"


def _clauses(lacking: Mapping[str, Mapping[str, int]], names: _Names) -> str:
    """Who lacks what, those who lack the same together, the most first."""
    together: dict[tuple[tuple[str, int], ...], list[str]] = {}
    for node, missing in lacking.items():
        if missing:
            together.setdefault(tuple(missing.items()), []).append(names[node])
    clauses: list[str] = []
    for missing_items, nodes in sorted(together.items(), key=lambda item: -sum(count for _, count in item[0])):
        count = sum(count for _, count in missing_items)
        amount = f"{count:,}" if clauses else _commits(count)
        origins = ", ".join(origin for origin, _ in missing_items)
        clauses.append(f"{', '.join(nodes)} lack{'s' if len(nodes) == 1 else ''} {amount} of {origins}")
    return "; ".join(clauses)


def _writes(statuses: Sequence[Status]) -> str:
    return _refusing(statuses) or " All regions take writes."


def _refusing(statuses: Sequence[Status]) -> str:
    refusing = [status for status in statuses if not status.ready]
    return "".join(f" {status.region} {_trouble(status)}: {_why(status)}." for status in refusing)


def _false_convergence(statuses: Sequence[Status], names: _Names) -> str:
    """Law L1 broken: equal vectors, other digests."""
    seen: dict[tuple[str, int, tuple[tuple[str, int], ...]], tuple[str, str]] = {}
    for status in statuses:
        for group in status.groups:
            if group.digest is None:
                continue
            same = (group.domain, group.shard, tuple(sorted(item for item in group.vector.items() if item[1])))
            node, digest = seen.setdefault(same, (status.node, group.digest))
            if digest != group.digest:
                return (
                    f"false convergence: {names[node]} and {names[status.node]} have seen the same commits of "
                    f"{group.domain}/{group.shard} and hold other data ({digest} and {group.digest})."
                )
    return ""

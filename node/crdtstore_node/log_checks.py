"""What a log on disk is asked: is it sound, what is in it, how much.

The question: what can be checked without the node? That every block is what was written, that nothing is missing
between two of them, and, by the chain of hashes, that every origin's commits follow one another without a gap. A log
that was cut begins where the checkpoint beside it left off, so its chains begin with those in there, and they have to
come by the heads of the state. A replica that joined took its groups over from others: their chains begin with the
state that it got, and commits of installs that came to nothing are passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from crdtstore.commit import Commit, chain_next, chain_start, decode_commit
from crdtstore.engine.membership.notes import decode_note
from crdtstore.errors import PUT_BACK, DecodeError, StorageError, UsageError
from crdtstore.storage import segment
from crdtstore.storage.inspection import Damage, Finding, Part, Prepared, Started, Torn, inspect
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import decode_record
from crdtstore.storage.sqlite_file import FILE_NAME as STATE_NAME
from crdtstore_node.identity import FILE_NAME as IDENTITY_NAME
from crdtstore_node.identity import LOG_NAME, read_identity
from crdtstore_node.identity.leaving import LEFT_NAME
from crdtstore_node.log_checkpoint import Checkpoint, Origin
from crdtstore_node.log_notes import Groups, about, is_commit, is_note_of_group
from crdtstore_node.worker_config import workers_in

__all__ = ["Chains", "Numbers", "Report", "cluster_of", "entries", "log_of", "verify"]

MOST_LISTED = 1_000
"""So many places are named one by one; all are counted."""

_SIZES = tuple(1 << power for power in range(7, 33))


def log_of(directory: Path) -> tuple[Path, Path]:
    """The data directory and the log of a node, given either.

    Raises:  UsageError when neither is here; StorageError when there has to be a log, and is none.
    """
    for log in (directory / LOG_NAME, directory):
        if log.is_dir() and segment.generations(log):
            return log.parent, log
    for data in (directory, directory.parent) if directory.name == LOG_NAME else (directory,):
        if (data / STATE_NAME).exists():
            why = f"no segment is there, but {STATE_NAME} is: the log was removed, and acknowledged commits with it"
            raise StorageError(f"{data / LOG_NAME}: {why}. {PUT_BACK}.", file=str(data / LOG_NAME))
        if (data / IDENTITY_NAME).exists():
            why = f"no segment and no {STATE_NAME} is there, but {IDENTITY_NAME} is: all data was removed, or none was ever written"
            raise StorageError(f"{data / LOG_NAME}: {why}.", file=str(data / LOG_NAME))
    raise UsageError(
        f"{directory}: there is no log here{workers_in(directory)}. Give a node's data directory, or the folder {LOG_NAME} in it."
    )


def cluster_of(data: Path) -> str:
    """The name of the cluster: every chain begins with it.

    Raises:  UsageError when nothing here says it.
    """
    identity = read_identity(data)
    if identity is None and data.parent.name == LEFT_NAME:  # what was kept of an id that was left
        identity = read_identity(data.parent.parent)
    if identity is None:
        raise UsageError(f"{data}: no identity.json, and a chain of hashes begins with the name of the cluster.")
    return identity.cluster


class Report(Struct):
    """What ``verify`` found."""

    segments: int = 0
    prepared: int = 0
    blocks: int = 0
    records: int = 0
    bytes: int = 0
    """Of sound blocks."""
    begins: int | None = None
    ends: int | None = None
    places: int = 0
    """Where something is damaged."""
    lost_bytes: int = 0
    """There, as far as it is known."""
    is_all_known: bool = True
    damage: list[Damage] = field(default_factory=list)
    torn: Torn | None = None
    chains: Chains | None = None

    @property
    def is_sound(self) -> bool:
        return not self.places

    def note(self, damage: Damage) -> None:
        self.places += 1
        self.lost_bytes += damage.size
        self.is_all_known &= damage.size > 0
        if len(self.damage) < MOST_LISTED:
            self.damage.append(damage)


def verify(log: Path, chains: Chains | None = None, needed: int | None = None, logged: int = 0) -> Report:
    """Check every block of a log, and what ``chains`` checks; ``needed`` and ``logged``: what the state says that the log must hold.

    Cost:    1 GB in seconds; with ``chains`` every commit is decoded and hashed.
    Raises:  StorageError when the log cannot be read at all.
    """
    report = Report(chains=chains)
    last: Started | None = None
    for finding in inspect(log, needed or 0):
        if type(finding) is Part:
            report.blocks += 1
            report.records += finding.records
            report.bytes += finding.size
            report.ends = finding.position + finding.size
            if chains is not None:
                for damage in chains.take(finding):
                    report.note(damage)
        elif isinstance(finding, Started):
            last = _on_started(report, finding, needed)
        elif isinstance(finding, Damage):
            report.note(finding)
        elif isinstance(finding, Torn):
            report.torn = finding
        else:
            report.prepared += 1
    if chains is not None:
        for origin, why in chains.missing():
            report.note(Damage(last.path if last is not None else log, 0, 0, f"{why} of {origin[1]} in {origin[0]}"))
        for group in sorted(chains.groups.installed):
            why = f"{group} was installed, but no state here holds it: what was taken over from others is missing"
            report.note(Damage(last.path if last is not None else log, 0, 0, why))
    _check_end(report, Torn(log, 0, 0) if last is None else _end_of(last, report.ends or 0), needed or 0, logged)
    return report


def _end_of(last: Started, ends: int) -> Torn:
    return Torn(last.path, segment.OVERHEAD_BYTES + ends - last.position, 0)


def _check_end(report: Report, end: Torn, needed: int, logged: int) -> None:
    """Whether the log reaches as far as it did when the state was saved. If not, what stands there was acknowledged."""
    ends = report.ends or 0
    if ends < needed:
        why = f"the log ends at position {ends}, but the state was saved at {needed}"
    elif logged and ends <= logged:
        why = f"the log ends at position {ends}, but when the state was saved a block at {logged} was durable"
    else:
        return
    if report.torn is not None:
        end, report.torn = report.torn, None
    report.note(Damage(end.path, end.offset, max(end.size, needed - ends), f"{why}. Acknowledged commits are missing"))


def _on_started(report: Report, started: Started, needed: int | None) -> Started:
    report.segments += 1
    if report.begins is None:
        report.begins = started.position
        if needed is not None and started.position > needed:
            before = segment.path_of(started.path.parent, started.generation - 1)
            what = "no valid header" if before.exists() else "no file"
            why = f"{what}, the log begins at position {started.position}, but everything from {needed} on is needed"
            report.note(Damage(before, 0, started.position - needed, why))
    report.ends = started.position if report.ends is None else max(report.ends, started.position)
    return started


def _entries_of(part: Part) -> Iterator[Entry]:
    """The entries of a block but for a node's notes to itself.

    Raises:  DecodeError when the checksum is right, and yet these are no records.
    """
    for record in segment.records_of(part.payload):
        yield from (entry for entry in decode_record(record) if is_commit(entry) or is_note_of_group(entry))


class Chains:
    """The chain of each origin in each group, followed through a log. Mutable.

    ``heads`` holds per group and origin the number of the last commit and the chain hash after it; None for the hash
    where the log was cut and nothing says what was before.
    """

    def __init__(self, cluster: str, checkpoint: Checkpoint | None = None) -> None:
        self.heads: dict[Origin, tuple[int, bytes | None]] = {}
        self.commits = 0
        """All that there are, of whatever installs."""
        self.groups = Groups(checkpoint.begins if checkpoint is not None else {})
        self._cluster = cluster
        self._starts = checkpoint.starts if checkpoint is not None else {}
        self._state = checkpoint.heads if checkpoint is not None else {}

    def take(self, part: Part) -> Iterator[Damage]:
        """Follow the chains through a block; what does not fit."""
        try:
            for entry in _entries_of(part):
                group, origin, data = entry
                if not is_commit(entry):
                    self._take_note(entry)
                    continue
                seq = decode_commit(data).seq
                self.commits += 1
                if not self.groups.counts(group, part.position):
                    continue
                why = self._follow((group, origin), seq, data)
                if why:
                    yield Damage(part.path, part.offset, 0, f"{why} of {origin} in {group}")
        except DecodeError as error:
            yield Damage(part.path, part.offset, 0, f"the checksum is right, but {error.detail}")

    def _take_note(self, entry: Entry) -> None:
        self.groups.take(entry)
        if entry.group in self.groups.arriving:
            self.heads = {origin: head for origin, head in self.heads.items() if origin[0] != entry.group}

    @property
    def unchecked(self) -> int:
        """Origins whose chain could not be hashed: their beginning is not in the log."""
        return sum(chain is None for _, chain in self.heads.values())

    def missing(self) -> Iterator[tuple[Origin, str]]:
        """What the state holds, the log has to hold, and does not: to be asked at the end."""
        for origin, (seq, _) in self._state.items():
            first = self._starts[origin][0]
            last = self.heads[origin][0] if origin in self.heads else first
            if last < seq:
                yield origin, f"the log ends with commit {last}, the state holds {seq}"

    def _follow(self, origin: Origin, seq: int, data: bytes) -> str | None:
        before = self.heads.get(origin)
        if before is None:
            before = self._before_first(origin, seq)
        why = None
        at, chain = before
        if seq != at + 1:
            why, chain = f"commit {seq} after commit {at}", None
        head = chain_next(chain, data) if chain is not None else None
        for known in (self._starts.get(origin), self._state.get(origin)):
            if known is not None and known[0] == seq:
                if head is not None and head != known[1]:
                    why = f"the state has another chain hash after commit {seq}"
                head = known[1]
        self.heads[origin] = (seq, head)
        return why

    def _before_first(self, origin: Origin, seq: int) -> tuple[int, bytes | None]:
        """What was before the first commit of an origin in this log."""
        if seq == 1:
            return 0, chain_start(self._cluster, *origin)
        known = self._starts.get(origin)
        if known is not None and seq > known[0]:
            return known
        return seq - 1, None


class Numbers(Struct):
    """What ``stats`` counts."""

    segments: int = 0
    prepared: int = 0
    file_bytes: int = 0
    bytes: int = 0
    syncs: int = 0
    records: int = 0
    commits: int = 0
    commit_bytes: int = 0
    notes: int = 0
    """About members; those of the node are not counted."""
    undecodable: int = 0
    places: int = 0
    first: int | None = None
    """The least and the greatest stamp of a commit."""
    last: int | None = None
    per_origin: dict[Origin, list[int]] = field(default_factory=dict)
    """Commits and their bytes."""
    sizes: dict[int, int] = field(default_factory=lambda: dict.fromkeys(_SIZES, 0))
    """How many syncs wrote at most so many bytes, and more than the size before."""
    largest: int = 0

    def take(self, finding: Finding) -> None:
        """Count this."""
        if isinstance(finding, Started):
            self.segments += 1
            self.file_bytes += finding.size
        elif isinstance(finding, Prepared):
            self.prepared += 1
            self.file_bytes += finding.size
        elif isinstance(finding, Damage):
            self.places += 1
        elif isinstance(finding, Part):
            self._take_part(finding)

    def _take_part(self, part: Part) -> None:
        self.syncs += 1
        self.records += part.records
        self.bytes += part.size
        self.largest = max(self.largest, part.size)
        self.sizes[next(size for size in _SIZES if part.size <= size)] += 1
        try:
            for entry in _entries_of(part):
                group, origin, data = entry
                if not is_commit(entry):
                    self.notes += 1
                    continue
                stamp = decode_commit(data).hlc
                self.commits += 1
                self.commit_bytes += len(data)
                counts = self.per_origin.setdefault((group, origin), [0, 0])
                counts[0] += 1
                counts[1] += len(data)
                self.first = stamp if self.first is None else min(self.first, stamp)
                self.last = stamp if self.last is None else max(self.last, stamp)
        except DecodeError:
            self.undecodable += 1


def entries(log: Path, start: int = 0) -> Iterator[tuple[int, Entry, Commit | dict[str, Any]] | Damage | Torn]:
    """Every commit from a position on with the position of its block, notes about members with what they say, and what is not sound,
    in order."""
    for finding in inspect(log):
        if isinstance(finding, (Damage, Torn)):
            yield finding
        elif isinstance(finding, Part) and finding.position >= start:
            try:
                for entry in _entries_of(finding):
                    yield (
                        finding.position,
                        entry,
                        decode_commit(entry.data) if is_commit(entry) else about(decode_note(entry.data)),
                    )
            except DecodeError as error:
                yield Damage(finding.path, finding.offset, 0, f"the checksum is right, but {error.detail}")


def place(finding: Damage | Torn) -> dict[str, Any]:
    """A place in a log, as JSON has it."""
    shown = {"file": str(finding.path), "offset": finding.offset, "bytes": finding.size}
    return shown | ({"why": finding.why} if isinstance(finding, Damage) else {})

"""``crdtstore log``: look at the log of a node, running or not, and change nothing.

The question: what is the answer for a script? The exit code: 1 when something that was promised is not there any more.
A torn tail was never promised; it is said, and no failure.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from crdtstore.causal import ReplicaId
from crdtstore.cli import exit_code
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.commit import Commit
from crdtstore.errors import MAX_DETAIL, CrdtStoreError, UsageError, problem
from crdtstore.storage.inspection import Damage, Torn, inspect
from crdtstore_node.log_checks import Chains, Numbers, Report, cluster_of, entries, log_of, place, verify
from crdtstore_node.state_checks import StateReport, check_state, read_checkpoint

__all__ = ["log"]

_MOST_TEXT = 200
_MOST_NAMED = 20
_LOOKS = 3
"""While a node saves and cuts, its log is looked at so often."""


@click.group()
def log() -> None:
    """Check, show and measure a node's log on disk.

    DIR is the data directory of a node, or its folder log. The node may run; nothing is changed.
    """


def _command(function: Callable[..., None]) -> Callable[..., None]:
    """The directory, ``--json`` and the end of every command here."""

    @functools.wraps(function)
    def guarded(directory: Path, as_json: bool, **options: Any) -> None:
        settings = click.get_current_context().find_root().obj
        as_json = as_json or (isinstance(settings, dict) and bool(settings.get("as_json")))
        try:
            function(directory, as_json=as_json, **options)
        except CrdtStoreError as error:
            if as_json:
                _echo_json(problem(error))
            click.echo(f"error: {error}", err=True)
            sys.exit(exit_code(error))

    path = click.Path(exists=True, file_okay=False, path_type=Path)
    as_json = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, all else on stderr.")
    return click.argument("directory", metavar="DIR", type=path)(as_json(guarded))


@log.command("verify")
@click.option("--chain", is_flag=True, help="Decode every commit and recompute the chain of hashes per origin.")
@_command
def verify_(directory: Path, *, as_json: bool, chain: bool) -> None:
    """Check that all is there and as it was written, in the log and in the state beside it.

    Of the state the structure of its file is checked, with --chain every row. Exit code 1 when something is not as it was
    written. A torn tail is what a crash left of a write that was never acknowledged.
    """
    data, where = log_of(directory)
    cluster = cluster_of(data) if chain else None
    state = check_state(data, reads_rows=chain)
    checkpoint = state.checkpoint
    for _ in range(_LOOKS):
        chains = Chains(cluster, checkpoint) if cluster is not None else None
        report = verify(where, chains, checkpoint.needed, checkpoint.logged) if checkpoint else verify(where, chains)
        before, checkpoint = checkpoint, None if report.is_sound else read_checkpoint(data)
        if report.is_sound or checkpoint is None or before == checkpoint:
            break
    if as_json:
        _echo_json(_report(where, report, state))
    else:
        _show_report(report, state)
    if not report.is_sound or state.damage:
        sys.exit(1)


@log.command()
@click.option("--group", help="Only this group.")
@click.option("--origin", help="Only commits of this replica, or of this node.")
@click.option("--since", metavar="TIME", help="Only commits stamped then or later (2026-11-20T13:00:00Z).")
@click.option("--from", "start", type=click.IntRange(min=0), default=0, help="Only from this position on.")
@click.option("--limit", type=click.IntRange(min=0), default=1000, show_default=True, help="At most so many; 0: all.")
@_command
def dump(
    directory: Path, *, as_json: bool, group: str | None, origin: str | None, since: str | None, start: int, limit: int
) -> None:
    """Show the commits, a line each; with --json an object each.

    A line is: position, dot, stamp, group, author, number of effects and bytes. Notes about the members of groups stand between them
    (position, group, what it says), but for --origin and --since: they are nobody's, and have no time.
    """
    _, where = log_of(directory)
    since_ms = _instant_ms(since)
    shown, is_sound = 0, True
    groups, origins = set[str](), set[str]()
    for found in entries(where, start):
        if isinstance(found, (Damage, Torn)):
            is_sound &= isinstance(found, Torn)
            click.echo(_place(found), err=True)
            continue
        position, entry, what = found
        groups.add(entry.group)
        if isinstance(what, Commit):
            names = entry.origin, entry.origin.rpartition(".")[0]
            origins.update(names)
            is_wanted = (origin is None or origin in names) and physical_ms(what.hlc) >= since_ms
        else:
            is_wanted = origin is None and since is None
        if not is_wanted or group not in (None, entry.group):
            continue
        if limit and shown == limit:
            click.echo(f"there are more; --limit 0 shows all, --from {position} goes on about here", err=True)
            break
        shown += 1
        if not isinstance(what, Commit):
            click.echo(_note(position, entry.group, what, as_json=as_json))
        elif as_json:
            _echo_json(_commit(position, entry.group, entry.origin, what, len(entry.data)))
        else:
            click.echo(_line(position, entry.group, entry.origin, what, len(entry.data)))
    if not is_sound:
        sys.exit(1)
    _refuse_unknown("--group", group, groups)
    _refuse_unknown("--origin", origin, origins)


@log.command()
@_command
def stats(directory: Path, *, as_json: bool) -> None:
    """Count segments, records and commits."""
    _, where = log_of(directory)
    numbers = Numbers()
    for finding in inspect(where):
        numbers.take(finding)
    if as_json:
        _echo_json(_numbers(where, numbers))
    else:
        _show_numbers(numbers)


# --- verify


def _report(where: Path, report: Report, state: StateReport) -> dict[str, Any]:
    document: dict[str, Any] = {
        "log": str(where),
        "sound": report.is_sound and not state.damage,
        "segments": report.segments,
        "prepared": report.prepared,
        "blocks": report.blocks,
        "records": report.records,
        "bytes": report.bytes,
        "begins": report.begins,
        "ends": report.ends,
        "damaged_places": report.places,
        "damaged_bytes": report.lost_bytes,
        "damage": [place(each) for each in report.damage],
        "torn": place(report.torn) if report.torn else None,
        "state": {
            "file": str(state.path),
            "is_there": state.is_there,
            "rows": state.rows,
            "damage": [{"file": file, "why": why} for file, why in state.damage],
        },
    }
    if report.chains is not None:
        document["commits"] = report.chains.commits
        document["notes"] = report.chains.groups.notes
        document["arriving"] = sorted(report.chains.groups.arriving)
        document["heads"] = [
            {"group": group, "origin": origin, "seq": seq, "chain": chain and chain.hex()}
            for (group, origin), (seq, chain) in sorted(report.chains.heads.items())
        ]
    return document


def _show_report(report: Report, state: StateReport) -> None:
    for file, why in state.damage:
        click.echo(f"{_plain(file)}: {_plain(why, 2 * MAX_DETAIL)}")
    for damage in report.damage:
        click.echo(_place(damage))
    if report.places > len(report.damage):
        click.echo(f"... and {_number(report.places - len(report.damage))} more places")
    if report.torn is not None:
        click.echo(_place(report.torn))
    if report.chains is not None:
        for (group, origin), (seq, chain) in sorted(report.chains.heads.items()):
            head = chain.hex() if chain is not None else "not checked: the log begins after its first commit"
            click.echo(f"{_plain(group)}  {_plain(origin)}:{seq}  {head}")
        for group in sorted(report.chains.groups.arriving):
            click.echo(
                f"{_plain(group)}  its state is not here, or still on its way: what the log holds of it does not count"
            )
    what = (
        f"{_counted(report.blocks, 'block')} with {_counted(report.records, 'record')}, {_bytes(report.bytes)} in "
        f"{_counted(report.segments, 'segment')}, positions {report.begins or 0} to {report.ends or 0}"
    )
    if report.chains is not None:
        what += f", {_counted(report.chains.commits, 'commit')}"
        if report.chains.groups.notes:
            what += f", {_counted(report.chains.groups.notes, 'note')} about members"
    if report.is_sound and not state.damage:
        click.echo(f"sound: {what}; {_state(state)}")
        return
    size = (
        f"{'' if report.is_all_known else ' at least'} {_number(report.lost_bytes)} bytes" if report.lost_bytes else ""
    )
    places = _counted(report.places + len(state.damage), "place")
    click.echo(f"DAMAGED at {places}{size and ','}{size}. Sound are {what}")


def _state(state: StateReport) -> str:
    if not state.is_there:
        return "there is no state beside it"
    if state.rows is None:
        return "the file of the state (with --chain its rows too)"
    return f"the state with {_counted(state.rows, 'row')}"


def _place(found: Damage | Torn) -> str:
    where = f"{_plain(str(found.path))}: "
    if isinstance(found, Torn):
        what = f"torn tail at byte {found.offset}, {_number(found.size)} bytes"
        return f"{where}{what}: never acknowledged, or being written now; a start cuts it"
    size = f" {_number(found.size)} bytes:" if found.size else ""
    return f"{where}damaged at byte {found.offset}:{size} {_plain(found.why)}"


# --- dump


def _commit(position: int, group: str, origin: ReplicaId, commit: Commit, size: int) -> dict[str, Any]:
    return {
        "position": position,
        "dot": f"{origin}:{commit.seq}",
        "time": rfc3339(physical_ms(commit.hlc)),
        "stamp": commit.hlc,
        "group": group,
        "author": commit.author,
        "effects": len(commit.effects) // 3,
        "bytes": size,
    }


def _line(position: int, group: str, origin: ReplicaId, commit: Commit, size: int) -> str:
    author = _plain(commit.author) or "-"
    what = f"{_counted(len(commit.effects) // 3, 'effect')}  {_number(size)} B"
    return (
        f"{position:>12}  {_plain(origin)}:{commit.seq}  {rfc3339(physical_ms(commit.hlc))}  "
        f"{_plain(group)}  by {author}  {what}"
    )


def _note(position: int, group: str, said: dict[str, Any], *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"position": position, "group": group, **said})
    return f"{position:>12}  {_plain(group)}  {_plain(said['text'], MAX_DETAIL)}"


def _refuse_unknown(option: str, name: str | None, known: set[str]) -> None:
    if name is not None and name not in known:
        there = ", ".join(sorted(known)[:_MOST_NAMED]) + (", …" if len(known) > _MOST_NAMED else "")
        raise UsageError(f"{option}: no commit that was looked at is of {name[:100]!r}, but of: {there or 'nobody'}.")


def _instant_ms(text: str | None) -> int:
    if text is None:
        return -1
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"--since: {text[:100]!r} is no time like 2026-11-20T13:00:00Z.") from None
    return int((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1000)


# --- stats


def _numbers(where: Path, numbers: Numbers) -> dict[str, Any]:
    return {
        "log": str(where),
        "segments": numbers.segments,
        "prepared": numbers.prepared,
        "file_bytes": numbers.file_bytes,
        "bytes": numbers.bytes,
        "records": numbers.records,
        "commits": numbers.commits,
        "commit_bytes": numbers.commit_bytes,
        "notes": numbers.notes,
        "bytes_per_commit": round(numbers.bytes / numbers.commits, 1) if numbers.commits else None,
        "first": _time(numbers.first),
        "last": _time(numbers.last),
        "groups": [
            {"group": group, "origin": origin, "commits": count, "bytes": size}
            for (group, origin), (count, size) in sorted(numbers.per_origin.items())
        ],
        "syncs": numbers.syncs,
        "sync_bytes": {
            "mean": round(numbers.bytes / numbers.syncs, 1) if numbers.syncs else None,
            "largest": numbers.largest,
            "at_most": {str(size): count for size, count in numbers.sizes.items() if count},
        },
        "damaged_places": numbers.places,
        "undecodable": numbers.undecodable,
    }


def _show_numbers(numbers: Numbers) -> None:
    click.echo(
        f"segments  {_number(numbers.segments)} in use, {_number(numbers.prepared)} prepared, {_bytes(numbers.file_bytes)} of files"
    )
    click.echo(
        f"blocks    {_number(numbers.syncs)} (one sync each) with {_number(numbers.records)} records, {_bytes(numbers.bytes)}"
    )
    if numbers.syncs:
        shares = "  ".join(f"<= {_bytes(size)}: {_number(count)}" for size, count in numbers.sizes.items() if count)
        mean = _bytes(numbers.bytes // numbers.syncs)
        click.echo(f"syncs     {mean} on average, {_bytes(numbers.largest)} at most   {shares}")
    if numbers.commits:
        each = f"{numbers.bytes / numbers.commits:.1f} bytes each in the log"
        click.echo(f"commits   {_number(numbers.commits)}, {each}, {_time(numbers.first)} to {_time(numbers.last)}")
    for (group, origin), (count, size) in sorted(numbers.per_origin.items()):
        click.echo(f"          {_plain(group)}  {_plain(origin)}  {_counted(count, 'commit')}  {_bytes(size)}")
    if numbers.notes:
        click.echo(f"notes     {_number(numbers.notes)} about members of groups")
    if numbers.places or numbers.undecodable:
        click.echo(f"damaged   at {_counted(numbers.places + numbers.undecodable, 'place')}: see crdtstore log verify")


def _time(stamp: int | None) -> str | None:
    return None if stamp is None else rfc3339(physical_ms(stamp))


# --- words


def _number(count: int) -> str:
    return f"{count:,}"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1 << 30), ("MB", 1 << 20), ("kB", 1 << 10)):
        if count >= size:
            return f"{count / size:.1f} {unit}" if count % size else f"{count // size} {unit}"
    return f"{count} B"


def _plain(text: str, most: int = _MOST_TEXT) -> str:
    """Text that does nothing to a terminal, and is not endless."""
    short = text if len(text) <= most else f"{text[:most]}…"
    return short if short.isprintable() else json.dumps(short)


def _echo_json(value: Any) -> None:
    click.echo(json.dumps(value))

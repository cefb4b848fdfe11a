"""``crdtstore backup``, ``crdtstore restore``, ``crdtstore drill``: copies of a node that can be trusted, and how that is known.

The question: what is said when nothing went wrong? What was copied, under which name, and by which hash it is known again: whoever keeps
that hash elsewhere can tell whether anybody changed the backup.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
from msgspec import to_builtins

from crdtstore.errors import UsageError
from crdtstore_node.backup.drill import drill_restore
from crdtstore_node.backup.line import open_line
from crdtstore_node.backup.restore import restore as restore_backup
from crdtstore_node.backup.source import Check, is_backup, listing, open_backup, prune, summary, verify
from crdtstore_node.backup.take import Taken, take
from crdtstore_node.backup.target import open_target
from crdtstore_node.config import load, load_cluster

__all__ = ["commands"]

_TAKE = "take"
_MIB = 1 << 20
_REDRAW_S = 0.1


class _Backup(click.Group):
    """A group whose first word may also be a target: then a backup is taken."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands:
            args = [_TAKE, *args]
        return super().resolve_command(ctx, args)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write_usage(ctx.command_path, "TARGET --data DIR | list TARGET | verify SOURCE | prune TARGET")


_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")


@click.group(cls=_Backup, context_settings={"ignore_unknown_options": True})
def backup() -> None:
    """Copy a node's data while it runs, and check copies.

    TARGET is a folder or an object storage: s3://bucket/folder, gs://bucket/folder, az://container/folder. Credentials come from the
    environment, never from the address. SOURCE is one backup: TARGET/NAME.

    \b
    crdtstore backup /mnt/backups --data /var/lib/crdtstore
    crdtstore backup s3://backups/us-1 --config node.toml
    crdtstore backup list s3://backups/us-1
    crdtstore backup verify s3://backups/us-1/20260105T100000Z-us-1-0123abcd
    """


@backup.command(_TAKE, hidden=True)
@click.argument("target")
@click.option("--data", type=click.Path(file_okay=False, path_type=Path), help="The data directory of the node.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="Its configuration, instead of --data.")
@_json
def take_(target: str, data: Path | None, config: Path | None, as_json: bool) -> None:
    """Take a backup of a data directory, whether its node runs or not."""
    if (data is None) == (config is None):
        raise UsageError(
            "name the data directory with --data, or the node's configuration with --config. Nothing changed."
        )
    directory = data if data is not None else Path(load(config or Path(), os.environ).data)
    os.nice(5)  # the node goes first
    taken = take(directory, open_target(target), _progress("copied"))
    _show(as_json, _taken_document(taken), _taken_lines(taken))


def _taken_document(taken: Taken) -> dict[str, Any]:
    objects = taken.manifest.objects
    return {
        "name": taken.name,
        "manifest_sha256": taken.hash,
        "taken": taken.manifest.taken,
        "replica": taken.manifest.replica,
        "bytes": sum(part.bytes for part in objects),
        "objects": len(objects),
        "rows": sum(part.count for part in objects if part.kind == "rows"),
        "commits": taken.manifest.log.commits,
        "seconds": round(taken.seconds, 3),
        "left_out": sorted(taken.manifest.arriving),
        "groups": {group: part.end.vector for group, part in taken.manifest.groups.items()},
    }


def _taken_lines(taken: Taken) -> list[str]:
    document = _taken_document(taken)
    return [
        f"{taken.name}",
        f"manifest sha256 {taken.hash}",
        f"{document['rows']:,} rows and {document['commits']:,} commits on top",
        f"{document['bytes'] / _MIB:.1f} MiB in {document['objects']} objects, {taken.seconds:.1f} s",
        *(f"{group} is left out: its state is just being taken over from others" for group in document["left_out"]),
    ]


@backup.command("list")
@click.argument("target")
@_json
def list_(target: str, as_json: bool) -> None:
    """The backups of a target, the oldest first."""
    opened = open_target(target)
    found = listing(opened)
    if not found and is_backup(opened):
        raise UsageError(f"{opened.shown} is a backup itself: name the target that holds it. Nothing changed.")
    document = [summary(opened, each) for each in found]
    _show(as_json, document, _listed_lines(document) or ["no backups"])


def _listed_lines(document: list[dict[str, Any]]) -> list[str]:
    if not document:
        return []
    table = [("name", "node", "taken", "commits", "size", "")]
    for each in document:
        state = "whole" if each["finished"] else "not finished: no backup (crdtstore backup prune)"
        commits = "-" if each["commits"] is None else f"{each['commits']:,}"
        size = "-" if each["bytes"] is None else f"{each['bytes'] / _MIB:,.1f} MiB"
        if each["left_out"]:
            state += f", without {', '.join(each['left_out'])} (was being installed)"
        state = state if each["why"] is None else f"damaged: {each['why']}"
        table.append((each["name"], each["node"], f"{each['taken'][:19]}Z", commits, size, state))
    widths = [max(len(row[at]) for row in table) for at in range(5)]
    aligns = "<<<>>"
    return [
        "  ".join([*(f"{row[at]:{aligns[at]}{width}}" for at, width in enumerate(widths)), row[5]]).rstrip()
        for row in table
    ]


@backup.command("verify")
@click.argument("source")
@_json
def verify_(source: str, as_json: bool) -> None:
    """Compute anew what a backup says of itself: hashes, state digests, hash chains."""
    found = open_backup(source)
    checks = verify(found)
    _report(as_json, {"backup": found.name, "manifest_sha256": found.hash}, checks)


@backup.command("prune")
@click.argument("target")
@click.option("--older-than-hours", type=click.FloatRange(min=0), default=24.0, show_default=True)
@_json
def prune_(target: str, older_than_hours: float, as_json: bool) -> None:
    """Remove what interrupted backups left. One that is under way looks the same, hence the age."""
    removed = prune(open_target(target), older_than_hours * 3600, time.time())
    _show(as_json, {"removed": removed}, [f"removed {name}" for name in removed] or ["nothing to remove"])


@click.command()
@click.argument("source")
@click.option("--data", required=True, type=click.Path(path_type=Path), help="The new data directory.")
@click.option("--cluster", required=True, type=click.Path(path_type=Path), help="The cluster file (TOML).")
@click.option("--node", required=True, help="The node that will run on it; it gets a new id.")
@click.option("--at", metavar="TOKEN|INSTANT", help="Restore to this point: a token, or 2026-01-05T10:00:00Z.")
@_json
def restore(source: str, data: Path, cluster: Path, node: str, at: str | None, as_json: bool) -> None:
    """Make a new data directory from a backup.

    It gets a new id: a node on it serves reads, marked as such, and refuses writes until it has joined the cluster. With --at, SOURCE may
    be a target: then the right backup is taken, and the log of later ones goes on from it.

    \b
    crdtstore restore /mnt/backups/20260105T100000Z-us-1-0123abcd --data /var/lib/restored --cluster cluster.toml --node us-1
    """
    found, later = open_line(source, at)
    done = restore_backup(found, data, load_cluster(cluster), node, at, later=later, progress=_progress("restored"))
    document = {
        "replica": done.replica,
        "data": str(data),
        "restored_from": found.name,
        "manifest_sha256": found.hash,
        "rows": done.rows,
        "commits": done.commits,
        "left_out": done.left_out,
        "seconds": round(done.seconds, 3),
    }
    lines = [
        f"{data} is {done.replica}, from {found.name}",
        f"{done.rows:,} rows and {done.commits:,} commits on top"
        + (f", {done.left_out:,} after the point left out" if at is not None else "")
        + f", {done.seconds:.1f} s",
        "a node on it serves reads; once it reaches a member it joins the cluster under another id, and writes",
    ]
    _show(as_json, document, lines)


@click.group()
def drill() -> None:
    """Rehearse what is needed one day."""


@drill.command("restore")
@click.argument("source")
@click.option(
    "--cluster", type=click.Path(path_type=Path), help="The cluster file; otherwise what the backup says of it."
)
@click.option("--at", metavar="TOKEN|INSTANT", help="Restore to this point.")
@click.option("--scratch", type=click.Path(file_okay=False, path_type=Path), help="Where there is space for the copy.")
@_json
def drill_restore_(source: str, cluster: Path | None, at: str | None, scratch: Path | None, as_json: bool) -> None:
    """Restore a backup into an isolated node, check everything, throw it away.

    SOURCE may be a target: then its newest backup is taken. Exit code 1 when a check fails.
    """
    found, later = (open_backup(source, newest=True), []) if at is None else open_line(source, at)
    founders = load_cluster(cluster) if cluster is not None else None
    checks, summary = drill_restore(found, founders, at, scratch, later)
    _report(as_json, {"backup": found.name, "manifest_sha256": found.hash, **summary}, checks)


# --- printing


def _progress(verb: str) -> Callable[[str, int], None]:
    """A line on standard error that is written over, when somebody looks."""
    total = shown_s = 0.0

    def show(what: str, size: int) -> None:
        nonlocal total, shown_s
        total += size
        if sys.stderr.isatty() and time.monotonic() - shown_s > _REDRAW_S:
            shown_s = time.monotonic()
            click.echo(f"\r{verb} {total / _MIB:,.1f} MiB ({what})  ", err=True, nl=False)

    return show


def _wants_json(as_json: bool) -> bool:
    settings = click.get_current_context().find_root().obj
    return as_json or (isinstance(settings, dict) and bool(settings.get("as_json")))


def _show(as_json: bool, document: Any, lines: Sequence[str]) -> None:
    if sys.stderr.isatty():
        click.echo("\r\033[K", err=True, nl=False)
    if _wants_json(as_json):
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        click.echo("\n".join(lines))


def _report(as_json: bool, document: dict[str, Any], checks: list[Check]) -> None:
    is_ok = all(check.is_ok for check in checks)
    width = max(len(check.what) for check in checks)
    lines = [
        f"{'ok    ' if check.is_ok else 'FAILED'}  {check.what:<{width}}  {check.seconds:8.2f} s"
        + (f"  {_details(check)}" if check.is_ok else f"\n        {check.why}")
        for check in checks
    ]
    lines += [f"backup {document['backup']}", f"manifest sha256 {document['manifest_sha256']}"]
    if document.get("rto_s") is not None:
        lines.append(
            f"RTO {document['rto_s']:.1f} s until it answered, RPO {document['rpo_s']:,.0f} s: so old is the data"
        )
    _show(as_json, {**document, "ok": is_ok, "checks": to_builtins(checks)}, lines)
    if not is_ok:
        sys.exit(1)


def _details(check: Check) -> str:
    return ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in check.more.items())


commands = [backup, restore, drill]

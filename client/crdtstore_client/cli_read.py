"""The verbs of the command line that read data: get, list and members."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import Unavailable, UsageError
from crdtstore_client.address import split_address
from crdtstore_client.cli_show import clip, echo_json, is_safe, pad, plain, plain_element, short_dot, width_of
from crdtstore_client.cli_support import element_of, note_identity, run
from crdtstore_client.convergence import SILENT_MS, silent_peers, span
from crdtstore_client.store import Store

__all__ = ["get", "list_", "members"]

MAX_KEY_WIDTH = 40
MIN_VALUE_WIDTH = 12


@click.command()
@click.argument("address")
@click.option("--consistency", type=click.Choice(["session", "local"]), default="session", show_default=True)
@click.option(
    "--max-staleness", type=click.FloatRange(min=0), help="Refuse when older news than so many seconds may be missing."
)
@common_options
@click.pass_context
def get(ctx: click.Context, address: str, consistency: Any, max_staleness: float | None) -> None:
    """Show the value of a key.

    After it, when there are any: conflicts (concurrent writes that nobody has decided on yet), its end if it has one,
    who holds the rights to it, and regions not heard from for long.
    """
    domain, collection, key = split_address(address, 3)

    async def work(store: Store) -> tuple[dict[str, Any], str]:
        body = await store.domain(domain).read_key(collection, key, consistency, max_staleness)
        return body, await _silence(store, body)

    body, silence = run(ctx, work)
    note_identity(body)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    lines = list(_lines(body))
    if notes := "; ".join(filter(None, (*_notes(body), silence))):
        if len(lines) > 1:  # it is about all of them
            lines.append(f"({notes})")
        else:
            lines[0] = f"{pad(lines[0], 10)} ({notes})"
    click.echo("\n".join(lines))


def _lines(body: dict[str, Any]) -> Iterator[str]:
    value = body["value"]
    if body["type"] == "event_log" and value:
        yield from _event_lines(value)
    elif body["type"] == "text" and value and all(map(is_safe, value.split("\n"))):
        yield from value.split("\n")
    else:
        yield plain(value)


def _event_lines(events: list[dict[str, Any]]) -> Iterator[str]:
    rows = [(event["time"], short_dot(event["dot"]), plain(event["id"]), plain(event["body"])) for event in events]
    widths = [min(max(width_of(row[at]) for row in rows), MAX_KEY_WIDTH) for at in (1, 2)]
    for time, dot, name, body in rows:
        yield f"{time}  {pad(dot, widths[0])}  {pad(name, widths[1])}  {body}"


def _notes(body: dict[str, Any]) -> Iterator[str]:
    if body["conflicts"]:
        yield f"conflicts: {body['conflicts']}"
    if rights := body.get("rights"):
        elsewhere = "".join(f", {region} {amount}" for region, amount in rights["elsewhere"].items())
        yield f"rights: here {rights['here']}, held {rights['held']}{elsewhere}"
    if expires := body.get("expires"):
        yield f"ends {expires}"
    for field, expires in body.get("field_expires", {}).items():
        yield f"{plain(field)} ends {expires}"


async def _silence(store: Store, body: dict[str, Any]) -> str:
    """Whom the region has not heard from, when its value may be old."""
    staleness = body.get("staleness_ms")
    if staleness is not None and staleness <= SILENT_MS:
        return ""
    try:
        status = await store.status()
    except Unavailable:
        return ""
    return "; ".join(
        f"{peer.region}: not heard from {'yet' if peer.heard_ms is None else f'for {span(peer.heard_ms)}'}"
        for peer in silent_peers(status)
    )


@click.command("list")
@click.argument("address", metavar="DOMAIN/COLLECTION")
@click.option("--prefix", default="", help="Only keys that begin with this.")
@click.option("--after", default="", help="Only keys that come after this one.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@common_options
@click.pass_context
def list_(ctx: click.Context, address: str, prefix: str, after: str, limit: int) -> None:
    """List keys and values in the order of keys."""
    domain, collection = split_address(address, 2)

    async def work(store: Store) -> dict[str, Any]:
        query = {"prefix": prefix, "after": after, "limit": limit, "values": True}
        return await store.domain(domain).list_keys(collection, **query)

    body = run(ctx, work)
    note_identity(body)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    _table([(plain(item["key"]), plain(item["value"])) for item in body["items"]])
    if body["next"] is not None:
        click.echo(f"there are more: --after {shlex.quote(body['next'])}", err=True)


def _table(rows: list[tuple[str, str]]) -> None:
    width = min(max((width_of(name) for name, _ in rows), default=0), MAX_KEY_WIDTH)
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None  # whole where a program reads it
    for name, value in rows:
        left = f"{pad(name, width)}  "
        click.echo(left + (value if columns is None else clip(value, max(columns - width_of(left), MIN_VALUE_WIDTH))))


@click.command(short_help="List what a large set, map or log holds, page by page.")
@click.argument("address")
@click.option("--after", help="Only what comes after this element, field or id of an event.")
@click.option("--limit", type=click.IntRange(1, 1000), default=100, show_default=True)
@click.option("--has", help="Only say whether this element, field or id of an event is there.")
@common_options
@click.pass_context
def members(ctx: click.Context, address: str, after: str | None, limit: int, has: str | None) -> None:
    """List the elements of a large set, the fields of a map, the events of a log.

    Elements are shown as they are typed: 7 is a number, "7" a text.
    """
    domain, collection, key = split_address(address, 3)
    if after is not None and has is not None:
        raise UsageError("either --after or --has. Nothing changed.")

    async def work(store: Store) -> dict[str, Any]:
        target = store.domain(domain)
        is_set = (await target.describe(collection))["type"].endswith("_set")
        behind, sought = (text if text is None or not is_set else element_of(text) for text in (after, has))
        return await target.list_members(collection, key, after=behind, has=sought, limit=limit)

    body = run(ctx, work)
    note_identity(body)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    if has is not None:
        click.echo("yes" if body["has"] else "no")
        return
    items = body["items"]
    if items and isinstance(items[0], dict):
        if "field" in items[0]:
            _table([(plain(item["field"]), plain(item["value"])) for item in items])
        else:
            click.echo("\n".join(_event_lines(items)))
    elif items:
        click.echo("\n".join(map(plain_element, items)))
    if body["next"] is not None:
        click.echo(f"there are more: --after {_typed_again(body['next'])}", err=True)


def _typed_again(following: Any) -> str:
    return shlex.quote(plain_element(following))

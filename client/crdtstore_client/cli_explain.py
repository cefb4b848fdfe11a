"""``crdtstore explain`` and ``crdtstore conflicts``: why a value is what it is, and which values need a look.

The question: what does a person want on one line? Whether the write counts, what it said, where and when it was made, by
whom, and why: the words its author gave if it counts, the rule by which it lost if it does not.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import click

from crdtstore.cli import common_options
from crdtstore_client.address import split_address
from crdtstore_client.cli_show import clip, echo_json, pad, plain, plain_element, short_dot, width_of
from crdtstore_client.cli_support import note_identity, run
from crdtstore_client.store import Store

__all__ = ["conflicts", "explain"]

MAX_VALUE_WIDTH = 40
MAX_HEADLINE_WIDTH = 60
MAX_LIMIT = 1000
MIN_VALUE_WIDTH = 12
MIN_AT_WIDTH = 16


_WORDS = {"bounded_counter": ("counts", "ended"), "counter": ("counts", "lost")}
"""What is said instead of wins and lost where nothing competes: amounts add up, and a hold ends."""
_NOUNS = {"bounded_counter": ("sum or hold", "sums and holds"), "counter": ("sum", "sums")}
"""What is explained where it is not writes one by one."""


class _Row(NamedTuple):
    outcome: str
    at: str
    value: str
    dot: str
    time: str
    author: str
    why: str


AT, VALUE = 1, 2
GAPS = 16
"""Columns between the cells of a row, and before them; 3 more with a place."""


@click.command(short_help="Show the writes behind a value, and why they count or not.")
@click.argument("address")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=100, show_default=True)
@common_options
@click.pass_context
def explain(ctx: click.Context, address: str, limit: int) -> None:
    """Show the writes behind a value: which count, which lost and why, who made them, where they are not yet.

    Times are UTC.
    """
    domain, collection, key = split_address(address, 3)

    async def work(store: Store) -> dict[str, Any]:
        return await store.domain(domain).explain_key(collection, key, limit)

    body = run(ctx, work)
    note_identity(body)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    click.echo("\n".join(_explained(body, columns)))
    if body["truncated"]:
        click.echo(
            f"there are more: --limit {min(10 * limit, MAX_LIMIT)}" if limit < MAX_LIMIT else "there are more", err=True
        )


def _explained(body: dict[str, Any], columns: int | None = None) -> Iterator[str]:
    """The lines; on a terminal of so many columns, long values give way first."""
    today = datetime.now(UTC).date().isoformat()
    is_today = all(write["time"].startswith(today) for write in body["live"])
    rows = [_row(write, body["type"], is_today=is_today) for write in body["live"]]
    widths = [max((width_of(row[at]) for row in rows), default=0) for at in range(len(_Row._fields))]
    if columns is not None:
        spare = columns - sum(widths) + widths[VALUE] - GAPS - (3 if widths[AT] else 0)
        widths[VALUE] = min(widths[VALUE], max(spare, MIN_VALUE_WIDTH))
        if (lacking := widths[VALUE] - spare) > 0:  # then what says where, such as the name of a hold
            widths[AT] = min(widths[AT], max(widths[AT] - lacking, MIN_AT_WIDTH))
    headline = clip(_headline(body["value"], body["type"]), MAX_HEADLINE_WIDTH)
    missing = f", not yet in: {', '.join(body['not_yet_in'])}" if body["not_yet_in"] else ""
    yield f"{pad(headline, 0 if widths[AT] else widths[VALUE])}   {body['type']}, {_count(body)}{missing}"
    for row in rows:
        cells = [pad(clip(cell, width), width) for cell, width in zip(row, widths, strict=True)]
        outcome, at, value, dot, time, author, why = cells
        place = f"{at}   " if widths[AT] else ""
        yield f"  {outcome}   {place}{value}   {dot}   {time}  {author}   {why}".rstrip()


def _headline(value: Any, type_name: str) -> str:
    if type_name == "event_log" and value:  # they are listed below, one by one
        return f"{len(value)} event{'' if len(value) == 1 else 's'}"
    return plain(value)


def _count(body: dict[str, Any]) -> str:
    live = body["live"]
    if not live:
        return "no writes"
    number = f"{'more than ' if body['truncated'] else ''}{len(live)}"
    lost = sum(not write["counts"] for write in live)
    if lost and not any(write.get("at") for write in live):
        return f"{number} concurrent writes"
    written = f"{number} {_NOUNS.get(body['type'], ('write', 'writes'))[len(live) != 1]}"
    return f"{written}, {lost} {_words(body['type'])[1]}" if lost else written


def _words(type_name: str) -> tuple[str, str]:
    """What is said of a write that counts, and of one that does not."""
    return _WORDS.get(type_name, ("wins", "lost"))


def _row(write: dict[str, Any], type_name: str, *, is_today: bool) -> _Row:
    at, value = list(write.get("at", ())), _cell(write["value"])
    types = [type_name, *(part[1] for part in at if isinstance(part, list | tuple))]
    if types[-1].endswith("_set"):  # the element is what was written
        value = plain_element(at.pop())
    date, _, time = write["time"].rstrip("Z").partition("T")
    says_both = not write["counts"] or types[-1] in _NOUNS  # a sum is of more writes than the one that gave the reason
    reason = "" if write["reason"] is None else f'"{clip(plain(write["reason"]), MAX_VALUE_WIDTH)}"'
    return _Row(
        _words(type_name)[not write["counts"]],
        clip("/".join(map(_part, at)), MAX_VALUE_WIDTH),
        clip(value, MAX_VALUE_WIDTH),
        short_dot(write["dot"]),
        time if is_today else f"{date} {time}",
        f"by {plain(write['author'])}",
        "   ".join(filter(None, (write["why"], reason))) if says_both else reason or write["why"],
    )


def _cell(value: Any) -> str:
    """A value in a column: in quotes where its blanks would be taken for the column's."""
    text = plain(value)
    return text if text == text.strip() else json.dumps(value, ensure_ascii=False)


def _part(part: Any) -> str:
    """A part of a path as ``--path`` takes it."""
    return ":".join(map(plain, part)) if isinstance(part, list | tuple) else plain_element(part)


@click.command(short_help="List keys behind whose value concurrent writes stand.")
@click.argument("domain")
@click.option("--after", help="Go on behind this, as the page before said.")
@click.option("--limit", type=click.IntRange(1, MAX_LIMIT), default=100, show_default=True)
@common_options
@click.pass_context
def conflicts(ctx: click.Context, domain: str, after: str | None, limit: int) -> None:
    """List the keys whose value does not show all its concurrent writes, and declarations that clash."""

    async def work(store: Store) -> dict[str, Any]:
        return await store.domain(domain).list_conflicts(after=after, limit=limit)

    body = run(ctx, work)
    note_identity(body)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    for clash in body["declarations"]:
        if clash["collection"] is None:
            under = ", ".join(f"{domain}@{number}" for number in clash["also"])
            others = " and ".join(map(str, clash["also"]))
            click.echo(
                f"{domain}   has {clash['serves']} shards, was declared also with {others}: read that as {under}"
            )
            continue
        also = [f"also as {name}" if name != clash["serves"] else "with other options" for name in clash["also"]]
        click.echo(f"{domain}/{clash['collection']}   serves as {clash['serves']}, was declared {' and '.join(also)}")
    rows = [
        (plain(f"{domain}/{item['collection']}/{item['key']}"), item["type"], item["conflicts"])
        for item in body["items"]
    ]
    widths = [min(max((width_of(row[at]) for row in rows), default=0), 60) for at in (0, 1)]
    for address, type_name, number in rows:
        click.echo(f"{pad(address, widths[0])}   {pad(type_name, widths[1])}   {number}")
    if not rows and not body["declarations"] and body["next"] is None:
        click.echo("no conflicts" if after is None else "no more conflicts")
    if body["next"] is not None:
        click.echo(f"there are more: --after {shlex.quote(body['next'])}", err=True)

"""The command line of the client: one verb per op of the registry, and get, list, declare, status.

The question: what does a verb mean? What the type of the collection says: ``add`` takes an amount on a counter and
elements on a set. So a write asks for the declaration first, and its arguments are judged by the registry, as
everywhere.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import Unavailable
from crdtstore.types import REGISTRY
from crdtstore_client.address import split_address
from crdtstore_client.cli_support import arguments_of, echo_json, option_of, plain, run, short_dot
from crdtstore_client.convergence import SILENT_MS, silent_peers, span
from crdtstore_client.ops import Ack
from crdtstore_client.store import Store

__all__ = ["commands"]

_NEGATIVE = re.compile(r"-\.?[0-9]")
_MINUS = "\0"
"""Hides a negative number from the parser of options; no argument of a process can hold it."""


def _options_help() -> str:
    options = [
        f"{name}: {option}={plain(value)}" for name, crdt in REGISTRY.items() for option, value in crdt.options.items()
    ]
    return f"An option of the type; the defaults are {'; '.join(options)}."


@click.command()
@click.argument("address", metavar="DOMAIN/COLLECTION")
@click.argument("type_name", metavar="TYPE", type=click.Choice(sorted(REGISTRY)))
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help=_options_help())
@common_options
@click.pass_context
def declare(ctx: click.Context, address: str, type_name: str, options: tuple[str, ...]) -> None:
    """Make a collection, and its domain if need be; again is harmless."""
    domain, collection = split_address(address, 2)
    given = dict(map(option_of, options))

    async def work(store: Store) -> dict[str, Any]:
        return await store.domain(domain).declare_collection(collection, type_name, given)

    body = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    chosen = ", ".join(f"{name}={plain(value)}" for name, value in sorted(body["options"].items()) if value)
    click.echo(f"{domain}/{collection}  {body['type']}{f'  ({chosen})' if chosen else ''}")


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

    After it, when there are any: conflicts (concurrent writes that lost), and regions not heard from for long.
    """
    domain, collection, key = split_address(address, 3)

    async def work(store: Store) -> tuple[dict[str, Any], str]:
        body = await store.domain(domain).read_key(collection, key, consistency, max_staleness)
        return body, await _silence(store, body)

    body, silence = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    lines = list(_lines(body))
    conflicts = f"conflicts: {body['conflicts']}" if body["conflicts"] else ""
    if notes := "; ".join(filter(None, (conflicts, silence))):
        lines[0] = f"{lines[0]:<10} ({notes})"
    click.echo("\n".join(lines))


def _lines(body: dict[str, Any]) -> Iterator[str]:
    value = body["value"]
    if body["type"] == "event_log" and value:
        for event in value:
            yield f"{event['time']}  {short_dot(event['dot'])}  {plain(event['id'])}  {plain(event['body'])}"
    else:
        yield plain(value)


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
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    rows = [(plain(item["key"]), plain(item["value"])) for item in body["items"]]
    width = min(max((len(key) for key, _ in rows), default=0), 40)
    for key, value in rows:
        click.echo(f"{key:<{width}}  {value}")
    if body["next"] is not None:
        click.echo(f"there are more: --after {plain(body['next'])}", err=True)


@click.command()
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@common_options
@click.pass_context
def status(ctx: click.Context, watch: bool) -> None:
    """Show how far regions are apart.

    All urls are asked, and measured against all they know.
    """
    from crdtstore_client.cli_status import show, watch_forever  # noqa: PLC0415 - rich is dear, and only this needs it

    if not watch:
        run(ctx, show(ctx))
        return
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it, and nothing to complain of
        run(ctx, watch_forever)


class _Verb(click.Command):
    """A command that takes ``-3`` for an argument, while a mistyped option stays an error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_MINUS + arg if _NEGATIVE.match(arg) else arg for arg in args])


def _verb(name: str) -> click.Command:
    """The command of one op, whatever types have it."""

    @click.pass_context
    def send(ctx: click.Context, address: str, arguments: tuple[str, ...]) -> None:
        domain, collection, key = split_address(address, 3)
        given = [argument.removeprefix(_MINUS) for argument in arguments]

        async def work(store: Store) -> tuple[str, Ack[list[Any]]]:
            target = store.domain(domain)
            type_name = (await target.describe(collection))["type"]
            handle = target.collection(collection, type_name)[key]
            mutator = REGISTRY[type_name].mutators.get(name)
            is_known = mutator is not None or name == "delete"
            op = handle.op(name, **(arguments_of(mutator, given) if is_known else {}))
            return type_name, await target.commit(op, reason=ctx.obj.get("reason"), regions=ctx.obj.get("regions", 0))

        type_name, ack = run(ctx, work)
        if ctx.obj.get("as_json"):
            shown = {"dot": ack.dot, "token": ack.token, "values": ack.value}
            echo_json({**shown, "replayed": ack.replayed, "durable_in": ack.durable_in})
        elif name in REGISTRY[type_name].mutators and REGISTRY[type_name].shows_value:
            click.echo(plain(ack.value[0]))
        else:
            click.echo(f"ok  {short_dot(ack.dot)}")

    command = click.command(
        name,
        cls=_Verb,
        help=_help_of(name),
        short_help=_short_help_of(name),
    )
    arguments = click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
    return command(click.argument("address")(arguments(common_options(send))))


def _users_of(name: str) -> list[str]:
    return [type_name for type_name, crdt in REGISTRY.items() if name in crdt.mutators]


def _short_help_of(name: str) -> str:
    if name == "delete":
        return "Remove what this region has seen of a key."
    types = _users_of(name)
    docs = [REGISTRY[type_name].mutators[name].doc.splitlines()[0] for type_name in types]
    if len(types) == 1:
        return docs[0]
    return " ".join(f"{type_name}: {doc}" for type_name, doc in zip(types, docs, strict=True))


def _help_of(name: str) -> str:
    if name == "delete":
        kept = ", ".join(type_name for type_name, crdt in REGISTRY.items() if not crdt.deletable)
        return f"Remove what this region has seen of a key; concurrent writes survive. Not for: {kept}."
    lines = []
    for type_name in _users_of(name):
        mutator = REGISTRY[type_name].mutators[name]
        words = " ".join(
            argument.name.upper() if argument.required else f"[{argument.name.upper()}={plain(argument.default)}]"
            for argument in mutator.arguments
        )
        lines.append(f"{type_name}: {name} ADDRESS {words}    {mutator.doc.splitlines()[0]}")
    return "What it means is said by the type of the collection.\n\n\b\n" + "\n".join(lines)


_verbs = sorted({name for crdt in REGISTRY.values() for name in crdt.mutators} | {"delete"})
commands: list[click.Command] = [declare, get, list_, status, *map(_verb, _verbs)]

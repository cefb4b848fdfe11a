"""The command line of the client: one verb per op of the registry, those that read, declare and status."""

from __future__ import annotations

import contextlib
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import UsageError
from crdtstore.shards import MAX_SHARDS
from crdtstore.types import REGISTRY
from crdtstore_client.address import split_address
from crdtstore_client.cli_bench import bench
from crdtstore_client.cli_doctor import doctor
from crdtstore_client.cli_explain import conflicts, explain
from crdtstore_client.cli_members import member
from crdtstore_client.cli_orphans import orphan
from crdtstore_client.cli_read import get, list_, members
from crdtstore_client.cli_show import echo_json, plain
from crdtstore_client.cli_support import option_of, run
from crdtstore_client.cli_verbs import verbs
from crdtstore_client.store import Store

__all__ = ["commands"]


def _options_help() -> str:
    options = [
        f"{name}: {option}={plain(value)}" for name, crdt in REGISTRY.items() for option, value in crdt.options.items()
    ]
    return f"An option of the type; the defaults are {'; '.join(options)}."


@click.command(short_help="Make a collection of a type, or a domain; again is harmless.")
@click.argument("address", metavar="DOMAIN[/COLLECTION]")
@click.argument("type_name", metavar="[TYPE]", required=False, type=click.Choice(sorted(REGISTRY)))
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help=_options_help())
@click.option(
    "--shards",
    type=click.IntRange(1, MAX_SHARDS),
    help="Into how many groups the domain divides its keys: fixed when it is declared, and 1 if not given.",
)
@common_options
@click.pass_context
def declare(
    ctx: click.Context, address: str, type_name: str | None, options: tuple[str, ...], shards: int | None
) -> None:
    """Make a collection, and its domain if need be; or a domain only; again is harmless.

    A commit is atomic within one shard of its domain.
    """
    is_domain = "/" not in address
    if is_domain == (type_name is not None) or (is_domain and options):
        form = "crdtstore declare DOMAIN [--shards N], or crdtstore declare DOMAIN/COLLECTION TYPE"
        raise UsageError(f"what is declared is a domain, or a collection with its type: {form}. Nothing changed.")
    domain, collection = (address, "") if is_domain else split_address(address, 2)
    given = dict(map(option_of, options))

    async def work(store: Store) -> dict[str, Any]:
        body = {}
        if is_domain or shards is not None:
            body = await store.domain(domain).declare_domain(shards=shards)
        return (
            body if type_name is None else await store.domain(domain).declare_collection(collection, type_name, given)
        )

    body = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json(body)
        return
    if is_domain:
        click.echo(f"{domain}  {body['shards']} {'shard' if body['shards'] == 1 else 'shards'}")
        return
    chosen = ", ".join(f"{name}={plain(value)}" for name, value in sorted(body["options"].items()) if value)
    click.echo(f"{domain}/{collection}  {body['type']}{f'  ({chosen})' if chosen else ''}")


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


commands: list[click.Command] = [
    declare,
    get,
    list_,
    members,
    explain,
    conflicts,
    status,
    member,
    orphan,
    doctor,
    bench,
    *verbs,
]

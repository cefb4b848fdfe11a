"""``crdtstore member``: who belongs to the cluster, and orders that change it.

The question: what must stand before an order is given? Its price, in the words of the node that would carry it out, and
what the price was worked out for. So without ``--yes`` nothing is done: the costs are shown, and a command that names the
configuration they hold for. If that changes in between, the order is refused.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Awaitable, Callable
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import CrdtStoreError, PreconditionFailed, Unavailable
from crdtstore_client.admin import Admin, Order, View, best_of
from crdtstore_client.cli_join import join, left_stage, wait_until
from crdtstore_client.cli_show import echo_json
from crdtstore_client.cli_support import run
from crdtstore_client.members import Members, short_replica
from crdtstore_client.store import Store

__all__ = ["again", "member"]

_yes = click.option("--yes", is_flag=True, help="Do it; without this only its costs are shown.")
_configuration = click.option(
    "--configuration", metavar="NUMBER.ID", help="Only if this is still the configuration, as member list shows it."
)


@click.group(short_help="See who belongs to the cluster; let nodes join, leave, go.")
def member() -> None:
    """See who belongs to the cluster; let nodes join and leave, and remove those that are gone.

    NODE is the name of a node, or a replica id or its begin where two ids share the name. Orders show what they cost and
    need --yes.
    """


@member.command("list", short_help="List the members, and ids that were removed.")
@common_options
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List the members, oldest first, and ids that were removed with what still counts of them.

    "only there": commits that no other member is known to have; "?" where the member was not heard.
    """
    from crdtstore_client.cli_members_show import list_lines  # noqa: PLC0415 - rich is dear

    async def work(store: Store) -> View:
        return best_of(await store.admin.views())

    view = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json(view.raw)
        return
    click.echo("\n".join(list_lines(view.members)))


@member.command(short_help="Show all that a node says of the members, and what to do.")
@click.argument("node", required=False)
@click.option("--watch", is_flag=True, help="Show it again every second, until Ctrl-C.")
@common_options
@click.pass_context
def status(ctx: click.Context, node: str | None, watch: bool) -> None:
    """Show all that a node says of the members, its own state, what it waits for and what to do."""
    from crdtstore_client import cli_members_show, cli_tables  # noqa: PLC0415 - rich is dear

    async def look(store: Store) -> View:
        views = await store.admin.views()
        return best_of(views) if node is None else store.admin.at(views, node)

    async def work(store: Store) -> None:
        async def lines() -> list[str]:
            try:
                return cli_members_show.status_lines((await look(store)).members)
            except Unavailable as error:
                return [str(error)]

        if watch:
            await cli_tables.watch(lines)
        view = await look(store)
        if ctx.obj.get("as_json"):
            echo_json(view.raw)
        else:
            click.echo("\n".join(cli_members_show.status_lines(view.members)))

    with contextlib.suppress(KeyboardInterrupt) if watch else contextlib.nullcontext():
        run(ctx, work)


@click.command(short_help="Let a node go when all it has is elsewhere.")
@click.argument("node", required=False)
@_yes
@click.option("--wait", is_flag=True, help="Show how far it is, until it can be stopped; --timeout ends that.")
@common_options
@click.pass_context
def leave(ctx: click.Context, node: str | None, yes: bool, wait: bool) -> None:
    """Let a node go: it takes no more writes, and is removed once everything it has is elsewhere.

    --url must name the node itself; where it names only that one, NODE can be left out.
    """

    async def make(admin: Admin) -> Order:
        return await admin.order_leave(node)

    order = _order(ctx, make, ["leave", *filter(None, [node])], is_sure=yes, is_quiet=wait)
    if wait:
        leaving = order.view.members
        run(ctx, lambda store: wait_until(ctx, store, left_stage(leaving.node, leaving.replica)))


@member.command(short_help="Remove members that will not come back.")
@click.argument("nodes", metavar="NODE...", nargs=-1, required=True)
@_configuration
@_yes
@common_options
@click.pass_context
def evict(ctx: click.Context, nodes: tuple[str, ...], configuration: str | None, yes: bool) -> None:
    """Remove members that will not come back, by a decision of the others.

    What only they have does not count any more; if one returns, it can rejoin under a new id, and what it had is kept as
    orphans.
    """

    async def make(admin: Admin) -> Order:
        return await admin.order_evict(nodes, configuration)

    _order(ctx, make, ["evict", *nodes], is_sure=yes)


@member.command(short_help="Go on with these, where too few are left to decide.")
@click.argument("nodes", metavar="SURVIVOR...", nargs=-1, required=True)
@_configuration
@_yes
@common_options
@click.pass_context
def force(ctx: click.Context, nodes: tuple[str, ...], configuration: str | None, yes: bool) -> None:
    """Let the survivors go on without all others, where too few are left to decide anything.

    Never on both sides of a cut: each side would go its own way, and one of them has to be given up later.
    """

    async def make(admin: Admin) -> Order:
        return await admin.order_force(nodes, configuration)

    _order(ctx, make, ["force", *nodes], is_sure=yes)


@member.command(short_help="Let a removed or fenced node join under a new id.")
@click.argument("node", required=False)
@_yes
@common_options
@click.pass_context
def rejoin(ctx: click.Context, node: str | None, yes: bool) -> None:
    """Let a node that was removed, or that must not use its id, join under a new one.

    --url must name the node itself; where it names only that one, NODE can be left out. What only its old id had is kept
    there: crdtstore orphan list.
    """

    async def make(admin: Admin) -> Order:
        return await admin.order_rejoin(node)

    _order(ctx, make, ["rejoin", *filter(None, [node])], is_sure=yes)


member.add_command(join)
member.add_command(leave)
member.add_command(
    click.Command(
        "drain", params=leave.params, callback=leave.callback, help=leave.help, short_help="The same as leave."
    )
)


# --- how an order is given


def again(ctx: click.Context, *words: str) -> str:
    """The command line of another command, with what was typed to reach the store."""
    settings = ctx.ensure_object(dict)
    typed = [
        f"--{name}={settings[key]}" for name, key in (("url", "urls"), ("auth-file", "auth_file")) if settings.get(key)
    ]
    return shlex.join(["crdtstore", *typed, *words])


def _order(
    ctx: click.Context,
    make: Callable[[Admin], Awaitable[Order]],
    words: list[str],
    *,
    is_sure: bool,
    is_quiet: bool = False,
) -> Order:
    async def work(store: Store) -> tuple[Order, dict[str, Any]]:
        admin = store.admin
        order = await make(admin)
        try:
            costs = await admin.costs(order) if order.has_costs else _costs_of_leaving(order)
            if costs is None:
                return order, await admin.send(order)
            if not ctx.obj.get("as_json"):
                click.echo("\n".join(_priced(order, costs)))
            if not is_sure:
                raise _unconfirmed(ctx, order, costs, words)
            return order, await admin.send(order)
        except CrdtStoreError as error:
            raise await _explained(ctx, admin, order, error) from error

    order, body = run(ctx, work)
    if is_quiet:
        return order
    if ctx.obj.get("as_json"):
        echo_json(body)
    else:
        click.echo(_done(ctx, order, Members.of(body)))
    return order


def _unconfirmed(ctx: click.Context, order: Order, costs: list[str], words: list[str]) -> PreconditionFailed:
    looked_at = order.body.get("configuration")
    bound = [] if looked_at is None else ["--configuration", looked_at]
    command = again(ctx, "member", *words, *bound, "--yes")
    error = PreconditionFailed(
        "this needs --yes. Nothing changed.", code="confirm-needed", costs=costs, command=command
    )
    error.add_note(f"to do it: {command}")
    return error


def _priced(order: Order, costs: list[str]) -> list[str]:
    """What is about to be done, and what the node says of its price."""
    from crdtstore_client.cli_members_show import safe  # noqa: PLC0415 - rich is dear

    members = order.view.members
    named = ", ".join(
        members.names(replica) for replica in order.body.get("nodes") or order.body.get("survivors") or ()
    )
    head = {
        "evict": f"To remove {named} from configuration {members.configuration} ({_everybody(members)}):",
        "force": f"To go on with {named} alone, of configuration {members.configuration} ({_everybody(members)}):",
        "leave": f"To let {members.names(members.replica)} leave configuration {members.configuration} ({_everybody(members)}):",
        "rejoin": f"To give {members.node} a new id instead of {short_replica(members.replica)}:",
    }
    return [head[order.what], *(f"  - {safe(cost)}" for cost in costs)]


def _everybody(members: Members) -> str:
    return ", ".join(members.names(each.replica) for each in members.members)


def _costs_of_leaving(order: Order) -> list[str]:
    members = order.view.members
    leaving = members.names(members.replica)
    others = [each for each in members.members if each.replica != members.replica]
    costs = [f"{leaving} takes no more writes from now on, for good; reads go on until it is stopped."]
    if not others:
        return [*costs, "It is the only member: nobody is left to take over what it has."]
    names = ", ".join(members.names(each.replica) for each in others)
    costs.append(
        f"It is removed once all that it has is in {names}; nothing is lost. {len(others)} of {len(others) + 1} remain."
    )
    for each in others:
        if not each.connected:
            name = members.names(each.replica)
            costs.append(f"{name} is not connected: until it returns, or is evicted, {leaving} cannot go.")
    return costs


async def _explained(ctx: click.Context, admin: Admin, order: Order, error: CrdtStoreError) -> CrdtStoreError:
    """The refusal, with what changed or what to do beside it."""
    if error.code == "membership-changed":
        refusal: CrdtStoreError = PreconditionFailed(error.detail, code=error.code, **error.more)
        with contextlib.suppress(CrdtStoreError):
            for line in _changes(order, best_of(await admin.views()).members):
                refusal.add_note(line)
        refusal.add_note(f"look again: {again(ctx, 'member', 'list')}")
        return refusal
    if error.code == "not-one-line":
        refusal = PreconditionFailed(error.detail, code=error.code, **error.more)
        refusal.add_note(f"who hears whom: {again(ctx, 'doctor')}")
        return refusal
    if error.code == "no-quorum":
        members = order.view.members
        refusal = Unavailable(error.detail, code=error.code, retryable=False, **error.more)
        refusal.effect = error.effect
        reached = members.quorum.reached
        refusal.add_note(f"needed: {members.quorum.needed}; {members.node} reaches {', '.join(reached) or 'nobody'}")
        refusal.add_note(f"if the others return, do nothing and look again: {again(ctx, 'member', 'list')}")
        survivors = reached if members.node in reached else [members.node, *reached]
        refusal.add_note(f"if they are gone for good: {again(ctx, 'member', 'force', *survivors)}")
        return refusal
    return error


def _changes(order: Order, now: Members) -> list[str]:
    """What is different from what the order was made for."""
    looked_at, then = order.body["configuration"], order.view.members
    lines = [f"the configuration is {now.configuration} now, not {looked_at}; members: {_everybody(now)}"]
    if then.configuration != looked_at:
        return lines
    before, after = ({each.replica: each.node for each in members.members} for members in (then, now))
    came = [node for replica, node in after.items() if replica not in before]
    went = [node for replica, node in before.items() if replica not in after]
    return lines + [f"{', '.join(names)} {what} since" for names, what in ((came, "joined"), (went, "left")) if names]


def _done(ctx: click.Context, order: Order, now: Members) -> str:
    node = order.view.members.node
    if order.what == "leave":
        return f"{node} is leaving; it is gone when this no longer lists it: {again(ctx, 'member', 'list')}"
    if order.what == "rejoin":
        return f"{node} takes a new id and joins: {again(ctx, 'member', 'join', '--wait', node)}"
    waiting = len({group for groups in now.unsettled().values() for group in groups})
    finals = f"; {waiting} group{'' if waiting == 1 else 's'} still to settle what counts of them" if waiting else ""
    return f"done: configuration {now.configuration}, members {_everybody(now)}{finals}"

"""``crdtstore orphan``: commits of ids that were given up, which no other region has, and what to do with them.

The question: is such a commit still wanted? No rule can say: an order that was taken elsewhere meanwhile must not be taken
again, and a note that was written should not be lost. So a person reads what each of them did, and those that are wanted
are made anew, as commits of today.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import click
import msgspec

from crdtstore.cli import common_options
from crdtstore.errors import CrdtStoreError, PreconditionFailed, Unavailable, UsageError
from crdtstore.values import to_json
from crdtstore_client.admin import Admin, View, best_of
from crdtstore_client.cli_members import again
from crdtstore_client.cli_show import echo_json, plain, short_dot
from crdtstore_client.cli_support import run
from crdtstore_client.members import Orphan, Orphans, life_dot, short_replica
from crdtstore_client.store import Store

__all__ = ["orphan"]

_domain = click.option("--domain", help="Of this domain only.")


Applied = dict[str, list[dict[str, str]]]
"""``applied``: orphan and dot; ``refused``: orphan and why."""


class _Listed(NamedTuple):
    view: View
    kept: Orphans
    applied: dict[str, int] | None


class _Found(NamedTuple):
    view: View
    kept: Orphans
    domain: str
    orphans: list[Orphan]


@click.group(short_help="Review commits that were cut off with an id; make them anew.")
def orphan() -> None:
    """Review commits that were cut off when their id was removed, and make anew those that are wanted.

    They are kept at the node that made them; --url must name it. REPLICA is an id that orphan list shows, or its begin.
    """


@orphan.command("list", short_help="List the ids given up, and how many orphans each has.")
@common_options
@click.pass_context
def list_(ctx: click.Context) -> None:
    """List the ids that the nodes gave up, and how many of their commits no other region has.

    "applied": so many of the orphans were made anew.
    """
    from crdtstore_client.cli_tables import table_lines  # noqa: PLC0415 - rich is dear

    async def work(store: Store) -> list[_Listed]:
        return [
            _Listed(view, each, await _applied(store.admin, view, each)) for view, each in await store.admin.orphans()
        ]

    found = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json({"replicas": [_listed_plain(*each) for each in found]})
        return
    if not found:
        click.echo("no id was given up by these nodes, so there are no orphans")
        return
    rows = [
        (
            short_replica(each.replica),
            view.members.node,
            (each.left or "-")[:16].replace("T", " "),
            domain,
            f"{counts.made:,}",
            "?" if counts.final is None else f"{counts.final:,}",
            "?" if counts.final is None else f"{counts.orphans:,}",
            "?" if applied is None or counts.final is None else f"{applied[domain]:,}",
            each.why or "-",
        )
        for view, each, applied in found
        for domain, counts in sorted(each.domains.items())
    ]
    names = ("replica", "kept at", "left (UTC)", "domain", "made", "final", "orphans", "applied", "why")
    numbers = {"made", "final", "orphans", "applied"}
    click.echo("\n".join(table_lines(names, rows, counts=numbers, folds={"domain", "why"})))
    for _, each, applied in found:
        if each.count > sum((applied or {}).values()):
            click.echo(f"review: {again(ctx, 'orphan', 'show', short_replica(each.replica))}")


async def _applied(admin: Admin, view: View, kept: Orphans) -> dict[str, int] | None:
    """Per domain how many were made anew; None where the node does not tell."""
    try:
        return await admin.applied_of(view, kept)
    except CrdtStoreError:
        return None


def _listed_plain(view: View, kept: Orphans, applied: dict[str, int] | None) -> dict[str, object]:
    body = _plain(kept)
    domains = {
        domain: counts | {"applied": None if applied is None else applied[domain]}
        for domain, counts in msgspec.to_builtins(kept.domains).items()
    }
    return {"node": view.members.node, **body, "domains": domains}


@orphan.command(short_help="Show what the orphans of an id did.")
@click.argument("replica")
@_domain
@common_options
@click.pass_context
def show(ctx: click.Context, replica: str, domain: str | None) -> None:
    """Show what the orphans of an id did: who wrote what, when and why, and which were applied."""

    async def work(store: Store) -> list[_Found]:
        return await _collect(store.admin, replica, domain)

    found = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json({"orphans": [{"domain": each.domain, **_plain(one)} for each in found for one in each.orphans]})
        return
    for each in found:
        click.echo("\n".join(_shown(each.domain, each.orphans)))
    every = [one for each in found for one in each.orphans]
    if not every:
        click.echo(
            f"{found[0].kept.replica} has no orphans{f' in {domain}' if domain else ''}" if found else "no orphans"
        )
    elif open_ := sum(one.applied is None for one in every):
        click.echo(f"{open_:,} of {len(every):,} not applied: {again(ctx, 'orphan', 'apply', replica)}", err=True)


@orphan.command(short_help="Make orphans anew, as commits of today.")
@click.argument("replica")
@_domain
@click.option("--dot", "dots", multiple=True, metavar="DOT", help="Only this one; again for another one.")
@click.option("--yes", is_flag=True, help="Do it; without this they are only shown.")
@common_options
@click.pass_context
def apply(ctx: click.Context, replica: str, domain: str | None, dots: tuple[str, ...], yes: bool) -> None:
    """Make orphans anew: new commits with the same effects, by you; each counts once, however often this is repeated.

    A value that was written since is overwritten. Changes of bounded counters are refused: their rights went with the id.
    """

    async def work(store: Store) -> Applied:
        found = [each for each in await _collect(store.admin, replica, domain) if each.orphans]
        _check_known(found, dots)
        chosen = [each._replace(orphans=list(_wanted(each.orphans, dots))) for each in found]
        chosen = [each for each in chosen if each.orphans]
        if not ctx.obj.get("as_json"):
            for each in chosen:
                click.echo("\n".join(_shown(each.domain, each.orphans)))
        if chosen and not yes:
            of = [] if domain is None else ["--domain", domain]
            only = [word for dot in dots for word in ("--dot", dot)]
            raise _unconfirmed(chosen, again(ctx, "orphan", "apply", replica, *of, *only, "--yes"))
        return await _apply(store.admin, chosen)

    done = run(ctx, work)
    if ctx.obj.get("as_json"):
        echo_json(done)
    else:
        for one in done["applied"]:
            click.echo(f"applied  {life_dot(one['orphan'])}  as {life_dot(one['dot'])}")
        if not done["applied"] and not done["refused"]:
            click.echo("nothing to apply: all of these were applied before")
    for one in done["refused"]:
        click.echo(f"refused  {life_dot(one['orphan'])}  {plain(one['why'])}", err=True)
    if done["refused"]:
        ctx.exit(1)


def _unconfirmed(chosen: Sequence[_Found], command: str) -> PreconditionFailed:
    count = sum(len(each.orphans) for each in chosen)
    these = "this commit" if count == 1 else f"these {count:,} commits"
    text = f"writing {these} anew needs --yes. Nothing changed."
    error = PreconditionFailed(text, code="confirm-needed", command=command)
    error.add_note(f"to do it: {command}")
    return error


async def _apply(admin: Admin, chosen: Sequence[_Found]) -> Applied:
    """At the node that keeps them, if it takes writes."""
    done: Applied = {"applied": [], "refused": []}
    for each in chosen:
        where = each.view if each.view.members.state == "member" else best_of(await admin.views())
        for name, some in (await admin.apply(where, each.domain, each.orphans)).items():
            done[name] += some
    return done


def _plain(value: Orphans | Orphan) -> dict[str, object]:
    body: dict[str, object] = to_json(msgspec.to_builtins(value))
    return body


async def _collect(admin: Admin, name: str, domain: str | None) -> list[_Found]:
    """The orphans of the one id that is meant, per domain.

    Raises:  UsageError when it is none, or not one; Unavailable when it may be at a url that does not answer.
    """
    kept = await admin.orphans()
    exact = [pair for pair in kept if pair[1].replica == name]
    meant = exact or [pair for pair in kept if pair[1].replica.startswith(name)]
    if not meant:
        known = ", ".join(short_replica(each.replica) for _, each in kept) or "none"
        text = f"no node that answers keeps orphans of {name[:100]}; there are: {known}. Nothing changed."
        if any(not isinstance(answer, View) for answer in (await admin.ask_everyone()).values()):
            raise Unavailable(text, code="unreachable")
        raise UsageError(text, code="bad-request")
    if len({each.replica for _, each in meant}) > 1:
        which = ", ".join(short_replica(each.replica) for _, each in meant)
        raise UsageError(f"{name[:100]} may be any of {which}; say which. Nothing changed.", code="bad-request")
    view, each = meant[0]
    if domain is not None and domain not in each.domains:
        known = ", ".join(sorted(each.domains)) or "none"
        raise UsageError(
            f"{short_replica(each.replica)} made nothing in {domain[:100]}; its domains: {known}. Nothing changed.",
            code="bad-request",
        )
    chosen = [each_ for each_ in sorted(each.domains) if domain in {None, each_} and each.domains[each_].orphans]
    return [_Found(view, each, each_, await admin.orphans_of(view, each.replica, each_)) for each_ in chosen]


def _check_known(found: Sequence[_Found], dots: Sequence[str]) -> None:
    known = {name for each in found for one in each.orphans for name in _names_of(one)}
    for dot in dots:
        if dot not in known:
            raise UsageError(f"there is no orphan {dot[:100]} here. Nothing changed.", code="bad-request")


def _names_of(one: Orphan) -> set[str]:
    return {one.dot, short_dot(one.dot), life_dot(one.dot)}


def _wanted(orphans: Sequence[Orphan], dots: Sequence[str]) -> Iterator[Orphan]:
    for one in orphans:
        if one.applied is None and (not dots or not _names_of(one).isdisjoint(dots)):
            yield one


def _shown(domain: str, orphans: Sequence[Orphan]) -> list[str]:
    """A row for each change; what all changes of a commit share stands in the first."""
    from crdtstore_client.cli_tables import table_lines  # noqa: PLC0415 - rich is dear

    rows = []
    for one in orphans:
        said = [f"applied as {life_dot(one.applied)}"] if one.applied else []
        said += [f'"{one.reason}"'] if one.reason else []
        shared = (short_dot(one.dot), one.time.partition(".")[0].rstrip("Z").replace("T", " "), plain(one.author))
        for at, change in enumerate(one.changes):
            first = (*shared, "  ".join(said)) if at == 0 else ("", "", "", "")
            where = f"{domain}/{change.collection}/{change.key}"
            rows.append((*first[:3], where, change.what, first[3]))
        if not one.changes:
            rows.append((*shared, domain, "nothing", "  ".join(said)))
    return table_lines(("commit", "time (UTC)", "by", "where", "what", ""), rows, folds={"where", "what", "", "by"})

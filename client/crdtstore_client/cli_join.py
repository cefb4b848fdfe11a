"""``crdtstore member join``: what a new node needs to know, and how far it is.

The question: who joins whom? The new node does it by itself, with an address of somebody who is there already. What is left
for a command is to say what stands in its configuration file, and to tell when it is done: it is a member from the moment
the others decided so, and counts on its own only when it holds all they have.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import click

from crdtstore.cli import common_options
from crdtstore.errors import Unavailable, UsageError
from crdtstore_client.admin import View, best_of
from crdtstore_client.cli_show import clip, echo_json
from crdtstore_client.cli_support import run
from crdtstore_client.members import Member, Members, number_of, short_replica
from crdtstore_client.store import Store

__all__ = ["Reached", "Stage", "join", "left_stage", "wait_until"]


class Reached(NamedTuple):
    """Whether it is done, and how far it is; ``is_stuck``: it does not go on before somebody does something."""

    is_done: bool
    said: str
    is_stuck: bool = False


Stage = Callable[[Sequence[View]], Reached]

POLL_SECONDS = 0.5


@click.command(short_help="Say what a new node needs to join, or wait until it has.")
@click.argument("node")
@click.option("--wait", is_flag=True, help="Show how far it is, until it holds all; --timeout ends that.")
@common_options
@click.pass_context
def join(ctx: click.Context, node: str, wait: bool) -> None:
    """Print what stands in the configuration file of a new node, or, with --wait, how far it is.

    A node that finds these lines and an empty data directory joins by itself when it is started. --region is the region
    of the new node.
    """
    place = ctx.ensure_object(dict).pop("region", None)  # which is not among the urls yet
    if wait:
        run(ctx, lambda store: wait_until(ctx, store, partial(_stage, node=node)))
        return

    async def work(store: Store) -> Members:
        return best_of(await store.admin.views()).members

    members = run(ctx, work)
    same = [each for each in members.members if each.node == node]
    region = place or (same[-1].region if same else None)
    if region is None:
        raise UsageError(f"say in which region {node[:100]} is: --region REGION. Nothing changed.", code="bad-request")
    addresses = [each.gossip for each in members.members if each.gossip and not each.is_leaving and each.node != node]
    if ctx.obj.get("as_json"):
        echo_json({"node": node, "region": region, "cluster": members.cluster, "join": addresses})
        return
    click.echo("\n".join(_lines(members, node, region, addresses, same)))


def _lines(members: Members, node: str, region: str, addresses: Sequence[str], same: Sequence[Member]) -> list[str]:
    lines = [
        f"# For the configuration file of {node}, beside its own data, api and gossip. Start it on an empty data directory.",
        f"node = {json.dumps(node)}",
        f"region = {json.dumps(region)}",
        f'cluster_file = "cluster.toml"   # the same file as at every node of {members.cluster or "this cluster"}',
        f"join = {json.dumps(addresses)}",
    ]
    if not addresses:
        lines[-1] += "   # the founders, at the addresses of the cluster file"
    for each in same:
        lines.append(f"# {each.replica} has this name already. It stays a member until it is removed:")
        lines.append(f"#   crdtstore member evict {short_replica(each.replica)}")
    return lines


async def wait_until(ctx: click.Context, store: Store, stage: Stage) -> None:
    """Look again and again, show how far it is, and return when it is done."""
    seconds = ctx.obj.get("timeout")
    loop = asyncio.get_running_loop()
    end = None if seconds is None else loop.time() + seconds
    progress = _Progress(is_quiet=bool(ctx.obj.get("as_json")))
    while True:
        answers = await store.admin.ask_everyone()
        views = [answer for answer in answers.values() if isinstance(answer, View)]
        is_done, said, is_stuck = stage(views) if views else Reached(False, "no node answers", is_stuck=True)
        progress.show(said)
        if is_done:
            break
        if end is not None and loop.time() + POLL_SECONDS > end:
            progress.close()
            then = "" if is_stuck else " It goes on by itself."
            raise Unavailable(f"not within {seconds:g} s: {said}.{then}", code="not-ready")
        await asyncio.sleep(POLL_SECONDS)
    progress.close()
    if ctx.obj.get("as_json"):
        echo_json(best_of(views).raw)


def left_stage(node: str, replica: str) -> Stage:
    """How far a node is that leaves: what the others say, and where none of them is asked, what it says itself."""

    def stage(views: Sequence[View]) -> Reached:
        own = next((view.members for view in views if view.members.replica == replica), None)
        others = [view for view in views if view.members.replica != replica]
        members = _newest(others, node).members if others else None
        is_newer = members is None or own is None or number_of(members.configuration) < number_of(own.configuration)
        if own is not None and _has_left(own) and is_newer:
            return Reached(True, f"{node} has left, as it says itself: all it had is elsewhere, and it can be stopped")
        if members is None:
            if own is None:
                return Reached(False, "no other node answers", is_stuck=True)
            return _leaving(node, own, replica)
        if any(each.replica == replica for each in members.members):
            return _leaving(node, members, replica)
        if replica in members.unsettled():
            return Reached(False, f"{node} is removed, and the others settle what counts of it")
        return Reached(True, f"{node} has left: nothing waits for it any more, and it can be stopped")

    return stage


def _has_left(own: Members) -> bool:
    return own.state == "removed" or all(each.replica != own.replica for each in own.members)


def _leaving(node: str, members: Members, replica: str) -> Reached:
    """While it is a member: what is there only, and who has to be heard before it can go."""
    entry = next((each for each in members.members if each.replica == replica), None)
    count = None if entry is None else entry.only_there.commits
    lacking = "" if not count else f", {count:,} commit{'' if count == 1 else 's'} still there only"
    unheard = [
        members.names(each.replica)
        for each in members.members
        if not each.connected and not each.is_self and each.replica != replica
    ]
    if not unheard:
        return Reached(False, f"{node} is leaving{lacking}")
    one = len(unheard) == 1
    waits = f"{', '.join(unheard)} {'is' if one else 'are'} not heard, and may have to return, or to be evicted, before"
    return Reached(False, f"{node} is leaving{lacking}; {waits} it can go", is_stuck=True)


def _newest(views: Sequence[View], node: str) -> View:
    """Who knows most of the members, the new node itself last."""
    return max(views, key=lambda view: (number_of(view.members.configuration), view.members.node != node))


def _stage(views: Sequence[View], node: str) -> Reached:
    """How far a node is that joins."""
    own = next((view.members for view in views if view.members.node == node), None)
    members = _newest(views, node).members
    entry = next((each for each in reversed(members.members) if each.node == node), None)
    if entry is None or (own is not None and own.replica != entry.replica):
        if own is None:
            return Reached(False, f"waiting for {node} to start, and to ask at one of {_reachable(members)}")
        why = f" ({own.why})" if own.why else ""
        return Reached(False, f"{node} is {own.state}{why}")
    within = sum(entry.replica in group.members for group in members.groups)
    whole = len(members.groups)
    if within < whole:
        return Reached(False, f"{node} is admitted to {within} of {whole} groups")
    installing = [] if own is None else [group for group in own.groups if group.installing is not None]
    if installing:
        parts = sum(group.installing.parts for group in installing if group.installing is not None)
        names = ", ".join(group.name for group in installing[:3]) + (", …" if len(installing) > 3 else "")
        return Reached(False, f"{node} gets what there is of {names}: {parts:,} parts so far")
    if entry.is_installed is not True or (own is not None and own.state != "member"):
        return Reached(False, f"{node} is admitted to every group ({whole}) and gets what there is")
    return Reached(
        True,
        f"{node} is a member of every group ({whole}) and holds all of it: configuration {members.configuration}",
    )


def _reachable(members: Members) -> str:
    return ", ".join(each.gossip for each in members.members if each.gossip) or "a member"


class _Progress:
    """One line that changes on a terminal, a line for each change elsewhere."""

    def __init__(self, *, is_quiet: bool) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._is_quiet = is_quiet
        self._last = ""

    def show(self, line: str) -> None:
        from crdtstore_client.cli_members_show import safe  # noqa: PLC0415 - rich is dear

        if line == self._last or self._is_quiet:
            return
        self._last = line
        if self._is_terminal:
            click.echo(f"\r\x1b[2K{clip(safe(line), shutil.get_terminal_size().columns - 1)}", nl=False)
        else:
            click.echo(safe(line))

    def close(self) -> None:
        """The last line stays, whole."""
        from crdtstore_client.cli_members_show import safe  # noqa: PLC0415 - rich is dear

        if self._is_terminal and self._last:
            click.echo(f"\r\x1b[2K{safe(self._last)}")

"""``crdtstore doctor``: is anything wrong, and what mends it.

The question: what is a person to read at three in the morning? What is wrong in one sentence and the command to type, and
one line when nothing is.
"""

from __future__ import annotations

import asyncio
import re

import click

from crdtstore.cli import common_options
from crdtstore_client.admin import View
from crdtstore_client.cli_members import again
from crdtstore_client.cli_show import echo_json, is_safe, plain
from crdtstore_client.cli_support import run
from crdtstore_client.findings import examine
from crdtstore_client.looking import Finding, Look, look_around
from crdtstore_client.store import Store

__all__ = ["doctor"]

AGAIN_SECONDS = 1.0
_COMMAND = re.compile(r"\bcrdtstore(?= (member|orphan|doctor)\b)")


@click.command(short_help="Say what is wrong with the cluster, and what mends it.")
@common_options
@click.pass_context
def doctor(ctx: click.Context) -> None:
    """Ask all urls; say what is wrong with the cluster, and what mends it.

    What it finds it looks at twice. Exit code 1 when there is anything.
    """
    look, found = run(ctx, _examined)
    if ctx.obj.get("as_json"):
        shown = [{"check": each.check, "what": each.what, "mend": each.mend} for each in found]
        echo_json({"findings": shown, "summary": _summary(look, found), "nodes": _nodes(look)})
    else:
        for each in found:
            click.echo(_safe(f"- {each.what}"))
            click.echo(_safe(f"    {_COMMAND.sub(again(ctx), each.mend)}"))
        click.echo(_safe(_summary(look, found)))
    if found:
        ctx.exit(1)


async def _examined(store: Store) -> tuple[Look, list[Finding]]:
    """What is wrong, looked at twice: connections break and are made anew, and nobody is to be woken for that."""
    look = await look_around(store.admin)
    if examine(look):
        await asyncio.sleep(AGAIN_SECONDS)
        look = await look_around(store.admin)
    return look, examine(look)


def _safe(line: str) -> str:
    return line if is_safe(line) else plain(line)


def _nodes(look: Look) -> dict[str, str | None]:
    """Which node each url is."""
    return {url: answer.members.node if isinstance(answer, View) else None for url, answer in look.answers.items()}


def _summary(look: Look, findings: list[Finding]) -> str:
    asked = {each.replica for each in look.views}
    missing = [member.node for member in look.members if member.replica not in asked]
    if findings:
        count = f"{len(findings)} finding{'' if len(findings) == 1 else 's'}"
        without = [name for name in missing if not any(name in finding.what for finding in findings)]
    else:
        names = ", ".join(member.node for member in look.members)
        configuration = look.newest.configuration if look.newest is not None else "?"
        count = f"all is well: {len(look.members)} member{'' if len(look.members) == 1 else 's'} ({names}), configuration {configuration}"
        without = missing
    return f"{count}; not asked, for no url is theirs: {', '.join(without)}" if without else count

"""``crdtstore bench``: the command line of the load generator."""

from __future__ import annotations

import asyncio
import math
import secrets
import selectors
import sys
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import UsageError
from crdtstore.shards import MAX_SHARDS
from crdtstore_client.cli_show import echo_json

__all__ = ["bench"]

_MAX_KEYS = 10_000_000
_FEW = 100
"""With so many connections at most, ``select`` serves: it knows few descriptors, but waits for microseconds where ``epoll`` waits for
milliseconds, which would be seen in every latency of an open loop."""


@click.command(short_help="Load a cluster, and say what its users would see.")
@click.option(
    "--mix",
    default="add=50,read=50",
    show_default=True,
    metavar="WHAT=WEIGHT,...",
    help="Requests and how many of each: read, TYPE.read, TYPE.OP, or add and set for counter.add and lww_register.set.",
)
@click.option("--keys", type=click.IntRange(1, _MAX_KEYS), default=10_000, show_default=True, help="How many keys.")
@click.option(
    "--zipf",
    type=click.FloatRange(0, 10),
    default=0.0,
    show_default=True,
    help="Exponent of the skew: 0 asks for all keys alike, 0.99 is YCSB's zipfian.",
)
@click.option(
    "--tasks", type=click.IntRange(1, 10_000), default=64, show_default=True, help="Requests at a time, in all."
)
@click.option(
    "--connections",
    type=click.IntRange(1, 1_000),
    default=1,
    show_default=True,
    help="Connections (sessions) that tasks share.",
)
@click.option(
    "--spread", is_flag=True, help="Connections take turns over the regions; otherwise all ask the nearest one."
)
@click.option(
    "--rate",
    type=click.FloatRange(0, 10_000_000, min_open=True),
    metavar="PER_SECOND",
    help="Open loop: so many requests are due per second, and latency counts from when they were. Otherwise closed.",
)
@click.option(
    "--duration",
    type=click.FloatRange(0, 86_400, min_open=True),
    default=10.0,
    show_default=True,
    help="Seconds measured.",
)
@click.option(
    "--warm-up",
    type=click.FloatRange(0, 3_600),
    default=2.0,
    show_default=True,
    help="Seconds before these, not measured.",
)
@click.option(
    "--value-bytes",
    type=click.IntRange(0, 1_000_000),
    default=16,
    show_default=True,
    help="Size of values of registers, maps and events.",
)
@click.option(
    "--seed", type=int, default=1, show_default=True, help="The same seed draws the same keys and operations."
)
@click.option("--domain", default="bench", show_default=True, help="Where to write: in collections bench-TYPE of it.")
@click.option(
    "--shards", type=click.IntRange(1, MAX_SHARDS), help="If the domain is new: into how many it divides its keys."
)
@click.option("--keep", is_flag=True, help="Do not remove the keys at the end.")
@common_options
@click.pass_context
def bench(ctx: click.Context, /, **given: Any) -> None:
    """Load a running cluster with your kind of work.

    Shows throughput and latency by kind of request, then reads back whether all that was acknowledged is there, and
    removes its keys. Writes nothing but keys of its own. Exit code 1: something that was acknowledged is not there;
    4: no request succeeded, or it could not be read back.
    """
    from rich.console import Console  # noqa: PLC0415 - dear, and only this needs it

    from crdtstore_client.bench.display import Progress, show  # noqa: PLC0415
    from crdtstore_client.bench.results import document  # noqa: PLC0415
    from crdtstore_client.bench.run import run  # noqa: PLC0415
    from crdtstore_client.cli_tables import open_console  # noqa: PLC0415

    wanted, settings = _wanted(given, ctx.ensure_object(dict).get("regions", 0)), dict(ctx.obj)
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    try:
        with (
            Progress(wanted.plan, console) as progress,
            asyncio.Runner(loop_factory=lambda: _loop(wanted.plan.connections)) as runner,
        ):
            result = runner.run(run(wanted, settings, progress))
    except KeyboardInterrupt:
        click.echo(
            f"interrupted; keys that begin with {wanted.run}- may be left in the domain {wanted.domain}", err=True
        )
        sys.exit(130)
    if settings.get("as_json"):
        echo_json(document(result))
    else:
        show(result, open_console())
    if not result.is_true:
        ctx.exit(1)
    if result.unchecked:
        ctx.exit(4)
    if not result.total.done and result.total.failed:
        click.echo(f"no request succeeded; most failed with {result.failures[0][0]}", err=True)
        ctx.exit(4)


def _wanted(given: dict[str, Any], waits_for: int) -> Any:
    from crdtstore_client.bench.generator import Plan  # noqa: PLC0415
    from crdtstore_client.bench.mix import parse_mix  # noqa: PLC0415
    from crdtstore_client.bench.run import Wanted  # noqa: PLC0415

    for name in ("zipf", "rate", "duration", "warm_up"):
        if given[name] is not None and not math.isfinite(given[name]):
            raise UsageError(f"--{name.replace('_', '-')} is a number, got {given[name]}. Nothing changed.")
    tasks, connections = given["tasks"], given["connections"]
    if connections > tasks:
        raise UsageError(
            f"--connections {connections} are shared by --tasks {tasks}: there must be no more of them. Nothing changed."
        )
    plan = Plan(
        mix=parse_mix(given["mix"]),
        keys=given["keys"],
        zipf=given["zipf"],
        connections=connections,
        tasks=tasks,
        seconds=given["duration"],
        warm_up=given["warm_up"],
        rate=given["rate"],
        value_bytes=given["value_bytes"],
        seed=given["seed"],
    )
    name = f"r{secrets.token_hex(4)}"
    return Wanted(plan, name, given["domain"], given["shards"], given["spread"], waits_for, given["keep"])


def _loop(connections: int) -> asyncio.AbstractEventLoop:
    is_exact = connections <= _FEW and sys.platform != "win32"
    return asyncio.SelectorEventLoop(selectors.SelectSelector()) if is_exact else asyncio.new_event_loop()

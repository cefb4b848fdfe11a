"""``crdtstore sim``: run one seed, fuzz many, and prove that the checkers bite."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click

from crdtstore_sim import report
from crdtstore_sim.fuzz import FAULTS, prove, run_seed
from crdtstore_sim.fuzz import fuzz as fuzz_seeds
from crdtstore_sim.mixes import MIXES
from crdtstore_sim.plants import PLANTS
from crdtstore_sim.scenario import DIRECTORY, load

__all__ = ["commands", "sim"]

_plant = click.option("--plant", type=click.Choice(list(PLANTS)), help="Put this bug in: does a checker notice?")
_json = click.option(
    "--json", "as_json", is_flag=True, help="JSON on stdout: one document, for fuzz one a seed and a summary."
)
_scenario = click.option("--scenario", metavar="NAME|FILE", help="A scenario; without it the seed draws one.")
_workload = click.option(
    "--workload",
    type=click.Choice(MIXES),
    help="What users work on, where the seed draws the scenario: a few types, or all.",
)
_faults = click.option(
    "--faults",
    type=click.Choice(FAULTS),
    help="What goes wrong, where the seed draws the scenario: everything that happens to members that stay, or members change too.",
)


class _Seeds(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    name = "A:B"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> range:
        if isinstance(value, range):
            return value
        first, colon, end = str(value).partition(":")
        try:
            seeds = range(int(first), int(end)) if colon else range(int(first))
        except ValueError:
            self.fail(f"seeds are written 0:200, from the first to before the last, not {value!r}", param, ctx)
        if not seeds or seeds.start < 0:
            self.fail(f"there is no seed in {value}", param, ctx)
        return seeds


@click.group()
def sim() -> None:
    """Run the production code under virtual time, network and disk, with every law checked at every step."""


@sim.command()
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@_scenario
@_workload
@_faults
@_plant
@_json
def run(
    seed: int, scenario: str | None, workload: str | None, faults: str | None, plant: str | None, as_json: bool
) -> None:
    """One run. Exit code 1 when a law did not hold."""
    result = run_seed(seed, scenario, plant, workload, faults)
    if as_json:
        click.echo(json.dumps(report.document(result, plant), ensure_ascii=False))
    else:
        for text in report.lines(result, plant):
            click.echo(text)
    sys.exit(0 if result.is_ok else 1)


@sim.command()
@click.option("--seeds", type=_Seeds(), default="0:200", show_default=True, help="The seeds A <= seed < B.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@_scenario
@_workload
@_faults
@_plant
@_json
def fuzz(
    seeds: range,
    jobs: int,
    scenario: str | None,
    workload: str | None,
    faults: str | None,
    plant: str | None,
    as_json: bool,
) -> None:
    """Many runs, each with faults of its own. Exit code 1 when a seed failed."""
    began = time.perf_counter()
    events, busy_s, failed, storage = 0, 0.0, [], Counter[str]()
    for result in fuzz_seeds(seeds, scenario, plant, jobs, workload, faults):
        events += result.events
        busy_s += result.real_s
        storage.update(result.storage)
        if not result.is_ok:
            failed.append(result.seed)
        if as_json:
            click.echo(json.dumps(report.document(result, plant), ensure_ascii=False))
        else:
            click.echo(f" {report.line(result, plant)}")
    took_s = time.perf_counter() - began
    summary = {
        "summary": True,
        "seeds": len(seeds),
        "failed": failed,
        "events": events,
        "seconds": round(took_s, 2),
        "jobs": jobs,
        "storage": dict(storage),
        "events_per_s": round(events / took_s),
        "events_per_s_per_process": round(events / busy_s),
        "verdict": "failed" if failed else "ok",
    }
    if as_json:
        click.echo(json.dumps(summary))
    else:
        verdict = f"FAILED {len(failed)}: {', '.join(map(str, failed))}" if failed else "all ok"
        click.echo(
            f" {len(seeds)} seeds, {verdict}     {events:,} events in {took_s:.1f} s on {jobs} processes: {events / took_s:,.0f}/s"
        )
    sys.exit(1 if failed else 0)


@sim.command()
@click.option("--seeds", type=_Seeds(), default="0:200", show_default=True, help="Where to look: A <= seed < B.")
@click.option("--jobs", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes.")
@click.option("--plant", "plants", type=click.Choice(list(PLANTS)), multiple=True, help="Only these.")
@_json
def planted(seeds: range, jobs: int, plants: tuple[str, ...], as_json: bool) -> None:
    """Do the checkers bite? Every plant must be found, and the same seeds pass without it. Exit code 1 otherwise."""
    found = []
    if not as_json:
        click.echo(f" {'plant':26}{'first seed':>10}   {'at':>8}   {'without it':12} found by")
    for one in prove(seeds, jobs, list(plants)):
        found.append(one)
        if not as_json:
            seed = "NOT FOUND" if one.seed is None else str(one.seed)
            clean = "passes" if one.clean else "FAILS TOO"
            click.echo(f" {one.plant:26}{seed:>10}   {one.at_s:6.2f} s   {clean:12} {', '.join(one.checkers)}")
    is_ok = all(one.seed is not None and one.clean for one in found)
    if as_json:
        plain = [{**one._asdict(), "says": PLANTS[one.plant].says} for one in found]
        click.echo(json.dumps({"verdict": "ok" if is_ok else "failed", "plants": plain}))
    sys.exit(0 if is_ok else 1)


@sim.command()
def scenarios() -> None:
    """The scenarios that come with the simulator, and what each asks."""

    for path in sorted(Path(DIRECTORY).glob("*.toml")):
        click.echo(f" {path.stem:16} {load(str(path)).question}")


commands = [sim]

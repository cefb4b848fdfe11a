"""What a run says to people and to machines.

The question: what must a report let the reader do? Repeat it: its last line is the command that makes this run again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from crdtstore_sim.checkers import AMONG_MEMBERS, NAMES
from crdtstore_sim.regroup.draw import NAME, draw_members
from crdtstore_sim.sale import Sold
from crdtstore_sim.scenario import Scenario
from crdtstore_sim.simulation import Result

__all__ = ["again", "document", "line", "lines"]


def again(result: Result, plant: str | None) -> str:
    """The command that repeats a run."""
    named = f" --scenario {result.scenario.name}" if result.scenario.name != "swarm" else ""
    if result.scenario.name == NAME:  # a plant is looked for in a scenario of its own
        named = " --faults members" if result.scenario == draw_members(result.seed) else ""
    if not named and result.scenario.work.mix != "basic":
        named = f" --workload {result.scenario.work.mix}"
    return f"crdtstore sim run --seed {result.seed}{named}" + (f" --plant {plant}" if plant else "")


def failed(result: Result) -> list[str]:
    """The checkers that found something, in the order in which they did."""
    return list(dict.fromkeys(violation.checker for violation in result.violations))


def document(result: Result, plant: str | None = None) -> dict[str, Any]:
    """A run as one JSON document."""
    windows = result.windows_ms
    return {
        "seed": result.seed,
        "scenario": result.scenario.name,
        "plant": plant,
        "verdict": "ok" if result.is_ok else "failed",
        "trace": result.trace,
        "replicas": result.scenario.replicas,
        "events": result.events,
        "events_per_s": round(result.events / result.real_s),
        "virtual_s": round(result.virtual_s, 3),
        "real_s": round(result.real_s, 3),
        "writes": result.writes,
        "reads": result.reads,
        "acknowledged": result.acknowledged,
        "replayed": result.replayed,
        "refused": result.refused,
        "commits": result.commits,
        "crashes": result.crashes,
        "messages": result.messages,
        "messages_lost": result.messages_lost,
        "bytes_moved": result.bytes_moved,
        "divergence_window_ms": dict(zip(("p50", "p99", "max"), windows, strict=True)) if windows else None,
        "closed_form_ms": dict(zip(("expected", "measured"), result.cut_ms, strict=True)) if result.cut_ms else None,
        "settled_s": result.settled_s,
        "storage": result.storage,
        "happened": result.happened,
        "sale": [_shop(one) for one in result.sold] if result.sold else None,
        "checkers": {name: "failed" if name in failed(result) else "ok" for name in _checkers(result)},
        "violations": [
            {"checker": name, "time_s": time_us / 1_000_000, "detail": detail}
            for name, time_us, detail in result.violations
        ],
        "again": again(result, plant),
    }


def _checkers(result: Result) -> list[str]:
    known = NAMES if result.scenario.members is None else AMONG_MEMBERS
    return [*known, *(name for name in failed(result) if name not in known)]


def line(result: Result, plant: str | None = None) -> str:
    """A run of a fuzz in one line."""
    head = f"seed {result.seed}:"
    if result.is_ok:
        return f"{head} ok   {result.scenario.replicas} replicas, {result.commits} commits, {result.events} events   {result.trace}"
    first = result.violations[0]
    return f"{head} FAILED {first.checker} at {first.time_us / 1e6:.3f} s: {first.detail}\n        again: {again(result, plant)}"


def lines(result: Result, plant: str | None = None) -> Iterable[str]:
    """A run as people read it."""
    scenario = result.scenario
    if scenario.question:
        yield f" {scenario.question}"
    yield (
        f" {scenario.replicas} replicas, {result.writes} writes, {result.reads} reads, {result.virtual_s:.1f} s virtual in "
        f"{result.real_s:.1f} s     trace {result.trace}"
    )
    if faults := _faults(scenario):
        yield f" faults              {faults}"
    yield (
        f" acknowledged        {result.acknowledged}, of them {result.replayed} repeated requests · refused "
        + (", ".join(f"{code} {count}" for code, count in result.refused.items()) or "0")
    )
    if result.windows_ms:
        p50, p99, most = (f"{value / 1000:.3f} s" for value in result.windows_ms)
        yield f" divergence window   p50 {p50}   p99 {p99}   max {most}"
    if result.sold:
        yield from _sold(result.sold)
    if result.cut_ms:
        half, measured = (value / 1000 for value in result.cut_ms)
        yield (
            f" closed form         a cut of length P adds P/2 to the mean of commits inside it: {half:.2f} s; measured {measured:.2f} s"
        )
    if result.settled_s is not None:
        yield f" equal everywhere    {result.settled_s:.2f} s after the last write and fault"
    if any(result.storage.values()):
        yield " stores              " + " · ".join(f"{what} {count}" for what, count in result.storage.items() if count)
    if result.happened:
        yield " members             " + " · ".join(
            f"{what} {count}" for what, count in result.happened.items() if count
        )
    found = failed(result)
    yield " checkers            " + " · ".join(
        f"{name} {'FAILED' if name in found else 'ok'}" for name in _checkers(result)
    )
    for name, time_us, detail in result.violations[:5]:
        yield f" {name} at {time_us / 1e6:.3f} s: {detail}"
    yield f" events              {result.events}, {result.events / result.real_s:,.0f}/s"
    yield f" again               {again(result, plant)}"


def _shop(sold: Sold) -> dict[str, Any]:
    fields = sold._asdict()
    return {"type": fields.pop("type_name"), **fields, "oversold": sold.oversold}


def _sold(sold: Iterable[Sold]) -> Iterable[str]:
    """How the shops of a sale did, one below the other."""
    yield f" {'sale':20}{'stock':>7}{'sold':>7}{'turned away':>13}{'unanswered':>12}{'left':>7}{'oversold':>10}"
    for one in sold:
        yield (
            f" {one.type_name:20}{one.stock:>7}{one.sold:>7}{one.turned_away:>13}{one.unanswered:>12}{one.left:>7}"
            f"{one.oversold:>10}"
        )
        if one.oversold and one.type_name == "counter":
            yield f"   {one.oversold} were sold to people who cannot have them: no region saw what the others sold."


def _faults(scenario: Scenario) -> str:
    parts = []
    for cut in scenario.cuts:
        upto = f"{cut.to_s:.1f}" if cut.to_s is not None else "the end"
        parts.append(f"cut {cut.groups or ' '.join(cut.links)} {cut.from_s:.1f} s..{upto}")
    parts += [f"crash {crash.replica} at {crash.at_s:.1f} s for {crash.down_s:.1f} s" for crash in scenario.crashes]
    parts += [f"pause {pause.replica} at {pause.at_s:.1f} s for {pause.for_s:.1f} s" for pause in scenario.pauses]
    parts += [f"clock of {step.replica} set by {step.ms} ms at {step.at_s:.1f} s" for step in scenario.steps]
    network = scenario.network
    for name in ("loss", "duplicate", "reorder"):
        if rate := getattr(network, name):
            parts.append(f"{name} {rate:.0%}")
    return " · ".join(parts)

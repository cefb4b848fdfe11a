"""``make bench``: measure every figure here, write docs/benchmarks.md, docs/benchmarks.json and docs/benchmarks.svg.

``--only durability`` and ``--only members`` take minutes, so they run by themselves: each puts its own figures into the same page and
leaves the others as they are. ``--guard`` writes nothing: it fails where an operation costs more CPU than the committed page says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import Any

from benchmarks import (
    cluster,
    core,
    durability,
    flat,
    guard,
    heal,
    joining,
    large,
    memory,
    peers,
    plot,
    removed,
    session,
    simulator,
    storage,
)
from benchmarks.figures import Figure

ROOT = Path(__file__).parents[1]


_APART = ("durability", "members")
"""What takes minutes, and is measured only when it is asked for."""


def _machine() -> dict[str, str]:
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        "",
    )
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.strip()
    return {
        "cpu": f"{os.cpu_count()} x {model or platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "system": f"{platform.system()} {platform.release()}",
        "commit": commit or "unknown",
        "pieces of the guard's work a CPU-second": f"{guard.speed():.0f}",
    }


def _refuse_memory_disk(directory: Path) -> str:
    """The file system below a directory; one in memory is refused, since a sync there costs nothing."""
    best, kind = "", "unknown"
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, fs, *_ = line.split()
        if str(directory).startswith(mount) and len(mount) > len(best):
            best, kind = mount, fs
    if kind in ("tmpfs", "ramfs"):
        sys.exit(
            f"{directory} is on {kind}, where nothing is durable and a sync costs nothing: give --directory on a disk"
        )
    return kind


def _row(figure: Figure) -> str:
    target = "" if figure.target is None else f"{'>=' if figure.is_at_least else '<='} {figure.target:,g}"
    none_at_all = figure.target is not None and not figure.is_at_least and not figure.median
    ratio = "none at all" if none_at_all else "" if figure.ratio is None else f"{figure.ratio:.2f}"
    value = f"{figure.median:,.0f}" if figure.median >= 100 else f"{figure.median:,.2f}"
    return f"| {figure.name} | {value} {figure.unit} | {figure.spread:.0%} | {target} | {ratio} | {figure.commit} |"


def _section(name: str, figures: list[Figure], machine: dict[str, str]) -> list[str]:
    notes = [
        f"* {figure.name}: " + ", ".join(f"{key} {value:,}" for key, value in figure.notes.items())
        for figure in figures
        if figure.notes
    ]
    title = f'## {name}, measured by `make bench ARGS="--only {name}"`' if name else "## measured by `make bench`"
    return [
        title,
        "",
        *(f"* {key}: {value}" for key, value in machine.items()),
        "",
        "| what | measured | spread | target | ratio | commit |",
        "|---|---|---|---|---|---|",
        *map(_row, figures),
        "",
        *notes,
        "",
    ]


def _merged(held: list[dict[str, Any]], found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is held, with what was found in the place of the same name; what is new comes last."""
    by_name = {each["name"]: each for each in held} | {each["name"]: each for each in found}
    return list(by_name.values())


def _write(found: list[Figure], machine: dict[str, str], name: str, *, is_part: bool = False) -> None:
    """Put what was measured into the page and beside it; other parts stay as they were measured. ``is_part``: so do other figures."""
    path = ROOT / "docs" / "benchmarks.json"
    document: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    part = {"machine": machine, "figures": [figure.as_json() for figure in found]}
    apart = {other: document[other] for other in _APART if other in document}
    whole = {"machine": document.get("machine", {}), "figures": document.get("figures", [])}
    if is_part:
        part["figures"] = _merged(whole["figures"], part["figures"])
    document = {**whole, **apart, name: part} if name else {**part, **apart}
    path.write_text(json.dumps(document, indent=1) + "\n")
    lines = [
        "# Benchmarks",
        "",
        "Medians, spread = (greatest - least) / median; ratio above 1 = target reached.",
        "Figures of state on disk, and of a node that joins, need minutes and millions of keys, so they are measured by themselves.",
        'Rows that begin with "beside it" are others on the same machine in the same run.',
        "",
        "![measured against the targets](benchmarks.svg)",
        "",
    ]
    for other in ("", *_APART):
        held = document.get(other) if other else document
        if held:
            lines += _section(other, [Figure(**_plain(each)) for each in held["figures"]], held["machine"])
    (ROOT / "docs" / "benchmarks.md").write_text("\n".join(lines))
    plot.draw([Figure(**_plain(each)) for each in document["figures"]], path.with_suffix(".svg"))


def _plain(held: dict[str, Any]) -> dict[str, Any]:
    """What of a figure is not computed."""
    return {field.name: held[field.name] for field in fields(Figure) if field.name in held}


def _guard(found: list[Figure]) -> None:
    """Compare with the committed page; end with an error when something became too dear."""
    held = json.loads((ROOT / "docs" / "benchmarks.json").read_text())
    then = float(held["machine"].get("pieces of the guard's work a CPU-second", 0))
    if not then:
        sys.exit("docs/benchmarks.json does not say how fast its machine was: run make bench and commit it")
    costs = guard.dearer(found, guard.speed(), held["figures"], then)
    print(guard.table(costs))
    if not costs or max(costs.values()) > guard.LIMIT:
        sys.exit(1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path, default=ROOT / "build")
    parser.add_argument(
        "--only",
        choices=[
            "core",
            "flat",
            "large",
            "memory",
            "storage",
            "cluster",
            "session",
            "heal",
            "peers",
            "simulator",
            *_APART,
        ],
        action="append",
    )
    parser.add_argument("--dry-run", action="store_true", help="print only, write no file")
    parser.add_argument(
        "--update", action="store_true", help="with --only: put these figures into the page, leave the others"
    )
    parser.add_argument("--guard", action="store_true", help="compare with the committed page, write no file")
    arguments = parser.parse_args()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    machine = _machine()
    machine["disk"] = _refuse_memory_disk(arguments.directory.absolute())
    chosen: list[str] = arguments.only or []
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(dir=arguments.directory, prefix="bench-") as scratch:
        for name, measure in (
            ("core", lambda: core.figures(arguments.runs)),
            ("flat", lambda: flat.figures(arguments.runs)),
            ("large", lambda: large.figures(arguments.runs)),
            ("memory", lambda: memory.figures(min(3, arguments.runs))),
            ("storage", lambda: storage.figures(arguments.runs, Path(scratch))),
            ("cluster", lambda: cluster.figures(arguments.runs, Path(scratch))),
            ("session", lambda: session.figures(arguments.runs, Path(scratch))),
            ("heal", lambda: heal.figures(arguments.runs, Path(scratch))),
            ("peers", lambda: peers.figures(arguments.runs, Path(scratch) / "peers")),
            ("simulator", lambda: simulator.figures(arguments.runs)),
            ("durability", lambda: durability.figures(arguments.runs, Path(scratch))),
            ("members", lambda: chain(removed.figures(1), joining.figures(arguments.runs, Path(scratch)))),
        ):
            if name in chosen or (not chosen and name not in _APART):
                for measured in measure():
                    figure = replace(measured, commit=machine["commit"])
                    print(_row(figure), flush=True)
                    if figure.notes:
                        print("    " + ", ".join(f"{key} {value:,}" for key, value in figure.notes.items()), flush=True)
                    found.append(figure)
    if arguments.guard:
        _guard(found)
        return
    if not arguments.dry_run and (not chosen or chosen[0] in _APART or arguments.update):
        is_apart = bool(chosen) and chosen[0] in _APART
        _write(found, machine, chosen[0] if is_apart else "", is_part=arguments.update)
    missed = [figure.name for figure in found if figure.ratio is not None and figure.ratio < 1]
    print(f"\ntargets missed: {', '.join(missed)}" if missed else "\nall targets reached")


if __name__ == "__main__":
    main()

"""``make readme``: run what README.md shows, keep the outputs in docs/runs, paste them into README.md.

The question: how does a README stay true? Its outputs are those of the last real run, and a test compares them with what was kept.
A line of a transcript that begins with @ is run but not shown.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["RUNS", "TRANSCRIPTS", "blocks", "paste"]

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "docs" / "runs"

TRANSCRIPTS: dict[str, list[str]] = {
    "demo": ["make demo"],
    "developer": [
        ". .venv/bin/activate                             # made by make demo",
        "crdtstore dev up --regions us,eu,ap",
        'eval "$(crdtstore dev env)"                      # CRDTSTORE_URL',
        "crdtstore declare shop/orders counter",
        "crdtstore dev partition ap                       # ap is now alone; nothing else changes",
        "crdtstore --region us add shop/orders/de 3",
        "crdtstore --region ap add shop/orders/de 4       # ap takes the write too",
        "@sleep 6",
        "crdtstore --region us get shop/orders/de",
        "crdtstore dev heal && sleep 1 && crdtstore --region us get shop/orders/de",
        "crdtstore add shop/orders/de 1.5",
        "@crdtstore dev down",
    ],
    "catalogue": [
        "@crdtstore dev up --regions us,eu,ap",
        '@eval "$(crdtstore dev env)"',
        "crdtstore declare shop/stock bounded_counter",
        "crdtstore --region us grant shop/stock/sku-7 100",
        "crdtstore --region eu consume shop/stock/sku-7 30          # eu had no rights: they moved there",
        "crdtstore declare crm/tier lww_register",
        "@sleep 1",
        "crdtstore dev partition ap",
        "crdtstore --region us --reason upgrade set crm/tier/c-42 '\"gold\"'",
        "crdtstore --region ap set crm/tier/c-42 '\"silver\"'",
        "crdtstore --region ap consume shop/stock/sku-7 1           # ap has none, and nobody to ask: never oversold",
        "crdtstore dev heal && sleep 1 && crdtstore --region eu explain crm/tier/c-42",
        "crdtstore conflicts crm",
        "@crdtstore dev down",
    ],
    "researcher": [
        "crdtstore sim run --seed 7 --scenario split-2-2",
        "crdtstore sim fuzz --seeds 0:200 | tail -3",
        "crdtstore sim run --scenario oversell | grep -A5 sale",
        "crdtstore sim fuzz --seeds 0:3 --plant causal-check-off    # does the checker bite?",
    ],
    "operator": [
        "@crdtstore dev up --regions us,eu,ap",
        '@eval "$(crdtstore dev env)"',
        "@crdtstore declare shop/orders counter",
        "@for n in 1 2 3 4 5; do crdtstore --region us add shop/orders/de; done",
        "crdtstore dev partition ap",
        "@for n in 1 2 3; do crdtstore --region us add shop/orders/de; crdtstore --region ap add shop/orders/de; done; sleep 7",
        "crdtstore status",
        "curl -s ${CRDTSTORE_URL%%,*}/metrics | grep '^crdtstore_staleness.*shop'",
        "@crdtstore dev heal; sleep 1",
        "crdtstore status",
        "crdtstore backup backups --data .crdtstore/us-1    # while it runs; a folder or an object storage",
        "crdtstore drill restore backups",
        "crdtstore log verify .crdtstore/us-1 --chain",
        "@crdtstore dev down",
    ],
    "members": [
        "@crdtstore dev up --regions us,eu,ap",
        '@eval "$(crdtstore dev env)"',
        "@crdtstore declare shop/orders counter",
        "@for n in 1 2 3; do crdtstore --region us add shop/orders/de; done",
        "crdtstore dev add sa                              # a fourth region, while the others take writes",
        'eval "$(crdtstore dev env)"; crdtstore --region sa get shop/orders/de',
        "@crdtstore dev partition ap",
        "@crdtstore --region ap add shop/orders/de 4; crdtstore dev kill ap; crdtstore dev heal; sleep 2",
        "crdtstore member list                             # ap took one more write, and was lost before anybody heard of it",
        "crdtstore member evict ap-1 2>&1 | fold -sw 126   # says what it costs; exit code 3, nothing has changed",
        "crdtstore member evict ap-1 --yes | tail -1",
        "crdtstore dev start ap                            # it was not lost after all",
        "@sleep 1",
        "crdtstore doctor",
        "crdtstore member rejoin ap-1 --yes | tail -2",
        "@crdtstore member join --wait ap-1 --timeout 60",
        "crdtstore orphan apply ap-1 --yes                 # what ap alone had was kept; here it is still wanted",
        "@sleep 1",
        "crdtstore doctor && crdtstore --region us get shop/orders/de",
        "@crdtstore dev down",
    ],
}
_BLOCK = re.compile(r"<!-- run: (\w+) -->\n(?:```\n(.*?)```\n)?<!-- end -->", re.DOTALL)


def blocks(readme: str) -> dict[str, str]:
    """What README.md shows of each run."""
    return {match[1]: match[2] or "" for match in _BLOCK.finditer(readme)}


def paste(readme: str, outputs: dict[str, str]) -> str:
    """README.md with these outputs in their places; a run that has none keeps what is shown."""

    def block(match: re.Match[str]) -> str:
        output = outputs.get(match[1], match[2] or "")
        return f"<!-- run: {match[1]} -->\n```\n{output}```\n<!-- end -->"

    return _BLOCK.sub(block, readme)


def _script(lines: list[str]) -> str:
    parts = ["exec 2>&1"]
    for line in lines:
        if line.startswith("@"):
            parts.append(f"{{ {line[1:]}; }} >/dev/null")
        else:
            shown = line.replace("'", "'\\''")
            parts += [f"printf '%s\\n' '$ {shown}'", line]
    return "\n".join(parts) + "\n"


def _run(name: str, directory: Path) -> str:
    """One transcript, in a directory of its own, as a user would see it at 130 columns without colours."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("CRDTSTORE_")}
    path = f"{ROOT / '.venv' / 'bin'}:{environment.get('PATH', '')}"
    environment |= {"PATH": path, "COLUMNS": "130", "NO_COLOR": "1"}
    if name == "demo":
        directory = ROOT
    elif not (directory / ".venv").exists():
        (directory / ".venv").symlink_to(ROOT / ".venv")
    result = subprocess.run(
        ["bash", "-c", _script(TRANSCRIPTS[name])],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    return "".join(line.rstrip() + "\n" for line in result.stdout.splitlines())


def main() -> None:
    names = sys.argv[1:] or list(TRANSCRIPTS)
    RUNS.mkdir(parents=True, exist_ok=True)
    for name in names:
        print(f"running {name} ...", flush=True)
        with tempfile.TemporaryDirectory(prefix="readme-") as directory:
            (RUNS / f"{name}.txt").write_text(_run(name, Path(directory)))
    readme = ROOT / "README.md"
    outputs = {name: (RUNS / f"{name}.txt").read_text() for name in TRANSCRIPTS if (RUNS / f"{name}.txt").exists()}
    readme.write_text(paste(readme.read_text(), outputs))


if __name__ == "__main__":
    main()

"""Logs of two replicas and two groups for the tests of the commands that look at them."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from crdtstore.causal import ReplicaId
from crdtstore.cli import main
from crdtstore.commit import Commit, chain_next, chain_start, encode_commit
from crdtstore.storage import segment
from crdtstore.storage.log import SegmentedLog
from crdtstore.storage.protocol import Entry

US = ReplicaId("us-1.0123456789abcdef")
EU = ReplicaId("eu-1.00000000000000ff")
CLUSTER = "demo"
START_MS = 1_763_640_000_000


def entry(group: str, origin: ReplicaId, seq: int, author: str = "web") -> Entry:
    stamp = (START_MS + seq * 1000) << 16
    effects = [1, ["profile", f"k{seq}", "f"], b"\x00\xff" * 20, 1, ["profile", "k", "g"], seq]
    return Entry(
        group, origin, encode_commit(Commit(1, origin if seq == 1 else 0, seq, stamp, [], author, [], effects))
    )


def make(data: Path, count: int = 60, *, cut: bool = False, author: str = "web") -> list[int]:
    """Blocks with a commit of each of two replicas, and one of each group; the positions of the blocks."""
    data.mkdir(exist_ok=True)
    document = {"format": 1, "cluster": CLUSTER, "nonce": "00" * 16, "replica": US}
    (data / "identity.json").write_text(json.dumps(document))
    positions = []
    with SegmentedLog.open(data / "log", 4096) as log:
        list(log.replay())
        for seq in range(1, count + 1):
            first = [entry("shop/0", US, seq, author), entry("shop/0", EU, seq, author)]
            positions.append(log.write([log.encode(first), log.encode([entry("_sys", US, seq, author)])]))
            log._join_ahead()
            if cut and seq == count // 2:
                log.cut(positions[-1])
    return positions


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["log", *map(str, arguments)])


def files(data: Path) -> dict[str, tuple[bytes, int]]:
    return {str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in data.rglob("*") if file.is_file()}


def flip(data: Path, generation: int, offset: int) -> None:
    file = segment.path_of(data / "log", generation)
    content = bytearray(file.read_bytes())
    content[offset] ^= 4
    file.write_bytes(content)


def heads(count: int) -> dict[tuple[str, ReplicaId], tuple[int, bytes]]:
    found = {}
    for group, origin in (("_sys", US), ("shop/0", US), ("shop/0", EU)):
        chain = chain_start(CLUSTER, group, origin)
        for seq in range(1, count + 1):
            chain = chain_next(chain, entry(group, origin, seq).data)
        found[group, origin] = (count, chain)
    return found

"""Golden bytes of the state store: rows that the first version wrote are read for ever.

As for commits: the files under ``v1/state/`` were made by the plain ``msgpack`` package and what is spelled out here. They are only ever
added.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgpack
import pytest
import xxhash

from crdtstore.leaves import Branch, Entry, Many, One, Sum
from crdtstore.loose import Loose
from crdtstore.runs import Run
from crdtstore.storage.leafrows import build_entry, decode_leaves, encode_leaves
from crdtstore.storage.rows import LEAVES, parts_of, path_bytes, row_path, seal, unseal

HERE = Path(__file__).parent / "v1" / "state"
HLC = 1_767_607_200_123 << 16 | 7
BIG = 1 << 64
PUT, ADD, MAX, MARK, FUTURE = 1, 2, 3, 5, 200
WEIGHT = 0x0123456789ABCDEF


def ext(number: int) -> msgpack.ExtType:
    return msgpack.ExtType(1, number.to_bytes(number.bit_length() // 8 + 1, "big", signed=True))


def leaf(*fields: Any) -> bytes:
    return b"\x01" + bytes(msgpack.packb(list(fields), use_bin_type=True))


def run(origin: int, **fields: Any) -> Run:
    return Run(origin, WEIGHT, **fields)


_ROWS = struct.pack("<IQq", 0, HLC, 5) + struct.pack("<IQq", 2, HLC + 1, 9)

ENTRIES: dict[str, tuple[bytes, Entry]] = {
    "leaf-register": (leaf(PUT, 1 << 48 | 7, HLC, {"a": [1, None]}), One(PUT, 1 << 48 | 7, HLC, {"a": [1, None]})),
    "leaf-of-a-later-version": (leaf(FUTURE, 7, HLC, ext(BIG)), One(FUTURE, 7, HLC, BIG)),
    "leaf-counter": (leaf(-1, 0, 41, 12, HLC), Sum(12, (run(0, last_seq=41, last_sum=12, last_hlc=HLC),))),
    "leaf-counter-of-two": (
        leaf(-1, 2, 41, 12, HLC, 0, 5, ext(-BIG), HLC + 1),
        Sum(
            12 - BIG,
            (
                run(2, last_seq=41, last_sum=12, last_hlc=HLC),
                run(0, last_seq=5, last_sum=-BIG, last_hlc=HLC + 1),
            ),
        ),
    ),
    "leaf-counter-not-folded": (
        leaf(-2, None, [1, None, 3, 9, 12, HLC, struct.pack("<4q", 4, 5, 7, -1), None]),
        Sum(
            9,
            (run(1, gone=3, last_seq=9, last_sum=12, last_hlc=HLC, older=bytearray(struct.pack("<4q", 4, 5, 7, -1))),),
        ),
    ),
    "leaf-counter-of-large-sums": (
        leaf(-2, None, [1, None, 0, 9, ext(BIG), HLC, [[4, ext(BIG + 1)]], None]),
        Sum(BIG, (run(1, last_seq=9, last_sum=BIG, last_hlc=HLC, older=[(4, BIG + 1)]),)),
    ),
    "leaf-counter-of-operations": (
        leaf(-2, [8, 1 << 48 | 3], [1, 6, 0, 0, 0, HLC, None, [3, _ROWS, 8, 9, 1, 5, [4, 2]]]),
        Sum(
            14, (run(1, base=6, last_hlc=HLC, loose=Loose(3, bytearray(_ROWS), 8, 9, 1, 5, {4: 2})),), {8: 1 << 48 | 3}
        ),
    ),
    "leaf-of-concurrent-writes": (
        leaf(-3, PUT, None, 1, HLC, "x", 1 << 48 | 1, HLC + 1, b"\x00"),
        Many(PUT, {1: (HLC, "x"), 1 << 48 | 1: (HLC + 1, b"\x00")}),
    ),
    "leaf-of-operations": (leaf(-3, MAX, [2, 1], 1, HLC, 9), Many(MAX, {1: (HLC, 9)}, {2: 1}, 9)),
    "leaf-several": (
        leaf(-4, [MARK, 1, HLC, None], [-1, 0, 2, 5, HLC]),
        Branch([One(MARK, 1, HLC, None), Sum(5, (run(0, last_seq=2, last_sum=5, last_hlc=HLC),))], {}),
    ),
}

PATHS: dict[str, tuple[bytes, list[Any]]] = {
    "path-key": (b"\x20orders:counter\0\x20de\0", ["orders:counter", "de"]),
    "path-text": (b"\x20s:aw_set\0\x20\xc3\xa4\x01\x01\x01\x02\0", ["s:aw_set", "ä\0\1"]),
    "path-bytes": (b"\x20s:aw_set\0\x20k\0\x30\xff\x01\x01\0", ["s:aw_set", "k", b"\xff\0"]),
    "path-integers": (
        b"\x20s\0\x20k\0\x14\x15\x05\x13\xfa\x16\x01\x00\x1c" + b"\xff" * 8,
        ["s", "k", 0, 5, -5, 256, (1 << 64) - 1],
    ),
    "path-large-integers": (
        b"\x20s\0\x20k\0\x1d\x00\x09\x01" + bytes(8) + b"\x0b\xff\xf6\xfe" + b"\xff" * 8,
        ["s", "k", BIG, -BIG],
    ),
}

ROW = (b"\x00\x07\x01" + PATHS["path-key"][0], ENTRIES["leaf-counter"][0])
SEALED = ROW[1] + xxhash.xxh3_64(ROW[0] + ROW[1], len(ROW[0])).digest()[:4]


def all_golden() -> dict[str, bytes]:
    made = {name: data for name, (data, _) in {**ENTRIES, **PATHS}.items()}
    return {**made, "row-path": ROW[0], "row-data": SEALED}


def golden(name: str) -> bytes:
    return bytes.fromhex((HERE / f"{name}.hex").read_text())


def test_files_are_only_ever_added(pytestconfig: pytest.Config) -> None:
    made = all_golden()
    if pytestconfig.getoption("--rewrite"):
        for name, data in made.items():
            path = HERE / f"{name}.hex"
            if not path.exists():
                path.parent.mkdir(exist_ok=True)
                path.write_text("\n".join(data.hex()[at : at + 120] for at in range(0, 2 * len(data), 120)) + "\n")
    assert {path.stem for path in HERE.glob("*.hex")} == set(made)


@pytest.mark.parametrize("name", all_golden())
def test_the_encoder_here_makes_what_is_stored(name: str) -> None:
    assert all_golden()[name] == golden(name)


@pytest.mark.parametrize("name", ENTRIES)
def test_todays_code_reads_and_makes_golden_leaves(name: str) -> None:
    entry = ENTRIES[name][1]
    assert build_entry([([], decode_leaves(golden(name), lambda _: WEIGHT))]) == entry
    assert encode_leaves(entry) == golden(name)


@pytest.mark.parametrize("name", PATHS)
def test_todays_code_reads_and_makes_golden_paths(name: str) -> None:
    parts = PATHS[name][1]
    assert parts_of(golden(name)) == parts
    assert path_bytes(parts) == golden(name)


def test_todays_code_reads_and_makes_a_golden_row() -> None:
    assert row_path(7, LEAVES, PATHS["path-key"][1]) == golden("row-path")
    assert seal([ROW]) == [(golden("row-path"), golden("row-data"))]
    assert unseal([(golden("row-path"), golden("row-data"))], "f") == [ROW]

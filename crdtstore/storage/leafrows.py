"""Leaves as data of rows: one row per path, with all leaves that stand at this very path.

The question: what is a leaf's data when a million of them are written at a time? One flat array, which msgspec reads and writes in one
call; what can be computed is left out: weights, totals, which of several values is the greatest.

    data      0x01 (format), then msgpack: the leaf that stands here
    leaf      [kind, dot, hlc, value]                                         One
              [-1, origin, last_seq, last_sum, last_hlc, …]                   Sum of which only last amounts are left
              [-2, shadows, run, …]                                           any Sum
              [-3, kind, shadows, dot, hlc, value, …]                         Many
              [-4, leaf, …]                                                   several classes at one path
    run       [origin, base, gone, last_seq, last_sum, last_hlc, older, loose]
    loose     [first, rows, total, upto, gone, last_seq, holes]
    kind      never negative, so it is never taken for one of the marks -1 to -4
    shadows   nil, or shadow, dot that counts, …; holes likewise seq, amount, …
    older     nil, or bytes: pairs of 64-bit integers, or a list of pairs; the rows of loose amounts likewise

Packed pairs are as ``runs`` holds them: in the order of bytes of the machine, little-endian wherever this runs.
Integers beyond 64 bits are msgpack extension 1, as in ``values``; sums may be longer than what a commit may carry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any

import msgspec

from crdtstore.errors import DecodeError
from crdtstore.leaves import Branch, Entry, Leaf, Many, One, Sum, choose_again
from crdtstore.levels import collapse
from crdtstore.loose import Loose
from crdtstore.runs import Run
from crdtstore.values import pack

__all__ = ["FORMAT", "build_entry", "decode_leaves", "encode_leaves", "walk_entry"]

FORMAT = 1
_HEAD = bytes((FORMAT,))
_LAST, _SUM, _MANY, _SEVERAL = -1, -2, -3, -4
_BIG_INTEGER = 1

_encode = msgspec.msgpack.Encoder().encode


def _ext_in(code: int, data: memoryview) -> int:
    if code != _BIG_INTEGER:
        raise ValueError(f"unknown msgpack extension {code}")
    return int.from_bytes(data, "big", signed=True)


_decode = msgspec.msgpack.Decoder(list[Any], ext_hook=_ext_in).decode


# --- writing


def encode_leaves(entry: Entry) -> bytes | None:
    """The data of a row: the leaves that stand at a path, not what is below it; None when nothing stands here itself.

    Cost:    about 1 us for a ``One``, or a ``Sum`` that was folded.
    """
    fields: tuple[Any, ...] | list[Any]
    if type(entry) is One:
        fields = (entry.kind, entry.dot, entry.hlc, entry.value)
    elif type(entry) is not Branch:
        fields = _fields(entry)  # type: ignore[arg-type]
    elif len(entry.leaves) == 1:
        fields = _fields(entry.leaves[0])
    elif entry.leaves:
        fields = [_SEVERAL, *map(_fields, entry.leaves)]
    else:
        return None
    try:
        return _HEAD + _encode(fields)
    except OverflowError:  # integers beyond 64 bits
        return _HEAD + pack(fields)


def _fields(leaf: Leaf) -> list[Any]:
    if isinstance(leaf, One):
        return [leaf.kind, leaf.dot, leaf.hlc, leaf.value]
    if isinstance(leaf, Many):
        fields: list[Any] = [_MANY, leaf.kind, _flat(leaf.shadows)]
        for dot, (hlc, value) in leaf.dots.items():
            fields += (dot, hlc, value)
        return fields
    fields = [_LAST]
    for run in leaf.runs:
        if run.base is not None or run.loose is not None or run.gone or run.older is not None:
            break
        fields += (run.origin, run.last_seq, run.last_sum, run.last_hlc)
    else:
        if leaf.shadows is None:
            return fields
    return [_SUM, _flat(leaf.shadows), *map(_run_fields, leaf.runs)]


def _run_fields(run: Run) -> list[Any]:
    loose = run.loose
    return [
        run.origin,
        run.base,
        run.gone,
        run.last_seq,
        run.last_sum,
        run.last_hlc,
        run.older,
        None
        if loose is None
        else [loose.first, loose.rows, loose.total, loose.upto, loose.gone, loose.last_seq, _flat(loose.holes)],
    ]


def _flat(pairs: dict[int, int] | None) -> list[int] | None:
    return None if pairs is None else list(chain.from_iterable(pairs.items()))


# --- reading


def decode_leaves(data: bytes, weigh: Callable[[int], int]) -> list[Leaf]:
    """The leaves in the data of a row; ``weigh`` gives the weight of amounts of an origin at this path (``Shares.origin``).

    Raises:  DecodeError when ``encode_leaves`` makes no such data.
    """
    try:
        if data[0] != FORMAT:
            raise DecodeError(f"leaves in format {data[0]}, this version knows {FORMAT}")
        fields = _decode(memoryview(data)[1:])
        head = fields[0]
        if head >= 0:
            return [One(*fields)]
        return [_leaf(at, weigh) for at in fields[1:]] if head == _SEVERAL else [_leaf(fields, weigh)]
    except (msgspec.MsgspecError, LookupError, TypeError, ValueError) as error:
        raise DecodeError(f"not the leaves of a row: {error}") from error


def _leaf(fields: list[Any], weigh: Callable[[int], int]) -> Leaf:
    head = fields[0]
    if head >= 0:
        return One(*fields)
    if head == _LAST:
        if len(fields) == 5:
            _, origin, seq, total, hlc = fields
            return Sum(total, (Run(origin, weigh(origin), None, None, 0, seq, total, hlc),))
        runs = tuple(
            Run(origin, weigh(origin), None, None, 0, seq, total, hlc)
            for origin, seq, total, hlc in zip(fields[1::4], fields[2::4], fields[3::4], fields[4::4], strict=True)
        )
        return Sum(sum([run.last_sum for run in runs]), runs)
    if head == _SUM:
        runs = tuple(_run(run, weigh) for run in fields[2:])
        return Sum(sum([run.total() for run in runs]), runs, _paired(fields[1]))
    if head != _MANY:
        raise ValueError(f"no leaf begins with {head}")
    dots = zip(fields[3::3], zip(fields[4::3], fields[5::3], strict=True), strict=True)
    many = Many(fields[1], dict(dots), _paired(fields[2]))
    choose_again(many)
    return many


def _run(fields: list[Any], weigh: Callable[[int], int]) -> Run:
    origin, base, gone, last_seq, last_sum, last_hlc, older, below = fields
    loose = None
    if below is not None:
        first, rows, total, upto, lost, loose_last, holes = below
        loose = Loose(first, _rows(rows), total, upto, lost, loose_last, _paired(holes))
    packed = None if older is None else _rows(older)
    return Run(origin, weigh(origin), base, loose, gone, last_seq, last_sum, last_hlc, packed)


def _rows(rows: bytes | list[list[int]]) -> Any:
    return bytearray(rows) if isinstance(rows, bytes) else [tuple(row) for row in rows]


def _paired(flat: list[int] | None) -> dict[int, int] | None:
    return None if flat is None else dict(zip(flat[::2], flat[1::2], strict=True))


# --- whole keys


def walk_entry(entry: Entry) -> Iterator[tuple[list[Any], Entry]]:
    """The paths at and below an entry where leaves stand, and what stands there; a drop that is under way must be finished first."""
    if type(entry) is not Branch:
        yield [], entry
        return
    assert entry.sweep is None, "a drop is still being carried out here"
    if entry.leaves:
        yield [], entry
    for part, child in entry.children.items():
        for below, found in walk_entry(child):
            yield [part, *below], found


def build_entry(rows: Iterable[tuple[list[Any], list[Leaf]]]) -> Entry | None:
    """What stands at a key from its rows: the parts below the key, ascending, and the leaves there; None when there are no rows.

    Shape:   the smallest that holds it (``levels.collapse``); a branch knows neither its order nor what is newest below it.
    """
    root = Branch([], {})
    for parts, leaves in rows:
        if not parts:
            root.leaves = leaves
            continue
        level = root
        for part in parts[:-1]:
            child = level.children.get(part)
            if type(child) is not Branch:
                branch = Branch([] if child is None else [child], {})
                child = level.children[part] = branch
            level = child
        level.children[parts[-1]] = leaves[0] if len(leaves) == 1 else Branch(leaves, {})
    return collapse(root)

"""One flipped byte in a large log: found, named, and how long that takes."""

from __future__ import annotations

import random
import time
from pathlib import Path

from crdtstore.causal import ReplicaId
from crdtstore.storage import segment
from crdtstore.storage.inspection import Damage
from crdtstore.storage.protocol import Entry
from crdtstore.storage.record import encode_record
from crdtstore.storage.segment import OVERHEAD_BYTES
from crdtstore_node.log_checks import verify
from tests.faults.lengths import short_or_long

TOTAL_BYTES = short_or_long(64 << 20, 1 << 30)
SEGMENT_BYTES = 64 << 20 if TOTAL_BYTES >= 1 << 30 else 8 << 20
MOST_S = 10 * TOTAL_BYTES / (1 << 30)


def make(directory: Path) -> list[tuple[Path, int, int]]:
    """A log of blocks as a busy node writes them, eight commits each; file, offset and size of some."""
    us = ReplicaId("us-1.0123456789abcdef")
    payload = [encode_record([Entry("shop/0", us, bytes([number]) * 200) for number in range(8)])]
    position, generation, places = 0, 0, []
    while position < TOTAL_BYTES:
        generation += 1
        path = segment.path_of(directory, generation)
        with path.open("wb") as file:
            offset = file.write(segment.make_header(generation, position))
            while True:
                block = segment.make_block(generation, position, payload)
                if offset + len(block) > SEGMENT_BYTES:
                    break
                file.write(block)
                if not offset // len(block) % 1000:
                    places.append((path, offset, len(block)))
                offset, position = offset + len(block), position + len(block)
            file.write(bytes(SEGMENT_BYTES - offset))
    return places


def test_one_flipped_byte_is_found_in_time(tmp_path: Path) -> None:
    """Measured in time of the processor, so that a busy machine is not what is measured; both are printed."""
    places = make(tmp_path)
    path, offset, size = places[random.Random(4).randrange(1, len(places) - 1)]
    with path.open("r+b") as file:
        file.seek(offset + OVERHEAD_BYTES + 1000)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    began, began_s = time.process_time(), time.perf_counter()
    report = verify(tmp_path)
    taken, taken_s = time.process_time() - began, time.perf_counter() - began_s
    print(f"{report.bytes / (1 << 20):.0f} MB, {report.blocks} blocks: {taken:.2f} s of the processor, {taken_s:.2f} s")
    assert report.damage == [Damage(path, offset, size, "no valid block")]
    assert report.places == 1
    assert taken < MOST_S

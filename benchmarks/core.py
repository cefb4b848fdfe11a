"""The engine alone, in memory: how many commits one core makes and applies."""

from __future__ import annotations

import gc
import time
from random import Random

from benchmarks.figures import Figure, repeat
from crdtstore.causal import make_replica_id
from crdtstore.configuration import Cluster, Member
from crdtstore.engine import Engine, Options
from crdtstore.engine.events import Draft, LocalCommit, Op, PeerChanged, Persisted, Received
from crdtstore.messages import Frame, Segment, decode_message, encode_message
from crdtstore.types import REGISTRY

__all__ = ["NOW_MS", "figures"]

COMMITS = 200_000
KEYS = 100_000
BATCH = 64
FRAME = 256
NOW_MS = 1_767_225_600_000

_CLUSTER = Cluster(
    "bench", bytes(16), tuple(Member(make_replica_id(f"{r}-1", at + 1), r) for at, r in enumerate(("us", "eu", "ap")))
)


def _engine(member: int) -> Engine:
    replica = _CLUSTER.members[member].replica
    return Engine("bench/0", _CLUSTER.configuration("bench/0"), replica, "bench", Options(), Random(member))


def _batches() -> list[LocalCommit]:
    counter = REGISTRY["counter"]
    add = counter.mutators["add"]
    ops = [Op(counter, "orders:counter", f"key-{at % KEYS}", add, {"amount": 1}) for at in range(COMMITS)]
    drafts = [Draft(at, [op]) for at, op in enumerate(ops)]
    return [LocalCommit(drafts[at : at + BATCH]) for at in range(0, COMMITS, BATCH)]


def _local(batches: list[LocalCommit]) -> tuple[float, Engine]:
    engine = _engine(0)
    gc.collect()
    gc.freeze()
    start = time.process_time()
    for at, batch in enumerate(batches):
        out = engine.step(batch, NOW_MS + at)
        engine.step(Persisted(out.number), NOW_MS + at)
    seconds = time.process_time() - start
    gc.unfreeze()
    assert engine.applied[0] == COMMITS
    return COMMITS / seconds, engine


def _frames(engine: Engine) -> list[bytes]:
    frames = []
    for after in range(0, COMMITS, FRAME):
        commits = engine.history.span(0, after, min(after + FRAME, COMMITS), 1 << 30)
        segment = Segment(0, after, engine.history.chain(0, after))
        frames.append(encode_message(Frame(engine.group, engine.configuration.id, [segment], [], commits)))
    return frames


def _remote(frames: list[bytes], origin: Engine) -> float:
    engine = _engine(1)
    engine.step(PeerChanged(0, True), NOW_MS)
    gc.collect()
    gc.freeze()
    start = time.process_time()
    for data in frames:
        message = decode_message(data)
        assert isinstance(message, Frame)
        out = engine.step(Received(0, message), NOW_MS)
        engine.step(Persisted(out.number), NOW_MS)
    seconds = time.process_time() - start
    gc.unfreeze()
    assert engine.digest == origin.digest
    return COMMITS / seconds


def figures(runs: int) -> list[Figure]:
    """Local adds and remote apply, commits per CPU-second."""
    batches = _batches()
    locals_ = repeat(runs, lambda: _local(batches)[0])
    origin = _local(batches)[1]
    frames = _frames(origin)
    remotes = repeat(runs, lambda: _remote(frames, origin))
    size = sum(map(len, frames)) / COMMITS
    return [
        Figure(f"local adds, batches of {BATCH}, in memory", "1/CPU-s", locals_, 250_000, notes={"keys": KEYS}),
        Figure(
            f"remote apply, frames of {FRAME}",
            "1/CPU-s",
            remotes,
            400_000,
            notes={"wire bytes a commit, compressed, all alike": round(size, 1)},
        ),
    ]

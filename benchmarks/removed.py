"""What a thousand removed ids cost: a node that took a new id at each of 1,000 restarts, against a group in which nobody ever was removed.

Two members live on; each of the others joined, wrote a few commits and was evicted. Measured is what of them is still felt: bytes of a
row and of a commit on the wire, processor time of writes and of what peers wrote, bytes of what a checkpoint keeps of them.
"""

from __future__ import annotations

import gc
import time
from random import Random

from benchmarks.figures import Figure
from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import Cluster, Configuration, Member
from crdtstore.engine import Engine, Options
from crdtstore.engine.events import Draft, Forced, LocalCommit, Op, PeerChanged, Persisted, Received
from crdtstore.engine.membership.changes import Evict, Final, Join, successor
from crdtstore.messages import Ack, Configure, Frame, Segment, encode_message
from crdtstore.types import REGISTRY

__all__ = ["figures"]

_REMOVED = 1_000
_WROTE = 3
_COMMITS = 20_000
_BATCH = 64
_NOW_MS = 1_767_225_600_000
_GROUP = "bench/0"
_FOUNDERS = tuple(Member(make_replica_id(f"{name}-1", at + 1), name) for at, name in enumerate(("us", "eu")))
_CLUSTER = Cluster("bench", bytes(16), _FOUNDERS)


def _engine(configuration: Configuration, me: ReplicaId) -> Engine:
    return Engine(_GROUP, configuration, me, "bench", Options(), Random(1))


def _adopt(engine: Engine, configuration: Configuration) -> None:
    out = engine.step(Forced(configuration), _NOW_MS)
    engine.step(Persisted(out.number), _NOW_MS)


def _wrote(member: Member, configuration: Configuration, count: int) -> list[bytes]:
    """What a new member writes."""
    engine = _engine(configuration, member.replica)
    data = []
    for _ in range(count):
        out = engine.step(_adds(1, 0), _NOW_MS)
        engine.step(Persisted(out.number), _NOW_MS)
        data += [data for _, data in out.persist]
    return data


def _adds(count: int, at: int) -> LocalCommit:
    counter = REGISTRY["counter"]
    add = counter.mutators["add"]
    keys = [f"key-{(at + index) % 1_000}" for index in range(count)]
    return LocalCommit(
        [Draft(index, [Op(counter, "orders:counter", key, add, {"amount": 1})]) for index, key in enumerate(keys)]
    )


def _group(removed: int) -> tuple[Engine, Engine]:
    """Two members of a group of which so many were removed."""
    configuration, random = _CLUSTER.configuration(_GROUP), Random(1)
    us, eu = (_engine(configuration, member.replica) for member in _FOUNDERS)
    for _ in range(removed):
        member = Member(make_replica_id("us-1", random.getrandbits(64)), "us", "127.0.0.1:7400")
        joined = successor(configuration, Join(member), us.replicas[us.me])
        assert joined is not None
        commits = _wrote(member, joined, _WROTE)
        for engine in (us, eu):
            _adopt(engine, joined)
            peer = engine.replicas.index(member.replica)
            engine.step(PeerChanged(peer, True), _NOW_MS)
            segment = Segment(joined.origins.index(member.replica), 0, engine.history.chain(peer, 0))
            out = engine.step(Received(peer, Frame(_GROUP, joined.id, [segment], [], list(commits))), _NOW_MS)
            engine.step(Persisted(out.number), _NOW_MS)
            assert engine.applied[peer] == _WROTE
        gone = successor(joined, Evict((member.replica,), joined.id), us.replicas[us.me])
        assert gone is not None
        settled = successor(gone, Final(member.replica, _WROTE, gone.id), us.replicas[us.me])
        assert settled is not None
        configuration = settled
        for engine in (us, eu):
            _adopt(engine, gone)
            _adopt(engine, settled)
    return us, eu


def _pass(us: Engine, eu: Engine) -> tuple[float, float, list[bytes]]:
    """Local adds and remote applies a CPU-second, and the commits."""
    batches = [_adds(_BATCH, at) for at in range(0, _COMMITS, _BATCH)]
    first = us.applied[us.me]
    gc.collect()
    gc.freeze()
    start = time.process_time()
    commits: list[bytes] = []
    for batch in batches:
        out = us.step(batch, _NOW_MS)
        us.step(Persisted(out.number), _NOW_MS)
        commits += [data for _, data in out.persist]
    local_s = time.process_time() - start
    peer = eu.replicas.index(us.replicas[us.me])
    eu.step(PeerChanged(peer, True), _NOW_MS)
    place = eu.configuration.origins.index(us.replicas[us.me])
    frames = []
    for at in range(0, len(commits), _BATCH):
        segment = Segment(place, first + at, us.history.chain(us.me, first + at))
        frames.append(Frame(_GROUP, eu.configuration.id, [segment], [], commits[at : at + _BATCH]))
    start = time.process_time()
    for frame in frames:
        out = eu.step(Received(peer, frame), _NOW_MS)
        eu.step(Persisted(out.number), _NOW_MS)
    remote_s = time.process_time() - start
    gc.unfreeze()
    assert eu.digest == us.digest
    return len(commits) / local_s, len(commits) / remote_s, commits


def _row_bytes(engine: Engine) -> int:
    """An acknowledgement as it is sent."""
    ack = Ack(_GROUP, engine.configuration.id, engine.own_row(_NOW_MS))
    return len(encode_message(engine.membership.shape.give(ack)))


def figures(runs: int) -> list[Figure]:
    """Ratios: with removed ids, over without."""
    ratios: dict[str, list[float]] = {"row": [], "commit": [], "local": [], "remote": []}
    notes: dict[str, float] = {}
    for _ in range(runs):
        few_us, few_eu = _group(0)
        many_us, many_eu = _group(_REMOVED)
        few, many = _pass(few_us, few_eu), _pass(many_us, many_eu)
        few_row, many_row = _row_bytes(few_us), _row_bytes(many_us)
        ratios["row"].append(many_row / few_row)
        ratios["commit"].append(sum(map(len, many[2])) / sum(map(len, few[2])))
        ratios["local"].append(few[0] / many[0])
        ratios["remote"].append(few[1] / many[1])
        notes = {
            "bytes of a row": many_row,
            "bytes of a commit": round(sum(map(len, many[2])) / len(many[2]), 1),
            "bytes of what a checkpoint keeps of members": len(many_us.membership.keep()),
            "numbers of deps that it keeps": sum(map(len, many_us.causality.deps)),
            "bytes of a configuration": len(encode_message(Configure(_GROUP, many_us.configuration))),
            "local adds without": round(few[0]),
            "with": round(many[0]),
        }
    of = f"after {_REMOVED:,} removed ids, over none"
    return [
        Figure(f"bytes of a row {of}", "x", ratios["row"], 1.1, is_at_least=False, notes=notes),
        Figure(f"bytes of a commit {of}", "x", ratios["commit"], 1.1, is_at_least=False),
        Figure(f"processor time of a local add {of}", "x", ratios["local"], 1.5, is_at_least=False),
        Figure(f"processor time of a remote commit {of}", "x", ratios["remote"], 1.5, is_at_least=False),
    ]

"""Bugs in the protocol: what replicas say of themselves, when commits are applied, who is sent what."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.durability import Durability
from crdtstore.engine.engine import Engine
from crdtstore.engine.history import History
from crdtstore.engine.operations import Operations
from crdtstore.engine.progress import Progress
from crdtstore.host import Host
from crdtstore.kernel import Tree
from crdtstore.leaves import SEQ_MASK
from crdtstore.promises import Promises
from crdtstore.sessions import Sessions
from crdtstore.storage.protocol import Entry
from crdtstore.types import Live, View
from crdtstore_sim.plants.base import Plant
from crdtstore_sim.scenario import load

__all__ = ["IN_ENGINE"]


# --- what replicas say of themselves


def _heard_digest(own_row: Any) -> Any:
    """A row names what was heard, buffered commits too, with their true chain hashes."""

    def heard(self: Engine, now_ms: int) -> Any:
        row = own_row(self, now_ms)
        vector, chains = list(row.vector), list(row.chains)
        for origin, seq in enumerate(self.applied):
            chain = self.history.chain(origin, seq)
            while (waiting := self.early.next(origin, seq)) is not None:
                seq += 1  # noqa: PLW2901
                chain = sha256(chain + waiting[1]).digest()
            vector[origin], chains[origin] = seq, chain
        return type(row)(row.configuration, vector, row.hlc, chains)

    return heard


def _acknowledge_before_durable(on_local_commit: Any) -> Any:
    """Replies go out when a commit is applied."""

    def early(self: Engine, drafts: Any, now_ms: int, out: Any) -> None:
        on_local_commit(self, drafts, now_ms, out)
        if out.number:
            batch = self.durability._batches[-1]
            out.replies += batch.replies
            batch.replies.clear()

    return early


def _send_before_durable(hold: Any) -> Any:
    """Rows and frames speak of what is applied."""

    def early(self: Durability, applied: list[int], *rest: Any) -> Any:
        self.vector = list(applied)
        return hold(self, applied, *rest)

    return early


def _amnesia(recover: Any) -> Any:
    """The last commits of the log are not read at the start, and their numbers are used again."""

    def forgetful(self: Host, records: Iterable[tuple[int, list[Entry]]]) -> int:
        known = list(records)
        holding = [at for at, (_, entries) in enumerate(known) if any(entry.group for entry in entries)]
        del known[holding[-1] if holding else 0 :]
        return int(recover(self, known))

    return forgetful


# --- when a commit may be applied


def _any_order(is_ready: Any) -> Any:
    return lambda self, resolved: True


def _one_too_early(is_ready: Any) -> Any:
    """A commit is applied just before one of another origin that it depends on."""
    return lambda self, resolved: all(self.applied[replica] + 1 >= seq for replica, seq in resolved)


# --- what is left to read


def _by_arrival(live: Any) -> Any:
    """Concurrent writes in the order in which they came."""

    def unsorted(self: View, kind: int = 1) -> list[Live]:
        leaf = self._leaf(kind)
        dots = getattr(leaf, "dots", None)
        if not dots:
            return live(self, kind)  # type: ignore[no-any-return]
        return [self._live(dot, hlc, value) for dot, (hlc, value) in dots.items()]

    return unsorted


def _remove_everything(drop: Any) -> Any:
    return lambda self, path, cut: drop(self, path, [SEQ_MASK] * len(cut))


def _forgotten(record: Any) -> Any:
    """An operation that comes again from elsewhere counts again."""

    def forget(self: Operations, *rest: Any) -> None:
        record(self, *rest)

    return forget


# --- who is sent what


def _grouped(lacking: Any) -> Any:
    """What is relayed comes grouped by origin."""

    def grouped(
        self: History, vector: Sequence[int], upto: Sequence[int], origins: Any, max_bytes: int
    ) -> list[tuple[int, bytes]]:
        found: list[tuple[int, bytes]] = []
        for origin in sorted(origins):
            for seq in range(vector[origin] + 1, upto[origin] + 1):
                data = self.commit(origin, seq)
                max_bytes -= len(data)
                if found and max_bytes < 0:
                    return found
                found.append((origin, data))
        return found

    return grouped


def _silence_is_health(is_overdue: Any) -> Any:
    """Nobody is asked why it does not acknowledge."""
    return lambda self, *rest: False


def _never_waits(waits_for: Any) -> Any:
    """A read shows what is not durable yet."""
    return lambda self, *rest: 0


def _no_limit(heartbeat_limit: Any) -> Any:
    """A heartbeat promises more than the disk holds."""
    return lambda self: None


def _no_mark(limit: Any) -> Any:
    """A heartbeat promises what a restart forgets."""
    return lambda self, stamp, now_ms: stamp


def _token_ignored(has_seen: Any) -> Any:
    return lambda self, seen: True


def _no_relay(relay: Any) -> Any:
    return lambda self, *rest: None


IN_ENGINE: dict[str, Plant] = {
    "heard-digest": Plant(
        Engine, "own_row", _heard_digest, "a row names what was heard, not what is applied and durable"
    ),
    "causal-check-off": Plant(Engine, "is_ready", _any_order, "every commit counts as ready"),
    "wrong-causal-order": Plant(Engine, "is_ready", _one_too_early, "a commit may go before the one it depends on"),
    "ack-before-durable": Plant(
        Engine, "_on_local_commit", _acknowledge_before_durable, "replies do not wait for the disk"
    ),
    "send-before-durable": Plant(Durability, "hold", _send_before_durable, "rows and frames do not wait for the disk"),
    "tie-by-arrival": Plant(View, "live", _by_arrival, "concurrent writes are read in the order of their arrival"),
    "drop-without-cut": Plant(Tree, "_drop", _remove_everything, "a drop removes what it has not seen too"),
    "grouped-per-origin": Plant(
        History,
        "lacking",
        _grouped,
        "what is relayed comes grouped by origin",
        lambda seed: load("narrow-relay"),
    ),
    "dot-reuse-after-amnesia": Plant(Host, "recover", _amnesia, "a start forgets the last commit of its log"),
    "forgotten-operations": Plant(Operations, "record", _forgotten, "a repeated operation counts twice"),
    "silence-is-health": Plant(Progress, "is_overdue", _silence_is_health, "who never acknowledges is left alone"),
    "read-before-durable": Plant(Durability, "waits_for", _never_waits, "reads do not wait for the disk"),
    "heartbeat-too-far": Plant(Durability, "heartbeat_limit", _no_limit, "a heartbeat promises more than is durable"),
    "promise-without-mark": Plant(Promises, "limit", _no_mark, "what heartbeats promise is forgotten by a restart"),
    "token-ignored": Plant(Sessions, "has_seen", _token_ignored, "a session is served whatever it has seen"),
    "no-relay": Plant(AntiEntropy, "_relay", _no_relay, "nobody carries what others made"),
}

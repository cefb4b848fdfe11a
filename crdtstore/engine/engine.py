"""The engine: one group at one replica, sans I/O, the only thing that changes its state.

The question: in which order may things happen? A commit is applied, then written, and only when it is durable does anybody hear of it.
Whatever arrives is checked for its configuration first; what cannot be applied yet waits in a bounded buffer; what a peer says that
cannot be true is refused and changes nothing. A peer can never make ``step`` raise.

This file dispatches; the rules stand in the files beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.clock import COUNTER_BITS, Clock, physical_ms
from crdtstore.commit import (
    FORMAT,
    MAX_COMMIT_BYTES,
    REASON,
    Commit,
    chain_start,
    encode_commit,
    with_operation,
)
from crdtstore.configuration import Configuration
from crdtstore.effects import normal_form
from crdtstore.engine import growth
from crdtstore.engine.antientropy import AntiEntropy
from crdtstore.engine.arrivals import Arrivals
from crdtstore.engine.causality import NONE, Causality, Resolved
from crdtstore.engine.checkpoint import Checkpoint
from crdtstore.engine.durability import Durability
from crdtstore.engine.early import Early
from crdtstore.engine.events import (
    Draft,
    Event,
    LocalCommit,
    Op,
    PeerChanged,
    Persisted,
    Received,
    Tick,
)
from crdtstore.engine.history import History
from crdtstore.engine.history_index import Read
from crdtstore.engine.keyspace import Keyspace
from crdtstore.engine.measures import Measures
from crdtstore.engine.membership.membership import Membership
from crdtstore.engine.options import Options
from crdtstore.engine.output import Committed, Output, Refused, in_doubt
from crdtstore.engine.replay import Replay
from crdtstore.engine.rights import Rights
from crdtstore.engine.rows import Rows
from crdtstore.engine.stability import Stability
from crdtstore.engine.trust import Trust
from crdtstore.engine.upkeep import Upkeep
from crdtstore.errors import (
    CrdtStoreError,
    InsufficientRights,
    StorageError,
    Unavailable,
    UsageError,
)
from crdtstore.leaves import SEQ_BITS, SEQ_MASK
from crdtstore.messages import Row
from crdtstore.promises import Promises

__all__ = ["REMOVED", "SYSTEM_AUTHOR", "Engine"]

REMOVED = "this node was removed from the cluster. Nothing changed."
SYSTEM_AUTHOR = "crdtstore"
"""Who commits what the store does by itself: removing what has expired, moving rights."""


class Engine:
    """One group at one replica. Mutable; changed by ``step`` only.

    ``applied`` is the vector of what is applied, ``durability.vector`` of what may be spoken of; both in the order of ``replicas``.
    """

    # Of more than 30 attributes an instance without slots is slower by a tenth.
    # fmt: off
    __slots__ = (
        "_is_held", "_own_chains", "_own_vector", "antientropy", "applied", "arrivals", "causality", "checkpoint", "clock", "cluster",
        "configuration", "connected", "durability", "early", "failure", "fenced_by", "group", "history", "keyspace", "me", "measures",
        "membership", "on_fenced", "options", "others", "position", "promises", "read_log", "replay", "replicas", "rights", "rows",
        "stability", "trust", "upkeep", "wake_ms",
    )
    # fmt: on

    def __init__(
        self,
        group: str,
        configuration: Configuration,
        me: ReplicaId,
        cluster: str,
        options: Options,
        random: Random,
        promises: Promises | None = None,
        read_log: Read | None = None,
        *,
        is_installed: bool = True,
    ) -> None:
        """``read_log`` gives the entries of a durable block of the log (``CommitLog.read``); without it all history stays in memory.

        ``is_installed``: whether this replica holds the state of the group, as founders do.
        """
        self.group = group
        self.configuration = configuration
        self.cluster = cluster
        self.replicas = list(dict.fromkeys((*configuration.ids, me)))
        """Every replica that was ever known here, by index; it grows, and is shared by all that stands beside this file."""
        self.me = self.replicas.index(me)
        self.others = [at for at in range(len(self.replicas)) if at != self.me]
        """The other members of the configuration, in its order."""
        self.position = self.me
        """Which of the members this replica is, in the same order."""
        self.options = options
        count = len(self.replicas)
        self.applied = [0] * count
        self.promises = promises or Promises.unbounded()
        self.clock = Clock(options.max_drift_ms, self.promises.begin)
        self.causality = Causality(self.replicas)
        self.durability = Durability(count)
        self.early = Early(count, options.early_bytes)
        self.read_log = read_log
        starts = [chain_start(cluster, group, member) for member in self.replicas]
        self.history = History(starts, None, group, self.replicas, read_log, options.history_bytes)
        self.keyspace = Keyspace(self.replicas)
        self.measures = Measures(count)
        self.rows = Rows(count, self.me)
        self.antientropy = AntiEntropy(self, random)
        self.trust = Trust(self)
        self.stability = Stability(count, self.me)
        self.upkeep = Upkeep(self)
        self.arrivals = Arrivals(self)
        self.rights = Rights(self)
        self._own_vector: list[int] = []
        self._own_chains: list[bytes] = []
        """The durable vector as it was last told, and its chains; never changed in place, rows of ours hold them."""
        self.checkpoint: Checkpoint | None = None
        """What of this group is in the state store; None: there is none."""
        self.failure: StorageError | None = None
        """The last time that something could not be read from disk."""
        self.replay = Replay(self)
        self.fenced_by: str | None = None
        """Set when a peer remembers of us what we do not: somebody else wrote under our id, or we forgot. No write is taken any more."""
        self.on_fenced: Callable[[str], None] = lambda why: None
        self._is_held = False
        self.wake_ms = 0
        """When a tick may have something to do: never later than it has."""
        self.connected: set[int] = set()
        """The replicas that can be spoken to."""
        self.membership = Membership(self, random, is_installed=is_installed)

    def admit(self, replica: ReplicaId) -> int:
        """The index of a replica, which is entered in the table if it is not there; it counts once it is among ``others``."""
        return growth.admit(self, replica)

    # --- events

    def step(self, event: Event, now_ms: int) -> Output:
        """Let one event happen; return what is to be done, in order."""
        out = Output()
        try:
            self._let_happen(event, now_ms, out)
            while drafts := self.rights.again():
                self._on_local_commit(drafts, now_ms, out)
        except StorageError as error:  # something on disk cannot be read: what needs it waits, or is asked for again
            self.note_unreadable(error)
        if not self.keyspace.tree.is_settled:
            self.upkeep.wake_ms = now_ms
        if self.fenced_by is not None:  # whatever it says would count as said by whoever has its id rightly
            out.send.clear()
            out.tell.clear()
        elif out.send:
            if self.membership.is_silent:
                out.send.clear()
            else:
                out.send = self.membership.shape.give_all(out.send)
        wake_ms = self.membership.wake_ms
        if self.takes_part:
            wake_ms = min(wake_ms, self.antientropy.wake_ms, self.upkeep.wake_ms, self.rights.wake_ms)
        self.wake_ms = wake_ms
        return out

    def _let_happen(self, event: Event, now_ms: int, out: Output) -> None:
        if isinstance(event, Received):
            self.arrivals.take(event.peer, event.message, now_ms, out)
        elif isinstance(event, LocalCommit):
            self._on_local_commit(event.drafts, now_ms, out)
        elif isinstance(event, Persisted):
            self._on_persisted(event, now_ms, out)
        elif isinstance(event, Tick):
            self.membership.on_tick(now_ms, out)
            for part in (self.antientropy, self.upkeep, self.rights) if self.takes_part else ():
                try:
                    part.on_tick(now_ms, out)
                except StorageError as error:  # what cannot be read here does not stop the others
                    self.note_unreadable(error)
        elif isinstance(event, PeerChanged):
            self._on_peer_changed(event, now_ms, out)
        else:
            self.membership.on_event(event, now_ms, out)

    def _on_peer_changed(self, event: PeerChanged, now_ms: int, out: Output) -> None:
        if event.is_connected:
            self.connected.add(event.peer)
            self.membership.wake_ms = 0
        else:
            self.connected.discard(event.peer)
        if self.takes_part:
            self.antientropy.on_peer_changed(event.peer, event.is_connected, now_ms, out)

    @property
    def takes_part(self) -> bool:
        """Whether this replica is one of those who hold the group, and may say so."""
        membership = self.membership
        return membership.is_member and membership.is_installed and not membership.is_silent and self.fenced_by is None

    @property
    def is_installed(self) -> bool:
        """Whether the state of the group is here."""
        return self.membership.is_installed

    @property
    def is_fenced(self) -> bool:
        return self.fenced_by is not None

    def fence(self, why: str) -> None:
        """Take no write any more under this id, and decide nothing."""
        if self.fenced_by is None:
            self.fenced_by = why
            self.membership.decision.stop()
            self.on_fenced(why)

    def note_unreadable(self, error: StorageError) -> None:
        """Something on disk could not be read."""
        self.failure = error
        self.measures.unreadable += 1

    @property
    def may_issue(self) -> bool:
        """Whether this replica may make commits by itself."""
        return self.fenced_by is None and not self._is_held and self.membership.may_issue

    @property
    def is_held(self) -> bool:
        return self._is_held

    def hold(self, is_held: bool) -> None:
        """While nothing can be written, what the store does by itself waits; whoever asks or sends is refused before he comes here."""
        self._is_held = is_held
        self.rights.wake_ms = self.wake_ms = 0

    # --- local writes

    def _on_local_commit(self, drafts: list[Draft], now_ms: int, out: Output) -> None:
        first = len(out.changed)
        replies: list[Committed | Refused] = []
        judged: list[tuple[Committed | Refused, list[Op]]] = []
        """Answers that write nothing but show what is here: an etag, an operation that is known."""
        may_issue = self.fenced_by is None and self.membership.may_issue
        for draft in drafts:
            try:
                if draft.operation is not None and (known := self._find_operation(draft, now_ms)) is not None:
                    judged.append((known, draft.ops))
                elif may_issue:
                    replies.append(self._make_commit(draft, now_ms, out))
                else:
                    raise self._why_no_writes()
            except CrdtStoreError as error:
                if isinstance(error, InsufficientRights) and self.rights.park(draft, error, now_ms, out):
                    continue
                judged.append((Refused(draft.ticket, error), draft.ops))
        if out.persist:
            self._close_batch(first, replies, now_ms, out)
        out.replies += [reply for reply, ops in judged if not self.durability.hold_reply(reply, ops)]

    def _close_batch(self, first: int, replies: list[Committed | Refused], now_ms: int, out: Output) -> None:
        """The own commits from ``first`` on of those that were made in this step become a batch."""
        made = out.changed[first:]
        if made:
            self.history.extend(self.me, [data for _, data in out.persist[-len(made) :]])
            self.measures.note_issued(now_ms, len(made))
        out.number = self.durability.hold(self.applied, made[0][1].hlc if made else 0, replies, out.changed)

    def _find_operation(self, draft: Draft, now_ms: int) -> Committed | None:
        """The answer to a request that was heard before, None when it is new.

        Raises:  what ``Operations.heard`` raises; nothing changed.
        """
        assert draft.operation is not None
        clock_ms = physical_ms(self.clock.last)
        heard = self.keyspace.operations.heard(draft.operation, draft.expires_ms, now_ms, clock_ms)
        if heard is None:
            return None
        values = self.keyspace.shown(draft.ops, heard.dot, draft.operation[0], now_ms)
        return Committed(draft.ticket, heard.dot >> SEQ_BITS, heard.dot & SEQ_MASK, values, is_replayed=True)

    def _why_no_writes(self) -> Unavailable:
        membership = self.membership
        if not membership.is_installed:
            return Unavailable("this region is being set up here. Nothing changed.", code="not-ready", retry_after=1.0)
        if membership.is_leaving:
            return Unavailable("this node leaves the cluster. Nothing changed.", code="leaving")
        if not membership.is_member:
            return Unavailable(REMOVED, code="fenced")
        return Unavailable(
            "a peer holds writes under this node's id that this node does not have. Nothing changed.", code="fenced"
        )

    def _make_commit(self, draft: Draft, now_ms: int, out: Output) -> Committed:
        attributes, operation = draft.attributes, None
        if draft.operation is not None:
            operation = draft.operation[0]
            attributes = with_operation(attributes, draft.operation, draft.expires_ms)
        clock, me, keyspace = self.clock, self.me, self.keyspace
        last = clock.last
        hlc = clock.tick(now_ms)
        seq = self.applied[me] + 1
        dot = me << SEQ_BITS | seq
        try:
            effects, values = keyspace.judge(draft.ops, dot, hlc, self.applied, operation)
            self._write(seq, hlc, draft.author, attributes, effects, out)
        except CrdtStoreError:
            clock.last = last
            raise
        if values is None:
            values = keyspace.shown(draft.ops, dot, operation, now_ms, is_brought=True)
        return Committed(draft.ticket, me, seq, values)

    def issue(self, effects: list[Any], reason: str, now_ms: int, out: Output) -> None:
        """Make a commit of the store's own, which is an ordinary one to everybody else."""
        first, hlc = len(out.changed), self.clock.tick(now_ms)
        self._write(self.applied[self.me] + 1, hlc, SYSTEM_AUTHOR, [REASON, reason], normal_form(effects), out)
        self._close_batch(first, [], now_ms, out)

    def _write(self, seq: int, hlc: int, author: str, attributes: list[Any], effects: list[Any], out: Output) -> None:
        """Apply the next commit of this replica and have it written; ``_close_batch`` is to follow.

        Raises:  UsageError ``too-large``, StorageError; nothing changed.
        """
        me = self.me
        self.keyspace.tree.bring_all(effects)
        deps, resolved = self.causality.increase(me, self.applied)
        origin = self.replicas[me] if seq == 1 else 0
        commit = Commit(FORMAT, origin, seq, hlc, deps, author, tuple(attributes), effects)
        data = encode_commit(commit)
        if len(data) > MAX_COMMIT_BYTES:
            raise UsageError(
                f"a commit has at most {MAX_COMMIT_BYTES} bytes, got {len(data)}. Nothing changed.", code="too-large"
            )
        self.change(me, commit, resolved)
        out.persist.append((me, data))
        out.changed.append((me, commit))

    # --- what peers say

    def is_ready(self, resolved: Resolved) -> bool:
        """Whether everything a commit's issuer had seen is applied here."""
        applied = self.applied
        return all(applied[replica] >= seq for replica, seq in resolved)

    def apply(self, origin: int, commits: Sequence[Commit], datas: Sequence[bytes]) -> int:
        """Apply the next commits of an origin, up to the first whose issuer had seen what is not applied here; return how many.

        Raises:  ProtocolError for deps that cannot be, StorageError when a key cannot be read; those before it are applied.
        """
        causality, bring_all, change = self.causality, self.keyspace.tree.bring_all, self.change
        before = self.applied[origin]
        try:
            for commit in commits:
                resolved = causality.resolve(origin, commit.deps) if commit.deps else NONE
                if resolved and not self.is_ready(resolved):
                    break
                bring_all(commit.effects)
                change(origin, commit, resolved)
        finally:
            count = self.applied[origin] - before
            self.history.extend(origin, datas[:count])
        return count

    def change(self, origin: int, commit: Commit, resolved: Resolved) -> None:
        """The one place where state changes: vector, keys and clock knowledge move together; the history follows by batches, before
        anybody else is heard.
        """
        seq = commit.seq
        cut = self.causality.advance(origin, seq, resolved)
        reaches_further = self.keyspace.apply(origin << SEQ_BITS | seq, commit, cut)
        self.applied[origin] = seq
        if reaches_further:  # rights stand below their key
            self.rights.note(origin, commit)

    # --- durability

    def _on_persisted(self, event: Persisted, now_ms: int, out: Output) -> None:
        replies = self.durability.release(event.number)
        is_counted = self.fenced_by is None and not self.membership.is_removed
        out.replies += replies if is_counted else map(in_doubt, replies)
        if event.position >= 0:
            self.history.place(self.durability.vector, event.position)
        self.membership.on_persisted(event.number, now_ms, out)
        if self.takes_part:
            self.antientropy.on_durable(now_ms, out)

    def own_row(self, now_ms: int) -> Row:
        """What this replica says of itself: durable things only, and a heartbeat below every commit that is not in it."""
        vector = self.durability.vector
        limit = self.durability.heartbeat_limit()
        self.clock.read(now_ms)  # what comes is stamped later
        hlc = now_ms << COUNTER_BITS  # not the last stamp: others may have pushed it, and a restart forgets that
        if limit is not None:
            hlc = min(hlc, limit - 1)
        hlc = self.promises.limit(hlc, now_ms)
        if vector != self._own_vector:
            self._own_vector = list(vector)
            self._own_chains = [self.history.chain(origin, seq) for origin, seq in enumerate(vector)]
        membership = self.membership
        votes, has_left = membership.decision.votes_told, membership.has_left
        return Row(membership.shape.id, self._own_vector, hlc, self._own_chains, votes, has_left)

    # --- views

    @property
    def digest(self) -> int:
        """The state digest: of what is applied."""
        return self.keyspace.tree.digest

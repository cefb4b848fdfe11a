"""All groups of one node: messages to the right engine, outputs of all engines joined into one.

The question: what does a driver have to know? Nothing of groups. It hands in what happened and gets back what to write, send and answer;
a batch of all groups becomes one record of the log, so that one sync makes all of it durable.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable
from random import Random

from crdtstore.causal import ReplicaId
from crdtstore.commit import Commit
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Configuration, Member, group_of
from crdtstore.declarations import Declarations
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import (
    Approached,
    Draft,
    Forced,
    Installed,
    Left,
    LocalCommit,
    Ordered,
    PeerChanged,
    Persisted,
    Received,
    Tick,
)
from crdtstore.engine.events import Event as EngineEvent
from crdtstore.engine.history_index import Read
from crdtstore.engine.membership.changes import Change
from crdtstore.engine.options import Options
from crdtstore.engine.output import Committed, Refused
from crdtstore.errors import CrdtStoreError, DecodeError, ProtocolError
from crdtstore.greeting import Greeting
from crdtstore.host_output import HostOutput, Rejected
from crdtstore.install.installs import Installs
from crdtstore.messages import (
    Ack,
    Ask,
    Digest,
    Fetch,
    Frame,
    Hello,
    Message,
    Part,
    Want,
    decode_message,
    encode_message,
)
from crdtstore.promises import Promises
from crdtstore.recovering import Recovering
from crdtstore.roster import Roster
from crdtstore.saving import Saved, Saving
from crdtstore.storage.protocol import NO_ORIGIN, Entry, StateStore
from crdtstore.workers import Workers

__all__ = ["Host", "HostOutput", "Rejected"]

_OF_INSTALLS = (Fetch, Part)


class Host:
    """The groups of one node. Mutable; changed through ``Service.step``.

    ``random`` is the driver's: seeded in the simulator, so that a run repeats.
    """

    def __init__(
        self,
        cluster: Cluster,
        me: ReplicaId | Member,
        options: Options,
        random: Random,
        store: StateStore | None = None,
        read_log: Read | None = None,
        reader: Member | None = None,
    ) -> None:
        """Take what the checkpoint in ``store`` holds; the log is to be replayed from ``needed``. ``read_log`` is ``CommitLog.read``.

        ``me`` is a founder's id, or whoever else has joined or wants to.

        With ``reader`` this holds what ``me`` held, under an id that no group knows: it serves reads, and nothing is ever issued.

        Raises:  StorageError when it cannot be read, ProtocolError when it is of another node or other members; nothing changed.
        """
        member = me if isinstance(me, Member) else cluster.member(me)
        if member is None:
            raise ProtocolError(f"{me} is not a member of the cluster {cluster.name}")
        self.cluster, self.workers = cluster, Workers(cluster, reader or member)
        self.replica = member.replica
        """Whose state this is."""
        self.me: Member = reader or member
        self.reads_only = reader is not None
        self.fenced_by: str | None = "it only reads" if self.reads_only else None
        """Why no write is taken under this id, in any group; None: they are."""
        self.unproven: str | None = None
        """Why it is not known yet whether this node may go on under its id; set by who starts it, and taken back. Reads are marked
        meanwhile, and no write is taken."""
        self.options = options
        self.rejected_count = 0
        self.refused = {"install": 0, "malformed": 0, "members": 0, "untrue": 0}
        """What peers said that was refused, by what it was about."""
        self._random = random
        self._greeting = Greeting(self, random)
        self._connected: dict[ReplicaId, bool] = {}
        self._inflight: deque[tuple[int, list[tuple[Engine, int]]]] = deque()
        self._read_log = read_log
        self._number = 0
        self.durable_number = 0
        """The last record of the log that is durable."""
        self._numbers: dict[str, tuple[Engine, int]] = {}
        """Per group with something to write in this step: its engine and the number there."""
        self.bytes_sent = self.bytes_received = 0
        self.on_decided: Callable[[list[tuple[int, CrdtStoreError | None]]], None] = lambda decided: None
        """Takes what became of orders of changes."""
        self.on_replies: Callable[[list[Committed | Refused]], None] = lambda replies: None
        """Takes the answers to drafts as they come out (the service)."""
        self.promises = Promises()
        self.groups: dict[str, Engine] = {}
        self.saving = Saving(self, store) if store is not None else None
        saved = self.saving.load_node() if self.saving is not None else None
        if saved is not None and (saved.cluster, saved.replica) != (cluster.nonce, str(self.replica)):
            raise ProtocolError(f"the checkpoint is of {saved.replica}, not of {self.replica}, or of another cluster")
        self.installs = None
        if self.saving is not None and store is not None:
            self.installs = Installs(self, self.saving, store, random)
        self.roster = Roster(self, random)
        self._system = self.open(SYSTEM_GROUP)
        self.declarations = Declarations(self._system)
        if saved is not None:
            self.promises.mark_ms = saved.mark_ms
            self._open_saved(saved.groups)
            for group, kept in saved.uninstalled.items():
                if group not in saved.groups:
                    self.roster.restore(group, kept)

    @property
    def needed(self) -> int:
        """From which position the log is to be replayed."""
        return 0 if self.saving is None else self.saving.needed

    @property
    def last_number(self) -> int:
        """The last record that was handed out to be written."""
        return self._number

    # --- groups

    def open(self, group: str, configuration: Configuration | None = None, shards: int = 1) -> Engine:
        """Open a group, one of so many of its domain, in a configuration (None: that of the founders), or as the checkpoint holds it.

        Who is one of its founders holds all there is at its beginning. Who comes to know of it later takes it over from others, even if it
        was one: nobody has counted on it yet.
        """
        if configuration is None:
            configuration = self.cluster.configuration(group)
        is_founder = configuration.number == 0 and configuration.member(self.replica) is not None
        engine = Engine(
            group,
            configuration,
            self.replica,
            self.cluster.name,
            self.options.share(shards),
            self._random,
            self.promises,
            self._read_log,
            is_installed=is_founder,
        )
        engine.on_fenced = self.fence
        if self.fenced_by is not None:
            engine.fence(self.fenced_by)
        if self.saving is not None and (is_founder or self.saving.numbering.find(group) is not None):
            engine.checkpoint = self.saving.open(engine)
            engine.checkpoint.load()
        self.groups[group] = engine
        self.roster.note(engine.configuration)
        return engine

    def _open_saved(self, groups: Collection[str]) -> None:
        domains = Counter(group.partition("/")[0] for group in groups)
        for group in groups:
            if group not in self.groups:
                self.open(group, shards=domains[group.partition("/")[0]])

    @property
    def connected(self) -> list[ReplicaId]:
        """Who can be spoken to."""
        return [peer for peer, is_connected in self._connected.items() if is_connected]

    def is_connected(self, replica: ReplicaId) -> bool:
        """Whether a replica can be spoken to."""
        return self._connected.get(replica, False)

    def installed(self, engine: Engine, now_ms: int, out: HostOutput) -> None:
        """The state of a group was taken over."""
        self._step_all([engine], Installed(), now_ms, out)
        self._meet_again(engine, now_ms, out)
        if engine is self._system:
            self.declarations.forget_cache()
            self.open_declared(self.declarations.domains(), now_ms, out)

    def step(self, group: str, event: EngineEvent, now_ms: int, out: HostOutput) -> None:
        """Let something happen to one group."""
        self._step_all([self.groups[group]], event, now_ms, out)

    def engine_of(self, domain: str, shard: int = 0) -> Engine | None:
        return self.groups.get(group_of(domain, shard))

    def holds(self, group: str) -> bool:
        """Whether this node is to hold a group of a domain that is declared; ``_sys`` it always holds."""
        return self.workers.holds(group)

    # --- start

    def recover(self, records: Iterable[tuple[int, list[Entry]]]) -> int:
        """Take in what the log holds, each record with its position, before the first event; return how many
        commits the checkpoint did not hold.

        Raises:  ProtocolError or DecodeError when the log belongs to other groups or members, StorageError when it does not hold what
                 the checkpoint stands on, or something cannot be read.
        """
        return Recovering(self).take_all(records)

    # --- connections

    def hello(self, peer: ReplicaId | None, now_ms: int) -> bytes:
        """The first words to a peer (None: not known yet who it is)."""
        return self._greeting.words(peer)

    def check_hello(self, data: bytes) -> Member:
        """Who the peer is, from its first words; it need not be a member. What it remembers of us may fence this node.

        Raises:  ProtocolError or DecodeError with the reason: another cluster, version, ourselves, another past; nothing changed.
        """
        return self._greeting.check(data)

    # --- events

    def tick(self, now_ms: int, out: HostOutput) -> None:
        """Time has passed: for the groups that have something to do, or a node of many groups would be busy doing nothing."""
        if self.saving is not None:
            self.saving.on_tick(now_ms)
        due = [engine for engine in self.groups.values() if engine.wake_ms <= now_ms]
        self._step_all(due, Tick(), now_ms, out)
        self.roster.on_tick(now_ms, out)
        if self.installs is not None and self.installs.wake_ms <= now_ms:
            self.installs.on_tick(now_ms, out)

    def receive(self, peer: ReplicaId, data: bytes, now_ms: int, out: HostOutput) -> None:
        """A peer said something; whatever it is, it never raises."""
        self.bytes_received += len(data)
        try:
            message = decode_message(data)
            if isinstance(message, Hello):
                raise ProtocolError("a second hello on a connection")
        except (ProtocolError, DecodeError) as error:
            self._reject(peer, error.detail, out, "malformed")
            return
        if isinstance(message, Ask) or (engine := self.groups.get(message.group)) is None:
            try:
                self.roster.hear(peer, message, now_ms, out)
            except ProtocolError as error:
                self._reject(peer, error.detail, out, "members")
            return
        if peer in engine.replicas:
            self._step_all([engine], Received(engine.replicas.index(peer), message), now_ms, out)
        else:
            self._step_all([engine], Approached(peer, message), now_ms, out)
        if self.installs is not None and isinstance(message, _OF_INSTALLS):
            try:
                self.installs.receive(engine, peer, message, now_ms, out)
            except ProtocolError as error:
                self._reject(peer, error.detail, out, "install")

    def persisted(self, event: Persisted, now_ms: int, out: HostOutput) -> None:
        """All that was to be written up to a number is durable."""
        number = self.durable_number = event.number
        self.promises.persisted(number)
        while self._inflight and self._inflight[0][0] <= number:
            for engine, own_number in self._inflight.popleft()[1]:
                self._step_all([engine], Persisted(own_number, event.position), now_ms, out)
        if self.saving is not None:
            self.saving.retention.logged(event.position)
            self.saving.on_persisted(out)
        if self.installs is not None:
            self.installs.on_persisted(number, event.position, now_ms, out)

    def saved(self, event: Saved, now_ms: int, out: HostOutput) -> None:
        """The state store has done what it was asked for."""
        if self.saving is not None:
            self.saving.on_saved(event, now_ms, out)

    def peer_changed(self, peer: ReplicaId, is_connected: bool, now_ms: int, out: HostOutput) -> None:
        """A connection came or went."""
        if is_connected:
            self._connected[peer] = True
        else:  # of strangers there may be any number
            self._connected.pop(peer, None)
        for engine in list(self.groups.values()):
            if peer in engine.replicas:
                self._step_all([engine], PeerChanged(engine.replicas.index(peer), is_connected), now_ms, out)
        self.roster.look_again()

    def order(self, group: str, change: Change, ticket: int, now_ms: int, out: HostOutput) -> None:
        """Want a change of the members of a group; what becomes of it comes out by ``on_decided``."""
        self._step_all([self.groups[group]], Ordered(change, ticket), now_ms, out)

    def force(self, group: str, configuration: Configuration, now_ms: int, out: HostOutput) -> None:
        """Put a configuration in force that an operator decided without a vote.

        Raises:  ProtocolError when our line cannot lead there; nothing changed.
        """
        engine = self.groups[group]
        if not engine.configuration.precedes(configuration):
            raise ProtocolError(f"{group}: the configuration {configuration.id} is of another line")
        self._step_all([engine], Forced(configuration), now_ms, out)

    def leave(self, now_ms: int, out: HostOutput) -> None:
        """Make no commit any more; once all have ours, others evict this node: from ``_sys`` last, for the other groups follow it."""
        others = [engine for engine in self.groups.values() if engine is not self.groups[SYSTEM_GROUP]]
        self._step_all(others or [self.groups[SYSTEM_GROUP]], Left(), now_ms, out)
        self.roster.look_again()

    def nonce(self) -> bytes:
        """16 random bytes."""
        return self._random.randbytes(16)

    @property
    def is_leaving(self) -> bool:
        """Whether this node was told to leave."""
        return any(engine.membership.is_leaving for engine in self.groups.values())

    def fence(self, why: str) -> None:
        """Somebody remembers of us what we do not: no group takes a write any more."""
        if self.fenced_by is None:
            self.fenced_by = why
        for engine in self.groups.values():
            engine.fence(why)

    def close(self) -> Entry | None:
        """Nothing is promised any more; what is still to be written, None when nothing is."""
        return self.promises.close()

    def commit(self, group: str, drafts: list[Draft], now_ms: int, out: HostOutput) -> None:
        """Users of this node write; the answers come out by ``on_replies``."""
        self._step_all([self.groups[group]], LocalCommit(drafts), now_ms, out)

    def finish(self, now_ms: int, out: HostOutput) -> None:
        """Close a step: number what is to be written, say when time matters next."""
        note = self.promises.note(self._number + 1, has_record=bool(self._numbers))
        if note is not None:
            out.persist.append(note)
        if out.persist or self._numbers:
            self._number += 1
            out.persist_number = self._number
            self._inflight.append((self._number, list(self._numbers.values())))
            self._numbers = {}
        times = [engine.wake_ms for engine in self.groups.values()]
        times.append(self.roster.wake_ms)
        if self.saving is not None:
            self.saving.noted(out.persist)
            self.saving.on_step(now_ms, out)
            times.append(self.saving.wake_ms)
        if self.installs is not None:
            times.append(self.installs.wake_ms)
        out.wake_ms = min(times)

    # --- inside

    def _step_all(self, engines: list[Engine], event: EngineEvent, now_ms: int, out: HostOutput) -> None:
        for engine in engines:
            result = engine.step(event, now_ms)
            group, replicas = engine.group, engine.replicas
            if result.persist:
                out.persist += [
                    Entry(group, replicas[at] if at >= 0 else NO_ORIGIN, data) for at, data in result.persist
                ]
                self._numbers[group] = (engine, result.number)
            if result.send:
                self._send(replicas, result.send, out)
            for replica, message in result.tell:
                self.tell(replica, message, out)
            for peer, reason in result.rejected:
                self._reject(replicas[peer], reason, out)
            if result.decided:
                self.on_decided(result.decided)
            if result.has_adopted:
                self.roster.note(engine.configuration)
                self._meet_again(engine, now_ms, out)
            if result.changed and engine is self._system:
                self.on_declared([commit for _, commit in result.changed], now_ms, out)
            if result.replies:
                self.on_replies(result.replies)

    def _send(
        self, replicas: list[ReplicaId], sends: list[tuple[int, Frame | Digest | Ack | Want]], out: HostOutput
    ) -> None:
        encoded: dict[int, bytes] = {}  # one frame may go to several peers
        for peer, message in sends:
            data = encoded.get(id(message))
            if data is None:
                data = encoded[id(message)] = encode_message(message)
            self.bytes_sent += len(data)
            out.send.append((replicas[peer], data))

    def tell(self, replica: ReplicaId, message: Message, out: HostOutput) -> None:
        """Say something to one replica, whoever it is."""
        data = encode_message(message)
        self.bytes_sent += len(data)
        out.send.append((replica, data))

    def _meet_again(self, engine: Engine, now_ms: int, out: HostOutput) -> None:
        """Its configuration changed: tell it who of those it knows now is connected."""
        for peer, is_connected in self._connected.items():
            if is_connected and peer in engine.replicas:
                index = engine.replicas.index(peer)
                if index not in engine.connected:
                    self._step_all([engine], PeerChanged(index, True), now_ms, out)

    def _reject(self, peer: ReplicaId, reason: str, out: HostOutput, kind: str = "untrue") -> None:
        self.rejected_count += 1
        self.refused[kind] += 1
        out.rejected.append(Rejected(peer, reason))

    def on_declared(self, commits: list[Commit], now_ms: int = 0, out: HostOutput | None = None) -> None:
        """Open the groups of domains that these commits of ``_sys`` declare (at start, without an output: and tell nobody)."""
        self.declarations.forget_cache()
        self.open_declared(
            [domain for commit in commits for domain in self.declarations.domains_in(commit)], now_ms, out
        )

    def open_declared(self, domains: list[str], now_ms: int = 0, out: HostOutput | None = None) -> None:
        """Open the groups of domains that this node holds and that are not open yet."""
        for domain in domains:
            groups = self.declarations.groups(domain)
            for group in groups:
                if group in self.groups or not self.holds(group):
                    continue
                engine = self.open(group, self.declarations.configuration(group), len(groups))
                if out is not None:
                    self._meet_again(engine, now_ms, out)

"""A node of the first version, as small as one can be: it has what others have, counts, and votes. Built on ``words`` alone.

It keeps commits, asks for what it lacks, gives what others lack, and reads one thing: counters, as the sum of their amounts.
"""

from __future__ import annotations

from typing import Any

from tests.golden.wire_v1 import words
from tests.golden.wire_v1.words import (
    Accept,
    Accepted,
    Ack,
    Ballot,
    Commit,
    Configuration,
    Configure,
    Digest,
    Frame,
    Hello,
    Prepare,
    Promise,
    Row,
    Segment,
    Standing,
    Vote,
)

ADD = 2


class Log:
    """One group: the commits of every origin, and what was voted. Mutable."""

    def __init__(self, cluster: str, group: str, configuration: Configuration) -> None:
        self.cluster, self.group, self.configuration = cluster, group, configuration
        self.commits: dict[str, list[bytes]] = {}
        self.promised: Ballot | None = None
        self.accepted: Vote | None = None
        self.votes = 0
        self.seen: dict[str, int] = {}
        """What the deps of the last commit of our own said."""
        self.roster: list[str] = []

    def of(self, origin: str) -> list[bytes]:
        return self.commits.setdefault(origin, [])

    def chain(self, origin: str, seq: int) -> bytes:
        chain = words.first_chain(self.cluster, self.group, origin)
        for data in self.of(origin)[:seq]:
            chain = words.next_chain(chain, data)
        return chain

    def row(self, hlc: int) -> Row:
        origins = words.origins_of(self.configuration)
        vector = [len(self.of(origin)) for origin in origins]
        chains = [self.chain(origin, seq) for origin, seq in zip(origins, vector, strict=True)]
        return Row(words.id_of(self.configuration), vector, hlc, chains, self.votes)

    def value(self, path: list[str]) -> int:
        """The sum of all amounts that were added there."""
        total = 0
        for stream in self.commits.values():
            for data in stream:
                effects = words.decode_commit(data).effects
                for at in range(0, len(effects), 3):
                    if effects[at] == ADD and effects[at + 1] == path:
                        total += effects[at + 2]
        return total


class Peer:
    """Mutable. ``heard`` takes bytes and returns what to say to whoever said them."""

    def __init__(self, cluster: str, nonce: bytes, members: tuple[words.Member, ...], me: str) -> None:
        self.cluster, self.nonce, self.members, self.me = cluster, nonce, members, me
        self.logs: dict[str, Log] = {}
        self.now_ms = 0
        self.tags: set[str] = set()
        """What it was told, by name."""

    def log(self, group: str) -> Log:
        if group not in self.logs:
            configuration = words.first_configuration(self.nonce, group, self.members)
            self.logs[group] = Log(self.cluster, group, configuration)
        return self.logs[group]

    def hello(self) -> bytes:
        me = next(member for member in self.members if member.replica == self.me)
        groups = {}
        for group, log in self.logs.items():
            origins = words.origins_of(log.configuration)
            vector = {origin: (len(log.of(origin)), log.chain(origin, len(log.of(origin)))) for origin in origins}
            groups[group] = Standing(words.id_of(log.configuration), vector, None, 0, b"")
        node = self.me.rpartition(".")[0]
        return words.encode(Hello(1, self.nonce, self.me, node, me.region, groups, me.gossip, 1))

    def add(self, group: str, path: list[str], amount: int) -> None:
        """Make a commit: it has seen all that is here."""
        log = self.log(group)
        own = log.of(self.me)
        deps: list[Any] = []
        for origin, stream in log.commits.items():
            increase = len(stream) - log.seen.get(origin, 0)
            if origin != self.me and increase:
                if origin in log.roster:
                    deps += (log.roster.index(origin) + 1, increase)
                else:
                    deps += (origin, increase)
                    log.roster.append(origin)
                log.seen[origin] = len(stream)
        named: str | int = 0 if own else self.me
        stamp = (self.now_ms << 16) + len(own)
        own.append(words.encode_commit(Commit(1, named, len(own) + 1, stamp, deps, "old", [], [ADD, path, amount])))

    def digest(self, group: str) -> bytes:
        """What it says of itself, and that it wants an answer."""
        log = self.log(group)
        others: list[Row | None] = [None] * len(log.configuration.members)
        return words.encode(Digest(group, words.id_of(log.configuration), self.row(log), others, wants_answer=True))

    def row(self, log: Log) -> Row:
        return log.row((self.now_ms - 1) << 16)

    def heard(self, data: bytes) -> list[bytes]:
        message = words.decode(data)
        self.tags.add(type(message).__name__)
        if isinstance(message, Hello):
            return []
        log = self.log(message.group)
        if isinstance(message, Configure):
            return self._configure(log, message.value)
        if message.configuration != words.id_of(log.configuration):
            return [words.encode(Configure(log.group, log.configuration))]
        if isinstance(message, Frame):
            self._take(log, message)
            return [words.encode(Ack(log.group, message.configuration, self.row(log)))]
        if isinstance(message, Digest):
            answer = [self.digest(log.group)[:]] if message.wants_answer else []
            return [*self._give(log, message.row), *answer]
        if isinstance(message, Prepare | Accept):
            return [words.encode(self._vote(log, message))]
        return []

    def _configure(self, log: Log, value: Configuration) -> list[bytes]:
        if value.number > log.configuration.number:
            log.configuration, log.promised, log.accepted = value, None, None
        return [words.encode(Configure(log.group, log.configuration))]

    def _take(self, log: Log, frame: Frame) -> None:
        origins = words.origins_of(log.configuration)
        at = [segment.after for segment in frame.segments]
        for which, data in zip(frame.order or [0] * len(frame.commits), frame.commits, strict=True):
            stream = log.of(origins[frame.segments[which].origin])
            at[which] += 1
            assert words.decode_commit(data).seq == at[which]
            if at[which] == len(stream) + 1:
                stream.append(data)

    def _give(self, log: Log, row: Row) -> list[bytes]:
        """Commits of its own that the other one lacks."""
        origins = words.origins_of(log.configuration)
        place = origins.index(self.me)
        has, own = row.vector[place], log.of(self.me)
        if has >= len(own):
            return []
        segment = Segment(place, has, log.chain(self.me, has))
        return [words.encode(Frame(log.group, row.configuration, [segment], [], own[has:]))]

    def _vote(self, log: Log, message: Prepare | Accept) -> Any:
        ballot = message.ballot if isinstance(message, Prepare) else message.vote.ballot
        key = (ballot.round, ballot.replica)
        promised = (log.promised.round, log.promised.replica) if log.promised is not None else (0, "")
        about = log.group, words.id_of(log.configuration), ballot
        if isinstance(message, Prepare):
            if key <= promised:
                return Promise(*about, log.votes, None, log.promised)
            log.promised, log.votes = ballot, log.votes + 1
            return Promise(*about, log.votes, log.accepted)
        if key < promised:
            return Accepted(*about, log.votes, log.promised)
        log.promised, log.accepted, log.votes = ballot, message.vote, log.votes + 1
        return Accepted(*about, log.votes)

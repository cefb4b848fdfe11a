"""Rights move: a replica that lacks rights of a bounded counter asks the peers that seem to have them.

The question: what may be lost, late or said twice here without harm? Everything that is said. A ``Want`` changes nothing; what answers it
is an ordinary commit of the giver, which gives only what it can spare. A want names how much of the giver the asker has durable; one from
before the last gift is not served, so words that are repeated, or late, drain nobody.

Who was refused for lack of rights waits, bounded in number and time: each commit that may have brought rights lets it be judged again.
It is refused at once when all rights there are, as seen from here, would not do. Where two regions wait for what the other has, the one
that comes later in the order of members gives: else both would give, and nobody could be served.

A giver keeps what it expects to need itself, which is what it spent lately; but who waits at the asker counts more than who may come
here, up to half of what is here. In the background a replica asks ahead for keys of which less is left than was spent lately.

All that must outlast a crash (holds, gifts) is in checkpoints, or read from own commits that these do not hold; demand only from those.
Who waits is answered by nobody after a crash.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms
from crdtstore.commit import Commit
from crdtstore.engine.demand import Demand, Key
from crdtstore.engine.events import Draft
from crdtstore.engine.farewell import Farewell
from crdtstore.engine.holds import Holds
from crdtstore.engine.output import Output, Refused
from crdtstore.errors import InsufficientRights, StorageError
from crdtstore.leaves import ADD, DROP, PUT
from crdtstore.ledger import Ledger
from crdtstore.messages import Want
from crdtstore.storage.rows import GIFTS
from crdtstore.types.bounded_counter import (
    CONFIRMED,
    ENDED,
    GRANTED,
    HELD,
    MOVED,
    USED,
    BoundedCounter,
    account,
    is_end,
    is_hold,
    move,
)

if TYPE_CHECKING:
    from crdtstore.engine.engine import Engine

__all__ = ["Rights"]

_SUFFIX = f":{BoundedCounter.name}"
_SPENDING = ("consume", "reserve", "transfer")
_MAX_WANTED = (1 << 63) - 1
"""What a message can carry; amounts themselves have no such limit."""
_SLICE = 100
"""Of so many keys a tick asks whether enough is left."""
_NEVER = 1 << 63


class _Parked(Struct, gc=False):
    """A draft that waits for rights: until when, how much of which keys it needs, and how it is refused in the end."""

    draft: Draft
    until_ms: int
    needs: dict[Key, int]
    error: InsufficientRights


class _Asked(Struct, gc=False):
    """Whom we asked for rights of a key, and when we may ask again."""

    next_ms: int
    pause_ms: int
    peers: set[int]


class Rights:
    """The rights of one replica that are on the move. Mutable; part of the engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._options = engine.options
        self.holds = Holds(engine)
        self.farewell = Farewell(engine)
        self._demand = Demand(engine.options.demand_window_ms, engine.options.max_demand_keys)
        self._spent_of: dict[Key, None] = {}
        """Keys of which something was spent since it was last asked whether enough is left."""
        self._given: dict[tuple[str, Key], int] = {}
        """The last own commit that moved rights of a key to a replica."""
        self._given_ledger = Ledger(GIFTS, lambda name: self._given.get((name[0], (name[1], name[2]))))
        self._parked: dict[int, _Parked] = {}
        self._retried: dict[int, _Parked] = {}
        """Those being judged again."""
        self._waiting: dict[Key, dict[int, None]] = {}
        """The tickets that wait for a key, in the order in which they came."""
        self._asked: dict[Key, _Asked] = {}
        self._news: dict[Key, None] = {}
        """Keys that are waited for and of which there may be more rights now."""
        self.wake_ms = 0
        """When a tick may have something to do: never later than it has."""
        self.wants_sent = 0
        self.wants_served = 0

    # --- what checkpoints hold

    @property
    def ledgers(self) -> list[Ledger]:
        """What is to be remembered beside the leaves."""
        return [*self.holds.ledgers, self._given_ledger]

    def loaders(self) -> list[tuple[Ledger, Callable[[list[Any], Any], None]]]:
        """The same, with who takes it in again."""
        return [*self.holds.loaders(), (self._given_ledger, self._load_given)]

    def _load_given(self, name: list[Any], seq: int) -> None:
        self._given[name[0], (name[1], name[2])] = seq

    @property
    def waiting(self) -> int:
        """How many drafts wait for rights."""
        return len(self._parked)

    # --- what commits say

    def note(self, origin: int, commit: Commit) -> None:
        """A commit was applied, just now or at start."""
        effects = commit.effects
        for at in range(1, len(effects), 3):
            if len(effects[at]) > 2 and effects[at][0].endswith(_SUFFIX):
                self._note(origin == self._engine.me, commit)
                return

    def _note(self, is_own: bool, commit: Commit) -> None:
        me, effects = self._engine.replicas[self._engine.me], commit.effects
        closed: dict[str, int] = {}
        for at in range(0, len(effects), 3):
            kind, path, value = effects[at : at + 3]
            if len(path) < 3 or not path[0].endswith(_SUFFIX):
                continue
            key, cell = (path[0], path[1]), path[2]
            if key in self._waiting and (not is_own or cell == GRANTED or (cell == HELD and kind == DROP)):
                self._news[key] = None
                if cell == MOVED and path[3:] == [me]:
                    self._asked.pop(key, None)  # a gift: if it does not do, ask again at once
            if not is_own:
                if cell == MOVED and path[3:] == [me]:
                    self.farewell.note(key)
                continue
            if cell == USED and kind == ADD:
                self._spend(key, commit, value)
            elif len(path) == 4:
                self._note_place(kind, key, cell, path[3], value, commit, closed)

    def _note_place(
        self, kind: int, key: Key, cell: str, name: str, value: Any, commit: Commit, closed: dict[str, int]
    ) -> None:
        """An own effect on something that has a name; ``closed``: what the holds had put aside that this commit ends."""
        place = (*key, name)
        if cell == HELD and kind == DROP:
            closed[name] = self.holds.closed(place)
        elif cell == HELD and kind == PUT and is_hold(value):
            self._spend(key, commit, value[0])
            self.holds.opened(place, *value)
            self._wake_at(value[1])
        elif cell == ENDED and kind == DROP:
            self.holds.forgotten(place)
        elif cell == ENDED and kind == PUT and is_end(value):
            self.holds.remembered(place, value[1])
            if value[0] == CONFIRMED:  # it was demand when it was put aside
                self._spend(key, commit, -closed.get(name, 0))
        elif cell == MOVED and kind == ADD:
            self._given_ledger.note((name, *key))
            self._given.pop((name, key), None)
            self._given[name, key] = commit.seq
            if len(self._given) > self._options.max_demand_keys:
                first = next(iter(self._given))
                self._given_ledger.note((first[0], *first[1]))
                del self._given[first]

    def _spend(self, key: Key, commit: Commit, amount: int) -> None:
        self._demand.note(key, physical_ms(commit.hlc), amount)
        if amount > 0 and len(self._spent_of) < self._options.max_demand_keys:
            self._spent_of[key] = None

    # --- waiting

    def park(self, draft: Draft, error: InsufficientRights, now_ms: int, out: Output) -> bool:
        """Ask others for what a refused draft needs; return whether it waits for that now, or is to be refused."""
        before = self._retried.pop(draft.ticket, None)
        until_ms = before.until_ms if before is not None else now_ms + min(draft.wait_ms, self._options.max_wait_ms)
        try:
            needs = self._needs(draft)
            accounts = {key: account(self._engine.keyspace.view(*key)).rights for key in needs}
        except StorageError as unreadable:
            self._engine.note_unreadable(unreadable)
            return False
        if not needs or any(self._in_reach(accounts[key]) < amount for key, amount in needs.items()):
            return False
        is_parked = now_ms < until_ms and len(self._parked) < self._options.max_parked
        if is_parked:
            self._parked[draft.ticket] = _Parked(draft, until_ms, needs, error)
            for key in needs:
                self._waiting.setdefault(key, {})[draft.ticket] = None
            self._wake_at(until_ms)
        for key, amount in needs.items():
            self._ask(key, 0 if is_parked else amount, now_ms, out)  # of keys that were just read
        return is_parked

    def _needs(self, draft: Draft) -> dict[Key, int]:
        """How much a draft spends, beyond what it grants, of the keys of which less is here."""
        spends: dict[Key, int] = {}
        for op in draft.ops:
            if isinstance(op.crdt, BoundedCounter) and op.mutator is not None:
                sign = 1 if op.mutator.name in _SPENDING else -1 if op.mutator.name == "grant" else 0
                key = (op.collection, op.key)
                spends[key] = spends.get(key, 0) + sign * op.arguments.get("amount", 0)
        return {key: amount for key, amount in spends.items() if amount > self._here(key)}

    def _waited(self, key: Key) -> int:
        """How much those need together who wait for a key."""
        return sum(self._parked[ticket].needs[key] for ticket in self._waiting.get(key, ()))

    def _in_reach(self, rights: dict[ReplicaId, int]) -> int:
        """All that the members have; who is gone gives nothing any more."""
        engine = self._engine
        return sum(max(0, rights.get(engine.replicas[at], 0)) for at in (engine.me, *engine.others))

    def _here(self, key: Key) -> int:
        engine = self._engine
        return account(engine.keyspace.view(*key)).rights.get(engine.replicas[engine.me], 0)

    def _unpark(self, parked: _Parked) -> None:
        del self._parked[parked.draft.ticket]
        for key in parked.needs:
            tickets = self._waiting[key]
            del tickets[parked.draft.ticket]
            if not tickets:
                del self._waiting[key]

    def again(self) -> list[Draft]:
        """Those to be judged again, in the order in which they came: who waits for keys of which there may be more rights now."""
        if not self._news:
            if self._retried:
                self._retried = {}
            return []
        self._retried = {}
        while self._news and not self._retried:
            news, self._news = self._news, {}
            try:
                found = dict.fromkeys(ticket for key in news for ticket in self._hopeful(key))
            except StorageError:
                self._news = news  # they are looked at again
                raise
            self._retried = {ticket: self._parked[ticket] for ticket in found}
        for parked in self._retried.values():
            self._unpark(parked)
        return [parked.draft for parked in self._retried.values()]

    def _hopeful(self, key: Key) -> list[int]:
        """Who can be served with what is here, one after the other, and who cannot be served any more; a try for each would be too many."""
        rights = account(self._engine.keyspace.view(*key)).rights
        left = rights.get(self._engine.replicas[self._engine.me], 0)
        everything = self._in_reach(rights)
        found = []
        for ticket in self._waiting.get(key, ()):
            amount = self._parked[ticket].needs[key]
            if amount <= left:
                left -= amount
                found.append(ticket)
            elif amount > everything:
                found.append(ticket)
        return found

    # --- asking

    def _ask(self, key: Key, more: int, now_ms: int, out: Output) -> None:
        """Ask the richest of those that can be reached, for what is waited for and so much more, if that is nothing for what was spent
        lately; again only after a while, and then others first.
        """
        engine, asked = self._engine, self._asked.get(key)
        if asked is not None and now_ms < asked.next_ms:
            return
        again_ms = self._options.rights_again_ms
        if asked is None:
            asked = self._asked[key] = _Asked(0, again_ms, set())
        elif asked.peers:
            asked.pause_ms = min(2 * asked.pause_ms, 16 * again_ms)
        asked.next_ms = now_ms + asked.pause_ms
        self._wake_at(asked.next_ms)
        rights = account(engine.keyspace.view(*key)).rights
        here = max(0, rights.get(engine.replicas[engine.me], 0))
        recent = self._demand.recent(key, now_ms)
        waiting = more + self._waited(key)
        missing = (waiting or recent) - here
        if missing < 1:
            return
        reachable = [
            (-rights.get(engine.replicas[peer], 0), peer)
            for peer, progress in engine.antientropy.peers.items()
            if progress.state != "down" and rights.get(engine.replicas[peer], 0) > 0
        ]
        if all(peer in asked.peers for _, peer in reachable):
            asked.peers.clear()
        for seen, peer in sorted(reachable):
            if missing < 1 or peer in asked.peers:
                continue
            asked.peers.add(peer)
            amount = min(missing + recent, _MAX_WANTED)
            waits = min(max(0, waiting - here), amount)
            vector = engine.durability.vector
            want = Want(engine.group, engine.configuration.id, *key, amount, waits, vector[peer])
            out.send.append((peer, want))
            self.wants_sent += 1
            missing += seen

    # --- giving

    def on_want(self, peer: int, want: Want, now_ms: int, out: Output) -> None:
        """A peer lacks rights: give what can be spared, once per want."""
        engine = self._engine
        key, asker = (want.collection, want.key), engine.replicas[peer]
        if not engine.may_issue or want.amount < 1 or not want.collection.endswith(_SUFFIX):
            return
        if want.seen < self._given.get((asker, key), 0):
            return  # it was made before the last gift had arrived
        here = self._here(key)
        spare = here - self._demand.recent(key, now_ms)
        if key in self._waiting:
            if engine.others.index(peer) >= engine.position:  # it comes later
                return
            spare = here
        amount = min(want.amount, max(spare, min(want.waits, (here + 1) // 2)))
        if amount < 1:
            return
        kind, path, value = move(asker, amount)
        region = engine.keyspace.regions.get(asker, asker)
        engine.issue([kind, [*key, *path], value], f"rights that {region} asked for", now_ms, out)
        self.wants_served += 1

    # --- time

    def on_tick(self, now_ms: int, out: Output) -> None:
        """Refuse who waited too long, end holds, ask again, ask ahead."""
        if now_ms < self.wake_ms and not self._spent_of:
            return
        self.wake_ms = _NEVER
        try:
            self._do_due(now_ms, out)
        finally:  # also when something could not be read
            self._plan(now_ms)

    def _do_due(self, now_ms: int, out: Output) -> None:
        for parked in [parked for parked in self._parked.values() if now_ms >= parked.until_ms]:
            self._unpark(parked)
            reply = Refused(parked.draft.ticket, parked.error)
            if not self._engine.durability.hold_reply(reply, parked.draft.ops):
                out.replies.append(reply)
        if self._engine.may_issue:
            self.holds.on_tick(now_ms, out)
        elif self._is_parting and now_ms >= self.farewell.next_ms:
            self.farewell.go_on(now_ms, out)
        for key in list(self._waiting):
            self._ask(key, 0, now_ms, out)
        for key in [key for key, _ in zip(self._spent_of, range(_SLICE), strict=False)]:
            del self._spent_of[key]
            if self._here(key) < self._demand.recent(key, now_ms):
                self._ask(key, 0, now_ms, out)
        for key in [key for key, asked in self._asked.items() if now_ms >= asked.next_ms and key not in self._waiting]:
            del self._asked[key]

    @property
    def _is_parting(self) -> bool:
        """Whether rights are still to be given away before this replica leaves."""
        engine = self._engine
        return engine.membership.is_leaving and not (self.farewell.is_done or engine.is_fenced or engine.is_held)

    def _plan(self, now_ms: int) -> None:
        times = [now_ms] if self._spent_of else []
        times += [parked.until_ms for parked in self._parked.values()]
        times += [asked.next_ms for asked in self._asked.values()]
        if self._engine.may_issue and (next_ms := self.holds.next_ms) is not None:
            times.append(next_ms)
        if self._is_parting:
            times.append(self.farewell.next_ms)
        self.wake_ms = max(now_ms + 1, min(times, default=_NEVER))

    def _wake_at(self, at_ms: int) -> None:
        self.wake_ms = min(self.wake_ms, at_ms)

"""How many are left? Stock that is never oversold: in any region, cut off or not.

The question: how may a region sell without asking the others? It sells what it holds *rights* to, and rights are only ever spent by
their owner. Below the key stand, each amount attributed to the replica that wrote it,

* ``G`` granted to itself · ``R/to`` moved to another replica · ``U`` used (sums);
* ``H/hold`` put aside: [amount, deadline], by its owner · ``E/hold`` how a hold ended: [outcome, kept until].

``rights(i) = granted by i + moved to i - moved by i - used by i - held by i``. Whatever arrives from others only adds to it, so what i saw
when it spent is a lower bound for ever, and no join of states reads less than the bound (Balegas et al., bounded counters, SRDS 2015).

**One operation tried in two regions.** Both found rights of their own, both spent. All leaves are shared by all replicas, so the two
amounts stand in one leaf as amounts of one operation: the least counts, the other is no longer there, and who wrote it has its rights
back by that alone. A refund written by an add would be made twice by two who see it; a dot that does not count cannot be given back twice.
A hold is named after the operation, so both attempts are the same hold; a drop that saw one of them ends both, and gives each owner back
what it had put aside.

**A grant is the exception.** It makes rights out of nothing; tried in two regions that both spend it before they meet, it counts once and
was spent twice. So a grant is tried again in the region that it was sent to and nowhere else (the client sees to that; no server can).

A hold is ended by a drop, never by an add, and only by its owner, which has it before it and can see that it is still there; so it ends
once. Until its owner drops it, it counts, whatever any clock says. (A hold tried in two regions has two owners until they meet: two
different operations may confirm it there and take its amount twice. That is no overselling: each had put it aside.)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.errors import HoldEnded, InsufficientRights, ReplicaBehind, UsageError
from crdtstore.leaves import ADD, DROP, PUT, SEQ_BITS, Branch, Entry, Many, One, ValueOrder, has_mark
from crdtstore.types._base import Amount, CrdtType, Duration, Issuer, Live, Text, View, Write, reading_mutator
from crdtstore.values import check_integer, show

__all__ = [
    "CONFIRMED",
    "ENDED",
    "EXPIRED",
    "GRANTED",
    "HELD",
    "MOVED",
    "RELEASED",
    "USED",
    "Account",
    "BoundedCounter",
    "account",
    "end_hold",
    "ended_by",
    "forget_hold",
    "hold_name",
    "is_end",
    "is_hold",
    "live_hold",
    "move",
]

GRANTED, MOVED, USED, HELD, ENDED = "G", "R", "U", "H", "E"
CONFIRMED, RELEASED, EXPIRED = "confirmed", "released", "expired"
_WORDS = {GRANTED: "granted", MOVED: "moved", USED: "consumed", HELD: "hold", ENDED: "hold"}
"""What stands where below a key, as readers are shown it."""
KEPT_MS = 86_400_000
"""How long it is remembered how a hold ended."""


class Account(NamedTuple):
    """What every replica holds of one key, as seen here; of others it may look like anything while news is on its way."""

    rights: dict[ReplicaId, int]
    """What each may still spend."""
    held: dict[ReplicaId, int]
    """What each has put aside."""


def account(view: View) -> Account:
    """The rights of every replica.

    Cost:  a look at each pair of replicas; the holds that are open are added up as they come and go.
    """
    rights: dict[ReplicaId, int] = dict(view.child(GRANTED).totals())
    held: dict[ReplicaId, int] = {}

    def book(replica: ReplicaId, amount: int) -> None:
        rights[replica] = rights.get(replica, 0) + amount

    for to, child in view.child(MOVED).children():
        for replica, amount in child.totals().items():
            if isinstance(to, str) and replica != to:
                book(ReplicaId(to), amount)
                book(replica, -amount)
    for replica, amount in view.child(USED).totals().items():
        book(replica, -amount)
    holds = view.child(HELD)
    if type(holds.entry) is Branch:
        tally = holds.order(_Tally)
        assert isinstance(tally, _Tally)
        held = {view.replicas[owner]: amount for owner, amount in tally.totals.items() if amount}
    for replica, amount in held.items():
        book(replica, -amount)
    return Account(rights, held)


class _Tally(ValueOrder):
    """The open holds of a key and what each owner has put aside by them: every operation that spends asks, and there may be many."""

    def __init__(self, branch: Branch) -> None:
        children = branch.children  # not the branch: it would hold itself, and the collector passes over it
        self.totals: dict[int, int] = {}
        super().__init__((), lambda hold: _owner_and_amount(children[hold]))
        for hold in children:
            self.add(hold)

    def add(self, value: str) -> None:
        super().add(value)
        owner, amount = self._key_of(value)
        self.totals[owner] = self.totals.get(owner, 0) + amount

    def discard(self, value: str) -> None:
        owner, amount = self._key_of(value)
        super().discard(value)
        self.totals[owner] -= amount


def _owner_and_amount(entry: Entry) -> tuple[int, int]:
    """Whose hold stands here (the index of its replica), and how much it has put aside; nothing in a form that is not known."""
    if type(entry) is One:
        found = [(entry.dot, entry.value)] if entry.kind == PUT else []
    else:
        leaf = entry if type(entry) is not Branch else None if has_mark(entry) else entry.leaf_of(PUT)
        dots = leaf.dots if type(leaf) is Many and leaf.kind == PUT else {}
        found = [(dot, value) for dot, (_, value) in sorted(dots.items(), key=lambda held: held[1][0])]
    for dot, value in found:
        if is_hold(value):
            return dot >> SEQ_BITS, value[0]
    return 0, 0


def live_hold(view: View, hold: str) -> Live | None:
    """The write that a hold stands by, whose replica owns it; None when it is not there (any more)."""
    return next((live for live in view.child(HELD).child(hold).live() if is_hold(live.value)), None)


def ended_by(view: View, hold: str) -> list[Live]:
    """The writes that say how a hold ended."""
    return [live for live in view.child(ENDED).child(hold).live() if is_end(live.value)]


def hold_name(issuer: Issuer) -> str:
    """The name of a hold that is about to be made: the same for every attempt at one operation, in any region."""
    if issuer.operation is not None:
        return f"{issuer.operation.hex()}.{issuer.index}"
    return f"{issuer.replica}:{issuer.seq}.{issuer.index}"


def move(replica: ReplicaId, amount: int) -> list[Any]:
    """The effects, below the key, of moving own rights to a replica."""
    return [ADD, [MOVED, replica], amount]


def end_hold(hold: str, outcome: str, now_ms: int) -> list[Any]:
    """The effects, below the key, of ending an own hold."""
    return [DROP, [HELD, hold], None, PUT, [ENDED, hold], [outcome, now_ms + KEPT_MS]]


def forget_hold(hold: str) -> list[Any]:
    """The effects, below the key, of forgetting how an own hold ended."""
    return [DROP, [ENDED, hold], None]


def is_hold(value: Any) -> bool:
    """Whether it has the known form; what a later version stores is passed over."""
    return type(value) is list and len(value) == 2 and type(value[0]) is int and type(value[1]) is int


class BoundedCounter(CrdtType):
    """An amount that never falls below a bound."""

    name = "bounded_counter"
    question = "How many are left?"
    empty = 0
    deletable = False
    shows_value = True
    nestable = False
    options: ClassVar[Mapping[str, Any]] = {"lower": 0}

    def check_option(self, name: str, value: Any) -> Any:
        """``lower``: the bound, an integer."""
        return check_integer(value, f"the option {name}")

    # --- operations

    @reading_mutator
    def grant(self, view: View, amount: Amount) -> list[Any]:
        """Raise the amount; this region holds the rights. Repeat it in the same region only."""
        return [ADD, [GRANTED], amount]

    @reading_mutator
    def consume(self, view: View, amount: Amount) -> list[Any]:
        """Lower the amount by rights of this region."""
        self.need(view, amount)
        return [ADD, [USED], amount]

    @reading_mutator
    def transfer(self, view: View, amount: Amount, to: Text) -> list[Any]:
        """Move rights of this region to another; the amount stays the same."""
        replica = _member_of(view, to)
        self.need(view, amount)
        return move(replica, amount)

    @reading_mutator
    def reserve(self, view: View, amount: Amount, ttl_ms: Duration) -> list[Any]:
        """Put rights of this region aside for so long; the reply names the hold."""
        issuer = _issuer(view)
        hold = hold_name(issuer)
        if view.child(HELD).child(hold).exists or view.child(ENDED).child(hold).exists:
            raise UsageError(
                "this idempotency key was used for another hold, long ago. Nothing changed.", code="key-reused"
            )
        self.need(view, amount)
        return [PUT, [HELD, hold], [amount, physical_ms(issuer.hlc) + ttl_ms]]

    @reading_mutator
    def confirm(self, view: View, hold: Text) -> list[Any]:
        """Lower the amount by what a hold put aside, and end the hold. Only in the region that made the hold, and before its deadline."""
        live = self._own_hold(view, hold)
        amount, deadline_ms = live.value
        if physical_ms(_issuer(view).hlc) >= deadline_ms:
            raise _ended(hold, EXPIRED, f"expired at {rfc3339(deadline_ms)}")
        return [*end_hold(hold, CONFIRMED, physical_ms(_issuer(view).hlc)), ADD, [USED], amount]

    @reading_mutator
    def release(self, view: View, hold: Text) -> list[Any]:
        """End a hold and give back what it put aside. Only in the region that made the hold."""
        self._own_hold(view, hold)
        return end_hold(hold, RELEASED, physical_ms(_issuer(view).hlc))

    # --- rules

    def need(self, view: View, amount: int) -> None:
        """Refuse to spend what is not there.

        Raises:  InsufficientRights; nothing changed.
        """
        issuer = _issuer(view)
        if amount > account(view).rights.get(issuer.replica, 0):
            rights = self.rights(view, issuer.replica, issuer.regions)
            here, elsewhere = rights["here"], rights["elsewhere"]
            others = ", ".join(f"{region} {show(seen)}" for region, seen in elsewhere.items() if seen) or "none"
            raise InsufficientRights(
                f"{show(amount)} were asked for, this region holds the rights to {show(here)}; others appear to hold: "
                f"{others}. Nothing changed.",
                requested=amount,
                here=here,
                elsewhere=elsewhere,
            )

    def _own_hold(self, view: View, hold: str) -> Live:
        """The hold, if it is this replica's.

        Raises:  ReplicaBehind naming the region that can say; HoldEnded; nothing changed.
        """
        issuer = _issuer(view)
        live = live_hold(view, hold)
        if live is not None:
            if live.replica == issuer.replica:
                return live
            raise _belongs(hold, issuer.regions.get(live.replica))
        if ends := ended_by(view, hold):
            outcome = ends[0].value[0]
            raise _ended(hold, outcome, outcome if outcome == EXPIRED else f"was {outcome}")
        maker = hold.rpartition(":")[0]
        if maker in issuer.regions and maker != issuer.replica:  # it may be on its way, and its maker knows
            raise _belongs(hold, issuer.regions[ReplicaId(maker)])
        raise _ended(hold, None, "is not known here: it was never made, or ended long ago")

    # --- readings

    def read(self, view: View) -> int:
        lower: int = view.options.get("lower", 0)
        return lower + sum(account(view).rights.values())

    def shown(self, view: View, op: str) -> Any:
        """The amount; after ``reserve`` the name of the hold."""
        return hold_name(_issuer(view)) if op == "reserve" else self.read(view)

    def rights(self, view: View, replica: ReplicaId, regions: Mapping[ReplicaId, str]) -> dict[str, Any]:
        """What a replica may spend and has put aside, and what other regions appear to hold: ``{here, held, elsewhere: {region: n}}``."""
        rights, held = account(view)
        elsewhere: dict[str, int] = {}
        for member, region in regions.items():
            if member != replica:
                elsewhere[region] = elsewhere.get(region, 0) + max(0, rights.get(member, 0))
        return {"here": max(0, rights.get(replica, 0)), "held": held.get(replica, 0), "elsewhere": elsewhere}

    def beside(self, view: View, replica: ReplicaId, regions: Mapping[ReplicaId, str]) -> dict[str, Any]:
        return {"rights": self.rights(view, replica, regions)}

    def explain(self, view: View) -> Iterator[Write]:
        for live in view.child(GRANTED).live(ADD):
            yield Write((GRANTED,), live, True, "sum of its region")
        for to, child in view.child(MOVED).children():
            for live in child.live(ADD):
                yield Write((MOVED, to), live, True, "sum of its region")
        for live in view.child(USED).live(ADD):
            yield Write((USED,), live, True, "sum of its region")
        for hold, child in view.child(HELD).children():
            for live in child.live():
                if is_hold(live.value):
                    amount, deadline_ms = live.value
                    yield Write((HELD, hold), live._replace(value=amount), True, f"held until {rfc3339(deadline_ms)}")
                else:
                    yield Write((HELD, hold), live, False, "held in an unknown form")
        for hold, child in view.child(ENDED).children():
            for live in child.live():
                how = live.value[0] if is_end(live.value) else "ended in an unknown form"
                yield Write((ENDED, hold), live._replace(value=how), False, f"hold {how}")

    def place(self, at: tuple[Any, ...], regions: Mapping[ReplicaId, str]) -> list[Any]:
        """What was done, and with which region or hold."""
        cell, *others = at
        if cell == MOVED:
            others = [regions.get(replica, replica) for replica in others]
        return [_WORDS.get(cell, cell), *others]


def _issuer(view: View) -> Issuer:
    assert view.issuer is not None, "rights are somebody's"
    return view.issuer


def _member_of(view: View, region: str) -> ReplicaId:
    """The replica that receives what is moved to a region: its first member, the same wherever the operation is tried."""
    issuer = _issuer(view)
    own = issuer.regions.get(issuer.replica)
    others = list(dict.fromkeys(name for name in issuer.regions.values() if name != own))
    if region not in others:
        known = ", ".join(others) or "there is none"
        what = "own region" if region == own else "region"
        raise UsageError(
            f"to must name another region that holds this domain ({known}), got the {what} {show(region)}. Nothing changed.",
            code="invalid-value",
        )
    return next(replica for replica, name in issuer.regions.items() if name == region)


def is_end(value: Any) -> bool:
    return type(value) is list and len(value) == 2 and type(value[0]) is str and type(value[1]) is int


def _belongs(hold: str, region: str | None) -> ReplicaBehind:
    return ReplicaBehind(
        f"the hold {show(hold)} belongs to region {region}, which alone can end it. Nothing changed.",
        regions=[] if region is None else [region],
        retry_after=0.1,
    )


def _ended(hold: str, outcome: str | None, how: str) -> HoldEnded:
    return HoldEnded(f"the hold {show(hold)} {how}. Nothing changed.", outcome=outcome)

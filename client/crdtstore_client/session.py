"""Session: which tokens a store still has to show, so that it never reads back in time.

The question: replies of requests that ran side by side carry tokens of which none covers the other, and a client cannot
join them (a token is opaque and sealed). So a session keeps several. The node answers a request with one token that
covers all tokens it was shown; hence a reply's token takes the place of exactly those. That alone would leave as many
tokens as there are requests in flight, so one more rule: what a write lets its caller know is its commit and what that
commit had seen, and a replica's commits are seen in order; so the token of a later commit of a replica covers that of
an earlier one, if it also covers what the earlier request had been shown. So it is with what one connection brings: a node
answers on it in the order in which it saw things, so what a later read shows is never older than what an earlier one did.
Each shard of a domain has an order of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

__all__ = ["Held", "Session", "text_of"]

MAX_ITEMS = 64
"""So many tokens of reads that came by themselves are told apart before those nobody else holds count as one."""
MAX_LINES = 256
"""So many orders are told apart; then the older half is forgotten, and what is only covered by them is held a while longer."""


_NOTHING: frozenset[str] = frozenset()


class Held(Struct, frozen=True):
    """One token and what is known of its content: the latest commit per group and replica, the latest read per group and connection, and
    tokens of reads that came by themselves.

    A group is a domain and which of its shards.
    """

    text: str
    commits: Mapping[tuple[str, int, str], int] = {}
    items: frozenset[str] = _NOTHING

    def covers(self, other: Held) -> bool:
        if other.items is not self.items and not other.items <= self.items:
            return False
        commits = self.commits
        for replica, seq in other.commits.items():  # noqa: SIM110 (each reply comes by here: a generator costs more)
            if commits.get(replica, 0) < seq:
                return False
        return True


class Session:
    """The tokens of one session, oldest first."""

    __slots__ = ("_held", "_in_flight")

    def __init__(self, token: str | None = None) -> None:
        texts = [text.strip() for text in (token or "").split(",")]
        self._held: tuple[Held, ...] = tuple(
            Held(text, items=frozenset([text])) for text in dict.fromkeys(texts) if text
        )
        self._in_flight: dict[int, tuple[tuple[Held, ...], int]] = {}
        """By its identity what is shown by requests under way, and by how many."""

    @property
    def token(self) -> str:
        """All outstanding tokens, comma-separated: what the next request shows."""
        return text_of(self._held)

    def begin(self, max_bytes: int) -> tuple[Held, ...] | None:
        """The tokens a request has to show; None when together they are longer than ``max_bytes``: see ``part``."""
        held = self._held
        if len(held) > 1 and len(text_of(held)) > max_bytes:
            return None
        return self._show(held)

    def begin_without(self) -> tuple[Held, ...]:
        """For a request that shows no token: what its reply brings is added to the others."""
        return self._show(())

    def part(self, max_bytes: int) -> tuple[Held, ...]:
        """As many of the oldest tokens as fit, two at least: a request that shows them leaves one in their place."""
        shown: list[Held] = []
        size = 0
        for held in self._held:
            size += len(held.text) + 1
            if len(shown) >= 2 and size - 1 > max_bytes:
                break
            shown.append(held)
        return self._show(tuple(shown))

    def _show(self, shown: tuple[Held, ...]) -> tuple[Held, ...]:
        _, count = self._in_flight.get(id(shown), (shown, 0))
        self._in_flight[id(shown)] = (shown, count + 1)
        return shown

    def end(
        self,
        shown: tuple[Held, ...],
        token: str | None,
        domain: str | None = None,
        dot: str | None = None,
        shard: int = 0,
        heard: tuple[str, int] | None = None,
    ) -> None:
        """Take the token of a reply in; None when there was no answer, or one without a token. ``heard``: of a read of one shard, as
        ``Response`` says."""
        _, count = self._in_flight.pop(id(shown))
        if count > 1:
            self._in_flight[id(shown)] = (shown, count - 1)
        if not token:
            return
        new = self._describe(shown, token, domain, dot, shard, heard)
        same = next((held for held in self._held if held.text == token), None)
        if same is not None:  # one text has one content, so both descriptions are true of it
            new = Held(token, _join((same, new)), same.items | new.items)
        rest = [held for held in self._held if held not in shown and held is not same and not new.covers(held)]
        if same is not None or not any(held.covers(new) for held in rest):
            rest.append(self._forget(new, rest))
        self._held = tuple(rest)

    @staticmethod
    def _describe(
        shown: tuple[Held, ...],
        token: str,
        domain: str | None,
        dot: str | None,
        shard: int,
        heard: tuple[str, int] | None,
    ) -> Held:
        commits = _join(shown)
        items = shown[0].items if len(shown) == 1 else _NOTHING.union(*[held.items for held in shown])
        replica, colon, seq = (dot or "").rpartition(":")
        if domain is not None and colon and seq.isdigit():
            line, number = replica, int(seq)
        elif domain is not None and heard is not None:
            line, number = heard
        else:
            return Held(token, commits, items | {token})
        where = (domain, shard, line)
        if commits.get(where, 0) < number:
            commits[where] = number
        if (
            len(commits) > MAX_LINES
        ):  # connections end and others begin; what grows out of this token, and nothing else, covers it then
            commits = dict(list(commits.items())[MAX_LINES // 2 :]) | {where: commits[where]}
            items |= {token}
        return Held(token, commits, items)

    def _forget(self, new: Held, rest: Iterable[Held]) -> Held:
        """With one item in place of those that nobody else holds: only what grows out of this token covers it then."""
        if len(new.items) <= MAX_ITEMS:
            return new
        shown = [held for held, _ in self._in_flight.values()]
        others = _NOTHING.union(*(held.items for held in rest), *(held.items for group in shown for held in group))
        return Held(new.text, new.commits, (new.items & others) | {new.text})


def text_of(shown: tuple[Held, ...]) -> str:
    """Tokens as a request shows them."""
    return shown[0].text if len(shown) == 1 else ",".join([held.text for held in shown])


def _join(several: tuple[Held, ...]) -> dict[tuple[str, int, str], int]:
    result: dict[tuple[str, int, str], int] = {}
    for held in several:
        if not result:
            result.update(held.commits)
            continue
        for replica, seq in held.commits.items():
            if result.get(replica, 0) < seq:
                result[replica] = seq
    return result

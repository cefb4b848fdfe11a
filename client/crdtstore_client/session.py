"""Session: which tokens a store still has to show, so that it never reads back in time.

The question: replies of requests that ran side by side carry tokens of which none covers the other, and a client cannot
join them (a token is opaque and sealed). So a session keeps several. The node answers a request with one token that
covers all tokens it was shown; hence a reply's token takes the place of exactly those. That alone would leave as many
tokens as there are requests in flight, so one more rule: what a write lets its caller know is its commit and what that
commit had seen, and a replica's commits are seen in order; so the token of a later commit of a replica covers that of
an earlier one, if it also covers what the earlier request had been shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Held", "Session"]

MAX_ITEMS = 64
"""So many tokens of reads are told apart before those nobody else holds count as one."""


@dataclass(frozen=True, slots=True)
class Held:
    """One token and what is known of its content: the latest commit per domain and replica, and tokens of reads."""

    text: str
    commits: Mapping[tuple[str, str], int] = field(default_factory=dict)
    items: frozenset[str] = frozenset()

    def covers(self, other: Held) -> bool:
        return other.items <= self.items and all(
            self.commits.get(replica, 0) >= seq for replica, seq in other.commits.items()
        )


class Session:
    """The tokens of one session, oldest first."""

    __slots__ = ("_held", "_in_flight")

    def __init__(self, token: str | None = None) -> None:
        texts = [text.strip() for text in (token or "").split(",")]
        self._held: list[Held] = [Held(text, items=frozenset([text])) for text in dict.fromkeys(texts) if text]
        self._in_flight: list[tuple[Held, ...]] = []

    @property
    def token(self) -> str:
        """All outstanding tokens, comma-separated: what the next request shows."""
        return ",".join(held.text for held in self._held)

    def begin(self, max_bytes: int) -> tuple[Held, ...] | None:
        """The tokens a request has to show; None when together they are longer than ``max_bytes``: see ``part``."""
        if sum(len(held.text) + 1 for held in self._held) - 1 > max_bytes and len(self._held) > 1:
            return None
        shown = tuple(self._held)
        self._in_flight.append(shown)
        return shown

    def begin_without(self) -> tuple[Held, ...]:
        """For a request that shows no token: what its reply brings is added to the others."""
        self._in_flight.append(())
        return ()

    def part(self, max_bytes: int) -> tuple[Held, ...]:
        """As many of the oldest tokens as fit, two at least: a request that shows them leaves one in their place."""
        shown: list[Held] = []
        size = 0
        for held in self._held:
            size += len(held.text) + 1
            if len(shown) >= 2 and size - 1 > max_bytes:
                break
            shown.append(held)
        self._in_flight.append(tuple(shown))
        return tuple(shown)

    def end(
        self, shown: tuple[Held, ...], token: str | None, domain: str | None = None, dot: str | None = None
    ) -> None:
        """Take the token of a reply in; None when there was no answer, or one without a token."""
        self._in_flight.remove(shown)
        if not token:
            return
        new = self._describe(shown, token, domain, dot)
        same = next((held for held in self._held if held.text == token), None)
        if same is not None:  # one text has one content, so both descriptions are true of it
            new = Held(token, _join([same.commits, new.commits]), same.items | new.items)
        rest = [held for held in self._held if held not in shown and held.text != token and not new.covers(held)]
        if same is not None or not any(held.covers(new) for held in rest):
            rest.append(self._forget(new, rest))
        self._held = rest

    @staticmethod
    def _describe(shown: Iterable[Held], token: str, domain: str | None, dot: str | None) -> Held:
        shown = list(shown)
        commits = _join(held.commits for held in shown)
        items = frozenset().union(*(held.items for held in shown))
        replica, colon, seq = (dot or "").rpartition(":")
        if domain is None or not colon or not seq.isdigit():
            return Held(token, commits, items | {token})
        return Held(token, _join([commits, {(domain, replica): int(seq)}]), items)

    def _forget(self, new: Held, rest: Iterable[Held]) -> Held:
        """With one item in place of those that nobody else holds: only what grows out of this token covers it then."""
        if len(new.items) <= MAX_ITEMS:
            return new
        others = frozenset().union(
            *(held.items for held in rest), *(held.items for shown in self._in_flight for held in shown)
        )
        return Held(new.text, new.commits, (new.items & others) | {new.text})


def _join(maps: Iterable[Mapping[tuple[str, str], int]]) -> dict[tuple[str, str], int]:
    result: dict[tuple[str, str], int] = {}
    for commits in maps:
        for replica, seq in commits.items():
            result[replica] = max(seq, result.get(replica, 0))
    return result

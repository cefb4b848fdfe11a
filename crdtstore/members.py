"""Pages of what one key holds: elements of sets, fields of maps, events of logs, and whether one of them is there.

The question: what does a page of a large key cost? The page. What it holds is kept sorted from the first page on, so a page is found by
bisection, and whether an element is in is one look. The events of a log stand in the order of their writes, not of their ids, and one
that is appended again from elsewhere may turn out to be older; then they are sorted anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from crdtstore.causal import ReplicaId
from crdtstore.clock import physical_ms, rfc3339
from crdtstore.errors import UsageError
from crdtstore.leaves import MAX, PUT, Branch, Order, ValueOrder
from crdtstore.types import REGISTRY, CrdtType, View
from crdtstore.types.or_map import part_of, split_part
from crdtstore.values import check_element, check_text, element_order, pack, show

__all__ = ["MAX_LOOKED", "MAX_PAGE_BYTES", "Page", "has_member", "members"]

MAX_LOOKED = 5_000
"""So many parts are looked at for one page; of most of them nothing may be left to read."""
MAX_PAGE_BYTES = 1 << 20
"""A page is closed when its values reach this size; one item always fits."""

_SETS = ("aw_set", "g_set", "rw_set")
_KINDS = {"aw_set": MAX, "event_log": PUT, "g_set": MAX, "lww_map": PUT, "rw_set": PUT}
"""The class of the leaf that says that something is there; in an or_map any does."""


class Page:
    """The items of one page, gathered in order. Mutable; ``following`` is where the next page goes on, None: there is none."""

    def __init__(self, limit: int) -> None:
        self.items: list[Any] = []
        self.following: Any = None
        self._limit = limit
        self._last: Any = None
        self._looked = 0
        self._bytes = 0

    def ends_before(self) -> bool:
        """Whether the page is full: what was found now stands on the next."""
        is_full = len(self.items) == self._limit or (self._bytes >= MAX_PAGE_BYTES and bool(self.items))
        if is_full:
            self.following = self._last
        return is_full

    def add(self, at: Any, item: Any, value: Any) -> None:
        """Put what was found at a place on the page; ``value`` is what may be large of it."""
        self.items.append(item)
        self._bytes += len(pack(value))
        self._last = at

    def ends_after(self, at: Any) -> bool:
        """Whether so much was looked at for this page that it ends here, whatever was found."""
        self._looked += 1
        is_long = self._looked >= MAX_LOOKED
        if is_long:
            self.following = at
        return is_long


def members(crdt: CrdtType, view: View, after: Any, limit: int) -> Page:
    """A page of the members of a key, from the first behind ``after`` (None: from the beginning).

    Cost:    O(page), after a first page that sorts.
    Raises:  UsageError ``invalid-op`` for a type without members, ``invalid-value`` for what cannot be one; nothing changed.
    """
    check = _check(crdt)
    if after is not None:
        after = check(after, "after")
    if crdt.name == "event_log":
        return _page_of_events(view, after, limit)
    page = Page(limit)
    for part in _parts(view, after, limit):
        child = view.child(part)
        if _is_there(crdt, view, part, child):
            if page.ends_before():
                break
            item, value = _item(crdt, part, child)
            page.add(part, item, value)
        if page.ends_after(part):
            break
    return page


def has_member(crdt: CrdtType, view: View, member: Any) -> bool:
    """Whether an element, a field or an event id is there: one look, however much else is.

    Raises:  as ``members``.
    """
    member = _check(crdt)(member, "has")
    if crdt.name == "or_map":
        return any(view.child(part_of(member, type_name)).exists for type_name in REGISTRY)
    return _is_there(crdt, view, member, view.child(member))


def _check(crdt: CrdtType) -> Callable[[Any, str], Any]:
    """What checks a member of this type.

    Raises:  UsageError ``invalid-op`` when it has none; nothing changed.
    """
    if crdt.name in _KINDS:
        return check_element if crdt.name in _SETS else check_text
    if crdt.name == "or_map":
        return check_text
    raise UsageError(
        f"the types {', '.join(sorted([*_KINDS, 'or_map']))} have members, {crdt.name} has none: read the key. "
        "Nothing changed.",
        code="invalid-op",
    )


# --- sets and maps


def _is_there(crdt: CrdtType, view: View, part: Any, child: View) -> bool:
    """Whether a part stands for something that a read shows."""
    if not child.exists:
        return False
    if crdt.name in _KINDS:
        return child.has(_KINDS[crdt.name]) and (crdt.name in _SETS or isinstance(part, str))
    if not isinstance(part, str):
        return False
    name, type_name = split_part(part)
    others = (other for other in REGISTRY if other < type_name)  # of two types under one name the first serves
    return type_name in REGISTRY and not any(view.child(part_of(name, other)).exists for other in others)


def _item(crdt: CrdtType, part: Any, child: View) -> tuple[Any, Any]:
    """What a page shows of a part that is there, and what of it may be large."""
    if crdt.name in _SETS:
        return part, part
    if crdt.name == "or_map":
        name, type_name = split_part(part)
        value = REGISTRY[type_name].read(child)
        return {"field": name, "value": value}, value
    value = child.live()[-1].value
    return {"field": part, "value": value}, value


def _parts(view: View, after: Any, limit: int) -> Iterator[Any]:
    """The parts behind ``after``, in order, taken in pieces: looking at one may carry out drops, which changes what is behind it."""
    count = limit + 1
    while True:
        order = view.order(_sorted_parts)
        start = 0 if after is None else order.bisect_key_right(element_order(after))
        piece = list(order.islice(start, start + count))
        yield from piece
        if len(piece) < count:
            return
        after = piece[-1]


def _sorted_parts(branch: Branch) -> Order:
    return Order(branch.children)


# --- logs

_Place = tuple[int, str, int, str]
"""Where an event stands: the order of all writes, then, within a commit, that of names."""
_NOWHERE: _Place = (1 << 80, "", 0, "")


def _page_of_events(view: View, after: str | None, limit: int) -> Page:
    page = _true_page(view, after, limit)
    if page is None:
        assert type(view.entry) is Branch
        view.entry.order = None
        page = _true_page(view, after, limit)
        assert page is not None
    return page


def _true_page(view: View, after: str | None, limit: int) -> Page | None:
    """A page of events; None when they are not sorted any more: one was appended again, from before, under its id."""
    order = view.order(partial(_sorted_events, view.replicas))
    start = 0
    if after is not None:
        place = _place_of(after, view.child(after))
        if place is _NOWHERE:
            raise UsageError(
                f"this region has no event {show(after)} at this key; a page goes on after the next of the page before. "
                "Nothing changed.",
                code="invalid-value",
            )
        start = order.bisect_key_right(place)
        if next(order.islice(start - 1, start), None) != after:
            return None
    page, before = Page(limit), (0, "", 0, "")
    for name in list(order.islice(start, start + limit + 1)):
        child = view.child(name)
        place = _place_of(name, child)
        if place < before:
            return None
        if place is _NOWHERE or page.ends_before():  # what a later version stores beside events stands behind them
            break
        live = child.live()[0]
        item = {"id": name, "body": live.value, "dot": str(live.dot), "time": rfc3339(physical_ms(live.hlc))}
        page.add(name, item, live.value)
        before = place
    return page


def _place_of(name: Any, child: View) -> _Place:
    live = child.live() if isinstance(name, str) else []
    return (*live[0][:3], name) if live else _NOWHERE


def _sorted_events(replicas: Sequence[ReplicaId], branch: Branch) -> ValueOrder:
    children = branch.children  # not the branch: it would hold itself, and the collector passes over it
    return ValueOrder(children, lambda name: _place_of(name, View(replicas, children.get(name))))

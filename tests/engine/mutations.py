"""Messages as a broken peer would say them: any message of a session, with any part of it changed.

A session is a list of (who it was said to, by whom, bytes). A mutation keeps the form of msgpack, so that it reaches the rules behind the
decoder; the bytes themselves are spoilt in ``test_host``.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import msgpack
import zstandard
from hypothesis import strategies as st

from crdtstore.messages import PROTOCOL_VERSION

HUGE = (-(1 << 63), -1, 0, 1, 2, (1 << 31) - 1, (1 << 48) - 1, 1 << 48, (1 << 53) - 1, (1 << 63) - 1, (1 << 64) - 1)


def words_of(data: bytes) -> list[Any]:
    """What a message says, as lists."""
    payload = data[2:] if data[1] == 0 else zstandard.decompress(data[2:])
    words: list[Any] = msgpack.unpackb(payload, strict_map_key=False)
    return words


def message_of(words: Any) -> bytes:
    return bytes((PROTOCOL_VERSION, 0)) + msgpack.packb(words)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in it."""
    found = [path] if path else []
    if isinstance(value, list):
        for at, item in enumerate(value):
            found += places(item, (*path, at))
    elif isinstance(value, dict):
        for name, item in value.items():
            found += places(item, (*path, name))
    return found


def at(value: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        value = value[step]
    return value


@st.composite
def changed(draw: st.DrawFn, value: Any, others: list[Any]) -> Any:
    """Another value in this place: of the same kind, or any."""
    do = draw(st.sampled_from(("near", "huge", "other", "strange")))
    if do == "near" and isinstance(value, int):
        return value + draw(st.integers(-3, 3))
    if isinstance(value, int) and do != "strange":
        return draw(st.sampled_from(HUGE))
    if isinstance(value, bytes) and value and do == "near":
        return bytes((value[0] ^ 1, *value[1:]))
    if isinstance(value, list) and do == "near":
        how = draw(st.sampled_from(("drop", "double", "turn", "empty", "many")))
        if how == "many":
            return value * draw(st.sampled_from((2, 300)))
        return {"drop": value[1:], "double": value[:1] + value, "turn": value[::-1], "empty": []}[how]
    same = [other for other in others if type(other) is type(value)]
    if do != "strange" and same:
        return deepcopy(draw(st.sampled_from(same)))
    return draw(st.sampled_from((None, True, -1, 1.5, "", "us", b"", b"\xff" * 40, [], {}, [[[[]]]])))


@st.composite
def mutated(draw: st.DrawFn, messages: list[bytes]) -> bytes:
    """A message, changed in one to three places; parts may come from another message."""
    words = words_of(draw(st.sampled_from(messages)))
    other = words_of(draw(st.sampled_from(messages)))
    others = [at(other, path) for path in places(other)]
    for _ in range(draw(st.integers(0, 3))):
        path = draw(st.sampled_from(places(words) or [(0,)]))
        place = at(words, path[:-1])
        place[path[-1]] = draw(changed(place[path[-1]], others))
    try:
        return message_of(words)
    except OverflowError:  # not on any wire
        return message_of([0])

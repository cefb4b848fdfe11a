"""What the verbs of the command line share: opening the store and parsing what was typed."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from crdtstore.errors import Unavailable, UsageError
from crdtstore.types import Mutator
from crdtstore.values import from_json
from crdtstore_client.handles import Handle, OrMap, milliseconds
from crdtstore_client.http import HttpTransport
from crdtstore_client.store import Store, connect
from crdtstore_client.transport import NotSent, ReplyLost

__all__ = [
    "TTL_KINDS",
    "arguments_of",
    "ask_all",
    "element_of",
    "field_of",
    "note_identity",
    "open_store",
    "option_of",
    "run",
    "typed",
]

T = TypeVar("T")

ASK_SECONDS = 2.0
DEFAULT_TIMEOUT = 5.0


def _connect(settings: dict[str, Any], urls: Sequence[str]) -> Store:
    """Over HTTP unless ``settings["is_busy"]``: for a request or two no session is worth its handshake."""
    auth = None
    if auth_file := settings.get("auth_file"):
        auth = Path(auth_file).read_text().strip()
    return connect(
        *urls,
        auth=auth,
        timeout=settings.get("timeout", DEFAULT_TIMEOUT),
        token=settings.get("token"),
        transport=settings.get("transport") or (None if settings.get("is_busy") else HttpTransport()),
    )


async def open_store(settings: dict[str, Any]) -> Store:
    """The store that the options name; with ``--region``, over the nodes of that region only."""
    urls = [url.strip() for url in settings.get("urls", "").split(",") if url.strip()]
    store = _connect(settings, urls)
    region = settings.get("region")
    if region is None:
        return store
    answers = await ask_all(store)
    await store.close()
    chosen = [url for url, status in answers.items() if status is not None and status["region"] == region]
    if chosen:
        return _connect(settings, chosen)
    found = ", ".join(sorted({status["region"] for status in answers.values() if status is not None})) or "none"
    silent = ", ".join(url for url, status in answers.items() if status is None)
    if silent:
        raise Unavailable(
            f"no node of region {region} answers (no answer from {silent}; others are in: {found}). Nothing changed.",
            code="unreachable",
        )
    raise UsageError(f"none of the urls is in region {region}, they are in: {found}. Nothing changed.")


async def ask_all(store: Store) -> dict[str, dict[str, Any] | None]:
    """What every node says of itself, asked at once; None where there was no answer."""

    async def ask(url: str) -> dict[str, Any] | None:
        try:
            reply = await store._link.probe(url, ASK_SECONDS)
        except (NotSent, ReplyLost):
            return None
        return reply.body if "node" in reply.body else None

    nodes, found = store._link.nodes, dict[str, dict[str, Any] | None]()
    while urls := [node.url for node in nodes if node.url not in found]:  # workers tell of the others of their node
        answers = await asyncio.gather(*map(ask, urls))
        found |= zip(urls, answers, strict=True)
        for node in list(nodes):
            if (body := found.get(node.url)) is not None:
                nodes.learn(node, body, body["node"])
    return found


def run(ctx: click.Context, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run ``work`` with the store that the options name."""

    async def whole() -> T:
        store = await open_store(ctx.ensure_object(dict))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


_MARKS = {
    "removed": "the node that answered was removed from the cluster",
    "fenced": "the node that answered must not use its id any more",
    "unproven": "the node that answered has not proven yet that it is itself",
}


def note_identity(body: dict[str, Any]) -> None:
    """Say beside an answer, where programs do not read it, that its node does not belong to the cluster for sure."""
    if (mark := body.get("identity")) is not None:
        who = _MARKS.get(mark, f"the node that answered is {str(mark)[:40]!r}")
        click.echo(f"note: {who}; what it shows may be old, or be nowhere else", err=True)


# --- what was typed


def typed(text: str) -> Any:
    """A value: JSON where it is JSON, otherwise the text itself."""
    try:
        return from_json(text.encode())
    except (ValueError, UnicodeEncodeError):
        return text


def element_of(text: str) -> Any:
    """An element: numbers, quoted texts and ``$bytes`` as JSON; words such as true are texts."""
    value = typed(text)
    return text if value is None or isinstance(value, bool) else value


def _seconds(text: str, *, is_needed: bool = False) -> Any:
    """A time to live in seconds, as milliseconds; ``never`` is none, unless one is needed."""
    if text in {"never", "null"} and not is_needed:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not math.isfinite(seconds):
        or_never = "" if is_needed else ", or never"
        raise UsageError(
            f"ttl must be seconds, such as 3600{or_never}, got {text!r:.100}. Nothing changed.", code="invalid-value"
        )
    return milliseconds(seconds)


def field_of(handle: Handle[Any], step: str) -> Handle[Any]:
    """The field of an or_map that ``--path`` names: its name where fields were declared, otherwise ``name:type``."""
    if not isinstance(handle, OrMap):
        raise UsageError(
            f"--path {step[:100]!r} leads into an or_map, and {handle!r} is none. Nothing changed.", code="invalid-op"
        )
    name, colon, type_name = step.rpartition(":")
    if step in handle.declared:
        return handle.field(step, handle.declared[step])
    if handle.declared and (not colon or name not in handle.declared):
        known = ", ".join(sorted(handle.declared))
        raise UsageError(
            f"--path names a field that was declared ({known[:500]}), got {step[:100]!r}. Nothing changed.",
            code="invalid-op",
        )
    if not colon:
        raise UsageError(
            f"--path is NAME:TYPE, such as visits:counter, got {step[:100]!r}. Nothing changed.", code="invalid-op"
        )
    return handle.field(name, type_name)


def option_of(text: str) -> tuple[str, Any]:
    """``name=value`` of an option or a field."""
    name, sign, value = text.partition("=")
    if not sign or not name:
        raise UsageError(f"expected name=value, got {text!r:.100}. Nothing changed.", code="bad-request")
    return name, typed(value)


def _fields(given: Sequence[str]) -> Any:
    """A map, as one JSON object or as ``name=value`` pairs."""
    if len(given) == 1 and isinstance(value := typed(given[0]), dict):
        return value
    return dict(map(option_of, given))


_REST: dict[str, Callable[[Sequence[str]], Any]] = {
    "elements": lambda given: [element_of(text) for text in given],
    "names": list,
    "fields": _fields,
}
_ONE: dict[str, Callable[[str], Any]] = {
    "amount": typed,
    "duration": lambda text: _seconds(text, is_needed=True),
    "element": element_of,
    "integer": typed,
    "natural": typed,
    "orderable": element_of,
    "text": str,
    "ttl": _seconds,
    "value": typed,
}
TTL_KINDS = frozenset({"ttl", "duration"})
"""Arguments of these kinds are typed in seconds."""
_OPTION = "some_names"
"""Arguments of this kind are given as an option of the verb."""


def arguments_of(mutator: Mutator | None, given: Sequence[str]) -> dict[str, Any]:
    """What stands after the address, as arguments of the op; the registry judges them. None is ``delete``."""
    left = list(given)
    name = "delete" if mutator is None else mutator.name
    arguments: dict[str, Any] = {}
    declared = [each for each in (mutator.arguments if mutator is not None else ()) if each.kind != _OPTION]
    for argument in declared:
        if not left:
            break
        if argument.kind in _REST:
            arguments[argument.name] = _REST[argument.kind](left)
            left = []
        else:
            arguments[argument.name] = _ONE[argument.kind](left.pop(0))
    for argument in declared:
        if argument.name not in arguments and argument.kind in TTL_KINDS:
            or_never = ", or never" if argument.kind == "ttl" else ""
            raise UsageError(
                f"{name} needs the argument ttl (seconds, such as 3600{or_never}). Nothing changed.", code="invalid-op"
            )
    if left:
        known = ", ".join(argument.name.removesuffix("_ms") for argument in declared) or "no arguments"
        raise UsageError(f"{name} takes {known}; what is {left[0]!r:.100}? Nothing changed.", code="invalid-op")
    return arguments

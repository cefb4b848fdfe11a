"""What the verbs of the command line share: opening the store, parsing what was typed, showing what came back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from crdtstore.errors import Unavailable, UsageError
from crdtstore.types import Mutator
from crdtstore.values import from_json, to_json
from crdtstore_client.store import Store, connect
from crdtstore_client.transport import NotSent, ReplyLost

__all__ = ["arguments_of", "ask_all", "echo_json", "open_store", "option_of", "plain", "run", "short_dot", "typed"]

T = TypeVar("T")

ASK_SECONDS = 2.0
DEFAULT_TIMEOUT = 5.0


def _connect(settings: dict[str, Any], urls: Sequence[str]) -> Store:
    auth = None
    if auth_file := settings.get("auth_file"):
        auth = Path(auth_file).read_text().strip()
    return connect(
        *urls,
        auth=auth,
        timeout=settings.get("timeout", DEFAULT_TIMEOUT),
        token=settings.get("token"),
        transport=settings.get("transport"),
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

    urls = [node.url for node in store._link.nodes]
    return dict(zip(urls, await asyncio.gather(*map(ask, urls)), strict=True))


def run(ctx: click.Context, work: Callable[[Store], Awaitable[T]]) -> T:
    """Run ``work`` with the store that the options name."""

    async def whole() -> T:
        store = await open_store(ctx.ensure_object(dict))
        try:
            return await work(store)
        finally:
            await store.close()

    return asyncio.run(whole())


# --- what was typed


def typed(text: str) -> Any:
    """A value: JSON where it is JSON, otherwise the text itself."""
    try:
        return from_json(text.encode())
    except (ValueError, UnicodeEncodeError):
        return text


def _element(text: str) -> Any:
    """An element: numbers, quoted texts and ``$bytes`` as JSON; words such as true are texts."""
    value = typed(text)
    return text if value is None or isinstance(value, bool) else value


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
    "elements": lambda given: [_element(text) for text in given],
    "names": list,
    "fields": _fields,
}
_ONE: dict[str, Callable[[str], Any]] = {"integer": typed, "text": str, "value": typed, "element": _element}


def arguments_of(mutator: Mutator | None, given: Sequence[str]) -> dict[str, Any]:
    """What stands after the address, as arguments of the op; the registry judges them. None is ``delete``."""
    left = list(given)
    arguments: dict[str, Any] = {}
    declared = mutator.arguments if mutator is not None else ()
    for argument in declared:
        if not left:
            break
        if argument.kind in _REST:
            arguments[argument.name] = _REST[argument.kind](left)
            left = []
        else:
            arguments[argument.name] = _ONE[argument.kind](left.pop(0))
    if left:
        known = ", ".join(argument.name for argument in declared) or "no arguments"
        raise UsageError(f"the op takes {known}; what is {left[0]!r:.100}? Nothing changed.", code="invalid-op")
    return arguments


# --- what is shown


def plain(value: Any) -> str:
    """A value as people read it: text as it is, anything else as JSON; never a control character."""
    if isinstance(value, str) and value.isprintable() and value:
        return value
    return json.dumps(to_json(value), ensure_ascii=not _is_printable(value))


def _is_printable(value: Any) -> bool:
    return json.dumps(to_json(value), ensure_ascii=False).isprintable()


def echo_json(value: Any) -> None:
    """One JSON document on stdout."""
    click.echo(json.dumps(to_json(value), ensure_ascii=False))


def short_dot(dot: str) -> str:
    """A dot as tables show it: the node instead of the whole replica id."""
    replica, _, seq = dot.rpartition(":")
    return f"{replica.rpartition('.')[0] or replica}:{seq}"

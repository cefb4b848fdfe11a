"""The verbs of the command line that write: one per op of the registry.

The question: what does a verb mean? What the type of the collection says: ``add`` takes an amount on a counter and
elements on a set. So a write asks for the declaration first, and its arguments are judged by the registry, as
everywhere.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from typing import Any

import click

from crdtstore.cli import common_options
from crdtstore.errors import NotReplicated, UsageError
from crdtstore.types import REGISTRY, Argument
from crdtstore_client.address import split_address
from crdtstore_client.cli_show import echo_json, plain, short_dot
from crdtstore_client.cli_support import TTL_KINDS, arguments_of, field_of, run
from crdtstore_client.handles import Handle, Hold, OrMap
from crdtstore_client.ops import Ack, Op
from crdtstore_client.store import Store

__all__ = ["verbs"]

WIDTH = 76
_NEGATIVE = re.compile(r"-\.?[0-9]")
_MINUS = "\0"
"""Hides a negative number from the parser of options; no argument of a process can hold it."""


class _Verb(click.Command):
    """A command that takes ``-3`` for an argument, while a mistyped option stays an error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [_MINUS + arg if _NEGATIVE.match(arg) else arg for arg in args])


def _verb(name: str) -> click.Command:
    """The command of one op, whatever types have it."""

    @click.pass_context
    def send(
        ctx: click.Context,
        address: str,
        arguments: tuple[str, ...],
        path: tuple[str, ...] = (),
        fields: tuple[str, ...] = (),
        op_id: str | None = None,
    ) -> None:
        domain, collection, key = split_address(address, 3)
        given = [argument.removeprefix(_MINUS) for argument in arguments]

        async def work(store: Store) -> tuple[str, Ack[list[Any]]]:
            target = store.domain(domain)
            declared = await target.describe(collection)
            handle = target.collection(collection, declared["type"], declared["options"])[key]
            for step in path:
                handle = field_of(handle, step)
            op = _op(handle, name, given, fields)
            reason, regions = ctx.obj.get("reason"), ctx.obj.get("regions", 0)
            try:
                ack = await target.commit(op, reason=reason, regions=regions, id=op_id)
            except NotReplicated as late:
                if "dot" not in late.more:
                    raise
                ack = _ack_of(late, op)
                click.echo(f"note: {late.detail}", err=True)
            else:
                if regions:
                    click.echo(f"durable in {', '.join(ack.durable_in)}", err=True)
            return handle.type_name, ack

        type_name, ack = run(ctx, work)
        values = [value.id if isinstance(value, Hold) else value for value in ack.value]
        if ctx.obj.get("as_json"):
            shown = {"dot": ack.dot, "token": ack.token, "values": values}
            echo_json({**shown, "replayed": ack.replayed, "durable_in": ack.durable_in})
        elif name not in {"delete", "expire"} and REGISTRY[type_name].shows_value:
            click.echo(plain(values[0]))
        else:
            click.echo(f"ok  {short_dot(ack.dot)}")

    command = common_options(send)
    for option in _options_of(name):
        command = option(command)
    arguments = click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGUMENTS]...")
    make = click.command(name, cls=_Verb, help=_help_of(name), short_help=_short_help_of(name))
    return make(click.argument("address")(arguments(command)))


def _ack_of(late: NotReplicated, op: Op[Any]) -> Ack[list[Any]]:
    """A write that is done, though not in as many regions as was asked for."""
    known = late.more
    values = [op.decode(value) for value in known["values"]]
    return Ack(values, known["dot"], known["token"], known["replayed"], tuple(late.durable_in))


def _op(handle: Handle[Any], name: str, given: list[str], fields: tuple[str, ...]) -> Op[Any]:
    mutator = REGISTRY[handle.type_name].mutators.get(name)
    if mutator is None and name != "delete":
        if isinstance(handle, OrMap):
            which = (
                f"--path NAME, of {', '.join(sorted(handle.declared))[:500]}" if handle.declared else "--path NAME:TYPE"
            )
            raise UsageError(
                f"or_map has no operation {name!r} itself; for one of its fields say which: {which}. Nothing changed.",
                code="invalid-op",
            )
        return handle.op(name)  # which says what there is instead
    arguments = arguments_of(mutator, given)
    if fields:
        arguments["fields"] = list(fields)
    return handle.op(name, **arguments)


# --- help


def _options_of(name: str) -> list[Any]:
    text = "Operation id: under the id of an earlier attempt it counts once."
    options = [click.option("--id", "op_id", metavar="TEXT", help=text)]
    if name == "delete" or any(REGISTRY[type_name].nestable for type_name in _users_of(name)):
        text = "A field of an or_map: NAME where fields were declared, otherwise NAME:TYPE; again for a field of that."
        options.append(click.option("--path", multiple=True, metavar="FIELD", help=text))
    arguments = [argument for type_name in _users_of(name) for argument in REGISTRY[type_name].mutators[name].arguments]
    if any(argument.kind == "some_names" for argument in arguments):
        text = "Only this field of an lww_map; again for another one."
        options.append(click.option("--fields", multiple=True, metavar="NAME", help=text))
    return options


def _users_of(name: str) -> list[str]:
    return [type_name for type_name, crdt in REGISTRY.items() if name in crdt.mutators]


_OF_MOST = {
    "delete": "Remove what this region has seen of a key; concurrent writes survive.",
    "expire": "Let a key end so many seconds from now, or never by itself.",
}
"""What so many types have alike that their names say nothing."""


_REPEATED = {
    "elements": "ELEMENT...",
    "fields": "NAME=VALUE...",
    "names": "NAME...",
    "some_names": "[--fields NAME]...",
}
"""What is typed as often as need be."""
_TYPED = {
    "elements": 'An ELEMENT is a number, {"$bytes": "<base64>"}, or else a text; a number in quotes, \'"7"\', is a text.',
    "value": "A VALUE is JSON, or, where it is none, the text itself; a number in quotes, '\"7\"', is a text.",
}
"""How that is told apart."""


def _short_help_of(name: str) -> str:
    if name in _OF_MOST:
        return _OF_MOST[name]
    users = _users_by(name, lambda type_name: _doc(type_name, name))
    if len(users) == 1:
        return next(iter(users))
    return " ".join(f"{', '.join(types)}: {doc}" for doc, types in users.items())


def _help_of(name: str) -> str:
    if name == "delete":
        kept = ", ".join(type_name for type_name, crdt in REGISTRY.items() if not crdt.deletable)
        return f"{_OF_MOST[name]} Not for: {kept}."
    users = _users_by(name, lambda type_name: f"{_usage(type_name, name)}\n{_doc(type_name, name)}")
    lines = []
    for said, types in users.items():
        usage, doc = said.split("\n")
        lines += [*textwrap.wrap(f"{', '.join(types)}:", WIDTH), f"  {usage}"]
        lines += [f"      {line}" for line in textwrap.wrap(doc, WIDTH - 6)]
    first = "What it means is said by the type of the collection.\n\n" if len(users) > 1 else ""
    kinds = {
        argument.kind for type_name in _users_of(name) for argument in REGISTRY[type_name].mutators[name].arguments
    }
    last = "".join(f"\n\n{_TYPED[kind]}" for kind in ("elements", "value") if kind in kinds)
    return f"{first}\b\n" + "\n".join(lines) + last


def _users_by(name: str, said_of: Callable[[str], str]) -> dict[str, list[str]]:
    """The types that have the op, by what is to be said of each."""
    users: dict[str, list[str]] = {}
    for type_name in _users_of(name):
        users.setdefault(said_of(type_name), []).append(type_name)
    return users


def _usage(type_name: str, name: str) -> str:
    return " ".join([name, "ADDRESS", *map(_word, REGISTRY[type_name].mutators[name].arguments)])


def _doc(type_name: str, name: str) -> str:
    doc = REGISTRY[type_name].mutators[name].doc.splitlines()[0]
    return doc.replace("milliseconds", "seconds").replace("null: ", "never: ")


def _word(argument: Argument) -> str:
    if argument.kind in _REPEATED:
        return _REPEATED[argument.kind]
    word = argument.name.removesuffix("_ms").upper()
    if argument.kind in TTL_KINDS:
        word += "_SECONDS"
    return word if argument.required else f"[{word}={plain(argument.default)}]"


verbs = [_verb(name) for name in sorted({name for crdt in REGISTRY.values() for name in crdt.mutators} | {"delete"})]

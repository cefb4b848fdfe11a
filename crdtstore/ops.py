"""Operations as users write them: plain maps, each checked against what was declared.

The question: what is an operation on a field of a map? The same operation, some levels down. ``path`` says which field, and of which type
unless the collection declares it; everything else is as at a key, so no type knows whether it stands at a key or in a field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from crdtstore.declarations import Declared, check_name
from crdtstore.engine.events import Op
from crdtstore.errors import UsageError
from crdtstore.types import REGISTRY, CrdtType
from crdtstore.types.or_map import part_of, split_part
from crdtstore.values import check_text, show

__all__ = ["asked_of", "check_collection", "check_key", "check_op"]

MAX_KEY_BYTES = 512
MAX_FIELD_BYTES = 512
MAX_STEPS = 16
"""How deep a path may go: far below what a path in a commit may have, and what is read stays a value that every reader can hold."""
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_ADDRESS = frozenset(("collection", "key", "op", "if_match", "path"))
"""The fields of an operation that are no arguments."""
_MAP = "or_map"


def check_collection(name: Any) -> str:
    """A collection's name as a commit may name it."""
    return check_name(name, "collection")


def check_key(key: Any) -> str:
    """A key: text of 1 to 512 bytes of UTF-8, no control characters, not ``.`` or ``..``.

    Raises:  UsageError ``bad-request``; nothing changed.
    """
    if not isinstance(key, str):
        raise UsageError(f"a key is text, got a {type(key).__name__}. Nothing changed.")
    if key.isascii() and key.isprintable() and 2 < len(key) <= MAX_KEY_BYTES:
        return key  # most are: no more has to be looked at
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise UsageError("a key is valid Unicode, got a lone surrogate. Nothing changed.") from None
    if not 0 < size <= MAX_KEY_BYTES:
        raise UsageError(f"a key has 1 to {MAX_KEY_BYTES} bytes, got {size}. Nothing changed.")
    if key in (".", "..") or _CONTROL.search(key):
        raise UsageError(f"a key is not . or .. and has no control characters, got {key[:100]!r}. Nothing changed.")
    return key


# --- fields of maps


_Place = tuple[CrdtType, Mapping[str, Any], tuple[str, ...]]
"""Where an operation acts: the type and the options there, and the path below the key."""


def _refused(detail: str) -> UsageError:
    return UsageError(f"{detail}. Nothing changed.", code="invalid-op")


def _place(collection: str, here: _Place, path: Any) -> _Place:
    """Follow the path of an operation down from its key.

    Raises:  UsageError ``invalid-op`` or ``invalid-value``; nothing changed.
    """
    if not isinstance(path, list | tuple) or not path:
        raise _refused(f'path is a list of steps such as ["visits"] or [["visits", "counter"]], got {show(path)}')
    if len(path) > MAX_STEPS:
        raise _refused(f"a path has at most {MAX_STEPS} steps, got {len(path)}")
    crdt, options, below = here
    for step in path:
        if crdt.name != _MAP:
            where = collection if not below else f"the field {show(split_part(below[-1])[0])}"
            raise _refused(f"path leads into an {_MAP}, and {where} is of the type {crdt.name}")
        name, crdt = _step(step, options.get("fields"))
        options, below = crdt.options, (*below, part_of(name, crdt.name))
    return crdt, options, below


def _step(step: Any, declared: Any) -> tuple[str, CrdtType]:
    """The field a step names, and its type: the declared one, else the one that it gives."""
    is_pair = isinstance(step, list | tuple) and len(step) == 2
    name = step[0] if is_pair else step
    if isinstance(declared, Mapping) and declared:
        if not isinstance(name, str) or name not in declared:
            there_are = ", ".join(sorted(map(str, declared)))
            raise _refused(f"the collection declares the fields {there_are[:500]}, not {show(name)}")
        if is_pair and step[1] != declared[name]:
            raise _refused(f"the field {show(name)} is declared as {declared[name]}, not as {show(step[1])}")
        return name, _nestable(declared[name])
    if not is_pair:
        raise _refused(f'a step of a path is a pair [name, type] such as ["visits", "counter"], got {show(step)}')
    size = len(check_text(name, "the name of a field").encode())
    if size > MAX_FIELD_BYTES:
        raise UsageError(
            f"the name of a field has at most {MAX_FIELD_BYTES} bytes, got {size}. Nothing changed.",
            code="invalid-value",
        )
    return name, _nestable(step[1])


def _nestable(type_name: Any) -> CrdtType:
    crdt = REGISTRY.get(type_name) if isinstance(type_name, str) else None
    if crdt is None or not crdt.nestable:
        known = ", ".join(name for name, each in REGISTRY.items() if each.nestable)
        raise _refused(f"a field may be of the types {known}, not {show(type_name)}")
    return crdt


# --- operations


def check_op(fields: Mapping[str, Any], declared: Callable[[str], Declared]) -> Op:
    """The checked operation that a map of fields stands for; ``declared`` finds the collection it names.

    Raises:  UsageError with what was wrong; nothing changed.
    """
    name, if_match, path = fields.get("op"), fields.get("if_match"), fields.get("path")
    if not isinstance(name, str):
        raise _refused("an op names what to do in the field op")
    if if_match is not None and not isinstance(if_match, str):
        raise UsageError("if_match is an etag as a read returned it. Nothing changed.")
    what = declared(check_collection(fields.get("collection")))
    key = check_key(fields.get("key"))
    here: _Place = what.crdt, what.options, ()
    crdt, options, below = here if path is None else _place(what.name, here, path)
    mutator = crdt.mutators.get(name)
    if mutator is not None:
        arguments = mutator.check(fields, _ADDRESS)
        crdt.check(arguments, options)
        return Op(crdt, what.path, key, mutator, arguments, if_match, below, what.options)
    if name in ("delete", "expire") and not crdt.deletable:
        end = "be deleted" if name == "delete" else "expire"
        raise UsageError(f"a key of type {crdt.name} cannot {end}. Nothing changed.", code="not-deletable")
    if name != "delete":
        known = ", ".join(sorted([*crdt.mutators, *(["delete"] if crdt.deletable else [])]))
        raise _refused(f"{crdt.name} has the operations {known}, not {name[:100]!r}{_hint(crdt, path)}")
    if not fields.keys() <= _ADDRESS:
        raise _refused(f"delete takes no arguments, not {', '.join(sorted(fields.keys() - _ADDRESS))}")
    return Op(crdt, what.path, key, None, {}, if_match, below, what.options)


def _hint(crdt: CrdtType, path: Any) -> str:
    return "; path leads to an operation of a field" if crdt.name == _MAP and path is None else ""


def asked_of(op: Op) -> list[Any]:
    """What an operation asks for, as plain values: the request hash is over these. What stands at a key has no path in it."""
    asked = [op.collection, op.key, op.mutator.name if op.mutator else "delete", op.arguments]
    return [*asked, list(op.below)] if op.below else asked

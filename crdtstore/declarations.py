"""Declarations: which domains and collections there are, kept by the same engine in the group ``_sys``.

The question: what if two regions declare one name differently while they cannot hear each other? Both keep their data, because the type
is part of every path; the earlier declaration in (HLC, replica) order serves, the other stays readable as ``name@type``. Hence a
collection is a key of an event log with one entry per type: the first event is what serves.

* ``collections:event_log / <domain>/<collection> / <type>`` = {"type", "options"}
* ``domains:lww_map / <domain>`` = {"owner", "description", "shards"}; the last is written once, by who declares the domain, so that the
  writes that are there are all numbers it was declared with: the first one serves (``shards``), though a map would read the last
* ``groups:event_log / <domain> / <shard>`` = the configuration in which this group begins, where that is not the founders' (of two that
  were declared while cut apart the earlier counts; groups that began otherwise have parted, which is an alarm)
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from msgspec import ValidationError, convert, msgpack

from crdtstore.causal import NAME
from crdtstore.commit import Commit
from crdtstore.configuration import Configuration
from crdtstore.engine.engine import Engine
from crdtstore.engine.events import Op
from crdtstore.errors import ProtocolError, UsageError
from crdtstore.shards import MAX_SHARDS, Division
from crdtstore.types import REGISTRY, CrdtType
from crdtstore.types.event_log import first_events
from crdtstore.values import pack, show

__all__ = ["DOMAINS", "Declarations", "Declared", "check_name", "declared_groups"]

_COLLECTIONS, DOMAINS, _GROUPS = "collections:event_log", "domains:lww_map", "groups:event_log"
"""Parts of paths in ``_sys``."""
_SHARDS = "shards"


_LONGEST = 63
_is_name = lru_cache(1_000)(NAME.fullmatch)
"""Asked several times for each request, mostly of the same few."""


class Declared(NamedTuple):
    """A collection as it was declared."""

    name: str
    crdt: CrdtType
    options: dict[str, Any]
    path: str
    """The collection's part of a path."""


def _shown(crdt: CrdtType, options: dict[str, Any]) -> str:
    return f"{crdt.name} {show(options)}" if options else crdt.name


def _count(shards: int) -> str:
    return "1 shard" if shards == 1 else f"{shards} shards"


def _are_known(crdt: CrdtType, options: dict[str, Any]) -> bool:
    """Whether this version knows these options; a later one may have others, and what it declared serves there."""
    try:
        return crdt.check_options(options) is not None
    except UsageError:
        return False


def check_name(name: Any, what: str) -> str:
    """A domain's or collection's name.

    Raises:  UsageError ``bad-request``; nothing changed.
    """
    if not isinstance(name, str) or len(name) > _LONGEST or not _is_name(name):
        raise UsageError(
            f"a {what} is named like orders: [a-z][a-z0-9_-]*, at most 63 characters, got {show(name)}. Nothing changed."
        )
    return name


def declared_groups(path: Sequence[Any], value: Any) -> tuple[str, ...]:
    """The groups that are declared by what a commit of ``_sys`` writes to a path below ``DOMAINS``."""
    is_number = len(path) == 3 and path[2] == _SHARDS and type(value) is int and 0 < value <= MAX_SHARDS
    return Division.of(path[1], value if is_number else 1).groups


class Declarations:
    """What ``_sys`` declares, as this node sees it. Cached until ``_sys`` changes."""

    def __init__(self, system: Engine) -> None:
        self._system = system
        self._cache: dict[str, dict[str, Declared]] = {}
        self._readable: dict[str, dict[str, tuple[str, Declared]]] = {}
        self.divisions: dict[str, Division] = {}
        """Those that were asked for since ``_sys`` changed, by name (``division``): looked up for every request."""

    def forget_cache(self) -> None:
        self._cache.clear()
        self._readable.clear()
        self.divisions.clear()

    def domains_in(self, commit: Commit) -> list[str]:
        """Names of the domains that this commit declares, in order; what cannot be a name is passed over."""
        effects = commit.effects
        names = {path[1] for path in effects[1::3] if len(path) > 1 and path[0] == DOMAINS}
        return [name for name in sorted(names) if NAME.fullmatch(name) and self.domain(name) is not None]

    def domains(self) -> list[str]:
        """Names of all domains that are declared, in order."""
        names = list(self._system.keyspace.tree.keys(DOMAINS))
        return [name for name in names if NAME.fullmatch(name) and self.domain(name) is not None]

    def domain(self, domain: str) -> dict[str, Any] | None:
        """Owner, description and shards of a domain, None when it is not declared here."""
        view = self._system.keyspace.view(DOMAINS, domain)
        return {**REGISTRY["lww_map"].read(view), _SHARDS: self.numbers(domain)[0]} if view.exists else None

    # --- shards

    def numbers(self, domain: str) -> list[int]:
        """All numbers of shards that a domain was declared with, the one that serves first; none was before there were several: one."""
        live = self._system.keyspace.view(DOMAINS, domain).child(_SHARDS).live()
        found = [each.value for each in live if type(each.value) is int and 0 < each.value <= MAX_SHARDS]
        return list(dict.fromkeys(found)) or [1]

    def division(self, name: str) -> Division | None:
        """How a domain is divided by the number that serves, or for ``domain@number`` by that one; None: it is not declared so here."""
        found = self.divisions.get(name)
        if found is None:
            domain, at, number = name.partition("@")
            if self.domain(domain) is None:
                return None
            numbers = self.numbers(domain)
            wanted = next((each for each in numbers if str(each) == number), 0) if at else numbers[0]
            if not wanted:
                return None
            found = self.divisions[name] = Division.of(domain, wanted)
        return found

    def groups(self, domain: str) -> tuple[str, ...]:
        """The groups of a domain, by shard: of the greatest number, so that what was written under any of them is held everywhere."""
        return Division.of(domain, max(self.numbers(domain))).groups

    def configuration(self, group: str) -> Configuration | None:
        """The configuration in which a group begins, if it was declared when others than the founders held ``_sys``."""
        domain, _, shard = group.partition("/")
        view = self._system.keyspace.view(_GROUPS, domain)
        for name, event in first_events(view):
            if name != shard:
                continue
            try:
                configuration = convert(event.value, Configuration)
                configuration.check()
            except (ValidationError, ProtocolError):
                continue
            return configuration
        return None

    def _names(self, domain: str) -> list[str]:
        prefix = domain + "/"
        return [key[len(prefix) :] for key in self._system.keyspace.tree.keys(_COLLECTIONS, prefix=prefix)]

    def collections(self, domain: str) -> list[Declared]:
        """The collections of a domain, by name."""
        found = [self.collection(domain, name) for name in self._names(domain)]
        return [declared for declared in found if declared is not None]

    def readable(self, domain: str) -> dict[str, tuple[str, Declared]]:
        """All collections of a domain whose data can be read, by their part of a path: under which name, and as what."""
        found = self._readable.get(domain)
        if found is None:
            found = self._readable[domain] = {}
            for name in self._names(domain):
                for at, declared in enumerate(self.all_of(domain, name)):
                    found[declared.path] = (f"{name}@{declared.crdt.name}" if at else name, declared)
        return found

    def clashes(self, domain: str) -> list[dict[str, Any]]:
        """Collections that regions declared differently while they could not hear each other: what serves, and the types of the others.

        The type that serves is among these when it was also declared with other options. The domain itself, when it was declared with
        several numbers of shards: without a collection, and with numbers.
        """
        found: list[dict[str, Any]] = []
        numbers = self.numbers(domain)
        if len(numbers) > 1:
            found.append({"collection": None, "serves": numbers[0], "also": sorted(numbers[1:])})
        for name in self._names(domain):
            view = self._system.keyspace.view(_COLLECTIONS, f"{domain}/{name}")
            types = [declared.crdt.name for declared in self.all_of(domain, name)]
            twice = [each for each in types if len({pack(live.value) for live in view.child(each).live()}) > 1]
            also = sorted({*types[1:], *twice})
            if also:
                found.append({"collection": name, "serves": types[0], "also": also})
        return found

    def collection(self, domain: str, name: str) -> Declared | None:
        """The declaration that serves for ``name``, or for ``name@type`` the one of that type; None when there is none here."""
        known = self._cache.get(domain)
        if known is None:
            known = self._cache[domain] = {}
        declared = known.get(name)
        if declared is None:
            declared = self._find(domain, name)
            if declared is not None:
                known[name] = declared
        return declared

    def _find(self, domain: str, name: str) -> Declared | None:
        plain, _, wanted = name.partition("@")
        for declared in self.all_of(domain, plain):
            if wanted in ("", declared.crdt.name):
                return declared
        return None

    def batch_of(self, domain: str, name: str) -> tuple[Engine, int]:
        """The batch of ``_sys`` that a reader of this collection has to wait for; 0: none."""
        plain = name.partition("@")[0]
        return self._system, self._system.durability.waits_for(_COLLECTIONS, f"{domain}/{plain}")

    def all_of(self, domain: str, name: str) -> list[Declared]:
        """Every declaration of a name, the one that serves first."""
        view = self._system.keyspace.view(_COLLECTIONS, f"{domain}/{name}")
        found = []
        for type_name, event in first_events(view):
            crdt = REGISTRY.get(type_name)
            options = event.value.get("options") if isinstance(event.value, dict) else None
            if crdt is not None and isinstance(options, dict) and _are_known(crdt, options):
                found.append(Declared(name, crdt, options, f"{name}:{type_name}"))
        return found

    def declare_domain(self, domain: str, fields: dict[str, Any]) -> Op | None:
        """The operation that declares a domain, None when nothing would change.

        Raises:  UsageError ``type-mismatch`` when it has another number of shards; nothing changed.
        """
        known = self.domain(domain)
        shards = fields.get(_SHARDS)
        if known is not None and shards not in (None, known[_SHARDS]):
            raise UsageError(
                f"the domain {domain} has {_count(known[_SHARDS])}, not {shards}: their number is fixed when a domain is declared. "
                "Nothing changed.",
                code="type-mismatch",
            )
        new = {name: value for name, value in fields.items() if known is None or known.get(name) != value}
        if known is not None and not new:
            return None
        crdt = REGISTRY["lww_map"]
        mutator = crdt.mutators["set"]
        full = new if known is not None else {"owner": None, "description": None, **new, _SHARDS: shards or 1}
        return Op(crdt, DOMAINS, domain, mutator, mutator.check({"fields": full}))

    def begin(self, group: str, configuration: Configuration) -> Op:
        """The operation that says with which members a group begins."""
        domain, _, shard = group.partition("/")
        log = REGISTRY["event_log"]
        mutator = log.mutators["append"]
        body = msgpack.decode(msgpack.encode(configuration))
        return Op(log, _GROUPS, domain, mutator, mutator.check({"id": shard, "body": body}))

    def declare_collection(self, domain: str, name: str, crdt: CrdtType, options: dict[str, Any]) -> Op | None:
        """The operation that declares a collection, None when it is declared so already.

        Raises:  UsageError ``type-mismatch`` when it is declared otherwise; nothing changed.
        """
        known = self.collection(domain, name)
        if known is not None:
            if known.crdt is crdt and known.options == options:
                return None
            raise UsageError(
                f"{domain}/{name} is declared as {_shown(known.crdt, known.options)}, "
                f"not as {_shown(crdt, options)}. Nothing changed.",
                code="type-mismatch",
            )
        log = REGISTRY["event_log"]
        mutator = log.mutators["append"]
        body = {"type": crdt.name, "options": options}
        return Op(log, _COLLECTIONS, f"{domain}/{name}", mutator, mutator.check({"id": crdt.name, "body": body}))

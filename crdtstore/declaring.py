"""Declaring: what is written to ``_sys`` when a user declares a domain or a collection.

The question: who may declare? Whoever knows what the others declared, and is going to be there: else one name would be declared twice, or
a domain by a node that is about to go.
"""

from __future__ import annotations

from crdtstore.configuration import SYSTEM_GROUP
from crdtstore.engine.events import Op
from crdtstore.errors import Unavailable
from crdtstore.host import Host
from crdtstore.reading import Reader
from crdtstore.requests import DeclareDomainRequest, DeclareRequest
from crdtstore.shards import Division
from crdtstore.types import REGISTRY

__all__ = ["Declaring"]


class Declaring:
    """The declarations of one node's users. Changes nothing: it says which operations are to be committed, none when all is as asked."""

    def __init__(self, host: Host, reader: Reader) -> None:
        self._host = host
        self._reader = reader

    def domain(self, asked: DeclareDomainRequest) -> list[Op]:
        """The operations that declare a domain, or change what is said of it.

        Raises:  Unavailable, UsageError ``type-mismatch``; nothing changed.
        """
        declarations, roster = self._host.declarations, self._host.roster
        self._check()
        is_new = declarations.domain(asked.domain) is None
        op = declarations.declare_domain(asked.domain, asked.given())
        ops = [] if op is None else [op]
        if is_new:
            wanted = Division.of(asked.domain, asked.shards or 1)
            roster.check_new(wanted)
            begins = ((group, roster.beginning(group)) for group in wanted.groups)
            ops += [declarations.begin(group, beginning) for group, beginning in begins if beginning is not None]
        return ops

    def collection(self, asked: DeclareRequest) -> list[Op]:
        """The operation that declares a collection.

        Raises:  Unavailable, UsageError ``type-mismatch``, ``invalid-value``, ``not-declared``; nothing changed.
        """
        self._check()
        self._reader.division(asked.domain)
        crdt = REGISTRY[asked.type]
        options = crdt.check_options(asked.options)
        op = self._host.declarations.declare_collection(asked.domain, asked.collection, crdt, options)
        return [] if op is None else [op]

    def _check(self) -> None:
        """Refuse to declare where what others declared is not known, or where this node is about to go.

        Raises:  Unavailable; nothing changed.
        """
        host = self._host
        if not host.groups[SYSTEM_GROUP].is_installed:
            raise self._reader.not_ready("what is declared")
        if host.is_leaving and not host.roster.is_removed:  # it leaves the domains before it leaves the declarations
            raise Unavailable("this node leaves the cluster. Nothing changed.", code="leaving")

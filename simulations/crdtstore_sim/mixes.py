"""What users work on: collections of every type and their options, in mixes with names.

The question: how much at once? A few types on few keys find soonest what is wrong with each; what types do to each other in one commit,
and fields within fields, show only where all of them meet. So the mix that a fuzz takes by default is small, and ``all-types`` is all
there is, with a few favourites drawn by the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, NamedTuple

from crdtstore.types import REGISTRY

__all__ = ["MIXES", "Collection", "collections", "favoured"]

_BASIC = ("aw_set", "counter", "event_log", "lww_map", "lww_register")
MIXES = ("basic", "all-types")


class Collection(NamedTuple):
    """A collection that users work on."""

    name: str
    type_name: str
    options: Mapping[str, Any]

    @property
    def path(self) -> str:
        """As it stands in commits."""
        return f"{self.name}:{self.type_name}"


_FIELDS = {"more": "or_map", "name": "lww_register", "note": "text", "tags": "aw_set", "visits": "counter"}
_WITH_OPTIONS = (
    Collection("totals", "counter", {"grow_only": True}),
    Collection("rooms", "bounded_counter", {"lower": 3}),
    Collection("records", "or_map", {"fields": {name: kind for name, kind in _FIELDS.items() if kind in REGISTRY}}),
)


def collections(mix: str, types: list[str]) -> list[Collection]:
    """The collections of a mix, or those of some types only, in the order in which they are declared."""
    chosen = types or (_BASIC if mix == "basic" else REGISTRY)
    found = [Collection(f"{name}s", name, {}) for name in chosen if name in REGISTRY]
    if mix != "basic":
        found += [one for one in _WITH_OPTIONS if one.type_name in chosen and one.type_name in REGISTRY]
    return found


def favoured(random: Random, all_of_them: list[Collection]) -> list[Collection]:
    """The same, some of them several times: whoever chooses among these chooses the favourites more often, and maps of maps."""
    favourites = random.sample(all_of_them, min(3, len(all_of_them)))
    maps = [one for one in all_of_them if one.type_name == "or_map"]
    return all_of_them + 4 * favourites + 2 * maps

"""What a run is made of: replicas, work, network, disks, clocks and faults, validated once when it is read.

The question: what may a scenario leave open? Everything but its name: each part has a default, and the seed decides the rest.
Times are virtual seconds or milliseconds, as the names say. Replicas are named a, b, c, … in scenarios.
"""

from __future__ import annotations

from pathlib import Path
from string import ascii_lowercase
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct, field

from crdtstore.engine.options import Options
from crdtstore.errors import UsageError

__all__ = [
    "Clocks",
    "Crash",
    "Cut",
    "Disk",
    "Latency",
    "Members",
    "Network",
    "Pause",
    "Sale",
    "Scenario",
    "Step",
    "Work",
    "load",
    "names",
]

_BESIDE, _PACKAGED = Path(__file__).parents[1] / "scenarios", Path(__file__).parent / "scenarios"
DIRECTORY = _BESIDE if _BESIDE.is_dir() else _PACKAGED
"""The scenarios that come along: beside the package in the repository, inside it once installed."""

_Rate = Annotated[float, Meta(ge=0, le=0.9)]
_Seconds = Annotated[float, Meta(ge=0, le=86_400)]
_Replica = Annotated[str, Meta(pattern="^[a-h]$")]


class Latency(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One way. ``constant``: ms · ``uniform``: from ms/2 to 3/2 ms · ``lognormal``: median ms, sigma."""

    kind: Literal["constant", "uniform", "lognormal"] = "lognormal"
    ms: Annotated[float, Meta(gt=0, le=10_000)] = 12.0
    sigma: Annotated[float, Meta(ge=0, le=3)] = 0.4


class Network(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``loss``, ``duplicate``, ``reorder``: share of all messages. Silence for ``detection_s`` makes a node close a connection.

    ``bytes_per_s``: a link carries so much each way, what is more waits before it; 0: everything at once.
    """

    latency: Latency = Latency()
    loss: _Rate = 0.0
    duplicate: _Rate = 0.0
    reorder: _Rate = 0.0
    bytes_per_s: Annotated[int, Meta(ge=0, le=1 << 40)] = 0
    detection_s: _Seconds = 5.0


class Disk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A sync takes from ``sync_ms`` to ``slowest_ms``; ``stalls``: share of syncs that take up to 3 s longer.

    ``save_fails`` is the share of writes and commits of the state store that fail, half of them because it is full for up to 2 s,
    ``read_fails`` that of reads from the store and the log, but for those at a start.
    """

    sync_ms: Annotated[float, Meta(gt=0, le=10_000)] = 0.2
    slowest_ms: Annotated[float, Meta(gt=0, le=10_000)] = 3.0
    stalls: _Rate = 0.0
    save_fails: _Rate = 0.0
    read_fails: _Rate = 0.0


class Clocks(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Each replica's clock is off by up to ``skew_ms`` and gains or loses up to ``drift_ppm``."""

    skew_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 20
    drift_ppm: Annotated[int, Meta(ge=0, le=100_000)] = 100


class Work(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the users do: commits and reads per second over all replicas, on so few keys that they conflict."""

    writes_per_s: Annotated[float, Meta(gt=0, le=100_000)] = 60.0
    reads_per_s: Annotated[float, Meta(ge=0, le=100_000)] = 25.0
    sessions: Annotated[int, Meta(ge=1, le=1000)] = 8
    domains: Annotated[int, Meta(ge=1, le=8)] = 1
    keys: Annotated[int, Meta(ge=1, le=10_000)] = 3
    delete: _Rate = 0.06
    several: _Rate = 0.3
    """Share of commits with several operations, on one key or on several."""
    roam: _Rate = 0.3
    """Share of requests with which a session goes to another replica."""
    with_id: _Rate = 0.4
    """Share of commits with an idempotency key."""
    retry: _Rate = 0.25
    """Share of those that are sent again, to this or another replica, as if the reply had been lost."""
    reuse: _Rate = 0.01
    """Share of those whose key was used for another request."""
    receipts: _Rate = 0.0
    """Share of commits that wait for other regions."""
    is_declared_everywhere: bool = False
    """Every replica declares the collections by itself, at once."""
    shards: Annotated[int, Meta(ge=1, le=32)] = 1
    """Into so many groups domains are divided."""
    other_shards: Annotated[int, Meta(ge=0, le=32)] = 0
    """Every second replica declares them with this number, if it has not heard of another; 0: with the same."""
    mix: Literal["basic", "all-types"] = "basic"
    """Which collections users work on (``mixes``)."""
    types: list[str] = []
    """Only these types of them; empty: all."""
    expire: _Rate = 0.0
    """Share of operations that set deadlines, where a type has any."""
    slowest_retry_s: Annotated[float, Meta(gt=0, le=60)] = 0.8
    """A request that is sent again is sent again within so long."""


class Cut(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part of the network is a black hole; connections stay open until somebody notices.

    Shape:  ``groups = "ab|cd"``: nothing passes between groups · ``links = ["a>b", "b-c"]``: one way, or both. Without an end the cut
            stays for good (the replicas must stay connected by way of others).
    """

    from_s: _Seconds
    to_s: _Seconds | None = None
    groups: str = ""
    links: list[str] = []

    def check(self, known: str) -> None:
        """Refuse what cannot be meant; ``known`` are the letters of the replicas. Raises:  ValueError."""
        if not self.groups and not self.links:
            raise ValueError('a cut names groups, as in "ab|c", or links, as in ["a>b"]')
        if self.groups and (sorted(self.groups.replace("|", "")) != sorted(known) or "|" not in self.groups):
            raise ValueError(
                f"groups name each of the replicas {known} once, with | between groups, not {self.groups!r}"
            )
        for link in self.links:
            if len(link) != 3 or link[1] not in "->" or not {link[0], link[2]} <= set(known) or link[0] == link[2]:
                raise ValueError(
                    f'a link is written "a>b" (one way) or "a-b" with two of the replicas {known}, not {link!r}'
                )
        if self.to_s is not None and self.to_s < self.from_s:
            raise ValueError("a cut ends after it began")

    def directed(self) -> list[tuple[int, int]]:
        """The directed links that are cut, in order."""
        found: set[tuple[int, int]] = set()
        groups = [[ascii_lowercase.index(name) for name in group] for group in self.groups.split("|") if group]
        for left in groups:
            found |= {(a, b) for a in left for right in groups if right is not left for b in right}
        for link in self.links:
            a, how, b = ascii_lowercase.index(link[0]), link[1], ascii_lowercase.index(link[2])
            found |= {(a, b)} if how == ">" else {(a, b), (b, a)}
        return sorted(found)


class Crash(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica loses its memory and what its disk had not synced, and comes back after ``down_s``; in order, it syncs all of it first."""

    replica: _Replica
    at_s: _Seconds
    down_s: _Seconds = 1.0
    is_orderly: bool = False


class Pause(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica stands still (SIGSTOP), then takes in at once what has come meanwhile."""

    replica: _Replica
    at_s: _Seconds
    for_s: _Seconds = 1.0


class Step(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A replica's clock is set by so many milliseconds."""

    replica: _Replica
    at_s: _Seconds
    ms: Annotated[int, Meta(ge=-3_600_000, le=3_600_000)]


class Sale(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A flash sale: so many units, granted at the first replica, and buyers at every replica, until the users' work ends.

    Each buyer tries twice, as two shops would sell the same thing: from a bounded_counter, and from a counter if that shows any stock.
    """

    stock: Annotated[int, Meta(ge=1, le=1_000_000)] = 500
    buyers_per_s: Annotated[float, Meta(gt=0, le=10_000)] = 100.0
    returns: _Rate = 0.0
    """Share of purchases that are reserved first and then released."""


Trouble = Literal[
    "split",
    "crash",
    "die proposing",
    "cut install",
    "lose disk",
    "copy seen",
    "roll back",
    "half forgotten",
    "clone",
    "block",
    "join",
    "evict",
    "leave",
    "force",
]


class Members(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Machines lose their disks, are copied, join and are thrown out while users work; the seed decides when and who.

    ``kinds``: what happens. ``every_s``: one of them about so often. A machine that takes a new id begins a new life.
    """

    kinds: list[Trouble]
    every_s: Annotated[float, Meta(gt=0, le=3_600)] = 0.4
    newcomers: Annotated[int, Meta(ge=0, le=8)] = 2
    """Machines that are there from the start and belong to nobody yet."""
    lives: Annotated[int, Meta(ge=1, le=64)] = 12
    """Ids that machines may take in all; when they are used up, whoever needs another stays down."""


class Scenario(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A run but for its seed."""

    name: str
    question: str = ""
    replicas: Annotated[int, Meta(ge=1, le=8)] = 3
    seconds: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    """How long users work; faults other than endless cuts end by then too."""
    settle_s: Annotated[float, Meta(gt=0, le=3_600)] = 30.0
    """Within so long after the last fault and write all replicas must be equal."""
    work: Work = Work()
    network: Network = Network()
    disk: Disk = Disk()
    clocks: Clocks = Clocks()
    engine: Options = Options()
    cuts: list[Cut] = field(default_factory=list)
    crashes: list[Crash] = field(default_factory=list)
    pauses: list[Pause] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    sweep_above: Annotated[int, Meta(ge=1)] | None = None
    """Drops of branches with more children are carried out in slices; null: as in production."""
    sale: Sale | None = None
    """Instead of the usual work: everybody wants the same thing."""
    members: Members | None = None
    """Instead of faults at set times: the members change, and everything that happens to members does."""

    def __post_init__(self) -> None:
        known = "".join(names(self.replicas))
        for cut in self.cuts:
            cut.check(known)
        faulty = [crash.replica for crash in self.crashes]
        faulty += [pause.replica for pause in self.pauses] + [step.replica for step in self.steps]
        if strangers := sorted(set(faulty) - set(known)):
            raise ValueError(f"a fault names one of the replicas {known}, not {strangers[0]!r}")


def names(count: int) -> list[str]:
    """The names of replicas in scenarios."""
    return list(ascii_lowercase[:count])


def load(name: str) -> Scenario:
    """A scenario: a TOML file, or the name of one that comes with the simulator.

    Raises:  UsageError saying what is wrong in which file.
    """
    path = Path(name)
    if not name.endswith(".toml"):
        path = DIRECTORY / f"{name}.toml"
    try:
        scenario = msgspec.toml.decode(path.read_bytes(), type=Scenario)
    except OSError as error:
        known = ", ".join(sorted(file.stem for file in DIRECTORY.glob("*.toml")))
        raise UsageError(f"there is no scenario {name}: {error.strerror or error}; there are {known}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        fields = f". A scenario has {', '.join(Scenario.__struct_fields__)}" if "unknown field" in str(error) else ""
        raise UsageError(f"{path} is not a scenario: {error}{fields}.") from None
    # A file of the user's own is named by its path, so that what is printed runs it again.
    return msgspec.structs.replace(scenario, name=name) if name.endswith(".toml") else scenario

"""One run in which the members change: machines, users, trouble, and in the end an operator who puts things right.

The question: when is such a run over? First everything goes wrong, and every law of safety is held. Then machines start, the network is
whole, and the operator removes who is gone. Within a bound all who are left must have one configuration, the same commits, know they have
them, and have settled how many commits of each removed id count.
"""

from __future__ import annotations

import time
import traceback
from collections import Counter, defaultdict
from operator import attrgetter
from string import ascii_lowercase

from crdtstore.causal import ReplicaId, make_replica_id
from crdtstore.configuration import SYSTEM_GROUP, Cluster, Member
from crdtstore.engine.engine import Engine
from crdtstore_sim.clocks import NodeClock
from crdtstore_sim.facts import Facts
from crdtstore_sim.network import SimulatedNetwork
from crdtstore_sim.node import STORED
from crdtstore_sim.regroup.links import Links, Parcel
from crdtstore_sim.regroup.place import Life, Place
from crdtstore_sim.regroup.steward import Steward
from crdtstore_sim.regroup.trouble import Trouble
from crdtstore_sim.regroup.users import LATE, Users
from crdtstore_sim.regroup.watch import Watch
from crdtstore_sim.scenario import Scenario
from crdtstore_sim.simulation import Result
from crdtstore_sim.timeline import Streams, Timeline, Trace

__all__ = ["World"]

_SECOND_US = 1_000_000
_FIRST_US = 1_000_000
"""Before this nothing goes wrong: the collections are declared."""
_LOOK_EVERY = 300
_MAX_VIOLATIONS = 20
_STEP_US = 100_000
_OPERATOR_US = 1_000_000


class World:
    """One run. Mutable; used once."""

    def __init__(self, scenario: Scenario, seed: int) -> None:
        assert scenario.members is not None
        self.scenario = scenario
        self.seed = seed
        streams = Streams(seed)
        self.timeline = timeline = Timeline()
        self.trace = Trace()
        self.counts: Counter[str] = Counter()
        self.identities = streams.stream("identities")
        count = scenario.replicas + scenario.members.newcomers + ("clone" in scenario.members.kinds)
        names = list(ascii_lowercase[:count])
        founders = tuple(
            Member(make_replica_id(f"{name}-1", self.identities.getrandbits(64)), name, f"{name}:1")
            for name in names[: scenario.replicas]
        )
        self.cluster = Cluster("sim", self.identities.randbytes(16), founders)
        self._most_lives = max(scenario.members.lives, scenario.replicas)
        nobody = [f"nobody-{index}" for index in range(self._most_lives)]
        self.facts = Facts(nobody, lambda: timeline.now_us, list(nobody))
        self.watch = Watch(self.facts, streams.stream("looks"))
        self.network = SimulatedNetwork(timeline, streams.stream("network"), scenario.network, count, self._on_parcel)
        clocks, skews = streams.stream("clocks"), scenario.clocks
        self.places = [
            Place(self, index, name, NodeClock(clocks.randint(-skews.skew_ms, skews.skew_ms) * 1000, 0))
            for index, name in enumerate(names)
        ]
        self.lives: dict[int, Life] = {}
        self.copied: set[int] = set()
        """Lives under whose ids a second process was started."""
        self.heard: dict[int, dict[int, int]] = defaultdict(dict)
        """Per life who heard of it, and when that was last."""
        self.links = Links(
            timeline,
            streams.stream("connections"),
            self.network,
            [*self.places],
            int(scenario.network.detection_s * _SECOND_US),
            lambda kind, node, data: self.trace.note(timeline.now_us, kind, node, data),
        )
        self._end_us = int(scenario.seconds * _SECOND_US)
        self.users = Users(self, streams.stream("workload"), self._end_us)
        self.trouble = Trouble(self, streams.stream("trouble"))
        self.steward = Steward(self, streams.stream("operator"))
        self.watch.may_go = self._may_go
        self._founders = founders
        self._looks = streams.stream("when to look")
        self._next_look = _LOOK_EVERY
        self._is_ending = False

    # --- who there is

    def next_life(self) -> int | None:
        return len(self.lives) if len(self.lives) < self._most_lives else None

    def living(self) -> list[Life]:
        """All lives whose process runs."""
        lives = [place.life for place in self.places if place.is_alive and place.life is not None]
        return sorted(lives, key=attrgetter("index"))

    def system(self, life: Life) -> Engine:
        return life.host.groups[SYSTEM_GROUP]

    def is_serving(self, life: Life) -> bool:
        """Whether it holds the state and is a member, as far as it knows, of all groups that there are."""
        engines = life.host.groups
        if life.is_fenced or any(name not in engines for name in self.facts.groups if not name.startswith(f"{LATE}/")):
            return False
        return all(engine.membership.is_installed and engine.membership.is_member for engine in engines.values())

    def others(self, life: Life) -> list[ReplicaId]:
        return [replica for replica in self.system(life).configuration.ids if replica != life.replica]

    def _may_go(self, replica: str) -> bool:
        """Whether a replica leaves, or is gone already."""
        lives = [life for life in self.lives.values() if life.replica == replica]
        return any(life.is_over or not life.is_alive or life.is_fenced or life.host.is_leaving for life in lives)

    def is_near(self, place: Place, replica: str) -> bool:
        """Whether a machine reaches a replica."""
        return any(
            other.is_alive
            and other.life is not None
            and other.life.replica == replica
            and self.links.is_up(place.index, other.index)
            for other in self.places
        )

    def count(self, what: str) -> None:
        self.counts[what] += 1

    def note_heard(self, source: int, target: int) -> None:
        self.heard[source][target] = self.timeline.now_us

    # --- what happens

    def _on_parcel(self, message: tuple[int, int, Parcel]) -> None:
        source, target, parcel = message
        life = self.places[target].life
        if life is not None:
            life.on_parcel(source, parcel)

    def on_stepped(self, life: Life) -> None:
        """After a step: who may not go on under its id begins anew."""
        if life.is_alive and not life.is_over and life.is_fenced and life.place.life is life:
            life.is_over = True
            self.count("fenced")
            if life.index not in self.watch.outside and life.index not in self.copied:
                why = life.host.fenced_by
                self.facts.report("refusals", f"{life.replica} has forgotten nothing, and fenced itself: {why}")
            self.watch.lose(life.index)
            life.place.renew(life.replica)

    # --- the run

    def run(self) -> Result:
        """Let it all happen. Whatever a node raises is a violation too."""
        began = time.perf_counter()
        settled_s: float | None = None
        try:
            for index, member in enumerate(self._founders):
                self.watch.begin(index, member.replica, member.region)
            for place, member in zip(self.places, self._founders, strict=False):
                place.begin(founder=member)
            self.links.start()
            self.users.start()
            self.trouble.start(_FIRST_US)
            self.timeline.run(self._end_us, self._is_over)
            if not self.facts.violations:
                settled_s = self._settle()
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)[-4:]
            where = " < ".join(
                f"{frame.name} ({frame.filename.rpartition('/')[2]}:{frame.lineno})" for frame in frames[::-1]
            )
            self.facts.report("errors", f"{type(error).__name__}: {error} in {where}")
        return self._result(time.perf_counter() - began, settled_s)

    def _is_over(self) -> bool:
        if self.timeline.events >= self._next_look:
            self._next_look = self.timeline.events + self._looks.randint(1, 2 * _LOOK_EVERY)
            living = self.living()
            if living:
                life = self._looks.choice(living)
                self.watch.look_around(life.index, life.host, life.disk.state)
        return bool(self.facts.violations)

    def _settle(self) -> float | None:
        """Trouble is over: let the operator put things right; the seconds until all was well, None when that did not happen."""
        timeline = self.timeline
        self._is_ending = True
        self.trouble.stop()
        for place in self.places:
            if place.life is not None:
                place.life.disk.heal()
            place.restart()
        bound_us = self._end_us + int(self.scenario.settle_s * _SECOND_US)
        operator_us = timeline.now_us + _OPERATOR_US
        while timeline.now_us < bound_us:
            timeline.run(timeline.now_us + _STEP_US, self._is_over)
            if self.facts.violations:
                return None
            if self.steward.is_settled() and not self.users.open_requests:
                self.steward.on_end()
                return (timeline.now_us - self._end_us) / _SECOND_US
            if timeline.now_us >= operator_us:
                operator_us = timeline.now_us + _OPERATOR_US
                self.steward.put_right()
                if self.steward.is_lost:
                    self.count("lost")
                    return None
        self.facts.report(
            "agreement", f"{self.scenario.settle_s:g} s after the last trouble: {self.steward.what_is_missing()}"
        )
        return None

    def _result(self, real_s: float, settled_s: float | None) -> Result:
        users, network, facts = self.users, self.network, self.facts
        stores = [life.storage for life in self.lives.values()]
        self.counts["lives"] = len(self.lives)
        self.counts["orphans"] = self.watch.survival.orphans
        self.counts["orphans shown"] = self.watch.orphans.shown
        return Result(
            seed=self.seed,
            scenario=self.scenario,
            trace=self.trace.hexdigest(),
            events=self.timeline.events,
            virtual_s=self.timeline.now_us / _SECOND_US,
            real_s=real_s,
            writes=users.writes,
            reads=users.reads,
            acknowledged=users.acknowledged,
            replayed=users.replayed,
            refused=dict(sorted(users.refused.items())),
            commits=sum(len(records) for group in facts.groups.values() for records in group.records),
            crashes=sum(life.life - 1 for life in self.lives.values()),
            messages=network.sent,
            messages_lost=network.lost,
            bytes_moved=network.bytes_sent,
            windows_ms=None,
            cut_ms=None,
            settled_s=settled_s,
            violations=facts.violations[:_MAX_VIOLATIONS],
            storage={what: sum(stored[what] for stored in stores) for what in STORED},
            happened=dict(sorted(self.counts.items())),
        )

"""From a task's goals to motions: what comes first, what has to be open for it, what to do when it went wrong."""

from collections import Counter, defaultdict
from collections.abc import Sequence

from rollout_manager.experts.libero.articulation import articulate
from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.delivering import Failures
from rollout_manager.experts.libero.frames import Frame
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.knob import turn_knob
from rollout_manager.experts.libero.motion import KEEP, OPEN, Motion, Way, hold
from rollout_manager.experts.libero.pick_place import LostError, carry, let_go, travel
from rollout_manager.experts.libero.slide import slide
from rollout_manager.experts.libero.world import Goal, World

CARRY, SWITCH, JOINT = ("on", "in"), ("turnon", "turnoff"), ("open", "close")
TRIES = 3
"""A goal that proved impossible so often is left alone."""
OPEN_ENOUGH = 0.6
"""Of a drawer's or door's range, for things to go in."""


def in_order(goals: Sequence[Goal], owners: dict[str, str]) -> list[Goal]:
    """Goals in the order in which they do not undo each other.

    What is only to be closed, switched or opened comes before things are put about; what carries something else is
    put in its place before that; what is closed on something comes last.

    Args: owners: of each region, the object or fixture that it belongs to.
    """
    filled = {goal[2] for goal in goals if goal[0] == "in"}
    filled |= {owners.get(place, place) for place in filled}
    carried = {goal[1]: goal for goal in goals if goal[0] in CARRY}

    def depth(goal: Goal, seen: tuple[Goal, ...] = ()) -> int:
        below = carried.get(owners.get(goal[2], "") or goal[2])
        return 0 if below is None or below in seen else 1 + depth(below, (*seen, goal))

    def rank(goal: Goal) -> tuple[int, int]:
        if goal[0] in CARRY:
            return 3, depth(goal)
        if goal[0] == "close":
            return (4 if goal[1] in filled else 0), 0
        return (1 if goal[0] in SWITCH else 2), 0

    return sorted(goals, key=rank)


class Plan:
    """Works towards the goals of a world for as long as it is asked to."""

    def __init__(self, world: World, imagination: Imagination, home: Frame) -> None:
        """Args: home: where the hand was at first, from where more can be reached than from elsewhere."""
        self._world = world
        self._imagination = imagination
        self._home = home
        regions = world.problem.object_sites_dict
        self._goals = in_order(world.goals, {name: world.owner(name) for name in regions})
        self._impossible: Counter[Goal] = Counter()
        self._failed: defaultdict[str, Failures] = defaultdict(Failures)
        self.trouble = ""
        """What went wrong last; empty where nothing did."""
        self.given_up = False

    def motion(self) -> Motion[None]:
        """Actions without end; where nothing is left to do, or to try, the robot stays where it is."""
        while True:
            pending = [goal for goal in self._goals if not self._world.satisfied(goal)]
            possible = [goal for goal in pending if self._impossible[goal] < TRIES]
            if not possible:
                self.given_up = bool(pending)
                yield from hold(KEEP, 1)
                continue
            try:
                yield from self._achieve(possible[0])
            except LostError as error:
                self.trouble = str(error)
            except ImpossibleError as error:
                self.trouble = str(error)
                self._impossible[possible[0]] += 1
                self._failed.clear()
                yield from self._start_afresh()

    def _achieve(self, goal: Goal) -> Motion[None]:
        world, imagination = self._world, self._imagination
        if goal[0] == "on" and self._impossible[goal] == 1:  # It could not be carried.
            yield from slide(world, imagination, goal)
        elif goal[0] in CARRY:
            for closed in self._closed(goal):
                yield from articulate(world, imagination, closed)
            yield from carry(world, imagination, goal, self._failed[goal[1]])
        elif goal[0] in JOINT:
            yield from articulate(world, imagination, goal)
        elif goal[0] in SWITCH:
            yield from turn_knob(world, imagination, goal)
        else:
            raise ImpossibleError(f"({' '.join(goal)}): the expert knows no '{goal[0]}'")
        yield from hold(OPEN, 1)

    def _closed(self, goal: Goal) -> list[Goal]:
        """What has to be opened before a thing can go in."""
        predicate, _, place = goal
        if predicate != "in" or not self._world.is_region(place):
            return []
        for name in (place, self._world.owner(place)):
            if name and (joints := self._world.joints(name)):
                ranges = self._world.model.jnt_range
                shut = all(joint.position / ranges[joint.index][0] < OPEN_ENOUGH for joint in joints)
                return [("open", name)] if shut else []
        return []

    def _start_afresh(self) -> Motion[None]:
        """Back to where the hand was at first."""
        yield from let_go(self._world)
        yield from travel(self._world, self._imagination, self._home, OPEN, None, Way(within=0.03, turned=0.2))
        yield from hold(OPEN, 1)

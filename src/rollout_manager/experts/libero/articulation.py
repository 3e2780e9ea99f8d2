"""Opening and closing what moves on a joint."""

from rollout_manager.experts.libero.carrying import ImpossibleError
from rollout_manager.experts.libero.door import close_door, open_door
from rollout_manager.experts.libero.drawer import pull_drawer, push_drawer
from rollout_manager.experts.libero.imagination import Imagination
from rollout_manager.experts.libero.motion import Motion
from rollout_manager.experts.libero.pick_place import let_go
from rollout_manager.experts.libero.world import Goal, World


def articulate(world: World, imagination: Imagination, goal: Goal) -> Motion[None]:
    """Make ("open" or "close", drawer or door) hold.

    Raises:
        ImpossibleError: it does not move, or the hand cannot get at it.
    """
    predicate, name = goal
    joints = world.joints(name)
    if not joints:
        raise ImpossibleError(f"{name} has no joint to {predicate}")
    yield from let_go(world)
    for joint in joints:
        if world.satisfied(goal):
            return
        if joint.slides:
            yield from (pull_drawer if predicate == "open" else push_drawer)(world, imagination, goal, joint)
        else:
            yield from (open_door if predicate == "open" else close_door)(world, imagination, goal, joint)

"""A camera that shows the very same picture again and again under new stamps. Pure; times are integer ns.

A sensor's noise makes every picture another one, but a simulated scene at rest looks the same for as long as it rests.
So a picture counts as frozen only when the robot has moved since it was first seen, where it is known how it moves.
"""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.observation import Float32Array, ImageArray, Observation
from vla_policy_node.spec import NANOSECONDS, RobotSpec

MOVED = 0.02
"""How far a joint or the hand has to go, in rad or m, to count as having moved: a picture would show it."""


@dataclass(frozen=True)
class _Seen:
    """A picture, and how it was when it was first seen."""

    image: ImageArray
    since_ns: int
    where: Float32Array


class FrozenCameras:
    """Looks at every observation of one episode."""

    def __init__(self, spec: RobotSpec) -> None:
        self._limit_ns = spec.max_frozen_s * NANOSECONDS
        self._places = [
            i
            for i, field in enumerate(spec.proprioception)
            if field.source == "joint_position" or (field.source == "ee_pose" and field.key in "xyz")
        ]
        self._seen: dict[str, _Seen] = {}

    def check(self, observation: Observation) -> tuple[str, ...]:
        """Which cameras are frozen, as reasons to hold."""
        if self._limit_ns == np.inf:
            return ()
        where = observation.proprioception[self._places]
        found = (
            self._check(camera, image, observation.stamp_ns, where) for camera, image in observation.images.items()
        )
        return tuple(reason for reason in found if reason)

    def _check(self, camera: str, image: ImageArray, stamp_ns: int, where: Float32Array) -> str:
        seen = self._seen.get(camera)
        if seen is None or not np.array_equal(image, seen.image):
            self._seen[camera] = _Seen(image, stamp_ns, where)
            return ""
        moved = float(np.abs(where - seen.where).max(initial=0.0))
        since_ns = stamp_ns - seen.since_ns
        if since_ns < self._limit_ns or (len(where) and moved < MOVED):
            return ""
        return f"{camera}: the very same picture for {since_ns / 1e6:.0f} ms" + (
            f" while the robot moved by {moved:.2f} (rad or m)" * bool(len(where))
        )

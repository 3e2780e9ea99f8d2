"""Where a thing is and how it is turned. Lengths in metres, angles in radians, axes as columns of a rotation."""

from dataclasses import dataclass

import numpy as np

from vla_policy_node.observation import Float64Array

UP = np.array([0.0, 0.0, 1.0])


@dataclass(frozen=True)
class Frame:
    """A rigid transform: what is at `p` in this frame is at `rotation @ p + position` in its parent."""

    position: Float64Array
    """Shape (3,)."""
    rotation: Float64Array
    """Shape (3, 3); column k is this frame's axis k in the parent."""

    def __matmul__(self, other: "Frame") -> "Frame":
        """The frame `other`, given in this one, as this one's parent sees it."""
        return Frame(self.rotation @ other.position + self.position, self.rotation @ other.rotation)

    def inverse(self) -> "Frame":
        """The parent, as this frame sees it."""
        back = self.rotation.T
        return Frame(-back @ self.position, back)

    def points(self, points: Float64Array) -> Float64Array:
        """Points of this frame, shape (N, 3), in the parent."""
        moved: Float64Array = points @ self.rotation.T + self.position
        return moved

    def shifted(self, offset: Float64Array) -> "Frame":
        """Moved by `offset`, shape (3,), in the parent's axes; turned as before."""
        return Frame(self.position + offset, self.rotation)


def rotation_about(axis: Float64Array, angle: float) -> Float64Array:
    """The rotation by `angle` about a unit vector, shape (3, 3) (Rodrigues' formula)."""
    x, y, z = axis
    cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
    matrix: Float64Array = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    return matrix


def rotation_vector(rotation: Float64Array) -> Float64Array:
    """Axis times angle of a rotation, shape (3,); the angle is in [0, pi]. The inverse of `rotation_about`."""
    twice_sine = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    length = float(np.linalg.norm(twice_sine))
    angle = float(np.arctan2(length, np.trace(rotation) - 1.0))
    if length > 1e-6:
        vector: Float64Array = twice_sine * (angle / length)
        return vector
    if angle < 1.0:
        return np.zeros(3)
    # Half a turn: R = 2 a a^T - 1, so that any column of R + 1 that is not zero lies along the axis.
    both = rotation + np.eye(3)
    column = both[:, int(np.argmax(np.diag(both)))]
    half_turn: Float64Array = column * (np.pi / np.linalg.norm(column))
    return half_turn


def angle_between(first: Float64Array, second: Float64Array) -> float:
    """The angle in [0, pi] that takes one rotation, shape (3, 3), to the other."""
    return float(np.linalg.norm(rotation_vector(second @ first.T)))


def unit(vector: Float64Array) -> Float64Array:
    """The direction of a vector that is not zero."""
    direction: Float64Array = vector / np.linalg.norm(vector)
    return direction


def horizontal(vector: Float64Array) -> Float64Array:
    """The direction of a vector's horizontal part, which is not zero."""
    return unit(np.array([vector[0], vector[1], 0.0]))


def between(first: Frame, second: Frame, share: float) -> Frame:
    """The frame that a share in [0, 1] of the straight way from the one to the other leads to."""
    turn = rotation_vector(second.rotation @ first.rotation.T)
    angle = float(np.linalg.norm(turn))
    part = rotation_about(turn / angle, share * angle) if angle > 1e-9 else np.eye(3)
    return Frame(first.position + share * (second.position - first.position), part @ first.rotation)

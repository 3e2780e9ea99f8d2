"""Points on the surfaces of collision shapes, in the shape's own frame."""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from vla_policy_node.observation import Float64Array

SPACING = 0.006
"""Between neighbouring points, in m: less than a finger is wide."""

Kind = Literal["box", "cylinder", "capsule", "sphere", "ellipsoid", "mesh"]


@dataclass(frozen=True)
class Shape:
    """A collision shape as MuJoCo describes one."""

    kind: Kind
    size: Float64Array
    """Shape (3,), in m: half extents of a box or ellipsoid; radius, then half length of a cylinder or capsule."""
    vertices: Float64Array = field(default_factory=lambda: np.empty((0, 3)))
    """Of a mesh, shape (V, 3)."""
    faces: "np.ndarray[tuple[int, ...], np.dtype[np.int32]]" = field(default_factory=lambda: np.empty((0, 3), np.int32))
    """Of a mesh: indices of three vertices each, shape (F, 3)."""


def surface_points(shape: Shape, spacing: float = SPACING) -> Float64Array:
    """Points all over the surface, shape (N, 3), no further apart than about `spacing` metres."""
    if shape.kind == "box":
        return _box(shape.size, spacing)
    if shape.kind == "cylinder":
        return _cylinder(float(shape.size[0]), float(shape.size[1]), spacing)
    if shape.kind == "capsule":
        # Its ends are cut square where the half spheres begin: within a radius, which is little for a handle.
        return _cylinder(float(shape.size[0]), float(shape.size[1] + shape.size[0]), spacing)
    if shape.kind == "mesh":
        return _mesh(shape, spacing)
    radii = np.full(3, shape.size[0]) if shape.kind == "sphere" else shape.size
    return _sphere(int(np.ceil(4 * np.pi * (radii.max() / spacing) ** 2))) * radii


def _grid(half: float, spacing: float) -> Float64Array:
    return np.linspace(-half, half, max(2, int(np.ceil(2 * half / spacing)) + 1))


def _box(half: Float64Array, spacing: float) -> Float64Array:
    axes = [_grid(float(h), spacing) for h in half]
    sides = []
    for normal in range(3):
        first, second = (k for k in range(3) if k != normal)
        u, v = np.meshgrid(axes[first], axes[second])
        for sign in (-1.0, 1.0):
            side = np.empty((u.size, 3))
            side[:, normal], side[:, first], side[:, second] = sign * half[normal], u.ravel(), v.ravel()
            sides.append(side)
    return np.concatenate(sides)


def _cylinder(radius: float, half: float, spacing: float) -> Float64Array:
    def ring(r: float, z: float) -> Float64Array:
        count = max(1, int(np.ceil(2 * np.pi * r / spacing)))
        angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
        return np.stack([r * np.cos(angle), r * np.sin(angle), np.full(count, z)], axis=1)

    wall = [ring(radius, float(z)) for z in _grid(half, spacing)]
    inner = np.arange(0.0, radius, spacing)
    return np.concatenate([*wall, *(ring(float(r), z) for r in inner for z in (-half, half))])


def _sphere(count: int) -> Float64Array:
    """Points evenly over the unit sphere (Fibonacci lattice)."""
    k = np.arange(count) + 0.5
    z = 1 - 2 * k / count
    angle = np.pi * (1 + np.sqrt(5)) * k
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(angle), across * np.sin(angle), z], axis=1)


def _mesh(shape: Shape, spacing: float) -> Float64Array:
    """The vertices, and points drawn evenly over the faces; the same ones every time."""
    corners = shape.vertices[shape.faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1) / 2
    count = int(np.clip(area.sum() / spacing**2, 50, 4000))
    rng = np.random.default_rng(0)
    face = rng.choice(len(corners), count, p=area / area.sum())
    u, v = np.sqrt(rng.random((count, 1))), rng.random((count, 1))
    a, b, c = corners[face, 0], corners[face, 1], corners[face, 2]
    return np.concatenate([shape.vertices, a * (1 - u) + b * u * (1 - v) + c * u * v])

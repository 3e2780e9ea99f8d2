"""Triangle meshes with texture coordinates: read by MuJoCo itself, made of fewer faces, written as OBJ."""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from rollout_manager.envs.rendering import import_mujoco
from vla_policy_node.observation import Float64Array

IntArray = npt.NDArray[np.int64]

GRIDS = (0.0, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016)
"""Within which vertices may be made one, as a share of the mesh's size."""
MOST_STRETCH = 3.0
"""How much more texture a face may show a metre than the median face does."""
SAMPLES = 20_000
"""Points over a mesh by which its nearest face is looked up,"""
CANDIDATES = 12
"""and how many of them are looked at more closely."""


@dataclass(frozen=True)
class Mesh:
    """Triangles. A corner of a face has a place and, where the mesh is textured, a point of the texture."""

    vertices: Float64Array
    """(V, 3), in the file's own frame and unit."""
    faces: IntArray
    """(F, 3), indices of vertices."""
    texture: Float64Array | None = None
    """(T, 2), as MuJoCo has it: from the texture's upper left corner."""
    texture_faces: IntArray | None = None
    """(F, 3), indices of `texture`."""

    def without_texture(self) -> "Mesh":
        return Mesh(self.vertices, self.faces)


def read_mesh(path: Path) -> Mesh:
    """The mesh in a file of any format that MuJoCo reads.

    Raises:
        ValueError: MuJoCo cannot read it.
    """
    mujoco = import_mujoco()
    model = mujoco.MjModel.from_xml_string(
        f'<mujoco><asset><mesh name="mesh" file={quoteattr(str(path.resolve()))}/></asset><worldbody>'
        '<geom type="mesh" mesh="mesh" contype="0" conaffinity="0"/></worldbody></mujoco>'
    )
    if not model.nmeshface:
        raise ValueError("it holds no faces")
    # MuJoCo moves a mesh into its principal axes of inertia; this moves it back.
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.mesh_quat[0])
    vertices = model.mesh_vert.astype(np.float64) @ rotation.reshape(3, 3).T + model.mesh_pos[0]
    faces = model.mesh_face.astype(np.int64)
    if not model.nmeshtexcoord:
        return Mesh(vertices, faces)
    return Mesh(vertices, faces, model.mesh_texcoord.astype(np.float64), model.mesh_facetexcoord.astype(np.int64))


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """A mesh of about the same shape with at most some more than `faces` faces.

    Edges are collapsed by quadric error (Garland and Heckbert 1997). That stops where a mesh consists of many small
    pieces; then places that lie close together are made one first, ever farther apart.
    """
    from fast_simplification import simplify as collapse_edges

    if len(mesh.faces) <= faces:
        return mesh
    size = float(np.linalg.norm(np.ptp(mesh.vertices, axis=0)))
    for grid in GRIDS:
        places, welded = _welded(mesh, grid * size)
        vertices, fewer = places, welded
        if len(welded) > faces:
            collapsed = collapse_edges(places.astype(np.float32), welded.astype(np.int32), target_count=faces)
            vertices, fewer = collapsed[0].astype(np.float64), collapsed[1].astype(np.int64)
        if len(fewer) <= 1.25 * faces:
            break
    if mesh.texture is None:
        return Mesh(vertices, fewer)
    texture = _texture_of(mesh, vertices[fewer])
    return Mesh(vertices, fewer, texture.reshape(-1, 2), np.arange(texture.size // 2).reshape(-1, 3))


def write_obj(mesh: Mesh) -> bytes:
    """A Wavefront OBJ file."""
    lines = [f"v {x:.7g} {y:.7g} {z:.7g}" for x, y, z in mesh.vertices]
    if mesh.texture is None or mesh.texture_faces is None:
        lines += [f"f {a} {b} {c}" for a, b, c in mesh.faces + 1]
    else:
        # OBJ's texture coordinates begin at the lower left corner.
        lines += [f"vt {u:.6g} {1 - v:.6g}" for u, v in mesh.texture]
        pairs = zip(mesh.faces + 1, mesh.texture_faces + 1, strict=True)
        lines += ["f " + " ".join(f"{v}/{t}" for v, t in zip(*pair, strict=True)) for pair in pairs]
    return ("\n".join(lines) + "\n").encode()


def _welded(mesh: Mesh, grid: float) -> tuple[Float64Array, IntArray]:
    """Places, (P, 3), and faces between them, (F, 3): vertices in one cell of the grid (0: at one place) are one."""
    cells = np.round(mesh.vertices / grid) if grid else mesh.vertices
    _, first, place = np.unique(cells, axis=0, return_index=True, return_inverse=True)
    welded: IntArray = place.reshape(-1)[mesh.faces]
    a, b, c = welded.T
    return mesh.vertices[first], welded[(a != b) & (b != c) & (c != a)]


def _texture_of(mesh: Mesh, corners: Float64Array) -> Float64Array:
    """Texture coordinates, shape (F, 3, 2), for new faces with corners at (F, 3, 3).

    A texture is cut into charts, and along a cut one place has two points of the texture. A face takes all its corners
    from one chart, that of the old face nearest to its middle: else its texture would be smeared between two. In a
    mesh that was made lighter before, narrow faces may be smeared so already; they are left out.
    """
    assert mesh.texture is not None
    assert mesh.texture_faces is not None
    triangles, points = mesh.vertices[mesh.faces], mesh.texture[mesh.texture_faces]
    stretch = _longest_edge(points) / np.maximum(_longest_edge(triangles), 1e-12)
    kept = stretch <= MOST_STRETCH * np.median(stretch)
    triangles, points = triangles[kept], points[kept]
    charts = _charts(mesh.texture_faces[kept], len(mesh.texture))[mesh.texture_faces[kept, 0]]
    chart_of_new = charts[_nearest(triangles, corners.mean(axis=1))[0]]
    found = np.zeros((*corners.shape[:2], 2))
    for chart in np.unique(chart_of_new):
        old, new = charts == chart, chart_of_new == chart
        nearest, weights = _nearest(triangles[old], corners[new].reshape(-1, 3))
        found[new] = (weights[:, :, None] * points[old][nearest]).sum(axis=1).reshape(-1, 3, 2)
    return found


def _longest_edge(triangles: Float64Array) -> Float64Array:
    """Shape (T,), of triangles (T, 3, 2 or 3)."""
    longest: Float64Array = np.linalg.norm(triangles - np.roll(triangles, 1, axis=1), axis=2).max(axis=1)
    return longest


def _nearest(triangles: Float64Array, places: Float64Array) -> tuple[IntArray, Float64Array]:
    """For each of `places`, (N, 3): the index of the nearest of `triangles`, (T, 3, 3), and where in it, as weights
    of its corners, (N, 3)."""
    from scipy.spatial import cKDTree

    samples, owners = _sampled(triangles)
    near = owners[cKDTree(samples).query(places, k=min(CANDIDATES, len(samples)))[1]].reshape(len(places), -1)
    a, b, c = (triangles[near][:, :, corner] for corner in range(3))
    u, v, w = b - a, c - a, places[:, None] - a
    uu, uv, vv, uw, vw = ((x * y).sum(axis=2) for x, y in ((u, u), (u, v), (v, v), (u, w), (v, w)))
    area = np.maximum(uu * vv - uv * uv, 1e-30)
    second, third = (vv * uw - uv * vw) / area, (uu * vw - uv * uw) / area
    # Outside the triangle: moved in, close to the nearest point of its edge.
    weights = np.maximum(np.stack([1 - second - third, second, third], axis=2), 0.0)
    weights /= weights.sum(axis=2, keepdims=True)
    closest = (weights[..., None] * triangles[near]).sum(axis=2)
    best = np.linalg.norm(closest - places[:, None], axis=2).argmin(axis=1)
    rows = np.arange(len(places))
    return near[rows, best], weights[rows, best]


def _sampled(triangles: Float64Array) -> tuple[Float64Array, IntArray]:
    """Points spread over the triangles, (S, 3), by area, and at least each one's middle; whose point each is, (S,)."""
    a, b, c = triangles[:, 0], triangles[:, 1], triangles[:, 2]
    area = np.linalg.norm(np.cross(b - a, c - a), axis=1)
    rng = np.random.default_rng(0)
    owners = rng.choice(len(triangles), SAMPLES, p=area / area.sum())
    along, across = np.sqrt(rng.random((SAMPLES, 1))), rng.random((SAMPLES, 1))
    spread = a[owners] * (1 - along) + b[owners] * along * (1 - across) + c[owners] * along * across
    everyone = np.arange(len(triangles))
    return np.concatenate([triangles.mean(axis=1), spread]), np.concatenate([everyone, owners])


def _charts(faces: IntArray, points: int) -> IntArray:
    """For every point of the texture, shape (T,), which connected piece of it the point is in."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(points, points))
    labels: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels

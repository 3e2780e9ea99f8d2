"""Triangle meshes with texture coordinates: read by MuJoCo itself, made of fewer faces, written as OBJ."""

from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import numpy.typing as npt

from rollout_manager.envs.rendering import import_mujoco
from vla_policy_node.observation import Float64Array

IntArray = npt.NDArray[np.int64]


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
    # MuJoCo moves a mesh into its principal axes of inertia; this moves it back.
    rotation = np.zeros(9)
    mujoco.mju_quat2Mat(rotation, model.mesh_quat[0])
    vertices = model.mesh_vert.astype(np.float64) @ rotation.reshape(3, 3).T + model.mesh_pos[0]
    faces = model.mesh_face.astype(np.int64)
    if not model.nmeshtexcoord:
        return Mesh(vertices, faces)
    return Mesh(vertices, faces, model.mesh_texcoord.astype(np.float64), model.mesh_facetexcoord.astype(np.int64))


def simplify(mesh: Mesh, faces: int) -> Mesh:
    """A mesh of about the same shape with at most about `faces` faces (quadric error, Garland and Heckbert 1997)."""
    from fast_simplification import simplify as collapse_edges

    places, corners = np.unique(mesh.vertices, axis=0, return_inverse=True)
    welded = corners.reshape(-1)[mesh.faces]
    whole = (welded[:, 0] != welded[:, 1]) & (welded[:, 1] != welded[:, 2]) & (welded[:, 2] != welded[:, 0])
    welded = welded[whole]
    if len(welded) <= faces:
        return mesh
    vertices, fewer = collapse_edges(places.astype(np.float32), welded.astype(np.int32), target_count=faces)
    vertices, fewer = vertices.astype(np.float64), fewer.astype(np.int64)
    if mesh.texture is None or mesh.texture_faces is None:
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


def _texture_of(mesh: Mesh, corners: Float64Array) -> Float64Array:
    """Texture coordinates, shape (F, 3, 2), for new faces with corners at (F, 3, 3).

    A texture is cut into charts, and along a cut one place has two points of the texture. A face takes all its corners
    from the chart of the old face that is nearest to its middle: between two charts its texture would be smeared.
    """
    from scipy.spatial import cKDTree

    assert mesh.texture is not None
    assert mesh.texture_faces is not None
    charts = _charts(mesh.texture_faces, len(mesh.texture))
    old_corners = mesh.vertices[mesh.faces]
    nearest = cKDTree(old_corners.mean(axis=1)).query(corners.mean(axis=1))[1]
    chart_of_face = charts[mesh.texture_faces[:, 0]]
    found = np.zeros((*corners.shape[:2], 2))
    for chart in np.unique(chart_of_face[nearest]):
        of_chart = chart_of_face == chart
        new = chart_of_face[nearest] == chart
        tree = cKDTree(old_corners[of_chart].reshape(-1, 3))
        points = mesh.texture[mesh.texture_faces[of_chart].reshape(-1)]
        found[new] = points[tree.query(corners[new].reshape(-1, 3))[1]].reshape(-1, 3, 2)
    return found


def _charts(faces: IntArray, points: int) -> IntArray:
    """For every point of the texture, shape (T,), which connected piece of it the point is in."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    graph = coo_matrix((np.ones(len(edges)), edges.T), shape=(points, points))
    labels: IntArray = connected_components(graph, directed=False)[1].astype(np.int64)
    return labels

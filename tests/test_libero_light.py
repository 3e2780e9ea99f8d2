"""Lighter models: fewer faces with the texture where it was, made once by whoever comes first, collision untouched."""

import os
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import cv2
import numpy as np
import pytest
from libero_stock import needs_assets

from rollout_manager.envs.libero.light import MOST_FACES, PIXELS, RECIPE, check_files, lighten
from rollout_manager.envs.libero.meshes import Mesh, read_mesh, simplify, write_obj
from rollout_manager.envs.libero.package import find_assets
from rollout_manager.envs.libero.scene import LiberoScene
from rollout_manager.envs.libero.suites import find_task
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import Float64Array

SOURCE = Path(__file__).resolve().parents[1] / "src"


def grid(cells: int) -> tuple[Float64Array, Float64Array]:
    """A unit square of 2 x cells x cells triangles: vertices (V, 2) and faces (F, 3)."""
    steps = np.linspace(0, 1, cells + 1)
    vertices = np.stack(np.meshgrid(steps, steps, indexing="ij"), axis=-1).reshape(-1, 2)
    i, j = np.divmod(np.arange(cells * cells), cells)
    corner = i * (cells + 1) + j
    right, up = corner + cells + 1, corner + 1
    faces = np.concatenate([np.stack([corner, right, right + 1], 1), np.stack([corner, right + 1, up], 1)])
    return vertices, faces


def textured_cube(cells: int) -> Mesh:
    """A cube of edge 2; its sides are charts of their own: the k-th has the texture between k/6 and (k + 0.9)/6."""
    flat, faces = grid(cells)
    vertices, texture, all_faces = [], [], []
    for side in range(6):
        axis, sign = side // 2, side % 2 * 2 - 1
        square = np.zeros((len(flat), 3))
        square[:, axis] = sign
        square[:, [(axis + 1) % 3, (axis + 2) % 3]] = (flat * 2 - 1)[:, ::sign]
        vertices.append(square)
        texture.append(np.stack([(side + 0.9 * flat[:, 0]) / 6, flat[:, 1]], 1))
        all_faces.append(faces + side * len(flat))
    joined = np.concatenate(all_faces).astype(np.int64)
    return Mesh(np.concatenate(vertices), joined, np.concatenate(texture), joined)


def png(path: Path, size: int) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (size, 2 * size, 3)).astype(np.uint8)
    cv2.imwrite(str(path), noise)
    return path


def model_of(folder: Path) -> str:
    """A model whose cube is seen as one mesh and touched as another, made of files in `folder`."""
    (folder / "seen.obj").write_bytes(write_obj(textured_cube(20)))
    (folder / "touched.obj").write_bytes(write_obj(textured_cube(20).without_texture()))
    png(folder / "picture.png", 200)
    return f"""<mujoco><asset>
        <texture name="picture" type="2d" file="{folder}/picture.png"/><material name="printed" texture="picture"/>
        <mesh name="seen" file="{folder}/seen.obj" scale="0.1 0.1 0.1"/>
        <mesh name="touched" file="{folder}/touched.obj"/>
        </asset><worldbody>
        <geom type="mesh" mesh="seen" material="printed" contype="0" conaffinity="0" group="1"/>
        <geom type="mesh" mesh="touched" group="0"/>
        </worldbody></mujoco>"""


def files_of(model: str) -> dict[str, Path]:
    return {e.get("name", ""): Path(e.get("file", "")) for e in ET.fromstring(model).iter() if e.get("file")}


def test_a_file_gives_back_the_mesh_that_was_written(tmp_path: Path) -> None:
    cube = textured_cube(3)
    (tmp_path / "cube.obj").write_bytes(write_obj(cube))
    again = read_mesh(tmp_path / "cube.obj")
    assert again.vertices[again.faces] == pytest.approx(cube.vertices[cube.faces], abs=1e-5)
    assert again.texture is not None
    assert cube.texture is not None
    assert again.texture[again.texture_faces] == pytest.approx(cube.texture[cube.texture_faces], abs=1e-5)


def test_fewer_faces_have_the_same_shape_and_the_texture_where_it_was() -> None:
    cube = textured_cube(20)
    light = simplify(cube, 100)
    assert len(cube.faces) == 4800
    assert len(light.faces) <= 125
    corners = light.vertices[light.faces]
    assert np.abs(corners).max(axis=2).min() > 0.98, "every corner lies on the cube's surface"
    assert np.ptp(light.vertices, axis=0) == pytest.approx([2, 2, 2], abs=0.05)
    assert light.texture is not None
    texture = light.texture[light.texture_faces]
    sides = np.floor(texture[..., 0].mean(axis=1) * 6).astype(int)
    for face, side in enumerate(sides):
        axis, sign = side // 2, side % 2 * 2 - 1
        # Nothing is smeared between two charts, and each point of a side shows what it showed before.
        assert np.all((texture[face, :, 0] * 6 >= side - 1e-6) & (texture[face, :, 0] * 6 <= side + 0.9 + 1e-6))
        inside = corners[face].mean(axis=0)
        if inside[axis] * sign > 0.99:
            flat = (corners[face][:, [(axis + 1) % 3, (axis + 2) % 3]][:, ::sign] + 1) / 2
            assert texture[face, :, 0] * 6 - side == pytest.approx(0.9 * flat[:, 0], abs=0.05)
            assert texture[face, :, 1] == pytest.approx(flat[:, 1], abs=0.05)


def test_many_small_pieces_become_fewer_too() -> None:
    rng = np.random.default_rng(0)
    vertices = (rng.random((2000, 1, 3)) + 0.01 * rng.random((2000, 3, 3))).reshape(-1, 3)
    light = simplify(Mesh(vertices, np.arange(6000).reshape(-1, 3)), 400)
    assert 50 < len(light.faces) <= 500


def test_only_what_is_seen_is_made_lighter(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    files = files_of(lighten(model, tmp_path / "cache"))
    assert files["touched"] == tmp_path / "touched.obj"
    assert len(read_mesh(files["seen"]).faces) <= MOST_FACES
    picture = cv2.imread(str(files["picture"]))
    assert picture is not None
    assert picture.shape == (PIXELS // 2, PIXELS, 3)
    assert files["seen"].parent == files["picture"].parent == tmp_path / "cache" / RECIPE


def test_what_is_light_already_stays_itself(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    (tmp_path / "seen.obj").write_bytes(write_obj(textured_cube(2)))
    png(tmp_path / "picture.png", PIXELS // 2)
    files = files_of(lighten(model, tmp_path / "cache"))
    assert files["seen"] == tmp_path / "seen.obj"
    assert files["picture"] == tmp_path / "picture.png"


def test_lighter_files_are_made_once_and_anew_for_other_content(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    first = files_of(lighten(model, tmp_path / "cache"))
    times = {path: path.stat().st_mtime_ns for path in first.values()}
    assert files_of(lighten(model, tmp_path / "cache")) == first
    assert {path: path.stat().st_mtime_ns for path in first.values()} == times
    png(tmp_path / "picture.png", 300)
    assert files_of(lighten(model, tmp_path / "cache"))["picture"] != first["picture"]


def test_processes_may_fill_the_cache_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "model.xml").write_text(model_of(tmp_path))
    script = (
        "import sys; from pathlib import Path; from rollout_manager.envs.libero.light import lighten\n"
        "print(lighten(Path(sys.argv[1]).read_text(), Path(sys.argv[2])))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model.xml"), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    running = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    said = {process.communicate(timeout=120)[0] for process in running}
    assert [process.returncode for process in running] == [0, 0, 0]
    (model,) = said
    made = {path for path in files_of(model).values() if path.suffix in (".obj", ".png")} - {tmp_path / "touched.obj"}
    assert made == set((tmp_path / "cache" / RECIPE).iterdir()), "no half-written file is left"


def test_what_is_missing_or_spoilt_is_named(tmp_path: Path) -> None:
    model = model_of(tmp_path)
    assert check_files(model) == model
    for name, spoil in (
        ("picture.png", lambda path: path.write_bytes(b"no picture")),
        ("picture.png", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(8) + struct.pack(">II", 999, 999))),
        ("seen.obj", lambda path: path.write_text("no mesh")),
        ("seen.obj", Path.unlink),
    ):
        whole = (tmp_path / name).read_bytes()
        spoil(tmp_path / name)
        if (tmp_path / name).exists():
            os.utime(tmp_path / name, (1, 1))  # MuJoCo remembers a file until its time changes, by the second.
        with pytest.raises(SimulatorError, match=f"no lighter {tmp_path / name}: "):
            lighten(model, tmp_path / "other cache")
        if not (tmp_path / name).exists():
            with pytest.raises(SimulatorError, match=f"mesh 'seen': {tmp_path / name} is missing"):
                check_files(model)
        (tmp_path / name).write_bytes(whole)


@needs_assets
def test_collision_geometry_masses_and_joints_are_those_of_the_full_scene() -> None:
    task = find_task("libero_object/3")
    light, full = (LiberoScene(task, find_assets(), look) for look in ("light", "full"))
    assert light.model.nmeshface < full.model.nmeshface / 5
    touched = full.model.geom_group == 0
    assert touched.sum() > 50
    for name in ("geom_type", "geom_size", "geom_pos", "geom_quat", "geom_friction", "geom_solimp", "geom_margin"):
        assert np.array_equal(getattr(light.model, name)[touched], getattr(full.model, name)[touched]), name
    names = [n for n in dir(full.model) if n.startswith(("body_", "jnt_", "dof_", "actuator_", "eq_", "site_"))]
    assert len(names) > 80
    for name in set(names) - {"body_bvhadr", "body_bvhnum"}:  # Boxes around geoms, seen ones among them.
        assert np.array_equal(getattr(light.model, name), getattr(full.model, name)), name
    for scene in (light, full):
        scene.close()

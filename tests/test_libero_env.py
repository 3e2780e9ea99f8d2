"""LIBERO's physics and success are the stock's to the bit, resets leave nothing behind, pictures stand upright."""

import os
import pdb
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from graph_helpers import bag_observations
from libero_stock import StockLibero, needs_assets

from rollout_manager.drivers import NoDriver
from rollout_manager.envs import rendering
from rollout_manager.envs.libero import env as libero_env
from rollout_manager.envs.libero.env import BASE, HAND, LOOK_VARIABLE, TIME_LIMITS, LiberoEnv
from rollout_manager.envs.libero.package import ASSET_FOLDERS, ASSETS_VARIABLE, find_assets
from rollout_manager.envs.libero.scene import LiberoScene
from rollout_manager.envs.libero.suites import SUITES, all_tasks, find_task
from rollout_manager.envs.registry import make_env
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import SimulatorError
from rollout_manager.pool import WorkerPool
from rollout_manager.pool_request import EpisodeRequest
from rollout_manager.recorder import BagObserver
from rollout_manager.rollout import StepRecord, new_header, run_episode
from vla_policy_node.observation import Float64Array, Observation, ObservationBuffer, Readings
from vla_policy_node.safety import SafetyFilter
from vla_policy_node.spec import CameraSpec, ProprioceptionField, RobotSpec, load_spec

pytestmark = needs_assets

SPEC = load_spec("libero")
OPEN = np.array([0, 0, 0, 0, 0, 0, -1], np.float32)
STOVE = "KITCHEN_SCENE3_turn_on_the_stove"
TWO_GOALS = "KITCHEN_SCENE3_turn_on_the_stove_and_put_the_moka_pot_on_it"
MUGS = "LIVING_ROOM_SCENE5_put_the_red_mug_on_the_left_plate"
COOKIES = "pick_up_the_black_bowl_on_the_cookie_box_and_place_it_on_the_plate"

STOCK_TASKS = (TWO_GOALS, "libero_goal/0", "libero_object/3")
"""All suites and more tasks: `python benchmarks/bench_libero.py --parts physics`."""


@pytest.fixture(scope="module")
def env() -> Iterator[LiberoEnv]:
    made = LiberoEnv()
    yield made
    made.close()


def random_actions(steps: int) -> Float64Array:
    return np.random.default_rng(0).uniform(-1, 1, (steps, 7))


def states_along(env: LiberoEnv, task: str, seed: int, steps: int) -> Float64Array:
    """States on the way of random actions, shape (steps + 1, S)."""
    env.reset(task, seed)
    states = [env.privileged_state()]
    for action in random_actions(steps).astype(np.float32):
        env.step(action)
        states.append(env.privileged_state())
    return np.array(states)


def sized(spec: RobotSpec, pixels: int) -> RobotSpec:
    return replace(spec, cameras=tuple(replace(c, height=pixels, width=pixels) for c in spec.cameras))


def test_all_tasks_of_the_five_suites_are_there(env: LiberoEnv) -> None:
    assert len(env.tasks) == 130 == len(set(env.tasks))
    assert set(TIME_LIMITS) == set(SUITES)
    assert {env.instruction(task) for task in env.tasks} == {task.instruction for task in all_tasks()}
    assert env.default_time_limit(STOVE) == 400
    assert env.default_time_limit(TWO_GOALS) == 520


@pytest.mark.parametrize("name", STOCK_TASKS)
def test_physics_and_success_are_the_stock_s_to_the_bit(name: str) -> None:
    task = find_task(name)
    ours, stock = LiberoScene(task, find_assets()), StockLibero(task)
    ours.reset(7)
    stock.reset(7)
    assert np.array_equal(ours.model.body_pos, stock.model.body_pos), "fixtures stand elsewhere"
    for k, action in enumerate(random_actions(200)):
        assert np.array_equal(ours.data.qpos, stock.data.qpos), f"before step {k}"
        ours.step(action)
        _, success = stock.step(action)
        assert all(ours.satisfied()) == success
    for name in ("qpos", "qvel", "xpos", "ctrl", "qacc_warmstart"):
        assert np.array_equal(getattr(ours.data, name), getattr(stock.data, name)), name
    ours.close()
    stock.close()


def test_success_is_all_goals_and_progress_their_share(env: LiberoEnv) -> None:
    env.reset(TWO_GOALS, 0)
    scene = env._ready().scene
    assert [goal[0] for goal in scene.goals] == ["turnon", "on"]
    result = env.step(OPEN)
    assert (result.success, result.progress) == (False, 0.0)
    knob = scene.model.joint("flat_stove_1_button").qposadr[0]
    qpos = scene.data.qpos.copy()
    qpos[knob] = 0.6
    scene.set_state(qpos, np.zeros(scene.model.nv))
    result = env.step(OPEN)
    assert (result.success, result.progress) == (False, 0.5)
    pot, stove = scene.problem.object_states_dict[scene.goals[1][1]], scene.goals[1][2]
    pot_qpos = scene.model.joint(f"{pot.object_name}_joint0").qposadr[0]
    qpos[pot_qpos : pot_qpos + 3] = scene.data.site(stove).xpos + np.array([0.0, 0.0, 0.035])
    scene.set_state(qpos, np.zeros(scene.model.nv))
    results = [env.step(OPEN) for _ in range(10)]
    assert results[-1].success == scene.problem._check_success()
    assert results[-1].progress == 1.0


@pytest.mark.parametrize(("task", "seed"), [(TWO_GOALS, 5), (COOKIES, 1005)])
def test_a_seed_and_actions_fix_the_episode_whatever_went_before(env: LiberoEnv, task: str, seed: int) -> None:
    fresh = LiberoEnv()
    expected = states_along(fresh, task, seed, 12)
    fresh.close()
    other = states_along(env, task, seed + 1, 12)
    assert not np.array_equal(other, expected)
    assert np.array_equal(states_along(env, task, seed, 12), expected), "first in this scene, after another seed"
    env.reset(STOVE, 3)
    env.step(OPEN)
    assert np.array_equal(states_along(env, task, seed, 12), expected), "again, after another task"
    env._ready().scene._settled.clear()
    assert np.array_equal(states_along(env, task, seed, 12), expected), "again, and settled anew"


def test_sampled_placements_differ_and_lie_on_the_table(env: LiberoEnv) -> None:
    found = []
    for seed in range(1000, 1006):
        env.reset(COOKIES, seed)
        scene = env._ready().scene
        bodies = scene.problem.obj_body_id
        found.append([scene.data.xpos[bodies[name]].copy() for name in scene.problem.objects_dict])
        assert np.abs(scene.data.qvel).max() < 0.5, "still falling"
    places = np.array(found)
    assert places[..., 2].min() > 0.85
    assert np.abs(places[..., :2]).max() < 0.5
    assert np.ptp(places[..., :2], axis=0).max() > 0.01


def test_what_is_random_elsewhere_goes_on_as_if_nothing_had_been(env: LiberoEnv) -> None:
    np.random.seed(3)
    expected = np.random.rand(4)
    np.random.seed(3)
    drawn = [np.random.rand() for _ in range(2)]
    env.reset(STOVE, 1017)
    assert np.array_equal([*drawn, *np.random.rand(2)], expected)


def test_rendering_changes_no_state(env: LiberoEnv) -> None:
    blind = states_along(env, STOVE, 2, 5)
    env.reset(STOVE, 2)
    for state, action in zip(blind, random_actions(5).astype(np.float32), strict=False):
        env.read()
        assert np.array_equal(env.privileged_state(), state)
        env.step(action)


def test_a_state_can_be_put_into_another_scene(env: LiberoEnv) -> None:
    state = states_along(env, STOVE, 4, 20)[-1]
    one, other = LiberoScene(find_task(STOVE), find_assets()), env._ready().scene
    one.reset(4)
    for scene in (one, other):
        scene.set_state(*np.split(state, [scene.model.nq]))
        assert np.array_equal(np.concatenate([scene.data.qpos, scene.data.qvel]), state)
    assert np.array_equal(one.data.xpos, other.data.xpos)
    before = one.data.site(HAND).xpos.copy()
    for _ in range(10):
        one.step(np.zeros(7))
    assert np.linalg.norm(one.data.site(HAND).xpos - before) < 0.05, "the hand stays where it was put"
    with pytest.raises(SimulatorError, match=r"state of shapes \(2,\) and \(1,\), but the scene has"):
        one.set_state(np.zeros(2), np.zeros(1))
    one.close()


def test_pictures_stand_upright_and_are_not_mirrored(env: LiberoEnv) -> None:
    env.reset(MUGS, 0)
    scene, image = env._ready().scene, env.read().images["front"].astype(int)
    red = (image[..., 0] > image[..., 1] + 60) & (image[..., 0] > image[..., 2] + 60)
    seen = np.argwhere(red).mean(axis=0)
    model, data = scene.model, scene.data
    camera = model.camera("agentview").id
    of_mug = (model.geom_bodyid == scene.problem.obj_body_id["red_coffee_mug_1"]) & (model.geom_group == 1)
    place = data.geom_xpos[of_mug].mean(axis=0)
    x, y, z = data.cam_xmat[camera].reshape(3, 3).T @ (place - data.cam_xpos[camera])
    scale = 64 / np.tan(np.radians(model.cam_fovy[camera]) / 2)
    assert seen == pytest.approx([64 - y / -z * scale, 64 + x / -z * scale], abs=5)
    assert red.sum() > 50


def test_the_full_look_is_the_stock_picture_and_the_light_one_is_like_it() -> None:
    stock, pictures = StockLibero(find_task(STOVE), size=64), {}
    stock.reset(0)
    observed = stock.env.env._get_observations(force_update=True)
    for look in ("full", "light"):
        env = LiberoEnv(sized(SPEC, 64), look=look)
        env.reset(STOVE, 0)
        # The stock's picture is one substep older than ours after a reset, which brings all poses up to date.
        env._ready().scene.data.geom_xpos[:] = stock.data.geom_xpos
        env._ready().scene.data.geom_xmat[:] = stock.data.geom_xmat
        env._ready().scene.data.cam_xpos[:] = stock.data.cam_xpos
        env._ready().scene.data.cam_xmat[:] = stock.data.cam_xmat
        pictures[look] = env.read().images
        env.close()
    stock.close()
    for name, key in (("front", "agentview_image"), ("wrist", "robot0_eye_in_hand_image")):
        expected = observed[key][::-1].astype(int)  # OpenGL's lowest row comes first.
        assert np.abs(pictures["full"][name] - expected).max() == 0
        assert 0 < np.abs(pictures["light"][name] - expected).mean() < 20


def test_leaving_out_what_is_out_of_view_changes_no_pixel(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = replace(SPEC, cameras=(CameraSpec("wrist", 64, 96), CameraSpec("front", 96, 64)))
    env = LiberoEnv(wide)
    env.reset(STOVE, 0)
    groups = env._ready().scene.model.geom_group.copy()
    some = env.read().images
    assert np.array_equal(env._ready().scene.model.geom_group, groups)
    monkeypatch.setattr(rendering, "out_of_view", lambda model, *_: np.zeros(model.ngeom, bool))
    everything = env.read().images
    assert {name: image.shape for name, image in some.items()} == {"wrist": (64, 96, 3), "front": (96, 64, 3)}
    for name in some:
        assert np.array_equal(some[name], everything[name])
        assert some[name].std() > 15  # A scene, not an empty buffer.
    env.close()


def test_readings_are_what_the_simulation_says(env: LiberoEnv) -> None:
    env.reset(STOVE, 0)
    for action in random_actions(15).astype(np.float32):
        env.step(action)
    readings, data = env.read(cameras=False), env._ready().scene.data
    assert readings.images == {}
    place = data.site(HAND).xpos - data.body(BASE).xpos  # Axes are the world's: the arm faces along x.
    assert np.array_equal(data.body(BASE).xmat, np.eye(3).ravel())
    assert readings.ee_pose.position == pytest.approx(place, abs=1e-12)
    assert np.linalg.norm(readings.ee_pose.orientation) == pytest.approx(1)
    assert len(readings.joints.names) == 9 == len(readings.joints.position) == len(readings.joints.velocity)
    assert readings.joints.position[7:] == pytest.approx([0.03, -0.03], abs=0.015)
    buffer = ObservationBuffer(replace(SPEC, cameras=()))
    buffer.instruction = "turn on the stove"
    buffer.add_readings(0, readings)
    observation = buffer.assemble()
    assert isinstance(observation, Observation)
    rotation = data.site(HAND).xmat.reshape(3, 3)
    expected = [*place, *rotation[:, 0], *rotation[:, 1], *readings.joints.position[7:]]
    assert observation.proprioception == pytest.approx(np.array(expected), abs=1e-6)


def test_actions_move_the_hand_and_beyond_their_limits_no_farther(env: LiberoEnv) -> None:
    ends = []
    for scale in (1.0, 9.0):
        env.reset(STOVE, 0)
        start = env.read(cameras=False).ee_pose.position
        for _ in range(10):
            env.step(np.array([0, scale, 0, 0, 0, 0, -scale], np.float32))
        ends.append(env.read(cameras=False).ee_pose.position - start)
    assert np.array_equal(ends[0], ends[1])
    assert ends[0][1] > 0.1
    assert np.abs(ends[0][[0, 2]]).max() < 0.03


def test_only_a_few_tasks_stay_set_up(env: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(libero_env.SCENES_KEPT, "light", 2)
    env.close()
    for task in (STOVE, TWO_GOALS, MUGS, STOVE):
        env.reset(task, 0)
        assert env.read().images["front"].std() > 15
    assert list(env._scenes) == [MUGS, STOVE]


def test_what_decides_a_result_has_a_name(env: LiberoEnv, tmp_path: Path) -> None:
    versions = env.versions()
    assert set(versions) == {"hf-libero", "robosuite", "bddl", "mujoco", "numpy", "libero_assets", "libero_look"}
    assert versions["libero_look"].startswith("light-")
    changed = LiberoEnv(assets=assets_without(tmp_path, "textures/gray_ceramic_tile.png"), look="full").versions()
    assert changed["libero_look"] == "full"
    assert len(changed["libero_assets"]) == 16
    assert changed["libero_assets"] != versions["libero_assets"]


def assets_without(folder: Path, missing: str) -> Path:
    """Links to all of LIBERO's assets but one file."""
    assets = find_assets()
    assert (assets / missing).is_file()
    for path in assets.rglob("*"):
        name = path.relative_to(assets)
        if path.is_file() and name.as_posix() != missing and name.parts[0] in ASSET_FOLDERS:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(path)
    return folder


@pytest.mark.parametrize("missing", ["articulated_objects/flat_stove.xml", "articulated_objects/flat_stove/metal.png"])
def test_assets_that_lack_a_file_are_refused_by_its_name(tmp_path: Path, missing: str) -> None:
    for look in ("light", "full"):
        env = LiberoEnv(assets=assets_without(tmp_path / look, missing), look=look)
        with pytest.raises(SimulatorError, match=missing):
            env.reset(STOVE, 0)
        with pytest.raises(SimulatorError, match="no task is set up"):
            env.step(OPEN)


def test_mistakes_are_named(env: LiberoEnv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        SimulatorError, match=r"'KITCHEN_SCENE3_turn_on_the_stov' .*means '?KITCHEN_SCENE3_turn_on_|any of"
    ):
        env.reset("KITCHEN_SCENE3_turn_on_the_stov", 0)
    with pytest.raises(SimulatorError, match="'libero_90/20' is no full name; it means"):
        env.reset("libero_90/20", 0)
    for seed in (-1, 50, 999):
        with pytest.raises(SimulatorError, match=f"seed {seed} .*0 to 49 .*1000"):
            env.reset(STOVE, seed)
    with pytest.raises(SimulatorError, match="camera 'rear' is not one of LIBERO's: front, wrist"):
        LiberoEnv(replace(SPEC, cameras=(CameraSpec("rear", 64, 64),)))
    with pytest.raises(SimulatorError, match=r"joint 'elbow' is not one of .*panda_finger_joint2"):
        LiberoEnv(replace(SPEC, proprioception=(ProprioceptionField("e", "joint_position", "elbow", "rad"),)))
    with pytest.raises(SimulatorError, match="4 action dimensions"):
        LiberoEnv(replace(SPEC, action=SPEC.action[:4]))
    with pytest.raises(SimulatorError, match="rate_hz 10; LIBERO's is 20"):
        LiberoEnv(replace(SPEC, rate_hz=10.0))
    with pytest.raises(SimulatorError, match="look 'nice' is not one of light, full"):
        LiberoEnv(look="nice")
    monkeypatch.setenv(LOOK_VARIABLE, "dark")
    with pytest.raises(SimulatorError, match="look 'dark' is not one of light, full"):
        LiberoEnv()
    monkeypatch.setenv(LOOK_VARIABLE, "full")
    assert make_env("libero").versions()["libero_look"] == "full"
    monkeypatch.setenv(ASSETS_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(SimulatorError, match="nowhere"):
        LiberoEnv()


def test_a_reset_that_fails_says_so_and_does_not_try_for_ever(env: LiberoEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    env.reset(STOVE, 0)
    sampler, debugger = env._ready().scene.problem.placement_initializer, pdb.set_trace
    monkeypatch.setattr(sampler, "sample", lambda: pdb.set_trace())  # As LIBERO does where a thing does not fit.
    with pytest.raises(SimulatorError, match=f"{STOVE}: no free place .* in 20 tries: .* does not fit"):
        env.reset(STOVE, 1234)
    with pytest.raises(SimulatorError, match="no task is set up"):
        env.step(OPEN)
    assert pdb.set_trace is debugger
    monkeypatch.undo()
    env.reset(STOVE, 1234)
    assert env.read().images["front"].std() > 15


@pytest.mark.parametrize("action", [np.zeros(4, np.float32), np.array([0, np.nan, 0, 0, 0, 0, 1], np.float32)])
def test_an_action_that_is_none_does_not_reach_the_simulator(env: LiberoEnv, action: Any) -> None:
    env.reset(STOVE, 0)
    before = env.privileged_state()
    with pytest.raises(SimulatorError, match="not 7 finite numbers"):
        env.step(action)
    assert np.array_equal(env.privileged_state(), before)


def test_a_bag_gives_back_what_was_observed(env: LiberoEnv, tmp_path: Path) -> None:
    header = new_header(env, STOVE, 1, driver="none")
    seen: list[Observation] = []

    class Witness:
        needs_images = True

        def start(self, header: EpisodeHeader) -> None:
            self.buffer = ObservationBuffer(SPEC)
            self.buffer.instruction = header.instruction

        def step(self, record: StepRecord) -> None:
            assert record.readings is not None
            self.buffer.add_readings(record.stamp_ns, record.readings)
            observation = self.buffer.assemble()
            assert isinstance(observation, Observation)
            seen.append(observation)

        def finish(self, outcome: Outcome, stamp_ns: int, readings: Readings | None) -> None:
            pass

    result = run_episode(env, NoDriver(SafetyFilter(SPEC)), header, 6, [Witness(), BagObserver(tmp_path, SPEC)])
    assert result.outcome.ending == "truncated"
    recorded = bag_observations(tmp_path / header.episode_id, SPEC)
    assert len(recorded) == 7
    for one, other in zip(seen, recorded, strict=False):
        assert one.stamp_ns == other.stamp_ns
        assert one.instruction == other.instruction == "turn on the stove"
        assert np.array_equal(one.proprioception, other.proprioception)
        assert all(np.array_equal(one.images[name], other.images[name]) for name in SPEC.camera_names)


def test_a_pool_s_workers_take_assets_and_look_from_the_environment(tmp_path: Path) -> None:
    assert os.environ[ASSETS_VARIABLE]
    request = EpisodeRequest("libero", STOVE, 2, driver="none", time_limit=4, bag_root=str(tmp_path), record="all")
    with WorkerPool(1) as pool:
        (result,) = pool.run([request])
    assert (result.outcome.ending, result.outcome.steps, result.outcome.reason) == ("truncated", 4, "")
    assert result.header.versions["libero_look"].startswith("light-")

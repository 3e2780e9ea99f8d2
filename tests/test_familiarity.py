"""Whether a robot looks as in training: turned cameras, other units, and no alarm where all is well."""

from dataclasses import replace

import numpy as np
import pytest
from graph_helpers import METAWORLD
from hypothesis import given
from hypothesis import strategies as st

from vla_policy_node.exceptions import SpecError
from vla_policy_node.familiarity import typical_views, unfamiliar, view_of
from vla_policy_node.normalization import VIEW, Statistics
from vla_policy_node.observation import ImageArray, Observation
from vla_policy_node.spec import ProprioceptionField

SPEC = replace(
    METAWORLD,
    cameras=METAWORLD.cameras[:1],
    proprioception=(
        ProprioceptionField("elbow", "joint_position", "elbow", "rad"),
        ProprioceptionField("slide", "joint_position", "slide", "m"),
    ),
)
CAMERA = SPEC.camera_names[0]


def scene(seed: int = 0) -> ImageArray:
    """A blue sky over a brown table with a red thing on its left, and noise."""
    image = np.zeros((48, 64, 3))
    image[:24], image[24:], image[28:40, 8:20] = (90, 120, 220), (150, 110, 60), (210, 30, 30)
    return np.clip(image + np.random.default_rng(seed).normal(0, 12, image.shape), 0, 255).astype(np.uint8)


TRAINED = Statistics((0.4, 0.02), (0.2, 0.02), (0.0,) * 4, (1.0,) * 4, (typical_views([scene(k) for k in range(5)]),))


def said(image: ImageArray, elbow: float = 0.5, slide: float = 0.03) -> tuple[str, ...]:
    return unfamiliar(SPEC, TRAINED, Observation(0, {CAMERA: image}, np.array([elbow, slide], np.float32), "go"))


def test_a_view_is_the_mean_colour_of_each_part() -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[0, 0] = (40, 80, 120)  # one of the four pixels of the first part
    assert view_of(image)[0, 0].tolist() == [10, 20, 30]
    assert not view_of(image)[1:].any()
    assert typical_views([image, np.zeros_like(image)], most=1)[0][:3] == (5, 10, 15)
    assert sorted(view[0] for view in typical_views([image, np.zeros_like(image), image])) == [0, 10]


def test_nothing_is_said_of_the_scene_that_it_was_trained_on() -> None:
    assert said(scene(99)) == ()
    assert said((0.6 * scene(99)).astype(np.uint8)) == (), "it is darker today"


@pytest.mark.parametrize(
    ("image", "how"),
    [
        (scene()[::-1, ::-1], "upside down"),
        (scene()[:, ::-1], "mirrored left to right"),
        (scene()[..., ::-1], "with red and blue swapped"),
    ],
)
def test_a_camera_that_is_turned_is_told_with_how(image: ImageArray, how: str) -> None:
    [text] = said(np.ascontiguousarray(image))
    assert text.startswith(f"camera '{CAMERA}' is like the training data only {how} (correlation 1.00")


def test_a_camera_that_shows_something_else_is_told() -> None:
    [text] = said(np.full((48, 64, 3), 77, np.uint8))
    assert text == f"camera '{CAMERA}' shows something else than in the training data (correlation 0.00)"


def test_other_units_are_told_by_their_factor() -> None:
    [degrees] = said(scene(), elbow=30.0)  # 0.52 rad
    assert degrees.startswith("'elbow' is 30 rad, far from the training data's 0.4")
    assert degrees.endswith("is it in degrees?")
    [millimetres] = said(scene(), slide=31.0)
    assert millimetres.endswith("is it in millimetres?")
    [far] = said(scene(), elbow=-2.5)  # as degrees -0.04 rad, as radians -143 degrees
    assert far.endswith("is it in degrees?")
    [far] = said(scene(), slide=-300.0)
    assert far == "'slide' is -300 m, far from the training data's 0.02, standard deviation 0.02"


def test_a_checkpoint_without_views_says_nothing_of_cameras() -> None:
    before = Statistics.from_dict({k: v for k, v in TRAINED.to_dict().items() if k != "views"})
    assert before.views == ()
    seen = Observation(0, {CAMERA: scene()[::-1]}, np.array([0.4, 0.02], np.float32), "go")
    assert unfamiliar(SPEC, before, seen) == ()
    assert Statistics.from_dict(TRAINED.to_dict()) == TRAINED
    with pytest.raises(SpecError, match="views are not of 192 finite values each"):
        replace(TRAINED, views=(((0.0,) * VIEW,),))
    with pytest.raises(SpecError, match="views of 2 cameras"):
        replace(TRAINED, views=TRAINED.views * 2).check(SPEC)


@given(st.integers(0, 2**32 - 1), st.floats(-1, 1), st.floats(0.3, 1.0))
def test_no_alarm_within_what_was_trained_on(seed: int, sigmas: float, light: float) -> None:
    image = np.clip(light * scene(seed), 0, 255).astype(np.uint8)
    assert said(image, 0.4 + 5 * sigmas * 0.2, 0.02 + 5 * sigmas * 0.02) == ()

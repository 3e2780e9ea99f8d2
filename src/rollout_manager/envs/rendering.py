"""Off-screen rendering of a MuJoCo model, fast where it is done in software.

Per 64 px frame the default settings cost 55-120 ms; without multisampling, shadows and reflections it is 3 ms.
"""

import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

# MuJoCo picks its OpenGL loader when it is first imported. The default runs without a display or a GPU; one process
# a core renders, so the software rasteriser gets no threads of its own.
os.environ.setdefault("MUJOCO_GL", "osmesa")
os.environ.setdefault("LP_NUM_THREADS", "0")

from rollout_manager.envs.opengl import LIBRARIES
from rollout_manager.exceptions import SimulatorError
from vla_policy_node.observation import ImageArray

UNSEEN_GROUP = 5
"""A group of geoms that is not drawn; MuJoCo draws 0 to 2 unless told otherwise."""


def import_mujoco() -> Any:
    """The module `mujoco`.

    Raises:
        SimulatorError: it, or the OpenGL library that MUJOCO_GL names, cannot be loaded.
    """
    try:
        import mujoco
    # Without the system's library PyOpenGL fails with an AttributeError on None.
    except (ImportError, AttributeError, OSError, RuntimeError) as error:
        chosen = os.environ["MUJOCO_GL"]
        raise SimulatorError(
            f"MuJoCo cannot be loaded with MUJOCO_GL={chosen}: {error}. Valid are osmesa (apt-get install "
            f"{LIBRARIES['osmesa']}), egl for a GPU (apt-get install {LIBRARIES['egl']}), and glfw"
        ) from error
    return mujoco


@dataclass(frozen=True)
class FreeCamera:
    """Where a camera stands: it looks at a point from a distance. Angles in degrees, lengths in metres."""

    azimuth: float
    elevation: float
    distance: float
    lookat: tuple[float, float, float]


@dataclass(frozen=True)
class View:
    """One image to render."""

    camera: FreeCamera | str
    """A free camera, or the name of one of the model's own."""
    height: int
    width: int


class OffscreenRenderer:
    """Renders any number of views of one model through one OpenGL context."""

    def __init__(
        self, model: Any, views: Mapping[str, View], *, full_quality: bool = False, hidden: Sequence[int] = ()
    ) -> None:
        """Prepare an OpenGL context.

        Args:
            model: an MjModel, whose visual settings are changed.
            views: what `render` gives, by name.
            full_quality: with the model's own multisampling, shadows and reflections, at their price.
            hidden: groups of geoms that are not drawn, beside 3 to 5.

        Raises:
            SimulatorError: there is no OpenGL.
        """
        self._mujoco = mujoco = import_mujoco()
        height = max((view.height for view in views.values()), default=1)
        width = max((view.width for view in views.values()), default=1)
        # Both are read when the context is made, so they have to be set before.
        if not full_quality:
            model.vis.quality.offsamples = 0
            model.vis.quality.shadowsize = 64
        model.vis.global_.offheight, model.vis.global_.offwidth = height, width
        self._model, self._full_quality = model, full_quality
        self._views = {name: (self._camera(view.camera), view.height, view.width) for name, view in views.items()}
        self._scene = mujoco.MjvScene(model, maxgeom=1000)
        if not full_quality:
            self._scene.flags[mujoco.mjtRndFlag.mjRND_SHADOW] = 0
            self._scene.flags[mujoco.mjtRndFlag.mjRND_REFLECTION] = 0
        self._option = mujoco.MjvOption()
        self._option.geomgroup[list(hidden)] = 0
        self._gl = mujoco.GLContext(width, height)
        self._gl.make_current()
        try:
            self._context = mujoco.MjrContext(model, mujoco.mjtFontScale.mjFONTSCALE_50)
        except mujoco.FatalError as error:
            raise SimulatorError(
                f"no OpenGL context with MUJOCO_GL={os.environ['MUJOCO_GL']}: {error}. "
                "If mujoco was imported before this package, set MUJOCO_GL=osmesa in the environment"
            ) from error
        mujoco.mjr_setBuffer(mujoco.mjtFramebuffer.mjFB_OFFSCREEN, self._context)
        self._free = weakref.finalize(self, _free, self._gl, self._context)
        # When the process ends EGL may have been shut down before, and everything is freed anyway.
        self._free.atexit = False

    def render(self, data: Any) -> dict[str, ImageArray]:
        """RGB images (height, width, 3) of the state in `data`, an MjData of the model."""
        mujoco = self._mujoco
        self._gl.make_current()
        images: dict[str, ImageArray] = {}
        for name, (camera, height, width) in self._views.items():
            viewport = mujoco.MjrRect(0, 0, width, height)
            everything = mujoco.mjtCatBit.mjCAT_ALL
            groups = self._model.geom_group.copy()
            if not self._full_quality and camera.type == mujoco.mjtCamera.mjCAMERA_FIXED:
                # Without shadows and reflections, what lies outside the picture leaves no trace in it.
                self._model.geom_group[out_of_view(self._model, data, camera.fixedcamid, width / height)] = UNSEEN_GROUP
            mujoco.mjv_updateScene(self._model, data, self._option, None, camera, everything, self._scene)
            self._model.geom_group[:] = groups
            mujoco.mjr_render(viewport, self._scene, self._context)
            pixels = np.empty((height, width, 3), np.uint8)
            mujoco.mjr_readPixels(pixels, None, viewport, self._context)
            images[name] = np.ascontiguousarray(pixels[::-1])  # OpenGL's first row is the lowest.
        return images

    def close(self) -> None:
        """Free the context; `render` may not be called any more."""
        self._free()

    def _camera(self, wanted: FreeCamera | str) -> Any:
        mujoco = self._mujoco
        camera = mujoco.MjvCamera()
        if isinstance(wanted, str):
            camera.type = mujoco.mjtCamera.mjCAMERA_FIXED
            camera.fixedcamid = self._model.camera(wanted).id
            return camera
        camera.type = mujoco.mjtCamera.mjCAMERA_FREE
        camera.azimuth, camera.elevation, camera.distance = wanted.azimuth, wanted.elevation, wanted.distance
        camera.lookat[:] = wanted.lookat
        return camera


def out_of_view(model: Any, data: Any, camera: int, aspect: float) -> npt.NDArray[np.bool_]:
    """Which geoms lie outside the picture of one of the model's cameras, shape (ngeom,), by their bounding spheres.

    Args: aspect: the picture's width by its height.
    """
    in_camera = (data.geom_xpos - data.cam_xpos[camera]) @ data.cam_xmat[camera].reshape(3, 3)
    x, y, depth = np.abs(in_camera[:, 0]), np.abs(in_camera[:, 1]), -in_camera[:, 2]
    up = np.tan(np.radians(model.cam_fovy[camera]) / 2)
    across = up * aspect
    radius = model.geom_rbound  # 0: a plane, which has no end.
    beside = (x - across * depth) / np.hypot(1, across) > radius
    above = (y - up * depth) / np.hypot(1, up) > radius
    outside: npt.NDArray[np.bool_] = (beside | above | (depth < -radius)) & (radius > 0)
    return outside


def _free(gl: Any, context: Any) -> None:
    # OpenGL numbers its objects a context: freed under another one, that one's textures would go instead.
    gl.make_current()
    context.free()
    gl.free()

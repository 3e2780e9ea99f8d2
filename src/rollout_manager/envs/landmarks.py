"""Where the things of a MuJoCo model are, by the model's own names."""

from typing import Any

import numpy as np

from rollout_manager.env import Landmarks

HINGE, SLIDE = 3, 2
"""mjtJoint: the joints that have one position."""


def model_landmarks(model: Any, data: Any) -> Landmarks:
    """Positions of all named bodies and sites (m, world frame), and of all hinges (rad) and slides (m)."""
    positions = {model.body(i).name: data.xpos[i].copy() for i in range(model.nbody)}
    positions |= {model.site(i).name: data.site_xpos[i].copy() for i in range(model.nsite)}
    single = np.flatnonzero(np.isin(model.jnt_type, (HINGE, SLIDE)))
    joints = {model.joint(i).name: float(data.qpos[model.jnt_qposadr[i]]) for i in single}
    return Landmarks({name: p for name, p in positions.items() if name}, {n: q for n, q in joints.items() if n})

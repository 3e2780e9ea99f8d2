"""How near a displaced hand gets to where it is told, how far it lags, and what a tick costs.

Random programs of displacements from the model's home pose of `panda_ee`, each held for a third of a second, the arm
following exactly; then the arm rests. Reported are medians over programs with 95 % intervals from 1000 bootstrap
resamples, and the highest. Times are of one process's CPU, so that others on the machine count for little.

Run: `python benchmarks/bench_inverse_kinematics.py [programs] [result.json]`.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from vla_policy_node.end_effector import make_safety_filter
from vla_policy_node.kinematics import ArmModel
from vla_policy_node.spec import RobotSpec, load_spec

Floats = npt.NDArray[np.float64]
HOLDS, TICKS, REST = 6, 10, 25
SHARES = (0.15, 0.5, 1.0)
"""Of the action's limits, from which displacements are drawn."""


def seen(spec: RobotSpec, arm: ArmModel, joints: Floats) -> npt.NDArray[np.float32]:
    """Proprioception with the joints there and all else at 0."""
    keys = [f.key for f in spec.proprioception]
    found = np.zeros(len(keys), np.float32)
    for dimension, value in zip(arm.dimensions, joints, strict=True):
        found[keys.index(dimension.joint)] = value
    return found


def program(spec: RobotSpec, arm: ArmModel, share: float, random: np.random.Generator) -> dict[str, Any]:
    """One program: m and rad off at rest, m behind on the way, ms a tick, and ticks that were limited."""
    gate = make_safety_filter(spec)
    joints = arm.home[arm.addresses]
    largest = spec.action_high[:6].astype(np.float64)
    position, rotation = arm.hand(joints)
    behind, times, limited = [], [], 0
    for hold in range(HOLDS + 1):
        asked = share * random.uniform(-1, 1, 6) * largest if hold < HOLDS else np.zeros(6)
        for _ in range(TICKS if hold < HOLDS else REST):
            started = time.process_time()
            command = gate.check(np.append(asked, 0.02), (), seen(spec, arm, joints))
            times.append(1e3 * (time.process_time() - started))
            joints = command.joints.astype(np.float64)
            # What was accepted: where it is to be, whatever was asked for.
            position = position + command.action[:3]
            rotation = Rotation.from_rotvec(command.action[3:6].astype(np.float64)).as_matrix() @ rotation
            behind.append(float(np.linalg.norm(arm.hand(joints)[0] - position)))
            limited += bool(command.reasons)
    at, turned = arm.hand(joints)
    off = float(np.linalg.norm(Rotation.from_matrix(turned @ rotation.T).as_rotvec()))
    return {
        "off_mm": 1e3 * float(np.linalg.norm(at - position)),
        "off_rad": off,
        "behind_mm": 1e3 * max(behind),
        "tick_ms": float(np.median(times)),
        "slowest_ms": max(times),
        "limited": limited / len(times),
    }


def interval(values: Sequence[float], random: np.random.Generator) -> tuple[float, float, float]:
    """Median and its 95 % bootstrap interval."""
    medians = np.median(random.choice(values, (1000, len(values))), axis=1)
    return float(np.median(values)), float(np.quantile(medians, 0.025)), float(np.quantile(medians, 0.975))


def main() -> int:
    programs = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    spec, random = load_spec("panda_ee"), np.random.default_rng(0)
    assert spec.kinematics is not None
    arm = ArmModel(spec.kinematics, spec.kinematics.joints)
    results: dict[str, Any] = {}
    for share in SHARES:
        found = [program(spec, arm, share, random) for _ in range(programs)]
        results[str(share)] = found
        print(f"displacements up to {share:g} of the action's limits, {programs} programs")
        for what in found[0]:
            values = [one[what] for one in found]
            middle, low, high = interval(values, random)
            print(f"  {what:<12}{middle:>10.4g}  [{low:.4g}, {high:.4g}]  highest {max(values):.4g}")
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(json.dumps(results, sort_keys=True) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

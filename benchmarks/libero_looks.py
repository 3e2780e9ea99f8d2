"""The picture docs/media/libero_looks.png: a scene of each kind, light above, LIBERO's stock picture below.

Run: python benchmarks/libero_looks.py [picture.png]
"""

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from rollout_manager.envs.libero.env import LiberoEnv
from rollout_manager.envs.libero.suites import find_task
from vla_policy_node.observation import ImageArray
from vla_policy_node.spec import load_spec

ROOT = Path(__file__).resolve().parents[1]
TASKS = ("libero_spatial/0", "libero_object/1", "libero_90/50", "libero_90/85")
PIXELS = 128


def row(look: str) -> ImageArray:
    """Front and wrist camera of every task, side by side."""
    spec = load_spec("libero")
    env = LiberoEnv(
        replace(spec, cameras=tuple(replace(c, height=PIXELS, width=PIXELS) for c in spec.cameras)), look=look
    )
    tiles: list[ImageArray] = []
    for name in TASKS:
        env.reset(find_task(name).name, 0)
        tiles += env.read().images.values()
    env.close()
    return np.hstack(tiles)


def main() -> int:
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "docs" / "media" / "libero_looks.png"
    light, full = row("light"), row("full")
    difference = np.abs(light.astype(int) - full.astype(int)).mean()
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = np.vstack([light, full])[..., ::-1]
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(f"{path}: {path.stat().st_size / 1e3:.0f} kB; mean difference {difference:.1f} of 255")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

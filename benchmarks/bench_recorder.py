"""Does the recorder lose nothing, on less than one core? Two real processes over DDS.

4 cameras 640x480 JPEG at 30 Hz and joints at 500 Hz are published; the recorder takes them raw and writes a bag.
Goal: 0 messages lost and less than one core. Run: `python benchmarks/bench_recorder.py [seconds] [result.json]`.
The exit status is 1 where the goal is missed.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NODE = Path(__file__).with_name("_recorder_node.py")
ROOT = Path(__file__).resolve().parents[1]


def run(seconds: float) -> dict[str, Any]:
    """Run both processes and put together what they say."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT / "src"),
        "ROS_DOMAIN_ID": os.environ.get("ROS_DOMAIN_ID", str(60 + os.getpid() % 40)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTRTPS_DEFAULT_PROFILES_FILE": str(ROOT / "config" / "fastdds_shm.xml"),
    }
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(NODE), "record", folder]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=env, text=True) as recorder:
            published = subprocess.run(
                [sys.executable, str(NODE), "publish", str(seconds)],
                stdout=pipe, env=env, text=True, timeout=seconds + 60, check=True,
            )  # fmt: skip
            recorded, _ = recorder.communicate("stop\n", timeout=60)
    return {**json.loads(published.stdout.splitlines()[-1]), **json.loads(recorded.splitlines()[-1])}


def summarise(result: dict[str, Any]) -> dict[str, Any]:
    """Messages lost and cores used, beside what was measured."""
    lost = {topic: count - result["recorded"].get(topic, 0) for topic, count in result["sent"].items()}
    cores = result["cpu_s"] / result["seconds"]
    met = sum(lost.values()) == 0 and not result["dropped"] and cores < 1.0 and not result["problems"]
    return {**result, "lost": lost, "cores": cores, "met": met}


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    result = summarise(run(seconds))
    print(f"{'topic':<28}{'sent':>8}{'Hz':>8}{'recorded':>10}{'lost':>6}")
    for topic, count in sorted(result["sent"].items()):
        rate = count / result["seconds"]
        print(f"{topic:<28}{count:>8}{rate:>8.1f}{result['recorded'].get(topic, 0):>10}{result['lost'][topic]:>6}")
    print(f"recorder: {result['cores']:.2f} cores, {result['bag_bytes'] / 1e6 / result['seconds']:.1f} MB/s to disk")
    print(f"goal (0 lost, < 1 core): {'met' if result['met'] else 'MISSED'}")
    line = json.dumps(result, sort_keys=True)
    if len(sys.argv) > 2:
        Path(sys.argv[2]).write_text(line + "\n")
    print(line)
    return 0 if result["met"] else 1


if __name__ == "__main__":
    sys.exit(main())

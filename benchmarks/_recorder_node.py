"""The two processes of `bench_recorder.py`: one publishes cameras and joints, one records them.

Run by the benchmark: `python _recorder_node.py publish SECONDS` and `... record FOLDER`. Each prints one line
of JSON at its end.
"""

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile, ReliabilityPolicy

from rollout_manager.bag import verify
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.recorder import EpisodeRecorder
from vla_policy_node.messages import compressed_to_message, joints_to_message, make_header
from vla_policy_node.observation import ImageArray, Joints
from vla_policy_node.ros_node import message_class, rclpy_maker

CAMERAS = 4
CAMERA_HZ = 30
JOINTS_HZ = 500
HEIGHT, WIDTH = 480, 640
QOS = QoSProfile(depth=200, history=HistoryPolicy.KEEP_LAST, reliability=ReliabilityPolicy.RELIABLE)
TOPICS = {f"/camera/c{i}/compressed": "sensor_msgs/msg/CompressedImage" for i in range(CAMERAS)}
TOPICS["/joint_states"] = "sensor_msgs/msg/JointState"


def picture(rng: np.random.Generator) -> ImageArray:
    """A picture with edges and grain, of which JPEG makes about 45 kB, as of a robot's camera."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    blocks = (np.sin(x / 17 + rng.uniform(0, 6)) > 0) ^ (np.sin(y / 23 + rng.uniform(0, 6)) > 0)
    grey = 90 * blocks + x * 60 / WIDTH + rng.normal(40, 4, (HEIGHT, WIDTH))
    colour = np.clip(np.stack([grey, grey * 0.9, grey * 0.7], -1), 0, 255)
    return np.asarray(colour, np.uint8)


def publish(seconds: float) -> dict[str, Any]:
    """Publish at the nominal rates for so long; what was sent."""
    node, make = Node("bench_publisher"), rclpy_maker()
    publishers = {topic: node.create_publisher(message_class(kind), topic, QOS) for topic, kind in TOPICS.items()}
    rng = np.random.default_rng(0)
    # Enough of them that no two in a chunk are equal: compression must not find what a real camera would not give.
    images = [compressed_to_message(make, picture(rng), 0, "camera", quality=80) for _ in range(64)]
    joints = Joints(tuple(f"joint{i}" for i in range(7)), np.zeros(7), np.zeros(7))
    while any(p.get_subscription_count() < 1 for p in publishers.values()):
        time.sleep(0.05)
    sent: Counter[str] = Counter()
    late = 0.0
    began = time.monotonic()
    for k in range(int(seconds * JOINTS_HZ)):
        pause = began + k / JOINTS_HZ - time.monotonic()
        late = max(late, -pause)
        if pause > 0:
            time.sleep(pause)
        stamp_ns = time.time_ns()
        publishers["/joint_states"].publish(joints_to_message(make, joints, stamp_ns))
        sent["/joint_states"] += 1
        # The cameras' frames are spread over their period, as free-running cameras' are.
        for i in range(CAMERAS):
            topic = f"/camera/c{i}/compressed"
            if sent[topic] <= (k / JOINTS_HZ - i / CAMERAS / CAMERA_HZ) * CAMERA_HZ:
                image = images[(sent[topic] * CAMERAS + i) % len(images)]
                image.header = make_header(make, stamp_ns, f"c{i}")
                publishers[topic].publish(image)
                sent[topic] += 1
    took = time.monotonic() - began
    time.sleep(1.0)  # the last messages are on their way
    return {"sent": dict(sent), "seconds": took, "latest_s": late, "jpeg_bytes": len(images[0].data)}


def record(folder: Path) -> dict[str, Any]:
    """Record all topics until a line comes on standard input; what was recorded and what it cost."""
    node = Node("bench_recorder")
    header = EpisodeHeader("bench", "bench", "bench", "bench", 0, "bench", "", "none", "real_time")
    recorder = EpisodeRecorder(folder, header)

    def subscribe(topic: str, kind: str) -> None:
        def callback(cdr: bytes) -> None:
            recorder.record(topic, kind, time.time_ns(), cdr)

        node.create_subscription(message_class(kind), topic, callback, QOS, raw=True)

    for topic, kind in TOPICS.items():
        subscribe(topic, kind)
    stop = threading.Event()

    def wait_for_line() -> None:
        sys.stdin.readline()
        stop.set()

    threading.Thread(target=wait_for_line, daemon=True).start()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not recorder.counts and not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
    cpu, began = time.process_time(), time.monotonic()
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.1)
    cpu, took = time.process_time() - cpu, time.monotonic() - began
    dropped = dict(recorder.dropped)
    bag = recorder.finish(Outcome("success", 0, 1.0))
    size = sum(file.stat().st_size for file in bag.iterdir())
    return {
        "recorded": dict(recorder.counts),
        "dropped": dropped,
        "cpu_s": cpu,
        "recorder_s": took,
        "bag_bytes": size,
        "problems": verify(bag),
    }


def main() -> None:
    rclpy.init()
    role, argument = sys.argv[1:]
    result = publish(float(argument)) if role == "publish" else record(Path(argument))
    print(json.dumps(result), flush=True)
    rclpy.shutdown()


if __name__ == "__main__":
    main()

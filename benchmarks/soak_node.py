"""Does a policy drive for an hour without leaking, drifting or losing anything?

    python benchmarks/soak_node.py --minutes 60 --output runs/soak

The stand-in arm, a policy node in real time with random weights, and a recorder that writes bag after bag, as three
processes. Every ten seconds: what each of them holds, and when commands were published, as DDS stamped them. At the
end, or when one of the three ends, a verdict on each bound, soak.json and soak.svg; the exit status is 1 where a bound
is broken. What the arm and the policy said is in logs/.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from _operator_node import Operator
from _pieces_node import PIECES, ROBOT
from _processes import holding, segments
from _random_policy import save_policy
from _soak_report import Finding, Window, as_json, judge, lost, picture, stood_still, table

from rollout_manager.bag import verify
from rollout_manager.graph import Graph, GraphConfig, NodeConfig, is_quiet, ros_environment
from vla_policy_node.dds_ports import SHARED_MEMORY
from vla_policy_node.ros_node import message_class, topic_qos
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, DIAGNOSTICS, MESSAGE_TYPES

TASK = "move"
KEPT = 3
"""Bags that stay on disk."""
WARM_UP_S = 300.0
"""Not counted, or a third of the run where that is shorter: allocators and caches fill."""
STOP_S = 20.0


class Listener(Operator):
    """Drives the arm and notes when each command was published, and how many the policy says it sent."""

    def __init__(self) -> None:
        super().__init__(TASK)
        self.published_ns: list[int] = []
        self.commands = 0
        self.ticks = self.held = 0
        qos = partial(topic_qos, lockstep=True, depth=500)
        self.node.create_subscription(message_class(MESSAGE_TYPES[ACTION]), ACTION, self._on_action, qos(ACTION))
        kind = message_class(MESSAGE_TYPES[DIAGNOSTICS])
        self.node.create_subscription(kind, DIAGNOSTICS, self._on_diagnostics, qos(DIAGNOSTICS))
        self.until(lambda: self.node.count_publishers(DIAGNOSTICS) >= 2)

    def take(self) -> list[int]:
        """Times of publication in ns since the last call, that call's last one first."""
        taken = self.published_ns
        self.published_ns = taken[-1:]
        return taken

    def _on_action(self, message: Any, info: Any) -> None:
        self.commands += 1
        self.published_ns.append(info["source_timestamp"])

    def _on_diagnostics(self, message: Any) -> None:
        for status in message.status:
            if status.name == "policy_node: policy":
                values = {value.key: value.value for value in status.values}
                self.ticks, self.held = int(values["ticks"]), int(values["held"])


def sample(listener: Listener, pids: dict[str, int], at_s: float, period_ms: float) -> Window:
    """One window. Raises: ProcessLookupError: a process has ended."""
    stamps = np.array(listener.take(), float) / 1e6
    gaps = np.diff(stamps)
    if not gaps.size:
        return Window(at_s, {name: holding(pid) for name, pid in pids.items()}, (0.0, 0.0, 0.0), 0.0, 0)
    median, high = np.percentile(gaps, [50, 99])
    missed = int(np.maximum(np.round(gaps[gaps > 1.5 * period_ms] / period_ms) - 1, 0).sum())
    rate = 1e3 * gaps.size / float(stamps[-1] - stamps[0])
    held = {name: holding(pid) for name, pid in pids.items()}
    return Window(at_s, held, (float(median), float(high), float(gaps.max())), rate, missed)


def soak(
    folder: Path, logs: Path, domain: int, seconds: float, every_s: float, piece_s: float
) -> tuple[list[Window], list[Finding]]:
    """Run all of it, until a process ends that should not; the windows, and what was lost or left."""
    spec = load_spec(ROBOT)
    save_policy(folder / "checkpoint", spec, 30, {TASK: 1.0})
    policy = {"robot": ROBOT, "mode": "real_time", "checkpoint": folder / "checkpoint", "execute_every": 10}
    nodes = (NodeConfig("arm", {}), NodeConfig("policy", policy))
    bags, owned, windows, ended = folder / "bags", set[str](), list[Window](), 0
    bags.mkdir()
    script = Path(__file__).with_name("_pieces_node.py")
    with Graph(GraphConfig(nodes, domain, logs)) as graph:
        rclpy.init()
        listener = Listener()
        recorder = subprocess.Popen([sys.executable, str(script), str(bags), str(piece_s), str(KEPT)])
        try:
            listener.until(lambda: listener.node.count_subscribers(ACTION) >= 2)
            listener.enable()
            pids = {"arm": graph.pid("arm"), "policy": graph.pid("policy"), "recorder": recorder.pid}
            listener.until(lambda: listener.commands > 30)
            listener.take()
            began = time.monotonic()
            for k in range(1, int(seconds / every_s) + 1):
                listener.until(lambda due=began + k * every_s: time.monotonic() >= due, seconds)  # type: ignore[misc]
                if ended := tell_ended(graph, recorder):
                    break
                with contextlib.suppress(ProcessLookupError):  # It is told at the next look.
                    windows.append(sample(listener, pids, time.monotonic() - began, spec.period_ns / 1e6))
                    owned |= {name for pid in pids.values() for name in segments(pid)}
                    print(windows[-1].line(), flush=True)
            driven = [] if ended else settle(listener)
        finally:
            recorder.terminate()
            recorder.wait(STOP_S)
            listener.close()
            rclpy.shutdown()
    return windows, [lost("processes that ended", ended), *driven, *recorded(bags), left_over(owned)]


def tell_ended(graph: Graph, recorder: "subprocess.Popen[bytes]") -> int:
    """How many of the processes have ended; of each it is told how, and what it said last."""
    ended = {kind: status for kind, status in graph.status().items() if status is not None}
    for kind, status in ended.items():
        print(f"{kind} ended with status {status}; it said last:\n{graph.tail(kind)}", flush=True)
    if recorder.poll() is not None:
        print(f"the recorder ended with status {recorder.returncode}", flush=True)
    return len(ended) + (recorder.returncode is not None)


def settle(listener: Listener) -> list[Finding]:
    """End the driving; whether the policy drove, and every command that it says it sent was heard."""
    listener.disable()
    listener.until(lambda: False, 3.0)  # the arm brakes, and two diagnostics come
    unheard = listener.ticks - listener.commands
    return [stood_still(listener.held, listener.commands), lost("commands not heard", unheard)]


def recorded(bags: Path) -> list[Finding]:
    """What the recorder lost."""
    written = bags / PIECES  # With the first bag that is whole.
    pieces = [json.loads(line) for line in written.read_text().splitlines()] if written.exists() else []
    lost_on_the_way = sum(sum(piece["lost"].values()) for piece in pieces)
    dropped = sum(sum(piece["dropped"].values()) for piece in pieces)
    received = sum(sum(piece["received"].values()) for piece in pieces)
    missing = received - sum(sum(piece["recorded"].values()) for piece in pieces) - dropped
    kept = [path for path in bags.iterdir() if path.is_dir()]
    problems = [problem for bag in kept for problem in verify(bag)]
    size = sum(piece["bytes"] for piece in pieces) / 1e6
    print(f"{len(pieces)} bags, {received} messages, {size:.0f} MB; {len(kept)} kept", flush=True)
    return [
        lost("messages lost by DDS", lost_on_the_way),
        lost("messages dropped by the recorder", dropped),
        lost("messages taken but not in a bag", missing),
        lost("problems of the bags kept", len(problems)),
        lost("bags kept beyond the last", max(0, len(kept) - KEPT)),
    ]


def left_over(owned: set[str]) -> Finding:
    """Shared memory that is still there though its owners have ended."""
    return lost("segments of shared memory left", sum((SHARED_MEMORY / name).exists() for name in owned))


def periods(windows: list[Window]) -> str:
    """How regularly commands came."""
    if not windows:
        return "between commands: nothing measured after the warm-up"
    median, high, longest = np.array([window.periods_ms for window in windows]).T
    return (
        f"between commands: median {np.median(median):.1f}, 99 % {np.median(high):.1f}, longest {longest.max():.1f} ms"
    )


def main() -> int:
    """Print the verdict; returns 1 where a bound is broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two samples")
    parser.add_argument("--piece", type=float, default=30.0, help="seconds in a bag")
    parser.add_argument("--domain", type=int, help="ROS domain; without it, one that nobody is on")
    parser.add_argument("--output", type=Path, default=Path("runs/soak"), help="folder of soak.json and soak.svg")
    given = parser.parse_args()
    domain = given.domain if given.domain is not None else next(d for d in range(90, 10, -1) if is_quiet(d))
    os.environ.update(ros_environment(domain))
    given.output.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(given.output / "logs", ignore_errors=True)  # A graph's logs are added to.
    rate_hz, load = load_spec(ROBOT).rate_hz, os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder:
        windows, losses = soak(
            Path(folder), given.output / "logs", domain, 60 * given.minutes, given.every, given.piece
        )
    warm = [window for window in windows if window.at_s > min(WARM_UP_S, 20 * given.minutes)]
    findings = [*judge(warm, rate_hz), *losses]
    (given.output / "soak.json").write_text(json.dumps(as_json(windows, findings), indent=1))
    (given.output / "soak.svg").write_text(picture(windows, rate_hz))
    print(f"{given.minutes:g} minutes at {rate_hz:g} Hz; load {load:.1f} before, {os.getloadavg()[0]:.1f} now")
    print(periods(warm))
    print(table(findings))
    return int(not all(finding.kept for finding in findings))


if __name__ == "__main__":
    sys.exit(main())

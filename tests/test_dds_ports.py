"""A node goes on answering, whenever those that asked it before were killed."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from graph_helpers import make_graph

from rollout_manager.graph import ros_environment
from vla_policy_node.dds_ports import ABI, FLAGS_AT, NODE, SHARED_MEMORY, WELL, PortWatch

NUMBER = 7411
NODE_AT = 256
FLAGS = 0b111
"""Well, with one receiver at most, opened for receiving."""
LISTENERS_AT = 20632
"""From the node's begin to what the first receiver is at; a byte of flags."""
WAITING_OR_BUSY = 0b110


def port(folder: Path, number: int = NUMBER, abi: bytes = ABI, age_s: float = 0.0, flags: int = FLAGS) -> Path:
    """A port as Fast DDS makes it, with its lock."""
    checked_ms = int((time.time() - age_s) * 1e3)
    node = NODE.pack(checked_ms, 2, 41392, 51632, number, 1, 1000, 333, 512, 0, flags)
    path = folder / f"fastrtps_port{number}"
    path.write_bytes(bytes(NODE_AT) + node + bytes(41136) + abi + bytes(11000))
    path.with_name(f"{path.name}_el").touch()
    return path


@contextmanager
def kept_open(path: Path) -> Iterator[int]:
    """A handle of the port, as of a process that sends there."""
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def flags_of(handle: int) -> int:
    return os.pread(handle, 1, NODE_AT + FLAGS_AT)[0]


def test_only_a_port_that_was_unlinked_is_given_up_and_nothing_else_in_it_changes(tmp_path: Path) -> None:
    dead, alive = port(tmp_path), port(tmp_path, NUMBER + 2)
    watch = PortWatch(tmp_path)
    with kept_open(dead) as sender, kept_open(alive) as other:
        assert watch.look() == []
        before = os.pread(sender, 100_000, 0)
        dead.unlink()
        port(tmp_path)  # the next process's, of the same number
        assert watch.look() == [NUMBER]
        after = bytearray(os.pread(sender, 100_000, 0))
        after[NODE_AT + FLAGS_AT] |= WELL
        assert flags_of(sender) == FLAGS & ~WELL
        assert after == before
        assert flags_of(other) == FLAGS
        assert watch.look() == []
    watch.close()
    assert dead.read_bytes()[NODE_AT + FLAGS_AT] == FLAGS


@pytest.mark.parametrize(
    "unlike", [{"abi": b"port_node_abi6"}, {"age_s": 60.0}, {"flags": FLAGS & ~WELL}], ids=["layout", "unused", "ill"]
)
def test_a_port_of_another_layout_or_that_nobody_uses_is_left_alone(tmp_path: Path, unlike: dict[str, object]) -> None:
    path = port(tmp_path, **unlike)  # type: ignore[arg-type]
    watch = PortWatch(tmp_path)
    with kept_open(path) as sender:
        assert watch.look() == []
        before = os.pread(sender, 100_000, 0)
        path.unlink()
        assert watch.look() == []
        assert os.pread(sender, 100_000, 0) == before
    watch.close()


def test_a_port_whose_file_was_cut_is_let_go(tmp_path: Path) -> None:
    cut, alive = port(tmp_path), port(tmp_path, NUMBER + 2)
    watch = PortWatch(tmp_path)
    assert watch.look() == []
    os.truncate(cut, NODE_AT + 4)
    assert watch.look() == []
    with kept_open(alive):
        alive.unlink()
        assert watch.look() == [NUMBER + 2]


def test_a_watch_of_a_folder_that_is_not_there_finds_nothing(tmp_path: Path) -> None:
    assert PortWatch(tmp_path / "none").look() == []


CLIENT = """
import sys, time, rclpy
from rcl_interfaces.srv import GetParameters
rclpy.init()
node = rclpy.create_node("client")
client = node.create_client(GetParameters, "expert_node/get_parameters")
assert client.wait_for_service(30.0), "the expert was not found"
future = client.call_async(GetParameters.Request(names=["use_sim_time"]))
rclpy.spin_until_future_complete(node, future, timeout_sec=15.0)
print("answered" if future.done() else "no answer", flush=True)
sys.stdin.read()
"""


@contextmanager
def client(domain: int) -> Iterator["subprocess.Popen[str]"]:
    """A process that asks the expert once, says whether it was answered, and lives on until it is killed."""
    command = [sys.executable, "-c", CLIENT]
    with subprocess.Popen(
        command, env=ros_environment(domain), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def ports_of(pid: int) -> list[Path]:
    """The ports at which a process receives; Fast DDS names the threads after them."""
    names = [path.read_text().strip() for path in Path(f"/proc/{pid}/task").glob("*/comm")]
    numbers = [name.removeprefix("dds.shm.") for name in names if name.startswith("dds.shm.")]
    return [SHARED_MEMORY / f"fastrtps_port{number}" for number in numbers if number.isdigit()]


def between_two_messages(path: Path) -> None:
    """Make the dead receiver of a port one that was killed when it neither waited for a message nor was busy with one.

    It is so about once in a thousand times that one looks; then no watchdog of Fast DDS's finds that it is dead.
    """
    with path.open("r+b") as file:
        at = file.read(4096).index(NODE.pack(0, 0, 0, 0, int(path.name[13:]), 1, 1000, 333, 512, 0, 0)[20:40]) - 20
        file.seek(at + LISTENERS_AT)
        state = file.read(1)[0]
        assert state & 1
        file.seek(at + LISTENERS_AT)
        file.write(bytes([state & ~WAITING_OR_BUSY]))


@pytest.mark.ros
def test_a_node_answers_who_comes_after_one_that_was_killed_between_two_messages(
    tmp_path: Path, ros_domain: int
) -> None:
    with make_graph(tmp_path, ros_domain, {"expert": {}}) as graph:
        with client(ros_domain) as first:
            assert answer(first) == "answered", graph.tail("expert")
            time.sleep(1.0)  # The expert has looked at the ports twice.
            ports = ports_of(first.pid)
            assert ports
            first.kill()
            first.wait()
            for path in ports:
                between_two_messages(path)
        with client(ros_domain) as second:
            assert answer(second) == "answered"
            # With other ports than the first it would have been answered anyway.
            assert set(ports_of(second.pid)) & set(ports)

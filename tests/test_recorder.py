"""The recorders: what is lost is counted, what the disk refuses is said, and the bags are those of the live graph."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from rollout_manager.bag import EpisodeReader, EpisodeWriter, recover, verify
from rollout_manager.bag_writer import EpisodeWriter as Writer
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.recorder import BagObserver, EpisodeRecorder, start_writer
from rollout_manager.rollout import StepRecord
from vla_policy_node.commands import action_from_message, chunk_from_message
from vla_policy_node.messages import add_to_buffer, rosbags_maker, stamp_of, text_to_message, typestore
from vla_policy_node.observation import Joints, ObservationBuffer, Pose, Readings
from vla_policy_node.policy import ActionChunk
from vla_policy_node.spec import load_spec
from vla_policy_node.topics import ACTION, ACTION_CHUNK, EE_POSE, INSTRUCTION, JOINT_STATES, OUTCOME

SPEC = load_spec("metaworld")
STRING = "std_msgs/msg/String"


def header(name: str = "ep") -> EpisodeHeader:
    return EpisodeHeader(name, "metaworld", "task", "open it", 3, SPEC.name, SPEC.digest, "expert", "in_process")


def text(words: str) -> bytes:
    return bytes(typestore().serialize_cdr(text_to_message(rosbags_maker(), words), STRING))


def readings(rng: np.random.Generator) -> Readings:
    image = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
    pose = Pose(rng.normal(size=3), np.array([0.0, 0.0, 0.0, 1.0]))
    return Readings({"front": image}, Joints(("gripper",), rng.random(1)), pose)


def test_what_is_recorded_is_in_the_bag_in_order(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, header())
    assert all(recorder.record("/words", STRING, k, text(str(k))) for k in range(500))
    path = recorder.finish(Outcome("success", 500, 1.0))
    assert [m.message.data for m in EpisodeReader(path).messages()] == [str(k) for k in range(500)]
    assert EpisodeReader(path).dropped == {}
    assert verify(path) == []


def test_a_slow_disk_costs_counted_messages_and_no_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    write = Writer.write

    def slow(self: Writer, topic: str, type_name: str, log_time_ns: int, cdr: bytes | memoryview) -> None:
        gate.wait()
        write(self, topic, type_name, log_time_ns, cdr)

    monkeypatch.setattr(Writer, "write", slow)
    message = text("x" * 992)
    recorder = EpisodeRecorder(tmp_path, header(), max_queued_bytes=10 * len(message))
    began = time.monotonic()
    taken = [recorder.record("/words", STRING, k, message) for k in range(100)]
    assert time.monotonic() - began < 1.0
    assert sum(taken) == 10
    gate.set()
    recorder.add_dropped("/camera", 7)
    reader = EpisodeReader(recorder.finish(Outcome("failure", 1)))
    assert len(list(reader.messages())) == 10
    assert reader.dropped == {"/words": 90, "/camera": 7}


def test_a_silent_graph_still_gets_its_last_message_to_disk(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, header())
    before = (recorder.path / "ep.mcap").stat().st_size
    recorder.record("/words", STRING, 1, text("the last"))
    deadline = time.monotonic() + 1.5
    while (recorder.path / "ep.mcap").stat().st_size == before:
        assert time.monotonic() < deadline, "not on disk after a second without further messages"
        time.sleep(0.02)
    recorder.abort("enough")


def test_a_message_that_cannot_be_recorded_is_said_and_the_rest_is_recoverable(tmp_path: Path) -> None:
    recorder = EpisodeRecorder(tmp_path, header())
    recorder.record("/words", STRING, 1, text("good"))
    recorder.record("/words", "sensor_msgs/msg/Joy", 2, b"")
    while not recorder.failure:
        time.sleep(0.01)
    assert recorder.record("/words", STRING, 3, text("late")) is False
    with pytest.raises(BagError, match=r"/words.*String.*Joy"):
        recorder.finish(Outcome("success", 1))
    assert recorder.dropped["/words"] >= 1
    bag = recover(tmp_path / "ep.partial")
    assert bag is not None
    assert [m.message.data for m in EpisodeReader(bag).messages()] == ["good"]


READY = """
import sys
from rollout_manager.episode import EpisodeHeader
from rollout_manager.recorder import EpisodeRecorder
from vla_policy_node.messages import typestore
header = EpisodeHeader("ep", "metaworld", "task", "open it", 3, "arm", "", "expert", "in_process")
recorder = EpisodeRecorder(sys.argv[1], header)
print(typestore.cache_info().currsize)
recorder.abort("enough")
"""


def test_a_recorder_that_has_begun_has_nothing_left_to_load(tmp_path: Path) -> None:
    """What the first message had to wait for would be missing after a kill."""
    command = [sys.executable, "-c", READY, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=True)
    assert done.stdout == "1\n"


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_recorder import STRING, header, text
from rollout_manager.exceptions import BagError
from rollout_manager.recorder import EpisodeRecorder
from rollout_manager.bag import EpisodeWriter
import numpy as np
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
writer = EpisodeWriter(sys.argv[1], header(), flush_every_s=0.0)
rng = np.random.default_rng(0)
try:
    for k in range(1000):
        writer.write("/words", STRING, k, text(rng.bytes(2000).hex()))
except BagError as error:
    print(k, error)
    try:
        writer.write("/words", STRING, k, text("more"))
    except BagError as again:
        print(again)
"""


def test_a_full_disk_is_a_clear_error_and_what_was_written_is_recovered(tmp_path: Path) -> None:
    here = str(Path(__file__).parent)
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path), here]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment(), check=True)
    first, second = done.stdout.splitlines()
    assert "File too large" in first
    assert "ep.partial" in first
    assert "closed already" in second
    bag = recover(tmp_path / "ep.partial")
    assert bag is not None
    assert verify(bag) == []
    kept = len(list(EpisodeReader(bag).messages()))
    assert int(first.split()[0]) - 2 <= kept <= int(first.split()[0]) + 1


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", tmp_path], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount file systems here; the test with a limited file size covers the rest")
    yield tmp_path
    subprocess.run(["umount", "-l", tmp_path], check=True)


def test_a_disk_that_is_really_full_and_then_has_room_again(tiny_disk: Path) -> None:
    recorder = EpisodeRecorder(tiny_disk, header())
    rng = np.random.default_rng(0)
    sent = 0
    while not recorder.failure:
        recorder.record("/words", STRING, sent, text(rng.bytes(2000).hex()))
        sent += 1
        time.sleep(0.0005)
    assert "ep.partial: cannot be written: No space left on device" in recorder.failure
    with pytest.raises(BagError, match="No space left on device"):
        recorder.finish(Outcome("success", 1, 1.0))
    with pytest.raises(BagError, match="cannot be recovered: No space left on device"):
        recover(tiny_disk / "ep.partial")
    subprocess.run(["mount", "-o", "remount,size=16m", tiny_disk], check=True)
    bag = recover(tiny_disk / "ep.partial")
    assert bag is not None
    assert verify(bag) == []
    assert 0 < len(list(EpisodeReader(bag).messages())) <= sent


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}


def record_in_process(root: Path, steps: int = 5) -> tuple[Path, list[StepRecord]]:
    rng = np.random.default_rng(1)
    observer = BagObserver(root, SPEC)
    observer.start(header())
    records = []
    for k in range(steps):
        stamp = 10**9 + k * SPEC.period_ns
        chunk = ActionChunk(stamp, rng.uniform(-1, 1, (8, 4)).astype(np.float32)) if k % 2 == 0 else None
        records.append(StepRecord(stamp, readings(rng), chunk, rng.uniform(-1, 1, 4).astype(np.float32)))
        observer.step(records[-1])
    observer.finish(Outcome("success", steps, 1.0), 10**9 + steps * SPEC.period_ns, readings(rng))
    assert observer.path is not None
    return observer.path, records


def test_a_rollout_in_process_gives_back_every_field_of_every_step(tmp_path: Path) -> None:
    path, records = record_in_process(tmp_path)
    assert verify(path) == []
    reader = EpisodeReader(path)
    by_topic: dict[str, list[object]] = {}
    for m in reader.messages():
        by_topic.setdefault(m.topic, []).append(m.message)
    sensors = dict.fromkeys(("/camera/front/image_raw", JOINT_STATES, EE_POSE), 6)
    decided = {INSTRUCTION: 1, ACTION: 5, ACTION_CHUNK: 3, OUTCOME: 1}
    assert {topic: len(messages) for topic, messages in by_topic.items()} == sensors | decided
    for record, message in zip(records, by_topic[ACTION], strict=True):
        stamp, action = action_from_message(SPEC, message)
        assert stamp == record.stamp_ns
        np.testing.assert_array_equal(action, record.action)
    chunks = [record.chunk for record in records if record.chunk is not None]
    for chunk, message in zip(chunks, by_topic[ACTION_CHUNK], strict=True):
        np.testing.assert_array_equal(chunk_from_message(SPEC, message).actions, chunk.actions)
    said = json.loads(by_topic[OUTCOME][0].data)  # type: ignore[attr-defined]
    assert (said["episode_id"], said["ending"], said["steps"]) == ("ep", "success", 5)


def test_observations_from_the_bag_are_those_of_the_rollout(tmp_path: Path) -> None:
    path, records = record_in_process(tmp_path)
    live, played = ObservationBuffer(SPEC), ObservationBuffer(SPEC)
    live.instruction = header().instruction
    for record in records:
        assert record.readings is not None
        live.add_readings(record.stamp_ns, record.readings)
    for m in EpisodeReader(path).messages():
        add_to_buffer(played, SPEC, m.topic, m.message)
    for record in records:
        wanted, found = live.assemble_at(record.stamp_ns), played.assemble_at(record.stamp_ns)
        assert found.instruction == wanted.instruction  # type: ignore[union-attr]
        np.testing.assert_array_equal(found.images["front"], wanted.images["front"])  # type: ignore[union-attr]
        np.testing.assert_array_equal(found.proprioception, wanted.proprioception)  # type: ignore[union-attr]


def test_stamps_in_the_bag_are_those_of_the_ticks(tmp_path: Path) -> None:
    path, records = record_in_process(tmp_path)
    stamped = [m for m in EpisodeReader(path).messages() if m.topic not in (INSTRUCTION, OUTCOME)]
    assert all(stamp_of(m.message) == m.log_time_ns for m in stamped)
    assert sorted({m.log_time_ns for m in stamped})[:-1] == [record.stamp_ns for record in records]


def test_an_aborted_rollout_is_a_bag_of_its_own_and_the_try_can_be_made_again(tmp_path: Path) -> None:
    observer = BagObserver(tmp_path, SPEC)
    observer.start(header())
    observer.finish(Outcome("aborted", 0, reason="simulator died"), 10**9, None)
    assert observer.path == tmp_path / "ep.aborted"
    path, _ = record_in_process(tmp_path)
    assert path == tmp_path / "ep"
    assert EpisodeReader(tmp_path / "ep.aborted").outcome.reason == "simulator died"


def test_an_interrupted_recording_is_recovered_when_the_try_is_made_again(tmp_path: Path) -> None:
    first = EpisodeWriter(tmp_path, header())
    first.write("/words", STRING, 1, text("kept"))
    with pytest.raises(BagError, match="another process is recording"):
        start_writer(tmp_path, header())
    first.leave()  # as the death of its process does
    second = start_writer(tmp_path, header())
    assert second.close(Outcome("success", 0)) == tmp_path / "ep"
    assert [m.message.data for m in EpisodeReader(tmp_path / "ep.aborted").messages()] == ["kept"]

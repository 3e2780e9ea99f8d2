"""Recorders that are really killed: what is lost is at most the last second, and recovery may itself be killed."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from mcap.opcode import Opcode
from rosbags.highlevel import AnyReader

from rollout_manager import bag_recovery
from rollout_manager.bag import EpisodeReader, EpisodeWriter, recover, recover_all, verify
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from rollout_manager.labels import current, read_labels
from rollout_manager.mcap_records import records
from trainer.cli import main
from vla_policy_node.messages import rosbags_maker, text_to_message, typestore
from vla_policy_node.topics import ACTION

STRING = "std_msgs/msg/String"
RATE_HZ = 100
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src")}

RECORD = f"""
import sys, time
sys.path.insert(0, sys.argv[2])
from test_bag_recovery import STRING, header, text
from rollout_manager.recorder import EpisodeRecorder
recorder = EpisodeRecorder(sys.argv[1], header())
print("recording", flush=True)
began, k = time.monotonic(), 0
while True:
    recorder.record("/words", STRING, time.monotonic_ns(), text(str(k)))
    k += 1
    time.sleep(max(0.0, began + k / {RATE_HZ} - time.monotonic()))
"""


def header(name: str = "ep") -> EpisodeHeader:
    return EpisodeHeader(name, "metaworld", "task", "open it", 3, "arm", "0" * 16, "policy", "in_process")


def text(words: str) -> bytes:
    return bytes(typestore().serialize_cdr(text_to_message(rosbags_maker(), words), STRING))


def words(bag: Path) -> list[str]:
    return [m.message.data for m in EpisodeReader(bag).messages(["/words"])]


def interrupted(root: Path, count: int = 20, flush_after: int = 20, name: str = "ep") -> Path:
    """A recording as its killed writer leaves it: `flush_after` of its messages are on disk, in several chunks."""
    writer = EpisodeWriter(root, header(name), flush_every_s=1e9)
    for k in range(count):
        writer.write("/words", STRING, 1000 + k, text(str(k)))
        if k < flush_after and k % 5 == 4:
            writer.flush()
    copy = root / "copy"
    shutil.copytree(writer.path, copy)
    writer.abort("only the copy counts")
    shutil.rmtree(root / f"{name}.aborted")
    return copy.rename(root / f"{name}.partial")


@pytest.mark.parametrize("attempt", range(4))
def test_a_killed_recorder_loses_at_most_the_last_second(tmp_path: Path, attempt: int) -> None:
    command = [sys.executable, "-c", RECORD, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(random.Random(attempt).uniform(1.2, 3.0))
        with pytest.raises(BagError, match="another process is recording"):
            recover(tmp_path / "ep.partial")
        killed_ns = time.monotonic_ns()
        process.send_signal(signal.SIGKILL)
    bag = recover(tmp_path / "ep.partial")
    assert bag == tmp_path / "ep.aborted"
    messages = list(EpisodeReader(bag).messages())
    assert [m.message.data for m in messages] == [str(k) for k in range(len(messages))]
    assert killed_ns - messages[-1].log_time_ns <= 1_000_000_000
    assert verify(bag) == []
    assert EpisodeReader(bag).outcome.ending == "aborted"
    label = current(read_labels(bag))
    assert label is not None
    assert (label.outcome, label.rule) == ("aborted", "recovery")
    with AnyReader([bag]) as reader:
        assert reader.message_count == len(messages)


def chunk_ends(file: Path) -> list[int]:
    ends = []
    with file.open("rb") as stream, contextlib.suppress(BagError):  # it has no footer
        for record in records(stream):
            ends += [record.offset + 9 + record.length] if record.opcode == Opcode.CHUNK else []
    return ends


def test_every_chunk_before_a_tear_is_kept_wherever_it_tears(tmp_path: Path) -> None:
    """4 chunks of 5 messages: cut anywhere, what is kept is 5 times the chunks that end before the cut."""
    partial = interrupted(tmp_path / "whole")
    content, ends = (partial / "ep.mcap").read_bytes(), chunk_ends(partial / "ep.mcap")
    assert len(ends) == 4
    for number, cut in enumerate([*ends, *(end - 1 for end in ends), *range(ends[0], len(content), 37)]):
        folder = tmp_path / str(number) / "ep.partial"
        folder.mkdir(parents=True)
        (folder / "ep.mcap").write_bytes(content[:cut])
        bag = recover(folder)
        assert bag is not None
        kept = 5 * sum(end <= cut for end in ends)
        assert words(bag) == [str(k) for k in range(kept)]
        assert verify(bag) == []


def test_a_damaged_chunk_costs_itself_alone(tmp_path: Path) -> None:
    file = interrupted(tmp_path) / "ep.mcap"
    content = bytearray(file.read_bytes())
    content[chunk_ends(file)[1] - 3] ^= 0xFF
    file.write_bytes(content)
    bag = recover(file.parent)
    assert bag is not None
    assert words(bag) == [str(k) for k in range(20) if not 5 <= k < 10]
    assert "chunk" in EpisodeReader(bag).outcome.reason
    assert verify(bag) == []


def test_messages_not_flushed_are_the_only_ones_lost(tmp_path: Path) -> None:
    bag = recover(interrupted(tmp_path, count=20, flush_after=12))
    assert bag is not None
    assert words(bag) == [str(k) for k in range(10)]


@pytest.mark.parametrize("step", ["_rebuild", "write_metadata", "publish", "append_label"])
@pytest.mark.parametrize("before", [True, False])
def test_recovery_that_dies_at_any_step_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, before: bool
) -> None:
    """Each step is made to die before and after it is done; the next recovery gives the same bag, once."""
    partial = interrupted(tmp_path)
    real = getattr(bag_recovery, step)

    def dying(*args: object) -> object:
        if not before:
            real(*args)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(bag_recovery, step, dying)
        with pytest.raises(KeyboardInterrupt):
            recover(partial)
    bags, problems = recover_all(tmp_path)
    assert problems == []
    assert len(bags) == (0 if step == "append_label" or (step == "publish" and not before) else 1)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["ep.aborted"]
    assert words(tmp_path / "ep.aborted") == [str(k) for k in range(20)]
    assert verify(tmp_path / "ep.aborted") == []
    assert EpisodeReader(tmp_path / "ep.aborted").outcome.ending == "aborted"


RECOVER = """
import sys
from rollout_manager.bag import recover
print("recovering", flush=True)
recover(sys.argv[1])
"""


def test_recovery_that_is_really_killed_loses_nothing(tmp_path: Path) -> None:
    """Killed later each time, again and again, until a recovery gets through; everything is there, once."""
    writer = EpisodeWriter(tmp_path, header())
    rng = random.Random(0)
    for k in range(2000):
        writer.write("/words", STRING, k, text(f"{k} {rng.randbytes(1000).hex()}"))
    writer.leave()
    killed = 0
    for attempt in range(6):
        command = [sys.executable, "-c", RECOVER, str(tmp_path / "ep.partial")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(0.02 * attempt)
            process.kill()
        killed += process.returncode == -signal.SIGKILL
        if not (tmp_path / "ep.partial").exists():
            break
    assert killed > 0
    recover_all(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == ["ep.aborted"]
    assert [word.split()[0] for word in words(tmp_path / "ep.aborted")] == [str(k) for k in range(2000)]
    assert verify(tmp_path / "ep.aborted") == []


def test_closing_that_was_interrupted_keeps_the_outcome(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The outcome was written, the process died before the bag had its name: it is a success all the same."""
    writer = EpisodeWriter(tmp_path, header())
    writer.write("/words", STRING, 1, text("only"))
    with monkeypatch.context() as patch:
        patch.setattr("rollout_manager.bag_writer.write_metadata", die)
        with pytest.raises(KeyboardInterrupt):
            writer.close(Outcome("success", 7, 1.0))
    writer.leave()
    bag = recover(tmp_path / "ep.partial")
    assert bag == tmp_path / "ep"
    assert EpisodeReader(bag).outcome == Outcome("success", 7, 1.0)
    assert verify(bag) == []
    assert read_labels(bag) == ()


def test_a_footer_that_was_cut_costs_nothing(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path, header())
    writer.write("/words", STRING, 1, text("only"))
    bag = writer.close(Outcome("success", 7, 1.0))
    (bag / "metadata.yaml").unlink()
    partial = bag.rename(tmp_path / "ep.partial")
    os.truncate(partial / "ep.mcap", (partial / "ep.mcap").stat().st_size - 30)
    again = recover(partial)
    assert again == tmp_path / "ep"
    assert EpisodeReader(again).outcome.ending == "success"
    assert verify(again) == []


def test_control_c_within_a_write_leaves_a_recording_that_can_be_recovered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = EpisodeWriter(tmp_path, header())
    writer.write("/words", STRING, 1, text("kept"))
    writer.flush()
    with monkeypatch.context() as patch:
        patch.setattr("mcap.records.Message.write", die)
        with pytest.raises(KeyboardInterrupt):
            writer.write("/words", STRING, 2, text("half"))
    with pytest.raises(BagError, match="closed already after: interrupted while writing"):
        writer.close(Outcome("success", 2, 1.0))
    bag = recover(writer.path)
    assert bag is not None
    assert words(bag) == ["kept"]
    assert verify(bag) == []


def test_steps_of_an_aborted_episode_are_its_commands(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path, header())
    for k in range(3):
        writer.write(ACTION, STRING, k, text("go"))
    writer.flush()
    writer.leave()
    bag = recover(tmp_path / "ep.partial")
    assert bag is not None
    assert EpisodeReader(bag).outcome.steps == 3


@pytest.mark.parametrize("content", [None, b"", b"\x89MC", b"\x89MCAP0\r\n", b"\x89MCAP0\r\n\x01\x13\x00"])
def test_a_recording_that_held_nothing_yet_is_removed(tmp_path: Path, content: bytes | None) -> None:
    partial = tmp_path / "ep.partial"
    partial.mkdir()
    if content is not None:
        (partial / "ep.mcap").write_bytes(content)
    assert recover(partial) is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    partial = tmp_path / "other.partial"
    partial.mkdir()
    (partial / "other.mcap").write_bytes(b"precious")
    bags, problems = recover_all(tmp_path)
    assert bags == []
    assert "not an Encore bag" in problems[0]
    assert (partial / "other.mcap").read_bytes() == b"precious"


def test_one_that_cannot_be_recovered_does_not_keep_the_command_from_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.partial").mkdir()
    (tmp_path / "a.partial" / "other.mcap").write_bytes(b"precious")
    interrupted(tmp_path)
    assert main(["bags", "recover", str(tmp_path)]) == 1
    said = capsys.readouterr().out.splitlines()
    assert "not an Encore bag" in said[0]
    assert said[1].endswith(f"recovered as {tmp_path / 'ep.aborted'}")
    assert said[2] == "2 interrupted recordings, 1 could not be recovered"
    assert (tmp_path / "a.partial" / "other.mcap").read_bytes() == b"precious"
    shutil.rmtree(tmp_path / "a.partial")
    assert main(["bags", "recover", str(tmp_path)]) == 0


def test_only_interrupted_recordings_are_recovered(tmp_path: Path) -> None:
    bag = EpisodeWriter(tmp_path, header()).close(Outcome("success", 1))
    with pytest.raises(BagError, match=r"not an interrupted recording.*\.partial"):
        recover(bag)
    with pytest.raises(BagError, match="not an interrupted recording"):
        recover(tmp_path / "nowhere.partial")


def test_two_aborted_tries_of_one_episode_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        recover(interrupted_again(tmp_path))
    assert sorted(p.name for p in tmp_path.iterdir() if p.is_dir()) == ["ep.aborted", "ep.aborted-2"]


def interrupted_again(root: Path) -> Path:
    writer = EpisodeWriter(root, header())
    writer.leave()
    return writer.path


def die(*args: object) -> None:
    raise KeyboardInterrupt

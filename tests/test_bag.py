"""Episode bags: what is written comes back, every other reader opens them, and any damage is said."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2Writer

from rollout_manager.bag import EpisodeReader, EpisodeWriter, verify
from rollout_manager.bag_format import header_record
from rollout_manager.bag_verify import differences
from rollout_manager.episode import EpisodeHeader, Outcome
from rollout_manager.exceptions import BagError
from vla_policy_node.messages import image_to_message, rosbags_maker, text_to_message, typestore

STRING = "std_msgs/msg/String"
IMAGE = "sensor_msgs/msg/Image"
HEADER = EpisodeHeader(
    episode_id="metaworld_drawer-open-v3_s7_a1",
    environment="metaworld",
    task="drawer-open-v3",
    instruction="open the drawer",
    seed=7,
    robot="metaworld",
    spec_digest="0123456789abcdef",
    driver="policy",
    control_mode="lockstep",
    checkpoint_digest="fedcba9876543210",
    label_source="proposed",
    attempt=1,
    exploration=0.15,
    time_limit_steps=400,
    versions={"metaworld": "3.0.0", "mujoco": "3.3"},
)


def text(words: str) -> bytes:
    return bytes(typestore().serialize_cdr(text_to_message(rosbags_maker(), words), STRING))


def write_bag(root: Path, count: int = 10, outcome: Outcome | None = None) -> Path:
    writer = EpisodeWriter(root, HEADER)
    for k in range(count):
        writer.write("/words", STRING, 1000 + k, text(f"word {k}"))
        writer.write("/others", STRING, 1000 + k, text(f"other {k}"))
    return writer.close(outcome or Outcome("success", count, 1.0), {"/camera/front/image_raw": 3})


def test_header_outcome_and_drops_come_back(tmp_path: Path) -> None:
    reader = EpisodeReader(write_bag(tmp_path))
    assert reader.path == tmp_path / HEADER.episode_id
    assert reader.header == HEADER
    assert reader.outcome == Outcome("success", 10, 1.0)
    assert reader.dropped == {"/camera/front/image_raw": 3}
    assert verify(reader.path) == []


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["/a", "/b", "/c"]), st.integers(0, 2**62), st.text(max_size=40)), max_size=60)
)
def test_any_messages_come_back_in_order(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, int, str]]
) -> None:
    sent = [(topic, stamp, words.replace("\0", "")) for topic, stamp, words in sent]
    writer = EpisodeWriter(tmp_path_factory.mktemp("bags"), HEADER, flush_every_s=0.0)
    for topic, stamp, words in sent:
        writer.write(topic, STRING, stamp, text(words))
    path = writer.close(Outcome("failure", 0))
    assert [(m.topic, m.log_time_ns, m.message.data) for m in EpisodeReader(path).messages()] == sent
    some = [(m.topic, m.log_time_ns, m.message.data) for m in EpisodeReader(path).messages({"/a", "/c"})]
    assert some == [m for m in sent if m[0] in ("/a", "/c")]
    assert verify(path) == []


def test_a_big_bag_of_many_chunks_comes_back(tmp_path: Path) -> None:
    rng, make = np.random.default_rng(0), rosbags_maker()
    images = [rng.integers(0, 256, (480, 640, 3), dtype=np.uint8) for _ in range(6)]
    writer = EpisodeWriter(tmp_path, HEADER)
    for k, image in enumerate(images):
        writer.write("/image", IMAGE, k, typestore().serialize_cdr(image_to_message(make, image, k, "front"), IMAGE))
    path = writer.close(Outcome("success", 6, 1.0))
    for image, m in zip(images, EpisodeReader(path).messages(), strict=True):
        np.testing.assert_array_equal(m.message.data.reshape(480, 640, 3), image)
    assert verify(path) == []


def test_the_readers_of_others_open_it(tmp_path: Path) -> None:
    path = write_bag(tmp_path)
    with AnyReader([path]) as reader:
        assert reader.message_count == 20
        assert reader.topics["/words"].msgtype == STRING
        assert (reader.start_time, reader.duration) == (1000, 10)
        decoded = [reader.deserialize(raw, c.msgtype) for c, _, raw in reader.messages() if c.topic == "/words"]
    assert [m.data for m in decoded] == [f"word {k}" for k in range(10)]  # type: ignore[attr-defined]
    with (path / f"{HEADER.episode_id}.mcap").open("rb") as stream:
        summary = make_reader(stream, validate_crcs=True).get_summary()
    assert summary.statistics.message_count == 20
    assert {s.encoding for s in summary.schemas.values()} == {"ros2msg"}


def test_metadata_tells_what_the_episode_was(tmp_path: Path) -> None:
    content = yaml.safe_load((write_bag(tmp_path) / "metadata.yaml").read_text())
    about = content["rosbag2_bagfile_information"]
    assert about["version"] == 9
    assert about["storage_identifier"] == "mcap"
    custom = about["custom_data"]
    assert all(isinstance(value, str) for value in custom.values())
    assert custom["task"] == "drawer-open-v3"
    assert custom["instruction"] == "open the drawer"
    assert custom["seed"] == "7"
    assert custom["control_mode"] == "lockstep"
    assert custom["versions"] == '{"metaworld": "3.0.0", "mujoco": "3.3"}'
    assert custom["dropped"] == '{"/camera/front/image_raw": 3}'
    assert '"ending": "success"' in custom["outcome"]


def test_an_episode_without_messages_is_a_bag_too(tmp_path: Path) -> None:
    path = EpisodeWriter(tmp_path, HEADER).close(Outcome("aborted", 0, reason="no publisher"))
    assert path.name == f"{HEADER.episode_id}.aborted"
    assert list(EpisodeReader(path).messages()) == []
    assert verify(path) == []


def test_the_digest_names_the_recording(tmp_path: Path) -> None:
    path = write_bag(tmp_path / "a")
    assert EpisodeReader(path).digest == EpisodeReader(path).digest
    others = [
        write_bag(tmp_path / "b", count=9),
        write_bag(tmp_path / "c", outcome=Outcome("failure", 10)),
    ]
    assert len({EpisodeReader(p).digest for p in [path, *others]}) == 3


def test_flipping_any_byte_is_noticed(tmp_path: Path) -> None:
    path = write_bag(tmp_path, count=2)
    file = path / f"{HEADER.episode_id}.mcap"
    whole = file.read_bytes()
    for index in range(0, len(whole), 11):
        content = bytearray(whole)
        content[index] ^= 0x10
        file.write_bytes(content)
        assert verify(path), f"byte {index} of {len(whole)}"
    file.write_bytes(whole)
    assert verify(path) == []


def test_cutting_anywhere_is_noticed(tmp_path: Path) -> None:
    path = write_bag(tmp_path, count=2)
    file = path / f"{HEADER.episode_id}.mcap"
    whole = file.read_bytes()
    for length in range(0, len(whole), 97):
        file.write_bytes(whole[:length])
        (problem,) = verify(path)
        assert problem.startswith(f"{path}: byte ")
    file.write_bytes(whole + b"x")
    assert "not followed by the end" in verify(path)[0]


def test_a_damaged_chunk_stops_the_reader(tmp_path: Path) -> None:
    path = write_bag(tmp_path)
    file = path / f"{HEADER.episode_id}.mcap"
    content = bytearray(file.read_bytes())
    at = content.index(b"\x28\xb5\x2f\xfd") + 40  # into the first zstd frame
    content[at] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(BagError, match=rf"{path.name}: byte \d+: chunk"):
        list(EpisodeReader(path).messages())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seed: '7'", "seed: '8'", "custom_data.seed is '8', but the recording itself says '7'"),
        ('"ending": "failure"', '"ending": "success"', "custom_data.outcome"),
        ("message_count: 20", "message_count: 21", "message_count is 21"),
        ("storage_identifier", "storage", "storage_identifier: missing"),
        ("version: 9", "version: 9\n  extra: 1", "extra: unknown"),
        ("name: /words", "name: /swords", "/swords"),
        ("rosbag2_bagfile_information:", "}{", "not readable as YAML"),
    ],
)
def test_tampering_with_the_metadata_is_noticed(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = write_bag(tmp_path, outcome=Outcome("failure", 10))
    file = path / "metadata.yaml"
    text_ = file.read_text()
    assert old in text_
    file.write_text(text_.replace(old, new, 1))
    assert said in "; ".join(verify(path))


def test_bags_that_are_not_whole_say_so(tmp_path: Path) -> None:
    path = write_bag(tmp_path)
    (path / "metadata.yaml").unlink()
    assert verify(path) == [f"{path}: no metadata.yaml; not a finished bag"]
    (path / "metadata.yaml").touch()
    (path / f"{HEADER.episode_id}.mcap").unlink()
    assert "exactly one .mcap file; found: none" in verify(path)[0]
    assert verify(tmp_path / "nowhere") == [f"{tmp_path / 'nowhere'}: no such bag folder"]
    writer = EpisodeWriter(tmp_path / "b", HEADER)
    with pytest.raises(BagError, match="interrupted or still being recorded; recover it first"):
        EpisodeReader(writer.path)


def test_the_bag_of_somebody_else_is_refused(tmp_path: Path) -> None:
    with Rosbag2Writer(tmp_path / "theirs", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/words", STRING, typestore=typestore())
        writer.write(connection, 1, text("theirs"))
    with pytest.raises(BagError, match="theirs: no episode header in it: not an Encore bag"):
        EpisodeReader(tmp_path / "theirs")


@pytest.mark.parametrize("version", [0, 2, None])
def test_another_schema_version_is_refused(
    tmp_path: Path, version: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = header_record(replace(HEADER, schema_version=version))  # type: ignore[arg-type]
    monkeypatch.setattr("rollout_manager.bag_writer.header_record", lambda header: record)
    path = write_bag(tmp_path)
    with pytest.raises(BagError, match=f"schema version {version}; this program reads version 1"):
        EpisodeReader(path)


def test_what_the_writer_refuses(tmp_path: Path) -> None:
    path = write_bag(tmp_path)
    with pytest.raises(BagError, match="a bag of this episode exists already"):
        EpisodeWriter(tmp_path, HEADER)
    writer = EpisodeWriter(tmp_path / "b", HEADER)
    with pytest.raises(BagError, match="recover it first"):
        EpisodeWriter(tmp_path / "b", HEADER)
    with pytest.raises(BagError, match="'my_msgs/msg/Thing' is unknown"):
        writer.write("/thing", "my_msgs/msg/Thing", 1, b"")
    writer.write("/words", STRING, 1, text("a"))
    with pytest.raises(BagError, match=r"'/words' carries std_msgs/msg/String, not 'sensor_msgs/msg/Image'"):
        writer.write("/words", IMAGE, 2, b"")
    writer.close(Outcome("failure", 1))
    with pytest.raises(BagError, match="closed already"):
        writer.write("/words", STRING, 2, text("b"))
    (tmp_path / "file").touch()
    with pytest.raises(BagError, match="cannot be made: Not a directory"):
        EpisodeWriter(tmp_path / "file" / "below", HEADER)
    for name in (".hidden", "a.partial", "a.aborted-2"):
        with pytest.raises(BagError, match="may not start with"):
            EpisodeWriter(tmp_path, replace(HEADER, episode_id=name))
    assert verify(path) == []


def test_a_recording_left_by_an_error_is_aborted_with_its_reason(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="boom"), EpisodeWriter(tmp_path, HEADER) as writer:
        raise ValueError("boom")
    assert EpisodeReader(writer.path).outcome == Outcome("aborted", 0, reason="ValueError: boom")


def test_a_message_that_is_not_its_type_is_an_error_not_a_crash(tmp_path: Path) -> None:
    writer = EpisodeWriter(tmp_path, HEADER)
    writer.write("/image", IMAGE, 1, text("no image"))
    path = writer.close(Outcome("failure", 1))
    with pytest.raises(BagError, match=r"topic '/image': a message is no sensor_msgs/msg/Image"):
        list(EpisodeReader(path).messages())
    assert "/image" in verify(path)[0]


def test_differences_name_the_keys() -> None:
    wanted = {"a": {"b": [1, 2]}, "c": 3}
    assert differences(wanted, {"a": {"b": [1, 5]}, "c": 3}) == ["a.b.1 is 5, but the recording itself says 2"]
    assert differences(wanted, {"a": 1, "d": 0}) == [
        "d: unknown",
        "a is 1, but the recording itself says {'b': [1, 2]}",
        "c: missing",
    ]
    assert differences(wanted, wanted) == []

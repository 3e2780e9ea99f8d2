"""Checkpoints: round trip, a digest of the content, atomic replacement, and every kind of damage refused."""

import contextlib
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_robot import INSTRUCTIONS, ROBOT, SMALL, STATISTICS, other_robot, small_network
from tiny_encoders import save_clip_vision, save_t5

from vla_policy_node.checkpoint import (
    FILES,
    MANIFEST,
    WEIGHTS,
    Lineage,
    differences,
    load_checkpoint,
    load_network,
    save_checkpoint,
)
from vla_policy_node.exceptions import CheckpointError
from vla_policy_node.network.config import LanguageConfig, NetworkConfig, VisionConfig
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.spec import CameraSpec, RobotSpec

LINEAGE = Lineage("a" * 16, {"episode_1": "b" * 16}, 1500, {"torch": "2"}, {"iteration": "1"})


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "checkpoint"
    save_checkpoint(folder, small_network(), LINEAGE)
    return folder


@pytest.fixture
def copy(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "copy"))


def test_round_trip(saved: Path) -> None:
    checkpoint = load_checkpoint(saved, ROBOT)
    assert (checkpoint.config, checkpoint.spec, checkpoint.statistics) == (SMALL, ROBOT, STATISTICS)
    assert checkpoint.lineage == LINEAGE
    network, original = load_network(checkpoint), small_network()
    assert not network.training
    assert set(network.state_dict()) == set(original.state_dict())
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, original.state_dict()[name])
    for text in INSTRUCTIONS:
        assert torch.equal(network.language.cached[text], original.language.cached[text])


def test_the_digest_depends_on_the_content_alone(saved: Path, tmp_path: Path) -> None:
    digest = load_checkpoint(saved).digest
    assert re.fullmatch("[0-9a-f]{16}", digest)
    assert save_checkpoint(tmp_path / "again", small_network(), LINEAGE) == digest
    assert load_checkpoint(tmp_path / "again").digest == digest
    others = [
        save_checkpoint(tmp_path / "1", small_network(seed=1), LINEAGE),
        save_checkpoint(tmp_path / "2", small_network(), replace(LINEAGE, gradient_steps=1501)),
        save_checkpoint(tmp_path / "3", small_network(robot=other_robot()), LINEAGE),
    ]
    assert len({digest, *others}) == 4


def test_saving_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "latest"
    first = save_checkpoint(folder, small_network(), LINEAGE)
    second = save_checkpoint(folder, small_network(seed=1), LINEAGE)
    assert first != second == load_checkpoint(folder).digest
    assert [p.name for p in tmp_path.iterdir()] == ["latest"]
    assert sorted(p.name for p in folder.iterdir()) == sorted((*FILES, MANIFEST))


def test_a_save_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "latest"
    digest = save_checkpoint(folder, small_network(), LINEAGE)
    unsaveable = replace(LINEAGE, notes={"what": object()})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        save_checkpoint(folder, small_network(seed=1), unsaveable)
    assert load_checkpoint(folder).digest == digest
    assert [p.name for p in tmp_path.iterdir()] == ["latest"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from((*FILES, MANIFEST)), st.integers(0, 2**32), st.sampled_from(["flip", "cut", "extend"]))
def test_any_changed_byte_is_found(copy: Path, name: str, where: int, how: str) -> None:
    path = copy / name
    original, digest = path.read_bytes(), load_checkpoint(copy).digest
    at = where % len(original)
    changed = {
        "flip": original[:at] + bytes([original[at] ^ 1]) + original[at + 1 :],
        "cut": original[:at],
        "extend": original + b" ",
    }[how]
    path.write_bytes(changed)
    try:
        if name == MANIFEST:
            # White space between its lines is no damage, but it is another digest.
            with contextlib.suppress(CheckpointError):
                assert load_checkpoint(copy).digest != digest
        else:
            with pytest.raises(CheckpointError, match=re.escape(name)):
                load_checkpoint(copy)
    finally:
        path.write_bytes(original)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(CheckpointError, match=re.escape(name)):
        load_checkpoint(copy)


def test_what_is_no_checkpoint(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"does not exist; a checkpoint is a folder with model\.safetensors"):
        load_checkpoint(tmp_path / "nowhere")
    (copy / MANIFEST).write_text("[]")
    with pytest.raises(CheckpointError, match="expected an object"):
        load_checkpoint(copy)
    (copy / MANIFEST).write_text('{"format": 7}')
    with pytest.raises(CheckpointError, match="format 7, this version reads 1"):
        load_checkpoint(copy)
    (copy / MANIFEST).write_text('{"format": 1, "files": {"../../etc/passwd": ""}}')
    with pytest.raises(CheckpointError, match="does not list exactly"):
        load_checkpoint(copy)


def test_another_robot_is_refused_naming_what_differs(saved: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(saved, other_robot())
    for part in ("'small'", "'other'", "rate_hz: 10.0 / 20.0", "action[0].high: 0.5 / 0.75"):
        assert part in str(caught.value)
    cameras = (*ROBOT.cameras, CameraSpec("top", 24, 32))
    assert differences(ROBOT, replace(ROBOT, cameras=cameras)) == ["cameras: front, wrist / front, wrist, top"]


def test_another_topic_is_the_same_robot(saved: Path) -> None:
    cameras = tuple(CameraSpec(c.name, c.height, c.width, "compressed", f"/elsewhere/{c.name}") for c in ROBOT.cameras)
    assert load_checkpoint(saved, replace(ROBOT, cameras=cameras)).spec == ROBOT


def rehash(folder: Path) -> None:
    """Make the manifest agree with what somebody wrote into the folder."""
    hashes = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in FILES}
    (folder / MANIFEST).write_text(json.dumps({"format": 1, "files": hashes}))


@pytest.mark.parametrize(
    ("name", "key", "value", "why"),
    [
        ("network.json", "config", {"d_model": 32}, "size mismatch|Missing key|Unexpected key"),
        ("network.json", "config", {"colour": 1}, "key 'colour'"),
        ("spec.json", "rate_hz", -1, "rate_hz -1"),
        ("statistics.json", "action_scale", [1.0], "statistics"),
        ("lineage.json", "mother", "x", "unknown mother"),
    ],
)
def test_content_that_contradicts_itself(copy: Path, name: str, key: str, value: object, why: str) -> None:
    content = json.loads((copy / name).read_text())
    content[key] = value
    (copy / name).write_text(json.dumps(content))
    rehash(copy)
    with pytest.raises(CheckpointError, match=why):
        load_network(load_checkpoint(copy))


def test_weights_that_are_no_weights(copy: Path) -> None:
    (copy / WEIGHTS).write_bytes(b"pickle would be read here, if anywhere")
    rehash(copy)
    with pytest.raises(CheckpointError, match="checkpoint"):
        load_network(load_checkpoint(copy))


def pretrained_config(folder: Path, frozen: bool) -> NetworkConfig:
    vision = VisionConfig("pretrained", save_clip_vision(folder / "clip"), frozen, image_size=32)
    text = LanguageConfig(save_t5(folder / "t5"), frozen, "tokens", dimension=0)
    return replace(SMALL, vision=vision, language=text)


def run(network: VLANetwork, text: str = "open the drawer") -> torch.Tensor:
    images = torch.arange(2 * 32 * 32 * 3).remainder(256).to(torch.uint8).view(1, 2, 32, 32, 3)
    with torch.no_grad():
        return torch.as_tensor(network(images, torch.zeros(1, 3), *network.encode_instructions([text])))


@pytest.mark.parametrize("frozen", [True, False])
def test_pretrained_encoders(tmp_path: Path, frozen: bool) -> None:
    network = VLANetwork(pretrained_config(tmp_path, frozen), ROBOT, STATISTICS).eval()
    expected = run(network)
    save_checkpoint(tmp_path / "checkpoint", network, LINEAGE)
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    held = [n for n in network.state_dict() if n.startswith(("language.model", "vision.0.model"))]
    assert bool(held) is not frozen
    assert set(checkpoint.encoder_digests) == ({"vision", "language"} if frozen else set())
    loaded = load_network(checkpoint)
    torch.testing.assert_close(run(loaded), expected, rtol=0, atol=0)
    torch.testing.assert_close(run(loaded, "push"), run(network, "push"), rtol=0, atol=0)


def test_another_encoder_under_the_same_name_is_refused(tmp_path: Path) -> None:
    network = VLANetwork(pretrained_config(tmp_path, frozen=True), ROBOT, STATISTICS)
    save_checkpoint(tmp_path / "checkpoint", network, LINEAGE)
    checkpoint = load_checkpoint(tmp_path / "checkpoint")
    moved = {network.config.vision.name: str((tmp_path / "clip").rename(tmp_path / "moved"))}
    assert run(load_network(checkpoint, folders=moved)).shape == (1, 5, 3)
    with pytest.raises(CheckpointError, match=r"vision encoder .* cannot be loaded"):
        load_network(checkpoint)
    save_clip_vision(tmp_path / "clip", seed=1)
    with pytest.raises(CheckpointError, match=r"vision encoder .* weights have digest"):
        load_network(checkpoint)


def test_lineage_round_trip_and_unknown_keys() -> None:
    assert Lineage.from_dict({"parent": "x", "gradient_steps": 3}) == Lineage("x", gradient_steps=3)
    with pytest.raises(CheckpointError, match="unknown mother; valid are parent, episodes"):
        Lineage.from_dict({"mother": "x"})


def test_the_spec_type_is_whole(saved: Path) -> None:
    assert isinstance(load_checkpoint(saved).spec, RobotSpec)

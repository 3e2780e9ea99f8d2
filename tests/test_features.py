"""Features of a frozen vision encoder, kept on disk: their values, their keys, their damage, and training on them."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from episodes import SPEC
from safetensors.torch import load_file
from tiny_encoders import save_clip_vision
from torch import Tensor
from training_run import NETWORK, make_network, small_training, write_bags

from trainer.bc import behaviour_cloning
from trainer.config import AugmentationConfig, TrainingConfig
from trainer.dataset import WindowDataset, load_episodes
from trainer.episode_arrays import EpisodeArrays
from trainer.episode_cache import EpisodeCache
from trainer.exceptions import ConfigError, DatasetError, TrainingError
from trainer.features import FRAMES_AT_ONCE, FeatureCache, Precision, cached_precision
from trainer.loop import TrainResult, Validate
from trainer.sampler import WindowSampler
from vla_policy_node.checkpoint import load_checkpoint, load_network
from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.config import NetworkConfig, VisionConfig
from vla_policy_node.network.encoders import CLIP_MEAN, CLIP_STD, PretrainedEncoder, VisionFeatures
from vla_policy_node.network.pretrained import load_encoder
from vla_policy_node.network.vla import VLANetwork
from vla_policy_node.normalization import compute_statistics

SIZE = (32, 32)
PLAIN = AugmentationConfig(shift_px=0, gain=0.0, offset=0.0)
SMALLER = AugmentationConfig(shift_px=1)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def episodes(tmp_path: Path) -> tuple[EpisodeArrays, ...]:
    return load_episodes(write_bags(tmp_path / "bags"), SPEC, SIZE, EpisodeCache(tmp_path / "cache")).episodes


def network_config(clip: str) -> NetworkConfig:
    language = replace(NETWORK.language, name="minilm", dimension=12)
    return replace(NETWORK, vision=VisionConfig(kind="pretrained", name=clip, image_size=32), language=language)


def network(clip: str, episodes: Sequence[EpisodeArrays]) -> VLANetwork:
    sampler = WindowSampler(WindowDataset(episodes, SPEC, NETWORK.horizon), 8)
    return make_network(sampler, config=network_config(clip))


def cache_of(root: Path, network: VLANetwork, precision: Precision = "float32") -> FeatureCache:
    return FeatureCache(EpisodeCache(root), network, precision)


def entries(root: Path) -> list[Path]:
    """Folders of features, told from those of episodes by the dots in their names."""
    return sorted(path for path in root.iterdir() if "." in path.name)


def encoder_of(network: VLANetwork) -> PretrainedEncoder:
    first = network.vision[0]
    assert isinstance(first, PretrainedEncoder)
    return first


def test_features_are_the_encoders_last_hidden_states(clip: str, episodes: tuple[EpisodeArrays, ...]) -> None:
    net = network(clip, episodes)
    images = torch.from_numpy(np.array(episodes[0].images[:3]))
    hidden = net.encode_images(images).hidden
    assert hidden.shape == (3, 2, 1 + 4, 24)
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    pixels = (images[2, 1].permute(2, 0, 1)[None] / 255 - mean) / std
    with torch.no_grad():
        expected = load_encoder("vision", clip)(pixel_values=pixels).last_hidden_state
    torch.testing.assert_close(hidden[2, 1], expected[0], rtol=1e-4, atol=1e-5)


def test_the_network_gives_the_same_of_images_and_of_their_features(
    clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    net = network(clip, episodes).eval()
    images, posture = torch.from_numpy(np.array(episodes[0].images[:3])), torch.randn(3, 2)
    language = net.encode_instructions(["please push it"] * 3)
    seen: list[Tensor | VisionFeatures] = [images, net.encode_images(images)]
    of_images, of_features = (net(one, posture, *language) for one in seen)
    torch.testing.assert_close(of_features, of_images, rtol=1e-5, atol=1e-6)
    other = VisionFeatures(net.encode_images(images).hidden.flip(1))
    assert (net(other, posture, *language) - of_images).abs().max() > 1e-4


def test_episodes_get_their_features_mapped_from_disk(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    net = network(clip, episodes)
    exact = cache_of(tmp_path / "cache", net).add_to(episodes, False)
    short = cache_of(tmp_path / "cache", net, "float16").add_to(episodes, False)
    for before, after, half in zip(episodes, exact, short, strict=True):
        assert isinstance(after.features, np.memmap)
        assert isinstance(half.features, np.memmap)
        assert after.features.shape == half.features.shape == (len(before), 2, 5, 24)
        wanted = net.encode_images(torch.from_numpy(np.array(before.images))).hidden.numpy()
        np.testing.assert_allclose(after.features, wanted, rtol=1e-5, atol=1e-6)
        # Ten bits behind the point, so half of the eleventh at most is lost.
        np.testing.assert_allclose(half.features, after.features, rtol=2**-11, atol=1e-7)
    batch = WindowDataset(short, SPEC, 4).gather(np.array([0, 13]))
    assert batch.seen.dtype == np.float16
    assert batch.seen.shape == (2, 2, 5, 24)
    np.testing.assert_array_equal(batch.seen[1], short[1].seen[1])
    np.testing.assert_array_equal(batch.part(1, 2).seen, batch.seen[1:])


def test_encoding_goes_in_batches_to_the_last_frame(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    net, steps = network(clip, episodes), FRAMES_AT_ONCE + 3
    images = np.random.default_rng(0).integers(0, 256, (steps, 2, *SIZE, 3), dtype=np.uint8)
    long = replace(episodes[0], images=images, stamps=np.arange(steps, dtype=np.int64), bag_digest="long")
    (found,) = cache_of(tmp_path, net).add_to([long], False)
    assert found.features is not None
    wanted = net.encode_images(torch.from_numpy(images[-1:])).hidden.numpy()
    np.testing.assert_allclose(found.features[-1:], wanted, rtol=1e-5, atol=1e-6)


def test_a_second_run_reads_and_never_encodes(tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]) -> None:
    first = cache_of(tmp_path / "cache", network(clip, episodes)).add_to(episodes, False)
    without = network(clip, episodes)
    encoder_of(without)._frozen[0] = torch.nn.Identity()
    second = cache_of(tmp_path / "cache", without).add_to(episodes, False)
    assert all(np.array_equal(a.seen, b.seen) for a, b in zip(first, second, strict=True))
    with pytest.raises(TypeError):
        cache_of(tmp_path / "elsewhere", without).add_to(episodes, False)


def test_what_was_interrupted_goes_on_with_the_next_episode(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    root = tmp_path / "cache"
    cache_of(root, network(clip, episodes)).add_to(episodes[:2], False)
    made = {path: (path / "features.npy").stat().st_mtime_ns for path in entries(root)}
    # A process that was killed while it wrote leaves a folder that no reader looks at.
    (root / ".killed").mkdir()
    cache_of(root, network(clip, episodes)).add_to(episodes, False)
    assert len([path for path in entries(root) if not path.name.startswith(".")]) == 4
    assert all((path / "features.npy").stat().st_mtime_ns == when for path, when in made.items())


def test_the_key_holds_all_that_decides_the_features(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    same, other = save_clip_vision(tmp_path / "same"), save_clip_vision(tmp_path / "other", seed=1)
    heads = save_clip_vision(tmp_path / "heads")
    config = tmp_path / "heads" / "config.json"
    config.write_text(config.read_text().replace('"num_attention_heads": 2', '"num_attention_heads": 4'))
    first = episodes[0]

    def key(folder: str, precision: Precision = "float32", episode: EpisodeArrays = first) -> str:
        return cache_of(tmp_path, network(folder, episodes), precision).key(episode)

    assert key(clip) == key(same)
    smaller = replace(first, images=first.images[:, :, :16, :16])
    keys = [key(clip), key(other), key(heads), key(clip, "float16"), key(clip, episode=episodes[1])]
    assert len({*keys, key(clip, episode=smaller)}) == 6
    with pytest.raises(DatasetError, match="episode 'a' has no bag digest"):
        key(clip, episode=replace(first, bag_digest=""))


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "entry"])
def test_a_damaged_entry_is_encoded_anew(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...], damage: str
) -> None:
    cache = cache_of(tmp_path / "cache", network(clip, episodes))
    (whole,) = cache.add_to(episodes[:1], False)
    wanted = np.array(whole.features)
    (folder,) = entries(tmp_path / "cache")
    file = folder / ("entry.json" if damage == "entry" else "features.npy")
    content = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    else:
        os.truncate(file, len(content) // 2)
    (again,) = cache.add_to(episodes[:1], False)
    np.testing.assert_array_equal(again.seen, wanted)
    assert entries(tmp_path / "cache") == [folder]


def test_a_feature_that_float16_cannot_hold_is_refused(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    net = network(clip, episodes)
    with torch.no_grad():
        for name, value in encoder_of(net)._frozen[0].named_parameters():
            if name.endswith("layers.1.mlp.fc2.bias"):
                value.fill_(1e6)
    with pytest.raises(DatasetError, match=r"episode 'a': a feature is not finite as float16; .* float32"):
        cache_of(tmp_path, net, "float16").add_to(episodes[:1], False)
    assert cache_of(tmp_path, net).add_to(episodes[:1], False)[0].seen.max() > 1e5


def test_when_features_are_kept() -> None:
    frozen, trained = VisionConfig(kind="pretrained", name="x"), VisionConfig(kind="pretrained", name="x", frozen=False)
    plain = TrainingConfig(augmentation=PLAIN)
    assert cached_precision(plain, frozen) == "float16"
    assert cached_precision(TrainingConfig(augmentation=SMALLER), frozen) is None
    assert cached_precision(replace(plain, cache_features="never"), frozen) is None
    assert cached_precision(replace(plain, cache_features="float32"), frozen) == "float32"
    for vision in (trained, VisionConfig()):
        assert cached_precision(plain, vision) is None
        with pytest.raises(
            ConfigError, match=r"cache_features float16 needs .* valid are cache_features auto or never"
        ):
            cached_precision(replace(plain, cache_features="float16"), vision)


def test_an_encoder_that_is_trained_has_no_features_to_keep(clip: str, episodes: tuple[EpisodeArrays, ...]) -> None:
    config = replace(network_config(clip), vision=VisionConfig(kind="pretrained", name=clip, frozen=False))
    net = make_network(WindowSampler(WindowDataset(episodes, SPEC, 4), 8), config=config)
    with pytest.raises(NetworkError, match=r"vision.frozen False gives no features"):
        net.encode_images(torch.zeros(1, 2, *SIZE, 3, dtype=torch.uint8))


def test_a_dataset_is_of_one_kind(tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]) -> None:
    some = cache_of(tmp_path, network(clip, episodes)).add_to(episodes[:1], False)
    with pytest.raises(DatasetError, match=r"not of one kind and shape: float32 .*, uint8"):
        WindowDataset([*some, *episodes[1:]], SPEC, 4)


def clone(
    root: Path,
    name: str,
    clip: str,
    episodes: Sequence[EpisodeArrays],
    training: TrainingConfig,
    validate: Validate | None = None,
) -> TrainResult:
    """A run as `encore train` makes it, but for a language encoder that knows its instructions already."""
    data = WindowDataset(episodes, SPEC, NETWORK.horizon)
    statistics = compute_statistics(SPEC, data.proprioception, data.actions)
    config = replace(network_config(clip), language=replace(NETWORK.language, dimension=384))
    cache = EpisodeCache(root / "cache")
    return behaviour_cloning(
        episodes, SPEC, config, training, root / name, cache, validate, visible=False, statistics=statistics
    )


def state(result: TrainResult, step: int) -> dict[str, Tensor]:
    folder = result.folder / "state" / f"step_{step:08d}"
    tensors: dict[str, Tensor] = {
        **load_file(folder / "weights.safetensors"),
        **load_file(folder / "optimizer.safetensors"),
    }
    return tensors


def test_two_steps_on_features_give_the_weights_of_two_steps_on_images(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    weights = {}
    for kind in ("never", "float32", "float16", "auto"):
        training = small_training(2, augmentation=PLAIN, cache_features=kind, accumulation=2)
        weights[kind] = state(clone(tmp_path, kind, clip, episodes, training), 2)
    assert weights["never"].keys() == weights["float32"].keys()
    for name, value in weights["never"].items():
        torch.testing.assert_close(weights["float32"][name], value, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(weights["float16"][name], value, rtol=5e-2, atol=5e-3)
        assert torch.equal(weights["auto"][name], weights["float16"][name])
    assert any(not torch.equal(weights["float16"][name], value) for name, value in weights["never"].items())


def test_a_run_on_features_resumes_to_the_same_weights(
    tmp_path: Path, clip: str, episodes: tuple[EpisodeArrays, ...]
) -> None:
    training = small_training(4, augmentation=PLAIN)
    unbroken = clone(tmp_path, "unbroken", clip, episodes, training)

    def stop(step: int, checkpoint: Path) -> float:
        raise InterruptedError

    broken = replace(training, validate_every=3)
    with pytest.raises(InterruptedError):
        clone(tmp_path, "broken", clip, episodes, broken, stop)
    resumed = clone(tmp_path, "broken", clip, episodes, broken, lambda step, checkpoint: 0.0)
    ends = state(unbroken, 4), state(resumed, 4)
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])
    with pytest.raises(TrainingError, match=r"vision_features: float16 \w+ there, None now"):
        clone(tmp_path, "broken", clip, episodes, replace(broken, cache_features="never"))
    # What was trained on features acts on images.
    assert load_network(load_checkpoint(unbroken.checkpoint)).features_digest

"""Pretrained encoders through transformers (real CLIP and T5 of random weights, and MiniLM), and the small one."""

import math
from pathlib import Path

import pytest
import torch
from tiny_encoders import save_clip_vision, save_t5, save_tokenizer

from vla_policy_node.exceptions import NetworkError
from vla_policy_node.network.config import LanguageConfig, VisionConfig
from vla_policy_node.network.encoders import CLIP_MEAN, CLIP_STD, ConvolutionEncoder, PretrainedEncoder
from vla_policy_node.network.language import CACHE_SIZE, LanguageEncoder
from vla_policy_node.network.pretrained import load_encoder, weights_digest


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_clip_vision(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_t5(tmp_path_factory.mktemp("t5"))


def language(name: str, frozen: bool = True) -> LanguageConfig:
    return LanguageConfig(name=name, frozen=frozen, pooling="tokens", dimension=0)


def test_keypoints_find_a_bright_spot() -> None:
    torch.manual_seed(0)
    encoder = ConvolutionEncoder(VisionConfig(channels=(8, 8), keypoints=1), 64, 64, 4, 16)
    features = torch.zeros(1, 8, 8, 8)
    features[0, :, 1, 6] = 100.0
    with torch.no_grad():
        encoder.keypoints.weight.fill_(1.0)
        x, y = encoder.locate(features)[0, 0].tolist()
    # Column 6 and row 1 of 8: -1 + 2 * 6 / 7 and -1 + 2 / 7.
    assert (x, y) == pytest.approx((5 / 7, -5 / 7), abs=1e-5)


def test_at_a_low_temperature_a_keypoint_is_where_its_feature_is_strongest() -> None:
    features = torch.zeros(1, 8, 8, 8)
    features[0, :, 1, 6] = 1.0
    places = []
    for temperature in (1.0, 0.1):
        config = VisionConfig(channels=(8, 8), keypoints=1, keypoint_temperature=temperature)
        encoder = ConvolutionEncoder(config, 64, 64, 4, 16)
        with torch.no_grad():
            encoder.keypoints.weight.fill_(0.125)
            places.append(encoder.locate(features)[0, 0, 0].item())
    # The cell that answers 1 among 63 that answer 0 weighs e^(1 / T) / (63 + e^(1 / T)), at (5/7, -5/7).
    weights = [math.exp(1 / t) / (63 + math.exp(1 / t)) for t in (1.0, 0.1)]
    others = -5 / 7 / 63  # Their mean: all 64 are centred on 0.
    assert places == pytest.approx([w * 5 / 7 + (1 - w) * others for w in weights], abs=1e-5)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 80), (37, 51)])
def test_the_small_encoder_takes_any_size(height: int, width: int) -> None:
    encoder = ConvolutionEncoder(VisionConfig(channels=(8, 16, 16), map_tokens=True), height, width, 4, 16)
    images, condition = torch.rand(2, 3, height, width), torch.randn(2, 4)
    rows, columns = encoder.features(images, condition).shape[2:]
    assert encoder(images, condition).shape == (2, 1 + rows * columns, 16)


def test_the_condition_modulates_the_small_encoder() -> None:
    torch.manual_seed(0)
    encoder = ConvolutionEncoder(VisionConfig(channels=(8, 16)), 64, 64, 4, 16)
    image = torch.rand(1, 3, 64, 64)
    tokens = [encoder(image, torch.full((1, 4), value)) for value in (0.0, 1.0)]
    assert (tokens[0] - tokens[1]).abs().max() > 1e-5


def test_a_frozen_clip_gives_its_own_features_on_its_own_scale(clip: str) -> None:
    encoder = PretrainedEncoder(VisionConfig(kind="pretrained", name=clip), 12)
    pixels = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor(CLIP_MEAN).view(3, 1, 1), torch.tensor(CLIP_STD).view(3, 1, 1)
    with torch.no_grad():
        expected = load_encoder("vision", clip)(pixel_values=(pixels - mean) / std).last_hidden_state
    tokens = encoder(pixels * 2 - 1, torch.zeros(2, 1))
    assert tokens.shape == (2, 1 + 4, 12)
    torch.testing.assert_close(tokens, encoder.project(expected), rtol=1e-4, atol=1e-5)


def test_frozen_means_neither_trained_nor_saved_nor_dropped_out(clip: str) -> None:
    encoder = PretrainedEncoder(VisionConfig(kind="pretrained", name=clip), 12).train()
    assert set(encoder.state_dict()) == {"project.weight", "project.bias"}
    images = torch.rand(1, 3, 32, 32)
    first, second = (encoder(images, torch.zeros(1, 1)) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    first.sum().backward()
    assert all(p.grad is None for p in encoder._frozen[0].parameters())
    assert not encoder._frozen[0].training


def test_unfrozen_is_trained_and_saved(clip: str) -> None:
    encoder = PretrainedEncoder(VisionConfig(kind="pretrained", name=clip, frozen=False), 12).train()
    assert any(name.startswith("model.") for name in encoder.state_dict())
    encoder(torch.rand(1, 3, 32, 32), torch.zeros(1, 1)).sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.model.parameters())


def test_t5_gives_a_vector_a_token_and_pads(t5: str) -> None:
    encoder = LanguageEncoder(language(t5))
    assert encoder.dimension == 16
    features, mask = encoder(["open the drawer", "push"])
    assert features.shape == (2, 3, 16)
    assert mask.tolist() == [[True] * 3, [True, False, False]]
    torch.testing.assert_close(features[1:, :1], encoder(["push"]).features)


def test_a_frozen_language_encoder_reads_an_instruction_once(t5: str) -> None:
    encoder = LanguageEncoder(language(t5)).train()
    first = encoder(["open the drawer"]).features
    encoder._frozen.clear()
    encoder._tokenizer = "gone"
    torch.testing.assert_close(encoder(["open the drawer"] * 3).features, first.expand(3, -1, -1), rtol=0, atol=0)
    assert encoder.state_dict() == {}
    assert not first.requires_grad


def test_what_was_encoded_while_acting_can_be_trained_on(t5: str) -> None:
    encoder = LanguageEncoder(language(t5))
    with torch.inference_mode():
        encoder(["push"])
    torch.nn.Linear(16, 1)(encoder(["push"]).features).sum().backward()


def test_the_cache_is_bounded_and_keeps_what_is_used(t5: str) -> None:
    encoder = LanguageEncoder(language(t5))
    encoder.remember({str(i): torch.zeros(1, 16) for i in range(CACHE_SIZE)})
    encoder(["0"])
    encoder.remember({"new": torch.zeros(1, 16)})
    assert len(encoder.cached) == CACHE_SIZE
    assert "0" in encoder.cached
    assert "1" not in encoder.cached


def test_an_unfrozen_language_encoder_is_trained_and_never_cached(t5: str) -> None:
    encoder = LanguageEncoder(language(t5, frozen=False)).eval()
    encoder.remember({"push": torch.zeros(1, 16)})
    features, mask = encoder(["open the drawer", "push"])
    features[mask].sum().backward()
    assert any(p.grad is not None and bool(p.grad.any()) for p in encoder.parameters())
    assert encoder.cached == {}
    assert encoder.digest() == ""
    frozen = LanguageEncoder(language(t5))(["open the drawer", "push"])
    torch.testing.assert_close(features[mask], frozen.features[mask])


def test_mean_pooling_gives_one_unit_vector(t5: str) -> None:
    features, mask = LanguageEncoder(LanguageConfig(name=t5, dimension=16))(["open the drawer", "push"])
    assert (features.shape, mask.shape) == ((2, 1, 16), (2, 1))
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(2, 1))


def test_minilm_tells_meanings_apart() -> None:
    encoder = LanguageEncoder(LanguageConfig())
    texts = ["open the drawer", "pull the drawer open", "press the red button"]
    a, b, c = encoder(texts).features[:, 0]
    assert encoder.dimension == 384
    assert a @ b > 0.8 > a @ c


def test_a_folder_may_stand_in_for_a_name(t5: str, clip: str) -> None:
    encoder = LanguageEncoder(language("google-t5/t5-base"), {"google-t5/t5-base": t5})
    assert encoder(["push"]).features.shape == (1, 1, 16)
    config = VisionConfig(kind="pretrained", name="openai/clip")
    assert PretrainedEncoder(config, 4, {"openai/clip": clip}).digest


def test_the_digest_is_that_of_the_weights(clip: str, t5: str, tmp_path: Path) -> None:
    same, other = save_clip_vision(tmp_path / "same"), save_clip_vision(tmp_path / "other", seed=1)
    digests = [weights_digest(load_encoder("vision", folder)) for folder in (clip, same, other)]
    assert digests[0] == digests[1] != digests[2]
    with pytest.raises(NetworkError, match=f"weights have digest {digests[2]}, but the network needs {digests[0]}"):
        PretrainedEncoder(VisionConfig(kind="pretrained", name=other), 12, expected_digest=digests[0])
    wrong = LanguageEncoder(LanguageConfig(name=t5, dimension=16), expected_digest="0" * 16)
    with pytest.raises(NetworkError, match="but the network needs 0000"):
        wrong(["push"])


def test_errors_name_the_encoder_and_what_is_there(clip: str, t5: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(NetworkError, match=r"'.*/empty'.*folder with nothing"):
        load_encoder("vision", str(tmp_path / "empty"))
    with pytest.raises(NetworkError, match="not a folder here, so a hub name"):
        load_encoder("language", "nobody/nothing")
    save_tokenizer(tmp_path / "only-tokenizer")
    with pytest.raises(NetworkError, match=r"folder with tokenizer.json"):
        load_encoder("language", str(tmp_path / "only-tokenizer"))
    with pytest.raises(NetworkError, match="tokenizer encoder"):
        LanguageEncoder(language(clip))(["push"])
    with pytest.raises(NetworkError, match=r"features are 16 wide, but language.dimension is 8"):
        LanguageEncoder(LanguageConfig(name=t5, dimension=8))(["push"])
    with pytest.raises(NetworkError, match="instruction 1 of 2 is empty"):
        LanguageEncoder(language(t5))(["push", "  "])

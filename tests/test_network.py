"""The network: shapes, what it depends on, what it must not depend on, and that it learns."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from small_robot import INSTRUCTIONS, ROBOT, SMALL, STATISTICS, small_network
from torch import Tensor

from vla_policy_node.exceptions import NetworkError, SpecError
from vla_policy_node.network.config import LanguageConfig, NetworkConfig, VisionConfig, load_network_config
from vla_policy_node.network.decoder import Attention, Decoder
from vla_policy_node.network.images import resize, stack_images, to_network
from vla_policy_node.network.language import LanguageFeatures, masked_mean, pad
from vla_policy_node.network.vla import VLANetwork, with_octaves

TEXTS = tuple(INSTRUCTIONS)


def batch(size: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (size, 2, 24, 32, 3), generator=generator, dtype=torch.uint8)
    return images, torch.randn(size, 3, generator=generator)


def test_a_chunk_of_normalised_actions() -> None:
    network = small_network()
    images, proprioception = batch()
    language = network.encode_instructions(TEXTS)
    actions = network(images, proprioception, *language)
    assert actions.shape == (3, SMALL.horizon, 3)
    assert actions.dtype == torch.float32
    torch.testing.assert_close(network(to_network(images), proprioception, *language), actions)


@pytest.mark.parametrize("map_tokens", [False, True])
def test_every_input_and_every_camera_matters_and_each_row_stands_alone(map_tokens: bool) -> None:
    network = small_network(config=replace(SMALL, vision=replace(SMALL.vision, map_tokens=map_tokens)))
    images, proprioception = batch()
    features, mask = network.encode_instructions(TEXTS)

    def run(change: Callable[[Tensor, Tensor, Tensor], object]) -> Tensor:
        inputs = [t.clone() for t in (images, proprioception, features)]
        change(*inputs)
        return torch.as_tensor(network(*inputs, mask))

    reference = run(lambda i, p, f: None)
    changes: list[Callable[[Tensor, Tensor, Tensor], object]] = [
        lambda i, p, f: i[0, 0].fill_(200),
        lambda i, p, f: i[0, 1].fill_(200),
        lambda i, p, f: p[0].add_(1.0),
        lambda i, p, f: f[0].add_(1.0),
    ]
    for change in changes:
        changed = run(change)
        assert (changed[0] - reference[0]).abs().max() > 1e-6
        torch.testing.assert_close(changed[1:], reference[1:])


def test_padding_of_an_instruction_changes_nothing() -> None:
    network = small_network()
    images, proprioception = batch(1)
    tokens = torch.randn(4, network.language.dimension)
    alone = network(images, proprioception, *pad([tokens]))
    longer = pad([tokens, torch.randn(9, network.language.dimension)])
    padded = network(images, proprioception, longer.features[:1], longer.mask[:1])
    torch.testing.assert_close(padded, alone, rtol=1e-4, atol=1e-5)


def test_proprioception_is_normalised_by_the_frozen_statistics() -> None:
    network = small_network()
    mean, std = torch.tensor(STATISTICS.proprioception_mean), torch.tensor(STATISTICS.proprioception_std)
    torch.testing.assert_close(network._normalized_proprioception((mean + 2 * std)[None]), torch.full((1, 3), 2.0))


def test_octaves_by_hand() -> None:
    found = with_octaves(torch.tensor([[0.5, -1.0]]), 2)
    half = math.sqrt(0.5)
    # Of 0.5: pi/4 and pi/2; of -1: -pi/2 and -pi.
    torch.testing.assert_close(found, torch.tensor([[0.5, -1.0, half, -1.0, 1.0, 0.0, half, 0.0, 0.0, -1.0]]))
    values = torch.randn(3, 4)
    torch.testing.assert_close(with_octaves(values, 0), values)
    network = small_network(config=replace(SMALL, proprioception_octaves=3))
    images, proprioception = batch()
    assert network(images, proprioception, *network.encode_instructions(TEXTS)).shape == (3, SMALL.horizon, 3)
    with pytest.raises(NetworkError, match="proprioception_octaves -1"):
        replace(SMALL, proprioception_octaves=-1)


@settings(max_examples=30)
@given(st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=3))
def test_denormalize_undoes_normalize(values: list[float]) -> None:
    network = small_network()
    actions = torch.tensor(values)
    torch.testing.assert_close(network.denormalize(network.normalize_actions(actions)), actions, rtol=1e-5, atol=1e-5)


def test_limits_are_minus_one_and_one() -> None:
    network = small_network()
    for limit, expected in ((ROBOT.action_low, -1.0), (ROBOT.action_high, 1.0)):
        torch.testing.assert_close(network.normalize_actions(torch.from_numpy(limit)), torch.full((3,), expected))


def test_it_learns_to_tell_images_and_instructions_apart() -> None:
    network = small_network().train()
    images, proprioception = batch(4)
    images[1], images[3] = images[0], images[2]
    proprioception[:] = 0
    features, mask = network.encode_instructions([TEXTS[0], TEXTS[1]] * 2)
    target = torch.tensor([-0.8, -0.3, 0.3, 0.8])[:, None, None].expand(4, SMALL.horizon, 3)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    for _ in range(150):
        loss = (network(images, proprioception, features, mask) - target).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.1


def test_half_the_digits_give_nearly_the_same_actions_and_gradients() -> None:
    network = small_network()
    images, proprioception = batch(16)
    language = network.encode_instructions([TEXTS[i % len(TEXTS)] for i in range(16)])
    found = []
    for enabled in (False, True):
        network.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            actions = network(images, proprioception, *language)
        actions.float().abs().mean().backward()
        found.append(
            (actions.float(), torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        )
    (exact, exact_gradient), (half, half_gradient) = found
    assert not torch.equal(half, exact)
    torch.testing.assert_close(half, exact, atol=0.02, rtol=0)
    assert torch.cosine_similarity(half_gradient, exact_gradient, dim=0) > 0.99


def test_all_weights_get_a_gradient() -> None:
    network = small_network(config=replace(SMALL, vision=replace(SMALL.vision, map_tokens=True))).train()
    network(*batch(), *network.encode_instructions(TEXTS)).abs().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_a_robot_without_proprioception() -> None:
    robot = replace(ROBOT, proprioception=())
    statistics = replace(STATISTICS, proprioception_mean=(), proprioception_std=())
    network = VLANetwork(SMALL, robot, statistics, encoder_digests={"language": "0"})
    images, _ = batch(2)
    features = LanguageFeatures(torch.randn(2, 1, 384), torch.ones(2, 1, dtype=torch.bool))
    assert network(images, torch.zeros(2, 0), *features).shape == (2, SMALL.horizon, 3)


def test_attention_against_torchs_own() -> None:
    torch.manual_seed(0)
    mine, theirs = Attention(16, 4, 0.0), torch.nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([mine.query.weight, mine.key_value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([mine.query.bias, mine.key_value.bias]))
        theirs.out_proj.load_state_dict(mine.out.state_dict())
    queries, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask = torch.tensor([[True] * 5, [True, True, False, False, False]])
    expected, _ = theirs(queries, memory, memory, key_padding_mask=~mask)
    torch.testing.assert_close(mine(queries, memory, mask), expected, rtol=1e-4, atol=1e-5)


def test_decoder_does_not_care_about_the_order_of_its_memory() -> None:
    torch.manual_seed(0)
    decoder = Decoder(16, 2, 2, 32, 0.3).eval()
    queries, memory = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    torch.testing.assert_close(decoder(queries, memory.flip(1)), decoder(queries, memory), rtol=1e-4, atol=1e-5)


def test_masked_mean_by_hand() -> None:
    features = torch.tensor([[[2.0], [4.0], [100.0]], [[7.0], [0.0], [0.0]]])
    mask = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(features, mask).tolist() == [[3.0], [0.0]]


def test_images_are_scaled_and_resized_by_area() -> None:
    pixels = torch.tensor([0, 255, 51], dtype=torch.uint8).view(1, 1, 1, 1, 3)
    torch.testing.assert_close(to_network(pixels).flatten(), torch.tensor([-1.0, 1.0, -0.6]))
    image = np.zeros((4, 4, 3), np.uint8)
    image[:2, :2] = 200
    assert resize(image, 2, 2)[..., 0].tolist() == [[200, 0], [0, 0]]
    assert resize(image, 4, 4) is image
    stacked = stack_images({"b": image, "a": image + 1}, ["a", "b"], 8, 6)
    assert stacked.shape == (2, 8, 6, 3)
    assert stacked[:, 7, 5, 0].tolist() == [1, 0]


def test_presets_load_and_round_trip() -> None:
    assert load_network_config("small") == NetworkConfig()
    published = load_network_config("clip_t5")
    assert (published.d_model, published.heads, published.layers) == (512, 8, 6)
    assert (published.vision.kind, published.language.pooling) == ("pretrained", "tokens")
    for config in (NetworkConfig(), published, SMALL):
        assert NetworkConfig.from_dict(config.to_dict()) == config


def test_configs_that_are_refused(tmp_path: Path) -> None:
    for content, why in (
        ({"width": 3}, "key 'width' is not one of vision, language, horizon"),
        ({"vision": {"kind": "magic"}}, "'magic' is not one of convolution, pretrained"),
        ({"vision": 3}, "expected keys with values, not 3"),
        ({"heads": 3}, "heads 3 does not divide d_model 128"),
        ({"horizon": 0}, "horizon 0 is below 1"),
        ({"dropout": 1.0}, r"dropout 1.0 is outside \[0, 1\)"),
        ({"head": "diffusion"}, "head 'diffusion' is not one of regression"),
        ({"horizon": "long"}, "horizon 'long' is not a whole number"),
        ({"language": {"name": ""}}, "language.name ''"),
        ({"vision": {"kind": "pretrained"}}, "vision.name ''"),
        ({"vision": {"channels": [12, 16]}}, "multiples of 8"),
        ({"vision": {"keypoint_temperature": 0}}, "keypoint_temperature 0 is not above 0"),
    ):
        with pytest.raises(NetworkError, match=why):
            NetworkConfig.from_dict(content)
    with pytest.raises(NetworkError, match="'tiny': neither a file nor one of clip_t5, small"):
        load_network_config("tiny")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(NetworkError, match="not readable as YAML"):
        load_network_config(tmp_path / "bad.yaml")


def test_networks_that_cannot_be_built() -> None:
    with pytest.raises(NetworkError, match="'small' has no camera"):
        VLANetwork(SMALL, replace(ROBOT, cameras=()), STATISTICS)
    with pytest.raises(SpecError, match="statistics"):
        VLANetwork(SMALL, ROBOT, replace(STATISTICS, action_center=(0.0,), action_scale=(1.0,)))
    config = replace(SMALL, vision=VisionConfig(kind="pretrained", name="nowhere/at-all"))
    with pytest.raises(NetworkError, match="vision encoder 'nowhere/at-all'"):
        VLANetwork(config, ROBOT, STATISTICS, encoder_digests={"language": "0"})
    network = VLANetwork(replace(SMALL, language=LanguageConfig(name="nowhere/at-all")), ROBOT, STATISTICS)
    with pytest.raises(NetworkError, match="language encoder 'nowhere/at-all'"):
        network.encode_instructions(["open the drawer"])

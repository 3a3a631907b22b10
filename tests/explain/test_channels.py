import pytest
import torch
from torch import Tensor

from dermdistill.explain.channels import as_masks, dead_channels, estimated, scaled, uniform_channels, widest


def _channels(count: int = 40) -> Tensor:
    return torch.rand(count, 4, 4, generator=torch.Generator().manual_seed(0))


def test_dead_channels_are_zero_and_uniform_ones_the_same_everywhere() -> None:
    channels = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 3.0), torch.eye(2)])
    assert dead_channels(channels).tolist() == [True, False, False]
    assert uniform_channels(channels).tolist() == [True, True, False]


def test_widest_channels_are_those_of_largest_spread_in_their_order() -> None:
    channels = torch.eye(2) * torch.tensor([3.0, 1, 4, 1.5, 9, 2])[:, None, None] + 5
    assert widest(channels, 3).tolist() == [0, 2, 4]
    for count in (None, 6, 7):
        assert widest(channels, count).tolist() == list(range(6))


def test_masks_reach_from_zero_to_one_and_a_uniform_one_hides_everything() -> None:
    channels = torch.stack([torch.rand(3, 3) * 8 - 4, torch.full((3, 3), 2.0)])
    masks = as_masks(channels, (9, 9))
    assert masks.shape == (2, 9, 9)
    assert (float(masks[0].min()), float(masks[0].max())) == (0, 1) and not masks[1].any()
    assert float(masks[0].flatten()[channels[0].repeat_interleave(3, 0).repeat_interleave(3, 1).argmax()]) > 0.6


@pytest.mark.parametrize("align_corners", [False, True])
def test_mask_lies_where_its_channel_does(align_corners: bool) -> None:
    channel = torch.zeros(1, 4, 4)
    channel[0, 0, 0] = 1
    mask = as_masks(channel, (16, 16), align_corners=align_corners)[0]
    assert mask[0, 0] == 1
    # Stretched to the corners, the first cell's centre lies on the first pixel; in its place it lies 1.5 pixels inside.
    assert bool((mask[0, :2] == 1).all()) != align_corners


def test_weights_that_are_linear_in_the_masks_are_estimated_from_some() -> None:
    channels = _channels()
    effect = torch.randn(16, 2, generator=torch.Generator().manual_seed(1))
    wanted = scaled(channels).flatten(1) @ effect + 3
    scored = widest(channels, 30)
    found = estimated(channels, scored, wanted[scored])
    assert torch.equal(found[scored], wanted[scored])
    rest = torch.ones(40, dtype=torch.bool).index_fill(0, scored, False)
    error = (found - wanted)[rest].std()
    assert float(error) < 0.25 * float(wanted[rest].std())


def test_weights_that_were_all_scored_are_left_as_they_are() -> None:
    channels, weights = _channels(), torch.randn(40, 3)
    assert estimated(channels, torch.arange(40), weights) is weights

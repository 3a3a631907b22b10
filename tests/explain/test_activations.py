import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dermdistill.errors import ConfigError
from dermdistill.explain.activations import as_grid, check_classes, enlarged, grids, logits_in, normalised
from dermdistill.explain.gradcam import weighted_map


@pytest.mark.parametrize("prefix", [0, 1, 5])
def test_as_grid_drops_the_prefix_and_keeps_rows(prefix: int) -> None:
    tokens = torch.arange(prefix + 64.0)[None, :, None].expand(2, -1, 3)
    grid = as_grid(tokens)
    assert grid.shape == (2, 3, 8, 8)
    assert torch.equal(grid[1, 2].flatten(), torch.arange(prefix, prefix + 64.0))


@pytest.mark.parametrize("shape", [(2, 60, 3), (2, 80, 3), (2, 0, 3), (2, 3)])
def test_as_grid_of_no_square_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="square grid"):
        as_grid(torch.zeros(shape))


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(1e-6, 1e6))
def test_normalised_maps_reach_one_whatever_their_scale(seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    maps = weighted_map(torch.randn(4, 3, 5, 5, generator=generator), torch.randn(4, 3, 5, 5, generator=generator))
    found = normalised(maps)
    assert bool(((found >= 0) & (found <= 1)).all())
    assert torch.equal(found.amax(dim=(1, 2)) == 1, maps.amax(dim=(1, 2)) > 0)
    torch.testing.assert_close(normalised(maps * scale), found)


class InPlace(nn.Module):
    """A convolution, and a rectifier that overwrites what the convolution gave."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.drop = nn.Conv2d(3, 4, 3), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.drop(self.conv(images).relu_().mean(dim=(2, 3)))


def test_grids_are_those_of_the_layer_not_clipped_behind_it() -> None:
    model, images = InPlace().train(), torch.randn(2, 3, 8, 8)
    (found,), output = grids(model, images, [model.conv])
    torch.testing.assert_close(found, model.conv(images))
    assert float(found.min()) < 0 and not found.requires_grad
    torch.testing.assert_close(output, model.conv(images).relu().mean(dim=(2, 3)))  # no dropout
    assert model.training and not model.conv._forward_hooks


def test_enlarged_map_keeps_each_cell_in_its_place() -> None:
    small = torch.zeros(1, 4, 4)
    small[0, 1, 2] = 1
    large = enlarged(small, (32, 32))
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    centre = [float((large[0] * place).sum() / large.sum()) for place in (rows, columns)]
    assert centre == pytest.approx([1.5 * 8 - 0.5, 2.5 * 8 - 0.5])


@pytest.mark.parametrize("output", [torch.zeros(3), {"logits": torch.zeros(1, 2)}, ("text",), None])
def test_output_without_logits_is_refused(output: object) -> None:
    with pytest.raises(ConfigError, match="logits"):
        logits_in(output)


@pytest.mark.parametrize("classes", [[0, 3], [-1, 0], [0], [[0], [1]], [0.0, 1.0]])
def test_classes_that_do_not_fit_the_logits_are_refused(classes: list[float]) -> None:
    with pytest.raises(ConfigError, match="do not fit 2 images"):
        check_classes(torch.tensor(classes), 2, torch.zeros(2, 3))

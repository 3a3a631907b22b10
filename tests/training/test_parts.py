"""Order, schedule, averaging, checkpoint, record and validation: the parts of the loop."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score
from torch import nn

from dermdistill.distill.objective import Term
from dermdistill.errors import DeadTermError, NonFiniteLossError, RunFolderError
from dermdistill.preprocess import PreprocessSpec
from dermdistill.training.averaging import WeightAverage
from dermdistill.training.checkpoint import Progress, load_checkpoint, save_checkpoint
from dermdistill.training.order import batches, epoch_order
from dermdistill.training.record import EpochRecord, gradient_norms
from dermdistill.training.schedule import learning_rate_factor
from dermdistill.training.validation import predict_logits, validation_figures


@given(st.integers(1, 200), st.integers(0, 5), st.integers(0, 50))
def test_order_is_a_permutation_that_depends_on_seed_and_epoch_alone(size: int, seed: int, epoch: int) -> None:
    labels = np.arange(size) % 3
    order = epoch_order(labels, seed=seed, epoch=epoch, balanced=False)
    assert sorted(order) == list(range(size))
    assert np.array_equal(order, epoch_order(labels, seed=seed, epoch=epoch, balanced=False))


def test_order_changes_from_epoch_to_epoch_and_seed_to_seed() -> None:
    labels = np.zeros(50, dtype=np.int64)
    first, *others = (
        tuple(epoch_order(labels, seed=seed, epoch=epoch, balanced=False)) for seed, epoch in ((0, 0), (0, 1), (1, 0))
    )
    assert first not in others


def test_balanced_order_draws_classes_equally_often() -> None:
    labels = np.repeat([0, 1, 2], [5000, 900, 100])
    drawn = labels[epoch_order(labels, seed=0, epoch=0, balanced=True)]
    assert len(drawn) == len(labels)
    # 2,000 expected of each; five standard deviations of the binomial are 183
    assert np.all(np.abs(np.bincount(drawn) - 2000) < 183)


@given(st.integers(1, 100), st.integers(1, 40))
def test_batches_are_full_and_disjoint(size: int, batch_size: int) -> None:
    cut = batches(np.arange(size), batch_size)
    assert len(np.unique(np.concatenate(cut))) == sum(map(len, cut))
    assert all(len(batch) == min(size, batch_size) for batch in cut)
    assert size - sum(map(len, cut)) < batch_size


def test_learning_rate_warms_up_and_follows_a_cosine_to_zero() -> None:
    factors = [learning_rate_factor(step, steps=110, warmup_steps=10) for step in range(111)]
    assert all(a < b for a, b in pairwise(factors[:11]))
    assert max(factors) == factors[10] == 1
    assert factors[60] == pytest.approx(0.5)
    assert factors[35] == pytest.approx((1 + math.cos(math.pi / 4)) / 2)
    assert factors[110] == pytest.approx(0)


def test_average_follows_its_formula_and_copies_counters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    average = WeightAverage(model, decay=0.9)
    expected = model[0].weight.detach().clone()
    for step in range(30):
        with torch.no_grad():
            model[0].weight.add_(1.0)
            model[1].num_batches_tracked.add_(1)
        average.update(model, step)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * model[0].weight.detach()
    assert torch.allclose(average.state["0.weight"], expected, atol=1e-5)
    assert int(average.state["1.num_batches_tracked"]) == 30


def test_average_without_decay_is_the_model() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.0)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update(model, 100)
    assert torch.allclose(average.state["weight"], model.weight)


def test_checkpoint_round_trips(tmp_path: Path) -> None:
    progress = Progress(inputs="abc", epochs_done=2, step=7, log=[{"epoch": 0}])
    save_checkpoint(tmp_path / "c.safetensors", progress, {"model": {"a.b": torch.arange(3)}, "objective": {}})
    loaded, parts = load_checkpoint(tmp_path / "c.safetensors", "abc")
    assert loaded == progress and loaded.best_value == float("-inf")
    assert torch.equal(parts["model"]["a.b"], torch.arange(3))


def test_foreign_or_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, Progress(inputs="abc"), {"model": {"a": torch.arange(3)}})
    with pytest.raises(RunFolderError, match="other settings"):
        load_checkpoint(path, "other")
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(RunFolderError, match="damaged"):
        load_checkpoint(path, "abc")


def record_of(value: torch.Tensor, weight: float = 1.0) -> EpochRecord:
    record = EpochRecord("student", 0)
    terms = {"kd": Term(value, weight)}
    record.add(terms, 4)
    return record


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_term_is_named(value: float) -> None:
    with pytest.raises(NonFiniteLossError, match="kd"):
        record_of(torch.tensor(value)).check_finite()


def test_non_finite_gradient_is_named() -> None:
    record = record_of(torch.tensor(1.0))
    record.add_gradient_norm(torch.tensor(float("nan")))
    with pytest.raises(NonFiniteLossError, match="gradient"):
        record.check_finite()


def test_term_that_stays_zero_is_dead() -> None:
    with pytest.raises(DeadTermError, match="'kd' is dead: its value was zero"):
        record_of(torch.tensor(0.0)).check_alive()


def test_term_without_gradient_is_dead() -> None:
    layer = nn.Linear(2, 1)
    terms = {
        "alive": Term(layer(torch.ones(1, 2)).square().sum(), 1.0),
        "kd": Term(torch.tensor(3.0), 1.0),
        "detached": Term(layer(torch.ones(1, 2)).sum().detach().requires_grad_(), 1.0),
    }
    record = EpochRecord("student", 0)
    record.add(terms, 1)
    record.grad_norms = gradient_norms(terms, layer.parameters())
    assert record.grad_norms["alive"] > 0 and record.grad_norms["detached"] == 0
    with pytest.raises(DeadTermError, match="'kd' is dead: it has no gradient"):
        record.check_alive()


def test_term_without_weight_may_be_zero() -> None:
    record_of(torch.tensor(0.0), weight=0.0).check_alive()


def test_gradient_norm_of_a_term_is_that_of_autograd() -> None:
    layer = nn.Linear(3, 2)
    value = layer(torch.ones(1, 3)).square().sum()
    norms = gradient_norms({"a": Term(value, 0.1)}, layer.parameters())
    value.backward()
    gradients = torch.cat([p.grad.flatten() for p in layer.parameters() if p.grad is not None])
    assert norms["a"] == pytest.approx(gradients.norm().item(), rel=1e-6)


def test_logits_of_a_tensor_of_images_are_those_of_the_array() -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3)).astype(np.uint8)
    torch.manual_seed(0)
    model, rows, spec = nn.Sequential(nn.Flatten(), nn.Linear(48, 7)), np.array([4, 0, 0, 2, 1]), PreprocessSpec(4)
    array, tensor = (predict_logits(model, one, rows, spec, batch_size=2) for one in (images, torch.from_numpy(images)))
    assert array.shape == (5, 7) and np.array_equal(array, tensor)


def test_validation_figures_equal_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, 200)
    logits = generator.normal(size=(200, 7)).astype(np.float32)
    logits[np.arange(200), labels] += 1
    probs = torch.from_numpy(logits).double().softmax(1).numpy()
    figures = validation_figures(logits, labels, "diagnosis")
    assert figures["macro_auc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr"), abs=1e-9)
    assert figures["melanoma_auc"] == pytest.approx(roc_auc_score(labels == 4, probs[:, 4]), abs=1e-9)
    assert figures["loss"] == pytest.approx(log_loss(labels, probs), abs=1e-6)


def test_validation_without_a_class_leaves_it_out() -> None:
    labels = np.array([0, 0, 1, 1])
    logits = np.eye(7, dtype=np.float32)[labels]
    assert validation_figures(logits, labels, "diagnosis")["macro_auc"] == 1

import numpy as np
import pytest
import torch
from common.accuracy import Accuracy


def test_is_the_share_of_hits():
    assert Accuracy().compute(predictions=[0, 1, 2, 3], references=[0, 1, 2, 0]) == {"accuracy": 0.75}


@pytest.mark.parametrize("make", [list, np.array, torch.tensor])
def test_takes_lists_arrays_and_tensors_in_batches(make):
    metric = Accuracy()
    metric.add_batch(predictions=make([1, 1]), references=make([1, 0]))
    metric.add_batch(predictions=make([2]), references=make([2]))
    assert metric.compute()["accuracy"] == pytest.approx(2 / 3)


def test_starts_anew_after_compute():
    metric = Accuracy()
    metric.compute(predictions=[0], references=[1])
    assert metric.compute(predictions=[1], references=[1]) == {"accuracy": 1.0}


def test_weights_and_counts_as_the_metric_of_the_hub_does():
    predictions, references = [0, 1, 1], [0, 1, 0]
    metric = Accuracy()
    assert metric.compute(predictions=predictions, references=references, normalize=False) == {"accuracy": 2.0}
    weighted = metric.compute(predictions=predictions, references=references, sample_weight=[1.0, 1.0, 2.0])
    assert weighted == {"accuracy": 0.5}


def test_agrees_with_scikit_learn():
    accuracy_score = pytest.importorskip("sklearn.metrics").accuracy_score
    rng = np.random.default_rng(0)
    predictions, references = rng.integers(0, 3, 100), rng.integers(0, 3, 100)
    weights = rng.random(100)
    found = Accuracy().compute(predictions=predictions, references=references, sample_weight=weights)
    assert found["accuracy"] == pytest.approx(accuracy_score(references, predictions, sample_weight=weights))

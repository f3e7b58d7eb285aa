"""Accuracy as an `evaluate.Metric` that ships with the package: `evaluate.load("accuracy")` needs the Hub."""

from typing import Any

import datasets
import evaluate
import numpy as np


class Accuracy(evaluate.Metric):
    """The share of predictions that equal their reference.

    Takes what the Hub's `accuracy` takes and returns what it returns, and needs neither network nor scikit-learn.

    >>> accuracy = Accuracy()
    >>> accuracy.compute(predictions=[0, 1, 2, 2], references=[0, 1, 1, 2])
    {'accuracy': 0.75}
    >>> accuracy.add_batch(predictions=[0, 1], references=[0, 1])
    >>> accuracy.compute()
    {'accuracy': 1.0}

    Args:
        keep_in_memory: hold predictions in memory (the default here: class indices are small), else in a cache file.
        **kwargs: the other arguments of `evaluate.Metric`. With `num_process` above 1, `keep_in_memory=False`.

    Source: the signature of https://huggingface.co/spaces/evaluate-metric/accuracy.
    """

    def __init__(self, keep_in_memory: bool = True, **kwargs: Any) -> None:
        super().__init__(keep_in_memory=keep_in_memory, **kwargs)

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            module_name="accuracy",
            description="The share of predictions that equal their reference.",
            citation="",
            inputs_description=(
                "predictions: class indices. references: class indices. "
                "normalize: False for the number of hits instead of their share. "
                "sample_weight: one weight per reference."
            ),
            features=datasets.Features({"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}),
        )

    def _compute(
        self,
        *,
        predictions: Any,
        references: Any,
        normalize: bool = True,
        sample_weight: Any = None,
    ) -> dict[str, float]:
        hits = np.asarray(predictions) == np.asarray(references)
        if normalize:
            return {"accuracy": float(np.average(hits, weights=sample_weight))}
        return {"accuracy": float(hits.sum() if sample_weight is None else np.dot(hits, sample_weight))}

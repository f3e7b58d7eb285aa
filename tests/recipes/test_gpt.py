"""The ablation on bytes: its data, its arms, and that only the gammas of an arm decay."""

from dataclasses import replace

import pytest
import torch

pytest.importorskip("sklearn")

from ablation.arms import Run
from ablation.config import read_config
from ablation.gpt import load, prepare
from ablation.runs import do_run

from hf_gammareg import GammaRegError

SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "head_dim": 8}


def tiny():
    config = read_config("gpt_bytes")[0]
    small = {"train_examples": 64, "test_examples": 20, "probe_examples": 8, "context": 16, "measurements": 1}
    return replace(config, **small, model_options=config.model_options | SIZES, epochs=2, learning_rate=1e-2)


def test_windows_follow_each_other_and_none_is_in_both_splits():
    whole = load(64, None, None)
    assert torch.equal(whole.train[0, -1], whole.train[1, 0])  # what is predicted last is read first
    assert len(whole.train) > 80_000
    some = load(64, 100, 10)
    assert (len(some.train), len(some.test), some.sha256) == (100, 10, whole.sha256)
    assert b"".join(bytes(row.tolist()[:-1]) for row in whole.train[:5]) != b"".join(
        bytes(row.tolist()[:-1]) for row in whole.test[:5]
    )
    with pytest.raises(GammaRegError, match="Expected 1000000000 windows of 64 bytes to train on"):
        load(64, 10**9, None)


def test_a_run_repeats_and_only_its_gammas_decay():
    config = tiny()
    run = Run(arm="gate", last_init=None, gamma_weight_decay=20.0, seed=1)
    _, analysis = prepare(config, run, load(16, 64, 20))
    assert analysis.gammas.counts == {"final": 1, "last": 4, "gate": 4}
    first, second = (do_run(config, run) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert (first["steps"], len(first["data"])) == (16, 64)
    history = first["history"]
    assert history["gamma/gate/mean"][-1] < 0.4
    assert history["gamma/last/mean"][-1] > 0.9


def test_another_kind_of_model_is_one_clear_error():
    with pytest.raises(GammaRegError, match="Expected to make a causal language model of type 'nothing'"):
        prepare(
            replace(tiny(), model="nothing"),
            Run(arm="none", last_init=None, gamma_weight_decay=0.0, seed=0),
            load(16, 64, 20),
        )

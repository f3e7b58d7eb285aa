"""The monitor in two real processes: whole gammas on all ranks, one file, whatever engine shards the model."""

import importlib.util

import monitor_worker
import numpy as np
import pytest
import torch
import two_processes
from transformers import ViTConfig, ViTForImageClassification
from two_processes import CONFIGS, GPUS

pytestmark = pytest.mark.slow


def statistics(gammas):
    sizes = np.abs(np.concatenate([np.asarray(values) for values in gammas]))
    return {"mean": sizes.mean(), "min": sizes.min(), "max": sizes.max(), "near_zero": (sizes < 0.01).mean()}


def by_role(gammas, roles):
    """What should be said of gammas, from `{name: values}` and `{name: role}`."""
    return {
        f"gamma/{role}/{what}": value
        for role in set(roles.values())
        for what, value in statistics([gammas[name] for name in gammas if roles[name] == role]).items()
    }


@pytest.fixture
def launch(tmp_path):
    def launch(config, raw=(), shim=False, env=None, **options):
        torch.manual_seed(0)
        sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
        model = ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))
        model.save_pretrained(tmp_path / "model")
        settings = {"model": str(tmp_path / "model"), "raw": list(raw), "shim": shim, "options": options}
        ranks, _ = two_processes.launch("monitor_worker", CONFIGS / config, settings, tmp_path, env)
        return ranks

    return launch


def check_training(ranks, wrapper):
    """The Trainer's log says of each role what the gammas are, on both ranks; rank 0 alone has the files."""
    for rank in ranks:
        found = rank["train"]
        roles = {name: "last" if "layers" in name else "final" for name in found["gammas"]}
        assert found["wrapper"] == wrapper
        assert found["steps"] == [10, 20]
        assert found["logged"] == pytest.approx(by_role(found["gammas"], roles), rel=1e-6)
        assert found["logged"]["gamma/last/mean"] != pytest.approx(1.0, abs=1e-2)  # they have moved
        assert all(len(values) == 16 for values in found["gammas"].values())
    assert ranks[0]["train"]["logged"] == ranks[1]["train"]["logged"]
    assert ranks[0]["train"]["files"] == ["gamma_history.jsonl", "gamma_history.png", "gamma_report.json"]
    assert ranks[1]["train"]["files"] == []


def check_raw(ranks, version, probed):
    model = monitor_worker.uneven()
    roles = {"norm.weight": "absorbed", "inner.1.weight": "absorbed", "after.weight": "final"}
    values = {name: model.get_parameter(name).detach().double().numpy() for name in roles}
    squares = [np.square(values[name]).mean() for name in ("norm.weight", "inner.1.weight")]
    expected = by_role(values, roles)
    expected["gamma/absorbed/effective_lr"] = 0.1 / np.sqrt(squares[0] * squares[1])
    expected["gamma/absorbed/effective_lr_adaptive"] = 0.1 / np.sqrt(np.sqrt(squares[0] * squares[1]))
    for rank in ranks:
        found = rank[version]
        assert found["roles"] == roles
        assert found["found"] == pytest.approx(expected, rel=1e-6)
        assert ("Leave the probe out" in found["said"]) != probed
    assert ranks[0][version]["rows"] == [{"step": 1, **ranks[0][version]["found"]}]
    assert ranks[1][version]["rows"] is None


def test_ddp(launch):
    ranks = launch("ddp_cpu.yaml", ["ddp"], env={"ACCELERATE_USE_CPU": "true"})
    check_training(ranks, "DistributedDataParallel")
    check_raw(ranks, "ddp", probed=True)


@pytest.mark.parametrize("version", [1, 2])
def test_fsdp(version, launch):
    raw = {1: ["1", "1 flat"], 2: ["2"]}[version]
    ranks = launch(f"fsdp{version}.yaml", raw, shim=True, env=GPUS, use_cpu=False)
    check_training(ranks, {1: "FullyShardedDataParallel", 2: "FSDPViTForImageClassification"}[version])
    for kind in raw:
        check_raw(ranks, kind, probed=False)


@pytest.mark.skipif(importlib.util.find_spec("deepspeed") is None, reason="deepspeed is not installed")
def test_deepspeed_zero_3(launch):
    env = GPUS | {"DS_ACCELERATOR": "cpu"}
    check_training(launch("deepspeed_zero3.yaml", env=env, use_cpu=False, ddp_backend="gloo"), "DeepSpeedEngine")

"""One process of a run that `accelerate launch` started: trains a tiny ViT with a monitor, and writes results."""

import json
import os
from pathlib import Path

import engine_worker
import torch
import two_processes
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard

from hf_gammareg import GammaMonitor, GammaMonitorCallback, GammaRegError, find_gammas
from hf_gammareg.watch.history import read_history


def train(folder, model_folder, **options):
    """What the Trainer logged last, the gammas as another gathering has them, and the files."""
    trainer = engine_worker.make_trainer("plain", folder, model_folder, logging_steps=10, **options)
    trainer.add_callback(GammaMonitorCallback())
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "gamma/last/mean" in entry]
    wrapper = engine_worker.wrappers(trainer.model_wrapped)[0]
    return {
        "wrapper": wrapper,
        "steps": [entry["step"] for entry in entries],
        "logged": {key: value for key, value in entries[-1].items() if key.startswith("gamma/")},
        "gammas": engine_worker.values(trainer.model, trainer.gammas.names),
        "files": sorted(path.name for path in Path(folder).glob("gamma_*")),
    }


class Uneven(nn.Module):
    """Norms whose gains two processes can't share evenly: one has three of five, or the only one."""

    def __init__(self):
        super().__init__()
        self.before, self.norm = nn.Linear(5, 5), nn.LayerNorm(5)
        self.inner = nn.Sequential(nn.Linear(5, 1), nn.BatchNorm1d(1), nn.ReLU(), nn.Linear(1, 5))
        self.after = nn.LayerNorm(5)

    def forward(self, x):
        return self.after(self.inner(self.norm(self.before(x))))


def uneven():
    torch.manual_seed(0)
    model = Uneven()
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


def raw(folder, version):
    """A monitor on a model that is sharded by hand, or not at all."""
    model = uneven()
    gammas = find_gammas(model, torch.randn(2, 5))
    if version == "2":
        fully_shard(model.inner)
        fully_shard(model)
    elif version in ("1", "1 flat"):
        options = {"device_id": torch.device("cpu"), "use_orig_params": version == "1"}
        model.inner = FullyShardedDataParallel(model.inner, **options)
        model = FullyShardedDataParallel(model, **options)
    elif version == "ddp":
        model = nn.parallel.DistributedDataParallel(model)
    path = Path(folder) / "gamma_history.jsonl"
    found = GammaMonitor(model, gammas, history=path).measure(1, lr=0.1)
    try:
        GammaMonitor(model, gammas, probe=torch.randn(2, 5)).measure(1)
        said = ""
    except GammaRegError as error:
        said = str(error)
    local = {name: list(parameter.shape) for name, parameter in model.named_parameters() if "norm" in name}
    return {
        "roles": {gamma.name: str(gamma.role) for gamma in gammas},
        "found": found,
        "said": said,
        "local": local,
        "rows": read_history(path) if path.exists() else None,
    }


def main(settings):
    if settings["shim"]:
        engine_worker.take_cpu_for_gpu()
    folder = Path(settings["folder"])
    own = folder / f"rank{os.environ['RANK']}"
    results = {"train": train(own, settings["model"], **settings["options"])}
    results |= {version: raw(own / version, version) for version in settings["raw"]}
    (folder / f"{own.name}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    two_processes.work(main)

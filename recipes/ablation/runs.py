"""All runs of a configuration: side by side in processes of their own, a line of JSON each, resumed after a stop."""

import contextlib
import json
import math
import platform
import time
import warnings
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from common.workers import worker_pool
from pebble import ProcessExpired

from ablation.arms import Run, members, named, representatives
from ablation.config import CONFIG_NAME, Ablation, read_config
from ablation.measures import acts_on
from hf_gammareg import GammaMap, GammaRegError
from hf_gammareg.files import write_whole

RUNS_NAME = "runs.jsonl"
NETWORK_NAME = "network.json"
PACKAGES = ("torch", "timm", "transformers", "hf-gammareg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """What the runs of a configuration share: the gammas, the residual sums, and which arms are the same."""

    gammas: GammaMap
    same_as: dict[str, str]
    """For each arm the first one in which the same gammas decay; only those are run."""
    sums: list[str]
    """The module of each residual sum, in the order of computation."""
    acts_on: dict[str, list[int]]
    """By role the sums at which its gammas decide the ratio of branch to skip."""

    @property
    def arms(self) -> list[str]:
        """The arms that are run."""
        return list(dict.fromkeys(self.same_as.values()))

    def decaying(self, arm: str) -> frozenset[str]:
        """Names of the gammas that decay in an arm."""
        return members(self.gammas, arm)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON."""
        return {
            "same_as": self.same_as,
            "sums": self.sums,
            "acts_on": self.acts_on,
            "gammas": self.gammas.to_dict(),
        }


def read_network(folder: Path, config: Ablation) -> Network:
    """Read what `start` left in a folder of results.

    Args:
        folder: of results.
        config: the settings that are kept there.

    Raises:
        GammaRegError: if it is not there or does not fit.
    """
    try:
        found = json.loads((folder / NETWORK_NAME).read_text(encoding="utf-8"))
        found = Network(**found | {"gammas": GammaMap.from_dict(found["gammas"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise GammaRegError(
            f"Expected the results of an ablation in {str(folder)!r}, found {type(error).__name__}: {error}. Name the "
            "folder that `gamma_ablation.py run` wrote to."
        ) from error
    if found.same_as.keys() != set(named(config)):
        raise GammaRegError(
            f"Expected results of the arms {', '.join(named(config))} in {str(folder)!r}, found "
            f"{', '.join(found.same_as)}. Run the ablation again, into another folder."
        )
    return found


def start(folder: Path, text: str, config: Ablation, data_dir: str | None) -> Network:
    """Keep the settings in the folder of results, and look at the network; a folder that was begun must fit.

    Args:
        folder: where the results go.
        text: of the file of settings.
        config: what it says.
        data_dir: a folder with the data set, in place of the Hub.

    Raises:
        GammaRegError: if the folder holds results of other settings.
    """
    kept = folder / CONFIG_NAME
    if kept.is_file():
        if read_config(kept)[0] != config:
            raise GammaRegError(
                f"Expected a folder that is new or was begun with these settings, found other ones in {str(kept)!r}. "
                "Give another --output-dir."
            )
        if (folder / NETWORK_NAME).is_file():
            return read_network(folder, config)
    network = _look(config, named(config), data_dir)
    write_whole(kept, text)
    write_whole(folder / NETWORK_NAME, json.dumps(network.to_dict(), indent=1) + "\n")
    return network


def _look(config: Ablation, arms: list[str], data_dir: str | None) -> Network:
    first = Run(
        arm="none",
        last_init=next(iter(config.last_inits), None),
        gamma_weight_decay=0.0,
        seed=config.seeds[0],
    )
    if config.task == "images":
        from ablation import images

        model, analysis = images.prepare(config, first, images.images_of(config, data_dir))
    elif config.task == "bytes":
        from ablation import gpt

        model, analysis = gpt.prepare(config, first, gpt.text_of(config))
    else:
        from ablation import sentences

        model, analysis = sentences.network(config, first, data_dir)
    gammas = analysis.gammas
    sums, where = acts_on(model, analysis)
    return Network(gammas=gammas, same_as=representatives(gammas, arms), sums=sums, acts_on=where)


def read_runs(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a file, by the name of the run; a last line that a killed process did not finish is passed over.

    Raises:
        GammaRegError: if a line holds anything else.
    """
    if not path.is_file():
        return {}
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    try:
        rows = [json.loads(line) for line in lines]
        return {row["run"]: row for row in rows}
    except (ValueError, TypeError, KeyError) as error:
        raise GammaRegError(
            f"Expected a line of JSON for each run in {str(path)!r}, found {type(error).__name__}: {error}. Remove "
            "that line; its run is then done again."
        ) from error


def do_runs(
    path: Path,
    config: Ablation,
    todo: Iterable[Run],
    *,
    jobs: int,
    data_dir: str | None,
    device: str,
) -> Iterator[dict[str, Any]]:
    """Do runs side by side and append a line for each as it ends.

    Args:
        path: the file of JSON lines. What a killed process left of a line goes.
        config: what the runs have in common.
        todo: the runs.
        jobs: runs at a time.
        data_dir: a folder with the data set, in place of the Hub.
        device: where to train.

    Yields:
        The records.

    Raises:
        GammaRegError: if the input is bad; in the end, if a process died. The other runs are done all the same.
    """
    if path.is_file():
        whole = path.read_text(encoding="utf-8").rpartition("\n")
        if whole[2]:
            write_whole(path, whole[0] + whole[1])
    died = []
    with worker_pool(jobs, be_quiet) as pool, path.open("a", encoding="utf-8") as file:
        waiting = {pool.schedule(do_run, args=(config, run, data_dir, device)): run.name for run in todo}
        for future in as_completed(waiting):
            try:
                record = future.result()
            except (ProcessExpired, BrokenProcessPool):
                died.append(waiting[future])
                continue
            file.write(json.dumps(record) + "\n")
            file.flush()
            yield record
    if died:
        raise GammaRegError(
            f"Expected every run to end, found that the process of {', '.join(died[:5])} died (of too little memory?). "
            f"{len(died)} of the runs are to be done again, the others are kept: start the same command again, with "
            "fewer --jobs."
        )


def do_run(config: Ablation, run: Run, data_dir: str | None = None, device: str = "cpu") -> dict[str, Any]:
    """Do one run on one thread: sums of floating point numbers then have one order, and the run repeats to the bit.

    Returns:
        Its record: name, settings, results, versions.
    """
    train: Callable[..., dict[str, Any]]
    if config.task == "images":
        from ablation.images import train
    elif config.task == "bytes":
        from ablation.gpt import train
    else:
        from ablation.sentences import train
    threads = torch.get_num_threads()
    started = time.perf_counter()
    try:
        torch.set_num_threads(1)
        result = train(config, run, data_dir, device)
    finally:
        torch.set_num_threads(threads)
    found = {
        "run": run.name,
        **run.to_dict(),
        **result,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(device),
    }
    # JSON has no NaN: what is not finite is null.
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in found.items()
    }


def machine(device: str) -> dict[str, str]:
    """What a run's last digits depend on besides its settings."""
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    return {"device": where, "python": platform.python_version(), **{name: version(name) for name in PACKAGES}}


def _processor() -> str:
    """Its name, and which of its vector instructions torch uses."""
    name = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):  # only Linux has this file
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.backends.cpu.get_cpu_capability()}"


def be_quiet() -> None:
    """Leave out what libraries print of each run: one bar shows how far all of them are."""
    import datasets
    import transformers

    warnings.simplefilter("ignore")
    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()

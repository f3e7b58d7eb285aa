"""Two processes of a worker script, started by `accelerate launch`."""

import json
import os
import subprocess
import sys
from pathlib import Path

from torch import distributed

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "recipes" / "accelerate"

GPUS = {"ACCELERATE_TORCH_DEVICE": "cpu"}
"""With `shim` in the settings: accelerate takes the processes for GPUs, on the device `cpu`."""


def launch(worker, config, settings, folder, env=None):
    """Run `tests/WORKER.py` by a configuration; what each rank wrote into the folder, rank 0 first, and the run."""
    (folder / "settings.json").write_text(json.dumps({"folder": str(folder)} | settings))
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(config)]
    run = subprocess.run(
        [*command, str(ROOT / "tests" / f"{worker}.py"), str(folder / "settings.json")],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"} | (env or {}),
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-6000:]
    ranks = [json.loads((folder / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    return ranks, run


def work(main):
    """What a worker script does: its `main`, on the settings that `launch` wrote.

    A process that ends with gloo's threads alive may abort.
    """
    main(json.loads(Path(sys.argv[1]).read_text()))
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()

"""Kills training runs at random moments and resumes them: are the final weights those of a run that nobody killed?

    python recipes/benchmarks/kill_and_resume.py --runs 200

A tiny ViT with dropout, trained by `GammaRegTrainer`, and a tiny timm ResNet in a raw Accelerate loop, by turns. Each
run saves at random intervals and gets a SIGKILL at a random moment, be it in a forward pass or while a checkpoint is
written; it is resumed from the last whole checkpoint, killed again with some luck, and in the end its weights and
optimizer state are compared with those of an undisturbed run, bit for bit. Runs are forks of this process, so this
needs an operating system with `fork`. Ends with status 1 if anything differs.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import timm
import torch
import typer
from accelerate import Accelerator
from accelerate.utils import set_seed
from rich.console import Console
from rich.progress import track
from torch.nn.functional import cross_entropy
from transformers import TrainerCallback, ViTConfig, ViTForImageClassification
from transformers.utils import logging

sys.path.insert(0, str(Path(__file__).parents[1]))

from common.resume import Progress, loop_checkpoint, save_checkpoint

from hf_gammareg import GammaRegArguments, GammaRegTrainer, PolicyState, decide, find_gammas
from hf_gammareg.timm import create_optimizer_v2

STEPS = 10
LOOPS = ("Trainer", "Accelerate")


class KillAt(TrainerCallback):
    """Ends the process at a step, without a chance to clean up."""

    def __init__(self, step: int | None) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        kill_at(self.step, state.global_step)


def kill_at(wanted: int | None, step: int) -> None:
    if wanted == step:
        os.kill(os.getpid(), signal.SIGKILL)


def images() -> list[dict[str, torch.Tensor | int]]:
    generator = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": i % 3} for i in range(4 * STEPS)]


def with_trainer(folder: Path, save_steps: int, killed: int | None, resume: bool) -> str:
    """Train with GammaRegTrainer to the end; a digest of weights and optimizer state."""
    set_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3, hidden_dropout_prob=0.1)
    usual = {"weight_decay": 0.1, "learning_rate": 1e-2, "report_to": [], "disable_tqdm": True, "use_cpu": True}
    args = GammaRegArguments(
        str(folder), max_steps=STEPS, per_device_train_batch_size=4, save_steps=save_steps, save_total_limit=2, **usual
    )
    model = ViTForImageClassification(config)
    trainer = GammaRegTrainer(model=model, args=args, train_dataset=images(), callbacks=[KillAt(killed)])
    trainer.train(resume_from_checkpoint=resume and any(folder.glob("checkpoint-*/trainer_state.json")))
    return digest(trainer.model, getattr(trainer.optimizer, "optimizer", trainer.optimizer))


def with_accelerate(folder: Path, save_steps: int, killed: int | None, resume: bool) -> str:
    """Train in a raw Accelerate loop to the end; a digest of weights and optimizer state."""
    set_seed(0)
    accelerator = Accelerator(cpu=True)
    model = timm.create_model("test_resnet", num_classes=3, drop_rate=0.1)
    gammas = find_gammas(model, torch.zeros(2, 3, 32, 32))
    optimizer = create_optimizer_v2(model, "sgd", lr=0.1, weight_decay=0.05, gammas=gammas)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    progress, policy = Progress(), PolicyState(gammas, decide(gammas, model, "guidelines"))
    accelerator.register_for_checkpointing(progress, policy)
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    if resume and any(folder.glob("step_*")):
        accelerator.load_state(str(loop_checkpoint("latest", folder, {})))
    generator = torch.Generator()
    while progress.batches < STEPS:
        kill_at(killed, progress.batches)
        generator.manual_seed(progress.batches)
        loss = cross_entropy(model(torch.randn(4, 3, 32, 32, generator=generator)), torch.tensor([0, 1, 2, 0]))
        accelerator.backward(loss)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        progress.batches += 1
        if progress.batches % save_steps == 0:
            save_checkpoint(accelerator, progress, folder / f"step_{progress.batches}")
    return digest(accelerator.unwrap_model(model), optimizer.optimizer)


def digest(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> str:
    """A hash of every weight and buffer, and of the optimizer's state by parameter name."""
    found = hashlib.sha256()
    for name, value in model.state_dict().items():
        found.update(name.encode() + value.numpy().tobytes())
    for name, parameter in model.named_parameters():
        for field, value in sorted(optimizer.state[parameter].items()):
            found.update(f"{name} {field}".encode() + torch.as_tensor(value).numpy().tobytes())
    return found.hexdigest()


def forked(work: Callable[[], str], out: Path, patience: float | None = None) -> str | None:
    """Do some work in a child process; what it returned, or None if it was killed, by itself or after its time."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            sys.stdout = sys.stderr = (out.parent / "log.txt").open("a", buffering=1)
            out.write_text(work())
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    if patience is not None:
        time.sleep(patience)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return None
    if status:
        raise RuntimeError(f"A run failed by itself:\n{(out.parent / 'log.txt').read_text()[-2000:]}")
    return out.read_text()


def main(
    runs: Annotated[int, typer.Option(min=1, help="Runs to kill and resume.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the moments.")] = 0,
) -> None:
    """Kill and resume, and count the differences."""
    torch.set_num_threads(1)  # threads do not survive a fork
    logging.set_verbosity_error()
    chance, counts, different = random.Random(seed), Counter[str](), []
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory() as name:
        base = Path(name)
        expected, length = {}, {}
        for loop, train in zip(LOOPS, (with_trainer, with_accelerate), strict=True):
            started = time.perf_counter()
            expected[loop] = forked(partial(train, base / loop, 2, None, False), base / "digest")
            length[loop] = time.perf_counter() - started
        for run in track(range(runs), description="killed and resumed", console=console):
            loop = LOOPS[run % 2]
            train = with_trainer if loop == "Trainer" else with_accelerate
            folder, save_steps, found, kills = base / f"run_{run}", chance.randint(1, 4), None, 0
            while found is None:
                folder.mkdir(exist_ok=True)
                at_step = chance.randint(1, STEPS - 1) if kills == 0 and chance.random() < 0.5 else None
                moment = chance.uniform(0.1, 1.0) * length[loop] if at_step is None and kills < 2 else None
                work = partial(train, folder, save_steps, at_step, kills > 0)
                found = forked(work, folder / "digest", moment)
                kills += found is None
                if found is not None and kills == 0:  # faster than the moment: once more from the start
                    shutil.rmtree(folder)
                    found = None
            counts[f"{loop}: killed {kills} times"] += 1
            if found != expected[loop]:
                different.append(run)
            shutil.rmtree(folder)
    for what, count in sorted(counts.items()):
        print(f"{count:5}  {what}")
    print(f"{len(different)} differences in {runs} runs")
    if different:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)

"""Train a timm model for image classification in a plain Accelerate loop, with weight decay on gammas by their role.

    python recipes/timm_cifar.py --dataset_name digits
    accelerate launch recipes/timm_cifar.py --model resnet50 --dataset_name uoft-cs/cifar10 --mixed_precision bf16
    accelerate launch recipes/timm_cifar.py --data_dir my_images --checkpointing_steps epoch --with_tracking

With no argument at all it trains a ResNet-18 on CIFAR-10, or on scikit-learn's handwritten digits if the Hub can't be
used.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import common.passive_threads  # noqa: F401  # isort: skip

import timm
import torch
from accelerate import Accelerator, skip_first_batches
from accelerate.utils import DataLoaderConfiguration, set_seed, tqdm
from common.accuracy import Accuracy
from common.hub import hub_problem
from common.images import DataArguments, ImageData, load_image_data
from common.launch import announce, by_main_process, main_process_first, run
from common.pixels import PixelDataset, choose_augmentation
from common.resume import Progress, loop_checkpoint, save_checkpoint, write_settings
from timm.models import save_for_hf
from timm.scheduler import create_scheduler_v2
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transformers import HfArgumentParser

from hf_gammareg import (
    GammaMap,
    GammaMonitor,
    GammaRegError,
    PolicyState,
    check_ranks,
    decay_budget,
    decide,
    find_gammas,
    fit_scheduler,
    make_card,
    metric_results,
    write_report,
)
from hf_gammareg.timm import create_optimizer_v2

HISTORY, PICTURE = "gamma_history.jsonl", "gamma_history.png"
"""What `GammaMonitor` leaves, under the names that `GammaRegTrainer` gives them."""

CARD = """\
{model} of timm, trained for image classification on `{dataset}` ({train_samples} images), with weight decay on its
normalization gains by their role. `gamma_report.json` lists each of them with the reason.
{note}
Test accuracy: **{eval_accuracy:.2%}** on {eval_samples} images.

```python
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)
```
"""


def parse_arguments() -> tuple[DataArguments, argparse.Namespace]:
    parser = HfArgumentParser((DataArguments,), description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--model", default="resnet18", help="timm's name of the model.")
    add("--pretrained", action="store_true", help="Start from timm's weights.")
    add("--img_size", "--img-size", type=int, help="Side of the input. Default: that of the images, 32 to 224.")
    add("--policy", default="guidelines", help="Which gammas decay: a policy (README) or roles.")
    add("--opt", default="adamw", help="timm's name of the optimizer.")
    add("--lr", type=float, default=1e-3, help="Peak learning rate.")
    add("--weight_decay", "--weight-decay", type=float, default=0.05)
    add("--momentum", type=float, default=0.9)
    add("--sched", default="cosine", help="timm's name of the schedule, or onecycle: torch's OneCycleLR.")
    add("--warmup_epochs", "--warmup-epochs", type=int, default=1)
    add("--num_epochs", "--epochs", type=int, default=10)
    add("--batch_size", "--batch-size", type=int, default=64, help="Images per process and step.")
    add("--gradient_accumulation_steps", type=int, default=1)
    add("--num_workers", "--workers", type=int, default=0, help="Processes that load images.")
    add("--seed", type=int, default=42)
    add("--mixed_precision", choices=["no", "fp16", "bf16", "fp8"], help="Default: what accelerate is set to.")
    add("--cpu", action="store_true", help="Train on the CPU.")
    add("--output_dir", default="runs/timm_cifar", help="Where checkpoints, the model and its results go.")
    add("--checkpointing_steps", help="Save the state every n batches, or 'epoch' for each epoch.")
    add("--resume_from_checkpoint", help="A folder that --checkpointing_steps left, or 'latest'.")
    add("--with_tracking", action="store_true", help="Log to all experiment trackers that are installed.")
    add("--monitor_gammas", "--monitor-gammas", action="store_true", help="Measure the gammas after each epoch.")
    add("--project_dir", help="Where trackers write. Default: logs in the output folder.")
    data_args, args = parser.parse_args_into_dataclasses()
    if args.checkpointing_steps not in (None, "epoch"):
        if not args.checkpointing_steps.isdigit() or int(args.checkpointing_steps) < 1:
            found = args.checkpointing_steps
            raise GammaRegError(f"Expected a number of batches or 'epoch' for --checkpointing_steps, found {found!r}.")
        args.checkpointing_steps = int(args.checkpointing_steps)
    return data_args, args


def create_model(args: argparse.Namespace, data: ImageData, size: int) -> torch.nn.Module:
    """The timm model with one output per class, for images of this size where the model asks for one."""
    options = {"pretrained": args.pretrained, "num_classes": len(data.classes), "in_chans": 3}
    if not timm.is_model(args.model.split("/")[-1].split(".")[0]) and ":" not in args.model:
        similar = ", ".join(timm.list_models(f"*{args.model.split('.')[0][:6]}*")[:5]) or "see timm.list_models()"
        raise GammaRegError(f"Expected the name of a timm model, found {args.model!r}. Similar names: {similar}.")
    try:
        try:
            return timm.create_model(args.model, img_size=size, **options)
        except TypeError:  # a convolutional network takes images of any size
            return timm.create_model(args.model, **options)
    except (OSError, RuntimeError, ValueError) as error:
        problem = hub_problem() if args.pretrained else None
        raise GammaRegError(
            f"Expected to make the timm model {args.model!r} for {size}x{size} images, found "
            f"{problem or ' '.join(str(error).split())}. Check its name, --img_size and the connection."
        ) from error


def pixel_transform(model: torch.nn.Module, size: int) -> Callable[[list[Any]], torch.Tensor]:
    """Images to the tensor that the model was made for, by the mean and deviation in its `pretrained_cfg`."""
    config = timm.data.resolve_model_data_config(model)
    steps = [v2.PILToTensor(), v2.Resize((size, size), antialias=True), v2.ToDtype(torch.float32, scale=True)]
    to_tensor = v2.Compose([*steps, v2.Normalize(config["mean"], config["std"])])
    return lambda images: torch.stack([to_tensor(image) for image in images])


def create_scheduler(args: argparse.Namespace, optimizer: torch.optim.Optimizer, updates_per_epoch: int) -> Any:
    if args.sched == "onecycle":
        return OneCycleLR(optimizer, max_lr=args.lr, epochs=args.num_epochs, steps_per_epoch=updates_per_epoch)
    scheduler, _ = create_scheduler_v2(
        optimizer,
        args.sched,
        num_epochs=args.num_epochs,
        warmup_epochs=min(args.warmup_epochs, args.num_epochs - 1),
        warmup_lr=args.lr / 25,
        step_on_epochs=False,
        updates_per_epoch=updates_per_epoch,
    )
    return scheduler


def tell_budget(accelerator: Accelerator, optimizer: Any, scheduler: Any, updates: int, decays: dict[str, bool]) -> Any:
    """Print what decay alone is going to do to the gammas that decay; return it for the report."""
    try:
        budget = decay_budget(optimizer, scheduler, updates, names=[name for name in decays if decays[name]])
    except GammaRegError as error:  # a schedule that nobody knows beforehand
        accelerator.print(error)
        return None
    accelerator.print(f"By the optimizer's rule {budget}")
    return budget.to_dict()


@torch.no_grad()
def evaluate(accelerator: Accelerator, model: torch.nn.Module, loader: DataLoader) -> dict[str, float]:
    model.eval()
    metric, losses = Accuracy(), []
    for batch in loader:
        logits = model(batch["pixel_values"]).float()
        each = cross_entropy(logits, batch["labels"], reduction="none")
        predictions, labels, each = accelerator.gather_for_metrics((logits.argmax(-1), batch["labels"], each))
        metric.add_batch(predictions=predictions.cpu(), references=labels.cpu())
        losses.append(each.cpu())
    return {"eval_accuracy": metric.compute()["accuracy"], "eval_loss": torch.cat(losses).mean().item()}


def train_epoch(accelerator: Accelerator, parts: dict[str, Any], progress: Progress, args: argparse.Namespace) -> float:
    """Train to the end of the epoch that `progress` is in, from the batch it is at; return the epoch's mean loss."""
    model, optimizer, scheduler, loader = (parts[name] for name in ("model", "optimizer", "scheduler", "loader"))
    model.train()
    epoch, done = divmod(progress.batches, len(loader))
    parts["images"].set_epoch(epoch)
    loader.set_epoch(epoch)
    updates = -(-len(loader) // args.gradient_accumulation_steps)
    remaining = skip_first_batches(loader, done) if done else loader
    for batch in tqdm(remaining, desc=f"epoch {epoch + 1}/{args.num_epochs}", initial=done, total=len(loader)):
        with accelerator.accumulate(model):
            loss = cross_entropy(model(batch["pixel_values"]).float(), batch["labels"])
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        done += 1
        progress.batches += 1
        progress.loss_sum += loss.item()
        if accelerator.sync_gradients:
            if isinstance(scheduler, OneCycleLR):
                scheduler.step()
            elif scheduler is not None:
                scheduler.step_update(epoch * updates + -(-done // args.gradient_accumulation_steps))
        every = args.checkpointing_steps
        if isinstance(every, int) and progress.batches % every == 0 and done < len(loader):
            save_checkpoint(accelerator, progress, Path(args.output_dir) / f"step_{progress.batches}")
    total = torch.tensor(progress.loss_sum / len(loader), device=accelerator.device)
    progress.loss_sum = 0.0
    return accelerator.reduce(total, reduction="mean").item()


def write_card(
    folder: Path, gammas: GammaMap, decays: dict[str, bool], results: dict[str, Any], settings: dict[str, Any]
) -> None:
    """Leave a model card that the Hub reads, with the test results in its metadata."""
    name, replaced = results["dataset"], results.get("dataset_replaced")
    note = f"\nThe digits stand in for CIFAR-10: {replaced}\n" if replaced else ""
    measured = {key: results[key] for key in ("eval_accuracy", "eval_loss")}
    data = {"type": name, "name": name, "split": "test"}
    pictures = {PICTURE: "Mean size of the gammas by role"} if (folder / PICTURE).is_file() else None
    card = make_card(
        f"{results['model']} on {name}",
        gammas=gammas,
        decays=decays,
        policy=results["policy"],
        weight_decay=settings["weight_decay"],
        description=CARD.format(**results, folder=folder.name, note=note),
        settings=settings,
        results=metric_results(measured, tasks=["image-classification"], datasets=[data]),
        pictures=pictures,
        tags=["image-classification", "timm"],
        library_name="timm",
        datasets=[name],
        metrics=["accuracy"],
    )
    card.save(folder / "README.md")


def main() -> None:
    data_args, args = parse_arguments()
    output_dir = Path(args.output_dir)
    accelerator = Accelerator(
        cpu=args.cpu,
        mixed_precision=args.mixed_precision,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        log_with="all" if args.with_tracking else None,
        project_dir=args.project_dir or str(output_dir / "logs"),
        # The order of an epoch depends on the seed and the epoch alone, so a resumed run finds it again.
        dataloader_config=DataLoaderConfiguration(use_seedable_sampler=True, data_seed=args.seed),
    )
    set_seed(args.seed)
    data = main_process_first(lambda: load_image_data(data_args, args.seed))
    if data.replaced:
        announce(f"TRAINING ON THE HANDWRITTEN DIGITS, NOT ON CIFAR-10. {data.replaced}")
    size = args.img_size or min(max(32, *data.image_size), 224)
    model = main_process_first(lambda: create_model(args, data, size))
    to_pixels = pixel_transform(model, size)

    gammas = find_gammas(model, torch.zeros(2, 3, size, size))
    decays = decide(gammas, model, args.policy)
    options = {"lr": args.lr, "weight_decay": args.weight_decay, "momentum": args.momentum}
    optimizer = create_optimizer_v2(model, args.opt, **options, policy=args.policy, gammas=gammas)
    check_ranks(optimizer.param_groups)
    accelerator.print(f"{sum(decays.values())} of {len(decays)} gammas decay under {args.policy!r}: {gammas.counts}")

    augment = choose_augmentation(data_args.augmentation, data, size)
    images = PixelDataset(data.train, to_pixels, augment, seed=args.seed)
    # A generator of its own: an iterator that is made anew on resuming then takes no number from the model's.
    options = {"num_workers": args.num_workers, "batch_size": args.batch_size, "generator": torch.Generator()}
    loader = DataLoader(images, shuffle=True, drop_last=len(images) > args.batch_size, **options)
    eval_loader = DataLoader(PixelDataset(data.test, to_pixels), **options)
    model, optimizer, loader, eval_loader = accelerator.prepare(model, optimizer, loader, eval_loader)
    # Not prepared: accelerate would step it once per process, and the numbers below count updates.
    updates = -(-len(loader) // args.gradient_accumulation_steps)
    scheduler = create_scheduler(args, optimizer.optimizer, updates)
    budget = tell_budget(accelerator, optimizer, scheduler, updates * args.num_epochs, decays)
    progress, policy = Progress(), PolicyState(gammas, decays, args.policy)
    accelerator.register_for_checkpointing(progress, policy, *([scheduler] if scheduler is not None else []))
    if args.with_tracking:
        accelerator.init_trackers("timm_cifar", {k: v for k, v in vars(args).items() if v is not None})

    settings = vars(args) | vars(data_args) | {"dataset": data.name}
    fixed = ("dataset", "model", "opt", "num_epochs", "batch_size", "seed", "max_train_samples")
    fixed = {name: settings[name] for name in fixed}
    checkpoint = by_main_process(lambda: loop_checkpoint(args.resume_from_checkpoint, output_dir, fixed))
    if accelerator.is_main_process:
        write_settings(output_dir, fixed)
    if checkpoint is not None:
        accelerator.print(f"Resumed from checkpoint: {checkpoint}")
        accelerator.load_state(str(checkpoint))
        if scheduler is not None:
            fit_scheduler(scheduler, optimizer.optimizer)  # it may be of a run with other groups
    monitor = GammaMonitor(model, gammas, history=output_dir / HISTORY) if args.monitor_gammas else None
    if monitor:
        monitor.resume(progress.batches)
        if progress.batches == 0:
            monitor.measure(0)
            by_main_process(monitor.plot)  # if it can't be drawn, that is said before the training
    if accelerator.is_main_process:
        report = {"policy": args.policy, "weight_decay": args.weight_decay, "decay_budget": budget}
        write_report(output_dir / "gamma_report.json", gammas, decays, **report)

    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler, "loader": loader, "images": images}
    started, metrics = time.perf_counter(), {}
    while progress.batches < args.num_epochs * len(loader):
        loss = train_epoch(accelerator, parts, progress, args)
        epoch = progress.batches // len(loader)
        metrics = {"train_loss": loss, **evaluate(accelerator, model, eval_loader)}
        accelerator.print(f"epoch {epoch}: " + ", ".join(f"{name} {value:.4f}" for name, value in metrics.items()))
        looked = monitor.measure(progress.batches, optimizer) if monitor else {}
        accelerator.log(metrics | looked | {"epoch": epoch}, step=progress.batches)
        if args.checkpointing_steps == "epoch":
            save_checkpoint(accelerator, progress, output_dir / f"epoch_{epoch}")
    metrics = metrics or evaluate(accelerator, model, eval_loader)
    accelerator.end_training()

    if accelerator.is_main_process:
        results = {
            "model": args.model,
            "policy": args.policy,
            "epoch": args.num_epochs,
            "train_runtime": round(time.perf_counter() - started, 2),
            "gammas_decaying": sum(decays.values()),
            "num_processes": accelerator.num_processes,
            **data.results(),
            **metrics,
        }
        shown = ("opt", "lr", "weight_decay", "sched", "num_epochs", "batch_size", "seed", "augmentation")
        config = {"num_classes": len(data.classes), "label_names": data.classes, "input_size": [3, size, size]}
        save_for_hf(accelerator.unwrap_model(model), args.output_dir, model_config=config, safe_serialization=True)
        (output_dir / "all_results.json").write_text(json.dumps(results, indent=4, sort_keys=True) + "\n")
        if monitor:
            monitor.plot()
        write_card(output_dir, gammas, decays, results, {name: settings[name] for name in shown})
    if data.replaced:
        announce(f"TRAINED ON THE HANDWRITTEN DIGITS, NOT ON CIFAR-10. {data.replaced}")
    accelerator.print(f"Test accuracy: {metrics['eval_accuracy']:.2%} on {len(data.test)} images of {data.name}")


if __name__ == "__main__":
    sys.exit(run(main))

"""The plain loop of a run: the same one for images and for bytes."""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import get_cosine_schedule_with_warmup

from ablation.arms import ARMS, Run
from ablation.config import Ablation
from ablation.measures import Looker
from hf_gammareg import Analysis, decay_budget
from hf_gammareg.timm import create_optimizer_v2


def fit(
    config: Ablation,
    run: Run,
    model: nn.Module,
    analysis: Analysis,
    examples: int,
    loss_of: Callable[[Tensor, torch.Generator], Tensor],
) -> dict[str, Any]:
    """Train a network.

    Args:
        config: what all runs have in common.
        run: which one.
        model: the network, before its first step.
        analysis: of the network, made with the examples for the variances.
        examples: how many there are to train on.
        loss_of: the mean loss over the examples of these numbers; what it draws comes from the generator.

    Returns:
        The loss of the last epoch, what decay alone does, and what was measured on the way.
    """
    gammas = analysis.gammas
    optimizer = create_optimizer_v2(
        model,
        config.optimizer,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        policy=ARMS[run.arm],
        gamma_weight_decay=run.gamma_weight_decay,
        gammas=gammas,
    )
    per_epoch = examples // config.batch_size
    steps = per_epoch * config.epochs
    scheduler = get_cosine_schedule_with_warmup(optimizer, round(per_epoch * config.warmup_epochs), steps)
    budget = decay_budget(optimizer, scheduler, steps, names=gammas.names)
    looker = Looker(model, analysis, steps, config.measurements)
    generator = torch.Generator().manual_seed(run.seed)
    looker.look(0)
    losses: list[Tensor] = []
    for step in range(steps):
        if step % per_epoch == 0:
            order, losses = torch.randperm(examples, generator=generator), []
        chosen = order[step % per_epoch * config.batch_size :][: config.batch_size]
        model.train()
        loss = loss_of(chosen, generator)
        loss.backward()
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        losses.append(loss.detach())
        looker.look(step + 1)
    return {
        "train_loss": torch.stack(losses).mean().item(),
        "steps": steps,
        "decay_alone": budget.factor,
        "history": looker.columns(),
    }


@torch.no_grad()
def score(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], logits_of: Callable[[Tensor], Tensor]
) -> dict[str, float]:
    """Accuracy and mean loss.

    Args:
        model: is put into eval mode.
        batches: inputs and the classes of each of their predictions.
        logits_of: the predictions of a batch, of shape (..., classes).
    """
    model.eval()
    hits, losses = 0, []
    for inputs, labels in batches:
        logits = logits_of(inputs).float().cpu()
        hits += int((logits.argmax(-1) == labels).sum())
        losses.append(cross_entropy(logits.flatten(0, -2), labels.flatten(), reduction="none"))
    found = torch.cat(losses).double()
    return {"eval_accuracy": hits / len(found), "eval_loss": found.mean().item()}

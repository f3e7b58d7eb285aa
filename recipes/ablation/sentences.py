"""One run on sentences: a pretrained encoder, fine-tuned by `GammaRegTrainer` as `bert_sst2.py` does."""

import functools
from tempfile import TemporaryDirectory
from typing import Any

import transformers
from bert_sst2 import ModelArguments, create_trainer
from common.sentences import SentenceArguments, SentenceData, load_sentence_data
from torch import nn
from transformers import TrainerCallback

from ablation.arms import ARMS, Run
from ablation.config import Ablation
from ablation.measures import Looker
from hf_gammareg import Analysis, GammaRegArguments, GammaRegTrainer, analyse, decay_budget

MAX_LENGTH = 64
"""Tokens of a sentence at most."""


class _Look(TrainerCallback):
    """Measures after the steps that the looker names."""

    def __init__(self, looker: Looker) -> None:
        self.looker = looker

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.looker.look(state.global_step)


@functools.cache
def load(name: str, data_dir: str | None, train: int | None, test: int | None) -> SentenceData:
    """The sentences that a configuration names, from a local folder where one is given."""
    return load_sentence_data(
        SentenceArguments(dataset_name=name, data_dir=data_dir, max_train_samples=train, max_eval_samples=test)
    )


def _trainer(config: Ablation, run: Run, data_dir: str | None, device: str, folder: str) -> GammaRegTrainer:
    data = load(config.dataset, data_dir, config.train_examples, config.test_examples)
    steps = -(-len(data.train) // config.batch_size) * config.epochs
    warmup = round(steps / config.epochs * config.warmup_epochs)
    args = GammaRegArguments(
        folder,
        optim=config.optimizer,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        per_device_train_batch_size=config.batch_size,
        per_device_eval_batch_size=64,
        num_train_epochs=config.epochs,
        warmup_steps=warmup,
        lr_scheduler_type="cosine",
        seed=run.seed,
        gamma_policy=ARMS[run.arm],
        gamma_weight_decay=run.gamma_weight_decay,
        use_cpu=device == "cpu",
        save_strategy="no",
        logging_strategy="epoch",
        report_to="none",
        disable_tqdm=True,
        log_level="error",
    )
    trainer = create_trainer(args, ModelArguments(config.model), data, MAX_LENGTH)
    trainer.remove_callback(transformers.PrinterCallback)
    return trainer


def _probe(config: Ablation, trainer: GammaRegTrainer) -> dict[str, Any]:
    rows = [trainer.eval_dataset[number] for number in range(config.probe_examples)]
    batch = trainer.data_collator([{k: v for k, v in row.items() if k != "label"} for row in rows])
    return dict(batch)


def network(config: Ablation, run: Run, data_dir: str | None) -> tuple[nn.Module, Analysis]:
    """The network before its first step, and its analysis by the examples for the variances."""
    with TemporaryDirectory() as folder:
        trainer = _trainer(config, run, data_dir, "cpu", folder)
        return trainer.model, analyse(trainer.model, _probe(config, trainer))


def train(config: Ablation, run: Run, data_dir: str | None = None, device: str = "cpu") -> dict[str, Any]:
    """Do one run: see `ablation.images.train`."""
    with TemporaryDirectory() as folder:
        trainer = _trainer(config, run, data_dir, device, folder)
        analysis = analyse(trainer.model, _probe(config, trainer))
        steps = -(-len(trainer.train_dataset) // config.batch_size) * config.epochs
        looker = Looker(trainer.model, analysis, steps, config.measurements)
        looker.look(0)
        trainer.add_callback(_Look(looker))
        trainer.train()
        metrics = trainer.evaluate()
        logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        budget = _decay_alone(trainer, steps)
    return {
        "eval_accuracy": metrics["eval_accuracy"],
        "eval_loss": metrics["eval_loss"],
        "train_loss": logged[-1],
        "steps": steps,
        "decay_alone": budget,
        "history": looker.columns(),
    }


def _decay_alone(trainer: GammaRegTrainer, steps: int) -> float | None:
    """What decay alone did to the gammas that decayed, by a fresh optimizer and schedule of the same run."""
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.create_optimizer_and_scheduler(steps)
    return decay_budget(trainer.optimizer, trainer.lr_scheduler, steps, names=trainer.gammas.names).factor

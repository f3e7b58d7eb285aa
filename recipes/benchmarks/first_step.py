"""CPU seconds from a model to its first training step, under plain Trainer or ours: a fresh process for each figure.

    python recipes/benchmarks/first_step.py bert Trainer
    python recipes/benchmarks/first_step.py bert GammaRegTrainer

What is counted begins where transformers' Trainer and the model are there: the import of this library counts, and so do
child processes. `speed.py` runs it by turns and prints the difference; alone, Python may have to compile the library.
"""

from __future__ import annotations

import resource
import sys
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    BertConfig,
    LlamaConfig,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
)

TOKENS = {"input_ids": list(range(1, 65)), "attention_mask": [1] * 64}
MODELS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (AutoModelForSequenceClassification, BertConfig(), TOKENS | {"labels": 1}),
    "vit_tiny": (
        AutoModelForImageClassification,
        ViTConfig(hidden_size=192, num_attention_heads=3, intermediate_size=768),
        {"pixel_values": torch.zeros(3, 224, 224), "labels": 1},
    ),
    "llama_1b": (
        AutoModelForCausalLM,
        LlamaConfig(
            vocab_size=32000,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=22,
            num_attention_heads=32,
            num_key_value_heads=4,
        ),
        TOKENS | {"labels": TOKENS["input_ids"]},
    ),
}
"""By name a model's class, its configuration (BERT-base, ViT-tiny, Llama 1.1B) and an example."""


TRAINERS = ("Trainer", "GammaRegTrainer")


class Stop(BaseException):
    """Raised where the first step would begin."""


class StopAtFirstStep(TrainerCallback):
    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        raise Stop


def cpu_seconds() -> float:
    """CPU seconds of this process and of its children so far."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def main(name: str, trainer: str) -> float:
    """What a Trainer takes to its first step; the model's parameters have memory but no values, which nothing reads."""
    auto, config, example = MODELS[name]
    with torch.device("meta"):
        model = auto.from_config(config)
    model.to_empty(device="cpu")
    with TemporaryDirectory() as folder:
        args = TrainingArguments(folder, max_steps=1, weight_decay=0.1, use_cpu=True, report_to=[], disable_tqdm=True)
        began = cpu_seconds()
        kind = Trainer if trainer == "Trainer" else import_module("hf_gammareg").GammaRegTrainer
        try:
            kind(model, args, train_dataset=[example] * 16, callbacks=[StopAtFirstStep()]).train()
        except Stop:
            return cpu_seconds() - began
    raise AssertionError("training began without a step")


if __name__ == "__main__":
    print(main(*sys.argv[1:]))

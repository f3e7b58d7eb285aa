"""One run on bytes: a small GPT of transformers with new weights learns the next byte of Python's standard library."""

import functools
import hashlib
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM

from ablation.arms import Run
from ablation.config import Ablation
from ablation.loop import fit, score
from hf_gammareg import Analysis, GammaRegError, analyse

HELD_OUT = 10
"""Every tenth file is tested on."""
LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
"""Folders that not every installation has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """Windows of bytes to train and to test on, each (windows, context + 1)."""

    train: Tensor
    test: Tensor
    sha256: str
    """Of the bytes and their order: other versions of Python have another library."""


@functools.cache
def load(context: int, train: int | None, test: int | None) -> Text:
    """The standard library's source, files in the order of their paths, cut into windows that share no prediction."""
    root = Path(sysconfig.get_path("stdlib"))
    paths = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    paths = [path for path in paths if not LEFT_OUT & set(Path(path).parts)]
    splits = []
    for kept in (lambda number: number % HELD_OUT != 0, lambda number: number % HELD_OUT == 0):
        splits.append(b"".join((root / path).read_bytes() for number, path in enumerate(paths) if kept(number)))
    windows = []
    for name, split, limit in zip(("train", "test"), splits, (train, test), strict=True):
        found = torch.from_numpy(np.frombuffer(split, np.uint8).astype(np.int64)).unfold(0, context + 1, context)
        if limit and limit > len(found):
            raise GammaRegError(
                f"Expected {limit} windows of {context} bytes to {name} on, found {len(found)} in the library at "
                f"{str(root)!r}. Lower {name}_examples or context."
            )
        # Evenly over the whole library, not its first files.
        windows.append(found[torch.arange(limit) * len(found) // limit] if limit else found)
    return Text(train=windows[0], test=windows[1], sha256=hashlib.sha256(b"\0".join(splits)).hexdigest())


def text_of(config: Ablation) -> Text:
    """The windows of a configuration; made once in a process."""
    return load(config.context, config.train_examples, config.test_examples)


def prepare(config: Ablation, run: Run, data: Text, device: str = "cpu") -> tuple[nn.Module, Analysis]:
    """The network of a run before its first step, and its analysis by the examples for the variances."""
    torch.manual_seed(run.seed)
    try:
        made = AutoConfig.for_model(
            config.model,
            vocab_size=256,
            max_position_embeddings=config.context,
            use_cache=False,
            **config.model_options,
        )
        model = AutoModelForCausalLM.from_config(made).to(device)
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise GammaRegError(
            f"Expected to make a causal language model of type {config.model!r}, found {error}. Correct the file of "
            "settings."
        ) from error
    return model, analyse(model, {"input_ids": data.test[: config.probe_examples, :-1].to(device)})


def train(config: Ablation, run: Run, data_dir: str | None = None, device: str = "cpu") -> dict[str, Any]:
    """Do one run: see `ablation.images.train`. The accuracy is that of the next byte, losses are in nats a byte."""
    data = text_of(config)
    model, analysis = prepare(config, run, data, device)

    def logits_of(windows: Tensor) -> Tensor:
        return model(input_ids=windows[:, :-1].to(device)).logits

    def loss_of(chosen: Tensor, generator: torch.Generator) -> Tensor:
        windows = data.train[chosen]
        return cross_entropy(logits_of(windows).flatten(0, 1), windows[:, 1:].flatten().to(device))

    found = fit(config, run, model, analysis, len(data.train), loss_of)
    batches = ((windows, windows[:, 1:]) for windows in data.test.split(250))
    return {**score(model, batches, logits_of), **found, "data": data.sha256}

"""The look at two examples is made in a copy of the process: data set, collator and generators stay as they were."""

import multiprocessing
import os
import time

import numpy
import pytest
import torch
from torch import nn
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast, Trainer, TrainingArguments
from transformers.data import DataCollatorForLanguageModeling

from hf_gammareg import GammaRegArguments, GammaRegError, GammaRegTrainer, GammaRegTrainerMixin
from hf_gammareg.trainer.apart import apart


class Net(nn.Module):
    """Says nothing of its inputs, so only examples tell its roles."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x, labels=None):
        logits = self.head(self.norm(x))
        return nn.functional.cross_entropy(logits, labels), logits


class OwnGenerator(torch.utils.data.Dataset):
    def __init__(self):
        self.generator = numpy.random.default_rng(0)

    def __len__(self):
        return 8

    def __getitem__(self, index):
        return {"x": torch.from_numpy(self.generator.normal(size=4)).float(), "labels": index % 2}


class ReadOnce(OwnGenerator):
    """Its rows come from a file, from front to back."""

    def __init__(self, file):
        self.file = file

    def __getitem__(self, index):
        return {"x": torch.tensor([float(word) for word in self.file.readline().split()]), "labels": index % 2}


def popping(rows):
    return {"x": torch.stack([row.pop("x") for row in rows]), "labels": torch.tensor([row["labels"] for row in rows])}


def run(cls, folder, model, data, collator=None):
    kind, options = (TrainingArguments, {}) if cls is Trainer else (GammaRegArguments, {"gamma_policy": "trainer"})
    usual = {"max_steps": 2, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True, "disable_tqdm": True}
    args = kind(str(folder), save_strategy="no", learning_rate=0.1, remove_unused_columns=False, **usual, **options)
    return cls(model, args, train_dataset=data, data_collator=collator)


def words():
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    vocabulary = {word: index for index, word in enumerate(["[PAD]", "[UNK]", "[MASK]", *"abcdefghijklmnop"])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", mask_token="[MASK]"
    )


def bert():
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return BertForMaskedLM(BertConfig(**sizes, num_hidden_layers=1))


def masked(folder):
    data = [{"input_ids": [3 + (row * step) % 16 for step in range(1, 9)]} for row in range(8)]
    return bert(), data, DataCollatorForLanguageModeling(words(), seed=5)


def of_a_file(folder):
    rows = numpy.random.default_rng(1).normal(size=(2000, 4))
    path = folder / "rows.txt"
    numpy.savetxt(path, rows)
    return Net(), ReadOnce(path.open()), None


KINDS = {
    "a seeded collator": masked,
    "a generator of its own": lambda folder: (Net(), OwnGenerator(), None),
    "a collator that pops": lambda folder: (
        Net(),
        [dict(row) for row in (OwnGenerator()[i] for i in range(8))],
        popping,
    ),
    "read once": of_a_file,
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_looking_changes_nothing_of_the_data(kind, tmp_path):
    weights = []
    for cls in (GammaRegTrainer, Trainer):
        folder = tmp_path / cls.__name__
        folder.mkdir()
        trainer = run(cls, folder, *KINDS[kind](folder))
        trainer.train()
        weights.append(trainer.model.state_dict())
        if cls is GammaRegTrainer:
            assert "unknown" not in trainer.gammas.counts
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


class Counted(OwnGenerator):
    """Counts what is read of it, in copies of the process too."""

    def __init__(self):
        super().__init__()
        self.read = multiprocessing.Value("i", 0)

    def __getitem__(self, index):
        with self.read.get_lock():
            self.read.value += 1
        return super().__getitem__(index)


@pytest.mark.slow
def test_two_examples_are_read_once(tmp_path):
    read = []
    for cls in (GammaRegTrainer, Trainer):
        data = Counted()
        run(cls, tmp_path, Net(), data).train()
        read.append(data.read.value)
    assert read[0] - read[1] == 2


class Sentences(nn.Module):
    """Takes one dictionary, as sentence-transformers' models do."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, features):
        return {**features, "embedding": self.head(self.norm(features["x"]))}


class OfSentences(GammaRegTrainerMixin, Trainer):
    """Its loss, not the Trainer, calls the model, and by its own loader, once for each column."""

    def get_train_dataloader(self):
        def columns(rows):
            return {f"{side}_x": torch.stack([row[side] for row in rows]) for side in ("one", "other")}

        return torch.utils.data.DataLoader(self.train_dataset, batch_size=4, collate_fn=columns)

    def compute_loss(self, model, inputs, *args, **kwargs):
        one, other = (model({"x": inputs[f"{side}_x"]})["embedding"] for side in ("one", "other"))
        return (one - other).square().mean()


def test_the_model_is_looked_at_as_the_loss_feeds_it(tmp_path):
    data = [{"one": torch.ones(4), "other": torch.zeros(4)}] * 8
    trainer = run(OfSentences, tmp_path, Sentences(), data)
    ((features,), options) = trainer.gamma_example_inputs()
    assert (features.keys(), tuple(features["x"].shape), options) == ({"x"}, (2, 4), {})
    assert trainer.gammas.counts == {"final": 1}


def test_what_goes_wrong_in_the_copy_is_one_error():
    for call, found in ((lambda: 1 / 0, "ZeroDivisionError"), (lambda: os._exit(1), "EOFError"), (lambda: print, "")):
        if found:
            with pytest.raises(GammaRegError, match=found):
                apart(call)
        else:
            assert apart(call) is print
    with pytest.raises(GammaRegError, match="nothing after"):
        apart(lambda: time.sleep(60), seconds=0.5)


def test_pipes_are_not_read_in_the_copy():
    reader, writer = os.pipe()
    os.write(writer, b"a row")
    os.close(writer)
    assert apart(lambda: os.read(reader, 5)) == b""
    assert os.read(reader, 5) == b"a row"
    os.close(reader)


def test_elsewhere_there_is_no_look(tmp_path, monkeypatch):
    monkeypatch.setattr("hf_gammareg.trainer.apart.OPEN_FILES", tmp_path / "none")
    assert run(GammaRegTrainer, tmp_path, Net(), OwnGenerator()).gamma_example_inputs() is None

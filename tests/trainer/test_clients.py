"""The trainers of other libraries under our mixin: trained, saved, resumed; models from configurations, no Hub.

What of it can be had without them is tested beside this file: `OfAnotherLibrary` has signatures of its own, the loss of
`OfSentences` calls the model, `OfItsLoss` groups a loss's parameters, and in `test_in_place.py` a Trainer that somebody
else made becomes ours.
"""

import json
from dataclasses import dataclass

import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from hf_gammareg import GammaRegArguments, GammaRegTrainerMixin

pytestmark = pytest.mark.slow

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[EOS]"]
WORDS = [f"w{number}" for number in range(40)]
TEXTS = [" ".join(WORDS[first * step % 40] for step in range(1, 9)) for first in range(1, 17)]
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
USUAL = {"per_device_train_batch_size": 2, "report_to": [], "use_cpu": True, "disable_tqdm": True, "logging_steps": 1}
STEPS = {"learning_rate": 0.01, "weight_decay": 0.1, "max_steps": 2, "save_strategy": "steps", "save_steps": 1}


@pytest.fixture(autouse=True)
def _offline(monkeypatch, same_verbosity):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def tokenizer():
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *WORDS])}
    words = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = Whitespace()
    names = {"pad": "[PAD]", "unk": "[UNK]", "eos": "[EOS]", "cls": "[CLS]", "sep": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **{f"{name}_token": word for name, word in names.items()})


def llama():
    torch.manual_seed(0)
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 4}
    return LlamaForCausalLM(LlamaConfig(**SIZES, **special, vocab_size=45, num_key_value_heads=2))


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    """A BERT without pretraining, in a folder."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    BertModel(BertConfig(**SIZES, vocab_size=45, pad_token_id=0)).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def sft(folder, encoder):
    from trl import SFTConfig, SFTTrainer

    global GammaRegSFTConfig  # a checkpoint holds it by this name

    class GammaRegSFTTrainer(GammaRegTrainerMixin, SFTTrainer):
        pass

    @dataclass
    class GammaRegSFTConfig(GammaRegArguments, SFTConfig):
        pass

    args = GammaRegSFTConfig(str(folder), **USUAL, **STEPS, bf16=False, gamma_policy="last,final")
    data = Dataset.from_dict({"text": TEXTS})
    return GammaRegSFTTrainer(model=llama(), args=args, train_dataset=data, processing_class=tokenizer())


def grpo(folder, encoder):
    from trl import GRPOConfig, GRPOTrainer

    class GammaRegGRPOTrainer(GammaRegTrainerMixin, GRPOTrainer):
        pass

    def reward(completions, **columns):  # tells completions of one length apart
        return [sum(map(ord, completion)) % 7.0 for completion in completions]

    own = {"bf16": False, "num_generations": 2, "max_completion_length": 4}
    args, data = GRPOConfig(str(folder), **USUAL, **STEPS, **own), Dataset.from_dict({"prompt": TEXTS})
    given = {"args": args, "train_dataset": data, "processing_class": tokenizer()}
    return GammaRegGRPOTrainer(model=llama(), reward_funcs=reward, **given)


def sentences(folder, encoder):
    from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer
    from sentence_transformers import SentenceTransformerTrainingArguments as Arguments
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    class GammaRegSentenceTransformerTrainer(GammaRegTrainerMixin, SentenceTransformerTrainer):
        pass

    model, data = SentenceTransformer(encoder, device="cpu"), Dataset.from_dict({"one": TEXTS, "other": TEXTS[::-1]})
    given = {"args": Arguments(str(folder), **USUAL, **STEPS), "train_dataset": data}
    return GammaRegSentenceTransformerTrainer(model=model, loss=MultipleNegativesRankingLoss(model), **given)


LLAMA = {"final": 1, "last": 4}
BERT = {"final": 1, "absorbed": 4}
CLIENTS = {
    "SFT": ("trl", sft, LLAMA, {"final", "last"}),
    "GRPO": ("trl", grpo, LLAMA, {"last"}),
    "sentences": ("sentence_transformers", sentences, BERT, {"absorbed"}),
}


def decayed(trainer):
    """The gammas that the optimizer decays, told by the model itself."""
    groups = [group for group in trainer.optimizer.param_groups if group["weight_decay"]]
    members = {id(parameter) for group in groups for parameter in group["params"]}
    return {name for name in trainer.gammas.names if id(trainer.model.get_parameter(name)) in members}


@pytest.mark.parametrize("client", CLIENTS)
def test_it_trains_saves_and_resumes_by_the_policy(client, encoder, tmp_path, caplog):
    library, make, counts, roles = CLIENTS[client]
    pytest.importorskip(library)
    whole = make(tmp_path / "whole", encoder)
    whole.train()
    assert whole.gammas.counts == counts
    assert decayed(whole) == {gamma.name for gamma in whole.gammas.by_role(*roles)}
    assert not [record for record in caplog.records if record.name.startswith("hf_gammareg")]
    assert all(entry["grad_norm"] for entry in whole.state.log_history if "loss" in entry)
    saved = tmp_path / "whole" / "checkpoint-1"
    assert json.loads((saved / "gamma_report.json").read_text())["honoured"] is True
    resumed = make(tmp_path / "resumed", encoder)
    resumed.train(resume_from_checkpoint=str(saved))
    assert decayed(resumed) == decayed(whole)
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    whole.create_model_card()
    card = (tmp_path / "whole" / "README.md").read_text()
    assert "## Weight decay on the normalization gains" in card


def test_setfits_trainer_trains_its_body_by_the_policy(encoder, tmp_path):
    setfit = pytest.importorskip("setfit")
    from setfit.trainer import BCSentenceTransformersTrainer

    class GammaRegBody(GammaRegTrainerMixin, BCSentenceTransformersTrainer):
        pass

    class GammaRegSetFitTrainer(setfit.Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.st_trainer.__class__ = GammaRegBody

    settings = {"batch_size": 2, "num_epochs": 1, "max_steps": 2, "body_learning_rate": 1e-2, "l2_weight": 0.1}
    args = setfit.TrainingArguments(str(tmp_path), **settings, save_steps=1, save_total_limit=None, report_to=[])
    data = Dataset.from_dict({"text": TEXTS, "label": [number % 2 for number in range(len(TEXTS))]})
    model = setfit.SetFitModel.from_pretrained(encoder, device="cpu")
    trainer = GammaRegSetFitTrainer(model=model, args=args, train_dataset=data)
    trainer.train()
    body = trainer.st_trainer
    assert body.gammas.counts == BERT
    assert decayed(body) == {gamma.name for gamma in body.gammas.by_role("absorbed")}
    body.create_model_card()
    assert "## Weight decay on the normalization gains" in (tmp_path / "README.md").read_text()
    ended = [parameter.detach().clone() for parameter in body.model.parameters()]
    body.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    for one, other in zip(ended, body.model.parameters(), strict=True):
        assert torch.equal(one, other)

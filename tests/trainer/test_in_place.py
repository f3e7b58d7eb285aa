"""Our Trainer under Trainer's own name, called without an instance, and where somebody else makes the optimizer."""

import json

import pytest
import torch
import transformers
from test_trainer import BEFORE, FINAL, LAST, arguments, images, resnet, trainer, vit
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_gammareg import GammaRegTrainer, GammaRegTrainerMixin, decide, find_gammas, param_groups

pytestmark = pytest.mark.slow

PLAIN = Trainer.get_decay_parameter_names


class Replaced(GammaRegTrainer):
    """Somebody's own on top of ours, as the name may be patched with too."""

    def get_decay_parameter_names(self, model):
        return super().get_decay_parameter_names(model)


@pytest.fixture(params=[GammaRegTrainer, Replaced])
def patched(request, monkeypatch):
    for module in (transformers, transformers.trainer):
        monkeypatch.setattr(module, "Trainer", request.param)
    return transformers.Trainer


@pytest.mark.parametrize("policy", ["guidelines", "trainer"])
def test_the_name_of_trainer_may_be_patched(policy, patched, tmp_path):
    model = resnet()
    gammas = find_gammas(model)
    plainly = set(PLAIN(None, model)) & set(gammas.names)
    assert {name for name, decays in decide(gammas, model, "trainer").items() if decays} == plainly
    args = arguments(tmp_path, gamma_policy=policy)
    ours = patched(model=model, args=args, train_dataset=images(size=32))
    ours.train()
    wanted = plainly if policy == "trainer" else {gamma.name for gamma in gammas.by_role("last", "absorbed")}
    decayed = {id(p) for group in ours.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert {name for name in gammas.names if id(model.get_parameter(name)) in decayed} == wanted
    assert plainly != {gamma.name for gamma in gammas.by_role("last", "absorbed")}


def test_an_unbound_call_answers_as_trainer_does(tmp_path):
    model, plain = resnet(), trainer(tmp_path, cls=Trainer, kind=TrainingArguments)
    for nobody in (None, plain):
        assert GammaRegTrainer.get_decay_parameter_names(nobody, model) == PLAIN(None, model)


class Own(GammaRegTrainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, weight_decay=0.1)
        return self.optimizer


class OwnToTheEnd(Own):
    def create_scheduler(self, num_training_steps, optimizer=None):
        self.lr_scheduler = torch.optim.lr_scheduler.StepLR(self.optimizer, 1)
        return self.lr_scheduler


class Afterwards(GammaRegTrainer):
    def create_optimizer(self, *args, **kwargs):
        super().create_optimizer(*args, **kwargs)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=0.1, weight_decay=0.1)
        return self.optimizer


class ByThePolicy(GammaRegTrainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = torch.optim.AdamW(param_groups(self.model, 0.1, gammas=self.gammas), lr=0.1)
        return self.optimizer


class WithoutDecay(GammaRegTrainer):
    def create_optimizer(self, *args, **kwargs):
        self.optimizer = torch.optim.AdamW(param_groups(self.model, 0.0, gammas=self.gammas), lr=0.1)
        return self.optimizer


class More(GammaRegTrainer):
    def create_optimizer(self, *args, **kwargs):
        made = super().create_optimizer(*args, **kwargs)
        made.param_groups[0]["lr"] = 0.5
        return made


class OfAnother(Trainer):
    create_optimizer = Own.create_optimizer


class InFront(GammaRegTrainerMixin, OfAnother):
    pass


def warnings_in(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("hf_gammareg")]


@pytest.mark.parametrize("cls", [Own, OwnToTheEnd, Afterwards])
def test_who_makes_the_optimizer_without_us_is_told_once(cls, tmp_path, caplog):
    ours = trainer(tmp_path, cls=cls, save_strategy="steps", save_steps=2)
    ours.train()
    (said,) = warnings_in(caplog)
    assert said == (
        f"Expected {cls.__name__}.create_optimizer to call super().create_optimizer(), which applies the gamma policy, "
        f"found AdamW, made without it, whose groups decay other gammas than the policy would: '{FINAL}'. To apply the "
        "policy, build the optimizer from hf_gammareg.param_groups(model, ..., policy='guidelines'); if its groups are "
        "of another making on purpose, set gamma_policy, gamma_decay and gamma_no_decay to what made them."
    )
    assert ours.optimizer.param_groups[0]["weight_decay"] == 0.1
    assert len(ours.optimizer.param_groups) == 1
    report = tmp_path / "gamma_report.json"
    assert report.exists() is (cls is Afterwards)
    assert cls is not Afterwards or json.loads(report.read_text())["honoured"] is False
    assert not (tmp_path / "checkpoint-2" / "gamma_report.json").exists()


@pytest.mark.parametrize("cls", [ByThePolicy, WithoutDecay, More])
def test_who_follows_the_policy_is_told_nothing(cls, tmp_path, caplog):
    trainer(tmp_path, cls=cls).train()
    assert not warnings_in(caplog)


def test_an_optimizer_that_is_put_in_later_is_told_of_once(tmp_path, caplog):
    ours = trainer(tmp_path)
    ours.train()
    assert not warnings_in(caplog)
    ours.optimizer = torch.optim.AdamW(ours.model.parameters(), lr=0.1, weight_decay=0.1)
    ours.train()
    ours.train()
    (said,) = warnings_in(caplog)
    assert "GammaRegTrainer was given an optimizer and leaves its groups as they are" in said
    ours.optimizer = None
    ours.train()
    assert len(warnings_in(caplog)) == 1
    assert [group["weight_decay"] for group in ours.optimizer.param_groups] == [0.1, 0.0]


def test_a_base_that_makes_the_optimizer_gets_the_policy(tmp_path, caplog):
    ours = trainer(tmp_path, cls=InFront)
    ours.train()
    assert [group["weight_decay"] for group in ours.optimizer.param_groups] == [0.1, 0.0]


def test_what_an_optimizer_does_not_hold_it_does_not_decay_otherwise(tmp_path, caplog):
    model = vit()
    mine = torch.optim.AdamW([model.get_parameter(BEFORE.format(0)), model.classifier.weight], weight_decay=0.1)
    trainer(tmp_path, model, init={"optimizers": (mine, None)}).train()
    assert not warnings_in(caplog)
    assert len(LAST) > 1


def test_a_trainer_that_somebody_else_made_becomes_ours(tmp_path):
    made = trainer(tmp_path, cls=Trainer, kind=TrainingArguments)
    made.__class__ = GammaRegTrainer
    made.args.gamma_policy = "final"
    made.train()
    decays = {name for group in made.optimizer.param_groups if group["weight_decay"] for name in group["param_names"]}
    assert decays & {*LAST, FINAL} == {FINAL}


class Thaws(TrainerCallback):
    """Freezes and thaws layers at a step, as gradual unfreezing does."""

    def __init__(self, at):
        self.at = at

    def on_step_end(self, args, state, control, model, **kwargs):
        if state.global_step == self.at:
            model.vit.embeddings.cls_token.requires_grad_(False)
            model.get_parameter(BEFORE.format(0)).requires_grad_(True)


def test_layers_that_are_frozen_or_thawed_later_are_named_once(tmp_path, caplog):
    model = vit()
    model.get_parameter(BEFORE.format(0)).requires_grad_(False)
    ours = trainer(tmp_path, model, max_steps=6, logging_steps=1, init={"callbacks": [Thaws(2)]})
    ours.train()
    (said,) = warnings_in(caplog)
    assert "AdamW was made for, found frozen since, which it leaves as they are: 'vit.embeddings.cls_token' and" in said
    assert f"added since, which none of its groups holds, so not trained: '{BEFORE.format(0)}'. Do so" in said
    assert torch.equal(model.get_parameter(BEFORE.format(0)), torch.ones(16))
    caplog.clear()
    model.classifier.requires_grad_(False)
    ours.train()
    (said,) = warnings_in(caplog)
    assert "'classifier.bias', 'classifier.weight'. Do so" in said
    assert "thawed or added since" not in said
    caplog.clear()
    ours.optimizer = None
    ours.train()
    assert not warnings_in(caplog)
    assert not torch.equal(model.get_parameter(BEFORE.format(0)), torch.ones(16))


class TakesTurns(TrainerCallback):
    """Trains another layer at each step, as LISA does: all are in the optimizer, all but one are frozen."""

    def on_step_begin(self, args, state, control, model, **kwargs):
        for index, layer in enumerate(model.vit.layers):
            layer.requires_grad_(index == state.global_step % len(model.vit.layers))


def test_layers_that_take_turns_are_named_once_each(tmp_path, caplog):
    ours = trainer(tmp_path, max_steps=6, logging_steps=1, init={"callbacks": [TakesTurns()]})
    ours.train()
    said = warnings_in(caplog)
    assert len(said) == len(ours.model.vit.layers) == 2
    assert all("frozen since" in line and "thawed or added since" not in line for line in said)


@pytest.mark.parametrize("case", ["their optimizer", "checkpointing", "the best model", "resumed"])
def test_nothing_is_said_where_nothing_changed(case, tmp_path, caplog):
    model, options, init = vit(), {"max_steps": 4, "logging_steps": 1}, {}
    if case == "their optimizer":
        mine = torch.optim.AdamW(param_groups(model, 0.1, policy="guidelines"), lr=0.1)
        init = {"optimizers": (mine, None), "callbacks": [Thaws(2)]}
    elif case == "checkpointing":
        options |= {"gradient_checkpointing": True}
    elif case == "the best model":
        evaluated = {"eval_strategy": "steps", "eval_steps": 2, "save_strategy": "steps", "save_steps": 2}
        options |= evaluated | {"load_best_model_at_end": True}
        init = {"eval_dataset": images()}
    else:
        trainer(tmp_path, vit(), **options, save_strategy="steps", save_steps=2).train()
        caplog.clear()
    trainer(tmp_path, model, **options, init=init).train(str(tmp_path / "checkpoint-2") if case == "resumed" else None)
    assert not warnings_in(caplog)

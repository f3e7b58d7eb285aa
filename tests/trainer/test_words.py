"""What is said is true of the case at hand, and nothing is said that helps no decision."""

import json

import pytest
import torch
from test_resume import SAVED, wider
from test_trainer import BEFORE, FINAL, LAST, resnet, trainer, vit
from torch import nn
from transformers import Trainer

from hf_gammareg import GammaRegError, GammaRegTrainerMixin, param_groups

pytestmark = pytest.mark.slow


def said(caplog):
    return [record.getMessage() for record in caplog.records if record.name.startswith("hf_gammareg")]


def decayed(optimizer, model):
    members = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    return {name for name in [*LAST, FINAL] if id(model.get_parameter(name)) in members}


# --- optimizers -----------------------------------------------------------------------------------------------------


class Loss(nn.Module):
    """Holds the model that it is of, as those of sentence-transformers do, and has a parameter called like a gamma."""

    def __init__(self, model):
        super().__init__()
        self.model, self.vit = model, nn.Module()
        self.vit.layers = nn.ModuleList([nn.ModuleDict({"layernorm_before": nn.Linear(2, 2)})])


class OfItsLoss(Trainer):
    """Trains what the loss has too: the groups are of the loss's parameters, by the loss's names."""

    def get_optimizer_cls_and_kwargs(self, args, model=None):
        made, options = Trainer.get_optimizer_cls_and_kwargs(args, model)
        self.own = getattr(self, "own", None) or Loss(self.model)
        decays = self.get_decay_parameter_names(self.own)
        parts = [[p for name, p in self.own.named_parameters() if (name in decays) is part] for part in (True, False)]
        strengths = (args.weight_decay, 0.0)
        groups = [{"params": part, "weight_decay": w} for part, w in zip(parts, strengths, strict=True)]
        return made, options | {"optimizer_dict": groups}


class OnItsLoss(GammaRegTrainerMixin, OfItsLoss):
    pass


def test_groups_of_a_loss_that_holds_the_model_are_the_trainers_own(tmp_path, caplog):
    ours, plain = trainer(tmp_path, cls=OnItsLoss), trainer(tmp_path, cls=OfItsLoss)
    ours.create_optimizer()
    plain.create_optimizer()
    assert not [line for line in said(caplog) if "of its own" in line]
    assert decayed(ours.optimizer, ours.model) == LAST
    assert json.loads((tmp_path / "gamma_report.json").read_text())["honoured"] is True
    # What is called like a gamma is none.
    assert ours.own.get_parameter(BEFORE.format(0)) is not ours.model.get_parameter(BEFORE.format(0))
    decays = {id(p) for group in ours.optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert id(ours.own.get_parameter(BEFORE.format(0))) not in decays
    assert [len(run.optimizer.param_groups[0]["params"]) for run in (ours, plain)] == [20, 16]


class ByHand(Trainer):
    """Makes one group of all, or of what it is told to train."""

    trained = ("",)

    def create_optimizer(self, *args, **kwargs):
        held = [p for name, p in self.model.named_parameters() if name.startswith(self.trained)]
        self.optimizer = torch.optim.AdamW(held, lr=0.1, weight_decay=0.1)
        return self.optimizer


class OnByHand(GammaRegTrainerMixin, ByHand):
    pass


class OnPart(OnByHand):
    trained = ("vit.layernorm", "vit.layers.1")


def test_who_makes_groups_of_their_own_is_not_torchs_adamw(tmp_path, caplog):
    ours = trainer(tmp_path, cls=OnByHand)
    ours.create_optimizer()
    (line,) = said(caplog)
    assert line.startswith("hf_gammareg: What made this AdamW (optim=")
    assert decayed(ours.optimizer, ours.model) == LAST


def test_an_optimizer_of_a_part_keeps_its_groups(tmp_path, caplog):
    ours = trainer(tmp_path, cls=OnPart)
    ours.train()
    assert not [line for line in said(caplog) if "can't be honoured" in line]
    assert decayed(ours.optimizer, ours.model) == {name for name in LAST if name.startswith("vit.layers.1")}
    assert [line for line in said(caplog) if BEFORE.format(0) in line or "In no group of the AdamW" in line]


def test_a_model_with_other_names_is_said_to_have_them(tmp_path, caplog):
    ours = trainer(tmp_path)
    ours.create_optimizer(resnet())
    (line,) = said(caplog)
    assert "Expected the gammas in the model that AdamW (optim=" in line
    assert "found its parameters under other names" in line
    assert json.loads((tmp_path / "gamma_report.json").read_text())["honoured"] is False


# --- groups of the user's -------------------------------------------------------------------------------------------


def test_who_used_param_groups_is_not_sent_there(tmp_path, caplog):
    model = vit()
    mine = torch.optim.AdamW(param_groups(model, 0.1, policy="all"), lr=0.1)
    trainer(tmp_path, model, init={"optimizers": (mine, None)}).create_optimizer()
    (line,) = said(caplog)
    assert line.endswith(
        f"than the policy would: '{FINAL}'. To apply the policy, build the optimizer from hf_gammareg.param_groups("
        "model, ..., policy='guidelines'); if its groups are of another making on purpose, set gamma_policy, "
        "gamma_decay and gamma_no_decay to what made them."
    )
    caplog.clear()
    trainer(tmp_path, model, gamma_policy="all", init={"optimizers": (mine, None)}).create_optimizer()
    assert not said(caplog)


@pytest.mark.parametrize("policy", ["guidelines", "all"])
def test_a_card_tells_whether_the_optimizer_that_was_passed_follows_the_policy(policy, tmp_path):
    model = vit()
    mine = torch.optim.AdamW(param_groups(model, 0.3, policy="guidelines"), lr=0.1)
    ours = trainer(tmp_path, model, gamma_policy=policy, init={"optimizers": (mine, None)})
    ours.train()
    ours.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert ("4 of 5 normalization gains (gammas) decay, with weight decay 0.3." in card) is (policy == "guidelines")
    assert ("was **not** applied" in card) is (policy == "all")


# --- checkpoints ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["another model", "cut short", "missing", "of the optimizer"])
def test_weights_that_can_not_be_had_are_nothing_to_start_from(case, tmp_path):
    trainer(tmp_path, **SAVED | {"max_steps": 2}).train()
    folder = tmp_path / "checkpoint-2"
    name = "optimizer.pt" if case == "of the optimizer" else "model.safetensors"
    if case == "missing":
        (folder / name).unlink()
    elif case != "another model":
        (folder / name).write_bytes((folder / name).read_bytes()[:100])
    with pytest.raises(GammaRegError) as raised:
        trainer(tmp_path, wider() if case == "another model" else vit(), **SAVED).train(str(folder))
    assert ("from its weights" in str(raised.value)) is (case == "of the optimizer")
    assert "Resume from another checkpoint" in str(raised.value)


# --- what decay will do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("steps", "rate", "told"), [(99, 1e-5, False), (100, 1e-5, True), (99, 0.1, True)])
def test_a_trial_is_not_told_that_the_choice_can_hardly_matter(steps, rate, told, tmp_path, capsys):
    ours = trainer(tmp_path, learning_rate=rate, max_steps=steps)
    ours.create_optimizer_and_scheduler(steps)
    assert ("decay alone will multiply" in capsys.readouterr().err) is told
    budget = json.loads((tmp_path / "gamma_report.json").read_text())["decay_budget"]
    assert budget["negligible"] is (rate == 1e-5)

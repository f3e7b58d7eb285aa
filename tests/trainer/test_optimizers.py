"""The Trainer's optimizers: those that keep its groups, those that make their own, and those that were passed."""

import importlib.machinery
import json
import sys
import types

import pytest
import torch
from test_trainer import BEFORE, FINAL, LAST, arguments, images, settings_of, trainer, vit
from transformers import ViTForImageClassification
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer

from hf_gammareg import GammaRegTrainer
from hf_gammareg.decay.optimizers import unwrapped_optimizer

pytestmark = pytest.mark.slow

TARGETS = {"optim_target_modules": "all-linear"}


class Still(ViTForImageClassification):
    """Its gradients are 0, so that nothing moves a weight but decay."""

    def forward(self, pixel_values=None, labels=None):
        output = super().forward(pixel_values=pixel_values)
        return output.logits.sum() * 0.0, output.logits


def still():
    return Still(vit().config)


class AdamW(torch.optim.Optimizer):
    """What GaLore and APOLLO install, as far as gammas are concerned: decay from each group, 0 by default."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-6, weight_decay=0.0, **kwargs):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.add_(parameter.grad, alpha=-group["lr"])
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])


class Lomo(torch.optim.Optimizer):
    """What lomo_optim installs: it has a decay of its own, and updates in hooks."""

    def __init__(self, model, lr=1e-3, weight_decay=0.0):
        self.weight_decay = weight_decay
        super().__init__(model.parameters(), {"lr": lr})

    def step(self, closure=None):
        pass


class AdamWScheduleFree(AdamW):
    """Keeps the groups that it is given."""

    def train(self):
        pass

    def eval(self):
        pass


class StableAdamW(AdamW):
    """Keeps the groups that it is given."""


@pytest.fixture
def stand_ins(monkeypatch):
    """The modules that the Trainer would import, with optimizers that treat groups as the real ones do."""

    def module(name, **members):
        made = types.ModuleType(name)
        made.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(made).update(members)
        monkeypatch.setitem(sys.modules, name, made)
        return made

    def named(cls, name):
        home, qualified = name.rsplit(".", 1)
        return type(qualified, (cls,), {"__module__": home, "__qualname__": qualified})

    galore = named(AdamW, "galore_torch.adamw.AdamW")
    module("galore_torch", GaLoreAdafactor=galore, GaLoreAdamW=galore, GaLoreAdamW8bit=named(AdamW, "galore_torch.x.Y"))
    module("apollo_torch", APOLLOAdamW=named(AdamW, "apollo_torch.apollo.AdamW"))
    module("lomo_optim", Lomo=Lomo, AdaLomo=Lomo)
    free = named(AdamWScheduleFree, "schedulefree.adamw_schedulefree.AdamWScheduleFree")
    module("schedulefree", AdamWScheduleFree=free, SGDScheduleFree=free, RAdamScheduleFree=free)
    module("optimi", StableAdamW=named(StableAdamW, "optimi.stableadamw.StableAdamW"))
    module("grokadamw", GrokAdamW=named(AdamW, "grokadamw.grokadamw.GrokAdamW"))
    home = importlib.import_module("transformers.trainer_optimizer")
    for package in ("galore_torch", "apollo_torch", "lomo", "schedulefree", "torch_optimi", "grokadamw"):
        monkeypatch.setattr(home, f"is_{package}_available", lambda *version: True)


KEEPS = {
    "adamw_torch": {},
    "adamw_torch_fused": {},
    "adafactor": {},
    "sgd": {},
    "rmsprop": {},
    "adagrad": {},
    "schedule_free_adamw": {},
    "stable_adamw": {},
    "grokadamw": {},
}
MOVES = {
    "galore_adamw": TARGETS,
    "galore_adafactor": TARGETS,
    "galore_adamw_layerwise": TARGETS,
    "apollo_adamw": TARGETS,
    "apollo_adamw_layerwise": TARGETS,
}
LOSES = {"lomo": {}, "adalomo": {}, "galore_adamw_8bit": TARGETS}


def all_groups(optimizer):
    optimizer = unwrapped_optimizer(optimizer)
    if isinstance(optimizer, LayerWiseDummyOptimizer):
        return [group for inner in optimizer.optimizer_dict.values() for group in inner.param_groups]
    return optimizer.param_groups


def decays_of(optimizer, model):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["weight_decay"] for group in all_groups(optimizer) for p in group["params"]}


def report(folder):
    return json.loads((folder / "gamma_report.json").read_text())


@pytest.mark.parametrize("strength", [None, 0.3])
@pytest.mark.parametrize("optim", KEEPS)
def test_optimizers_that_keep_their_groups(optim, strength, tmp_path, caplog, stand_ins):
    ours = trainer(tmp_path, still(), optim=optim, gamma_weight_decay=strength, **KEEPS[optim])
    ours.train()
    found = {name: group["weight_decay"] for name, group in settings_of(ours.optimizer, ours.model).items()}
    gammas = dict.fromkeys(LAST, strength or 0.1) | {FINAL: 0.0}
    assert {name: found[name] for name in gammas} == gammas
    assert not [record for record in caplog.records if "hf_gammareg" in record.name and record.levelname == "WARNING"]
    assert report(tmp_path)["honoured"] is True


@pytest.mark.parametrize("strength", [None, 0.3])
@pytest.mark.parametrize("optim", MOVES)
def test_optimizers_that_make_their_own_groups_get_the_gammas(optim, strength, tmp_path, caplog, stand_ins):
    options = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "gamma_weight_decay": strength} | MOVES[optim]
    plain = trainer(tmp_path, still(), optim=optim, **MOVES[optim]).create_optimizer()
    ours = trainer(tmp_path, still(), optim=optim, **options)
    ours.train()
    found = decays_of(ours.optimizer, ours.model)
    assert found.keys() == dict(ours.model.named_parameters()).keys()
    assert {name: decay for name, decay in found.items() if decay} == dict.fromkeys(LAST, strength or 0.1)
    name = type(plain).__name__
    assert f"{name} (optim={optim}) makes parameter groups of its own" in caplog.text
    assert report(tmp_path)["honoured"] is True
    # It is so in the weights, not only in the groups.
    shrunk = (1 - 0.1 * (strength or 0.1)) ** 2
    assert torch.allclose(ours.model.get_parameter(BEFORE.format(0)), torch.full((16,), shrunk))
    assert torch.equal(ours.model.get_parameter(FINAL), torch.ones(16))
    # GaLore's own settings stay with the layers that it projects.
    projected = [group for group in all_groups(ours.optimizer) if "rank" in group]
    assert projected
    assert len(projected) == len([group for group in all_groups(plain) if "rank" in group])


@pytest.mark.parametrize("optim", LOSES)
def test_optimizers_that_do_not_read_their_groups_are_named(optim, tmp_path, caplog, stand_ins):
    ours = trainer(tmp_path, still(), optim=optim, **LOSES[optim])
    ours.create_optimizer()
    assert f"{type(ours.optimizer).__name__} (optim={optim}) does not keep the parameter groups" in caplog.text
    assert not any(group.get("weight_decay") for group in ours.optimizer.param_groups)
    assert not any("param_names" in group for group in ours.optimizer.param_groups)
    assert report(tmp_path)["honoured"] is False
    assert "decay_budget" not in report(tmp_path)


class Container(torch.optim.Optimizer):
    """Several optimizers in one, as a factory for Muon or Dion may return it: the groups are those of the parts."""

    def __init__(self, *parts):
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = list(parts)

    def step(self, closure=None):
        for part in self.parts:
            part.step()

    def state_dict(self):
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict):
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)
        self.param_groups = [group for part in self.parts for group in part.param_groups]


class Viewing(Container):
    """The groups are looked up in the parts each time."""

    @property
    def param_groups(self):
        return [group for part in vars(self).get("parts", []) for group in part.param_groups]

    @param_groups.setter
    def param_groups(self, groups):
        pass


def factory(kind, first=torch.optim.AdamW):
    def build(model, lr):
        matrices = [p for p in model.parameters() if p.ndim == 2]
        others = [p for p in model.parameters() if p.ndim != 2]
        one, two = first(others, lr=lr, weight_decay=0.0), torch.optim.Muon(matrices, lr=lr, weight_decay=0.2)
        return kind(one, two) if kind else one

    return lambda: build


class Secret(torch.optim.AdamW):
    """Nobody knows what its step does."""


@pytest.mark.parametrize("kind", [Container, Viewing, None])
def test_factories_of_several_optimizers(kind, tmp_path, caplog):
    options = {"learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    init = {"optimizer_cls_and_kwargs": (factory(kind), {"lr": 0.1})}
    ours = trainer(tmp_path, still(), init=init, **options)
    ours.train()
    found = decays_of(ours.optimizer, ours.model)
    matrices = {name for name, p in ours.model.named_parameters() if p.ndim == 2 and kind}
    assert {name: decay for name, decay in found.items() if decay} == dict.fromkeys(LAST, 0.1) | dict.fromkeys(
        matrices, 0.2
    )
    assert "makes parameter groups of its own" in caplog.text
    assert torch.allclose(ours.model.get_parameter(BEFORE.format(0)), torch.full((16,), (1 - 0.1 * 0.1) ** 2))
    assert torch.equal(ours.model.get_parameter(FINAL), torch.ones(16))
    if kind:
        whole = unwrapped_optimizer(ours.optimizer)
        inner = {id(group) for part in whole.parts for group in part.param_groups}
        assert {id(group) for group in whole.param_groups} == inner  # a scheduler reaches every part
        assert [len(part.param_groups) for part in whole.parts] == [2, 1]


def test_a_part_that_nobody_knows_is_left_alone(tmp_path, caplog):
    init = {"optimizer_cls_and_kwargs": (factory(Container, Secret), {"lr": 0.1})}
    ours = trainer(tmp_path, still(), init=init)
    ours.create_optimizer()
    assert "Container (optim=adamw_torch" in caplog.text
    assert "can't be honoured" in caplog.text
    assert [len(part.param_groups) for part in ours.optimizer.parts] == [1, 1]


@pytest.mark.parametrize("cls", [torch.optim.AdamW, Secret, AdamW])
def test_an_optimizer_that_was_passed_is_never_touched(cls, tmp_path, capsys):
    model = still()
    mine = cls(list(model.parameters()), lr=0.1, weight_decay=0.7)
    before = [dict(group) for group in mine.param_groups]
    ours = trainer(tmp_path, model, init={"optimizers": (mine, None)}, lr_scheduler_type="constant")
    ours.train()
    assert ours.optimizer.optimizer is mine
    assert [{k: v for k, v in group.items() if k != "initial_lr"} for group in mine.param_groups] == before
    assert torch.allclose(model.get_parameter(FINAL), torch.full((16,), (1 - 0.1 * 0.7) ** 2))
    assert "decay alone" not in capsys.readouterr().err
    assert not (tmp_path / "gamma_report.json").exists()


def test_the_budget_is_said_and_reported_and_true(tmp_path, capsys):
    ours = trainer(tmp_path, still(), learning_rate=0.1, max_steps=5, warmup_steps=2, gamma_weight_decay=0.5)
    ours.train()
    budget = report(tmp_path)["decay_budget"]
    assert f"hf_gammareg: {budget['text']}\n" in capsys.readouterr().err
    assert budget["text"].startswith("decay alone will multiply a decayed gamma by 0.")
    assert "over 5 steps (AdamW, decoupled)" in budget["text"]
    assert (budget["kind"], budget["steps"], budget["negligible"]) == ("decoupled", 5, False)
    assert report(tmp_path)["decay_kind"] == "decoupled"
    (group,) = budget["groups"]
    assert sorted(group["names"]) == sorted(LAST)
    assert group["weight_decay"] == 0.5
    for name in LAST:
        assert ours.model.get_parameter(name).tolist() == pytest.approx([budget["factor"]] * 16, rel=1e-5)


def test_a_usual_fine_tune_is_told_that_the_choice_can_hardly_matter(tmp_path, capsys):
    options = {"learning_rate": 2e-5, "weight_decay": 0.01, "max_steps": 2000}
    ours = trainer(tmp_path, **options)
    ours.create_optimizer_and_scheduler(2000)
    line = "decay alone will multiply a decayed gamma by 0.9998 over 2,000 steps (AdamW, decoupled); that is above 0.99"
    assert line in capsys.readouterr().err
    assert report(tmp_path)["decay_budget"]["negligible"] is True


def test_a_schedule_that_follows_a_metric_has_no_budget(tmp_path, capsys):
    options = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 1}
    ours = trainer(tmp_path, **options, init={"eval_dataset": images()})
    ours.create_optimizer_and_scheduler(2)
    assert "not known beforehand: Expected a scheduler whose rates are known" in capsys.readouterr().err
    assert "decay_budget" not in report(tmp_path)


@pytest.mark.parametrize(
    ("options", "kind"), [({"optim": "sgd"}, "coupled"), ({"optim": "rmsprop"}, "coupled"), ({}, "decoupled")]
)
def test_the_report_says_which_decay_it_is(options, kind, tmp_path):
    ours = trainer(tmp_path, **options)
    ours.create_optimizer_and_scheduler(2)
    assert report(tmp_path)["decay_kind"] == report(tmp_path)["decay_budget"]["kind"] == kind


def test_no_gamma_no_line(tmp_path, capsys):
    ours = trainer(tmp_path, gamma_policy="none")
    ours.create_optimizer_and_scheduler(2)
    assert "decay alone" not in capsys.readouterr().err
    assert report(tmp_path)["decay_budget"]["factor"] == 1.0


REAL = {
    "schedule_free_adamw": ("schedulefree", {}, "kept"),
    "schedule_free_sgd": ("schedulefree", {}, "kept"),
    "schedule_free_radam": ("schedulefree", {}, "kept"),
    "galore_adamw": ("galore_torch", TARGETS, "moved"),
    "galore_adamw_layerwise": ("galore_torch", TARGETS, "moved"),
    "apollo_adamw": ("apollo_torch", TARGETS | {"optim_args": "rank=2,update_proj_gap=2"}, "moved"),
    "lomo": ("lomo_optim", {}, "lost"),
    "grokadamw": ("grokadamw", {}, "kept"),
    "adamw_torch_8bit": ("torchao", {}, "kept"),
    "adamw_bnb_8bit": ("bitsandbytes", {}, "kept"),
}


@pytest.mark.parametrize("optim", REAL)
def test_the_real_ones_where_they_are_installed(optim, tmp_path, caplog):
    package, options, outcome = REAL[optim]
    pytest.importorskip(package, exc_type=ImportError)
    ours = GammaRegTrainer(still(), arguments(tmp_path, optim=optim, **options), train_dataset=images())
    ours.create_optimizer()
    assert ours._outcome == outcome
    assert report(tmp_path)["honoured"] is (outcome != "lost")
    if outcome != "lost":
        found = decays_of(ours.optimizer, ours.model)
        assert {name: found[name] for name in [*LAST, FINAL]} == dict.fromkeys(LAST, 0.1) | {FINAL: 0.0}

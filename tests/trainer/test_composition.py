"""Everything at once: each trainable parameter in one group, with what each ingredient alone would give it.

What is expected comes from timm's own functions, asked for one ingredient at a time, and from the policy's decisions;
never from groups that this library made.
"""

import copy
import itertools
import warnings

import pytest
import timm.optim
import torch
from allpairspy import AllPairs
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from transformers import LlamaConfig, LlamaForCausalLM, Trainer

from hf_gammareg import (
    GammaRegArguments,
    GammaRegError,
    GammaRegTrainer,
    apply_lr_scale,
    decay_budget,
    find_gammas,
    param_groups,
)
from hf_gammareg import timm as ours
from hf_gammareg.decay.policy import decide


class Block(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.mlp = nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 8))

    def forward(self, x):
        return x + self.mlp(self.norm(x))


class Tied(nn.Module):
    """Shares a weight between its ends and a norm between two blocks; its token does not decay."""

    def __init__(self):
        super().__init__()
        shared = nn.LayerNorm(8)
        self.token = nn.Parameter(torch.full((4, 8), 0.1))
        self.stem = nn.Linear(8, 8, bias=False)
        self.blocks = nn.ModuleList([Block(shared), Block(shared), Block(nn.LayerNorm(8))])
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 8)
        self.head.weight = self.stem.weight

    def forward(self, x):
        x = self.stem(x) + self.token
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def no_weight_decay(self):
        return {"token"}

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem|^token", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}


MODELS = {
    "tied": (Tied, (2, 4, 8), ["head.*", "stem.*"]),
    "vit": (lambda: timm.create_model("test_vit", num_classes=5, img_size=32), (2, 3, 32, 32), ["*qkv*", "head.*"]),
    "resnet": (lambda: timm.create_model("test_resnet", num_classes=5), (2, 3, 32, 32), ["conv1*", "fc.*"]),
}
INGREDIENTS = {
    "policy": ["guidelines", "all", "none", "timm", "last", "absorbed,final"],
    "optimizer": ["sgd", "adamw", "muon", "nadamuon", "lookahead_adamw", "lookahead_muon", "adafactorbv"],
    "layers": [{}, {"layer_decay": 0.7}, {"layer_decay": 0.6, "layer_decay_min_scale": 0.5}],
    "below": [None, 0.3],
    "frozen": ["nothing", "a gamma", "the first half", "all but gammas"],
    "fallback": [{}, {"fallback_list": "patterns"}, {"fallback_list": "patterns", "fallback_no_weight_decay": True}],
    "biases": [True, False],
    "decay": [0.05, 0.0],
    "strength": [None, 0.3, 0.0],
}


ROWS = [dict(zip(INGREDIENTS, row, strict=True)) for row in AllPairs(list(INGREDIENTS.values()))]


def build(name):
    torch.manual_seed(0)
    return MODELS[name][0]()


@pytest.fixture(scope="module")
def gammas():
    return {name: find_gammas(build(name), (torch.zeros(MODELS[name][1]),)) for name in MODELS}


def freeze(model, how):
    parameters = dict(model.named_parameters())
    norms = {id(m.weight) for m in model.modules() if "Norm" in type(m).__name__}
    chosen = {
        "nothing": [],
        "a gamma": [next(name for name, p in parameters.items() if id(p) in norms)],
        "the first half": list(parameters)[: len(parameters) // 2],
        "all but gammas": [name for name, p in parameters.items() if id(p) not in norms],
    }
    for name in chosen[how]:
        parameters[name].requires_grad_(False)
    return model


def options_of(name, row):
    """The arguments of `create_optimizer_v2`."""
    fallback = dict(row["fallback"])
    if fallback:
        fallback["fallback_list"] = MODELS[name][2]
    layers = row["layers"] | ({"layer_decay_no_opt_scale": row["below"]} if row["layers"] and row["below"] else {})
    return {
        "opt": row["optimizer"],
        "lr": 0.01,
        "weight_decay": row["decay"],
        "filter_bias_and_bn": row["biases"],
        **fallback,
        **layers,
    }


def by_name(groups, model, key, default=None):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group.get(key, default) for group in groups for parameter in group["params"]}


def expected(name, row, gammas):
    """{parameter name: settings of its group}: one ingredient at a time."""
    model = freeze(build(name), row["frozen"])
    options = options_of(name, row)
    token = model.no_weight_decay() if hasattr(model, "no_weight_decay") else set()
    plain = timm.optim.param_groups_weight_decay(
        model, options["weight_decay"], weight_decay_exclude_1d=row["biases"], no_weight_decay_list=token
    )
    decay = by_name(plain, model, "weight_decay")
    fallback = timm.optim.param_groups_weight_decay(
        model,
        fallback_list=options.get("fallback_list", ()),
        no_weight_decay_list=token,
        fallback_no_weight_decay=options.get("fallback_no_weight_decay", False),
    )
    by_adamw = by_name(fallback, model, "use_fallback", False)
    scale = dict.fromkeys(decay, None)
    if row["layers"]:
        layered = timm.optim.param_groups_layer_decay(
            freeze(other := build(name), row["frozen"]),
            layer_decay=options["layer_decay"],
            min_scale=options.get("layer_decay_min_scale", 0.0),
            no_opt_scale=options.get("layer_decay_no_opt_scale"),
        )
        scale = by_name(layered, other, "lr_scale")
    decides = decide(gammas[name], build(name), row["policy"])
    settings = {}
    for parameter in scale:
        wanted = decay[parameter]
        if parameter in decides and row["policy"] == "timm":
            wanted = row["strength"] if wanted and row["strength"] is not None else wanted
        elif decides.get(parameter):
            wanted = (wanted or row["decay"]) if row["strength"] is None else row["strength"]
        elif parameter in decides:
            wanted = 0.0
        settings[parameter] = {
            "weight_decay": wanted,
            "lr_scale": scale[parameter],
            "use_fallback": by_adamw[parameter],
        }
    return settings


def settings_of(optimizer, model):
    """{parameter name: settings of its group}; each once, no group empty, every group named."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        members = [names[id(parameter)] for parameter in group["params"]]
        assert members
        assert group["param_names"] == members
        assert not found.keys() & set(members)
        settings = {key: group.get(key) for key in ("weight_decay", "lr_scale", "use_fallback")}
        found |= dict.fromkeys(members, settings | {"use_fallback": bool(settings["use_fallback"])})
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found


def make(name, row, gammas, **more):
    model = freeze(build(name), row["frozen"])
    options = options_of(name, row) | {"policy": row["policy"], "gamma_weight_decay": row["strength"]} | more
    return model, ours.create_optimizer_v2(model, **options, gammas=gammas[name])


def label(row):
    return ", ".join(str(value) for value in row.values())


def test_the_rows_hold_every_two_choices_together():
    for one, two in itertools.combinations(INGREDIENTS, 2):
        for choices in itertools.product(INGREDIENTS[one], INGREDIENTS[two]):
            assert any((row[one], row[two]) == choices for row in ROWS)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("row", ROWS, ids=label)
def test_each_ingredient_has_its_way(row, name, gammas):
    wanted = expected(name, row, gammas)
    model, optimizer = make(name, row, gammas)
    assert settings_of(optimizer, model) == wanted
    # No more groups than timm makes and settings that it does not have.
    other = freeze(build(name), row["frozen"])
    plain = timm.optim.create_optimizer_v2(other, **options_of(name, row))
    timms = {(g["weight_decay"], g.get("lr_scale"), bool(g.get("use_fallback"))) for g in plain.param_groups}
    distinct = {tuple(settings.values()) for settings in wanted.values()}
    assert len(optimizer.param_groups) <= len(plain.param_groups) + len(distinct - timms)
    assert type(optimizer) is type(plain)


def test_the_rows_hold_what_they_are_to_test(gammas):
    """Gammas that move, with and without a layer's scale; frozen and tied ones; parameters for the fallback."""
    moved, scales, fallbacks = 0, set(), 0
    for row in ROWS:
        wanted = expected("tied", row, gammas)
        plain = expected("tied", row | {"policy": "timm", "strength": None}, gammas)
        moved += sum(wanted[name] != plain[name] for name in wanted)
        scales |= {settings["lr_scale"] for settings in wanted.values()}
        fallbacks += sum(settings["use_fallback"] for settings in wanted.values())
        assert "head.weight" not in wanted
        assert "blocks.1.norm.weight" not in wanted
    assert moved > 20
    assert len(scales) > 4
    assert fallbacks > 20


def losses(model, batch):
    return model(batch).square().mean() / 2


def train(model, optimizer, scheduler, ema, name):
    """Three steps of two accumulated batches each."""
    generator = torch.Generator().manual_seed(3)
    for step in range(1, 4):
        for _ in range(2):
            losses(model, torch.randn(MODELS[name][1], generator=generator)).backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step_update(step) if isinstance(scheduler, CosineLRScheduler) else scheduler.step()
        ema.update(model, step=step)


TRAINED = {
    "adamw": {"optimizer": "adamw", "layers": {"layer_decay": 0.7}, "frozen": "a gamma", "strength": 0.3},
    "lookahead": {"optimizer": "lookahead_adamw", "layers": {}, "frozen": "nothing", "strength": None},
    "muon": {
        "optimizer": "muon",
        "layers": {"layer_decay": 0.7},
        "fallback": {"fallback_list": "patterns", "fallback_no_weight_decay": True},
        "frozen": "a gamma",
        "strength": 0.3,
    },
}
USUAL = {"policy": "guidelines", "below": None, "fallback": {}, "biases": True, "decay": 0.05, "strength": None}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", TRAINED)
def test_training_is_that_of_one_group_for_each_parameter(kind, name, gammas):
    """Gradient accumulation, EMA, lookahead and timm's scheduler on top: as if every group had been written by hand."""
    row = USUAL | TRAINED[kind]
    model, optimizer = make(name, row, gammas)
    other = freeze(build(name), row["frozen"])
    by_hand = [
        {
            "params": [other.get_parameter(parameter)],
            **{key: value for key, value in settings.items() if value is not None},
        }
        for parameter, settings in expected(name, row, gammas).items()
    ]
    for group in by_hand:  # a flag that is there, even False, tells Muon not to look at the shape
        if not group["use_fallback"]:
            del group["use_fallback"]
    hand = timm.optim.create_optimizer_v2(by_hand, row["optimizer"], lr=0.01)
    ends = []
    for net, opt in ((model, optimizer), (other, hand)):
        scheduler = CosineLRScheduler(opt, 6, warmup_t=2, warmup_lr_init=1e-3, t_in_epochs=False)
        ema = ModelEmaV3(net, decay=0.5)
        train(net, opt, scheduler, ema, name)
        ends.append((net.state_dict(), ema.module.state_dict()))
    start = build(name).state_dict()
    for ours_now, hand_now in zip(*ends, strict=True):
        for key, value in ours_now.items():
            assert torch.allclose(value, hand_now[key], rtol=1e-5, atol=1e-7), key
    assert any(not torch.equal(value, start[key]) for key, value in ends[0][0].items())


def halves(step):
    return 0.5**step


def rates_of(optimizer, model):
    return by_name(optimizer.param_groups, model, "lr")


@pytest.mark.parametrize("name", MODELS)
def test_lr_scale_under_any_scheduler(name, gammas):
    row = USUAL | {"optimizer": "adamw", "layers": {"layer_decay": 0.7}, "frozen": "nothing"}
    scales = {parameter: settings["lr_scale"] for parameter, settings in expected(name, row, gammas).items()}
    assert len(set(scales.values())) > 2
    model, optimizer = make(name, row, gammas, lr_scale="lr")
    assert not any("lr_scale" in group for group in optimizer.param_groups)
    for scheduler in (LambdaLR(optimizer, halves), None):
        wanted = {
            parameter: pytest.approx(0.01 * scale * (1.0 if scheduler else 0.25)) for parameter, scale in scales.items()
        }
        assert rates_of(optimizer, model) == wanted
        if scheduler:
            optimizer.step()
            scheduler.step()
            scheduler.step()
    # As under timm's scheduler, which applies it itself, once.
    other, theirs = make(name, row, gammas)
    CosineLRScheduler(theirs, 6)
    assert rates_of(theirs, other) == {parameter: pytest.approx(0.01 * scale) for parameter, scale in scales.items()}


def test_lr_scale_is_not_applied_twice(gammas):
    row = USUAL | {"optimizer": "adamw", "layers": {"layer_decay": 0.7}, "frozen": "nothing"}
    model, optimizer = make("tied", row, gammas, lr_scale="lr")
    rates = rates_of(optimizer, model)
    apply_lr_scale(optimizer)
    assert rates_of(optimizer, model) == rates
    CosineLRScheduler(optimizer, 6)
    assert rates_of(optimizer, model) == rates


def test_lr_scale_that_nobody_applies_is_said(gammas):
    row = USUAL | {"optimizer": "adamw", "layers": {"layer_decay": 0.7}, "frozen": "nothing"}
    _, optimizer = make("tied", row, gammas)
    with pytest.warns(UserWarning, match="only timm's schedulers apply: under LambdaLR it has no effect"):
        decay_budget(optimizer, LambdaLR(optimizer, halves), 3)
    for quiet in ({"lr_scale": "lr"}, {}):
        _, optimizer = make("tied", row, gammas, **quiet)
        scheduler = LambdaLR(optimizer, halves) if quiet else CosineLRScheduler(optimizer, 6, t_in_epochs=False)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            factors = [group.factor for group in decay_budget(optimizer, scheduler, 3).groups]
        assert len(set(factors)) > 2


def test_a_late_or_impossible_lr_scale_is_an_error_and_changes_nothing(gammas):
    row = USUAL | {"optimizer": "adamw", "layers": {"layer_decay": 0.7}, "frozen": "nothing"}
    model, optimizer = make("tied", row, gammas)
    LambdaLR(optimizer, halves)
    rates = rates_of(optimizer, model)
    with pytest.raises(GammaRegError, match="scheduler has the rates already"):
        apply_lr_scale(optimizer)
    assert rates_of(optimizer, model) == rates
    with pytest.raises(GammaRegError, match="lr is None"):
        make("tied", row | {"optimizer": "adafactor"}, gammas, lr_scale="lr", lr=None)
    with pytest.raises(GammaRegError, match="found 'group'"):
        make("tied", row, gammas, lr_scale="group")


def test_groups_of_timm_under_any_torch_optimizer(gammas):
    model = build("vit")
    layered = timm.optim.param_groups_layer_decay(copy.deepcopy(model), 0.05, layer_decay=0.7)
    groups = timm.optim.param_groups_layer_decay(model, 0.05, layer_decay=0.7)
    optimizer = torch.optim.SGD(param_groups(model, 0.05, gammas=gammas["vit"], groups=groups), lr=0.1)
    apply_lr_scale(optimizer)
    scales = {group["lr_scale"] for group in layered}
    assert {round(group["lr"], 9) for group in optimizer.param_groups} == {round(0.1 * scale, 9) for scale in scales}


class StillLlama(LlamaForCausalLM):
    """Its gradients are 0, so that nothing moves a weight but decay."""

    def forward(self, input_ids=None, labels=None):
        logits = super().forward(input_ids=input_ids).logits
        return logits.sum() * 0.0, logits


def llama(frozen):
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    config = LlamaConfig(**sizes, num_hidden_layers=2, num_key_value_heads=2, tie_word_embeddings=True)
    model = StillLlama(config)
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    return model


FIRST = "model.layers.0.input_layernorm.weight"


@pytest.mark.slow
@pytest.mark.parametrize("strength", [None, 0.4])
@pytest.mark.parametrize("frozen", [(), (FIRST, "model.embed_tokens.weight")])
@pytest.mark.parametrize("policy", ["guidelines", "final", "trainer"])
def test_the_trainer_with_tied_and_frozen_weights_and_accumulation(policy, frozen, strength, tmp_path):
    options = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 3, "learning_rate": 0.1}
    usual = {"weight_decay": 0.2, "report_to": [], "use_cpu": True, "save_strategy": "no", "disable_tqdm": True}
    args = GammaRegArguments(
        str(tmp_path), gamma_policy=policy, gamma_weight_decay=strength, max_grad_norm=0.0, **options, **usual
    )
    data = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 16
    trainer = GammaRegTrainer(llama(frozen), args, train_dataset=data)
    trainer.train()
    model, start = trainer.model, llama(frozen)
    plain = set(Trainer.get_decay_parameter_names(trainer, start))
    decides = decide(find_gammas(start, {"input_ids": torch.zeros(2, 4, dtype=torch.long)}), start, policy)
    found = by_name(trainer.optimizer.param_groups, model, "weight_decay")
    rates = [0.1 * (1 - step / 3) for step in range(3)]
    assert all(group["params"] for group in trainer.optimizer.param_groups)
    for name, parameter in start.named_parameters():
        decays = decides.get(name, name in plain)
        wanted = 0.0 if not decays else 0.2 if strength is None or name not in decides else strength
        if name in frozen:
            wanted = 0.0
            assert name not in found
        else:
            assert found[name] == wanted
        # One decay for each step, not for each of the batches that it accumulates.
        factor = torch.tensor([1 - rate * wanted for rate in rates]).prod()
        assert torch.allclose(model.get_parameter(name), parameter * factor, rtol=1e-5), name
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}

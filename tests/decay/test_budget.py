"""decay_budget against the real optimizers: what they do to a weight whose gradient stays 0."""

import copy
import warnings

import pytest
import timm.optim
import torch
from accelerate import Accelerator
from accelerate.scheduler import AcceleratedScheduler
from accelerate.state import AcceleratorState
from timm.optim import list_optimizers
from timm.optim.kron import Kron
from timm.scheduler import create_scheduler_v2
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from transformers import get_scheduler
from transformers.optimization import Adafactor

import hf_gammareg
from hf_gammareg.decay.budget import DecayBudget, decay_budget, decay_kind
from hf_gammareg.decay.optimizers import RULES, DecayKind, class_name, decay_rule
from hf_gammareg.errors import GammaRegError

STEPS = 40
LR, DECAY = 0.05, 0.3


def gamma(dtype=torch.float64):
    return torch.nn.Parameter(torch.full((6,), 1.5, dtype=dtype))


def timm_case(name):
    def build(parameters, **options):
        defaults = {"lr": LR, "weight_decay": DECAY}
        return timm.optim.create_optimizer_v2(parameters, name, **(defaults | options))

    return build


def torch_case(cls, **settings):
    def build(parameters, **options):
        return cls(parameters, **({"lr": LR, "weight_decay": DECAY} | settings | options))

    return build


def extra(module, cls, **settings):
    def build(parameters, **options):
        return torch_case(getattr(pytest.importorskip(module, exc_type=ImportError), cls), **settings)(
            parameters, **options
        )

    return build


CASES = {f"timm {name}": timm_case(name) for name in list_optimizers() if not name.startswith(("bnb", "fused"))}
CASES |= {f"timm lookahead {name}": timm_case(f"lookahead_{name}") for name in ("adamw", "momentum", "adam")}
CASES |= {
    "SGD": torch_case(torch.optim.SGD),
    "SGD, dampening": torch_case(torch.optim.SGD, momentum=0.8, dampening=0.4),
    "SGD, Nesterov": torch_case(torch.optim.SGD, momentum=0.8, nesterov=True),
    "SGD, maximize": torch_case(torch.optim.SGD, momentum=0.8, maximize=True),
    "Adam": torch_case(torch.optim.Adam),
    "Adam, decoupled": torch_case(torch.optim.Adam, decoupled_weight_decay=True),
    "NAdam, decoupled": torch_case(torch.optim.NAdam, decoupled_weight_decay=True),
    "Adafactor of torch": torch_case(torch.optim.Adafactor),
    "ASGD": torch_case(torch.optim.ASGD),
    "Adafactor of transformers": torch_case(Adafactor, relative_step=False, scale_parameter=False),
    "Adafactor of transformers, scaled": torch_case(Adafactor, relative_step=False),
    "Adafactor of timm, relative": timm_case("adafactor"),
    "AdaBelief, fixed decay": torch_case(timm.optim.AdaBelief, fixed_decay=True),
    "AdaBelief, coupled": torch_case(timm.optim.AdaBelief, decoupled_decay=False),
    "Adafactor of Big Vision, unscaled": torch_case(timm.optim.AdafactorBigVision, unscaled_wd=True),
    "Adafactor of Big Vision, unscaled, corrected": torch_case(
        timm.optim.AdafactorBigVision, unscaled_wd=True, corrected_weight_decay=True
    ),
    "MADGRAD without momentum": torch_case(timm.optim.MADGRAD, momentum=0, decoupled_decay=True),
    "Mars, one factor": torch_case(timm.optim.Mars, lr_1d_factor=0.4),
    "Mars, 1-d too": torch_case(timm.optim.Mars, lr_1d_factor=0.4, optimize_1d=True),
    "Muon, fallback rate": timm_case("muon"),
    "NvNovoGrad, averaging": torch_case(timm.optim.NvNovoGrad, grad_averaging=True),
    "Kron, random": torch_case(Kron, stochastic_weight_decay=True),
    "GaLore": extra("galore_torch", "GaLoreAdamW"),
    "GaLore, Adafactor": extra("galore_torch", "GaLoreAdafactor", relative_step=False, scale_parameter=False),
    "APOLLO": extra("apollo_torch", "APOLLOAdamW"),
    "GrokAdamW": extra("grokadamw", "GrokAdamW"),
    "StableAdamW": extra("optimi", "StableAdamW"),
    "schedule-free AdamW": extra("schedulefree", "AdamWScheduleFree"),
    "schedule-free SGD": extra("schedulefree", "SGDScheduleFree"),
    "schedule-free RAdam": extra("schedulefree", "RAdamScheduleFree"),
}
CASES |= {
    f"bitsandbytes {name}": extra("bitsandbytes.optim", name)
    for name in ("Adam", "Adam8bit", "AdamW", "AdamW8bit", "AdEMAMix", "Lion", "Lion8bit", "RMSprop")
}
CASES |= {f"torchao {name}": extra("torchao.optim", name) for name in ("AdamW4bit", "AdamW8bit")}
SETTINGS = {
    "Adafactor of timm, relative": {"lr": None},
    "Muon, fallback rate": {"adamw_lr": 0.4 * LR},
}


def waves(step):
    return 0.2 + 0.8 * ((step * 7) % 11) / 10


def run(optimizer, scheduler, weight, gradient=0.0, steps=STEPS):
    """Real steps with a constant gradient; 0 times the weight where an optimizer differentiates it again."""
    for _ in range(steps):
        loss = (gradient * weight).sum() + 0.0 * weight.square().sum()
        loss.backward(create_graph=getattr(optimizer, "is_second_order", False))
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()


def state_of(optimizer, scheduler):
    groups = [
        {key: copy.deepcopy(value) for key, value in group.items() if key != "params"}
        for group in optimizer.param_groups
    ]
    return groups, copy.deepcopy(scheduler.state_dict())


@pytest.fixture
def no_compiler(monkeypatch):
    # Kron compiles its steps, which takes half a minute.
    monkeypatch.setattr(torch, "compile", lambda function=None, **options: function or (lambda inner: inner))


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("case", CASES)
def test_it_is_what_the_optimizer_does(case, no_compiler):
    single = case.startswith(("bitsandbytes", "torchao"))
    weight = gamma(torch.float32 if single else torch.float64)
    optimizer = CASES[case]([weight], **SETTINGS.get(case, {}))
    if "schedule-free" in case:
        optimizer.train()
    relative = optimizer.param_groups[0]["lr"] is None
    scheduler = None if relative else LambdaLR(optimizer, waves)
    before = state_of(optimizer, scheduler) if scheduler else None
    budget = decay_budget(optimizer, scheduler, STEPS)
    assert scheduler is None or state_of(optimizer, scheduler) == before
    assert budget.kind == decay_kind(optimizer) != DecayKind.UNKNOWN
    (group,) = budget.groups
    assert group.weight_decay == DECAY
    if group.factor is None:
        assert group.note
        return
    run(optimizer, scheduler, weight)
    measured = (weight.detach() / 1.5).tolist()
    assert measured == pytest.approx([group.factor] * 6, rel=1e-5 if single else 1e-6)
    assert abs(group.factor - 1) > 0.05


def shift(case, gradient, steps):
    """What decay changes in a weight, at this constant gradient."""
    ends = []
    for decay in (DECAY, 0.0):
        torch.manual_seed(0)  # for Kron
        weight = gamma()
        optimizer = CASES[case]([weight], **(SETTINGS.get(case, {}) | {"weight_decay": decay}))
        run(optimizer, LambdaLR(optimizer, waves), weight, gradient, steps)
        ends.append(weight.detach()[0].item())
    return ends[0] - ends[1]


def cases(kind, *, rescaled=False):
    """The cases of one kind; with a trust ratio or a step after the decay the gradient has a part in one step too."""
    found = []
    for case, build in CASES.items():
        if build.__qualname__.startswith("extra") or any(
            word in case for word in ("lamb", "adan", "relative", "scaled")
        ):
            continue
        optimizer = build([gamma()], **SETTINGS.get(case, {}))
        rule = decay_rule(optimizer, optimizer.param_groups[0])
        if rule.kind == kind and (not rescaled or "rescales" in rule.note) and "trust" not in rule.note:
            found.append(case)
    return found


@pytest.mark.filterwarnings("ignore:Using backward")
@pytest.mark.parametrize("case", [case for case in cases(DecayKind.DECOUPLED) if "random" not in case])
def test_decoupled_decay_does_not_look_at_the_gradient(case, no_compiler):
    # Adopt does nothing in its first step, so both are 0 there.
    assert shift(case, 1.0, 1) == pytest.approx(shift(case, 50.0, 1), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("case", cases(DecayKind.COUPLED, rescaled=True))
def test_rescaled_decay_nearly_vanishes_beside_a_large_gradient(case):
    plain = -1.5 * (1 - decay_budget(torch.optim.SGD([gamma()], lr=LR, weight_decay=DECAY), steps=5).factor)
    assert abs(shift(case, 50.0, 5)) < 0.1 * abs(plain)


def test_every_class_of_the_table_is_measured():
    measured = set()
    for case, build in CASES.items():
        if not build.__qualname__.startswith("extra"):
            measured.add(class_name(build([gamma()], **SETTINGS.get(case, {}))))
    measured |= {"timm.optim.adamw.AdamWLegacy", class_name(torch.optim.Muon([torch.nn.Parameter(torch.ones(2, 2))]))}
    elsewhere = {name for name in RULES if name.split(".")[0] not in ("torch", "timm", "transformers")}
    assert measured - {"timm.optim.lookahead.Lookahead"} == RULES.keys() - elsewhere


def test_muon_of_torch():
    weight = torch.nn.Parameter(torch.ones(3, 3))
    optimizer = torch.optim.Muon([weight], lr=LR, weight_decay=DECAY)
    scheduler = LambdaLR(optimizer, waves)
    factor = decay_budget(optimizer, scheduler, STEPS).factor
    run(optimizer, scheduler, weight)
    assert weight.detach().flatten().tolist() == pytest.approx([factor] * 9, rel=1e-5)


SCHEDULES = {
    "lambda": lambda optimizer: LambdaLR(optimizer, waves),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, STEPS),
    "one cycle, which moves the momentum too": lambda optimizer: OneCycleLR(optimizer, LR, total_steps=STEPS + 1),
    "sequence": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, 0.1, total_iters=9), CosineAnnealingLR(optimizer, STEPS)], [9]
    ),
    "linear with warm-up of transformers": lambda optimizer: get_scheduler("linear", optimizer, 5, STEPS),
    "warm-up, stable, decay": lambda optimizer: get_scheduler(
        "warmup_stable_decay", optimizer, 5, STEPS, {"num_decay_steps": 10}
    ),
}


@pytest.mark.parametrize("wrap", ["plain", "lookahead"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedulers_of_torch_are_followed_and_left_alone(schedule, wrap):
    results = []
    for look in (True, False):
        weights = [gamma(), gamma(), gamma()]
        rates = [{"lr": LR}, {"lr": 0.3 * LR, "weight_decay": 0.1}, {"weight_decay": 0.0}]
        groups = [{"params": [w], "param_names": [f"w{i}"]} | rates[i] for i, w in enumerate(weights)]
        optimizer = torch.optim.SGD(groups, lr=LR, weight_decay=DECAY, momentum=0.8)
        optimizer = timm.optim.Lookahead(optimizer) if wrap == "lookahead" else optimizer
        scheduler = SCHEDULES[schedule](optimizer)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            budget = decay_budget(optimizer, scheduler, STEPS) if look else None
        for weight in weights:
            weight.grad = torch.zeros_like(weight)
        for _ in range(STEPS):
            optimizer.step()
            scheduler.step()
        ends = [(weight / 1.5)[0].item() for weight in weights]
        if budget:
            assert [group.names for group in budget.groups] == [("w0",), ("w1",)]
            assert [group.factor for group in budget.groups] == pytest.approx(ends[:2], rel=1e-9)
            assert budget.factor == min(group.factor for group in budget.groups)
        results.append((ends, state_of(optimizer, scheduler)))
    assert results[0] == results[1]


@pytest.mark.parametrize("by_epoch", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "step", "tanh", "poly"])
def test_schedulers_of_timm_are_followed_and_left_alone(schedule, by_epoch):
    weights, updates = [gamma(), gamma()], 5
    groups = [{"params": [w], "lr_scale": scale} for w, scale in zip(weights, (1.0, 0.4), strict=True)]
    optimizer = torch.optim.AdamW(groups, lr=LR, weight_decay=DECAY)
    options = {"num_epochs": 8, "warmup_epochs": 2, "warmup_lr": 1e-4, "decay_epochs": 3}
    scheduler, _ = create_scheduler_v2(
        optimizer,
        schedule,
        step_on_epochs=by_epoch,
        updates_per_epoch=updates,
        noise_pct=0.5,
        noise=(0.2, 0.9),
        **options,
    )
    before = state_of(optimizer, scheduler)
    budget = decay_budget(optimizer, scheduler, STEPS, updates_per_epoch=updates)
    assert state_of(optimizer, scheduler) == before
    for weight in weights:
        weight.grad = torch.zeros_like(weight)
    for step in range(1, STEPS + 1):
        optimizer.step()
        scheduler.step_update(step)
        if step % updates == 0:
            scheduler.step(step // updates)
    assert [group.factor for group in budget.groups] == pytest.approx([w[0].item() / 1.5 for w in weights], rel=1e-9)
    assert budget.groups[0].factor < budget.groups[1].factor


def test_what_accelerate_prepared():
    weight = gamma()
    optimizer = torch.optim.AdamW([weight], lr=LR, weight_decay=DECAY)
    scheduler = get_scheduler("linear", optimizer, 5, STEPS)
    plain = decay_budget(optimizer, scheduler, STEPS)
    accelerator = Accelerator(cpu=True)
    assert decay_budget(*accelerator.prepare(optimizer, scheduler), STEPS) == plain
    assert plain.optimizer == "AdamW"


@pytest.mark.parametrize("split", [False, True])
def test_a_prepared_scheduler_steps_once_for_each_process(split, monkeypatch):
    accelerator = Accelerator(cpu=True)
    monkeypatch.setitem(AcceleratorState._shared_state, "num_processes", 2)
    weight = gamma()
    optimizer = torch.optim.AdamW([weight], lr=LR, weight_decay=DECAY)
    scheduler = get_scheduler("linear", optimizer, 5, STEPS)
    prepared = AcceleratedScheduler(scheduler, accelerator.prepare(optimizer), split_batches=split)
    budget = decay_budget(optimizer, prepared, STEPS // 2)
    for _ in range(STEPS // 2):
        weight.grad = torch.zeros_like(weight)
        prepared.optimizers[0].step()
        prepared.step()
    assert budget.factor == pytest.approx(weight[0].item() / 1.5, rel=1e-9)


def test_given_learning_rates_are_those_of_the_schedule():
    optimizer = torch.optim.AdamW([{"params": [gamma()]}, {"params": [gamma()], "lr_scale": 0.5}], weight_decay=DECAY)
    rates = [LR * waves(step) for step in range(STEPS)]
    strong, weak = decay_budget(optimizer, learning_rates=rates).groups
    expected = torch.tensor([1 - rate * DECAY for rate in rates], dtype=torch.float64).prod().item()
    assert strong.factor == pytest.approx(expected)
    assert weak.factor == pytest.approx(
        torch.tensor([1 - rate / 2 * DECAY for rate in rates], dtype=torch.float64).prod().item()
    )


def test_momentum_makes_coupled_decay_stronger_by_1_over_1_minus_m():
    build = [torch.optim.SGD([gamma()], lr=1e-3, weight_decay=0.1, momentum=m) for m in (0.0, 0.9)]
    plain, momentum = (-torch.tensor(decay_budget(opt, steps=20_000).factor).log().item() for opt in build)
    assert momentum / plain == pytest.approx(10, rel=0.01)


LINES = {
    "a usual fine-tune": (
        lambda parameters: torch.optim.AdamW(parameters, lr=2e-5, weight_decay=0.01),
        2000,
        "decay alone will multiply a decayed gamma by 0.9996 over 2,000 steps (AdamW, decoupled); "
        "that is above 0.99: the choice can hardly matter in this run",
    ),
    "hardly any": (
        lambda parameters: torch.optim.AdamW(parameters, lr=1e-6, weight_decay=0.01),
        10,
        "decay alone will multiply a decayed gamma by 0.9999999 over 10 steps (AdamW, decoupled); "
        "that is above 0.99: the choice can hardly matter in this run",
    ),
    "strong": (
        lambda parameters: torch.optim.SGD(parameters, lr=0.1, weight_decay=5e-4, momentum=0.9),
        20_000,
        "decay alone will multiply a decayed gamma by 4.3e-05 over 20,000 steps (SGD, coupled; "
        "the decay runs through the momentum)",
    ),
    "Adam": (
        lambda parameters: torch.optim.Adam(parameters, weight_decay=0.1),
        10,
        "what decay alone will do to a gamma can't be given as a factor (Adam, coupled): "
        "the gradient's own size rescales it, so it has no factor of its own",
    ),
}


@pytest.mark.parametrize("line", LINES)
def test_lines(line):
    build, steps, text = LINES[line]
    budget = decay_budget(build([gamma()]), steps=steps)
    assert str(budget) == text
    assert budget.negligible == ("hardly" in text)
    assert budget.to_dict()["text"] == text
    assert budget.to_dict()["factor"] == budget.factor


def test_several_strengths_and_names():
    groups = [
        {"params": [gamma()], "weight_decay": 0.5, "param_names": ["a"]},
        {"params": [gamma(), gamma()], "weight_decay": 0.1, "param_names": ["b", "c"]},
        {"params": [gamma()], "weight_decay": 0.0, "param_names": ["d"]},
    ]
    optimizer = torch.optim.AdamW(groups, lr=0.1)
    everything = decay_budget(optimizer, steps=10)
    assert [(group.names, round(group.factor, 4)) for group in everything.groups] == [
        (("a",), round(0.95**10, 4)),
        (("b", "c"), round(0.99**10, 4)),
    ]
    assert "by 0.5987 to 0.9044 over 10 steps" in str(everything)
    assert [group.names for group in decay_budget(optimizer, steps=10, names=["module.c", "d"]).groups] == [("c",)]
    nothing = decay_budget(optimizer, steps=10, names=["d"])
    assert (nothing.factor, str(nothing)) == (1.0, "no gamma decays (AdamW, decoupled)")


class Mine(torch.optim.AdamW):
    """A subclass may do anything."""


def test_an_unknown_optimizer_is_not_guessed():
    optimizer = Mine([gamma()])
    budget = decay_budget(optimizer, steps=10)
    assert (budget.kind, budget.factor, budget.negligible) == (DecayKind.UNKNOWN, None, False)
    assert "can't be given as a factor (Mine, unknown): this library does not know" in str(budget)


def another_scheduler():
    return LambdaLR(torch.optim.AdamW([gamma()]), waves)


def epochs_of_timm(optimizer):
    return create_scheduler_v2(optimizer, "cosine", num_epochs=4)[0]


class Stubborn(LambdaLR):
    def __deepcopy__(self, memo):
        raise TypeError("no copies")


BAD = {
    "Expected either `steps`": lambda optimizer: decay_budget(optimizer),
    "found steps=3 and 1 learning rates": lambda optimizer: decay_budget(optimizer, steps=3, learning_rates=[0.1]),
    "1 learning rates and a scheduler": lambda optimizer: decay_budget(
        optimizer, LambdaLR(optimizer, waves), learning_rates=[0.1]
    ),
    "`steps` to be at least 0, found -1": lambda optimizer: decay_budget(optimizer, steps=-1),
    "found one of another AdamW": lambda optimizer: decay_budget(optimizer, another_scheduler(), 3),
    "ReduceLROnPlateau, which follows a metric": lambda optimizer: decay_budget(
        optimizer, ReduceLROnPlateau(optimizer), 3
    ),
    "PlateauLRScheduler, which follows a metric": lambda optimizer: decay_budget(
        optimizer, create_scheduler_v2(optimizer, "plateau")[0], 3
    ),
    "`updates_per_epoch` with CosineLRScheduler": lambda optimizer: decay_budget(
        optimizer, epochs_of_timm(optimizer), 3
    ),
    r"Stubborn \(TypeError: no copies\)": lambda optimizer: decay_budget(optimizer, Stubborn(optimizer, waves), 3),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_clear_error(message):
    with pytest.raises(GammaRegError, match=message):
        BAD[message](torch.optim.AdamW([gamma()]))


def test_it_is_at_the_front():
    assert hf_gammareg.decay_budget is decay_budget
    assert hf_gammareg.DecayBudget is DecayBudget

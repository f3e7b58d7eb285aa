"""The monitor: its numbers against those computed another way, and a run that is the same with it and without."""

import gc
import json
import math
import random
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from hf_gammareg import (
    GammaMonitor,
    GammaMonitorCallback,
    GammaRegArguments,
    GammaRegError,
    GammaRegTrainer,
    analyse,
    find_gammas,
)
from hf_gammareg.model.names import parameter_names
from hf_gammareg.watch.history import HISTORY_NAME, History, plot_history, read_history
from hf_gammareg.watch.probe import ResidualProbe


class Block(nn.Module):
    """conv, BatchNorm (absorbed), ReLU, conv, BatchNorm (last), beside the skip."""

    def __init__(self, width, dropout=0.0):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x):
        return torch.relu(x + self.dropout(self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))))


class Net(nn.Module):
    """A residual network that takes what the Trainer gives."""

    def __init__(self, width=4, blocks=2, dropout=0.0):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, width, 3), nn.BatchNorm2d(width)
        self.blocks = nn.Sequential(*(Block(width, dropout) for _ in range(blocks)))
        self.head = nn.Linear(width, 3)

    def forward(self, pixel_values, labels=None):
        logits = self.head(self.blocks(torch.relu(self.norm(self.stem(pixel_values)))).mean((2, 3)))
        return logits if labels is None else (nn.functional.cross_entropy(logits, labels), logits)


ROLES = {
    "trunk": ["norm.weight"],
    "absorbed": ["blocks.0.bn1.weight", "blocks.1.bn1.weight"],
    "last": ["blocks.0.bn2.weight", "blocks.1.bn2.weight"],
}
WHAT = ("mean", "min", "max", "near_zero")
EFFECTIVE = {"gamma/absorbed/effective_lr", "gamma/absorbed/effective_lr_adaptive"}


def net(seed=0, **options):
    torch.manual_seed(seed)
    model = Net(**options)
    for name, parameter in model.named_parameters():
        if "bn" in name or name.startswith("norm"):
            nn.init.normal_(parameter)
    return model


def pixels(count=6, seed=1):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def gammas_of(model):
    return find_gammas(model, pixels(2).to(model.head.weight.dtype))


def numbers(arrays):
    """What should be said of some gains."""
    sizes = np.abs(np.concatenate([np.asarray(array, dtype=np.float64) for array in arrays]))
    return dict(zip(WHAT, (sizes.mean(), sizes.min(), sizes.max(), (sizes < 0.01).mean()), strict=True))


def by_role(model, roles=ROLES):
    return {
        f"gamma/{role}/{what}": value
        for role, names in roles.items()
        for what, value in numbers([model.get_parameter(name).detach().numpy() for name in names]).items()
    }


# --- values ---------------------------------------------------------------------------------------------------------


def test_mean_min_max_and_share_near_0_by_role():
    model = net()
    with torch.no_grad():
        model.blocks[0].bn2.weight[:3] = torch.tensor([0.0, -0.009, 0.011])
    found = GammaMonitor(model, gammas_of(model)).measure(3)
    assert found == pytest.approx(by_role(model))
    assert found["gamma/last/near_zero"] == 2 / 8
    assert all(type(value) is float for value in found.values())


def test_the_threshold_can_be_set_and_must_be_a_positive_number():
    model = net()
    sizes = np.concatenate([model.get_parameter(name).detach().abs().numpy() for name in ROLES["last"]])
    found = GammaMonitor(model, gammas_of(model), near_zero=0.5).measure(0)
    assert 0 < found["gamma/last/near_zero"] == (sizes < 0.5).mean() < 1
    for wrong in (0, -1.0, math.nan, math.inf, "small"):
        with pytest.raises(GammaRegError, match="near_zero"):
            GammaMonitor(model, gammas_of(model), near_zero=wrong)


class OnePlus(nn.Module):
    """An RMSNorm that multiplies by 1 + w, as Gemma's."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * (1.0 + self.weight)


def test_a_zero_centred_gamma_counts_as_the_gain_that_it_is():
    model = nn.Sequential(nn.Linear(4, 4), OnePlus(4), nn.Linear(4, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    weight = torch.tensor([-1.0, -2.0, 0.5, 0.0])
    model[1].weight.data.copy_(weight)
    gammas = find_gammas(model, torch.randn(2, 4))
    assert next((g.name, str(g.role), g.zero_centered) for g in gammas) == ("1.weight", "absorbed", True)
    found = GammaMonitor(model, gammas).measure(1, lr=0.1)
    gains = 1 + weight.numpy()
    assert found["gamma/absorbed/mean"] == pytest.approx(np.abs(gains).mean())
    assert (found["gamma/absorbed/min"], found["gamma/absorbed/max"]) == (0.0, 1.5)
    assert found["gamma/absorbed/near_zero"] == 0.25
    assert found["gamma/absorbed/effective_lr"] == pytest.approx(0.1 / (gains**2).mean())


# --- the effective learning rate ------------------------------------------------------------------------------------


def test_effective_learning_rate_of_layers_with_rates_of_their_own():
    model = net()
    first, second = (model.get_parameter(name).detach().double().numpy() for name in ROLES["absorbed"])
    others = [p for n, p in model.named_parameters() if n not in ROLES["absorbed"]]
    groups = [{"params": [model.blocks[0].bn1.weight], "lr": 0.3}, {"params": [model.blocks[1].bn1.weight], "lr": 0.01}]
    optimizer = torch.optim.SGD([*groups, {"params": others, "lr": 9.0}], lr=1.0)
    monitor = GammaMonitor(model, gammas_of(model))
    expected = {
        "gamma/absorbed/effective_lr": math.sqrt(0.3 / (first**2).mean() * 0.01 / (second**2).mean()),
        "gamma/absorbed/effective_lr_adaptive": math.sqrt(
            0.3 / math.sqrt((first**2).mean()) * 0.01 / math.sqrt((second**2).mean())
        ),
    }
    rates = dict(zip(ROLES["absorbed"], (0.3, 0.01), strict=True))
    wrapped = {f"module.{name}": rate for name, rate in rates.items()}
    for lr in (optimizer, rates, wrapped):
        found = monitor.measure(1, lr)
        assert {key: found[key] for key in EFFECTIVE} == pytest.approx(expected)
    assert not EFFECTIVE & monitor.measure(1).keys()
    with pytest.raises(GammaRegError, match="found list"):
        monitor.measure(1, [0.1])
    assert monitor.measure(1, torch.tensor(0.5)) == monitor.measure(1, 0.5)
    assert monitor.measure(1, 0.0)["gamma/absorbed/effective_lr"] == 0.0


def test_frozen_gammas_are_measured_and_have_no_learning_rate():
    model = net()
    model.blocks[0].bn1.weight.requires_grad_(False)
    second = model.blocks[1].bn1.weight.detach().double()
    found = GammaMonitor(model, gammas_of(model)).measure(1, lr=0.2)
    assert found == pytest.approx(by_role(model) | {key: found[key] for key in EFFECTIVE})
    assert found["gamma/absorbed/effective_lr"] == pytest.approx(0.2 / second.square().mean().item())
    model.requires_grad_(False)
    assert not EFFECTIVE & GammaMonitor(model, gammas_of(model)).measure(1, lr=0.2).keys()


def test_a_layer_whose_gains_are_all_0_has_no_effective_learning_rate():
    model = net()
    nn.init.zeros_(model.blocks[0].bn1.weight)
    second = model.blocks[1].bn1.weight.detach().double()
    found = GammaMonitor(model, gammas_of(model)).measure(1, lr=0.2)
    assert found["gamma/absorbed/effective_lr"] == pytest.approx(0.2 / second.square().mean().item())
    nn.init.zeros_(model.blocks[1].bn1.weight)
    assert not EFFECTIVE & GammaMonitor(model, gammas_of(model)).measure(1, lr=0.2).keys()


@pytest.mark.parametrize(
    ("key", "power", "make"),
    [
        ("effective_lr", 2, lambda pair, lr: torch.optim.SGD(pair, lr=lr)),
        ("effective_lr_adaptive", 1, lambda pair, lr: torch.optim.Adam(pair, lr=lr, eps=1e-30)),
    ],
)
def test_equal_effective_rates_turn_gamma_and_beta_alike(key, power, make):
    """c times the pair, with c to this power times the rate, goes the same way; with the same rate it does not."""

    def step(factor, lr):
        model = net().double()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps = 1e-12
        layer = model.blocks[0].bn1
        layer.weight.data *= factor
        layer.bias.data *= factor
        found = GammaMonitor(model, gammas_of(model)).measure(0, {ROLES["absorbed"][0]: lr})
        optimizer = make([layer.weight, layer.bias], lr)
        model(pixels().double(), torch.arange(6) % 3)[0].backward()
        optimizer.step()
        pair = torch.cat([layer.weight, layer.bias]).detach() / factor
        return found[f"gamma/absorbed/{key}"], pair / pair.norm()

    rate, turned = step(1.0, 0.1)
    scaled_rate, scaled = step(3.0, 0.1 * 3.0**power)
    other_rate, other = step(3.0, 0.1)
    assert scaled_rate == pytest.approx(rate)
    assert torch.allclose(scaled, turned, rtol=0, atol=1e-8)
    assert other_rate == pytest.approx(rate / 3.0**power)
    assert (other - turned).abs().max() > 1e-4


# --- the model as others hold it ------------------------------------------------------------------------------------


def test_wrapped_models_and_other_types_of_number():
    model = net()
    gammas, expected = gammas_of(model), by_role(model)
    compiled = torch.compile(nn.DataParallel(model), backend="eager")
    assert set(parameter_names(compiled).parameters) >= set(gammas.names)
    assert GammaMonitor(compiled, gammas).measure(0) == pytest.approx(expected)
    half = net().to(torch.bfloat16)
    assert GammaMonitor(half, gammas).measure(0) == pytest.approx(by_role(half.float()))


def test_another_model_or_one_without_values_is_an_error():
    gammas = gammas_of(net())
    with pytest.raises(GammaRegError, match=r"none called 'blocks.1.bn1.weight', 'blocks.1.bn2.weight' \(it has"):
        GammaMonitor(net(blocks=1), gammas).measure(0)
    with pytest.raises(GammaRegError, match="meta device"):
        GammaMonitor(net().to("meta"), gammas).measure(0)


@pytest.mark.slow
def test_importing_the_monitor_brings_neither_transformers_nor_timm_nor_matplotlib():
    code = "import sys, hf_gammareg; hf_gammareg.GammaMonitor; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"transformers", "timm", "matplotlib"} & set(run.stdout.split())
    assert "hf_gammareg.watch.monitor" in run.stdout.split()


# --- the probe ------------------------------------------------------------------------------------------------------


def everything(model):
    """All that a look at a model might change."""
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [module.training for module in model.modules()],
        "grads": [None if p.grad is None else p.grad.clone() for p in model.parameters()],
        "hooks": [(len(m._forward_hooks), sorted(m.__dict__)) for m in model.modules()],
        "torch": torch.get_rng_state(),
        "python": random.getstate(),
        "numpy": np.random.get_state()[1].copy(),
    }


def assert_untouched(model, before):
    now = everything(model)
    assert all(torch.equal(now["state"][name], value) for name, value in before["state"].items())
    grads = zip(now["grads"], before["grads"], strict=True)
    assert all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in grads)
    assert torch.equal(now["torch"], before["torch"])
    assert (now["numpy"] == before["numpy"]).all()
    assert all(now[key] == before[key] for key in ("modes", "hooks", "python"))


def hooked_variances(model, batch):
    """Branch and skip at each block's sum, by hooks on a copy that is run in train mode."""
    found = []
    for block in model.blocks:
        seen = {}
        hooks = [
            block.register_forward_pre_hook(lambda _, given, seen=seen: seen.update(skip=given[0])),
            block.bn2.register_forward_hook(lambda *a, seen=seen: seen.update(branch=a[2])),
        ]
        found.append((seen, hooks))
    with torch.no_grad():
        model.train()(batch)
    for _, hooks in found:
        for hook in hooks:
            hook.remove()
    return [(seen["branch"].numpy().var(), seen["skip"].numpy().var()) for seen, _ in found]


@pytest.mark.parametrize("training", [True, False])
def test_branch_and_skip_at_each_sum_and_nothing_is_touched(training):
    model = net(dropout=0.5).train(training)
    model(pixels(), torch.arange(6) % 3)[0].backward()  # gradients and statistics that must stay
    expected = hooked_variances(_without_dropout(model), pixels())
    before = everything(model)
    monitor = GammaMonitor(model, gammas_of(model), probe=pixels())
    found = monitor.measure(1)
    assert_untouched(model, before)
    for number, (branch, skip) in enumerate(expected):
        assert found[f"gamma/residual/branch/{number:03d}"] == pytest.approx(branch, rel=1e-5)
        assert found[f"gamma/residual/skip/{number:03d}"] == pytest.approx(skip, rel=1e-5)
        assert found[f"gamma/residual/ratio/{number:03d}"] == pytest.approx(branch / skip, rel=1e-5)
    assert len([key for key in found if key.startswith("gamma/residual/")]) == 3 * len(expected)
    assert monitor.residual_modules == ("blocks.0", "blocks.1")


def _without_dropout(model):
    replica = net(dropout=0.0)
    replica.load_state_dict(model.state_dict())
    return replica


def test_the_probe_sees_the_weights_as_they_are_now():
    model = net()
    probe = ResidualProbe(model, pixels())
    first = probe.measure()
    with torch.no_grad():
        model.blocks[0].bn2.weight *= 3.0
        model.blocks[0].bn2.bias *= 3.0
    second = probe.measure()
    assert second[0].branch == pytest.approx(9 * first[0].branch)
    assert second[0].skip == first[0].skip
    expected = hooked_variances(_without_dropout(model), pixels())
    assert [(s.branch, s.skip) for s in second] == [pytest.approx(pair, rel=1e-5) for pair in expected]
    nn.init.zeros_(model.blocks[1].bn2.weight)
    nn.init.zeros_(model.blocks[1].bn2.bias)
    assert probe.measure()[1].ratio == 0.0


def test_a_probe_by_an_analysis_traces_nothing_again_and_holds_no_parameters(traced):
    model = net(dropout=0.5)
    expected = ResidualProbe(model, pixels()).measure()
    analysis = analyse(model, pixels())
    for kind in traced.values():
        kind.clear()
    probe = ResidualProbe(model, analysis)
    assert probe.measure() == expected
    assert traced == {"export": [], "draft": [], "copy": []}
    held = weakref.ref(model.norm.weight)
    model.norm.weight = nn.Parameter(model.norm.weight.detach().clone())
    del analysis
    gc.collect()
    assert held() is None
    assert probe.measure() == expected


class Bounded(nn.Module):
    """x + a branch that ends in ReLU6, in place, after a norm with a large eps: neither may be idealised."""

    def __init__(self):
        super().__init__()
        self.norm, self.linear, self.act = nn.LayerNorm(4, eps=1.0), nn.Linear(4, 4), nn.ReLU6(inplace=True)

    def forward(self, x):
        return x + self.act(50 * self.linear(self.norm(x)))


def test_the_probe_computes_what_the_model_computes():
    torch.manual_seed(0)
    model, batch = Bounded(), torch.randn(16, 4)
    branch = (model(batch) - batch).detach().numpy()
    assert branch.max() == pytest.approx(6.0, abs=1e-5)
    (total,) = ResidualProbe(model, (batch,)).measure()
    assert total.branch == pytest.approx(branch.var(), rel=1e-4)
    assert total.skip == pytest.approx(batch.numpy().var(), rel=1e-5)


class Chained(nn.Module):
    """A sum of three, whose operands are needed again after it."""

    def __init__(self):
        super().__init__()
        self.start, self.one, self.two = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x):
        skip = self.start(x)
        one, two = self.one(skip), self.two(skip)
        total = skip + one + two
        return torch.cat([total, skip * one, two], dim=1)


def test_several_branches_count_as_their_sum():
    torch.manual_seed(0)
    model, batch = Chained(), torch.randn(16, 4)
    skip = model.start(batch)
    branch = (model.one(skip) + model.two(skip)).detach().numpy()
    (total,) = ResidualProbe(model, batch).measure()
    assert (total.branch, total.skip) == pytest.approx((branch.var(), skip.detach().numpy().var()), rel=1e-5)


@pytest.fixture
def fresh_accelerate():
    """accelerate keeps its settings for a process; others' tests have theirs."""
    from accelerate.state import AcceleratorState, GradientState

    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_the_probe_looks_past_autocast(fresh_accelerate):
    from accelerate import Accelerator

    model = net()
    expected = hooked_variances(_without_dropout(model), pixels())
    prepared = Accelerator(cpu=True, mixed_precision="bf16").prepare(model)
    forward = prepared.__dict__["forward"]
    found = ResidualProbe(prepared, pixels()).measure()
    assert [(s.branch, s.skip) for s in found] == [pytest.approx(pair, rel=1e-5) for pair in expected]
    assert prepared.__dict__["forward"] is forward
    assert prepared(pixels()).isfinite().all()


class Opaque(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)

    def forward(self, x):
        return x + self.norm(torch.from_numpy(x.detach().numpy() * 2))


def test_a_model_that_can_not_be_traced_has_no_probe():
    with pytest.raises(GammaRegError, match="to probe its residual sums"):
        ResidualProbe(Opaque(), torch.randn(2, 4)).measure()


# --- the history ----------------------------------------------------------------------------------------------------


def test_the_history_has_each_step_once(tmp_path):
    model = net()
    path = tmp_path / "deep" / HISTORY_NAME
    monitor = GammaMonitor(model, gammas_of(model), history=path)
    kept = {step: monitor.measure(step, lr=0.1) for step in (0, 10, 20, 30)}
    assert [json.loads(line) for line in path.read_text().splitlines()] == [{"step": s, **kept[s]} for s in kept]
    # Killed after a checkpoint at step 15, in the middle of a line.
    with path.open("a") as file:
        file.write('{"step": 40, "gamma/la')
    monitor = GammaMonitor(model, gammas_of(model), history=path)
    monitor.resume(15)
    assert [row["step"] for row in read_history(path)] == [0, 10]
    for step in (20, 30):
        monitor.measure(step, lr=0.1)
    assert [row["step"] for row in read_history(path)] == [0, 10, 20, 30]
    # A loop that does not call `resume`, and one that begins anew in the same folder.
    GammaMonitor(model, gammas_of(model), history=path).measure(20)
    assert [row["step"] for row in read_history(path)] == [0, 10, 20]
    GammaMonitor(model, gammas_of(model), history=path).measure(0)
    assert [row["step"] for row in read_history(path)] == [0]


def test_what_is_not_finite_is_valid_json(tmp_path):
    history = History(tmp_path / "h.jsonl")
    history.append(1, {"a": math.nan, "b": math.inf, "c": 1.5})

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(history.path.read_text(), parse_constant=refuse) == {"step": 1, "a": None, "b": None, "c": 1.5}
    history.append(1, {"c": 2.5})
    assert read_history(history.path) == [{"step": 1, "c": 2.5}]


@pytest.mark.parametrize("text", ["no json\n", '{"step": 2}\n{"step": 1}\n', '{"mean": 1}\n', "[1]\n"])
def test_another_file_is_never_overwritten(text, tmp_path):
    path = tmp_path / HISTORY_NAME
    path.write_text(text)
    with pytest.raises(GammaRegError, match="Expected the history of a run's gammas"):
        History(path).append(3, {"mean": 1.0})
    assert path.read_text() == text


def test_the_plot_draws_the_means_of_the_history(tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    drawn = []
    save = Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (drawn.append(self), save(self, *a, **k)))
    history = History(tmp_path / HISTORY_NAME)
    rows = [(0, {"gamma/last/mean": 1.0, "gamma/trunk/mean": 1.0, "gamma/last/min": 0.5})]
    rows += [(5, {"gamma/last/mean": 0.25, "gamma/trunk/mean": math.nan})]
    for step, values in rows:
        history.append(step, values)
    path = plot_history(history.path)
    assert path == tmp_path / "gamma_history.png"
    assert path.read_bytes().startswith(b"\x89PNG")
    lines = {line.get_label(): line.get_xydata().tolist() for line in drawn[0].axes[0].get_lines()}
    assert lines == {"trunk": [[0, 1]], "last": [[0, 1], [5, 0.25]]}


def test_what_keeps_the_plot_from_being_drawn_is_said(tmp_path, monkeypatch):
    model = net()
    monitor = GammaMonitor(model, gammas_of(model))
    with pytest.raises(GammaRegError, match="with a history to draw"):
        monitor.plot()
    with pytest.raises(GammaRegError, match="Expected the history of a run's gammas"):
        plot_history(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(GammaRegError, match="Measure at least once"):
        plot_history(tmp_path / "empty.jsonl")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(GammaRegError, match="Expected matplotlib"):
        plot_history(tmp_path / "empty.jsonl")


# --- the Trainer ----------------------------------------------------------------------------------------------------


def data(count=16):
    return [{"pixel_values": image, "labels": index % 3} for index, image in enumerate(pixels(count))]


def run(folder, callbacks=(), cls=GammaRegTrainer, model=None, **options):
    usual = {"max_steps": 4, "logging_steps": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01}
    usual |= {"weight_decay": 0.1, "report_to": [], "use_cpu": True, "disable_tqdm": True, "save_strategy": "no"}
    kind = GammaRegArguments if cls is GammaRegTrainer else TrainingArguments
    model = net(dropout=0.3) if model is None else model
    args = kind(str(folder), **(usual | options))
    return cls(model=model, args=args, train_dataset=data(), callbacks=list(callbacks))


def logged(trainer):
    return {entry["step"]: entry for entry in trainer.state.log_history if "gamma/last/mean" in entry}


class Snapshots(TrainerCallback):
    """What the gammas should be at each step, and the rate of the optimizer then."""

    def __init__(self):
        self.seen = {}

    def on_step_end(self, args, state, control, model=None, **kwargs):
        self.seen[state.global_step] = by_role(model)


@pytest.mark.slow
@pytest.mark.parametrize("cls", [GammaRegTrainer, Trainer])
def test_the_trainer_logs_the_gammas_with_its_loss(cls, tmp_path):
    snapshots, monitor = Snapshots(), GammaMonitorCallback()
    trainer = run(tmp_path, [snapshots], cls)
    initial = by_role(trainer.model)
    trainer.add_callback(monitor if cls is GammaRegTrainer else GammaMonitorCallback(trainer))
    trainer.train()
    found = logged(trainer)
    assert list(found) == [2, 4]
    for step, entry in found.items():
        assert {key: entry[key] for key in snapshots.seen[step]} == pytest.approx(snapshots.seen[step])
        assert entry.keys() - snapshots.seen[step].keys() == EFFECTIVE | {"epoch", "step"}
    rows = read_history(tmp_path / HISTORY_NAME)
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert {key: rows[0][key] for key in initial} == pytest.approx(initial)
    assert [{key: entry[key] for key in row} for row, entry in zip(rows[1:], found.values(), strict=True)] == rows[1:]
    assert (tmp_path / "gamma_history.png").is_file()
    losses = [entry for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2


def test_the_effective_rate_goes_by_the_rate_of_that_step(tmp_path):
    trainer = run(tmp_path, [GammaMonitorCallback()], lr_scheduler_type="linear", logging_steps=1)
    trainer.train()
    entries = [entry for entry in trainer.state.log_history if "learning_rate" in entry]
    last = logged(trainer)[4]
    squares = [trainer.model.get_parameter(name).detach().double().square().mean().item() for name in ROLES["absorbed"]]
    rates = [group["lr"] for group in trainer.optimizer.param_groups]
    assert last["gamma/absorbed/effective_lr"] == pytest.approx(rates[0] / math.sqrt(squares[0] * squares[1]))
    assert len({entry["learning_rate"] for entry in entries}) == 4


@pytest.mark.slow
@pytest.mark.parametrize("cls", [GammaRegTrainer, Trainer])
def test_training_is_bit_for_bit_the_same_with_the_monitor(cls, tmp_path):
    ends, trainers = [], []
    for watch in (False, True):
        trainer = run(tmp_path / str(watch), cls=cls)  # sets the seed
        if watch:
            trainer.add_callback(GammaMonitorCallback(trainer, probe=pixels()))
        trainer.train()
        trainers.append(trainer)
        losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
        ends.append((losses, torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()))
    assert ends[0] == ends[1]
    plain, watched = trainers
    states = [trainer.model.state_dict() for trainer in trainers]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][name]) for name, value in states[0].items())
    assert states[0]["norm.running_mean"].abs().max() > 0
    assert "gamma/residual/ratio/001" in logged(watched)[4]
    assert not logged(plain)


def scalars(folder):
    """What TensorBoard shows of a folder: `{tag: {step: value}}`."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for path in folder.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path)).Reload()
        for tag in events.Tags()["scalars"]:
            found.setdefault(tag, {}).update({event.step: event.value for event in events.Scalars(tag)})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("cls", [GammaRegTrainer, Trainer])
def test_tensorboard_gets_the_values_through_the_trainer(cls, tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = run(tmp_path / "out", cls=cls, report_to=["tensorboard"])
    trainer.add_callback(GammaMonitorCallback() if cls is GammaRegTrainer else GammaMonitorCallback(trainer))
    trainer.train()
    shown, rows = scalars(tmp_path / "board"), read_history(tmp_path / "out" / HISTORY_NAME)[1:]
    for key in rows[0].keys() - {"step"}:
        expected = {row["step"]: row[key] for row in rows}
        assert shown[f"train/{key}"] == pytest.approx(expected, rel=1e-6), key
    assert shown["train/loss"].keys() == {2, 4}


def test_plain_trainer_without_the_trainer_says_what_is_missed(tmp_path, monkeypatch, caplog):
    pytest.importorskip("tensorboard")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "board"))
    trainer = run(tmp_path, [GammaMonitorCallback()], Trainer, report_to=["tensorboard"])
    trainer.train()
    assert "tensorboard may miss the values" in caplog.text
    assert [row["step"] for row in read_history(tmp_path / HISTORY_NAME)] == [0, 2, 4]
    assert list(logged(trainer)) == [2, 4]


def test_entries_of_others_are_not_measured(tmp_path):
    class Chatty(GammaRegTrainer):
        def compute_loss(self, model, inputs, **kwargs):
            self.log({"loss": 1.0})
            return super().compute_loss(model, inputs, **kwargs)

    monitor = GammaMonitorCallback()
    trainer = run(tmp_path, [monitor], model=net())
    chatty = Chatty(model=trainer.model, args=trainer.args, train_dataset=data(), callbacks=[monitor])
    chatty.eval_dataset = data(4)
    chatty.train()
    chatty.evaluate()
    assert list(logged(chatty)) == [2, 4]


@pytest.mark.slow
def test_an_interrupted_run_resumes_its_history(tmp_path):
    options = {"logging_steps": 1, "save_strategy": "steps", "save_steps": 2, "max_steps": 6}
    whole = run(tmp_path / "whole", [GammaMonitorCallback()], **options)
    whole.train()

    class Killed(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 4:  # after the checkpoint of step 2, after step 3 was logged
                raise KeyboardInterrupt

    killed = run(tmp_path / "killed", [GammaMonitorCallback(), Killed()], **options)
    with pytest.raises(KeyboardInterrupt):
        killed.train()
    history = tmp_path / "killed" / HISTORY_NAME
    assert [row["step"] for row in read_history(history)] == [0, 1, 2, 3]
    resumed = run(tmp_path / "killed", [GammaMonitorCallback()], model=net(seed=3, dropout=0.3), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "killed" / "checkpoint-2"))
    assert history.read_text() == (tmp_path / "whole" / HISTORY_NAME).read_text()
    assert [row["step"] for row in read_history(history)] == list(range(7))


def test_a_run_without_matplotlib_ends_well(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None)
    run(tmp_path, [GammaMonitorCallback()]).train()
    assert not (tmp_path / "gamma_history.png").exists()
    assert len(read_history(tmp_path / HISTORY_NAME)) == 3


def test_the_roles_of_plain_trainer_can_be_given(tmp_path):
    model = net()
    trainer = run(tmp_path, [GammaMonitorCallback(gammas=gammas_of(model), plot=False)], Trainer, model=model)
    trainer.train()
    assert list(logged(trainer)) == [2, 4]
    assert not (tmp_path / "gamma_history.png").exists()


def test_an_accelerate_loop_logs_to_its_trackers(fresh_accelerate, tmp_path):
    pytest.importorskip("tensorboard")
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(tmp_path))
    accelerator.init_trackers("loop")
    model = net()
    monitor = GammaMonitor(model, gammas_of(model), history=tmp_path / HISTORY_NAME)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    measured = {}
    for step in (1, 2):
        accelerator.backward(model(pixels(), torch.arange(6) % 3)[0])
        optimizer.step()
        optimizer.zero_grad()
        measured[step] = monitor.measure(step, optimizer)
        accelerator.log(measured[step], step=step)
    accelerator.end_training()
    shown = scalars(tmp_path)
    assert measured[1].keys() == by_role(model).keys() | EFFECTIVE
    for key in measured[1]:
        assert shown[key] == pytest.approx({step: values[key] for step, values in measured.items()}, rel=1e-6)

"""How often a Trainer's model is traced, and with what: once, and with nothing that can't be right."""

import json

import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification

from hf_gammareg import GammaMonitorCallback, GammaRegArguments, GammaRegError, GammaRegTrainer, find_gammas
from hf_gammareg.trainer.looking import look
from hf_gammareg.watch.history import HISTORY_NAME, read_history
from hf_gammareg.watch.probe import ResidualProbe

pytestmark = pytest.mark.slow


def vit():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


def pixels(count=6, size=8):
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def data():
    return [{"pixel_values": image, "labels": index % 3} for index, image in enumerate(pixels(8))]


class Stream(IterableDataset):
    def __iter__(self):
        yield from data()


class Silent(nn.Module):
    """Has no configuration that says what it takes."""

    def __init__(self):
        super().__init__()
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 2)

    def forward(self, x, labels=None):
        logits = self.head(self.norm(x))
        return nn.functional.cross_entropy(logits, labels), logits


def run(folder, *callbacks, model=None, train_dataset=None, cls=GammaRegTrainer):
    kind = GammaRegArguments if cls is GammaRegTrainer else TrainingArguments
    usual = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True}
    args = kind(str(folder), save_strategy="no", disable_tqdm=True, **usual)
    model = vit() if model is None else model
    trainer = cls(model=model, args=args, train_dataset=train_dataset or data(), callbacks=list(callbacks))
    if cls is Trainer:
        for callback in callbacks:
            callback.trainer = trainer
    return trainer


@pytest.fixture(scope="module")
def measured():
    """What a probe finds by itself, before training."""
    return ResidualProbe(vit(), pixels()).measure()


ALIKE = {
    "as collated": lambda: {"pixel_values": pixels(), "labels": torch.arange(6) % 3},
    "without labels": lambda: {"pixel_values": pixels()},
    "a tensor": pixels,
}


@pytest.mark.parametrize("cls", [GammaRegTrainer, Trainer])
@pytest.mark.parametrize("probe", ALIKE)
def test_roles_and_probe_take_one_export(cls, probe, measured, tmp_path, traced):
    monitor = GammaMonitorCallback(probe=ALIKE[probe](), plot=False)
    trainer = run(tmp_path, monitor, cls=cls)
    trainer.train()
    assert traced == {"export": [trainer.model], "draft": [], "copy": []}
    assert monitor.monitor.gammas == find_gammas(vit(), {"pixel_values": pixels(2), "labels": torch.tensor([0, 1])})
    first = read_history(tmp_path / HISTORY_NAME)[0]
    expected = {f"gamma/residual/ratio/{n:03d}": total.ratio for n, total in enumerate(measured)}
    assert {key: first[key] for key in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    "probe",
    [pixels(1), pixels().double(), {"pixel_values": pixels(), "interpolate_pos_encoding": True}],
    ids=["one row", "another type", "another argument"],
)
def test_a_probe_of_another_kind_has_no_say_in_the_roles(probe, traced):
    batch = {"pixel_values": pixels(2), "labels": torch.tensor([0, 1])}
    analysis, probed = look(vit(), lambda: batch, probe=probe)
    assert not probed
    assert analysis.kwargs["pixel_values"] is batch["pixel_values"]
    assert len(traced["export"]) == 1


def test_a_probe_that_does_not_fit_leaves_the_roles_to_the_examples():
    batch = {"pixel_values": pixels(2), "labels": torch.tensor([0, 1])}
    analysis, probed = look(vit(), lambda: batch, probe=pixels(size=12))
    assert not probed
    assert analysis.kwargs["pixel_values"] is batch["pixel_values"]
    assert analysis.gammas.counts == {"final": 1, "last": 4}


def test_a_stream_is_traced_once_with_inputs_from_the_configuration(tmp_path, traced):
    trainer = run(tmp_path, train_dataset=Stream())
    trainer.train()
    assert trainer.gammas.counts == {"final": 1, "last": 4}
    assert traced == {"export": [trainer.model], "draft": [], "copy": []}


def test_nothing_is_traced_where_nothing_is_known_of_the_inputs(tmp_path, traced):
    trainer = run(tmp_path, model=Silent(), train_dataset=Stream())
    assert trainer.gammas.counts == {"unknown": 1}
    assert "Pass example_inputs" in trainer.gammas["norm.weight"].reason
    assert traced == {"export": [], "draft": [], "copy": []}
    with pytest.raises(GammaRegError, match="Pass example_inputs"):
        look(Silent(), lambda: None)


def test_arguments_that_forward_does_not_take_are_not_traced(traced):
    found = find_gammas(Silent(), {"y": torch.zeros(2, 4)})
    assert "Expected example inputs that Silent.forward takes" in found["norm.weight"].reason
    assert traced == {"export": [], "draft": [], "copy": []}


def test_what_the_model_refuses_is_not_traced_in_other_ways(traced):
    model = vit()
    analysis, _ = look(model, lambda: {"pixel_values": pixels(2, size=5)})
    assert analysis.gammas.counts == {"final": 1, "last": 4}
    # In train and in eval mode, and then with inputs from the configuration.
    assert traced == {"export": [model] * 3, "draft": [], "copy": []}


def head_alone(model):
    model.vit.requires_grad_(False)


def biases(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" in name)


def adapter(model):
    peft = pytest.importorskip("peft")
    return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["classifier"]))


@pytest.mark.parametrize("freeze", [head_alone, biases, adapter])
def test_where_no_gamma_is_trained_nothing_is_traced_and_no_example_read(freeze, tmp_path, traced, monkeypatch, caplog):
    model = vit()
    model = freeze(model) or model
    assert any(parameter.requires_grad for parameter in model.parameters())
    trainer = run(tmp_path, model=model)
    monkeypatch.setattr(GammaRegTrainer, "gamma_example_inputs", lambda self: pytest.fail("examples were read"))
    for models in traced.values():
        models.clear()
    with caplog.at_level("INFO"):
        trainer.train()
    assert traced == {"export": [], "draft": [], "copy": []}
    assert trainer.gammas.counts == {"unknown": 5}
    assert {gamma.reason for gamma in trainer.gammas} == {"It is not trained, nor is any gamma, so nothing was traced."}
    report = json.loads((tmp_path / "gamma_report.json").read_text())
    assert report["source"] == "none: no gamma is trained"
    assert report["summary"].endswith("5 more are frozen; none is trained, so nothing was traced.")
    assert [record.levelname for record in caplog.records if report["summary"] in record.message] == ["INFO"]


def test_a_gamma_that_is_set_free_before_the_optimizer_is_made_has_its_role(tmp_path, traced):
    model = vit()
    head_alone(model)
    trainer = run(tmp_path, model=model)
    assert trainer.gammas.counts == {"unknown": 5}
    model.vit.layernorm.requires_grad_()
    trainer.train()
    assert traced["export"] == [model]
    assert [str(gamma.role) for gamma in trainer.gammas if gamma.trainable] == ["final"]


class Loose(nn.Module):
    """Its gain belongs to no module called norm."""

    def __init__(self):
        super().__init__()
        self.gain, self.head = nn.Parameter(torch.ones(4)), nn.Linear(4, 2).requires_grad_(False)

    def forward(self, x):
        return self.head(nn.functional.layer_norm(x, (4,)) * self.gain)


def test_a_gain_that_nothing_calls_one_is_looked_for(traced):
    model = Loose()
    analysis, _ = look(model, lambda: {"x": torch.randn(2, 4)})
    assert analysis.gammas.names == ("gain",)
    model.requires_grad_(False)
    assert not look(model, lambda: pytest.fail("examples were read"))[0].gammas
    assert traced["export"] == [model]

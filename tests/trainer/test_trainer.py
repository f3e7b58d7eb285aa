"""GammaRegTrainer: what plain Trainer does, with only the gammas moved."""

import json
import random

import numpy
import pytest
import torch
from torch import nn
from torch.utils.data import IterableDataset
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    T5Config,
    T5ForConditionalGeneration,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)
from transformers.utils import logging as transformers_logging

from hf_gammareg import GammaRegArguments, GammaRegError, GammaRegTrainer, GammaRegTrainerMixin, param_groups

BEFORE, AFTER = "vit.layers.{}.layernorm_before.weight", "vit.layers.{}.layernorm_after.weight"
LAST = {pattern.format(layer) for pattern in (BEFORE, AFTER) for layer in (0, 1)}
FINAL = "vit.layernorm.weight"


def vit(seed=0):
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


def resnet():
    torch.manual_seed(0)
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_labels=3))


def images(count=8, size=8):
    generator = torch.Generator().manual_seed(1)
    return [
        {"pixel_values": torch.randn(3, size, size, generator=generator), "labels": index % 3, "junk": "text"}
        for index in range(count)
    ]


def arguments(folder, kind=GammaRegArguments, **options):
    usual = {"weight_decay": 0.1, "max_steps": 2, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True}
    return kind(str(folder), **(usual | {"save_strategy": "no", "disable_tqdm": True} | options))


def trainer(folder, model=None, cls=GammaRegTrainer, kind=GammaRegArguments, data=None, init=None, **options):
    model = vit() if model is None and "model_init" not in (init or {}) else model
    args = arguments(folder, kind, **options)
    return cls(model=model, args=args, train_dataset=images() if data is None else data, **(init or {}))


def settings_of(optimizer, model):
    """{name: options of its group}, each trainable parameter once, no group empty, every group named."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {}
    for group in optimizer.param_groups:
        members = [names[id(parameter)] for parameter in group["params"]]
        assert members
        assert group.get("param_names", members) == members
        assert not found.keys() & set(members)
        options = {key: value for key, value in group.items() if key not in ("params", "param_names")}
        found |= dict.fromkeys(members, options)
    assert found.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return found


@pytest.mark.parametrize("kind", [TrainingArguments, GammaRegArguments])
def test_only_gammas_move(kind, tmp_path):
    ours, plain = trainer(tmp_path, kind=kind), trainer(tmp_path, cls=Trainer, kind=TrainingArguments)
    now, was = settings_of(ours.create_optimizer(), ours.model), settings_of(plain.create_optimizer(), plain.model)
    assert {name for name in now if now[name] != was[name]} == LAST
    assert all(now[name] == was[name] | {"weight_decay": 0.1} for name in LAST)
    assert len(ours.optimizer.param_groups) == 2
    assert all("param_names" in group for group in ours.optimizer.param_groups)
    assert ours.gamma_decays == dict.fromkeys(LAST, True) | {FINAL: False}
    assert ours.gammas.counts == {"final": 1, "last": 4}


def test_a_resnets_shortcut_and_trunk_leave_the_decay(tmp_path):
    ours = trainer(tmp_path, resnet(), data=images(size=32))
    decays = {name for name, group in settings_of(ours.create_optimizer(), ours.model).items() if group["weight_decay"]}
    by_role = {role: {gamma.name for gamma in ours.gammas.by_role(role)} for role in ours.gammas.counts}
    assert by_role.keys() == {"trunk", "shortcut", "last", "absorbed"}
    gammas = set(ours.gammas.names)
    assert decays & gammas == by_role["last"] | by_role["absorbed"]
    assert decays - gammas == set(Trainer.get_decay_parameter_names(ours, ours.model)) - gammas


@pytest.mark.parametrize("build", [vit, resnet])
def test_policy_trainer_trains_bit_for_bit_as_trainer(build, tmp_path):
    data = images(size=8 if build is vit else 32)
    ours = trainer(tmp_path, build(), gamma_policy="trainer", data=data, max_steps=3)
    plain = trainer(tmp_path, build(), cls=Trainer, kind=TrainingArguments, data=data, max_steps=3)
    losses = [run.train().training_loss for run in (ours, plain)]
    assert losses[0] == losses[1]
    weights = [run.model.state_dict() for run in (ours, plain)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    assert [len(group["params"]) for group in ours.optimizer.param_groups] == [
        len(group["params"]) for group in plain.optimizer.param_groups
    ]


def test_the_policy_tells_in_the_weights(tmp_path):
    # With gradients of 0 AdamW does nothing but decay.
    class Still(ViTForImageClassification):
        def forward(self, pixel_values=None, labels=None):
            output = super().forward(pixel_values=pixel_values)
            return output.logits.sum() * 0.0, output.logits

    model = Still(vit().config)
    trainer(tmp_path, model, learning_rate=0.1, lr_scheduler_type="constant", gamma_weight_decay=0.5).train()
    expected = dict.fromkeys(LAST, (1 - 0.1 * 0.5) ** 2) | {FINAL: 1.0}
    for name, value in expected.items():
        assert torch.allclose(model.get_parameter(name), torch.full((16,), value)), name


def test_gamma_weight_decay_splits_the_gammas_off(tmp_path):
    ours = trainer(tmp_path, gamma_weight_decay=0.3)
    same = trainer(tmp_path)
    now, other = settings_of(ours.create_optimizer(), ours.model), settings_of(same.create_optimizer(), same.model)
    assert all(now[name] == other[name] | ({"weight_decay": 0.3} if name in LAST else {}) for name in now)
    assert [set(group["param_names"]) == LAST for group in ours.optimizer.param_groups] == [False, False, True]


def test_patterns_win(tmp_path):
    ours = trainer(tmp_path, gamma_decay=["vit.layernorm.weight"], gamma_no_decay=["*.layernorm_after.weight"])
    found = settings_of(ours.create_optimizer(), ours.model)
    assert {name for name in [*LAST, FINAL] if found[name]["weight_decay"]} == {
        BEFORE.format(0),
        BEFORE.format(1),
        FINAL,
    }


def test_a_pattern_that_matches_nothing_stops_the_run(tmp_path):
    with pytest.raises(GammaRegError, match=r"'\*\.bn1\.weight', which matches none of"):
        trainer(tmp_path, gamma_decay=["*.bn1.weight"]).train()


def test_groups_that_run_empty_are_dropped(tmp_path):
    model = vit().requires_grad_(False)
    model.vit.layernorm.requires_grad_(True)
    ours = trainer(tmp_path, model, gamma_policy="all")
    assert settings_of(ours.create_optimizer(), model)[FINAL]["weight_decay"] == 0.1
    model.vit.layernorm.bias.requires_grad_(False)
    ours.optimizer = None
    ours.create_optimizer()
    assert [group["param_names"] for group in ours.optimizer.param_groups] == [[FINAL]]


def test_frozen_gammas_are_reported_and_not_grouped(tmp_path):
    ours = trainer(tmp_path)
    assert ours.gammas[FINAL].trainable
    for name in (FINAL, BEFORE.format(0)):  # after the analysis
        ours.model.get_parameter(name).requires_grad_(False)
    ours.train()
    settings_of(ours.optimizer, ours.model)
    report = json.loads((tmp_path / "gamma_report.json").read_text())
    assert [row["name"] for row in report["gammas"] if not row["trainable"]] == [BEFORE.format(0), FINAL]
    assert "decays 3 of 3 gammas: 3 last" in report["summary"]
    assert "2 more are frozen" in report["summary"]


@pytest.mark.parametrize("policy", ["guidelines", "none"])
def test_an_optimizer_that_was_passed_is_never_touched(policy, tmp_path, caplog):
    model = vit()
    mine = torch.optim.SGD([{"params": list(model.parameters())}, {"params": []}], lr=0.1, weight_decay=0.7)
    before = [dict(group, params=list(group["params"])) for group in mine.param_groups]
    ours = trainer(tmp_path, model, init={"optimizers": (mine, None)}, gamma_policy=policy)
    assert ours.create_optimizer() is mine
    assert [dict(group) for group in mine.param_groups] == before
    assert "was given an optimizer and leaves its groups" in caplog.text
    assert not (tmp_path / "gamma_report.json").exists()


def test_an_optimizer_that_was_built_by_the_policy_is_no_cause_for_a_warning(tmp_path, caplog):
    model = vit()
    mine = torch.optim.AdamW(param_groups(model, 0.1), lr=0.1)
    ours = trainer(tmp_path, model, init={"optimizers": (mine, None)})
    assert ours.create_optimizer() is mine
    assert "was given an optimizer" not in caplog.text
    other = trainer(tmp_path, model, init={"optimizers": (mine, None)}, gamma_policy="last,final")
    other.create_optimizer()
    assert "which decay other gammas than the policy would" in caplog.text


def test_it_says_one_line_on_stderr_and_writes_the_report(tmp_path, capsys):
    ours = trainer(tmp_path)
    ours.train()
    output = capsys.readouterr()
    line = "policy 'guidelines' decays 4 of 5 gammas: 4 last (not 1 final); plain Trainer would decay 0."
    assert output.err.count("gammas") == 1
    assert f"hf_gammareg: {line}\n" in output.err
    assert "gammas" not in output.out
    report = json.loads((tmp_path / "gamma_report.json").read_text())
    assert report["summary"] == line
    assert report["policy"] == "guidelines"
    assert {row["name"]: row["decays"] for row in report["gammas"]} == ours.gamma_decays
    assert (report["optimizer"], report["honoured"], report["weight_decay"]) == ("AdamW", True, 0.1)
    ours.train()  # the optimizer is there already
    assert "gammas" not in capsys.readouterr().err


def test_log_levels_decide_where_the_line_goes(tmp_path, capsys, caplog):
    caplog.set_level("INFO", logger="hf_gammareg")
    trainer(tmp_path).create_optimizer()
    assert [record.levelname for record in caplog.records if "4 last" in record.message] == ["INFO"]
    assert "4 last" not in capsys.readouterr().err
    caplog.set_level("WARNING", logger="hf_gammareg")
    verbosity = transformers_logging.get_verbosity()
    try:
        trainer(tmp_path, log_level="error").create_optimizer()
    finally:
        transformers_logging.set_verbosity(verbosity)
    assert "4 last" not in capsys.readouterr().err


def test_a_weight_decay_of_0_is_said(tmp_path, capsys):
    trainer(tmp_path, weight_decay=0.0).create_optimizer()
    assert "their weight decay is 0, so nothing shrinks" in capsys.readouterr().err


class Branching(ViTForImageClassification):
    """Which way it goes depends on the data; both lead through all norms."""

    def forward(self, pixel_values=None, labels=None):
        logits = super().forward(pixel_values=pixel_values).logits
        if pixel_values.sum() > 1e9:
            logits = -logits
        return nn.functional.cross_entropy(logits, labels), logits


def test_a_model_that_does_not_export_says_where_its_roles_are_from(tmp_path, capsys):
    ours = trainer(tmp_path, Branching(vit().config))
    ours.train()
    assert not ours.gammas.source.startswith("export")
    assert f"; roles from {ours.gammas.source}." in capsys.readouterr().err
    assert ours.gammas.counts == {"final": 1, "last": 4}


class Opaque(ViTForImageClassification):
    """Leaves torch on the way, so that no tracer can follow."""

    def forward(self, pixel_values=None, labels=None):
        logits = super().forward(pixel_values=torch.from_numpy(pixel_values.numpy().copy())).logits
        return nn.functional.cross_entropy(logits, labels), logits


def test_a_model_that_can_not_be_traced_decays_no_gamma_and_says_so(tmp_path, caplog):
    ours = trainer(tmp_path, Opaque(vit().config))
    ours.train()
    found = settings_of(ours.optimizer, ours.model)
    assert not any(found[name]["weight_decay"] for name in [*LAST, FINAL])
    assert "5 gammas of unknown role" in caplog.text
    assert "none of them decays" in caplog.text
    assert json.loads((tmp_path / "gamma_report.json").read_text())["counts"] == {"unknown": 5}


class Forgetful(torch.optim.SGD):
    """An optimizer that makes its own groups of what it is given, as GaLore and LOMO do."""

    def __init__(self, groups, lr):
        super().__init__([parameter for group in groups for parameter in group["params"]], lr=lr)


def test_an_optimizer_that_overwrites_groups_is_named(tmp_path, caplog):
    ours = trainer(tmp_path, init={"optimizer_cls_and_kwargs": (Forgetful, {"lr": 0.1})})
    ours.train()
    assert "Forgetful" in caplog.text
    assert "can't be honoured" in caplog.text
    assert len(ours.optimizer.param_groups) == 1
    assert "param_names" not in ours.optimizer.param_groups[0]
    assert json.loads((tmp_path / "gamma_report.json").read_text())["honoured"] is False


def muon_factory():
    return lambda model, lr: torch.optim.SGD(model.parameters(), lr=lr)


@pytest.mark.parametrize("optim", ["adafactor", "sgd", "rmsprop", "adagrad"])
def test_other_optimizers_of_the_trainer(optim, tmp_path, caplog):
    ours = trainer(tmp_path, optim=optim)
    ours.train()
    found = settings_of(ours.optimizer, ours.model)
    assert {name for name in [*LAST, FINAL] if found[name]["weight_decay"]} == LAST
    assert "honoured" not in caplog.text


def test_an_optimizer_factory_is_named(tmp_path, caplog):
    trainer(tmp_path, init={"optimizer_cls_and_kwargs": (muon_factory, {"lr": 0.1})}).create_optimizer()
    assert "SGD (optim=" in caplog.text


def test_resumes_as_if_it_had_not_stopped(tmp_path):
    options = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2, "gamma_weight_decay": 0.3}
    whole = trainer(tmp_path / "whole", **options)
    whole.train()
    resumed = trainer(tmp_path / "resumed", **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    weights = [run.model.state_dict() for run in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    names = [[group["param_names"] for group in run.optimizer.param_groups] for run in (whole, resumed)]
    assert names[0] == names[1]


def test_loads_the_best_model_at_the_end(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    ours = trainer(tmp_path, **options, load_best_model_at_end=True, learning_rate=1.0, init={"eval_dataset": images()})
    ours.train()
    *_, last = [entry["eval_loss"] for entry in ours.state.log_history if "eval_loss" in entry]
    assert ours.state.best_metric < last
    assert ours.evaluate()["eval_loss"] == pytest.approx(ours.state.best_metric)


class GammaRegSeq2SeqTrainer(GammaRegTrainerMixin, Seq2SeqTrainer):
    pass


def test_as_a_mixin_of_seq2seq_trainer(tmp_path):
    sizes = {"vocab_size": 20, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    model = T5ForConditionalGeneration(T5Config(**sizes, decoder_start_token_id=0))
    data = [{"input_ids": [1, 2, 3, 4], "labels": [4, 3, 2, 1]}] * 8
    ours = trainer(tmp_path, model, GammaRegSeq2SeqTrainer, Seq2SeqTrainingArguments, data=data)
    ours.train()
    # The norm before cross-attention scales the queries only; the encoder's last norm its keys and values.
    assert ours.gammas.counts == {"final": 1, "last": 5, "gate": 1}
    settings_of(ours.optimizer, model)


def test_a_causal_language_model(tmp_path):
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    model = LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_key_value_heads=2))
    data = [{"input_ids": [1, 2, 3, 4], "labels": [1, 2, 3, 4]}] * 8
    ours = trainer(tmp_path, model, data=data)
    ours.train()
    assert ours.gammas.counts == {"final": 1, "last": 4}


def test_model_init_makes_the_roles_anew(tmp_path):
    depths = iter([1, 2, 3])

    def fresh():
        torch.manual_seed(0)
        return ViTForImageClassification(ViTConfig(**(vit().config.to_dict() | {"num_hidden_layers": next(depths)})))

    ours = trainer(tmp_path, init={"model_init": fresh})
    ours.train()
    assert ours.gammas.counts == {"final": 1, "last": 4}
    ours.train()
    assert ours.gammas.counts == {"final": 1, "last": 6}
    found = settings_of(ours.optimizer, ours.model)
    assert found[BEFORE.format(2)]["weight_decay"] == 0.1


class Recorder(TrainerCallback):
    def __init__(self):
        self.states = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.states.append((random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist()))


class NoisyImages(torch.utils.data.Dataset):
    """Each look at an example draws random numbers, as augmentation does."""

    def __len__(self):
        return 8

    def __getitem__(self, index):
        noise = random.random() + numpy.random.rand()
        return {"pixel_values": torch.randn(3, 8, 8) + noise, "labels": index % 3}


def test_looking_at_examples_changes_no_run(tmp_path):
    states, losses = [], []
    for cls, policy in ((GammaRegTrainer, {"gamma_policy": "trainer"}), (Trainer, {})):
        recorder = Recorder()
        run = trainer(tmp_path, None, cls, data=NoisyImages(), init={"callbacks": [recorder]}, **policy)
        losses.append(run.train().training_loss)
        states += recorder.states
    assert states[0] == states[1]
    assert losses[0] == losses[1]


def test_the_examples_are_collated_as_the_trainer_does(tmp_path):
    inputs = trainer(tmp_path).gamma_example_inputs()
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "pixel_values": (2, 3, 8, 8),
        "labels": (2,),
    }
    one = trainer(tmp_path, data=images(1)).gamma_example_inputs()
    assert torch.equal(one["pixel_values"][0], one["pixel_values"][1])


def test_a_hub_data_set_loses_its_unused_columns(tmp_path):
    from datasets import Dataset

    data = Dataset.from_list([{"pixel_values": torch.zeros(3, 8, 8).tolist(), "labels": 0, "junk": "text"}] * 4)
    ours = trainer(tmp_path, data=data)
    assert ours.gamma_example_inputs().keys() == {"pixel_values", "labels"}
    assert data.column_names == ["pixel_values", "labels", "junk"]


class Stream(IterableDataset):
    def __iter__(self):
        yield from images()


class Broken(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise OSError("no such file")


@pytest.mark.parametrize("data", [Stream(), Broken(), []])
def test_other_data_falls_back_to_the_configuration(data, tmp_path):
    ours = trainer(tmp_path, data=data)
    assert ours.gamma_example_inputs() is None
    assert ours.gammas.counts == {"final": 1, "last": 4}


def test_examples_that_do_not_fit_fall_back_to_the_configuration(tmp_path):
    ours = trainer(tmp_path, data=[{"pixel_values": torch.zeros(3, 5, 5), "labels": 0}] * 4)
    assert ours.gammas.counts == {"final": 1, "last": 4}


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(4)
        self.head = nn.Linear(4, 2)

    def forward(self, x, labels=None):
        logits = self.head(self.norm(x))
        return nn.functional.cross_entropy(logits, labels), logits


def test_a_model_without_configuration(tmp_path):
    data = [{"x": torch.randn(4), "labels": index % 2} for index in range(8)]
    ours = trainer(tmp_path, Plain(), data=data)
    ours.train()
    assert ours.gammas.counts == {"final": 1}
    blind = trainer(tmp_path, Plain(), data=[])
    assert blind.gammas.counts == {"unknown": 1}


def test_names_of_a_wrapped_resnet(tmp_path):
    # Plain Trainer decays the BatchNorm gammas of a ResNet, so here some have to go.
    ours = trainer(tmp_path, resnet(), data=images(size=32))
    spared = {f"module.{gamma.name}" for gamma in ours.gammas.by_role("trunk", "shortcut")}
    wrapped = nn.DataParallel(ours.model)
    assert spared
    assert spared <= set(Trainer.get_decay_parameter_names(ours, wrapped))
    assert not spared & set(ours.get_decay_parameter_names(wrapped))


class DecaysAll(Trainer):
    def get_decay_parameter_names(self, model):
        return [name for name, _ in model.named_parameters()]


class OursOnTop(GammaRegTrainerMixin, DecaysAll):
    pass


def test_policy_trainer_is_the_trainer_that_the_mixin_is_mixed_into(tmp_path, capsys):
    ours = trainer(tmp_path, cls=OursOnTop, gamma_policy="trainer")
    found = settings_of(ours.create_optimizer(), ours.model)
    assert {group["weight_decay"] for group in found.values()} == {0.1}
    assert "plain Trainer would decay 5 (1 final, 4 last)" in capsys.readouterr().err


def test_names_of_a_wrapped_model(tmp_path):
    ours = trainer(tmp_path)
    plain = set(ours.get_decay_parameter_names(ours.model))
    assert plain >= LAST
    wrapped = nn.DataParallel(torch.compile(ours.model))
    names = set(ours.get_decay_parameter_names(wrapped))
    assert {f"module._orig_mod.{name}" for name in LAST} <= names
    assert f"module._orig_mod.{FINAL}" not in names
    found = ours.create_optimizer(wrapped).param_groups
    assert set(found[0]["param_names"]) == plain


def test_the_model_stays_as_it_was(tmp_path):
    model = vit().eval()
    ours = trainer(tmp_path, model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert len(ours.gammas) == 5
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class OfAnotherLibrary(Trainer):
    """A trainer whose methods have signatures of their own, as those of TRL and sentence-transformers have."""

    def create_model_card(self, model_name=None, dataset_name=None, tags=None):
        super().create_model_card(model_name=model_name, tags=tags)

    def _load_from_checkpoint(self, checkpoint_path):
        super()._load_from_checkpoint(checkpoint_path)

    def create_optimizer(self):
        return super().create_optimizer()

    def call_model_init(self, trial=None):
        return super().call_model_init(trial)


class HandsOn:
    """Another mixin, which hands on whatever it is given."""

    def create_model_card(self, *args, **kwargs):
        super().create_model_card(*args, **kwargs)

    def _load_from_checkpoint(self, *args, **kwargs):
        super()._load_from_checkpoint(*args, **kwargs)

    def create_scheduler(self, *args, **kwargs):
        return super().create_scheduler(*args, **kwargs)


class OnAnotherLibrary(GammaRegTrainerMixin, OfAnotherLibrary):
    pass


class OnAnotherMixin(GammaRegTrainerMixin, HandsOn, Trainer):
    pass


@pytest.mark.parametrize("cls", [OnAnotherLibrary, OnAnotherMixin])
def test_bases_with_signatures_of_their_own(cls, tmp_path):
    saved = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    whole = trainer(tmp_path / "whole", cls=cls, **saved)
    whole.train()
    resumed = trainer(tmp_path / "resumed", vit(seed=1), cls=cls, **saved)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    for one, other in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert "decay_budget" in json.loads((tmp_path / "resumed" / "gamma_report.json").read_text())
    if cls is OnAnotherLibrary:
        resumed.create_model_card("a name", "a data set", tags="mine")
    else:
        resumed.create_model_card("en", None, "mine", "a name")
    card = (tmp_path / "resumed" / "README.md").read_text()
    assert "a name" in card
    assert "- mine\n" in card
    assert "## Weight decay on the normalization gains" in card


def test_a_page_is_left_beside_the_report_when_asked(tmp_path):
    trainer(tmp_path / "without").train()
    assert not (tmp_path / "without" / "gamma_page.html").exists()
    trainer(tmp_path, weight_decay=0.3, max_steps=2, gamma_page=True, lr_scheduler_type="cosine").train()
    text = (tmp_path / "gamma_page.html").read_text()
    assert 'id="decay" inputmode="decimal" value="0.3"' in text
    assert 'id="steps" inputmode="numeric" value="2"' in text
    assert '<option value="cosine" selected>' in text
    assert "What other rules would do" in text

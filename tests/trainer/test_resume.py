"""Resuming with the Trainer: from its own checkpoints, from plain Trainer's, with another policy, from broken ones."""

import hashlib
import json
import shutil

import pytest
import torch
from test_trainer import arguments, images, trainer, vit
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    ViTConfig,
    ViTForImageClassification,
)

from hf_gammareg import GammaRegError, GammaRegTrainer, GammaRegTrainerMixin

pytestmark = pytest.mark.slow

SAVED = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}


class AtBegin(TrainerCallback):
    """Keeps a copy of the optimizer's state, by parameter name, and of its groups, as training begins."""

    def on_train_begin(self, args, state, control, model, optimizer, lr_scheduler, **kwargs):
        inner = getattr(optimizer, "optimizer", optimizer)
        self.state = {
            name: {field: torch.as_tensor(value).clone() for field, value in inner.state[parameter].items()}
            for name, parameter in model.named_parameters()
            if parameter in inner.state
        }
        self.decay = {n: g["weight_decay"] for g in inner.param_groups for n in g.get("param_names", ())}
        self.rates = [lr_scheduler.get_last_lr(), [group["lr"] for group in inner.param_groups]]


def saved_state(run):
    """What the optimizer of a run in memory holds, by parameter name."""
    inner = getattr(run.optimizer, "optimizer", run.optimizer)
    return {name: inner.state[parameter] for name, parameter in run.model.named_parameters()}


def same(one, other):
    assert one.keys() == other.keys()
    for name in one:
        for field, value in one[name].items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(other[name][field])), (name, field)


def digest(folder):
    """Of all files of a folder."""
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*") if p.is_file()
    }


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run of plain Trainer to its end, step 2, where it saves."""
    folder = tmp_path_factory.mktemp("plain")
    run = trainer(folder, cls=Trainer, kind=TrainingArguments, **SAVED | {"max_steps": 2})
    run.train()
    return run, folder / "checkpoint-2"


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A run under the guidelines to its end, step 2, where it saves."""
    folder = tmp_path_factory.mktemp("ours")
    run = trainer(folder, **SAVED | {"max_steps": 2})
    run.train()
    return run, folder / "checkpoint-2"


@pytest.mark.parametrize("policy", ["guidelines", "all", "none", "trainer"])
def test_a_plain_trainers_checkpoint_keeps_every_moment_with_its_parameter(plain, policy, tmp_path, caplog):
    run, checkpoint = plain
    before, seen = digest(checkpoint), AtBegin()
    resumed = trainer(tmp_path, gamma_policy=policy, **SAVED, init={"callbacks": [seen]})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    same(saved_state(run), seen.state)
    assert {name for name, decay in seen.decay.items() if decay and "norm" in name and "weight" in name} == {
        name for name, decays in resumed.gamma_decays.items() if decays
    }
    assert ("Optimizer state matched by name" in caplog.text) is (policy not in ("none", "trainer"))
    assert digest(checkpoint) == before


def test_a_checkpoint_of_groups_that_happen_to_fit_is_not_taken_for_another(tmp_path):
    """Trainer's two groups of these sizes could be the run's own: the moments go by what Trainer does, not by place."""
    gammas = [f"vit.layers.{i}.layernorm_{where}.weight" for i in (0, 1) for where in ("before", "after")]
    options = {"gamma_policy": "none", "gamma_decay": gammas[:1], "gamma_weight_decay": 0.1}
    first = trainer(tmp_path / "first", **SAVED | {"max_steps": 2}, **options)
    first.train()
    options["gamma_decay"] = gammas[1:2]
    seen = AtBegin()
    second = trainer(tmp_path / "second", **SAVED, **options, init={"callbacks": [seen]})
    second.train(resume_from_checkpoint=str(tmp_path / "first" / "checkpoint-2"))
    sizes = [[len(group["params"]) for group in run.optimizer.param_groups] for run in (first, second)]
    assert sizes[0] == sizes[1]
    same(saved_state(first), seen.state)


@pytest.mark.parametrize("change", [{"gamma_policy": "all"}, {"gamma_weight_decay": 0.3}])
def test_another_policy_is_said_and_takes_effect(ours, change, tmp_path, caplog):
    run, checkpoint = ours
    seen = AtBegin()
    resumed = trainer(tmp_path, **SAVED, **change, init={"callbacks": [seen]})
    resumed.train(resume_from_checkpoint=str(checkpoint))
    same(saved_state(run), seen.state)
    assert "Optimizer state matched by name: weight decay" in caplog.text
    assert len(set(map(tuple, seen.rates))) == 1
    assert len(set(seen.rates[0])) == 1
    if "gamma_policy" in change:
        said = "The checkpoint's policy was guidelines, this run's is all; now decaying: 'vit.layernorm.weight'."
        assert said in caplog.text
        assert seen.decay["vit.layernorm.weight"] == 0.1
    else:
        assert len(seen.rates[0]) == 3
        assert seen.decay["vit.layers.0.layernorm_before.weight"] == 0.3


class ByLayer:
    """A Trainer's user who gives each parameter a rate of its own."""

    def create_optimizer(self, *args, **kwargs):
        rates = enumerate(p for p in self.model.parameters() if p.requires_grad)
        groups = [{"params": [p], "lr": 0.1 / (at + 1), "weight_decay": 0.1} for at, p in rates]
        self.optimizer = torch.optim.AdamW(groups)
        return self.optimizer


def test_a_plain_checkpoint_with_rates_by_layer_resumes(tmp_path):
    plain, own = type("Plain", (ByLayer, Trainer), {}), type("Own", (GammaRegTrainerMixin, ByLayer, Trainer), {})
    first = trainer(tmp_path, cls=plain, kind=TrainingArguments, **SAVED | {"max_steps": 2})
    first.train()
    seen = AtBegin()
    trainer(tmp_path, cls=own, **SAVED, init={"callbacks": [seen]}).train(resume_from_checkpoint=True)
    same(saved_state(first), seen.state)


def test_each_checkpoint_holds_the_report(ours):
    report = json.loads((ours[1] / "gamma_report.json").read_text())
    assert report["policy"] == "guidelines"
    assert {gamma["name"]: gamma["decays"] for gamma in report["gammas"]} == ours[0].gamma_decays


def test_the_last_whole_checkpoint_is_taken(ours, tmp_path, caplog):
    shutil.copytree(ours[1], tmp_path / "checkpoint-2")
    shutil.copytree(ours[1], tmp_path / "checkpoint-10")
    (tmp_path / "checkpoint-10" / "trainer_state.json").unlink()
    seen = AtBegin()
    trainer(tmp_path, **SAVED, init={"callbacks": [seen]}).train(resume_from_checkpoint=True)
    same(saved_state(ours[0]), seen.state)
    assert "checkpoint-10 holds no trainer_state.json" in caplog.text


def test_another_number_of_processes_is_fine_where_the_data_need_not_be_the_same(ours, tmp_path):
    shutil.copytree(ours[1], tmp_path / "checkpoint-2")
    (tmp_path / "checkpoint-2" / "rng_state.pth").rename(tmp_path / "checkpoint-2" / "rng_state_0.pth")
    shutil.copy(tmp_path / "checkpoint-2" / "rng_state_0.pth", tmp_path / "checkpoint-2" / "rng_state_1.pth")
    trainer(tmp_path, **SAVED, ignore_data_skip=True).train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


# --- what can be wrong with a checkpoint --------------------------------------------------------------------------


def without(name):
    return lambda folder: (folder / name).unlink()


def cut(name, share=0.5):
    def damage(folder):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(len(content) * share)])

    return damage


def empty(name):
    return lambda folder: (folder / name).write_bytes(b"")


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def saved(name, value):
    return lambda folder: torch.save(value, folder / name)


def state(change):
    """Change the saved optimizer state in place."""

    def damage(folder):
        found = torch.load(folder / "optimizer.pt", weights_only=True)
        change(found)
        torch.save(found, folder / "optimizer.pt")

    return damage


def report(change):
    def damage(folder):
        found = json.loads((folder / "gamma_report.json").read_text())
        change(found)
        (folder / "gamma_report.json").write_text(json.dumps(found))

    return damage


def rename(found):
    found["param_groups"][0]["param_names"][0] = "another.weight"


def nameless_and_fewer(found):
    for group in found["param_groups"]:
        del group["param_names"]
    found["param_groups"][0]["params"].pop()


def nameless_and_one_group_more(found):
    for group in found["param_groups"]:
        del group["param_names"]
    *_, last = found["param_groups"]
    found["param_groups"].append(last | {"params": [last["params"].pop()]})


def not_a_number(found):
    found["state"][0]["exp_avg"].view(-1)[0] = float("nan")


def infinite(found):
    found["state"][3]["exp_avg_sq"].view(-1)[0] = float("inf")


def reshape(found):
    found["state"][1]["exp_avg"] = torch.zeros(7)


def twice(found):
    names = found["param_groups"][0]["param_names"]
    names[0] = names[1]


def two_processes(folder):
    (folder / "rng_state.pth").rename(folder / "rng_state_0.pth")
    shutil.copy(folder / "rng_state_0.pth", folder / "rng_state_1.pth")


def sharded(shard):
    def damage(folder):
        (folder / "model.safetensors").unlink()
        index = {"metadata": {}, "weight_map": {"vit.layernorm.weight": shard}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return damage


def binary(content):
    def damage(folder):
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return damage


BROKEN = {
    "no trainer state": (without("trainer_state.json"), r"trainer_state\.json in the checkpoint"),
    "trainer state cut short": (cut("trainer_state.json"), "JSONDecodeError"),
    "trainer state empty": (empty("trainer_state.json"), "JSONDecodeError"),
    "trainer state is a list": (text("trainer_state.json", "[1]"), "TypeError"),
    "trainer state without a step": (text("trainer_state.json", "{}"), "global_step"),
    "a step that is none": (text("trainer_state.json", '{"global_step": "two"}'), "global_step 'two'"),
    "no weights": (without("model.safetensors"), r"Expected model\.safetensors"),
    "weights cut short": (cut("model.safetensors"), "SafetensorError"),
    "weights empty": (empty("model.safetensors"), "SafetensorError"),
    "weights are text": (text("model.safetensors", "weights" * 100), "SafetensorError"),
    "a shard is missing": (sharded("model-00001.safetensors"), r"Expected model-00001\.safetensors"),
    "an index without a map": (text("model.safetensors.index.json", "{}"), "weight_map"),
    "an index cut short": (text("model.safetensors.index.json", '{"weight_map"'), "JSONDecodeError"),
    "old weights cut short": (binary(b"PK\x03\x04 and no more"), "cut short"),
    "no optimizer state": (without("optimizer.pt"), r"Expected optimizer\.pt"),
    "optimizer state cut short": (cut("optimizer.pt"), "cut short"),
    "optimizer state empty": (empty("optimizer.pt"), "cut short"),
    "optimizer state of another kind": (saved("optimizer.pt", [1, 2]), "found list"),
    "optimizer state without groups": (saved("optimizer.pt", {"state": {}}), "one that holds 'state'"),
    "a parameter has another name": (state(rename), r"found none for .* state of 'another\.weight'"),
    "a name twice": (state(twice), "found none for"),
    "groups without names that do not fit": (state(nameless_and_fewer), "whose groups name their parameters"),
    "one group more, without names": (state(nameless_and_one_group_more), "whose groups name their parameters"),
    "nan in a moment": (state(not_a_number), "found nan in 'exp_avg'"),
    "a moment of another shape": (state(reshape), r"found 'exp_avg' of shape \(7,\)"),
    "no scheduler state": (without("scheduler.pt"), r"Expected scheduler\.pt"),
    "scheduler state cut short": (cut("scheduler.pt"), "cut short"),
    "scheduler state of another kind": (saved("scheduler.pt", {"nothing": 1}), "KeyError"),
    "another number of processes": (two_processes, "a run with 1 processes, as this one has, found one with 2"),
    "a report that is no JSON": (text("gamma_report.json", "{"), "Expected the report of a run"),
    "a report without gammas": (text("gamma_report.json", '{"policy": "all"}'), "Expected the report of a run"),
    "a report of another model": (report(lambda found: found["gammas"].pop()), "with the same 5 gammas"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_checkpoint_is_one_clear_error_and_stays_as_it_is(case, ours, tmp_path):
    damage, message = BROKEN[case]
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(ours[1], checkpoint)
    damage(checkpoint)
    before = digest(checkpoint)
    with pytest.raises(GammaRegError, match=message) as caught:
        trainer(tmp_path, **SAVED).train(resume_from_checkpoint=str(checkpoint))
    assert digest(checkpoint) == before
    said = str(caught.value)
    assert said.startswith("Expected ")
    assert ", found " in said
    assert any(way in said for way in ("Resume", "resume", "Start", "Name", "Delete")), "what to do"


def test_a_state_with_inf_is_loaded_as_plain_trainer_does_and_said(ours, tmp_path, caplog):
    checkpoint = tmp_path / "checkpoint-2"
    shutil.copytree(ours[1], checkpoint)
    state(infinite)(checkpoint)
    seen = AtBegin()
    trainer(tmp_path, **SAVED, init={"callbacks": [seen]}).train(resume_from_checkpoint=str(checkpoint))
    assert sum(torch.isinf(entry["exp_avg_sq"]).any().item() for entry in seen.state.values()) == 1
    assert "taken as it was saved, with infinite values for 'vit." in caplog.text


@pytest.mark.parametrize("cls", [GammaRegTrainer, Trainer])
def test_a_checkpoint_of_weights_alone_goes_on_as_in_plain_trainer(cls, tmp_path, caplog):
    kind = arguments if cls is GammaRegTrainer else TrainingArguments
    options = SAVED | {"save_only_model": True}
    first = trainer(tmp_path, cls=cls, kind=kind, **options | {"max_steps": 2})
    first.train()
    weights = {name: value.clone() for name, value in first.model.state_dict().items()}
    seen = AtBegin()
    resumed = trainer(tmp_path, cls=cls, kind=kind, **options, init={"callbacks": [seen]})
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 4
    assert not any(seen.state.values())
    assert any(not torch.equal(value, weights[name]) for name, value in resumed.model.state_dict().items())
    said = "checkpoint-2 holds weights and the number of steps only (save_only_model): the optimizer's moments"
    assert (said in caplog.text) is (cls is GammaRegTrainer)


def llama():
    """Plain Trainer finds its weights again, which it does not of a ViT."""
    torch.manual_seed(0)
    sizes = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_hidden_layers=2, num_key_value_heads=2))


def test_from_weights_alone_the_policy_of_trainer_goes_on_bit_for_bit_as_trainer(tmp_path):
    runs, texts = [], [{"input_ids": [first, 2, 3, 4], "labels": [first, 2, 3, 4]} for first in range(8)]
    for given in ({"gamma_policy": "trainer"}, {"cls": Trainer, "kind": TrainingArguments}):
        options = SAVED | {"save_only_model": True, "data": texts} | given
        trainer(tmp_path / str(len(runs)), llama(), **options | {"max_steps": 2}).train()
        runs.append(trainer(tmp_path / str(len(runs)), llama(), **options))
        runs[-1].train(resume_from_checkpoint=True)
    weights = [run.model.state_dict() for run in runs]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_from_weights_alone_another_policy_is_said(tmp_path, caplog):
    options = SAVED | {"save_only_model": True}
    trainer(tmp_path, **options | {"max_steps": 2}).train()
    trainer(tmp_path, **options, gamma_policy="all").train(resume_from_checkpoint=True)
    said = "The checkpoint's policy was guidelines, this run's is all; now decaying: 'vit.layernorm.weight'."
    assert said in caplog.text


@pytest.mark.parametrize(("before", "now"), [("adamw_torch", "sgd"), ("sgd", "adamw_torch"), ("rmsprop", "sgd")])
def test_another_optimizer_is_one_clear_error(before, now, tmp_path):
    trainer(tmp_path, **SAVED | {"max_steps": 2}, optim=before).train()
    with pytest.raises(GammaRegError, match=r"^Expected the state of a .*, found one of another optimizer.* Resume"):
        trainer(tmp_path, **SAVED, optim=now).train(resume_from_checkpoint=True)


def wider():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


def deeper():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


def frozen():
    model = vit()
    model.vit.embeddings.requires_grad_(False)
    return model


@pytest.mark.parametrize("make", [wider, deeper, frozen])
def test_another_model_is_one_clear_error(make, ours, tmp_path):
    before = digest(ours[1])
    with pytest.raises(GammaRegError, match=r"^Expected .*, found .*[Rr]esume"):
        trainer(tmp_path, model=make(), **SAVED).train(resume_from_checkpoint=str(ours[1]))
    assert digest(ours[1]) == before


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("nowhere", "found nothing at"),
        ("a_file", "found a file at"),
        (True, "Expected a whole checkpoint"),
    ],
)
def test_no_checkpoint_is_one_clear_error(named, message, tmp_path):
    (tmp_path / "a_file").write_text("")
    named = named if named is True else str(tmp_path / named)
    with pytest.raises(GammaRegError, match=message):
        trainer(tmp_path / "out", **SAVED).train(resume_from_checkpoint=named)


def test_a_policy_with_a_typo_is_one_clear_error(tmp_path):
    with pytest.raises(GammaRegError, match="guidlines"):
        arguments(tmp_path, gamma_policy="guidlines")


def test_a_failed_resume_leaves_the_trainer_usable(ours, tmp_path):
    run = GammaRegTrainer(model=vit(), args=arguments(tmp_path, **SAVED), train_dataset=images())
    with pytest.raises(GammaRegError):
        run.train(resume_from_checkpoint=str(tmp_path / "nowhere"))
    run.train()
    assert run.state.global_step == 4


def adapted():
    peft = pytest.importorskip("peft")
    norms = ["layernorm_before", "layernorm_after", "layernorm"]
    return peft.get_peft_model(vit(), peft.LoraConfig(r=4, target_modules="all-linear", modules_to_save=norms))


def test_an_adapter_resumes_as_if_it_had_not_stopped(tmp_path, caplog):
    whole = trainer(tmp_path / "whole", model=adapted(), **SAVED)
    whole.train()
    resumed = trainer(tmp_path / "resumed", model=adapted(), **SAVED)
    resumed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    weights = [run.model.state_dict() for run in (whole, resumed)]
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())
    changed = trainer(tmp_path / "changed", model=adapted(), gamma_policy="all", **SAVED)
    changed.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-2"))
    # The frozen originals that PEFT keeps decay in neither run.
    assert "now decaying: 'vit.layernorm.modules_to_save.default.weight'." in caplog.text


def test_an_optimizer_and_scheduler_that_were_passed_are_left_alone_on_resume(tmp_path):
    def run(**options):
        torch.manual_seed(0)
        model = vit()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
        scheduler.base_lrs = [0.7]  # its own business
        made = trainer(tmp_path, model=model, init={"optimizers": (optimizer, scheduler)}, **options)
        made.train(resume_from_checkpoint=options["max_steps"] > 2)
        return made

    run(**SAVED | {"max_steps": 2})
    resumed = run(**SAVED)
    assert "param_names" not in resumed.optimizer.param_groups[0]
    assert resumed.lr_scheduler.base_lrs == [0.7]

"""PEFT around a model, with a tuner or, in prompt learning, without: names, groups and resume are the model's own."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from hf_gammareg import GammaRegArguments, GammaRegTrainer, find_gammas
from hf_gammareg.model.names import parameter_names
from hf_gammareg.model.whole import unwrapped

pytestmark = pytest.mark.slow

peft = pytest.importorskip("peft")

SIZES = {"vocab_size": 20, "hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2}
PROMPT = {"task_type": "CAUSAL_LM", "num_virtual_tokens": 3}
SAVED = "model.norm.modules_to_save.default.weight"

ADAPTERS = {
    "prompt": (peft.PromptTuningConfig(**PROMPT), ["prompt_encoder.default.embedding.weight"]),
    "prefix": (peft.PrefixTuningConfig(**PROMPT), ["prompt_encoder.default.embedding.weight"]),
    "p-tuning": (
        peft.PromptEncoderConfig(**PROMPT, encoder_hidden_size=8),
        [
            "prompt_encoder.default.embedding.weight",
            *(f"prompt_encoder.default.mlp_head.{i}.{kind}" for i in (0, 2, 4) for kind in ("weight", "bias")),
        ],
    ),
    "lora": (
        peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"),
        [f"model.layers.{i}.self_attn.q_proj.lora_{side}.default.weight" for i in (0, 1) for side in "AB"],
    ),
    "lora and norms": (
        peft.LoraConfig(r=2, target_modules=["q_proj"], modules_to_save=["model.norm"], task_type="CAUSAL_LM"),
        [
            *(f"model.layers.{i}.self_attn.q_proj.lora_{side}.default.weight" for i in (0, 1) for side in "AB"),
            SAVED,
        ],
    ),
}
every_adapter = pytest.mark.parametrize("adapter", ADAPTERS)
BATCH = {"input_ids": torch.ones(2, 4, dtype=torch.long)}


def llama():
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, num_key_value_heads=2))


def adapted(adapter):
    """The model in its adapter, its norms trained too."""
    model = llama()
    wrapped = peft.get_peft_model(model, ADAPTERS[adapter][0])
    for gamma in find_gammas(unwrapped(wrapped), BATCH):
        if "original_module" not in gamma.name:
            unwrapped(wrapped).get_parameter(gamma.name).requires_grad_()
    return wrapped


def trainer(folder, model, **options):
    usual = {"weight_decay": 0.1, "learning_rate": 0.1, "per_device_train_batch_size": 4, "report_to": []}
    usual |= {"max_steps": 4, "save_steps": 2, "use_cpu": True, "disable_tqdm": True}
    data = [{"input_ids": [i, 2, 3, 4], "labels": [1, 2, i, 4]} for i in range(16)]
    args = GammaRegArguments(str(folder), **(usual | options))
    return GammaRegTrainer(model, args, train_dataset=data, eval_dataset=data)


@every_adapter
def test_names_are_those_of_the_model_inside(adapter):
    model = llama()
    wrapped = peft.get_peft_model(model, ADAPTERS[adapter][0])
    names = parameter_names(wrapped)
    assert unwrapped(wrapped) is model
    own = dict(model.named_parameters())  # with what the tuner put into it
    assert {name: parameter for name, parameter in names.parameters.items() if name in own} == own
    trained = [name for name, parameter in names.parameters.items() if parameter.requires_grad]
    assert sorted(trained) == sorted(ADAPTERS[adapter][1])
    assert len(names.parameters) == len(list(wrapped.parameters()))


@every_adapter
def test_the_policy_is_applied_and_every_parameter_is_in_one_group(adapter, tmp_path):
    ours = trainer(tmp_path, adapted(adapter))
    optimizer = ours.create_optimizer()
    members = [name for group in optimizer.param_groups for name in group["param_names"]]
    parameters = parameter_names(ours.model).parameters
    assert sorted(members) == sorted(name for name, parameter in parameters.items() if parameter.requires_grad)
    held = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert held == [id(parameters[name]) for name in members]
    strengths = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    gammas = [gamma for gamma in ours.gammas if gamma.trainable]
    assert len(gammas) == 5
    assert {gamma.name: strengths[gamma.name] for gamma in gammas} == {
        gamma.name: 0.1 if gamma.role == "last" else 0.0 for gamma in gammas
    }
    assert {str(gamma.role) for gamma in gammas} == {"last", "final"}


@pytest.mark.parametrize("adapter", ["prompt", "p-tuning", "lora and norms"])
def test_every_moment_goes_on_under_another_policy(adapter, tmp_path):
    trainer(tmp_path / "whole", adapted(adapter), max_steps=2).train()
    checkpoint = tmp_path / "whole" / "checkpoint-2"
    again = trainer(tmp_path / "again", adapted(adapter), gamma_policy="none")
    again.create_optimizer_and_scheduler(num_training_steps=4)
    again._load_optimizer_and_scheduler(str(checkpoint))
    saved = torch.load(checkpoint / "optimizer.pt")
    where = {
        name: key
        for group in saved["param_groups"]
        for name, key in zip(group["param_names"], group["params"], strict=True)
    }
    for name, parameter in parameter_names(again.model).parameters.items():
        if parameter.requires_grad:
            moments = again.optimizer.state[parameter]
            assert torch.equal(moments["exp_avg"], saved["state"][where[name]]["exp_avg"]), name


def test_adapters_are_no_layers_that_were_frozen_or_thawed(tmp_path, caplog):
    """Nor are they where the best one is loaded at the end, or a run goes on from a checkpoint."""
    options = {"logging_steps": 1, "eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True}
    for checkpoint in (None, str(tmp_path / "checkpoint-2")):
        trainer(tmp_path, adapted("lora and norms"), **options).train(checkpoint)
    assert "since, which" not in caplog.text

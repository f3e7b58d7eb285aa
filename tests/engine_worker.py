"""One process of a distributed run, started by `accelerate launch`: trains a tiny ViT in several ways, writes results.

tests/trainer/test_engines.py trains the same in one process, by the same functions, and compares.
"""

import contextlib
import json
import os
from pathlib import Path

import timm
import torch
import two_processes
from accelerate import Accelerator
from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from transformers import ViTForImageClassification

from hf_gammareg import GammaRegArguments, GammaRegError, GammaRegTrainer, find_gammas
from hf_gammareg.decay.groups import check_ranks
from hf_gammareg.model.names import parameter_names
from hf_gammareg.timm import create_optimizer_v2

GLOBAL_BATCH, STEPS = 8, 20

RUNS = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "checkpointing": {"gradient_checkpointing": True},
    "compile": {"torch_compile": True, "torch_compile_backend": "aot_eager"},
    "bf16": {"bf16": True},
    "lora": {},
    "lora_norms": {},
    "bnb_8bit": {"optim": "adamw_bnb_8bit"},
    "torchao_8bit": {"optim": "adamw_torch_8bit"},
    "own_strength": {"gamma_weight_decay": 0.25},
}
"""What a run has beside its name's model: options of the arguments."""


def images():
    generator = torch.Generator().manual_seed(1)
    count = GLOBAL_BATCH * STEPS
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": i % 3} for i in range(count)]


def adapted(model, norms):
    """The model with LoRA on all linear layers, which freezes the rest, and with its norms trained if asked."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(0)
    saved = ["layernorm_before", "layernorm_after", "layernorm"] if norms else None
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", modules_to_save=saved))


def make_trainer(run, folder, model_folder, **options):
    """A Trainer whose steps see the same images, however many processes share them."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    options = RUNS[run] | options
    share = world * options.get("gradient_accumulation_steps", 1)
    usual = {"weight_decay": 0.5, "learning_rate": 1e-2, "lr_scheduler_type": "constant", "max_steps": STEPS}
    usual |= {"per_device_train_batch_size": GLOBAL_BATCH // share, "report_to": [], "save_strategy": "no"}
    usual |= {"disable_tqdm": True, "dataloader_pin_memory": False, "use_cpu": True}
    args = GammaRegArguments(str(folder), **(usual | options))
    # The arguments come first: with ZeRO-3 they see to it that from_pretrained partitions.
    model = ViTForImageClassification.from_pretrained(model_folder)
    model = adapted(model, run == "lora_norms") if run.startswith("lora") else model
    return GammaRegTrainer(model=model, args=args, train_dataset=images())


def train(run, folder, model_folder, **options):
    """Train, and tell what became of the gammas: `{"decay": {name: strength}, "gammas": {name: values}, ...}`."""
    trainer = make_trainer(run, folder, model_folder, **options)
    shapes = [list(parameter.shape) for parameter in trainer.model.parameters()]
    trainer.train()
    return outcome(trainer, shapes)


def resumed(folder, model_folder, policy="guidelines", **options):
    """Half of the steps under a policy, saved; the others in a new Trainer, under the guidelines, from there."""
    shared = Path(folder).parent / f"resumed_{policy}"  # both ranks write to it
    half = {"max_steps": STEPS // 2, "save_strategy": "steps", "save_steps": STEPS // 2}
    make_trainer("plain", shared, model_folder, gamma_policy=policy, **options | half).train()
    trainer = make_trainer("plain", shared / "again", model_folder, **options)
    shapes = [list(parameter.shape) for parameter in trainer.model.parameters()]
    trainer.train(resume_from_checkpoint=str(shared / f"checkpoint-{STEPS // 2}"))
    return outcome(trainer, shapes)


def resumed_from_none(folder, model_folder, **options):
    """The first half under a policy by which no gamma decays: the groups have other members then."""
    return resumed(folder, model_folder, policy="none", **options)


def refused(folder, model_folder, **options):
    """What is said where a run can't go on with another policy: DeepSpeed finds its optimizer state by position, FSDP1
    finds none in a sharded checkpoint."""
    os.environ["FSDP_STATE_DICT_TYPE"] = "SHARDED_STATE_DICT"
    try:
        return resumed_from_none(folder, model_folder, **options)
    except GammaRegError as error:
        return {"error": str(error)}


def outcome(trainer, shapes):
    """What became of the gammas."""
    strengths = {}
    for group in trainer.optimizer.param_groups:
        strengths |= dict.fromkeys(group["param_names"], group["weight_decay"])
    return {
        "wrappers": wrappers(trainer.model_wrapped),
        "optimizer": type(trainer.optimizer.optimizer).__name__,
        "shapes": shapes,
        "roles": {gamma.name: str(gamma.role) for gamma in trainer.gammas if gamma.trainable},
        "frozen": [gamma.name for gamma in trainer.gammas if not gamma.trainable],
        "groups": [group["param_names"] for group in trainer.optimizer.param_groups],
        "decay": {name: strengths[name] for name in trainer.gammas.names if name in strengths},
        "gammas": values(trainer.model, trainer.gammas.names),
    }


def wrappers(model):
    """The classes around the model, outermost first."""
    inner = getattr(model, "_orig_mod", None) or getattr(model, "module", None)
    return [type(model).__name__, *(wrappers(inner) if isinstance(inner, torch.nn.Module) else [])]


def values(model, names):
    """The values of parameters, gathered from wherever an engine keeps them."""
    sharded = isinstance(model, FullyShardedDataParallel)
    found = {}
    with FullyShardedDataParallel.summon_full_params(model) if sharded else contextlib.nullcontext():
        for name, parameter in parameter_names(model).parameters.items():
            if name not in names:
                continue
            gathered = contextlib.nullcontext()
            if hasattr(parameter, "ds_id"):
                import deepspeed

                gathered = deepspeed.zero.GatheredParameters([parameter])
            with gathered:
                whole = parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter
                found[name] = whole.detach().double().tolist()
    return found


def raw(folder, model_folder):
    """A plain Accelerate loop over a model of timm; one process, too."""
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=True)
    torch.manual_seed(0)
    model = timm.create_model("test_vit", img_size=32, num_classes=3)
    gammas = find_gammas(model)
    groups = {"lr": 1e-2, "weight_decay": 0.5, "gammas": gammas}
    optimizer = create_optimizer_v2(model, "adamw", **groups)
    check_ranks(optimizer.param_groups)
    model, optimizer = accelerator.prepare(model, optimizer)
    generator = torch.Generator().manual_seed(1)
    for _ in range(STEPS):
        pixels, labels = torch.randn(GLOBAL_BATCH, 3, 32, 32, generator=generator), torch.arange(GLOBAL_BATCH) % 3
        own = slice(accelerator.process_index, None, accelerator.num_processes)
        accelerator.backward(torch.nn.functional.cross_entropy(model(pixels[own]), labels[own]))
        optimizer.step()
        optimizer.zero_grad()
    strengths = {name: group["weight_decay"] for group in optimizer.param_groups for name in group["param_names"]}
    return {
        "wrappers": wrappers(model),
        "roles": {gamma.name: str(gamma.role) for gamma in gammas},
        "decay": {name: strengths[name] for name in gammas.names},
        "gammas": values(model, gammas.names),
    }


def flat(folder, model_folder):
    """FSDP1 without `use_orig_params`: a layer is one parameter, and no gamma can be treated apart."""
    os.environ["FSDP_USE_ORIG_PARAMS"] = "false"
    trainer = make_trainer("plain", folder, model_folder, use_cpu=False, max_steps=1)
    trainer.train()
    return json.loads((Path(folder) / "gamma_report.json").read_text()) if os.environ["RANK"] == "0" else {}


def disagree(folder, model_folder):
    """Rank 1 wants another policy than rank 0: what each of them says before it trains."""
    policy = "none" if os.environ["RANK"] == "1" else "guidelines"
    trainer = make_trainer("plain", folder, model_folder, gamma_policy=policy)
    before = values(trainer.model, trainer.gammas.names)
    try:
        trainer.train()
    except GammaRegError as error:
        return {"error": str(error), "trained": values(trainer.model, trainer.gammas.names) != before}
    return {}


def meshes(folder, model_folder):
    """The layers on two device meshes: the groups of our Trainer, each with its meshes."""
    trainer = make_trainer("plain", folder, model_folder)
    assert len(trainer.gammas) == 5
    flat, other = init_device_mesh("cpu", (2,)), init_device_mesh("cpu", (1, 2), mesh_dim_names=("a", "b"))
    first, second = trainer.model.vit.layers
    fully_shard(first, mesh=flat)
    fully_shard(second, mesh=other)
    groups = trainer.create_optimizer().param_groups
    fully_shard(trainer.model, mesh=flat)
    return {
        "roles_when_sharded": {gamma.name: str(gamma.role) for gamma in find_gammas(trainer.model)},
        "groups": [group["param_names"] for group in groups],
        "meshes": [sorted({str(getattr(p, "device_mesh", None)) for p in group["params"]}) for group in groups],
        "decay": [group["weight_decay"] for group in groups],
    }


def take_cpu_for_gpu():
    """accelerate 1.15 shards by FSDP only where it finds GPUs; these processes are several of those to it."""
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_GPU)


def main(settings):
    if settings["shim"]:
        take_cpu_for_gpu()
    folder = Path(settings["folder"])
    own = folder / f"rank{os.environ['RANK']}"
    results = {}
    for run in settings["runs"]:
        special = {"disagree": disagree, "meshes": meshes, "raw": raw, "flat": flat}.get(run)
        again = {"resumed": resumed, "resumed_from_none": resumed_from_none, "refused": refused}.get(run)
        if special:
            results[run] = special(own, settings["model"])
        elif again:
            results[run] = again(own, settings["model"], **settings["options"])
        else:
            results[run] = train(run, own, settings["model"], **settings["options"])
    (folder / f"{own.name}.json").write_text(json.dumps(results))


if __name__ == "__main__":
    two_processes.work(main)

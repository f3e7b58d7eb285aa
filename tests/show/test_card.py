"""Model cards: what they say of the gammas, and metadata that the Hub takes."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
import yaml
from huggingface_hub import EvalResult, ModelCard
from torch import nn
from transformers import Trainer, ViTConfig, ViTForImageClassification

from hf_gammareg import GammaMonitorCallback, GammaRegArguments, GammaRegError, GammaRegTrainer, find_gammas
from hf_gammareg.decay.policy import decide
from hf_gammareg.show.card import CITATION, READING, TAGS, check_card, gamma_section, make_card, metric_results

RESULT = {"task_type": "image-classification", "dataset_type": "beans", "dataset_name": "Beans"}


@pytest.fixture(scope="module")
def resnet():
    torch.manual_seed(0)
    model = timm.create_model("test_resnet", num_classes=3)
    gammas = find_gammas(model)
    return gammas, decide(gammas, model, "guidelines")


def table(text):
    """Rows of the first table with a column of decisions: `[{column: cell}]`."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    start = next(i for i, line in enumerate(lines) if "decays" in line)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:]]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


# --- the section ----------------------------------------------------------------------------------------------------


def test_the_section_tells_policy_roles_decisions_reading_and_citation(resnet):
    gammas, decays = resnet
    text = gamma_section(gammas, decays, policy="guidelines", weight_decay=0.05)
    rows = table(text)
    counted = {}
    for row in rows:
        count = int(row["gammas"].partition("×")[2] or 1)
        counted[row["role"]] = counted.get(row["role"], 0) + count
        assert row["decays"] == ("yes" if row["role"] in ("last", "absorbed") else "no")
    assert counted == gammas.counts
    assert len(counted) >= 3
    assert f"{gammas.counts['last'] + gammas.counts['absorbed']} of {len(gammas)} normalization gains" in text
    assert "`guidelines`" in text
    assert READING in text
    assert CITATION in text
    assert "10.1145/3643860" in text
    assert "not a statement of the paper's authors" in text


def test_strengths_pictures_and_a_policy_that_was_not_applied_are_said(resnet):
    gammas, decays = resnet
    options = {"policy": "all", "weight_decay": 0.05}
    own = gamma_section(gammas, decays, **options, gamma_weight_decay=0.3, pictures={"a.png": "sizes"})
    assert "decay, with weight decay 0.3; the run's weight decay is 0.05." in own
    assert "![sizes](a.png)" in own
    assert "decay, with weight decay 0.05.\n" in gamma_section(gammas, decays, **options, gamma_weight_decay=0.05)
    lost = gamma_section(gammas, decays, **options, applied=False)
    assert "was **not** applied" in lost
    assert "normalization gains (gammas) decay, with" not in lost


def test_frozen_gammas_do_not_decay_whatever_the_policy(resnet):
    gammas = replace(resnet[0], gammas=tuple(replace(g, trainable=g.role == "last") for g in resnet[0]))
    text = gamma_section(gammas, dict.fromkeys(gammas.names, True), policy="all", weight_decay=0.1)
    count = gammas.counts["last"]
    assert f"{count} of {len(gammas)} normalization gains (gammas) decay" in text
    assert f"; {count} of them decay." in text
    assert {row["role"]: row["decays"] for row in table(text)} == {
        role: "yes" if role == "last" else "frozen" for role in gammas.counts
    }


def test_a_model_without_gammas_has_a_section_too():
    gammas = find_gammas(nn.Linear(2, 2), torch.zeros(2, 2))
    assert "No gammas" in gamma_section(gammas, {}, policy="guidelines", weight_decay=0.1)


# --- raw recipes ----------------------------------------------------------------------------------------------------


def test_a_card_of_a_raw_loop_reads_back_as_it_was_written(resnet, tmp_path):
    gammas, decays = resnet
    results = metric_results(
        {"eval_accuracy": 0.75, "eval_loss": 1.5},
        tasks=["image-classification"],
        datasets=[{"type": "beans", "name": "Beans", "split": "test"}],
    )
    card = make_card(
        "ResNet on Beans",
        gammas=gammas,
        decays=decays,
        policy="guidelines",
        weight_decay=0.05,
        description="A small network.",
        settings={"lr": 0.1, "opt": "sgd"},
        results=results,
        tags=["timm"],
        library_name="timm",
        license="apache-2.0",
        datasets=["beans"],
    )
    card.save(tmp_path / "README.md")
    text = (tmp_path / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head == {
        "library_name": "timm",
        "license": "apache-2.0",
        "datasets": ["beans"],
        "tags": ["timm", *TAGS],
        "model-index": [
            {
                "name": "ResNet on Beans",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"type": "beans", "name": "Beans", "split": "test"},
                        "metrics": [
                            {"type": "accuracy", "name": "Accuracy", "value": 0.75},
                            {"type": "loss", "name": "Loss", "value": 1.5},
                        ],
                    }
                ],
            }
        ],
    }
    assert ModelCard.load(tmp_path / "README.md").data.eval_results == results
    assert text.index("# ResNet on Beans") < text.index("A small network.") < text.index("| lr | 0.1 |")
    assert text.index("| opt | sgd |") < text.index("## Weight decay on the normalization gains")


def test_only_finite_numbers_of_the_model_become_results():
    metrics = {"eval_loss": math.nan, "eval_accuracy": 0.5, "eval_runtime": 2.0, "eval_samples_per_second": 3.0}
    metrics |= {"eval_note": "text", "eval_ok": True, "epoch": 3.0, "train_loss": 1.0, "eval_matthews_correlation": 1}
    found = metric_results(metrics, tasks=["a", "b"], datasets=[{"type": "x", "name": "X"}])
    assert [(result.task_type, result.metric_type, result.metric_value) for result in found] == [
        ("a", "accuracy", 0.5),
        ("a", "matthews_correlation", 1),
        ("b", "accuracy", 0.5),
        ("b", "matthews_correlation", 1),
    ]
    assert metric_results(metrics, tasks=[], datasets=[{"type": "x", "name": "X"}]) == []
    assert metric_results(metrics, tasks=["a"], datasets=[]) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"results": [EvalResult(**RESULT, metric_type="accuracy", metric_value=math.nan)]}, "metric_value=nan"),
        ({"results": [EvalResult(**RESULT, metric_type="accuracy", metric_value=None)]}, "read"),
        ({"results": [EvalResult(**RESULT, metric_type=" ", metric_value=1.0)]}, "metric_type=' '"),
        ({"results": [EvalResult(**RESULT | {"task_type": ""}, metric_type="a", metric_value=1.0)]}, "task_type=''"),
        ({"tags": ["", "x"]}, "the tag ''"),
        ({"base_model": "/home/someone/model"}, "base_model='/home/someone/model'"),
        ({"base_model": ["ok/fine", "no such/name/here"]}, "base_model='no such/name/here'"),
    ],
)
def test_metadata_that_the_hub_refuses_are_an_error(options, said, resnet):
    gammas, decays = resnet
    with pytest.raises(GammaRegError, match="Expected metadata that the Hub takes") as caught:
        make_card("x", gammas=gammas, decays=decays, policy="guidelines", weight_decay=0.1, **options)
    assert said in str(caught.value)


# --- the Trainer ----------------------------------------------------------------------------------------------------


def vit():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return ViTForImageClassification(ViTConfig(**sizes, image_size=8, patch_size=4, num_labels=3))


def images(count=8):
    generator = torch.Generator().manual_seed(1)
    return [{"pixel_values": torch.randn(3, 8, 8, generator=generator), "labels": i % 3} for i in range(count)]


def trainer(folder, cls=GammaRegTrainer, model=None, init=None, **options):
    usual = {"weight_decay": 0.1, "max_steps": 2, "per_device_train_batch_size": 4, "report_to": [], "use_cpu": True}
    args = GammaRegArguments(str(folder), **(usual | {"save_strategy": "no", "disable_tqdm": True} | options))
    init = {"compute_metrics": accuracy} | (init or {})
    return cls(model=model or vit(), args=args, train_dataset=images(), eval_dataset=images(4), **init)


def accuracy(prediction):
    return {"accuracy": float((prediction.predictions.argmax(-1) == prediction.label_ids).mean())}


ABOUT = {"dataset_tags": "beans", "dataset": "Beans", "tasks": "image-classification"}


def test_the_signature_is_the_trainers():
    ours, theirs = (inspect.signature(cls.create_model_card).parameters for cls in (GammaRegTrainer, Trainer))
    assert [(p.name, p.default, p.kind) for p in ours.values()] == [
        (p.name, p.default, p.kind) for p in theirs.values()
    ]


@pytest.mark.slow
def test_the_trainers_card_and_more(tmp_path):
    plain, ours = trainer(tmp_path / "plain", Trainer), trainer(tmp_path / "ours", gamma_weight_decay=0.3)
    tags = ["vision"]
    measured = {}
    for run in (plain, ours):
        run.train()
        measured[run] = run.evaluate()
        run.create_model_card(model_name="tiny", tags=list(tags), license="mit", language="en", **ABOUT)
    theirs, card = (ModelCard.load(tmp_path / name / "README.md") for name in ("plain", "ours"))
    # What Trainer wrote is still there, but for the numbers of the run.
    heads = [line for line in theirs.text.splitlines() if line.startswith("#")]
    assert [line for line in card.text.splitlines() if line.startswith("#")][: len(heads)] == heads
    assert card.data.license == "mit"
    assert card.data.language == theirs.data.language == ["en"] or card.data.language == "en"
    assert set(card.data.tags) == {*theirs.data.tags, *TAGS}
    # The policy, and the roles with their decisions.
    assert "Policy `guidelines`" in card.text
    assert (
        "4 of 5 normalization gains (gammas) decay, with weight decay 0.3; the run's weight decay is 0.1." in card.text
    )
    assert {row["role"]: row["decays"] for row in table(card.text)} == {"last": "yes", "final": "no"}
    assert CITATION in card.text
    assert card.text.count("## Weight decay on the normalization gains") == 1
    # What was measured.
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values == pytest.approx({key: measured[ours][f"eval_{key}"] for key in ("accuracy", "loss")})
    for result in card.data.eval_results:
        assert (result.task_type, result.task_name) == ("image-classification", "Image Classification")
        assert (result.dataset_type, result.dataset_name) == ("beans", "Beans")
    assert card.data.model_name == "tiny"
    assert tags == ["vision"]
    assert check_card(card) is card
    # Written again it is the same.
    text = (tmp_path / "ours" / "README.md").read_text()
    ours.create_model_card(model_name="tiny", tags=list(tags), license="mit", language="en", **ABOUT)
    assert (tmp_path / "ours" / "README.md").read_text() == text


def test_without_an_evaluation_or_a_data_set_no_result_is_claimed(tmp_path):
    ours = trainer(tmp_path)
    ours.train()
    ours.create_model_card(**ABOUT)
    assert not ModelCard.load(tmp_path / "README.md").data.eval_results
    ours.evaluate()
    ours.create_model_card()
    assert not ModelCard.load(tmp_path / "README.md").data.eval_results
    ours.create_model_card(dataset="Beans", dataset_tags=["beans"])  # the task follows from the model's class
    assert len(ModelCard.load(tmp_path / "README.md").data.eval_results) == 2


def test_the_best_models_card_has_the_best_models_evaluation(tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "max_steps": 3}
    ours = trainer(tmp_path, **options, load_best_model_at_end=True, learning_rate=1.0)
    ours.train()
    losses = {entry["step"]: entry["eval_loss"] for entry in ours.state.log_history if "eval_loss" in entry}
    best = min(losses, key=losses.get)
    assert best != 3
    ours.create_model_card(**ABOUT)
    card = ModelCard.load(tmp_path / "README.md")
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    assert values["loss"] == losses[best]
    assert f"The weights are those of step {best}" in card.text
    again = ours.evaluate()
    ours.create_model_card(**ABOUT)
    card = ModelCard.load(tmp_path / "README.md")
    assert {r.metric_type: r.metric_value for r in card.data.eval_results}["loss"] == again["eval_loss"]
    assert "The weights are those of step" not in card.text


def test_a_policy_that_was_not_applied_is_not_claimed(tmp_path):
    model = vit()
    mine = torch.optim.SGD(model.parameters(), lr=0.1)
    ours = trainer(tmp_path, model=model, init={"optimizers": (mine, None)})
    ours.train()
    ours.create_model_card()
    assert "was **not** applied" in (tmp_path / "README.md").read_text()


def test_a_folder_that_was_fine_tuned_is_no_base_model(tmp_path):
    ours = trainer(tmp_path / "out")
    ours.create_model_card(finetuned_from="/home/someone/model")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.get("base_model") is None
    ours.create_model_card(finetuned_from="google/vit-base-patch16-224")
    assert ModelCard.load(tmp_path / "out" / "README.md").data.base_model == "google/vit-base-patch16-224"


def test_the_card_that_peft_rewrites(tmp_path):
    peft = pytest.importorskip("peft")
    model = vit()
    model.config._name_or_path = "/home/someone/model"
    norms = ["layernorm_before", "layernorm_after"]
    model = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules="all-linear", modules_to_save=norms))
    ours = trainer(tmp_path, model=model)
    ours.train()
    ours.evaluate()
    ours.save_model()  # leaves PEFT's own card
    ours.create_model_card(tags="vision", **ABOUT)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "peft"
    assert set(card.data.tags) >= {"lora", "vision", *TAGS}
    assert len(card.data.eval_results) == 2
    assert card.data.get("base_model") is None
    assert "4 of 9 normalization gains" in card.text
    assert "Policy `guidelines`" in check_card(card).text


def test_other_processes_write_nothing(tmp_path, monkeypatch):
    ours = trainer(tmp_path)
    monkeypatch.setattr(ours, "is_world_process_zero", lambda: False)
    ours.create_model_card()
    assert not (tmp_path / "README.md").exists()


def test_pushing_uploads_card_report_history_and_weights(tmp_path, monkeypatch):
    uploads = []

    class Hub:
        def upload_folder(self, *, folder_path, ignore_patterns, repo_id, **kwargs):
            paths = [
                path.relative_to(folder_path).as_posix() for path in Path(folder_path).rglob("*") if path.is_file()
            ]
            kept = huggingface_hub.utils.filter_repo_objects(paths, ignore_patterns=ignore_patterns)
            uploads.append((repo_id, {path: (Path(folder_path) / path).read_bytes() for path in kept}))
            return "done"

        def create_repo(self, repo_id, **kwargs):
            return type("Url", (), {"repo_id": f"someone/{repo_id}"})()

    monkeypatch.setattr("transformers.trainer.hf_api", Hub)
    ours = trainer(tmp_path / "tiny", init={"callbacks": [GammaMonitorCallback()]}, logging_steps=1)
    ours.train()
    measured = ours.evaluate()
    assert ours.push_to_hub(**ABOUT) == "done"
    ((repo, files),) = uploads
    assert repo == "someone/tiny"
    wanted = {"README.md", "gamma_report.json", "gamma_history.jsonl", "gamma_history.png", "model.safetensors"}
    assert files.keys() >= wanted
    card = ModelCard(files["README.md"].decode())
    assert {result.metric_value for result in card.data.eval_results} >= {measured["eval_accuracy"]}
    assert "](gamma_history.png)" in card.text
    assert json.loads(files["gamma_report.json"])["policy"] == "guidelines"

"""The recipes as a user starts them: in a process of their own, on few samples and a tiny model."""

import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import timm
from accelerate.state import AcceleratorState, GradientState
from common import hub, launch
from huggingface_hub import ModelCard
from PIL import Image
from safetensors.torch import load_file
from torch import equal
from transformers import AutoModelForImageClassification, pipeline

pytest.importorskip("sklearn")

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DIGITS = ["--dataset_name", "digits", "--max_train_samples", "64", "--max_eval_samples", "40"]
RUNS = {
    "vit_cifar": [
        *("--hidden_size", "16", "--num_hidden_layers", "1", "--num_attention_heads", "2"),
        *("--per_device_train_batch_size", "8", "--num_train_epochs", "2", "--use_cpu", "true"),
    ],
    "timm_cifar": ["--model", "test_resnet", "--batch_size", "8", "--num_epochs", "2", "--cpu"],
}
LEFT = {"all_results.json", "gamma_report.json", "run_settings.json", "README.md", "config.json", "model.safetensors"}


@pytest.fixture
def environment(tmp_path):
    # A home of its own without a data set in its cache, and no network.
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    return os.environ | offline | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


# `--cpu --num_processes 2` starts one process (accelerate 1.15): only with several "GPUs" does it start several.
TWO_PROCESSES = [
    *(sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1"),
    *("--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"),
]


def command(recipe, folder, *options, processes=1):
    launch = [sys.executable] if processes == 1 else TWO_PROCESSES
    return [*launch, str(ROOT / "recipes" / f"{recipe}.py"), "--output_dir", str(folder), *options]


def start(environment, recipe, folder, *options, processes=1):
    """Run a recipe in a process of its own, or in two."""
    arguments = command(recipe, folder, *options, processes=processes)
    environment = environment | ({"ACCELERATE_USE_CPU": "true"} if processes > 1 else {})
    return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def call(tmp_path, monkeypatch, capfd):
    """Run a recipe in this process, which saves the time that imports take, as if the Hub could not be reached."""
    monkeypatch.syspath_prepend(str(ROOT / "recipes"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def call(recipe, *options):
        hub.hub_problem.cache_clear()
        monkeypatch.setattr("sys.argv", [f"{recipe}.py", *map(str, options)])
        status = launch.run(importlib.import_module(recipe).main)
        said = capfd.readouterr()
        return subprocess.CompletedProcess(sys.argv, status, said.out, said.err)

    yield call
    hub.hub_problem.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def results(folder):
    return json.loads((folder / "all_results.json").read_text())


def same_weights(one, other):
    first, second = (load_file(folder / "model.safetensors") for folder in (one, other))
    return all(equal(first[name], second[name]) for name in first)


def kill_when(environment, arguments, sign):
    """Start a run and kill it, as hard as a machine that goes down, once the file or folder `sign` is there."""
    environment = environment | {"ACCELERATE_USE_CPU": "true"}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    run = subprocess.Popen(arguments, env=environment, start_new_session=True, **quiet)
    end = time.monotonic() + 200
    while not sign.exists() and run.poll() is None and time.monotonic() < end:
        time.sleep(0.01)
    assert run.poll() is None, "the run ended before it could be killed"
    os.killpg(run.pid, signal.SIGKILL)  # the processes that it started, too
    run.wait()


@pytest.mark.parametrize("recipe", RUNS)
def test_trains_and_leaves_results_report_model_and_card(call, tmp_path, recipe):
    out = tmp_path / "out"
    run = call(recipe, "--output_dir", out, *DIGITS, *RUNS[recipe], "--augmentation", "none")
    assert run.returncode == 0, run.stderr
    assert {path.name for path in out.iterdir()} >= LEFT
    found = results(out)
    assert (found["dataset"], found["train_samples"], found["eval_samples"]) == ("digits", 64, 40)
    assert run.stdout.splitlines()[-1] == f"Test accuracy: {found['eval_accuracy']:.2%} on 40 images of digits"
    assert "dataset_replaced" not in found
    report = json.loads((out / "gamma_report.json").read_text())
    assert report["policy"] == "guidelines"
    told = report["decay_budget"]["text"]
    assert "decay alone will multiply a decayed gamma by 0.9" in told
    # The Trainer does not say it of a trial, in which decay comes to nothing.
    assert (told in run.stdout + run.stderr) is (recipe == "timm_cifar")
    assert (report["decay_budget"]["kind"], report["decay_budget"]["steps"]) == ("decoupled", 16)
    card = (out / "README.md").read_text()
    assert "guidelines" in card
    assert ModelCard(card).data.eval_results[0].metric_value == pytest.approx(found["eval_accuracy"], abs=1e-4)


@pytest.mark.parametrize(("recipe", "value"), [("vit_cifar", ["true"]), ("timm_cifar", [])])
def test_the_gammas_are_monitored_if_asked(call, tmp_path, recipe, value):
    out = tmp_path / "out"
    options = [*DIGITS, *RUNS[recipe], "--monitor_gammas", *value]
    run = call(recipe, "--output_dir", out, *options)
    assert run.returncode == 0, run.stderr
    rows = [json.loads(line) for line in (out / "gamma_history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 8, 16]
    name = {"vit_cifar": "vit.layers.0.layernorm_before.weight", "timm_cifar": "layer1.0.bn1.weight"}[recipe]
    report = json.loads((out / "gamma_report.json").read_text())
    (role,) = (gamma["role"] for gamma in report["gammas"] if gamma["name"] == name)
    if recipe == "vit_cifar":  # transformers saves under other names than it has
        weights = AutoModelForImageClassification.from_pretrained(out).state_dict()
    else:
        weights = load_file(out / "model.safetensors")
    sizes = weights[name].abs()
    assert rows[-1][f"gamma/{role}/min"] <= sizes.min()
    assert rows[-1][f"gamma/{role}/max"] >= sizes.max()
    assert "](gamma_history.png)" in (out / "README.md").read_text()
    assert (out / "gamma_history.png").read_bytes().startswith(b"\x89PNG")


def test_the_saved_vit_is_what_transformers_loads_and_can_be_tuned(call, tmp_path):
    options = [*DIGITS, *RUNS["vit_cifar"], "--max_steps", "1"]
    assert call("vit_cifar", "--output_dir", tmp_path / "out", *options).returncode == 0
    classify = pipeline("image-classification", model=str(tmp_path / "out"), device="cpu")
    assert {answer["label"] for answer in classify(Image.new("RGB", (8, 8)))} <= {str(digit) for digit in range(10)}
    tuned = ["--output_dir", tmp_path / "tuned", "--model_name_or_path", tmp_path / "out"]
    run = call("vit_cifar", *tuned, *options)
    assert run.returncode == 0, run.stderr


def test_the_saved_timm_model_is_what_timm_loads(call, tmp_path):
    out = tmp_path / "out"
    assert call("timm_cifar", "--output_dir", out, *DIGITS, *RUNS["timm_cifar"]).returncode == 0
    model = timm.create_model(f"local-dir:{out}", pretrained=True)
    assert equal(model.state_dict()["fc.weight"], load_file(out / "model.safetensors")["fc.weight"])


@pytest.mark.parametrize("ending", ["json", "yaml"])
def test_vit_takes_a_file_of_arguments(call, tmp_path, ending):
    settings = {"dataset_name": "digits", "max_train_samples": 16, "max_eval_samples": 8, "num_hidden_layers": 1}
    settings |= {"max_steps": 1, "use_cpu": True, "output_dir": str(tmp_path / "out"), "gamma_policy": "none"}
    lines = "\n".join(f"{name}: {json.dumps(value)}" for name, value in settings.items())
    path = tmp_path / f"arguments.{ending}"
    path.write_text(json.dumps(settings) if ending == "json" else lines)
    run = call("vit_cifar", path)
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "out" / "gamma_report.json").read_text())["policy"] == "none"


@pytest.mark.parametrize("recipe", RUNS)
def test_without_any_argument_it_says_loudly_that_the_digits_stand_in(call, tmp_path, monkeypatch, recipe):
    module = importlib.import_module(recipe)
    full = module.load_image_data
    few = {"max_train_samples": 16, "max_eval_samples": 8, "augmentation": "none"}
    monkeypatch.setattr(module, "load_image_data", lambda args, seed: full(dataclasses.replace(args, **few), seed))
    monkeypatch.chdir(tmp_path)
    quick = {"vit_cifar": ["--max_steps", "1"], "timm_cifar": ["--num_epochs", "1", "--model", "test_resnet"]}
    run = call(recipe, *quick[recipe])
    assert run.returncode == 0, run.stderr
    assert "TRAINING ON THE HANDWRITTEN DIGITS" in run.stderr
    assert "TRAINED ON THE HANDWRITTEN DIGITS" in run.stderr
    out = tmp_path / "runs" / recipe
    assert "uoft-cs/cifar10" in results(out)["dataset_replaced"]
    assert "stand in for CIFAR-10" in (out / "README.md").read_text()


@pytest.mark.parametrize("recipe", RUNS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--dataset_name", "someone/pets"], "Expected the data set 'someone/pets' from the Hugging Face Hub"),
        (["--dataset_name", "digits", "--label_column_name", "kind"], "Expected the label column 'kind'"),
    ],
)
def test_bad_input_is_one_line_and_status_2(call, tmp_path, recipe, options, said):
    run = call(recipe, "--output_dir", tmp_path / "out", *options, *RUNS[recipe])
    assert run.returncode == 2
    errors = [line for line in run.stderr.splitlines() if "error:" in line]
    assert len(errors) == 1
    assert errors[0].startswith(f"{recipe}.py: error: {said}")


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ("vit_cifar", ["--model_name_or_path", "someone/vit"], "at 'someone/vit' for 10 classes, found that offline"),
        ("vit_cifar", ["--resume_from_checkpoint", "nowhere"], "found none at 'nowhere'"),
        ("vit_cifar", ["--gamma_policy", "sometimes"], "sometimes"),
        ("timm_cifar", ["--model", "resnet19"], "Expected the name of a timm model, found 'resnet19'"),
        ("timm_cifar", ["--resume_from_checkpoint", "latest"], "found none"),
        ("timm_cifar", ["--checkpointing_steps", "often"], "found 'often'"),
        ("timm_cifar", ["--policy", "sometimes"], "sometimes"),
    ],
)
def test_bad_options_are_one_clear_error(call, tmp_path, recipe, options, said):
    run = call(recipe, "--output_dir", tmp_path / "out", *DIGITS, *RUNS[recipe], *options)
    assert run.returncode == 2
    assert said in run.stderr


def test_a_hub_that_does_not_answer_is_one_line_and_status_2(environment, tmp_path):
    nowhere = environment | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}
    run = start(nowhere, "timm_cifar", tmp_path / "out", "--dataset_name", "someone/pets")
    assert run.returncode == 2
    assert "http://127.0.0.1:9 can't be reached" in run.stderr
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_vit_run_resumes_to_the_same_metrics_and_weights(environment, tmp_path, processes):
    # Checkpoints in the middle of an epoch (8 steps each, or 4): the hard case, with augmentation.
    options = [*DIGITS, *RUNS["vit_cifar"], "--save_strategy", "steps", "--save_steps", "3"]
    options += ["--num_train_epochs", str(4 * processes)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(environment, "vit_cifar", whole, *options, processes=processes).returncode == 0
    kill_when(environment, command("vit_cifar", killed, *options, processes=processes), killed / "checkpoint-12")
    assert not (killed / "all_results.json").exists()
    run = start(environment, "vit_cifar", killed, *options, processes=processes)
    assert run.returncode == 0, run.stderr
    assert "Resuming from" in run.stderr
    for name in ("eval_accuracy", "eval_loss", "train_loss"):
        assert results(killed)[name] == pytest.approx(results(whole)[name], rel=1e-4)
    assert same_weights(whole, killed)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_timm_run_resumes_to_the_same_metrics_and_weights(environment, tmp_path, processes):
    options = [*DIGITS, *RUNS["timm_cifar"], "--checkpointing_steps", "3", "--sched", "onecycle"]
    options += ["--num_epochs", str(4 * processes)]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(environment, "timm_cifar", whole, *options, processes=processes).returncode == 0
    # With two processes an epoch is 4 steps: after the third there is no checkpoint but at multiples of 3 inside one.
    sign = {1: "step_12", 2: "step_9"}[processes]
    kill_when(environment, command("timm_cifar", killed, *options, processes=processes), killed / sign)
    assert not (killed / "all_results.json").exists()
    resume = ["--resume_from_checkpoint", "latest"]
    run = start(environment, "timm_cifar", killed, *options, *resume, processes=processes)
    assert run.returncode == 0, run.stderr
    assert "Resumed from checkpoint" in run.stdout
    for name in ("eval_accuracy", "eval_loss", "train_loss"):
        assert results(killed)[name] == pytest.approx(results(whole)[name], rel=1e-6)
    assert same_weights(whole, killed)


def test_the_timm_recipe_resumes_with_another_policy_and_says_what_moved(call, tmp_path, caplog):
    options = ["--output_dir", tmp_path / "out", *DIGITS, *RUNS["timm_cifar"], "--checkpointing_steps", "epoch"]
    assert call("timm_cifar", *options).returncode == 0
    options += ["--resume_from_checkpoint", tmp_path / "out" / "epoch_1", "--policy", "all"]
    assert call("timm_cifar", *options).returncode == 0
    assert "The checkpoint's policy was guidelines, this run's is all; now decaying: " in caplog.text
    assert "Optimizer state matched by name: weight decay 0 becomes 0.05 for " in caplog.text


def test_an_unfinished_checkpoint_is_passed_over_and_other_settings_are_not_resumed(call, tmp_path):
    options = ["--output_dir", tmp_path / "out", *DIGITS, *RUNS["vit_cifar"]]
    options += ["--max_steps", "2", "--save_strategy", "steps", "--save_steps", "1"]
    assert call("vit_cifar", *options).returncode == 0
    (tmp_path / "out" / "checkpoint-9").mkdir()
    run = call("vit_cifar", *options)
    assert run.returncode == 0, run.stderr
    assert "checkpoint-9" not in run.stderr
    run = call("vit_cifar", *options, "--gamma_policy", "all")
    assert run.returncode == 2
    assert "gamma_policy='guidelines'" in run.stderr
    assert "another --output_dir" in run.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('{"output_dir": "out", "gamma_policy": "guidlines"}', "found 'guidlines'"),
        ('{"output_dir": "out", "gamma_polcy": "all"}', "gamma_polcy"),
        ('{"output_dir": "out",', "Expecting property name"),
        (None, "No such file"),
    ],
)
def test_a_broken_file_of_arguments_is_one_line_and_status_2(call, tmp_path, text, said):
    path = tmp_path / "arguments.json"
    if text is not None:
        path.write_text(text)
    run = call("vit_cifar", path)
    assert run.returncode == 2
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1
    assert "Expected a file of arguments" in lines[0]
    assert said in lines[0]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("recipe", RUNS)
def test_accelerate_launches_it_in_two_processes(environment, tmp_path, recipe):
    run = start(environment, recipe, tmp_path / "out", *DIGITS, *RUNS[recipe], processes=2)
    assert run.returncode == 0, run.stderr
    assert run.stdout.count("Test accuracy: ") == 1
    assert {path.name for path in (tmp_path / "out").iterdir()} >= LEFT
    assert results(tmp_path / "out")["eval_samples"] == 40
    assert results(tmp_path / "out")["num_processes"] == 2

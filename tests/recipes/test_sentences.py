"""The BERT recipe and the ablation on sentences, on a tiny encoder and a few sentences of two words."""

import importlib
import json
from dataclasses import replace

import pytest
from accelerate.state import AcceleratorState, GradientState
from common import hub, launch
from huggingface_hub import ModelCard
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, BertTokenizerFast

pytest.importorskip("sklearn")

from ablation.arms import Run
from ablation.config import read_config
from ablation.runs import do_run
from ablation.sentences import network

pytestmark = pytest.mark.usefixtures("same_verbosity")
GOOD, BAD = ("fine", "great", "good", "warm"), ("bad", "dull", "cold", "poor")


@pytest.fixture
def encoder(tmp_path):
    """A folder with a BERT of two layers and its tokenizer."""
    folder = tmp_path / "encoder"
    folder.mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "film", "story", "a", *GOOD, *BAD]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    BertTokenizerFast(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def sentences(tmp_path):
    """A folder with train.csv and validation.csv."""
    folder = tmp_path / "data"
    folder.mkdir()
    rows = [f"a {word} {thing},{int(word in GOOD)}" for word in GOOD + BAD for thing in ("film", "story")]
    (folder / "train.csv").write_text("sentence,label\n" + "\n".join(rows * 2) + "\n")
    (folder / "validation.csv").write_text("sentence,label\n" + "\n".join(rows) + "\n")
    return folder


@pytest.fixture
def call(monkeypatch, capfd, tmp_path):
    """Run the recipe in this process, as if the Hub could not be reached."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")

    def call(*options):
        hub.hub_problem.cache_clear()
        options = [*options, "--use_cpu", "true", "--report_to", "none", "--num_train_epochs", "1"]
        monkeypatch.setattr("sys.argv", ["bert_sst2.py", "--output_dir", str(tmp_path / "out"), *map(str, options)])
        status = launch.run(importlib.import_module("bert_sst2").main)
        said = capfd.readouterr()
        return status, said.out, said.err

    yield call
    hub.hub_problem.cache_clear()
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def test_the_recipe_trains_tests_and_writes_a_card(encoder, sentences, tmp_path, call):
    given = ("--model_name_or_path", encoder, "--data_dir", sentences)
    status, said, error = call(*given, "--monitor_gammas", "--gamma_policy", "all", "--max_eval_samples", 8)
    assert status == 0, error
    assert "on 8 sentences of data" in said
    out = tmp_path / "out"
    report = json.loads((out / "gamma_report.json").read_text())
    assert all(gamma["decays"] for gamma in report["gammas"])
    assert {gamma["role"] for gamma in report["gammas"]} == {"absorbed", "final"}
    assert (out / "gamma_history.png").is_file()
    assert ModelCard.load(out / "README.md").data.eval_results[0].metric_type in ("accuracy", "loss")
    assert AutoModelForSequenceClassification.from_pretrained(out).config.num_labels == 2


def test_a_run_is_resumed_with_the_same_settings_only(encoder, sentences, call):
    given = ("--model_name_or_path", encoder, "--data_dir", sentences, "--save_strategy", "steps", "--save_steps", 1)
    assert call(*given, "--max_steps", 2)[0] == 0
    status, _, error = call(*given, "--max_steps", 2)
    assert (status, "Resuming from" in error) == (0, True)
    status, _, error = call(*given, "--max_steps", 2, "--gamma_policy", "all")
    assert (status, "gamma_policy='guidelines'" in error) == (2, True)


WRONG = {
    "no data": (["--data_dir", "nowhere"], "Expected a folder"),
    "data of the Hub": ([], "Expected the data set 'stanfordnlp/sst2' from the Hugging Face Hub"),
    "column": (["--data_dir", "DATA", "--sentence_column_name", "text"], "Expected the sentence column 'text'"),
    "samples": (["--data_dir", "DATA", "--max_train_samples", "0"], "Expected a positive number of samples"),
    "model": (["--data_dir", "DATA", "--model_name_or_path", "no/such"], "Expected a text encoder for 2 classes"),
}


@pytest.mark.parametrize(("options", "said"), WRONG.values(), ids=WRONG)
def test_bad_input_is_one_clear_error(options, said, sentences, tmp_path, call):
    status, _, error = call(*(str(sentences) if option == "DATA" else option for option in options))
    assert status == 2
    assert [line for line in error.splitlines() if line.startswith("bert_sst2.py: error: ") and said in line]
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.slow
def test_a_run_of_the_ablation_repeats_and_only_its_gammas_decay(encoder, sentences):
    config = replace(
        read_config("bert_sst2")[0],
        model=str(encoder),
        train_examples=None,
        epochs=2,
        batch_size=8,
        learning_rate=1e-3,
        probe_examples=8,
        measurements=2,
        gamma_weight_decays=[200.0],
        main_gamma_weight_decay=200.0,
    )
    run = Run(arm="absorbed", last_init=None, gamma_weight_decay=200.0, seed=1)
    _, analysis = network(config, run, str(sentences))
    assert analysis.gammas.counts == {"final": 1, "absorbed": 4}
    assert len(analysis.kwargs["input_ids"]) == 8
    first, second = (do_run(config, run, str(sentences)) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    assert first["steps"] == 8
    assert first["history"]["step"] == [0, 4, 8]
    assert 0.2 < first["decay_alone"] < 0.7
    history = first["history"]
    assert history["gamma/absorbed/mean"][-1] < 0.75 * history["gamma/absorbed/mean"][0]
    assert history["gamma/final/mean"][-1] > 0.95 * history["gamma/final/mean"][0]

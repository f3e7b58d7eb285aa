"""GammaRegArguments: everywhere that TrainingArguments go."""

import json
from dataclasses import dataclass, fields, replace

import pytest
from transformers import HfArgumentParser, Seq2SeqTrainingArguments, TrainingArguments

from hf_gammareg import GammaRegArguments, GammaRegError

OPTIONS = {
    "gamma_policy": "last,absorbed",
    "gamma_weight_decay": 0.3,
    "gamma_decay": ["*.bn1.weight", "norm.weight"],
    "gamma_no_decay": ["*.bn2.weight"],
    "gamma_page": True,
}
PARSER = HfArgumentParser(GammaRegArguments)


def options_of(args):
    return {name: getattr(args, name) for name in OPTIONS}


def test_defaults_leave_everything_to_the_guidelines():
    defaults = dict.fromkeys(OPTIONS) | {"gamma_policy": "guidelines", "gamma_page": False}
    assert options_of(GammaRegArguments("out")) == defaults


@dataclass
class Both(GammaRegArguments, Seq2SeqTrainingArguments):
    pass


def test_in_front_of_the_arguments_of_another_trainer():
    args = Both("out", **OPTIONS, predict_with_generate=True)
    assert options_of(args) == OPTIONS
    assert args.predict_with_generate
    with pytest.raises(GammaRegError, match="guidlines"):
        Both("out", gamma_policy="guidlines")


def test_command_line():
    words = "--output_dir out --weight_decay 0.1 --gamma_policy last,absorbed --gamma_weight_decay 0.3"
    patterns = "--gamma_decay *.bn1.weight norm.weight --gamma_no_decay *.bn2.weight --gamma_page"
    (args,) = PARSER.parse_args_into_dataclasses([*words.split(), *patterns.split()])
    assert options_of(args) == OPTIONS
    assert args.weight_decay == 0.1


@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_files(suffix, tmp_path):
    path = tmp_path / f"args.{suffix}"
    path.write_text(json.dumps(OPTIONS | {"output_dir": "out"}))  # JSON is YAML too
    (args,) = PARSER.parse_json_file(path) if suffix == "json" else PARSER.parse_yaml_file(path)
    assert options_of(args) == OPTIONS


def test_round_trips():
    args = GammaRegArguments("out", **OPTIONS)
    assert options_of(GammaRegArguments(**json.loads(args.to_json_string()))) == OPTIONS
    assert {name: args.to_dict()[name] for name in OPTIONS} == OPTIONS
    assert options_of(replace(args, weight_decay=0.2)) == OPTIONS
    assert args.to_sanitized_dict()["gamma_policy"] == "last,absorbed"


def test_every_field_has_help():
    own = {field.name for field in fields(GammaRegArguments)} - {field.name for field in fields(TrainingArguments)}
    assert own == set(OPTIONS)
    assert all(field.metadata["help"] for field in fields(GammaRegArguments) if field.name in own)
    assert "--gamma_policy" in PARSER.format_help()


def test_lists_as_a_file_may_hold_them():
    args = GammaRegArguments("out", gamma_policy=["last", "gate"], gamma_decay="*.bn1.weight")
    assert (args.gamma_policy, args.gamma_decay) == ("last,gate", ["*.bn1.weight"])
    assert GammaRegArguments("out", gamma_weight_decay="0.3").gamma_weight_decay == 0.3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"gamma_policy": "guideline"}, "Expected a policy .* found 'guideline'"),
        ({"gamma_policy": None}, "Expected a policy"),
        ({"gamma_weight_decay": -0.1}, "`gamma_weight_decay`.*found -0.1"),
        ({"gamma_weight_decay": float("nan")}, "`gamma_weight_decay`.*found nan"),
        ({"weight_decay": float("nan")}, "`weight_decay`.*found nan"),
        ({"weight_decay": -0.1}, "`weight_decay`.*found -0.1"),
        ({"gamma_decay": [1]}, r"`gamma_decay` to be a list of patterns .* found \[1\]"),
        ({"gamma_no_decay": {"a": 1}}, "`gamma_no_decay` to be a list of patterns"),
    ],
)
def test_bad_values_raise_at_once(wrong, message):
    with pytest.raises(GammaRegError, match=message):
        GammaRegArguments("out", **wrong)

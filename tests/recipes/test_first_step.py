"""What is counted of a Trainer's start ends where its first step begins."""

import first_step
import pytest
from transformers import AutoModelForSequenceClassification, BertConfig

TINY = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)


@pytest.mark.slow
@pytest.mark.parametrize("trainer", first_step.TRAINERS)
def test_both_trainers_come_to_their_first_step(trainer, monkeypatch, capfd):
    example = first_step.TOKENS | {"labels": 1}
    monkeypatch.setitem(first_step.MODELS, "tiny", (AutoModelForSequenceClassification, TINY, example))
    assert 0 < first_step.main("tiny", trainer) < 60
    assert ("hf_gammareg: " in capfd.readouterr().err) is (trainer == "GammaRegTrainer")

"""A quantised model under LoRA trains with roles for its trained norms, in one export and without a copy."""

import pytest
from transformers import BitsAndBytesConfig, LlamaConfig, LlamaForCausalLM, TorchAoConfig

from hf_gammareg import GammaRegArguments, GammaRegTrainer

pytestmark = pytest.mark.slow

peft = pytest.importorskip("peft")

SIZES = {"vocab_size": 20, "hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 2}


def four_bits():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4")


def eight_bits():
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    return BitsAndBytesConfig(load_in_8bit=True)


def torchao():
    quantization = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
    return TorchAoConfig(quantization.Int8WeightOnlyConfig())


@pytest.mark.parametrize("how", [four_bits, eight_bits, torchao])
def test_trained_norms_have_roles(how, tmp_path, traced):
    config = how()
    saved = tmp_path / "model"
    LlamaForCausalLM(LlamaConfig(**SIZES, num_hidden_layers=2, num_key_value_heads=2)).save_pretrained(saved)
    model = LlamaForCausalLM.from_pretrained(saved, quantization_config=config, device_map="cpu")
    lora = peft.LoraConfig(
        r=2, target_modules=["q_proj"], modules_to_save=["input_layernorm", "model.norm"], task_type="CAUSAL_LM"
    )
    args = GammaRegArguments(
        str(tmp_path), max_steps=1, weight_decay=0.1, use_cpu=True, report_to=[], disable_tqdm=True, save_strategy="no"
    )
    data = [{"input_ids": [i, 2, 3, 4], "labels": [1, 2, i, 4]} for i in range(8)]
    trainer = GammaRegTrainer(peft.get_peft_model(model, lora), args, train_dataset=data)
    packed = model.model.layers[0].mlp.up_proj.weight
    for copies in traced.values():
        copies.clear()
    trainer.train()
    assert [len(traced[kind]) for kind in ("export", "draft", "copy")] == [1, 0, 0]
    assert {gamma.name: str(gamma.role) for gamma in trainer.gammas if gamma.trainable} == {
        "model.layers.0.input_layernorm.modules_to_save.default.weight": "last",
        "model.layers.1.input_layernorm.modules_to_save.default.weight": "last",
        "model.norm.modules_to_save.default.weight": "final",
    }
    assert trainer.gammas.source == "export (train mode)"
    assert model.model.layers[0].mlp.up_proj.weight is packed

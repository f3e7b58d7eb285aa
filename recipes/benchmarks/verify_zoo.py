"""Roles measured instead of derived, over diverse architectures: `hf_gammareg.verify` on each.

    python recipes/benchmarks/verify_zoo.py --out verify_zoo.jsonl

Each gamma (one of each place and role; `--every` for all) is scaled by large factors on the randomly initialised
model, and where the factor arrives is compared with its role. One JSON line for each model, written as it is done; a
second run with the same file goes on where the first stopped. Neither weights nor the Hub are needed. Exit status 1 if
any gamma disagrees or any model fails.
"""

from __future__ import annotations

import json
import sys
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from children import in_children, one_line
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hf_gammareg import analyse, verify
from hf_gammareg.inputs.libraries import model_from_config
from hf_gammareg.inputs.sources import load_source
from hf_gammareg.model.whole import build_on
from hf_gammareg.roles.measure import sample

CONVOLUTIONAL = [
    "timm/resnet18",
    "timm/resnet26d",
    "timm/resnet50",
    "timm/resnext50_32x4d",
    "timm/seresnet18",
    "timm/skresnet18",
    "timm/ecaresnet26t",
    "timm/resnetv2_50",
    "timm/resnetv2_50x1_bit",
    "timm/wide_resnet50_2",
    "timm/res2net50_26w_4s",
    "timm/resnest14d",
    "timm/densenet121",
    "timm/vgg11_bn",
    "timm/dpn48b",
    "timm/dla34",
    "timm/hrnet_w18_small",
    "timm/regnetx_002",
    "timm/regnety_002",
    "timm/repvgg_a0",
    "timm/mobileone_s0",
    "timm/mobilenetv2_050",
    "timm/mobilenetv3_small_050",
    "timm/mobilenetv4_conv_small_050",
    "timm/efficientnet_b0",
    "timm/tf_efficientnetv2_b0",
    "timm/mnasnet_050",
    "timm/ghostnet_050",
    "timm/hardcorenas_a",
    "timm/lcnet_050",
    "timm/tinynet_e",
    "timm/inception_v3",
    "timm/inception_v4",
    "timm/xception41",
    "timm/cspresnet50",
    "timm/cspdarknet53",
    "timm/darknet53",
    "timm/selecsls42b",
    "timm/vovnet39a",
    "timm/ese_vovnet19b_dw",
    "timm/convnext_atto",
    "timm/convnextv2_atto",
    "timm/inception_next_atto",
    "timm/rdnet_tiny",
    "timm/fastvit_t8",
    "timm/repghostnet_050",
    "timm/hgnetv2_b0",
    "timm/starnet_s050",
    "timm/mambaout_femto",
    "timm/focalnet_tiny_srf",
    "torchvision/googlenet",
    "torchvision/shufflenet_v2_x0_5",
    "torchvision/mnasnet0_5",
]
"""Run on images of 96 pixels."""

OTHERS = [
    "timm/vit_tiny_patch16_224",
    "timm/deit_tiny_distilled_patch16_224",
    "timm/cait_xxs24_224",
    "timm/eva02_tiny_patch14_224",
    "timm/swin_tiny_patch4_window7_224",
    "timm/swinv2_tiny_window8_256",
    "timm/mixer_s16_224",
    "timm/resmlp_12_224",
    "timm/poolformerv2_s12",
    "timm/poolformer_s12",
    "timm/coat_lite_tiny",
    "timm/coatnet_pico_rw_224",
    "timm/crossvit_tiny_240",
    "timm/efficientformer_l1",
    "timm/edgenext_xx_small",
    "timm/levit_128s",
    "timm/mobilevit_xxs",
    "timm/mvitv2_tiny",
    "timm/nest_tiny",
    "timm/pit_ti_224",
    "timm/pvt_v2_b0",
    "timm/tiny_vit_5m_224",
    "timm/twins_svt_small",
    "timm/visformer_tiny",
    "timm/xcit_nano_12_p16_224",
    "timm/gcvit_xxtiny",
    "timm/hiera_tiny_224",
    "timm/test_maxvit",
    "timm/test_nfnet",
    "timm/test_vit4",
    "torchvision/swin_v2_t",
    "torchvision/maxvit_t",
]
"""Run on the images that they say they take."""

WIDTHS: dict[str, Any] = {
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 128,
    "pad_token_id": 0,
}
"""Two narrow layers, in the words of most configurations."""
GROUPED = WIDTHS | {"num_key_value_heads": 2, "head_dim": 12, "bos_token_id": 1, "eos_token_id": 2}
SEQ2SEQ = {
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "vocab_size": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 2,
}
IMAGES = WIDTHS | {"image_size": 64}
del IMAGES["vocab_size"], IMAGES["pad_token_id"]

CONFIGURATIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("bert", "roberta", "electra", "deberta", "deberta-v2", "mpnet"), WIDTHS),
    "modernbert": WIDTHS | {"bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2},
    "albert": WIDTHS | {"embedding_size": 16},
    "distilbert": {"dim": 48, "hidden_dim": 96, "n_layers": 2, "n_heads": 4, "vocab_size": 128},
    "gpt2": {"n_embd": 48, "n_layer": 2, "n_head": 4, "vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2},
    "bloom": {"hidden_size": 48, "n_layer": 2, "n_head": 4, "vocab_size": 128, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": WIDTHS | {"bos_token_id": 1, "eos_token_id": 2},
    "opt": WIDTHS | {"ffn_dim": 96, "word_embed_proj_dim": 48, "bos_token_id": 1, "eos_token_id": 2},
    **dict.fromkeys(
        ("llama", "mistral", "gemma", "gemma2", "gemma3_text", "qwen2", "qwen3", "olmo2", "cohere", "glm4", "granite"),
        GROUPED,
    ),
    "phi": WIDTHS | {"num_key_value_heads": 2, "bos_token_id": 1, "eos_token_id": 2},
    "t5": {"d_model": 48, "d_kv": 12, "d_ff": 96, "num_layers": 2, "num_heads": 4, "vocab_size": 128},
    "bart": SEQ2SEQ,
    "marian": SEQ2SEQ,
    "mamba": {"hidden_size": 48, "num_hidden_layers": 2, "vocab_size": 128, "state_size": 8},
    **dict.fromkeys(("vit", "deit", "dinov2", "beit"), IMAGES),
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32, 48, 64], "depths": [2, 2, 2, 2], "layer_type": "basic"},
    "segformer": {"depths": [1, 1, 1, 1]},
}
"""Fields of the configurations of transformers models."""

SOURCES = (*CONVOLUTIONAL, *OTHERS, *(f"transformers/{model_type}" for model_type in CONFIGURATIONS))


def load(source: str) -> tuple[torch.nn.Module, Any]:
    """A model with drawn weights, and its inputs or None for those that it says it takes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        family, _, name = source.partition("/")
        if family != "transformers":
            model = load_source(source, device="cpu").model
            return model, torch.randn(2, 3, 96, 96) if source in CONVOLUTIONAL else None
        from transformers import CONFIG_MAPPING

        config = CONFIG_MAPPING[name](**CONFIGURATIONS[name])
        return build_on(lambda: model_from_config(config), "cpu"), None


def measured(source: str, every: bool) -> dict[str, Any]:
    """Verify one model: one record of the output."""
    started = time.perf_counter()
    row: dict[str, Any] = {"source": source, "error": None, "gammas": 0, "measured": 0, "disagreements": []}
    try:
        model, inputs = load(source)
        analysis = analyse(model, inputs)
        gammas = analysis.gammas
        others = [name for name, _ in model.named_parameters() if name not in gammas]
        row |= {"graph": gammas.source, "gammas": len(gammas), "unknown": len(gammas.by_role("unknown"))}
        found = verify(model, analysis=analysis, names=[*(gammas.names if every else sample(gammas)), *others])
        row["measured"] = len(found)
        row["disagreements"] = [
            {"name": m.name, "role": str(m.role), "measured": m.measured, "moved": m.moved, "where": m.where}
            | {"reason": gammas[m.name].reason if m.name in gammas else gammas.not_gammas.get(m.name, "no norm's gain")}
            for m in found
            if not m.agrees
        ]
    except Exception as error:
        row["error"] = one_line(error)
    return row | {"seconds": round(time.perf_counter() - started, 1)}


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a file, by source; a model whose last line holds an error is measured again."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return {row["source"]: row for row in rows if not row["error"]}


def main(
    out: Annotated[Path, typer.Option(help="Where the lines go.")] = Path("verify_zoo.jsonl"),
    only: Annotated[list[str] | None, typer.Option(help="A source of the list; several times for several.")] = None,
    every: Annotated[bool, typer.Option("--every", help="Every gamma in place of one of each kind.")] = False,
    jobs: Annotated[int, typer.Option(min=1, help="Models at a time.")] = 1,
    limit: Annotated[float, typer.Option(help="Seconds a model may take.")] = 900.0,
    memory_gib: Annotated[float, typer.Option(help="Memory a process may take, in GiB.")] = 16.0,
) -> None:
    """Measure the roles of every architecture in the list and print what disagrees."""
    names = only or list(SOURCES)
    if wrong := set(names) - set(SOURCES):
        raise typer.BadParameter(f"expected sources of this recipe's list, found {', '.join(sorted(wrong))}")
    rows = read(out)
    todo = [name for name in names if name not in rows]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress, out.open("a", encoding="utf-8") as file:
        task = progress.add_task("verify", total=len(names), completed=len(names) - len(todo))
        work = partial(measured, every=every)
        # Each model leaves its values behind in the allocator: a process takes ten.
        for row in in_children(work, todo, jobs=jobs, limit=limit, memory_gib=memory_gib, each=10):
            rows[row["source"]] = row
            file.write(json.dumps(row) + "\n")
            file.flush()
            progress.update(task, advance=1, description=row["source"][-40:])
    bad = summarise([rows[name] for name in names])
    sys.exit(1 if bad else 0)


def summarise(rows: list[dict[str, Any]]) -> int:
    """Print every disagreement and failure, and one line of totals; returns how many there are."""
    for row in rows:
        for found in row.get("disagreements", ()):
            print(f"{row['source']} {found['name']}: {found['role']}, measured {found['measured']}. {found['reason']}")
        if row["error"]:
            print(f"{row['source']} failed: {row['error']}")
    disagreements = sum(len(row.get("disagreements", ())) for row in rows)
    failed = sum(row["error"] is not None for row in rows)
    gammas, measured, unknown = (sum(row.get(key, 0) for row in rows) for key in ("gammas", "measured", "unknown"))
    print(
        f"{len(rows)} models with {gammas:,} gammas, {measured:,} of them measured: {disagreements} disagreements, "
        f"{failed} models failed, {unknown} gammas of unknown role."
    )
    return disagreements + failed


if __name__ == "__main__":
    typer.run(main)

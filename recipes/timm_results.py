"""What the timm recipe leaves: weights that timm loads, all_results.json, and a model card that the Hub reads."""

import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from timm.models import save_for_hf

TEXT = """---
{metadata}
---

# {title}

{title} of timm, trained for image classification on `{dataset}` ({train_samples} images) with weight decay
{weight_decay} and the gamma policy `{policy}` of hf_gammareg: {decaying} of its {gammas} normalization gains decay
({roles}). `gamma_report.json` lists each of them with the reason.
{note}
Test accuracy: **{accuracy:.2%}** on {eval_samples} images.

```python
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)
```

## Training

| setting | value |
|---|---|
{settings}
"""


def save_results(
    folder: Path,
    model: torch.nn.Module,
    classes: list[str],
    size: int,
    results: dict[str, Any],
    settings: dict[str, Any],
    roles: dict[str, int],
) -> None:
    """Write the weights with their configuration, all_results.json and README.md into `folder`.

    Args:
        folder: the output folder.
        model: the trained model, unwrapped.
        classes: class names, in the order of the outputs.
        size: side of the input in pixels.
        results: what all_results.json says.
        settings: the options of the run, for the card.
        roles: how many gammas have each role.
    """
    config = {"num_classes": len(classes), "label_names": classes, "input_size": [3, size, size]}
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    (folder / "all_results.json").write_text(json.dumps(results, indent=4, sort_keys=True) + "\n")
    write_model_card(folder, results, settings, roles)


def write_model_card(folder: Path, results: dict[str, Any], settings: dict[str, Any], roles: dict[str, int]) -> None:
    """Write README.md, with the test accuracy in the metadata.

    Args:
        folder: where the weights are.
        results: what all_results.json says.
        settings: the options of the run, for the table.
        roles: how many gammas have each role.
    """
    dataset = results["dataset"]
    replaced = results.get("dataset_replaced")
    title = f"{results['model']} on {dataset}"
    metadata = ModelCardData(
        library_name="timm",
        tags=["image-classification", "timm", "hf_gammareg"],
        datasets=[dataset],
        metrics=["accuracy"],
        model_name=title,
        eval_results=[
            EvalResult(
                task_type="image-classification",
                dataset_type=dataset,
                dataset_name=dataset,
                dataset_split="test",
                metric_type="accuracy",
                metric_value=results["eval_accuracy"],
            )
        ],
    )
    text = TEXT.format(
        metadata=metadata.to_yaml(),
        title=results["model"],
        folder=folder.name,
        dataset=dataset,
        policy=results["policy"],
        weight_decay=settings["weight_decay"],
        decaying=results["gammas_decaying"],
        gammas=sum(roles.values()),
        roles=", ".join(f"{count} {role}" for role, count in roles.items()) or "it has none",
        note=f"\nThe digits stand in for CIFAR-10: {replaced}\n" if replaced else "",
        accuracy=results["eval_accuracy"],
        train_samples=results["train_samples"],
        eval_samples=results["eval_samples"],
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items()),
    )
    ModelCard(text).save(folder / "README.md")

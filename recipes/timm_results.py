"""What the timm recipe leaves: weights that timm loads, all_results.json, and a model card that the Hub reads."""

import json
from pathlib import Path
from typing import Any

import torch
from timm.models import save_for_hf

from hf_gammareg import GammaMap
from hf_gammareg.show.card import make_card, metric_results
from hf_gammareg.watch.history import PLOT_NAME

DESCRIPTION = """\
{model} of timm, trained for image classification on `{dataset}` ({train_samples} images), with weight decay on its
normalization gains by their role. `gamma_report.json` lists each of them with the reason.
{note}
Test accuracy: **{eval_accuracy:.2%}** on {eval_samples} images.

```python
import timm

model = timm.create_model("local-dir:{folder}", pretrained=True)
```
"""


def save_results(
    folder: Path,
    model: torch.nn.Module,
    classes: list[str],
    size: int,
    results: dict[str, Any],
    settings: dict[str, Any],
    gammas: GammaMap,
    decays: dict[str, bool],
) -> None:
    """Write the weights with their configuration, all_results.json and README.md into `folder`.

    Args:
        folder: the output folder.
        model: the trained model, unwrapped.
        classes: class names, in the order of the outputs.
        size: side of the input in pixels.
        results: what all_results.json says.
        settings: the options of the run, for the card.
        gammas: the gammas of the model.
        decays: which of them decayed.
    """
    config = {"num_classes": len(classes), "label_names": classes, "input_size": [3, size, size]}
    save_for_hf(model, str(folder), model_config=config, safe_serialization=True)
    (folder / "all_results.json").write_text(json.dumps(results, indent=4, sort_keys=True) + "\n")
    write_model_card(folder, results, settings, gammas, decays)


def write_model_card(
    folder: Path, results: dict[str, Any], settings: dict[str, Any], gammas: GammaMap, decays: dict[str, bool]
) -> None:
    """Write README.md, with the test results in the metadata; the arguments are those of `save_results`."""
    dataset, replaced = results["dataset"], results.get("dataset_replaced")
    note = f"\nThe digits stand in for CIFAR-10: {replaced}\n" if replaced else ""
    measured = {name: results[name] for name in ("eval_accuracy", "eval_loss")}
    data = {"type": dataset, "name": dataset, "split": "test"}
    card = make_card(
        f"{results['model']} on {dataset}",
        gammas=gammas,
        decays=decays,
        policy=results["policy"],
        weight_decay=settings["weight_decay"],
        description=DESCRIPTION.format(**results, folder=folder.name, note=note),
        settings=settings,
        results=metric_results(measured, tasks=["image-classification"], datasets=[data]),
        pictures={PLOT_NAME: "Mean size of the gammas by role"} if (folder / PLOT_NAME).is_file() else None,
        tags=["image-classification", "timm"],
        library_name="timm",
        datasets=[dataset],
        metrics=["accuracy"],
    )
    card.save(folder / "README.md")

"""The results and the model card that the timm recipe leaves, in the form that the Hub reads."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

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


def write_model_card(folder: Path, results: dict[str, Any], settings: dict[str, Any], roles: dict[str, int]) -> None:
    """Write README.md, with the test accuracy in the metadata.

    Args:
        folder: where the weights are.
        results: what all_results.json says.
        settings: the options of the run, for the table.
        roles: how many gammas have each role.
    """
    dataset = results["dataset"]
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
        note=f"\nThe digits stand in for CIFAR-10: {results['dataset_replaced']}\n" * ("dataset_replaced" in results),
        accuracy=results["eval_accuracy"],
        train_samples=results["train_samples"],
        eval_samples=results["eval_samples"],
        settings="\n".join(f"| {name} | {value} |" for name, value in settings.items()),
    )
    ModelCard(text).save(folder / "README.md")

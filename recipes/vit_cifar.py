"""Train or fine-tune a Vision Transformer for image classification, with weight decay on the gammas by their role.

    python recipes/vit_cifar.py --dataset_name digits
    accelerate launch recipes/vit_cifar.py --dataset_name uoft-cs/cifar10 --num_train_epochs 50
    accelerate launch recipes/vit_cifar.py --data_dir my_images --model_name_or_path google/vit-base-patch16-224-in21k

All arguments of `transformers.TrainingArguments` work, and one .json or .yaml file in place of all arguments. With no
argument at all it trains a small ViT on CIFAR-10, or on scikit-learn's handwritten digits if the Hub can't be used.
"""

import logging
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import common.passive_threads  # noqa: F401  # isort: skip

import torch
import transformers
from accelerate import PartialState
from common.accuracy import Accuracy
from common.hub import loading_options, why_not
from common.images import DataArguments, ImageData, load_image_data
from common.launch import announce, by_main_process, main_process_first, run
from common.pixels import PixelDataset, choose_augmentation
from common.resume import trainer_checkpoint, write_settings
from transformers import (
    AutoImageProcessor,
    AutoModelForImageClassification,
    BaseImageProcessor,
    EvalPrediction,
    HfArgumentParser,
    PreTrainedModel,
    TrainerCallback,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    set_seed,
)

from hf_gammareg import GammaMonitorCallback, GammaRegArguments, GammaRegError, GammaRegTrainer


@dataclass
class RecipeArguments(GammaRegArguments):
    """GammaRegArguments with defaults that suit small images."""

    output_dir: str = field(default="runs/vit_cifar", metadata={"help": "Where the model and its results go."})
    do_train: bool = field(default=True, metadata={"help": "Train the model."})
    do_eval: bool = field(default=True, metadata={"help": "Test the model, after each epoch and at the end."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "How often to go through the training images."})
    learning_rate: float = field(default=1e-3, metadata={"help": "The peak learning rate."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay, of the gammas that decay too."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of linear warm-up; below 1 a share of all."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "The learning rate schedule."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Images per process and step."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "Images per process and test step."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to test: no, steps, epoch."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint: no, steps, epoch."})
    save_total_limit: int | None = field(default=2, metadata={"help": "How many checkpoints to keep."})
    logging_strategy: str = field(default="epoch", metadata={"help": "When to log: no, steps, epoch."})
    monitor_gammas: bool = field(default=False, metadata={"help": "Measure the gammas whenever the loss is logged."})


@dataclass
class ModelArguments:
    """Which model: one of the Hub, one in a folder, or a small ViT with new weights."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A Hub id or a folder to fine-tune. Default: a small ViT from a configuration."}
    )
    model_revision: str = field(default="main", metadata={"help": "Branch, tag or commit of the Hub's model."})
    ignore_mismatched_sizes: bool = field(
        default=False, metadata={"help": "Take a model with another number of classes: its head starts anew."}
    )
    image_size: int | None = field(
        default=None, metadata={"help": "Side of the small ViT's input. Default: that of the images, at most 64."}
    )
    hidden_size: int = field(default=64, metadata={"help": "Width of the small ViT."})
    num_hidden_layers: int = field(default=4, metadata={"help": "Depth of the small ViT."})
    num_attention_heads: int = field(default=4, metadata={"help": "Attention heads of the small ViT."})


class ExactResumption(TrainerCallback):
    """Makes a resumed run what it would have been: the same augmentation, and no loss that was not yet logged."""

    def __init__(self, images: PixelDataset) -> None:
        self.images = images

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.images.set_epoch(int((state.epoch or 0) + 1e-6))

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # The Trainer logs before it saves; the losses since the last log are in no checkpoint.
        control.should_log = control.should_log or control.should_save


def parse_arguments() -> tuple[RecipeArguments, ModelArguments, DataArguments]:
    parser = HfArgumentParser((RecipeArguments, ModelArguments, DataArguments), description=__doc__)
    if len(sys.argv) != 2 or not sys.argv[1].endswith((".json", ".yaml", ".yml")):
        return parser.parse_args_into_dataclasses()
    path = Path(sys.argv[1])
    try:
        return parser.parse_json_file(path) if path.suffix == ".json" else parser.parse_yaml_file(path)
    except (OSError, ValueError) as error:
        said = str(error).rstrip(".")
        raise GammaRegError(f"Expected a file of arguments, found {str(path)!r}: {said}. Correct the file.") from error


def small_vit(args: ModelArguments, data: ImageData) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """A ViT with new weights that cuts small images into 8x8 patches, tiny ones into patches of 2x2 pixels."""
    size = args.image_size or min(*data.image_size, 64)
    config = ViTConfig(
        image_size=size,
        patch_size=max(2, round(size / 8)),
        hidden_size=args.hidden_size,
        intermediate_size=4 * args.hidden_size,
        num_hidden_layers=args.num_hidden_layers,
        num_attention_heads=args.num_attention_heads,
        initializer_range=args.hidden_size
        ** -0.5,  # 0.02 is for ViT-Base; so narrow a model would learn nothing for long
        **class_names(data),
    )
    return ViTForImageClassification(config), ViTImageProcessor(size={"height": size, "width": size})


def pretrained(args: ModelArguments, data: ImageData) -> tuple[PreTrainedModel, BaseImageProcessor]:
    """The named model and its image processor; without one, a plain processor for its input size."""
    name = args.model_name_or_path
    options = loading_options(name, args.model_revision)
    try:
        model = AutoModelForImageClassification.from_pretrained(
            name, ignore_mismatched_sizes=args.ignore_mismatched_sizes, **class_names(data), **options
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise GammaRegError(
            f"Expected an image classification model at {name!r} for {len(data.classes)} classes, found "
            f"{why_not(name, error)}. Check the name and the connection, or name a folder; --ignore_mismatched_sizes "
            "gives it a new head."
        ) from error
    try:
        return model, AutoImageProcessor.from_pretrained(name, **options)
    except (OSError, ValueError):
        size = getattr(model.config, "image_size", None) or 224
        return model, ViTImageProcessor(size={"height": size, "width": size})


def class_names(data: ImageData) -> dict[str, Any]:
    return {"id2label": dict(enumerate(data.classes)), "label2id": {name: i for i, name in enumerate(data.classes)}}


def input_size(processor: BaseImageProcessor) -> int:
    size = (processor.crop_size if getattr(processor, "do_center_crop", False) else None) or processor.size
    return size.get("height") or size.get("shortest_edge") or 224


def collate(examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return {
        "pixel_values": torch.stack([example["pixel_values"] for example in examples]),
        "labels": torch.tensor([example["labels"] for example in examples]),
    }


def settings_of(args: RecipeArguments, model_args: ModelArguments, data_args: DataArguments, name: str) -> dict:
    """The settings that a run and its resumption must share."""
    chosen = args.to_dict()
    names = ["learning_rate", "weight_decay", "num_train_epochs", "max_steps", "seed", "optim", "lr_scheduler_type"]
    names += ["per_device_train_batch_size", "gradient_accumulation_steps"]
    names += sorted(option for option in chosen if option.startswith("gamma_"))
    return {"dataset": name, **vars(data_args), **vars(model_args), **{option: chosen[option] for option in names}}


def mean_train_loss(log_history: list[dict[str, Any]]) -> float | None:
    """The loss over all steps of the run; the Trainer's own `train_loss` leaves out those before a resumption."""
    logged = [(entry["step"], entry["loss"]) for entry in log_history if "loss" in entry]
    if not logged:
        return None
    starts = [0, *(step for step, _ in logged)]
    return sum((step - start) * loss for start, (step, loss) in zip(starts, logged, strict=False)) / logged[-1][0]


def train(trainer: GammaRegTrainer, settings: dict[str, Any]) -> None:
    """Train, from the last checkpoint where there is one, and leave the model and the training metrics."""
    checkpoint = by_main_process(lambda: trainer_checkpoint(trainer.args, settings))
    if trainer.is_world_process_zero():
        write_settings(trainer.args.output_dir, settings)
    metrics = trainer.train(resume_from_checkpoint=checkpoint).metrics
    loss = mean_train_loss(trainer.state.log_history)
    if loss is not None:
        metrics["train_loss"] = loss
    trainer.save_model()
    trainer.log_metrics("train", metrics)
    trainer.save_metrics("train", metrics)
    trainer.save_state()


def write_model_card(trainer: GammaRegTrainer, model_args: ModelArguments, data: ImageData) -> None:
    """The Trainer's card, with what it can't know: a model with new weights, a data set that stands in."""
    trainer.create_model_card(
        tasks="image-classification",
        tags=["image-classification", "vision"],
        dataset=data.name,
        dataset_tags=data.name,
        finetuned_from=model_args.model_name_or_path,
    )
    if not trainer.is_world_process_zero():
        return
    said = "Weight decay on its normalization gains goes by their role; see below."
    said += f"\n\nThe digits stand in for CIFAR-10: {data.replaced}" if data.replaced else ""
    path = Path(trainer.args.output_dir) / "README.md"
    text = path.read_text().replace("a fine-tuned version of [](https://huggingface.co/)", "a small ViT, trained anew")
    path.write_text(text.replace("## Model description\n\nMore information needed", f"## Model description\n\n{said}"))


def main() -> None:
    args, model_args, data_args = parse_arguments()
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    transformers.utils.logging.set_verbosity(args.get_process_log_level())
    set_seed(args.seed)

    data = main_process_first(lambda: load_image_data(data_args, args.seed))
    if data.replaced:
        announce(f"TRAINING ON THE HANDWRITTEN DIGITS, NOT ON CIFAR-10. {data.replaced}")
    build = pretrained if model_args.model_name_or_path else small_vit
    model, processor = main_process_first(lambda: build(model_args, data))

    def to_pixels(images: list[Any]) -> torch.Tensor:
        return processor(images, return_tensors="pt")["pixel_values"]

    augment = choose_augmentation(data_args.augmentation, data, input_size(processor))
    train_images = PixelDataset(data.train, to_pixels, augment, seed=args.seed)
    metric = Accuracy()

    def compute_metrics(prediction: EvalPrediction) -> dict[str, float]:
        return metric.compute(predictions=prediction.predictions.argmax(-1), references=prediction.label_ids)

    args.dataloader_pin_memory = args.dataloader_pin_memory and torch.accelerator.is_available()
    trainer = GammaRegTrainer(
        model=model,
        args=args,
        train_dataset=train_images,
        eval_dataset=PixelDataset(data.test, to_pixels),
        data_collator=collate,
        compute_metrics=compute_metrics,
        processing_class=processor,
        callbacks=[ExactResumption(train_images), *([GammaMonitorCallback()] if args.monitor_gammas else [])],
    )
    if args.do_train:
        train(trainer, settings_of(args, model_args, data_args, data.name))
    if args.do_eval:
        metrics = trainer.evaluate() | data.results() | {"num_processes": PartialState().num_processes}
        trainer.log_metrics("eval", metrics)
        trainer.save_metrics("eval", metrics)
    write_model_card(trainer, model_args, data)
    if data.replaced:
        announce(f"TRAINED ON THE HANDWRITTEN DIGITS, NOT ON CIFAR-10. {data.replaced}")
    if args.do_eval and PartialState().is_main_process:
        print(f"Test accuracy: {metrics['eval_accuracy']:.2%} on {len(data.test)} images of {data.name}")


if __name__ == "__main__":
    sys.exit(run(main))

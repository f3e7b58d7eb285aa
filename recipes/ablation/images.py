"""One run on images: a timm model with new weights."""

import functools
from dataclasses import dataclass
from typing import Any

import timm
import torch
from common.images import DataArguments, load_image_data
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad
from torchvision.transforms import v2

from ablation.arms import Run
from ablation.config import Ablation
from ablation.loop import fit, score
from hf_gammareg import Analysis, GammaRegError, Role, analyse

SAMPLE_SEED = 0
"""Draws the subset of examples: the same one in every run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """Training and test images in memory, each (examples, 3, height, width), of mean 0 and deviation 1 in training."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor
    classes: int


@functools.cache
def load(name: str, data_dir: str | None, train: int | None, test: int | None, size: int | None) -> Images:
    """The images that a configuration names, from a local folder where one is given."""
    options = {"data_dir": data_dir} if data_dir else {"dataset_name": name}
    found = load_image_data(DataArguments(**options, max_train_samples=train, max_eval_samples=test), SAMPLE_SEED)
    shape = (size, size) if size else found.image_size
    to_tensor = v2.Compose([v2.PILToTensor(), v2.Resize(shape, antialias=True), v2.ToDtype(torch.float32, scale=True)])
    splits = []
    for split in (found.train, found.test):
        pixels = torch.stack([to_tensor(image.convert("RGB")) for image in split["image"]])
        splits.append((pixels, torch.tensor(split["label"])))
    (pixels, labels), (test_pixels, test_labels) = splits
    mean, deviation = pixels.mean((0, 2, 3), keepdim=True), pixels.std((0, 2, 3), keepdim=True)
    return Images(
        train=(pixels - mean) / deviation,
        train_labels=labels,
        test=(test_pixels - mean) / deviation,
        test_labels=test_labels,
        classes=len(found.classes),
    )


def images_of(config: Ablation, data_dir: str | None) -> Images:
    """The images of a configuration; loaded once in a process."""
    return load(config.dataset, data_dir, config.train_examples, config.test_examples, config.image_size)


def build(config: Ablation, classes: int, size: int) -> nn.Module:
    """The network with new weights, from torch's random numbers."""
    options: dict[str, Any] = {"num_classes": classes, **config.model_options}
    width = config.cifar_stem_width
    try:
        if width is None:
            return timm.create_model(config.model, **options)
        # Of timm's stems only the deep one leaves the number of its channels open; its convolutions go at once.
        channels = tuple(width * factor for factor in (1, 2, 4, 8))
        model = timm.create_model(
            config.model, stem_type="deep", stem_width=width // 2, channels=channels, zero_init_last=False, **options
        )
        model.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
        model.maxpool = nn.Identity()
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise GammaRegError(
            f"Expected to make the timm model {config.model!r} for {size}x{size} images, found {error}. Correct the "
            "file of settings."
        ) from error
    return model


def prepare(config: Ablation, run: Run, data: Images, device: str = "cpu") -> tuple[nn.Module, Analysis]:
    """The network of a run before its first step, and its analysis by the examples for the variances."""
    torch.manual_seed(run.seed)
    model = build(config, data.classes, data.train.shape[-1])
    # Not on a CPU: torch 2.14.1 corrupts the heap there, in the backward pass of a strided 1x1 convolution.
    convolutions = config.cifar_stem_width is not None and device != "cpu"
    model.to(device, memory_format=torch.channels_last if convolutions else torch.preserve_format)
    analysis = analyse(model, data.test[: config.probe_examples].to(device))
    if run.last_init is not None:
        for gamma in analysis.gammas.by_role(Role.LAST):
            nn.init.constant_(model.get_parameter(gamma.name), run.last_init)
    return model, analysis


def train(config: Ablation, run: Run, data_dir: str | None = None, device: str = "cpu") -> dict[str, Any]:
    """Do one run.

    Args:
        config: what all runs have in common.
        run: which one.
        data_dir: a folder with the data set, in place of the Hub.
        device: where to train. On a CPU with one thread a run repeats to the bit.

    Returns:
        Test accuracy and loss, the loss of the last epoch, what decay alone does, and what was measured on the way.
    """
    data = images_of(config, data_dir)
    model, analysis = prepare(config, run, data, device)

    def loss_of(chosen: Tensor, generator: torch.Generator) -> Tensor:
        pixels = augmented(data.train[chosen], config.shift, config.flip, generator)
        return cross_entropy(model(pixels.to(device)), data.train_labels[chosen].to(device))

    found = fit(config, run, model, analysis, len(data.train), loss_of)
    batches = zip(data.test.split(500), data.test_labels.split(500), strict=True)
    return {**score(model, batches, lambda pixels: model(pixels.to(device))), **found}


def augmented(pixels: Tensor, shift: int, flip: bool, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `shift` pixels each way, and mirror half of them."""
    count, _, height, width = pixels.shape
    if flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(-1), pixels)
    if shift:
        moves = torch.randint(2 * shift + 1, (2, count), generator=generator)
        rows = (moves[0, :, None] + torch.arange(height))[:, None, :, None]
        columns = (moves[1, :, None] + torch.arange(width))[:, None, None, :]
        examples = torch.arange(count)[:, None, None, None]
        channels = torch.arange(pixels.shape[1])[None, :, None, None]
        pixels = pad(pixels, (shift,) * 4)[examples, channels, rows, columns]
    return pixels

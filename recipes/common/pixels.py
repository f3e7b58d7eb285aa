"""Images to batches of pixels, with an augmentation that depends only on the seed, the epoch and the image."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torchvision.transforms import v2

from common.images import ImageData
from common.sources import DIGITS

SMALL = 64
"""Up to this many pixels a side an image is shifted, above it cropped."""


def choose_augmentation(kind: str, data: ImageData, size: int) -> v2.Transform | None:
    """The transform of one training image that `--augmentation` names; None for none.

    Args:
        kind: `auto`, `none`, `affine`, `shift_flip` or `crop_flip`.
        data: the images, whose size `affine` and `shift_flip` keep.
        size: side of the square that the model reads, in pixels: what a crop is resized to.
    """
    height, width = data.image_size
    if kind == "auto":
        small = max(height, width) <= SMALL
        kind = "affine" if data.name == DIGITS else "shift_flip" if small else "crop_flip"
    if kind == "none":
        return None
    if kind == "affine":
        return v2.RandomAffine(10, (1 / 16, 1 / 16), (0.9, 1.1), interpolation=v2.InterpolationMode.BILINEAR)
    if kind == "crop_flip":
        return v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip()])
    shift = v2.RandomCrop((height, width), padding=[max(1, width // 8), max(1, height // 8)], pad_if_needed=True)
    return v2.Compose([shift, v2.RandomHorizontalFlip()])


class PixelDataset(torch.utils.data.Dataset):
    """Examples `{"pixel_values", "labels"}` of a split.

    An image's augmentation is drawn from (seed, epoch, index), not from the global random state. So a run that is
    resumed in the middle of an epoch sees the same pixels as one that never stopped, however many batches were
    prefetched, and with any number of workers.

    Args:
        split: a data set with columns `image` and `label`.
        to_pixels: makes a float tensor (images, channels, height, width) of a list of RGB images.
        augment: transforms one image, with torch's random numbers; None for none.
        seed: of the augmentation.
    """

    def __init__(
        self,
        split: Dataset,
        to_pixels: Callable[[list[Any]], torch.Tensor],
        augment: Callable[[Any], Any] | None = None,
        seed: int = 0,
    ) -> None:
        self.split = split
        self.to_pixels = to_pixels
        self.augment = augment
        self.seed = seed
        # In shared memory, so that workers that outlive an epoch see it change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def set_epoch(self, epoch: int) -> None:
        """Draw the augmentation of this epoch from now on."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        rows = self.split[list(indices)]
        images = [image.convert("RGB") for image in rows["image"]]
        if self.augment is not None:
            images = [self._augmented(image, index) for image, index in zip(images, indices, strict=True)]
        pixels = self.to_pixels(images)
        return [{"pixel_values": values, "labels": label} for values, label in zip(pixels, rows["label"], strict=True)]

    def _augmented(self, image: Any, index: int) -> Any:
        seed = np.random.SeedSequence([self.seed, int(self._epoch), int(index)]).generate_state(1, np.uint64)[0]
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(seed) & (2**63 - 1))
            return self.augment(image)

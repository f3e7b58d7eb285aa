"""The data options that both recipes take, and the training and test images they stand for."""

from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetDict

from common.columns import standard_columns
from common.sources import DIGITS, DatasetUnavailableError, digits, from_folder, from_hub
from hf_gammareg import GammaRegError

DEFAULT_DATASET = "uoft-cs/cifar10"


@dataclass
class DataArguments:
    """What to train and test on. With neither `--dataset_name` nor `--data_dir`: CIFAR-10 if the Hub answers."""

    dataset_name: str | None = field(
        default=None,
        metadata={"help": "A data set of the Hub, or 'digits': the 1,797 handwritten digits of scikit-learn."},
    )
    dataset_config_name: str | None = field(
        default=None, metadata={"help": "The configuration of the Hub's data set, where it has several."}
    )
    data_dir: str | None = field(
        default=None,
        metadata={"help": "A local folder: parquet files named by split (train*, test*), or an imagefolder."},
    )
    image_column_name: str | None = field(default=None, metadata={"help": "The column of images. Default: found."})
    label_column_name: str | None = field(default=None, metadata={"help": "The column of classes. Default: found."})
    train_val_split: float = field(
        default=0.15, metadata={"help": "Share of the training images to test on, where the data has no test split."}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many images at most."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Test on this many images at most."})
    augmentation: str = field(
        default="auto",
        metadata={
            "help": "What happens to training images: none, affine (turned, scaled and shifted a little), shift_flip "
            "(shifted by up to an eighth, mirrored), crop_flip (a resized crop, mirrored). auto: affine for the "
            "digits, shift_flip for other images of up to 64 pixels a side, crop_flip for larger ones.",
            "choices": ["auto", "none", "affine", "shift_flip", "crop_flip"],
        },
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """Images to train and to test on, in columns `image` and `label`."""

    name: str
    """The Hub's name, the folder, or `digits`."""
    train: Dataset
    test: Dataset
    replaced: str | None = None
    """Why the digits stand in for the default data set, or None."""

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the labels."""
        return self.train.features["label"].names

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the first training image, in pixels."""
        width, height = self.train[0]["image"].size
        return height, width

    def results(self) -> dict[str, str | int]:
        """What all_results.json says of the data."""
        said: dict[str, str | int] = {
            "dataset": self.name,
            "train_samples": len(self.train),
            "eval_samples": len(self.test),
        }
        return said | ({"dataset_replaced": self.replaced} if self.replaced else {})


def load_image_data(args: DataArguments, seed: int) -> ImageData:
    """The images that the options name.

    A data set that was named is never replaced by another. With none named, CIFAR-10 is replaced by the digits if
    the Hub can't be used, and `ImageData.replaced` says why.

    Args:
        args: the data options.
        seed: of the samples that `max_train_samples`, `max_eval_samples` and `train_val_split` draw.

    Raises:
        GammaRegError: if the data can't be had, or lacks a column or a split.
    """
    _check(args)
    name, splits, replaced = _named(args)
    if "train" not in splits:
        raise GammaRegError(f"Expected a train split in {name!r}, found {sorted(splits)}. Name the files train*.")
    splits = standard_columns(splits, args.image_column_name, args.label_column_name)
    held_out = next((split for split in ("test", "validation") if split in splits and _has_labels(splits[split])), None)
    if held_out is None:
        splits = splits["train"].train_test_split(args.train_val_split, seed=seed)
        held_out = "test"
    return ImageData(
        name=name,
        train=_at_most(splits["train"], args.max_train_samples, seed),
        test=_at_most(splits[held_out], args.max_eval_samples, seed),
        replaced=replaced,
    )


def _named(args: DataArguments) -> tuple[str, DatasetDict, str | None]:
    if args.data_dir is not None:
        return Path(args.data_dir).name or args.data_dir, from_folder(args.data_dir), None
    if args.dataset_name == DIGITS:
        return DIGITS, digits(), None
    if args.dataset_name is not None:
        return args.dataset_name, from_hub(args.dataset_name, args.dataset_config_name), None
    try:
        return DEFAULT_DATASET, from_hub(DEFAULT_DATASET), None
    except DatasetUnavailableError as error:
        return DIGITS, digits(), str(error)


def _check(args: DataArguments) -> None:
    if args.dataset_name is not None and args.data_dir is not None:
        raise GammaRegError(
            f"Expected --dataset_name or --data_dir, found both ({args.dataset_name!r}, {args.data_dir!r}). Give one."
        )
    for option in ("max_train_samples", "max_eval_samples"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise GammaRegError(f"Expected a positive number for --{option}, found {value}. Leave it out for all.")
    if not 0 < args.train_val_split < 1:
        raise GammaRegError(f"Expected a share between 0 and 1 for --train_val_split, found {args.train_val_split}.")


def _has_labels(split: Dataset) -> bool:
    # Data sets whose test labels are secret have -1 there.
    return len(split) > 0 and min(split["label"]) >= 0


def _at_most(split: Dataset, limit: int | None, seed: int) -> Dataset:
    return split if limit is None or limit >= len(split) else split.shuffle(seed=seed).select(range(limit))

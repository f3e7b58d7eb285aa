"""Where the splits come from: the digits that ship with scikit-learn, the Hub, or a local folder."""

from pathlib import Path

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, load_dataset

from common.hub import cache_only_if_unreachable, why_not
from hf_gammareg import GammaRegError

DIGITS = "digits"
DIGITS_TEST_SIZE = 360
OR_IMAGES = " or one folder of images per class"


class DatasetUnavailableError(GammaRegError):
    """A data set of the Hub could not be had."""


def digits() -> DatasetDict:
    """scikit-learn's 1,797 handwritten digits, 8x8 grey, in a fixed stratified split: 1,437 to train, 360 to test."""
    try:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split
    except ImportError as error:
        raise GammaRegError(
            "Expected scikit-learn, which ships the digits, found that it is not installed. "
            "Install it with: pip install 'hf-gammareg[recipes]'"
        ) from error
    values, labels = load_digits(return_X_y=True)
    pixels = (values.reshape(-1, 8, 8) * (255 / 16)).round().astype(np.uint8)
    train, test = train_test_split(np.arange(len(labels)), test_size=DIGITS_TEST_SIZE, stratify=labels, random_state=0)
    features = Features({"image": Image(), "label": ClassLabel(names=[str(digit) for digit in range(10)])})
    return DatasetDict(
        {
            split: Dataset.from_dict({"image": list(pixels[rows]), "label": labels[rows]}, features=features)
            for split, rows in (("train", train), ("test", test))
        }
    )


def from_hub(
    name: str,
    config_name: str | None = None,
    cache_dir: str | None = None,
    *,
    otherwise: str = f", or use --dataset_name {DIGITS}",
) -> DatasetDict:
    """A data set of the Hub, or its copy in the local cache if the Hub can't be used.

    Args:
        name: its id on the Hub.
        config_name: its configuration, where it has several.
        cache_dir: in place of the usual one.
        otherwise: what else can be done if it can't be had, for the message.

    Raises:
        DatasetUnavailableError: if neither can be had. Never replaced by another data set.
    """
    try:
        with cache_only_if_unreachable():
            return load_dataset(name, config_name, cache_dir=cache_dir)
    except Exception as error:  # connection, gating, a name that does not exist, a cache that holds half of it
        raise DatasetUnavailableError(
            f"Expected the data set {name!r} from the Hugging Face Hub, found {why_not(name, error)}. "
            f"Check the name and the connection, or name a local folder as data_dir{otherwise}."
        ) from error


def from_folder(folder: str, cache_dir: str | None = None, *, otherwise: str = OR_IMAGES) -> DatasetDict:
    """A local folder: parquet files named by split (train*, validation*, test*), or an imagefolder.

    Args:
        folder: its path.
        cache_dir: in place of the usual one.
        otherwise: what else it may hold, for the message.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        raise GammaRegError(f"Expected a folder for --data_dir, found none at {folder!r}. Check the path.")
    try:
        return load_dataset(str(path), cache_dir=cache_dir)
    except Exception as error:
        raise GammaRegError(
            f"Expected --data_dir to hold files named by split (train*.parquet, test*.parquet){otherwise}, found "
            f"{_content(path)} ({type(error).__name__}: {' '.join(str(error).split())}). Arrange it as "
            "https://huggingface.co/docs/datasets/loading describes."
        ) from error


def _content(folder: Path, limit: int = 5) -> str:
    names = sorted(entry.name for entry in folder.iterdir())
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "") or "nothing"

"""Which column holds the image and which the class, and both in one form: `image` (Image), `label` (ClassLabel)."""

from collections.abc import Callable
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Image, Value

from hf_gammareg import GammaRegError

IMAGE_NAMES = ("image", "img", "pixel_values")
LABEL_NAMES = ("label", "labels", "class", "target")


def standard_columns(splits: DatasetDict, image_column: str | None, label_column: str | None) -> DatasetDict:
    """Keep the image and the class column, as `image` and `label`, of every split that has both.

    Args:
        splits: a `train` split and others.
        image_column: its name, or None to find it: the one column of images.
        label_column: its name, or None to find it: the one column of classes.

    Raises:
        GammaRegError: if a named column is missing, or none or several could be meant.
    """
    features = splits["train"].features
    image = _find(features, "image", image_column, _holds_images, IMAGE_NAMES)
    label = _find(features, "label", label_column, lambda feature: isinstance(feature, ClassLabel), LABEL_NAMES)
    if image == label:
        raise GammaRegError(
            f"Expected two columns, found {image!r} for both image and label. "
            "Name another one with --image_column_name or --label_column_name."
        )
    both = {image, label}
    splits = DatasetDict({name: split for name, split in splits.items() if both <= set(split.column_names)})
    splits = splits.select_columns([image, label])
    splits = splits.rename_columns({old: new for old, new in ((image, "image"), (label, "label")) if old != new})
    if not isinstance(splits["train"].features["image"], Image):
        splits = splits.cast_column("image", Image())
    return splits if isinstance(splits["train"].features["label"], ClassLabel) else _encode_labels(splits, label)


def _holds_images(feature: Any) -> bool:
    # A parquet file written without datasets stores an image as a struct of its encoded bytes and its path.
    return isinstance(feature, Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _find(
    features: dict[str, Any], role: str, named: str | None, fits: Callable[[Any], bool], usual: tuple[str, ...]
) -> str:
    columns = ", ".join(repr(name) for name in sorted(features))
    option = f"--{role}_column_name"
    if named is not None:
        if named not in features:
            raise GammaRegError(
                f"Expected the {role} column {named!r}, found the columns {columns}. Name one of them with {option}."
            )
        return named
    fitting = [name for name, feature in features.items() if fits(feature)]
    candidates = fitting or [name for name in usual if name in features]
    preferred = [name for name in usual if name in candidates]
    if len(candidates) == 1 or preferred:
        return (preferred or candidates)[0]
    raise GammaRegError(
        f"Expected one {role} column, found {'none' if not candidates else 'several'} among {columns}. "
        f"Name it with {option}."
    )


def _encode_labels(splits: DatasetDict, column: str) -> DatasetDict:
    feature = splits["train"].features["label"]
    if not isinstance(feature, Value) or not ("string" in feature.dtype or "int" in feature.dtype):
        raise GammaRegError(
            f"Expected class names or class indices in the label column {column!r}, found {feature}. "
            "Name another column with --label_column_name."
        )
    classes = sorted(set(splits["train"]["label"]))
    index = {value: position for position, value in enumerate(classes)}
    for split in splits.values():
        unseen = sorted(set(split["label"]) - set(classes))
        if unseen:
            raise GammaRegError(
                f"Expected the classes of the training data in every split, found {unseen[:5]} as well. "
                "Remove those rows or add training examples of these classes."
            )
    encoded = ClassLabel(names=[str(value) for value in classes])

    def encode(split: Dataset) -> Dataset:
        labels = [index[value] for value in split["label"]]
        return split.remove_columns("label").add_column("label", labels).cast_column("label", encoded)

    return DatasetDict({name: encode(split) for name, split in splits.items()})

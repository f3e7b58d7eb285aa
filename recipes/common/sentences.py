"""Sentences and their classes: SST-2 of the Hub, another data set of its form, or a local folder."""

from dataclasses import dataclass, field
from pathlib import Path

from datasets import ClassLabel, Dataset

from common.sources import from_folder, from_hub
from hf_gammareg import GammaRegError

SAMPLE_SEED = 0
"""Draws `max_train_samples` and `max_eval_samples`: the same ones whatever the run's seed."""


@dataclass
class SentenceArguments:
    """What to train and test on."""

    dataset_name: str = field(default="stanfordnlp/sst2", metadata={"help": "A data set of the Hub."})
    data_dir: str | None = field(
        default=None, metadata={"help": "A local folder in its place: train*.parquet and validation*.parquet, or csv."}
    )
    sentence_column_name: str = field(default="sentence", metadata={"help": "The column of texts."})
    label_column_name: str = field(default="label", metadata={"help": "The column of classes."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Train on this many sentences at most."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Test on this many sentences at most."})
    max_length: int = field(default=64, metadata={"help": "Tokens of a sentence at most."})


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceData:
    """Sentences to train and to test on, in columns `sentence` and `label`."""

    name: str
    """The Hub's name, or that of the folder."""
    train: Dataset
    test: Dataset

    @property
    def classes(self) -> list[str]:
        """Class names, in the order of the labels."""
        return self.train.features["label"].names


def load_sentence_data(args: SentenceArguments) -> SentenceData:
    """The sentences that the options name; they are tested on the split `validation`, else on `test`.

    Raises:
        GammaRegError: if the data can't be had, or lacks a column or a split.
    """
    if args.data_dir is None:
        name, splits = args.dataset_name, from_hub(args.dataset_name, otherwise="")
    else:
        name, splits = Path(args.data_dir).name or args.data_dir, from_folder(args.data_dir, otherwise="")
    held_out = next((split for split in ("validation", "test") if split in splits), None)
    if "train" not in splits or held_out is None:
        raise GammaRegError(
            f"Expected a train and a validation split in {name!r}, found {sorted(splits)}. Name the files train* and "
            "validation*."
        )
    wanted = {"sentence": args.sentence_column_name, "label": args.label_column_name}
    found = {}
    for split, limit in (("train", args.max_train_samples), (held_out, args.max_eval_samples)):
        columns = splits[split].column_names
        for role, column in wanted.items():
            if column not in columns:
                raise GammaRegError(
                    f"Expected the {role} column {column!r} in the split {split!r} of {name!r}, found the columns "
                    f"{sorted(columns)}. Name one of them with --{role}_column_name."
                )
        if limit is not None and limit < 1:
            raise GammaRegError(f"Expected a positive number of samples, found {limit}. Leave it out for all.")
        kept = splits[split].select_columns(list(wanted.values()))
        kept = kept.rename_columns({old: new for new, old in wanted.items() if old != new})
        found[split] = kept if limit is None or limit >= len(kept) else kept.shuffle(SAMPLE_SEED).select(range(limit))
    train, test = found["train"], found[held_out]
    if not isinstance(train.features["label"], ClassLabel):
        train = train.class_encode_column("label")
        test = test.cast_column("label", train.features["label"])
    return SentenceData(name=name, train=train, test=test)

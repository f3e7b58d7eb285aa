import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from common import hub
from common.images import DataArguments, ImageData, load_image_data
from common.pixels import PixelDataset, choose_augmentation
from common.resume import check_settings, write_settings
from datasets import ClassLabel, Dataset, Features, Image, load_dataset

from hf_gammareg import GammaRegError


def images(count, size=8, channels=3):
    rng = np.random.default_rng(0)
    shape = (count, size, size, channels) if channels > 1 else (count, size, size)
    return list(rng.integers(0, 255, shape, dtype=np.uint8))


def split(count, image="img", label="label", size=8):
    features = Features({image: Image(), label: ClassLabel(names=["cat", "dog"])})
    return Dataset.from_dict({image: images(count, size), label: [i % 2 for i in range(count)]}, features=features)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "pets"
    path.mkdir()
    split(12).to_parquet(path / "train-00000-of-00001.parquet")
    split(6).to_parquet(path / "test-00000-of-00001.parquet")
    return path


@pytest.fixture
def no_hub(monkeypatch):
    hub.hub_problem.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", False)
    yield
    hub.hub_problem.cache_clear()


def load(**options):
    return load_image_data(DataArguments(**options), seed=0)


def test_digits_have_one_fixed_stratified_split():
    data, again = load(dataset_name="digits"), load(dataset_name="digits")
    assert (len(data.train), len(data.test), data.image_size) == (1437, 360, (8, 8))
    assert data.classes == [str(digit) for digit in range(10)]
    assert data.test["label"][:] == again.test["label"][:]
    assert min(np.bincount(data.test["label"][:])) >= 34


def test_finds_the_columns_of_parquet_files(folder):
    data = load(data_dir=str(folder))
    assert (data.name, len(data.train), len(data.test), data.classes) == ("pets", 12, 6, ["cat", "dog"])
    assert data.train.column_names == ["image", "label"]
    assert data.replaced is None


def test_an_imagefolder_without_a_test_split_gives_some_of_its_images_to_test(tmp_path):
    for name, image in enumerate(split(20)["img"]):
        path = tmp_path / "shapes" / ("round" if name % 2 else "square")
        path.mkdir(parents=True, exist_ok=True)
        image.save(path / f"{name}.png")
    data = load(data_dir=str(tmp_path / "shapes"), train_val_split=0.25)
    assert (len(data.train), len(data.test), data.classes) == (15, 5, ["round", "square"])


def test_plain_labels_and_plain_bytes_become_classes_and_images(tmp_path):
    plain = split(8).cast_column("img", Image(decode=False))
    labels = ["b", "a"] * 4
    plain = plain.remove_columns("label").add_column("class", labels)
    (tmp_path / "plain").mkdir()
    plain.to_pandas().to_parquet(tmp_path / "plain" / "train.parquet")
    data = load(data_dir=str(tmp_path / "plain"), train_val_split=0.5)
    assert data.classes == ["a", "b"]
    assert data.train[0]["image"].size == (8, 8)


def test_test_labels_that_are_secret_are_passed_over(tmp_path):
    (tmp_path / "secret").mkdir()
    split(8).to_parquet(tmp_path / "secret" / "train.parquet")
    split(4).to_parquet(tmp_path / "secret" / "validation.parquet")
    hidden = split(6).map(lambda row: {"label": -1})
    hidden.to_parquet(tmp_path / "secret" / "test.parquet")
    assert len(load(data_dir=str(tmp_path / "secret")).test) == 4


def test_takes_at_most_so_many_samples_and_the_same_ones_again(folder):
    first, second = (load(data_dir=str(folder), max_train_samples=5, max_eval_samples=100) for _ in range(2))
    assert (len(first.train), len(first.test)) == (5, 6)
    assert first.train["label"][:] == second.train["label"][:]


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"label_column_name": "kind"}, r"label column 'kind', found the columns 'img', 'label'.*--label_column_name"),
        ({"image_column_name": "photo"}, r"image column 'photo', found the columns 'img', 'label'"),
        ({"image_column_name": "label"}, r"found 'label' for both"),
        ({"max_train_samples": 0}, r"positive number for --max_train_samples, found 0"),
        ({"train_val_split": 1.5}, r"between 0 and 1"),
        ({"dataset_name": "digits"}, r"found both"),
    ],
)
def test_wrong_options_are_one_clear_error(folder, options, found):
    with pytest.raises(GammaRegError, match=found):
        load(data_dir=str(folder), **options)


def test_several_label_columns_have_to_be_told_apart(tmp_path):
    (tmp_path / "many").mkdir()
    two = split(8, label="fine").add_column("coarse", [0, 1] * 4).cast_column("coarse", ClassLabel(names=["a", "b"]))
    two.to_parquet(tmp_path / "many" / "train.parquet")
    with pytest.raises(GammaRegError, match=r"one label column, found several among 'coarse', 'fine', 'img'"):
        load(data_dir=str(tmp_path / "many"))
    assert load(data_dir=str(tmp_path / "many"), label_column_name="coarse").classes == ["a", "b"]


@pytest.mark.parametrize(("name", "found"), [("nowhere", "found none at"), ("empty", "found nothing")])
def test_a_folder_that_is_missing_or_empty_is_one_clear_error(tmp_path, name, found):
    (tmp_path / "empty").mkdir()
    with pytest.raises(GammaRegError, match=found):
        load(data_dir=str(tmp_path / name))


def test_a_data_set_that_was_named_is_never_replaced(no_hub):
    started = time.monotonic()
    with pytest.raises(GammaRegError, match=r"'someone/pets' from the Hugging Face Hub.* can't be reached"):
        load(dataset_name="someone/pets")
    assert time.monotonic() - started < 20, "the retries of a download were waited for"


def test_the_default_is_replaced_by_the_digits_and_says_so(no_hub):
    data = load()
    assert data.name == "digits"
    assert "uoft-cs/cifar10" in data.replaced
    assert data.results()["dataset_replaced"] == data.replaced


def test_a_copy_in_the_cache_is_loaded_without_the_hub(folder, no_hub, cache):
    made = Path(load_dataset(str(folder), cache_dir=str(cache)).cache_files["train"][0]["filename"]).parent
    kept = cache / "someone___pets" / "default" / "0.0.0" / ("0" * 40)
    shutil.copytree(made, kept)
    info = json.loads((kept / "dataset_info.json").read_text()) | {"dataset_name": "pets", "config_name": "default"}
    info["version"] = {"version_str": "0.0.0", "major": 0, "minor": 0, "patch": 0}
    (kept / "dataset_info.json").write_text(json.dumps(info))
    assert load(dataset_name="someone/pets").classes == ["cat", "dog"]


@pytest.mark.hub
def test_the_hub_serves_cifar10():
    hub.hub_problem.cache_clear()
    if problem := hub.hub_problem():
        pytest.skip(problem)
    data = load(max_train_samples=10, max_eval_samples=10)
    assert data.name == "uoft-cs/cifar10"


def test_offline_mode_counts_as_no_hub_at_once(monkeypatch):
    hub.hub_problem.cache_clear()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in hub.hub_problem()
    hub.hub_problem.cache_clear()


def pixels(batch):
    return torch.stack([torch.from_numpy(np.array(image)).permute(2, 0, 1).float() for image in batch])


def test_augmentation_depends_on_seed_epoch_and_image_alone():
    data = load(dataset_name="digits", max_train_samples=6)
    augment = choose_augmentation("affine", data, 8)
    one, other = (PixelDataset(data.train, pixels, augment, seed=3) for _ in range(2))
    state = torch.get_rng_state()
    together = [example["pixel_values"] for example in one.__getitems__(range(6))]
    torch.manual_seed(1)
    alone = [other[index]["pixel_values"] for index in reversed(range(6))][::-1]
    assert torch.equal(torch.stack(together), torch.stack(alone))
    torch.set_rng_state(state)
    one.set_epoch(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(torch.stack(together), torch.stack([one[index]["pixel_values"] for index in range(6)]))


def test_workers_that_outlive_an_epoch_see_the_next_one():
    data = load(dataset_name="digits", max_train_samples=8)
    train = PixelDataset(data.train, pixels, choose_augmentation("affine", data, 8))
    loader = torch.utils.data.DataLoader(train, batch_size=8, num_workers=1, persistent_workers=True)
    first = next(iter(loader))["pixel_values"]
    again = next(iter(loader))["pixel_values"]
    train.set_epoch(1)
    assert torch.equal(first, again)
    assert not torch.equal(first, next(iter(loader))["pixel_values"])


@pytest.mark.parametrize(
    ("kind", "size", "names"),
    [
        ("none", 8, None),
        ("auto", 8, ["RandomCrop", "RandomHorizontalFlip"]),
        ("auto", 100, ["RandomResizedCrop", "RandomHorizontalFlip"]),
        ("crop_flip", 8, ["RandomResizedCrop", "RandomHorizontalFlip"]),
    ],
)
def test_augmentation_suits_the_images(kind, size, names):
    data = ImageData(name="x", train=split(2, image="image", size=size), test=None)
    transform = choose_augmentation(kind, data, 32)
    assert (transform and [type(step).__name__ for step in transform.transforms]) == names


def test_settings_of_another_run_are_not_mixed_in(tmp_path):
    check_settings(tmp_path, {"dataset": "digits"})
    write_settings(tmp_path, {"dataset": "digits", "seed": 1})
    check_settings(tmp_path, {"dataset": "digits"})
    with pytest.raises(GammaRegError, match=r"dataset='digits'.*found dataset='cifar10'"):
        check_settings(tmp_path, {"dataset": "cifar10", "seed": 1})

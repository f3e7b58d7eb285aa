"""What is fixed before the first run: one file of settings, kept beside the results."""

import tomllib
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from hf_gammareg import GammaRegError

CONFIG_NAME = "config.toml"
CONFIGS = Path(__file__).parent / "configs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """Which runs there are, and what they have in common. Nothing here depends on the arm."""

    title: str
    task: str
    """`images`, `sentences` or `bytes`."""
    seeds: list[int]
    """Of the new weights and of the order of the examples: the same ones in every arm."""
    gamma_weight_decays: list[float]
    """Strengths of decay on the gammas of an arm, the weak one first. All other parameters keep `weight_decay`."""
    main_gamma_weight_decay: float
    """The strength that the verdicts are about."""
    last_inits: list[float] = field(default_factory=list)
    """What the gains of role `last` start at; the verdicts are about the first. Empty: they stay as they are made."""
    arms: list[str] = field(default_factory=list)
    """Keys of `arms.ARMS`; empty: the usual ones."""
    comparisons: list[str] = field(default_factory=list)
    """Pairs of arms, such as `guidelines - none`, whose differences count; named before the first run."""
    measurements: int = 5
    """How often a run is looked at, apart from its start."""
    probe_examples: int = 256
    """Test examples on which the variances at residual sums are measured."""

    dataset: str
    """`digits`, `python` (the source of its standard library), or a data set's name on the Hub."""
    train_examples: int | None = None
    """Train on so many, the same ones in every run; default: all."""
    test_examples: int | None = None
    image_size: int | None = None
    """Side in pixels that images are resized to; default: as they are."""
    context: int = 64
    """Bytes that a language model sees at once."""
    shift: int = 0
    """Training images are shifted by up to so many pixels each way."""
    flip: bool = False
    """Half of the training images are mirrored."""

    model: str
    """timm's name; for sentences a Hub id or a folder; for bytes a model type of transformers."""
    model_options: dict[str, Any] = field(default_factory=dict)
    """Further arguments of `timm.create_model`, or fields of the model type's configuration."""
    cifar_stem_width: int | None = None
    """For timm's ResNets: a 3x3 convolution to so many channels, no pooling, stages of 1, 2, 4 and 8 times that."""

    optimizer: str
    """timm's name, or for sentences the Trainer's."""
    learning_rate: float
    """At the end of a linear warm-up; it falls to 0 along a cosine."""
    weight_decay: float
    """Of all parameters that decay in any arm: everything of two dimensions and more."""
    batch_size: int
    epochs: int
    warmup_epochs: float = 1.0

    def __post_init__(self) -> None:
        problems = [
            f"{option.name}={getattr(self, option.name)!r}"
            for option in fields(self)
            if not _is_of(getattr(self, option.name), option.type)
        ]
        if self.task not in ("images", "sentences", "bytes"):
            problems.append(f"task={self.task!r}")
        if not problems:
            if self.main_gamma_weight_decay not in self.gamma_weight_decays:
                problems.append(f"main_gamma_weight_decay={self.main_gamma_weight_decay} not in gamma_weight_decays")
            if len(set(self.seeds)) != len(self.seeds) or len(self.seeds) < 2:
                problems.append(f"seeds={self.seeds}, where an interval needs two different ones")
            problems += [
                f"{name}={getattr(self, name)}"
                for name in ("learning_rate", "batch_size", "epochs", "measurements", "probe_examples")
                if getattr(self, name) <= 0
            ]
        if problems:
            raise GammaRegError(
                f"Expected the settings of an ablation, found {', '.join(problems[:5])}. Correct them; the fields of "
                "recipes/ablation/config.py say what each is."
            )


def _is_of(value: Any, kind: Any) -> bool:
    if kind == list[int]:
        return isinstance(value, list) and all(_is_of(entry, int) for entry in value)
    if kind == list[float]:
        return isinstance(value, list) and all(_is_of(entry, float) for entry in value)
    if kind == list[str]:
        return isinstance(value, list) and all(isinstance(entry, str) for entry in value)
    if kind is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, dict if kind == dict[str, Any] else kind)


def read_config(name: str | Path) -> tuple[Ablation, str]:
    """Read a file of settings.

    Args:
        name: a path, or the name of one of the files in `recipes/ablation/configs`, without its suffix.

    Returns:
        The settings, and the text of the file.

    Raises:
        GammaRegError: if there is no such file, or it holds anything but the fields of `Ablation`.
    """
    path = CONFIGS / f"{name}.toml" if (CONFIGS / f"{name}.toml").is_file() else Path(name)
    known = sorted(file.stem for file in CONFIGS.glob("*.toml"))
    try:
        text = path.read_text(encoding="utf-8")
        given = tomllib.loads(text)
    except (OSError, ValueError) as error:
        raise GammaRegError(
            f"Expected a file of settings (.toml) or one of {', '.join(known)}, found {str(name)!r} "
            f"({type(error).__name__}: {error}). Name one of these, or a file like them."
        ) from error
    wrong = sorted(given.keys() - {option.name for option in fields(Ablation)})
    missing = [o.name for o in fields(Ablation) if o.default is MISSING and o.default_factory is MISSING]
    missing = [name for name in missing if name not in given]
    if wrong or missing:
        found = [f"the unknown {', '.join(wrong)}"] * bool(wrong) + [f"no {', '.join(missing)}"] * bool(missing)
        raise GammaRegError(
            f"Expected the settings of an ablation in {str(path)!r}, found {' and '.join(found)}. Correct the file; "
            "the fields of recipes/ablation/config.py say what each is."
        )
    return Ablation(**given), text

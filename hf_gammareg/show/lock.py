"""A model's roles and decisions on file, so that a change in any of them does not go unnoticed."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_gammareg.errors import GammaRegError
from hf_gammareg.files import write_whole
from hf_gammareg.inputs.folders import configuration_file
from hf_gammareg.roles.gammas import GammaMap, Role

if TYPE_CHECKING:
    from torch import nn

VERSION = 1
"""Of the file's form."""

_FIELDS: dict[str, type] = {"role": str, "decays": bool, "kind": str, "numel": int}


def lock_dict(
    gammas: GammaMap, decays: Mapping[str, bool], model: nn.Module, *, source: str, policy: str
) -> dict[str, Any]:
    """What a lock file holds.

    Args:
        gammas: the gammas of the model.
        decays: `{parameter name: decays}`.
        model: the model, for the version of the library that its class comes from.
        source: the model's name (see `locked_source`).
        policy: name of the policy that decided.
    """
    from hf_gammareg import __version__

    library = type(model).__module__.partition(".")[0]
    version = getattr(sys.modules.get(library), "__version__", None)
    return {
        "lock": VERSION,
        "hf_gammareg": __version__,
        "library": f"{library} {version}" if version else library,
        "source": source,
        "policy": policy,
        "gammas": {
            g.name: {"role": str(g.role), "decays": decays[g.name], "kind": g.kind, "numel": g.numel} for g in gammas
        },
    }


def locked_source(source: str, path: str | Path) -> str:
    """A model's name as the lock file at `path` has it: a folder from there, however it was spelt, else as it is."""
    if (file := configuration_file(source)) is None:
        return source
    place = file.parent if file.name == "config.json" else file
    return Path(os.path.relpath(place.resolve(), Path(path).resolve().parent)).as_posix()


def check_lock(path: str | Path) -> Path:
    """Tell before any work is done whether a lock can be written to a path.

    Raises:
        GammaRegError: if it names a folder, or nothing.
    """
    if Path(path).is_dir():  # so is the empty path: this folder
        raise GammaRegError(
            f"Expected the name of a lock file to write, found the folder {str(path)!r}. Name a file in it."
        )
    return Path(path)


def write_lock(path: str | Path, lock: Mapping[str, Any]) -> Path:
    """Write a lock file, whole or not at all.

    Raises:
        GammaRegError: if it can't be written there.
    """
    try:
        return write_whole(path, json.dumps(lock, indent=2) + "\n")
    except OSError as error:
        raise GammaRegError(
            f"Expected a place to write the lock file {str(path)!r} to, found {error.strerror or error}. Name another."
        ) from error


def read_lock(path: str | Path) -> dict[str, Any]:
    """Read a lock file.

    Returns:
        What `lock_dict` made.

    Raises:
        GammaRegError: if there is none, or it is of another form.
    """
    try:
        lock = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        wrong = getattr(error, "strerror", None) or f"no JSON ({error})"
        raise _unfit(path, wrong) from error
    if not isinstance(lock, dict) or lock.get("lock") != VERSION:
        raise _unfit(path, f'no file with "lock": {VERSION}')
    for name in ("source", "policy", "library"):
        if not isinstance(lock.get(name), str):
            raise _unfit(path, f"no {name}")
    gammas = lock.get("gammas")
    if not isinstance(gammas, dict):
        raise _unfit(path, "no gammas")
    for name, row in gammas.items():
        for field, kind in _FIELDS.items():
            if not isinstance(row, dict) or type(row.get(field)) is not kind:
                raise _unfit(path, f"no {field} of gamma {name!r}")
        if row["role"] not in list(Role):
            raise _unfit(path, f"the role {row['role']!r} of gamma {name!r}")
    return lock


def _unfit(path: str | Path, found: str) -> GammaRegError:
    return GammaRegError(
        f"Expected {str(path)!r} to be a lock file, found {found}. Write it anew with gammareg inspect SOURCE --lock."
    )


def differences(locked: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed since a lock was written, a line each; empty if nothing did.

    The version of the library is no difference by itself: what matters is what it did to the gammas.

    >>> bn = {"role": "last", "decays": True, "kind": "batch_norm", "numel": 8}
    >>> then = {"source": "timm/resnet18", "policy": "guidelines", "gammas": {"bn1.weight": bn}}
    >>> differences(then, then | {"gammas": {"bn1.weight": bn | {"role": "absorbed"}}})
    ['role changed: bn1.weight: last -> absorbed']

    Args:
        locked: from `read_lock`.
        now: from `lock_dict`.
    """
    lines = [f"{name} changed: {locked[name]} -> {now[name]}" for name in ("source", "policy")]
    lines = [line for line, name in zip(lines, ("source", "policy"), strict=True) if locked[name] != now[name]]
    before, after = locked["gammas"], now["gammas"]
    for name in dict.fromkeys([*after, *before]):
        if name not in before:
            lines.append(f"added: {name} ({_told(after[name])})")
        elif name not in after:
            lines.append(f"removed: {name} ({_told(before[name])})")
        else:
            lines += _changes(name, before[name], after[name])
    return lines


def _changes(name: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    words = {"role": "role", "decays": "decision", "kind": "kind", "numel": "size"}
    return [
        f"{word} changed: {name}: {_value(before[field])} -> {_value(after[field])}"
        for field, word in words.items()
        if before[field] != after[field]
    ]


def _value(value: Any) -> str:
    return ("decays" if value else "does not decay") if isinstance(value, bool) else str(value)


def _told(row: Mapping[str, Any]) -> str:
    return f"{row['role']}, {_value(row['decays'])}"

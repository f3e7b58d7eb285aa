"""What a Trainer's model is analysed by: what the Trainer would feed it, else what its configuration says."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any

from accelerate.utils import send_to_device
from torch import Tensor, nn
from transformers import Trainer

from hf_gammareg.errors import GammaRegError
from hf_gammareg.graph.untouched import same_random_state
from hf_gammareg.inputs.batch import BATCH
from hf_gammareg.inputs.derive import arguments
from hf_gammareg.model.whole import placement
from hf_gammareg.roles.find import Analysis, analyse, untrained
from hf_gammareg.roles.gammas import Role
from hf_gammareg.trainer.apart import apart


def fed(trainer: Trainer) -> Any:
    """What a Trainer would feed its model first, of two training examples: by its own data loader and loss.

    All this is done in a copy of the process: data set, collator and Trainer stay as they are.

    Returns:
        Keyword arguments of the model's forward, or a pair of positional and keyword ones; None for examples that are
        not collated into arguments.

    Raises:
        GammaRegError: if the data can't be read or collated there.
    """
    return apart(lambda: _first_call(trainer, _two(trainer.get_train_dataloader())))


def collated(loader: Any) -> Any:
    """Two examples of a loader's data set as it collates them, in a copy of the process; it raises what `fed` does."""
    return apart(lambda: _two(loader))


def _two(loader: Any) -> Any:
    dataset = loader.dataset
    return loader.collate_fn([dataset[index % len(dataset)] for index in range(BATCH)])


class _Called(BaseException):
    """Ends a call of the model before it computes anything, whatever a loss function catches."""


def _first_call(trainer: Trainer, batch: Any) -> Any:
    """The arguments with which the Trainer's loss first calls the model; the batch where it does not get so far."""

    def stop(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Called(args, kwargs)

    model: Any = trainer.model
    model.register_forward_pre_hook(stop, prepend=True, with_kwargs=True)
    try:
        trainer.compute_loss(model, copy.copy(batch))
    except _Called as called:
        args, kwargs = called.args
        return (args, kwargs) if args else kwargs
    except Exception:
        pass
    return dict(batch) if isinstance(batch, Mapping) else None


def look(
    model: nn.Module, examples: Callable[[], Any], *, probe: Any = None, labels: Collection[str] = ("labels",)
) -> tuple[Analysis, bool]:
    """Analyse a model by training examples, or where there are none or they tell no role by its configuration.

    A model that trains no gamma is neither traced nor given examples: there is nothing to decide.

    Where a probe's batch is one of training examples too, only more of them, the model is analysed by it, and the probe
    needs no export of its own. One of another kind never is: who watches a run decides nothing in it.

    Args:
        model: the model, without wrappers.
        examples: makes a batch of training examples; None where there are none. It may draw random numbers.
        probe: the batch of a monitor's probe.
        labels: the names of labels, which a probe's batch may lack.

    Returns:
        The analysis, and whether it was made by the probe's batch.

    Raises:
        GammaRegError: if there are no examples, and the model does not say what it takes. Nothing was traced then.
    """
    if (frozen := untrained(model)) is not None:
        return frozen, False
    with same_random_state():
        batch, found = examples(), None
        more = None if batch is None or probe is None else _as_trained(model, batch, probe, labels)
        for inputs in (more, batch):
            if inputs is not None:
                found = analyse(model, send_to_device(inputs, placement(model)[0]))
                if found.program and (not found.gammas or len(found.gammas.by_role(Role.UNKNOWN)) < len(found.gammas)):
                    return found, inputs is more
        try:
            return analyse(model), False
        except GammaRegError:
            if found is None:
                raise
            return found, False


def _as_trained(model: nn.Module, batch: Any, probe: Any, labels: Collection[str]) -> dict[str, Any] | None:
    """A probe's batch as one that the model trains on, with zeros for the labels it lacks; None if it is another kind.

    Sizes may differ, types and numbers of dimensions may not. One row is no batch: it looks like what is broadcast.
    """
    try:
        args, kwargs = arguments(model, probe)
    except GammaRegError:  # the probe raises it when it measures
        return None
    given = dict(zip(inspect.signature(model.forward).parameters, args, strict=False)) | kwargs
    if not isinstance(batch, Mapping) or not given.keys() <= batch.keys():
        return None
    missing = batch.keys() - given.keys()
    if not missing <= set(labels) or any(_kind(batch[name])[1:] != (1,) for name in missing):
        return None  # labels are made up only where they are one for each example
    rows = min((len(value) for value in given.values() if isinstance(value, Tensor) and value.ndim), default=0)
    if rows < BATCH or any(_kind(value) != _kind(batch[name]) for name, value in given.items()):
        return None
    return given | {name: batch[name].new_zeros(rows) for name in missing}


def _kind(value: Any) -> tuple[Any, ...]:
    return (value.dtype, value.ndim) if isinstance(value, Tensor) else (value,)

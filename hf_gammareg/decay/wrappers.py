"""Optimizers under what others put around them, and what their classes are called."""

from __future__ import annotations

from typing import Any


def class_name(optimizer: Any) -> str:
    """The full name of an object's class; for torch's optimizers, whatever file they are in, `torch.optim.AdamW`."""
    module, name = type(optimizer).__module__, type(optimizer).__qualname__
    return f"torch.optim.{name}" if module.startswith("torch.optim.") else f"{module}.{name}"


def unwrapped_optimizer(optimizer: Any) -> Any:
    """The optimizer that accelerate and DeepSpeed wrapped, or the one that was given."""
    while class_name(optimizer).startswith(("accelerate.", "deepspeed.runtime.")) and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def base_optimizer(optimizer: Any) -> Any:
    """The optimizer that does the steps: without accelerate's wrapper and timm's Lookahead."""
    optimizer = unwrapped_optimizer(optimizer)
    return optimizer._base_optimizer if class_name(optimizer) == "timm.optim.lookahead.Lookahead" else optimizer

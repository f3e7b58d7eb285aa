"""A pytest plugin for timm's own tests: its optimizer factories are ours.

PYTHONPATH=tests pytest -p in_place_of_timm timm-1.0.31/tests/test_optim.py
"""

import timm.optim
import timm.optim._optim_factory

import hf_gammareg.timm


def pytest_configure():
    """Only where this is given as a plugin: a doctest run of our own tests imports it too."""
    for module in (timm.optim, timm.optim._optim_factory):
        for name in ("create_optimizer", "create_optimizer_v2"):
            setattr(module, name, getattr(hf_gammareg.timm, name))

"""Settings of the whole suite."""

import os

import pytest

# Before torch is imported: the models here are tiny, and more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


@pytest.fixture(scope="module")
def driver():
    """A Chromium for the tests of a module."""
    from browser import chromium, look

    with chromium() as found:
        look(found)
        yield found


@pytest.fixture
def same_verbosity():
    """Give back the verbosity of the libraries that a test or what it runs turns down."""
    import datasets
    import transformers

    verbosity = transformers.utils.logging.get_verbosity()
    bars = transformers.utils.logging.is_progress_bar_enabled(), datasets.are_progress_bars_disabled()
    yield
    transformers.utils.logging.set_verbosity(verbosity)
    if bars[0]:
        transformers.utils.logging.enable_progress_bar()
    if not bars[1]:
        datasets.enable_progress_bars()


@pytest.fixture
def traced(monkeypatch):
    """Counts what is traced and copied: by "export", "draft" and "copy" the models."""
    import copy

    import torch

    found = {"export": [], "draft": [], "copy": []}

    def counted(kind, call):
        def counting(subject, *args, **kwargs):
            if isinstance(subject, torch.nn.Module) and not isinstance(subject, torch.fx.GraphModule):
                found[kind].append(subject)
            return call(subject, *args, **kwargs)

        return counting

    monkeypatch.setattr(torch.export, "export", counted("export", torch.export.export))
    monkeypatch.setattr(torch.export, "draft_export", counted("draft", torch.export.draft_export))
    monkeypatch.setattr(copy, "deepcopy", counted("copy", copy.deepcopy))
    return found

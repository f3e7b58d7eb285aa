"""Settings of the whole suite."""

import os

# Before torch is imported: the models here are tiny, and more threads than cores only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

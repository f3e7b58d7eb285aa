"""Imported before torch: threads that wait sleep instead of spinning.

These models are tiny. Where something else runs on the machine, spinning threads make a step several times slower.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

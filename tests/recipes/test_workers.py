"""Worker processes that die, hang or lose the process that started them."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from children import in_children

pytestmark = pytest.mark.slow


def model(source):
    """What a benchmark does with a model of this name."""
    if source == "dies":
        os.kill(os.getpid(), signal.SIGKILL)
    if source == "hangs":
        time.sleep(600)
    if source == "exits":
        sys.exit("enough")
    if source == "eats":
        bytes(2**33)
    return {"source": source, "error": None}


def test_a_model_costs_its_own_line_alone():
    todo = ["exits", "dies", "hangs", "eats", "is fine"]
    found = {row["source"]: row["error"] for row in in_children(model, todo, jobs=1, limit=3, memory_gib=4)}
    assert list(found.items()) == [
        ("exits", "SystemExit: enough"),
        ("dies", "died (-9)"),
        ("hangs", "not done after 3 s"),
        ("eats", "MemoryError: "),
        ("is fine", None),
    ]
    assert not multiprocessing.active_children()


def nothing():
    pass


SCRIPT = """
import signal
import time
from common.workers import worker_pool
from test_workers import nothing
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what was started in the background ignores it
    with worker_pool(2, nothing) as pool:
        print(pool.schedule(abs, args=(-1,)).result(), flush=True)
        waiting = [pool.schedule(time.sleep, args=(600,)) for _ in range(2)]
        waiting[0].result()
"""


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGINT])
def test_processes_end_with_the_one_that_started_them(tmp_path, sign):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(tmp_path / "script.py")]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as run:
        assert run.stdout.readline() == b"1\n"
        workers = psutil.Process(run.pid).children(recursive=True)
        assert len(workers) >= 2
        run.send_signal(sign)
        _, alive = psutil.wait_procs(workers, timeout=60)
        run.kill()
    assert not alive

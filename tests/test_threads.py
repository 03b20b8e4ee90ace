"""One thread, unless somebody has chosen."""

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

CODE = "import mmcourse.{}, torch; print(torch.get_num_threads())"


@pytest.mark.parametrize("module", ["measure", "training", "project"])
@pytest.mark.parametrize("chosen, used", [(None, "1"), ("2", "2")])
def test_threads(module, chosen, used):
    env = {k: v for k, v in os.environ.items() if not k.endswith("_NUM_THREADS")}
    if chosen:
        env["OMP_NUM_THREADS"] = chosen
    command = [sys.executable, "-c", CODE.format(module)]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.stdout.strip() == used, done.stderr

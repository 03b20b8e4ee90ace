"""What the scripts in data/ share: arms of a study that run once and are kept.

    study = Study("lstm_order", __doc__, epochs=10)
    for seed in study.seeds(5):
        study(f"shuffled/{seed}", lambda: train_and_score(seed))

Each script that uses it understands `--again` (run what is in the file, too), `--only
WORD …` (arms whose names contain one of the words) and `--seeds N`. The file
data/results/NAME.json is written after each arm, whole or not at all:

    {"about": {"command": …, "torch": …, …}, "seconds": …, "runs": {arm: result}}
"""

import argparse
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from mmcourse.measure import seeded
from mmcourse.store import as_bits

RESULTS = Path(__file__).resolve().parent / "results"
bits = as_bits  # what scripts import from here


class Study:
    "A file of results, and the arms that fill it."

    def __init__(
        self,
        name: str,  # of the file in data/results/, without its ending
        doc: str,  # what `--help` says
        **about,  # settings to be kept beside the results
    ):
        parser = argparse.ArgumentParser(
            description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        parser.add_argument("--again", action="store_true")
        parser.add_argument("--only", nargs="*", default=[""], metavar="WORD")
        parser.add_argument("--seeds", type=int)
        self.args = parser.parse_args()
        self.file = RESULTS / f"{name}.json"
        kept = json.loads(self.file.read_text("utf-8")) if self.file.exists() else {}
        self.runs, self.took = kept.get("runs", {}), kept.get("took", {})
        self.about = about | {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        }
        torch.set_num_threads(1)

    def seeds(self, default: int) -> range:
        "The seeds to run."
        return range(self.args.seeds or default)

    def __call__(
        self,
        arm: str,  # its name, such as 'shuffled/0'
        run: Callable,  # () -> anything JSON can hold
        seed: int = 0,  # every random generator starts from it
    ):
        "Run an arm unless it is kept already, keep it, and return its result."
        wanted = any(word in arm for word in self.args.only)
        if not wanted or (arm in self.runs and not self.args.again):
            return self.runs.get(arm)
        start = time.process_time()
        with seeded(seed):
            self.runs[arm] = run()
        self.took[arm] = round(time.process_time() - start, 1)
        self._write()
        print(f"{arm}: {self.runs[arm]} ({self.took[arm]} s)", flush=True)
        return self.runs[arm]

    def _write(self):
        body = {
            "about": self.about,
            "seconds": round(sum(self.took.values())),
            "took": self.took,
            "runs": self.runs,
        }
        part = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        part.parent.mkdir(exist_ok=True)
        text = json.dumps(body, indent=1, ensure_ascii=False) + "\n"
        part.write_text(text, "utf-8")
        os.replace(part, self.file)

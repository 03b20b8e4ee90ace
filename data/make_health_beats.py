"""Lab 39: single beats of 96 made-up persons, from the simulator of neurokit2.

    python data/make_health_beats.py    # data/health_beats.npz

Each person has three beats (usual, without the P wave, broad), each of twelve leads and
one second at 64 samples a second. Values are kept as whole numbers, 1/60 mV each. The
script prints the digest, which stands in `mmcourse.health_tools`.
"""

from pathlib import Path

import numpy as np

from mmcourse.health_tools import KINDS, simulated_beat
from mmcourse.store import atomic, sha256

FILE = Path(__file__).resolve().parent / "health_beats.npz"


def main():
    beats = np.stack([[simulated_beat(p, k) for k in KINDS] for p in range(96)])
    whole = np.clip(np.round(60 * beats), -127, 127).astype(np.int8)
    with atomic(FILE) as file:
        np.savez_compressed(file, beats=whole)
    print(whole.shape, f"{FILE.stat().st_size / 1e3:.0f} kB", sha256(FILE))


if __name__ == "__main__":
    main()

"What nbval needs to know of this repository's notebooks."

import os

os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault(
    "OMP_NUM_THREADS", "1"
)  # networks this small gain nothing from threads, and lose much when two tests share the cores
os.environ["CUDA_VISIBLE_DEVICES"] = (
    ""  # `%%gpu` cells show what was recorded, on a machine with a GPU too
)


def pytest_collection_modifyitems(items):
    "nbval takes a cell without an execution count for one that never ran; ours are cleaned of theirs, since every count that changes is a line of diff. It compares no PNG; nor SVG here."
    for item in items:
        cell = getattr(item, "cell", None)
        if cell is not None and cell.get("execution_count", 1) is None:
            cell.execution_count = 1
        if hasattr(item.parent, "skip_compare"):
            item.parent.skip_compare = (*item.parent.skip_compare, "image/svg+xml")

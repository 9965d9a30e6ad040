"""Which of a run's processes this one is."""

import os


def rank() -> int:
    return int(os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or 0)

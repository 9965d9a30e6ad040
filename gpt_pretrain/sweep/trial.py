"""A sweep's trial on several devices: a fresh process of its own.

Lightning starts a rank by running the command line again, sweep and all, and leaves its process group
behind for the next trial, which would train on half of its samples without a word.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode

from gpt_pretrain.config.words import word
from gpt_pretrain.errors import UserFacingError
from gpt_pretrain.launch.process import without_launcher


def is_sweep() -> bool:
    return HydraConfig.get().mode == RunMode.MULTIRUN


def run_alone(run: Path) -> dict[str, Any]:
    """Run this trial's settings as a program of its own in the folder `run`; returns its summary."""
    command = [sys.executable, sys.argv[0], *HydraConfig.get().overrides.task]
    command += [word("hydra.run.dir", str(run)), "hydra.mode=RUN"]
    code = subprocess.run(command, env=without_launcher(os.environ)).returncode
    if code:
        error = UserFacingError(f"the trial in {run} failed with exit code {code}")
        error.exit_code = code
        raise error
    return dict(json.loads((run / "summary.json").read_text(encoding="utf-8")))

"""Where and with what a run trains, so that it can be told from another and run again."""

import os
import platform
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterable
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.training.machine import Machine, apple_gpu

ENVIRONMENT = "environment.json"
PACKAGES = ("torch", "lightning", "hydra-core", "numpy", "tiktoken", "safetensors", "tensorboard")
SOURCE = Path(__file__).parent.parent
GIT_SECONDS = 5.0  # a slow file system holds no run up for longer


def provenance(config: TrainConfig, machine: Machine, words: Iterable[str]) -> dict[str, Any]:
    """One flat object of plain values; what cannot be found out is null. `words` are those of the command."""
    commit, clean = _commit()
    return {
        "command": " ".join(["python train.py", *map(shlex.quote, words)]),  # run it again
        "started": datetime.now().astimezone().isoformat(timespec="seconds"),
        "seed": config.seed,
        "commit": commit,
        "clean_tree": clean,
        "gpt_pretrain": version_of("gpt_pretrain"),
        "python": platform.python_version(),
        **{name: version_of(name) for name in PACKAGES},
        "cuda": torch.version.cuda,
        "system": platform.platform(),
        "host": socket.gethostname(),
        "device": device_name(machine),
        "devices": machine.world_size,
        "precision": machine.precision,
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "process": os.getpid(),
    }


def device_name(machine: Machine) -> str:
    """The GPU's name, or the processor's."""
    if machine.accelerator == "gpu":
        return torch.cuda.get_device_name()
    if machine.accelerator == "mps":
        return apple_gpu() or "Apple's GPU"
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def version_of(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # a clone that was never installed
        return None


def _commit() -> tuple[str | None, bool | None]:
    """The commit of the program's source and whether nothing in it was changed; None outside a clone."""
    if not (SOURCE.parent / ".git").exists():
        return None, None
    commit, changes = (_git(*words) for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno")))
    return commit or None, None if changes is None else not changes


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE.parent), *words],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=GIT_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() if done.returncode == 0 else None

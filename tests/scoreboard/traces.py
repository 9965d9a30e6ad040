"""What a run has left, in a form that two runs can be compared in: everything but times."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

from gpt_pretrain.runs.folders import find_checkpoints

TIMES = ("tokens_per_sec", "mfu", "seconds", "memory_mb", "ms/")
# What TensorBoard draws of them; and what a run that goes on may write at another step: how it began.
CLOCKS = ("speed", "over time", "(final)", "_hparams_", "environment", "settings")


def traces(run: Path) -> dict[str, Any]:
    """Weights, optimizer, state, metrics, TensorBoard's steps by tag, samples."""
    newest = find_checkpoints(run)[0]
    state = json.loads((newest / "trainer_state.json").read_text())
    return {
        "step": newest.name,
        "weights": load_file(newest / "model.safetensors"),
        "optimizer": load_file(newest / "optimizer.safetensors"),
        "best": state["callbacks"]["Checkpoints"],
        "metrics": metrics(run),
        "tensorboard": tensorboard(run),
        "samples": (run / "samples.txt").read_bytes(),
    }


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The names of what is not bitwise the same."""
    found = []
    for name in one:
        if _same(one[name], other[name]):
            continue
        tags = (
            [tag for tag in one[name] if one[name][tag] != other[name].get(tag)]
            if name == "tensorboard"
            else []
        )
        steps = [[step for step, *_ in other[name].get(tag, [])] for tag in tags[:2]]
        found.append(f"{name} {tags[:2]} {steps}" if tags else name)
    return found


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [
            {key: value for key, value in row.items() if not key.startswith(TIMES)}
            for row in csv.DictReader(stream)
        ]


def newest_step(run: Path) -> int:
    """That metrics.csv has a row of; 0 where there is none."""
    try:
        return int(metrics(run)[-1]["step"])
    except (OSError, IndexError, KeyError, ValueError, TypeError):
        return 0


def file_number(run: Path) -> int:
    """Another one once a run that goes on has put its own metrics.csv, without what came after its start."""
    file = run / "metrics.csv"
    return file.stat().st_ino if file.exists() else 0


def tensorboard(run: Path) -> dict[str, list[tuple[Any, ...]]]:
    """By split and tag: the steps of texts, and of curves the values too. As the page of charts reads it."""
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    found = {}
    for split in ("", "val"):
        events = EventAccumulator(str(run / split), size_guidance={"tensors": 0}).Reload()
        for tag in events.Tags()["tensors"]:
            if not any(word in tag for word in CLOCKS):
                read = [(event.step, *event.tensor_proto.float_val) for event in events.Tensors(tag)]
                found[f"{split}/{tag}"] = read
    return found


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and one and all(isinstance(value, torch.Tensor) for value in one.values()):
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return one == other

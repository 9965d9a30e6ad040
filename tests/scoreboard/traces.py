"""What a run has left, in a form that two runs can be compared in: everything but times."""

import csv
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from gpt_pretrain.runs.folders import find_checkpoints

TIMES = {"tokens_per_sec", "mfu", "seconds"}


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
        steps = [[step for step, _ in other[name].get(tag, [])] for tag in tags[:2]]
        found.append(f"{name} {tags[:2]} {steps}" if tags else name)
    return found


def metrics(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as stream:
        return [
            {key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(stream)
        ]


def tensorboard(run: Path) -> dict[str, list[tuple[int, float]]]:
    logging.getLogger("tensorboard").setLevel(logging.ERROR)
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
        if tag.rpartition("/")[2] not in TIMES and not tag.startswith("hparam")
    }
    texts = {
        tag: [(event.step, 0.0) for event in events.Tensors(tag)]
        for tag in events.Tags()["tensors"]
        if tag.startswith("sample")
    }
    return scalars | texts


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and one and all(isinstance(value, torch.Tensor) for value in one.values()):
        return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
    return one == other

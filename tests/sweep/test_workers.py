"""Trials side by side on one machine: who gets which devices and threads."""

import pytest
import torch

from gpt_pretrain.sweep import workers


@pytest.mark.parametrize(
    ("n_gpus", "visible", "jobs", "expected"),
    [
        (0, None, 2, [None, None]),
        (2, None, 2, ["0", "1"]),
        (4, None, 2, ["0,2", "1,3"]),
        (1, None, 2, ["0", "0"]),  # shared
        (3, None, 2, ["0,2", "1"]),
        (2, "5,7", 2, ["5", "7"]),  # those that the shell lets this program see
        (2, "5,7", 3, ["5", "7", "5"]),
    ],
)
def test_each_worker_has_devices_of_its_own_as_far_as_there_are_any(
    monkeypatch, n_gpus, visible, jobs, expected
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n_gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert [workers._devices(jobs, index) for index in range(jobs)] == expected


@pytest.mark.parametrize(("cores", "jobs", "threads"), [(8, 2, 4), (2, 2, 1), (2, 3, 1), (8, 3, 2)])
def test_workers_share_the_cores_and_each_has_one_at_least(monkeypatch, cores, jobs, threads):
    monkeypatch.setattr(workers.os, "sched_getaffinity", lambda pid: set(range(cores)), raising=False)
    assert workers._threads(jobs) == threads

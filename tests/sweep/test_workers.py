"""Trials side by side on one machine: who gets which devices and threads."""

import pytest
import torch
from omegaconf import OmegaConf

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


def test_a_worker_is_given_the_words_as_they_were_typed(monkeypatch, tmp_path):
    started = []
    monkeypatch.setattr(workers.subprocess, "Popen", lambda command, **_: started.append(command))
    (tmp_path / "workers").mkdir()
    words = ["data.path='a\\${b}.txt'", "schedule.min_lr=${optimizer.lr}", "seed=1,2"]
    hydra = {
        "runtime": {"config_sources": []},
        "job": {"config_name": "train"},
        "overrides": {"task": words, "hydra": ["hydra.sweep.subdir=${hydra.job.override_dirname}"]},
    }
    workers._start(OmegaConf.create(hydra), tmp_path, 2, 0)
    (command,) = started
    assert command[-7:-3] == ["-m", *words]
    assert command[-8] == "hydra.sweep.subdir=${hydra.job.override_dirname}"

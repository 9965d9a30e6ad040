"""A batch job's folder follows from the job and the command, not from a clock."""

import pytest

from gpt_pretrain.cli.resume import resume_arguments
from gpt_pretrain.cli.schemas import config_dir
from gpt_pretrain.launch.job import job_folder, job_name, restarted

BATCH = {"ENVIRONMENT": "BATCH", "SLURM_JOB_ID": "17"}


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"SLURM_JOB_ID": "17"}, None),  # the shell of an allocation: one command after another
        (BATCH, "17"),
        ({**BATCH, "SLURM_ARRAY_JOB_ID": "16", "SLURM_ARRAY_TASK_ID": "3"}, "16_3"),
        ({"SLURM_JOB_ID": "17", "SLURM_RESTART_COUNT": "1"}, "17"),
        ({**BATCH, "SLURM_JOB_ID": "../17"}, None),
    ],
)
def test_a_batch_job_has_a_name(environment, name):
    assert job_name(environment) == name


def test_a_restart_finds_its_folder_and_another_command_has_another():
    first = job_folder(BATCH, ["seed=1"])
    assert first == job_folder({**BATCH, "SLURM_RESTART_COUNT": "2"}, ["seed=1"])
    assert first != job_folder(BATCH, ["seed=2"])
    assert first != job_folder({**BATCH, "SLURM_JOB_ID": "18"}, ["seed=1"])
    assert first.startswith("job-17-")


@pytest.mark.parametrize(("count", "expected"), [("", False), ("0", False), ("1", True), ("x", False)])
def test_a_requeued_job_knows_it(count, expected):
    assert restarted({"SLURM_RESTART_COUNT": count}) is expected


def test_a_batch_jobs_run_is_named_for_it_unless_the_user_names_it(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    for key, value in BATCH.items():
        monkeypatch.setenv(key, value)
    named = resume_arguments(["seed=1"], config_dir())
    assert named == ["seed=1", f"hydra.run.dir='outputs/{job_folder(BATCH, ['seed=1'])}'"]
    assert resume_arguments(["hydra.run.dir=x"], config_dir()) == ["hydra.run.dir=x"]
    assert resume_arguments(["-m", "seed=1,2"], config_dir()) == ["-m", "seed=1,2"]

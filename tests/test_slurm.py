"""The batch script that gpt_pretrain.slurm prints."""

import subprocess
import sys

import pytest

from gpt_pretrain.config import SlurmConfig
from gpt_pretrain.slurm import slurm


@pytest.fixture
def script(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)

    def print_(*arguments: str):
        monkeypatch.setattr(sys, "argv", ["slurm", *arguments])
        try:
            slurm()
        except SystemExit as exit_:
            return exit_.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    return print_


def test_a_script_asks_for_what_is_wanted_and_ends_with_srun(script):
    code, said = script(
        "nodes=2", "gpus=8", "cpus=4", "time=4:00:00", "--", "model=tiny", "data.val_path='a b'"
    )
    assert code == 0, said
    lines = said.splitlines()
    asked = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
    assert {"nodes=2", "ntasks-per-node=8", "gpus-per-node=8", "cpus-per-task=4", "time=4:00:00"} <= asked
    assert {"requeue", "open-mode=append", "signal=USR1@120"} <= asked
    assert lines[-1].startswith("srun ")
    assert lines[-1].endswith("""model=tiny 'data.val_path='"'"'a b'"'"''""")
    assert subprocess.run(["bash", "-n"], input=said, text=True).returncode == 0


def test_what_is_typed_reaches_the_program_as_it_was(script):
    settings = ["", "seed=${SLURM_ARRAY_TASK_ID}"]
    settings[0] = "data.val_path=\"$(touch x) ; `y` & 'z'\""
    code, said = script("array=0-3", "--", *settings)
    assert code == 0, said
    echoed = said.replace("srun --kill-on-bad-exit=1", "printf '%s\\n'")
    done = subprocess.run(
        ["bash"], input=echoed, text=True, capture_output=True, env={"SLURM_ARRAY_TASK_ID": "3"}
    )
    assert done.stdout.splitlines()[-2:] == [settings[0], "seed=3"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--", "model.n_layr=2"], "did you mean model.n_layers?"),
        (["node=2"], "did you mean nodes?"),
        (["time='1 #SBATCH'"], "is no word that sbatch could read"),
        (["time=banana"], "write 4:00:00"),
        (["memory=abc"], "or 200G"),
        (["array=foo"], "write 0-7"),
        (["signal=99999999999"], "at most 65535"),
        (["gpus=8", "--", "trainer.devices=4"], "trainer.devices=4, but the job has 8"),
        (["--", "-m"], "settings of train.py only"),
        (["--", "data.val_path='a\x1b[2Jb'"], "cannot hold control characters"),
        (["nodes=2", "--", "seed=1,2", "--multirun"], "settings of train.py only"),
    ],
)
def test_what_a_job_would_fail_on_is_refused_before_it_is_queued(script, arguments, said):
    code, printed = script(*arguments)
    assert (code, said in printed) == (2, True), printed


def test_what_sbatch_reads_is_taken():
    for time in ("90", "90:30", "4:00:00", "2-12", "2-12:30", "1-0:0:0", "UNLIMITED"):
        SlurmConfig(time=time).check()
    for memory in ("0", "64000", "200G", "200g", "200GB"):
        SlurmConfig(memory=memory).check()
    for array in ("3", "0-7", "1,3,5", "0-99%4", "0-15:4", "0-7,9%2"):
        SlurmConfig(array=array).check()

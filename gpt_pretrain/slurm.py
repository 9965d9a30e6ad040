"""python -m gpt_pretrain.slurm nodes=2 gpus=8 time=4:00:00 -- model=gpt2_xl: prints a batch script."""

import shlex
import sys
from pathlib import Path

from gpt_pretrain.cli.compose import compose
from gpt_pretrain.cli.program import command
from gpt_pretrain.config import SlurmConfig, TrainConfig
from gpt_pretrain.config.words import quoted, value_of
from gpt_pretrain.errors import InputError
from gpt_pretrain.terminal.text import printable, show

TASK = "${SLURM_ARRAY_TASK_ID}"
# srun ends with 128 + SIGUSR1 where the signal came before Python could hear of it.
REQUEUE = """\
# Save and requeue is the program's own work. This is for a signal that comes before Python hears of any.
trap 'code=$?; [ $code -eq 138 ] && scontrol requeue "$SLURM_JOB_ID" 2>/dev/null; exit $code' EXIT
"""


def after_dashes(arguments: list[str], conf: Path) -> list[str]:
    """What stands after `--` becomes one setting. Raises InputError where train.py would refuse it."""
    own, settings = arguments, []
    if "--" in arguments:
        dashes = arguments.index("--")
        own, settings = arguments[:dashes], arguments[dashes + 1 :]
    flags = [setting for setting in settings if setting.startswith("-")]
    if flags:
        raise InputError(f"{flags[0]}: after -- come settings of train.py only, as in model=gpt2_small")
    asked = [setting for setting in settings if not setting.lstrip("+").startswith("resume=")]
    config = compose("train", TrainConfig, [setting.replace(TASK, "0") for setting in asked])
    devices = value_of("gpus", own) or value_of("tasks", own)
    for name, mine in (("devices", devices), ("num_nodes", value_of("nodes", own))):
        theirs = getattr(config.trainer, name)
        if theirs is not None and str(theirs) != (mine or "1"):
            raise InputError(f"trainer.{name}={theirs}, but the job has {mine or 1}: leave it out")
    return [*own, f"settings=[{','.join(map(quoted, settings))}]"] if settings else own


@command(
    "slurm",
    SlurmConfig,
    examples={
        "python -m gpt_pretrain.slurm nodes=2 gpus=8 time=4:00:00 -- model=gpt2_xl": "16 GPUs",
        "python -m gpt_pretrain.slurm tasks=4 -- model=mini > job.sh": "four processes on a CPU node",
    },
    rewrite=after_dashes,
)
def slurm(config: SlurmConfig, run: Path) -> None:
    """Print a batch script for SLURM that trains: saved before the time limit, requeued, gone on with."""
    script = batch_script(config)
    if printable(script) != script:  # it would be shown as an escape, and the job read something else
        raise InputError(f"settings={config.settings}: a batch script cannot hold control characters")
    show(script, end="")


def batch_script(config: SlurmConfig) -> str:
    """The script, whole: what stands in `config` is quoted for the shell."""
    tasks = config.gpus or config.tasks
    options = {
        "job-name": config.name,
        "nodes": config.nodes,
        "ntasks-per-node": tasks,
        "gpus-per-node": config.gpus or None,
        "cpus-per-task": config.cpus,
        "mem": config.memory,
        "time": config.time,
        "partition": config.partition,
        "account": config.account,
        "qos": config.qos,
        "constraint": config.constraint,
        "array": config.array,
        "output": "slurm-%A_%a.out" if config.array else "slurm-%j.out",
        "open-mode": "append",  # a requeued job would begin its log anew
        "signal": f"USR1@{config.signal}" if config.requeue else f"TERM@{config.signal}",
    }
    lines = ["#!/bin/bash"]
    lines += [f"#SBATCH --{name}={value}" for name, value in options.items() if value is not None]
    lines += ["#SBATCH --requeue" if config.requeue else "#SBATCH --no-requeue", ""]
    if config.cpus:
        lines += [f"export OMP_NUM_THREADS={config.cpus}"]
    if config.requeue:
        lines += [REQUEUE.rstrip("\n")]
    of_a_task = [f"--cpus-per-task={config.cpus}"] if config.cpus else []  # which srun does not inherit
    words = ["srun", "--kill-on-bad-exit=1", *of_a_task, *_program(), *config.settings]
    return "\n".join([*lines, " ".join(map(_shell_word, words))]) + "\n"


def _program() -> list[str]:
    """How train.py is started here: as the script of a clone, else as the installed command."""
    script = Path(__file__).parent.parent / "train.py"
    if script.is_file():
        return [sys.executable, str(script)]
    return [str(Path(sys.executable).with_name("gpt-pretrain-train"))]


def _shell_word(word: str) -> str:
    """Quoted, but for the variable that tells the jobs of an array apart."""
    return f'"{TASK}"'.join(shlex.quote(part) if part else "" for part in word.split(TASK)) or "''"


if __name__ == "__main__":
    slurm()

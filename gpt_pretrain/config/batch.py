"""The settings of a batch script: what a cluster is asked for."""

import re
from dataclasses import dataclass, field

from gpt_pretrain.config.fields import number
from gpt_pretrain.errors import InputError

# As sbatch's manual has them, each with what is to be written.
_SBATCH = {
    "time": (
        r"\d+(:\d\d?(:\d\d?)?)?|\d+-\d+(:\d\d?(:\d\d?)?)?|(?i:infinite|unlimited)",
        "4:00:00, or 2-12 for days and hours",
    ),
    "memory": (r"\d+[KMGTkmgt]?[Bb]?", "megabytes, or 200G"),
    "array": (r"\d+(-\d+(:\d+)?)?(,\d+(-\d+(:\d+)?)?)*(%\d+)?", "0-7, or 0-99%4 for four at a time"),
}


@dataclass(kw_only=True, slots=True)
class SlurmConfig:
    nodes: int = number(1, at_least=1)  # machines
    gpus: int = number(0, at_least=0)  # on each node, one task each; 0: a job without GPUs
    tasks: int = number(1, at_least=1)  # on each node, where there are no GPUs
    cpus: int | None = number(None, "what the cluster gives", at_least=1)  # a task
    time: str | None = None  # 4:00:00, 2-12 and the like; null: what the partition allows
    memory: str | None = None  # of a node, as in 200G
    partition: str | None = None  # sbatch's --partition
    account: str | None = None  # sbatch's --account
    qos: str | None = None  # sbatch's --qos
    constraint: str | None = None  # sbatch's --constraint
    array: str | None = None  # 0-7: as many jobs; $SLURM_ARRAY_TASK_ID tells them apart
    name: str = "gpt_pretrain"  # of the job
    # seconds before the time limit: to save, and go on later
    signal: int = number(120, at_least=10, at_most=65535)
    requeue: bool = True  # go on in a new job when the time is up, until the run is at its end
    settings: list[str] = field(default_factory=list)  # of train.py: what is typed after --
    debug: bool = False  # tracebacks instead of messages

    def check(self) -> None:
        for name in ("time", "memory", "partition", "account", "qos", "constraint", "array", "name"):
            value = getattr(self, name)
            if value is not None and not re.fullmatch(r"[\w.,:%&|@+*()\[\]-]+", value, re.ASCII):
                raise InputError(f"{name}={value!r} is no word that sbatch could read")
            form, example = _SBATCH.get(name, (".*", ""))
            if value is not None and not re.fullmatch(form, value, re.ASCII):
                raise InputError(f"{name}={value} is none that sbatch could read: write {example}")

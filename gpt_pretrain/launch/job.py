"""The batch job that a run is part of: its folder follows from the job, and it goes on unasked.

SLURM starts a job anew after it was requeued, with the same command: whatever is named by a clock would begin
again from nothing.
"""

import os
import re
import subprocess
import zlib
from collections.abc import Mapping

REQUEUE_TIME = 30.0  # seconds that scontrol may take


def job_name(environment: Mapping[str, str]) -> str | None:
    """`17`, or `17_3` for the third task of an array; None outside a batch job.

    The shell of an interactive allocation runs one command after another: these are not one run.
    """
    in_batch = environment.get("ENVIRONMENT") == "BATCH" or "SLURM_RESTART_COUNT" in environment
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    name = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")
    return name if in_batch and re.fullmatch("[0-9]+(_[0-9]+)?", name) else None


def job_folder(environment: Mapping[str, str], arguments: list[str]) -> str | None:
    """The name of a run's folder in a batch job: the same whenever the job runs `arguments`, and no other's.

    A job may run several programs, one after another or side by side.
    """
    name = job_name(environment)
    if name is None:
        return None
    digest = zlib.crc32("\0".join(arguments).encode("utf-8", "surrogateescape"))
    return f"job-{name}-{digest:08x}"


def restarted(environment: Mapping[str, str] | None = None) -> bool:
    """True where SLURM has requeued this job: what it finds in its folder is its own."""
    count = (os.environ if environment is None else environment).get("SLURM_RESTART_COUNT", "")
    return count.isdigit() and int(count) > 0


def requeue() -> str:
    """Put this job back into SLURM's queue, and say so; or say why that could not be."""
    job = os.environ["SLURM_JOB_ID"]
    command = ["scontrol", "requeue", job]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=REQUEUE_TIME, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"job {job} is not requeued: scontrol failed ({error})"
    if done.returncode:
        return f"job {job} is not requeued: {' '.join((done.stderr or done.stdout).split())[:200]}"
    return f"job {job} is requeued, and goes on from there"

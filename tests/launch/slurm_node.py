"""A SLURM of one machine for the tests: Debian's slurm-wlm and munge, as root, on the loopback address."""

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

CONFIGURATION = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=2,requeue_setup_env_fail
MpiDefault=none
ReturnToService=2
KillWait=10
JobRequeue=1
SlurmdParameters=config_overrides
NodeName={host} NodeHostname={host} NodeAddr=127.0.0.1 CPUs=4 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """What a SLURM for tests lacks here; None where it can be started."""
    missing = [name for name in ("slurmctld", "slurmd", "srun", "munged") if _program(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed: apt-get install -y slurm-wlm munge"
    return None if os.geteuid() == 0 else "SLURM's daemons need root"


@contextmanager
def slurm() -> Iterator[dict[str, str]]:
    """The environment that reaches a SLURM of its own, which is ended with the body."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for part in ("state", "spool"):
            (folder / part).mkdir()
        conf = folder / "slurm.conf"
        conf.write_text(CONFIGURATION.format(host=socket.gethostname(), folder=folder, ports=_free_ports(2)))
        environment = {**os.environ, "SLURM_CONF": str(conf)}
        munge = _start_munge()
        try:
            for daemon in ("slurmctld", "slurmd"):
                subprocess.run(
                    [_program(daemon), "-f", str(conf), *_FLAGS[daemon]], check=True, env=environment
                )
            _await_idle(environment, folder)
            yield environment
        finally:
            for daemon in ("slurmd", "slurmctld"):
                pid = folder / f"{daemon}.pid"
                with suppress(FileNotFoundError, ProcessLookupError):  # it did not come up
                    os.kill(int(pid.read_text()), 15)
            if munge is not None:
                munge.terminate()
                munge.wait()
            time.sleep(1)


_FLAGS = {"slurmctld": ["-c"], "slurmd": ["-b"]}


def _free_ports(count: int) -> list[int]:
    """Not those of a SLURM that an earlier test run has left behind."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _start_munge() -> subprocess.Popen | None:
    """None where one answers already."""
    if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
        return None
    for folder in ("/run/munge", "/var/lib/munge", "/var/log/munge"):
        Path(folder).mkdir(parents=True, exist_ok=True)
        shutil.chown(folder, "munge", "munge")
    daemon = subprocess.Popen(
        ["setpriv", "--reuid=munge", "--regid=munge", "--clear-groups", str(_program("munged")), "-F", "-f"],
        stderr=subprocess.DEVNULL,
    )
    for _ in range(50):
        if subprocess.run(["munge", "-n"], capture_output=True).returncode == 0:
            return daemon
        time.sleep(0.1)
    raise RuntimeError("munged does not answer")


def _await_idle(environment: dict[str, str], folder: Path) -> None:
    for _ in range(120):
        said = subprocess.run(["sinfo", "-h", "-o", "%t"], capture_output=True, text=True, env=environment)
        if "idle" in said.stdout:
            return
        time.sleep(0.25)
    logs = "\n".join((folder / f"{name}.log").read_text()[-1500:] for name in ("slurmctld", "slurmd"))
    raise RuntimeError(f"the node does not come up: {logs}")

"""Trial 12: what a machine that dies every 20 seconds costs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.conftest import ROOT
from tests.scoreboard.server import SETTINGS, fresh
from tests.scoreboard.table import Case, Profile
from tests.scoreboard.traces import file_number, newest_step

ENDLESS = [*SETTINGS, "trainer.max_steps=10000000", "trainer.eval_every=2000", "trainer.sample_every=2000"]
ENDLESS += ["trainer.log_every=5", "trainer.checkpoint_every=25"]


def goodput(profile: Profile) -> Iterator[Case]:
    """Kills every 20 seconds after the first new step: what part of that time the steps took that stayed."""
    yield from _killed(profile, profile.of(2, 15), ENDLESS)


def seldom_saved(profile: Profile) -> Iterator[Case]:
    """Saved so seldom that every kill throws all away."""
    yield from _killed(profile, 2, [*ENDLESS, "trainer.checkpoint_every=1000000"])


def _killed(profile: Profile, kills: int, settings: list[str]) -> Iterator[Case]:
    folder, reached, trained, spent, waits = fresh(profile.folder / "goodput"), 0, 0, 0.0, []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for number in range(kills):
        where = "resume=run" if number else "hydra.run.dir=run"
        command = [sys.executable, str(ROOT / "train.py"), *settings, where]
        streams = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        before, began = file_number(folder / "run"), time.monotonic()
        process = subprocess.Popen(command, cwd=folder, env=environment, **streams)
        # Until a row of its own: a run that goes on puts a new file without what came after the checkpoint.
        while file_number(folder / "run") == before or newest_step(folder / "run") <= reached:
            time.sleep(0.05)
        waits.append(time.monotonic() - began)
        began, first = time.monotonic(), newest_step(folder / "run")
        time.sleep(20)
        last = newest_step(folder / "run")
        process.send_signal(signal.SIGKILL)
        process.wait()
        spent += time.monotonic() - began
        kept = max((int(path.name[5:]) for path in folder.glob("run/checkpoints/step-*")), default=0)
        trained += last - first
        reached = kept
    share = reached / trained if trained else 0.0
    name = f"{kills} kills, {share:.1%} of the steps kept, {max(waits):.1f} s to a new one, imports included"
    yield Case(name, share >= 0.95, f"{share:.1%}")

"""Trial 5: signals at random instants, from the first line on."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

from tests.conftest import ROOT
from tests.scoreboard.kills import reference
from tests.scoreboard.server import SETTINGS, Ended, fresh, go_on
from tests.scoreboard.table import Case, Profile
from tests.scoreboard.traces import differences, traces

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


def signals(
    profile: Profile, change: Callable[[], None] | None = None, n: int | None = None
) -> Iterator[Case]:
    """Forked from the first line of train.py on."""
    whole, seconds = reference(profile.folder / "whole", *SETTINGS)
    chance = profile.random("signals")
    for number in range(profile.of(10, 100) if n is None else n):
        folder, after = fresh(profile.folder / "signalled"), chance.uniform(0.05, seconds)
        kind = SIGNALS[number % len(SIGNALS)]
        process = go_on(folder, *SETTINGS, change=change)
        time.sleep(after)
        sent = time.monotonic()
        process.kill(kind)
        ended = process.wait()
        ended.seconds = time.monotonic() - sent
        name = f"{kind.name} after {after:.2f} s"
        why = _wrong(ended, kind, folder)
        if not why and ended.code:
            go_on(folder, *SETTINGS, change=change).wait()
            why = ", ".join(differences(whole, traces(folder / "run")))
        yield Case(name, not why, why)
    if change is None:
        yield from _starting(profile)


def _starting(profile: Profile) -> Iterator[Case]:
    """Real processes, while they import."""
    chance = profile.random("starting")
    for number in range(profile.of(2, 12)):
        folder, kind = fresh(profile.folder / "starting"), SIGNALS[number % len(SIGNALS)]
        words = [sys.executable, str(ROOT / "train.py"), *SETTINGS, "hydra.run.dir=run"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            words, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        after = chance.uniform(0.3, 4.0)  # Python itself takes a moment to come to the first line
        time.sleep(after)
        process.send_signal(kind)
        _, said = process.communicate(timeout=90)
        why = _wrong(Ended(process.returncode, said, 0.0, 0), kind, folder)
        yield Case(f"{kind.name} to a new process after {after:.2f} s", not why, why)


def _wrong(ended: Ended, kind: signal.Signals, folder: os.PathLike[str]) -> str:
    """What is not as it should be, in words."""
    if not ended.is_clean:
        return f"a traceback: {ended.said[-500:]}"
    if ended.code == 0 and "finished" in ended.said + "finished":  # it came after the last step
        return ""
    if ended.code != 128 + kind:
        return f"exit code {ended.code}: {ended.said[-300:]}"
    lines = [line for line in ended.said.splitlines() if line.startswith("error:")]
    if len(lines) != 1:
        return f"not one line: {ended.said[-300:]}"
    stands = os.path.exists(os.path.join(folder, "run"))
    if ("saved" in lines[0]) != stands:
        return f"a folder is left: {stands}, but it says {lines[0]}"
    return ""


def deaf(profile: Profile) -> Iterator[Case]:
    """Nobody listens: the process dies as it always did."""
    cases = list(signals(profile, _do_not_listen, 2))
    yield Case("nobody listens", all(case.holds for case in cases), cases[0].why[:80])


def _do_not_listen() -> None:
    from gpt_pretrain.launch import signals as module

    module.signal.signal = lambda number, handler: signal.SIG_DFL  # type: ignore[assignment]

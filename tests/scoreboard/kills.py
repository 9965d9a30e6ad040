"""Trials 1, 2 and 6: a process that is killed or interrupted, anywhere, and started again."""

import itertools
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

from tests.scoreboard.server import SETTINGS, Started, fresh, go_on, start
from tests.scoreboard.table import Case, Profile
from tests.scoreboard.traces import differences, file_number, newest_step, traces

WRITES = "write,pwrite64,openat,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat,rmdir,fsync,ftruncate"


@cache
def reference(folder: Path, *settings: str) -> tuple[dict[str, Any], float]:
    """What the uninterrupted run leaves, and how long it takes."""
    fresh(folder)
    ended = go_on(folder, *settings).wait()
    assert ended.code == 0, ended.said
    return traces(folder / "run"), ended.seconds


def kills(profile: Profile, change: Callable[[], None] | None = None, n: int | None = None) -> Iterator[Case]:
    """SIGKILL at random instants of a run; half of the runs read ahead in two processes, every third one
    saves beside training.
    """
    whole, seconds = reference(profile.folder / "whole", *SETTINGS)
    chance = profile.random("kills")
    for number in range(profile.of(8, 200) if n is None else n):
        own = [f"data.num_workers={2 * (number % 2)}", f"trainer.save_in_background={number % 3 == 2}"]
        folder, after = fresh(profile.folder / "killed"), chance.uniform(0.02, seconds)
        process = go_on(folder, *SETTINGS, *own, change=change)
        time.sleep(after)
        process.kill()
        process.wait()
        yield _finished(f"kill after {after:.2f} s, {own}", folder, whole, [*SETTINGS, *own], change)


def without_position(profile: Profile) -> Iterator[Case]:
    yield from _killed_late(profile, _forget_position)


def without_purge(profile: Profile) -> Iterator[Case]:
    yield from _killed_late(profile, _keep_everything)


def _killed_late(profile: Profile, change: Callable[[], None]) -> Iterator[Case]:
    """Killed once there are checkpoints: a control needs something to go on from."""
    whole, _ = reference(profile.folder / "whole", *SETTINGS)
    folder = fresh(profile.folder / "control")
    process = go_on(folder, *SETTINGS, change=change)
    while len(list((folder / "run").glob("checkpoints/step-*"))) < 2:
        time.sleep(0.01)
    process.kill()
    process.wait()
    yield _finished(change.__name__, folder, whole, SETTINGS, change)


def _finished(
    name: str,
    folder: Path,
    whole: dict[str, Any],
    settings: list[str],
    change: Callable[[], None] | None = None,
) -> Case:
    ended = go_on(folder, *settings, change=change).wait()
    if ended.code or not ended.is_clean:
        return Case(name, False, f"exit code {ended.code}: {ended.said[-500:]}")
    other = differences(whole, traces(folder / "run"))
    return Case(name, not other, f"not the same: {', '.join(other)}" if other else "")


def _forget_position() -> None:
    from gpt_pretrain.training.datamodule import GPTDataModule

    GPTDataModule.load_state_dict = lambda self, state: None  # type: ignore[method-assign]


def _keep_everything() -> None:
    from gpt_pretrain.training.callbacks.samples import Samples

    Samples._keep = lambda self, *, before: None  # type: ignore[method-assign]


def writes(profile: Profile) -> Iterator[Case]:
    """SIGKILL at a write-side system call: of a save, and of what a resumed run writes first."""
    yield from _at_calls(profile, "signal=KILL", profile.of(6, 400), None)


def writes_unsafe(profile: Profile) -> Iterator[Case]:
    """Checkpoints written in place: some call leaves one that is half there."""
    cases = list(_at_calls(profile, "signal=KILL", profile.of(8, 60), _write_in_place))
    yield Case("written in place", all(case.holds for case in cases), "; ".join(c.why for c in cases)[:200])


def _at_calls(profile: Profile, what: str, n: int, change: Callable[[], None] | None) -> Iterator[Case]:
    whole, _ = reference(profile.folder / "whole", *SETTINGS)
    calls = _count_calls(profile)
    chance = profile.random("writes")
    for call in sorted(chance.sample(range(1, calls + 1), min(n, calls))):
        folder = fresh(profile.folder / "traced")
        traced(folder, f"inject={WRITES}:{what}:when={call}", change=change).wait()
        yield _finished(f"call {call} of {calls}", folder, whole, SETTINGS)


def traced(folder: Path, *inject: str, change: Callable[[], None] | None = None) -> Started:
    """The run under strace, attached before its first line."""
    process = start(folder, *SETTINGS, "hydra.run.dir=run", change=change, stopped=True)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
    log = folder.parent / f"{folder.name}.strace"
    words = ["strace", "-f", "-qq", "-p", str(process.pid), "-o", str(log), "-e", f"trace={WRITES}"]
    words += [word for what in inject for word in ("-e", what)]
    tracer = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while f"TracerPid:\t{tracer.pid}" not in Path(f"/proc/{process.pid}/status").read_text():
        if tracer.poll() is not None:
            process.kill()
            raise RuntimeError(f"strace: {tracer.communicate()[1]}")
        time.sleep(0.005)
    process.kill(signal.SIGCONT)
    return process


def _count_calls(profile: Profile) -> int:
    """Of the main thread: strace counts for each thread by itself."""
    process = traced(fresh(profile.folder / "counted"))
    ended = process.wait()
    assert ended.code == 0, ended.said
    lines = (profile.folder / "counted.strace").read_text().splitlines()
    return sum(line.split()[0] == str(process.pid) for line in lines)


def _write_in_place() -> None:
    from gpt_pretrain.runs import checkpoint

    inner = checkpoint.write_checkpoint

    def in_place(folder: Path, **options: Any) -> None:
        inner(folder, **options)
        model = (folder / "model.safetensors").read_bytes()  # once more, as a plain save does it
        (folder / "manifest.json").unlink()
        (folder / "model.safetensors").write_bytes(model[: len(model) // 2])
        (folder / "model.safetensors").write_bytes(model)
        for name in ("optimizer.safetensors", "trainer_state.json"):
            (folder / name).write_bytes((folder / name).read_bytes())

    from gpt_pretrain.training import checkpoint_io

    checkpoint_io.write_checkpoint = in_place  # type: ignore[assignment]


SOFT = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]


def mixed(
    profile: Profile,
    change: Callable[[], None] | None = None,
    kinds: tuple[int, ...] = (*SOFT, signal.SIGKILL),
) -> Iterator[Case]:
    """Interruptions of every kind in one run: the stream of events is the uninterrupted one's. Every fourth
    comes before training, the others some steps after its beginning.
    """
    wanted = profile.of(8, 30)
    settings = [*SETTINGS, f"trainer.max_steps={8 * wanted}"]
    whole, _ = reference(profile.folder / "long", *settings)
    chance = profile.random("mixed")
    folder, interrupted = fresh(profile.folder / "mixed"), 0
    for number in itertools.count():
        process = go_on(folder, *settings, change=change)
        if interrupted >= wanted or number > 10 * wanted:
            ended = process.wait()
            break
        if number % 4 == 3:
            time.sleep(chance.uniform(0.05, 1))
        else:
            stands, goes = newest_step(folder / "run"), file_number(folder / "run")
            while not process.has_ended() and (
                file_number(folder / "run") == goes or newest_step(folder / "run") <= stands
            ):
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.2))
        process.kill(chance.choice(kinds))
        ended = process.wait()
        interrupted += ended.code != 0
        if not ended.is_clean or ended.code == -1000:
            yield Case(f"interruption {interrupted}", False, ended.said[-500:])
            return
        if ended.code == 0:
            break
    other = differences(whole, traces(folder / "run"))
    name = f"{interrupted} interruptions of one run"
    fine = not other and ended.code == 0 and interrupted >= wanted // 2
    yield Case(name, fine, f"not the same: {', '.join(other)} {ended.said[-300:]}")


def mixed_forgotten(profile: Profile) -> Iterator[Case]:
    yield from mixed(profile, _make_up_for_nothing, tuple(SOFT))


def _make_up_for_nothing() -> None:
    from gpt_pretrain.training.callbacks.unfinished import Unfinished

    Unfinished.on_train_start = lambda self, *rest: None  # type: ignore[method-assign]

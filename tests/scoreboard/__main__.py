"""python -m tests.scoreboard [full] [numbers of trials] [seed=N] [keep=FOLDER]: quick by default."""

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.scoreboard import damage, ends, goodput, hostile, inputs, kills, numbers, ranks, server
from tests.scoreboard.table import HEAD, Profile, Trial

TRIALS = [
    Trial(
        1,
        "SIGKILL at random instants, resumed: bitwise the uninterrupted run",
        kills.kills,
        kills.without_position,
    ),
    Trial(2, "SIGKILL at a write-side system call, resumed: the same", kills.writes, kills.writes_unsafe),
    Trial(3, "damaged files found and named", damage.corruptions, damage.unverified),
    Trial(4, "a disk that is full for a while", damage.full_disks, damage.full_without_retry),
    Trial(5, "signals at random instants, from the first line on", ends.signals, ends.deaf),
    Trial(6, "mixed interruptions of one run: its events equal", kills.mixed, kills.mixed_forgotten),
    Trial(7, "NaN and leaps, by policy; clean runs", numbers.faults, numbers.unchecked),
    Trial(8, "one rank of two killed or stopped", ranks.lost, ranks.nothing_lost),
    Trial(9, "ranks 1 -> 2 -> 1: losses within 1e-5", ranks.changed, ranks.other_batches),
    Trial(10, "input that cannot be used, and random settings", inputs.matrix, inputs.unguarded),
    Trial(11, "hostile files: no code, no link, bounded memory", hostile.hostile, hostile.unsafe),
    Trial(12, "a kill every 20 s: 95% of the steps stay", goodput.goodput, goodput.seldom_saved),
]
TRACED = {2, 4}  # by strace, and left out where it is missing
IN_FULL_ONLY = {8, 9, 12}  # real processes, which pay for their imports each time


def main(words: list[str]) -> int:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    wanted = {int(word) for word in words if word.isdigit()}
    full = "full" in words
    server.prepare()
    with tempfile.TemporaryDirectory(dir=options.get("keep")) as folder:
        os.environ["GPT_PRETRAIN_CACHE"] = f"{folder}/cache"
        profile = Profile(full, Path(folder), int(options.get("seed", 0)))
        began, sound = time.monotonic(), True
        chosen = [
            trial
            for trial in TRIALS
            if (trial.number in wanted if wanted else full or trial.number not in IN_FULL_ONLY)
            and (trial.number not in TRACED or shutil.which("strace"))
        ]
        for trial in chosen:
            print(f"{trial.number}: {trial.claim}", flush=True)
            sound &= trial.run(profile)
        print("\n".join(["", HEAD, *(trial.row for trial in chosen)]))
        print(f"\n{time.monotonic() - began:.0f} s, seed {profile.seed}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

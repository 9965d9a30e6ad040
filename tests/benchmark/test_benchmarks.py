"""The programs behind the README's figures run, and print each figure that the README takes from them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

FIGURE = r"[\d,]*\.?\d+"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "figures"),
    [
        ("benchmark model=tiny steps=2 rounds=1", [f"median trainer/bare {FIGURE}"]),
        (
            "benchmark_data model=tiny size_mib=1",
            [
                f"{FIGURE}% by the clock and {FIGURE}% by processor time of the .* of tiktoken alone",
                f"{FIGURE} MiB at most, all processes together",
                f"loader +{FIGURE} tokens/s for 12 x 1024, nanoGPT's way {FIGURE}: {FIGURE} times",
            ],
        ),
        (
            "benchmark_decoding model=tiny rounds=1 tokens=4",
            [f"memory {FIGURE} GB/s", f" 1 +4 +int8 +{FIGURE} +float32 +{FIGURE} +{FIGURE} +4.0 +{FIGURE}%"],
        ),
    ],
    ids=lambda value: value.split()[0] if isinstance(value, str) else "",
)
def test_a_benchmark_prints_its_figures_and_leaves_nothing_behind(tmp_path, words, figures):
    module, *settings = words.split()
    paths = os.pathsep.join([str(Path(__file__).parent.parent.parent), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "GPT_PRETRAIN_CACHE": str(tmp_path / "cache")}
    (tmp_path / "empty").mkdir()
    ended = subprocess.run(
        [sys.executable, "-m", f"gpt_pretrain.{module}", *settings],
        cwd=tmp_path / "empty",
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    for figure in figures:
        assert re.search(figure, ended.stdout), ended.stdout
    assert not list((tmp_path / "empty").iterdir())

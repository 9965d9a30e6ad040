"""The programs behind the README's figures run, and print each figure that the README takes from them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpt_pretrain.benchmark import data, decoding, shards, training
from gpt_pretrain.config import ModelConfig
from tests.terminal.test_streams import ENCODINGS, HOSTILE, _type, commanding

FIGURE = r"[\d,]*\.?\d+"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "figures"),
    [
        (
            "benchmark model=tiny steps=2 rounds=1 parity=6 compare=transformers",
            [
                f"this program +{FIGURE} +1.00 +{FIGURE}% +{FIGURE} +{FIGURE} +{FIGURE} +0.0000",
                f"transformers +{FIGURE} +{FIGURE} +{FIGURE}% +{FIGURE} +{FIGURE} +{FIGURE} +0.0",
                f"products of weights {FIGURE}, beyond them {FIGURE}; {FIGURE}% of the products' own limit",
                f"median trainer/bare {FIGURE}",
            ],
        ),
        (
            "benchmark.data model=tiny size_mib=1",
            [
                f"{FIGURE}% by the clock and {FIGURE}% by processor time of the .* of tiktoken alone",
                f"{FIGURE} MiB at most, all processes together",
                f"loader +{FIGURE} tokens/s for 12 x 1024, nanoGPT's way {FIGURE}: {FIGURE} times",
            ],
        ),
        ("benchmark.ranks size=tiny steps=2 rounds=1", [f"median two/.one . all-reduce. {FIGURE}"]),
        ("benchmark.shards model=tiny devices=[8] steps=2", [f" 8 +{FIGURE} +{FIGURE} +{FIGURE}"]),
        (
            "benchmark.decoding model=tiny rounds=1 tokens=4",
            [f"memory {FIGURE} GB/s", f" 1 +4 +int8 +{FIGURE} +float32 +{FIGURE} +{FIGURE} +5.0 +{FIGURE}%"],
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


QUICK = {
    "training": (training.benchmark, ["model=tiny", "tokenizer=bytes", "steps=2", "rounds=1", "parity=0"]),
    "data": (data.benchmark_data, ["model=tiny", "size_mib=1", "workers=1"]),
    "decoding": (decoding.benchmark_decoding, ["model=tiny", "rounds=1", "tokens=1"]),
}


@pytest.fixture
def quick(monkeypatch):
    """The programs as they are, but what takes long is not measured."""
    monkeypatch.setattr(decoding, "measured_bandwidth", lambda: 1e9)
    monkeypatch.setattr(decoding, "COMPARISONS", decoding.COMPARISONS[:1])
    speed = data.Speed(2.0, 1.0)
    monkeypatch.setattr(data, "tiktoken_alone", lambda *arguments: speed)
    monkeypatch.setattr(data, "tokenize", lambda *arguments: (speed, data.MIB))
    monkeypatch.setattr(data, "loader_speeds", lambda *arguments: (2.0, 1.0))
    monkeypatch.setattr(data, "training_speed", lambda *arguments: 1.0)


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("name", QUICK)
def test_no_benchmark_fails_for_its_terminal_or_lets_foreign_text_command_it(tmp_path, quick, name, encoding):
    program, arguments = QUICK[name]
    if name == "training":
        text = "caf\u00e9 \u65e5\u672c " + HOSTILE.replace("\ud800", "")
        (tmp_path / "caf\u00e9.txt").write_text(text * 300, encoding="utf-8")
        arguments = [*arguments, "data=text_files", "data.path='caf\u00e9.txt'"]
    code, shown = _type(tmp_path, encoding, program, *arguments)
    assert code == 0, shown
    assert re.search(r"\d", shown)
    assert not commanding(shown)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("training", "data.path='\u202e\x1b'"),
        ("data", "folder='\u202e\x1b'"),
        ("decoding", "checkpoint='\u202e\x1b'"),
    ],
)
def test_a_refusal_of_a_benchmark_is_one_line_on_every_terminal(tmp_path, quick, name, encoding, refused):
    program, arguments = QUICK[name]
    more = ["data=text_files"] if name == "training" else []
    code, shown = _type(tmp_path, encoding, program, *arguments, *more, refused)
    assert (code, shown.startswith("error: "), len(shown.splitlines())) == (2, True, 1), shown
    assert not commanding(shown)


@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_shard_weighs_what_a_plan_expects(devices):
    """Whatever does not divide is padded: some more than its share."""
    model = ModelConfig(vocab_size=256, context_length=32, emb_dim=32, n_heads=2, n_layers=2)
    seconds, states = shards.measure(model, devices, batch_size=1, steps=2)
    assert 1.0 <= states / shards.planned_states(model, devices) < 1.02
    assert seconds > 0

"""Sweeps as typed: what is recorded, what goes on, what is refused, and the exit code."""

import csv
import json
from pathlib import Path

import pytest
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins

from gpt_pretrain.errors import StoppedError
from gpt_pretrain.sweep.record import SweepRecord
from gpt_pretrain.training import train as training
from tests.conftest import QUICK
from tests.training.test_tensorboard import hparams

SETTINGS = [*QUICK, "trainer.max_steps=2", "trainer.eval_batches=2", "logger=csv"]
NAMED = "hydra.sweep.dir=sweep"


def records(sweep: Path) -> list[dict]:
    return [json.loads(file.read_text()) for file in sorted((sweep / "trials").glob("*.json"))]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.fixture
def trained(monkeypatch):
    """The folders that were trained in, as they come; `failing` maps a learning rate to what it raises."""
    seen, real, failing = [], training.train, {}

    def train(config, prepared, run, *rest):
        seen.append(run.name)
        if config.optimizer.lr in failing:
            raise failing[config.optimizer.lr]
        return real(config, prepared, run, *rest)

    monkeypatch.setattr("gpt_pretrain.training.train.train", train)
    train.seen, train.failing = seen, failing
    return train


def test_whatever_fails_is_recorded_with_its_cause_and_the_rest_runs(typed, tmp_path, trained):
    trained.failing[0.5] = RuntimeError("a bug")
    words = ["optimizer.lr=0.5,1e308,1e-3", "model.n_heads=2,3", "trainer.grad_clip=null", NAMED]
    code, said = typed("train", "-m", *SETTINGS, "trainer.max_steps=4", *words)
    assert code == 4, said  # the worst of 1, 2 and 4
    found = {
        (row["point"]["optimizer.lr"], row["point"]["model.n_heads"]): row
        for row in records(tmp_path / "sweep")
    }
    assert {key: (row["status"], row["exit_code"]) for key, row in found.items()} == {
        ("0.5", "2"): ("failed", 1),
        ("1e+308", "2"): ("diverged", 4),
        ("0.001", "2"): ("finished", 0),
        **{(lr, "3"): ("refused", 2) for lr in ("0.5", "1e+308", "0.001")},
    }
    assert found["0.5", "2"]["reason"] == "RuntimeError: a bug"
    assert "lower optimizer.lr" in found["1e+308", "2"]["reason"]
    assert "not divisible by model.n_heads=3" in found["0.001", "3"]["reason"]
    for lr, cause in {"0.5": "RuntimeError: a bug", "1e+308": "lower optimizer.lr"}.items():
        assert cause in (tmp_path / "sweep" / found[lr, "2"]["folder"] / "train.log").read_text()
    assert {key for key, row in found.items() if row["objective"] is not None} == {("0.001", "2")}
    assert found["1e+308", "2"]["val_loss"] is None  # that of before step 1 is no result
    good = found["0.001", "2"]
    summary = json.loads((tmp_path / "sweep" / good["folder"] / "summary.json").read_text())
    assert good["objective"] == good["best_val_loss"] == summary["best_val_loss"]
    assert [step for step, _ in good["metrics"]["val/loss"]] == [1, 2, 3, 4]
    assert (good["seed"], bool(good["version"]), good["seconds"] > 0) == (123, True, True)
    # Run again, nothing is run again, and the code is the same.
    before, ran = contents(tmp_path / "sweep" / "trials"), list(trained.seen)
    assert typed("train", "-m", *SETTINGS, "trainer.max_steps=4", *words)[0] == 4
    assert (contents(tmp_path / "sweep" / "trials"), trained.seen) == (before, ran)
    # Asked to, those without a result are tried again.
    trained.failing.clear()
    assert typed("train", "-m", *SETTINGS, "trainer.max_steps=4", *words, "sweep.retry=true")[0] == 4
    assert records(tmp_path / "sweep")[0]["status"] != "failed"


def test_so_many_failures_as_the_user_bears_end_a_sweep_and_it_goes_on_when_more_are_borne(
    typed, tmp_path, trained
):
    # Refused points have exit code 2, which is above a bug's.
    trained.failing.update({2e-3: RuntimeError("a bug"), 3e-3: RuntimeError("a bug")})
    words = ["-m", *SETTINGS, "optimizer.lr=1e-3,2e-3,3e-3,4e-3", "model.n_heads=2,3", NAMED]
    code, said = typed("train", *words, "sweep.most_failures=1")
    assert code == 2
    assert "5 more were not begun or have not ended: sweep.most_failures=1" in said
    statuses = [row["status"] for row in records(tmp_path / "sweep")]
    assert statuses == ["finished", "refused", "failed"]  # what cannot work is no failure
    assert typed("train", *words, "sweep.most_failures=2")[0] == 2
    assert [row["status"] for row in records(tmp_path / "sweep")][2:] == ["failed", "refused", "failed"]
    assert typed("train", *words)[0] == 2
    assert [row["status"] for row in records(tmp_path / "sweep")][5:] == ["refused", "finished", "refused"]


def test_the_leaderboard_is_sorted_and_each_trial_has_its_own_numbers(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "optimizer.lr=1e-5,1e-2,1e-3", NAMED)[0] == 0
    with (tmp_path / "sweep" / "leaderboard.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    losses = [float(row["best_val_loss"]) for row in rows]
    assert losses == sorted(losses)
    for row in rows:
        summary = json.loads((tmp_path / "sweep" / row["trial"] / "summary.json").read_text())
        assert float(row["best_val_loss"]) == summary["best_val_loss"]
    assert [row["optimizer.lr"] for row in rows] == ["0.01", "0.001", "1e-05"]
    lines = (tmp_path / "sweep" / "leaderboard.md").read_text().splitlines()
    assert [line.split(" | ")[2] for line in lines[2:5]] == ["0.01", "0.001", "1e-05"]


def test_tables_of_runs_begin_with_what_is_swept(typed, tmp_path):
    settings = [word for word in SETTINGS if word not in ("logger=csv", "model=tiny")]
    swept = ["optimizer.lr=1e-3,3e-3", "model=tiny,mini", "trainer.max_steps=1"]
    assert typed("train", "-m", *settings, *swept, NAMED)[0] == 0
    for trial in records(tmp_path / "sweep"):
        row = dict(hparams(tmp_path / "sweep" / trial["folder"], "start").hparams)
        first = sorted(row)[:2]  # TensorBoard's table has them by name
        assert first == ["(swept) model", "(swept) optimizer.lr"]  # before "(typed)"
        assert row[first[0]].string_value == trial["point"]["model"]
        assert row[first[1]].number_value == float(trial["point"]["optimizer.lr"])


def test_the_best_settings_run_again_as_an_experiment(typed, tmp_path, capsys):
    words = [
        "optimizer=muon,sgd",
        "schedule=linear",
        "optimizer.lr=1e-3",
        "trainer.sample_prompt='\\${a} \\''",
        NAMED,
    ]
    assert typed("train", "-m", *SETTINGS, *words)[0] == 0
    best = min(records(tmp_path / "sweep"), key=lambda row: row["objective"])
    assert typed("train", "--config-dir", "sweep", "experiment=best", "hydra.run.dir=again")[0] == 0
    summary = json.loads((tmp_path / "again" / "summary.json").read_text())
    assert summary["best_val_loss"] == best["objective"]


@pytest.mark.trains
def test_a_trial_equals_the_same_settings_run_alone_and_carries_their_words(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "seed=3,4", "model.drop_rate=0.1", NAMED)[0] == 0
    (_, second) = records(tmp_path / "sweep")
    assert typed("train", *second["words"], "hydra.run.dir=alone")[0] == 0
    sweep, alone = (list((tmp_path / name).glob("checkpoints/*")) for name in ("sweep/1", "alone"))
    assert [path.name for path in sweep] == [path.name for path in alone]
    for ours, theirs in zip(sweep, alone, strict=True):
        assert (ours / "model.safetensors").read_bytes() == (theirs / "model.safetensors").read_bytes()


@pytest.mark.parametrize("asked_for", [False, True])
def test_a_trial_draws_pictures_only_where_it_is_asked_to(typed, tmp_path, asked_for):
    words = [word for word in SETTINGS if not word.startswith("logger.pictures")]
    words += ["logger.pictures=true"] * asked_for
    assert typed("train", "-m", *words, "seed=3", NAMED)[0] == 0
    drawn = [(tmp_path / "sweep" / "0" / name).exists() for name in ("loss.png", "report.html")]
    assert drawn == [asked_for] * 2


@pytest.mark.parametrize("again", [[], pytest.param(["resume=auto"], marks=pytest.mark.slow)])
def test_the_same_command_goes_on_where_a_signal_ended_it(typed, tmp_path, trained, again):
    words = ["-m", *SETTINGS, "optimizer.lr=1e-3,2e-3,3e-3"]
    trained.failing[2e-3] = StoppedError(15, "stopped by signal 15")
    assert typed("train", *words)[0] == 143
    (sweep,) = tmp_path.glob("multirun/*/*")
    assert [row["status"] for row in records(sweep)] == ["finished", "interrupted"]
    first = records(sweep)[0]
    trained.failing.clear()
    trained.seen.clear()
    assert typed("train", *words, *again)[0] == 0
    assert [row["status"] for row in records(sweep)] == ["finished"] * 3
    assert (trained.seen, records(sweep)[0]) == (["1", "2"], first)
    assert list(tmp_path.glob("multirun/*/*")) == [sweep]
    assert typed("train", *words)[0] == 0  # it has ended: the same command begins a new one
    assert len(list(tmp_path.glob("multirun/*/*"))) == 2


@pytest.mark.parametrize(
    "command",
    [
        ["resume=sweep"],
        pytest.param(["-m", "resume=sweep"], marks=pytest.mark.slow),
        pytest.param(["-m", "resume=auto", NAMED], marks=pytest.mark.slow),
    ],
)
def test_a_sweep_goes_on_by_its_folder_alone(typed, tmp_path, trained, command):
    trained.failing[2e-3] = StoppedError(15, "stopped by signal 15")
    words = [*SETTINGS, "optimizer.lr=1e-3,2e-3", "trainer.sample_prompt='a, b=c'", NAMED]
    assert typed("train", "-m", *words)[0] == 143
    trained.failing.clear()
    assert typed("train", *command)[0] == 0
    assert [row["status"] for row in records(tmp_path / "sweep")] == ["finished"] * 2


def test_a_folder_that_was_typed_with_a_plus_is_begun_though_the_same_sweep_is_unfinished_elsewhere(
    typed, tmp_path, trained
):
    words = ["-m", *SETTINGS, "trainer.max_steps=1", "optimizer.lr=1e-3,2e-3"]
    trained.failing[2e-3] = StoppedError(15, "stopped by signal 15")
    assert typed("train", *words)[0] == 143
    trained.failing.clear()
    (unfinished,) = tmp_path.glob("multirun/*/*")
    before = contents(unfinished)
    assert typed("train", *words, "++hydra.sweep.dir=sweep")[0] == 0
    assert [trial["status"] for trial in records(tmp_path / "sweep")] == ["finished"] * 2
    assert contents(unfinished) == before


OTHERS = {
    "optimizer.lr was 1e-3,2e-3, is 1e-3,3e-3": ["optimizer.lr=1e-3,3e-3"],
    "trainer.max_steps was 2, is 3": ["optimizer.lr=1e-3,2e-3", "trainer.max_steps=3"],
    "seed was not swept or set, is 1,2": ["optimizer.lr=1e-3,2e-3", "seed=1,2"],
    "optimizer.lr was 1e-3,2e-3, is not swept": ["optimizer.lr=1e-3"],
    "sweep.strategy was grid, is random": ["optimizer.lr=1e-3,2e-3", "sweep=random"],
}


def test_another_search_in_the_same_folder_is_refused_and_the_difference_named(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "optimizer.lr=1e-3,2e-3", NAMED)[0] == 0
    before = contents(tmp_path)
    for named, words in OTHERS.items():
        code, said = typed("train", "-m", *SETTINGS, *words, NAMED)
        assert (code, named in said) == (2, True), said
        assert contents(tmp_path) == before


def test_another_search_that_begins_in_the_folder_meanwhile_is_not_run_inside(
    typed, tmp_path, trained, monkeypatch
):
    other = {"swept": {"seed": "1,2"}, "sweep": {}, "settings": {}}
    monkeypatch.setattr(  # comes after the folder was found free
        "gpt_pretrain.sweep.ahead.Ahead.announce", lambda *_: SweepRecord(tmp_path / "sweep").begin(other)
    )
    code, said = typed("train", "-m", *SETTINGS, "optimizer.lr=1e-3,2e-3", NAMED)
    assert (code, "holds another sweep" in said, trained.seen) == (2, True, []), said


def test_trials_that_would_share_a_folder_are_refused_before_any_runs(typed, tmp_path, trained):
    words = ["optimizer.lr=1e-3,2e-3", "seed=1,2", NAMED]
    for subdir in ("same", "${seed}"):
        code, said = typed("train", "-m", *SETTINGS, *words, f"hydra.sweep.subdir={subdir}")
        assert (code, "would share the folder" in said, len(said.splitlines())) == (2, True, 2), said
        assert not list(tmp_path.iterdir())
    assert trained.seen == []


def test_a_trial_that_finds_another_one_s_run_in_its_folder_is_refused(typed, tmp_path, trained):
    words = ["seed=1,11", "trainer.max_steps=1,11", "hydra.sweep.subdir='${seed}${trainer.max_steps}'", NAMED]
    code, said = typed("train", "-m", *SETTINGS, *words)
    assert (code, "trial 2 would write into the folder of trial 1, 111" in said) == (2, True), said
    assert [row["status"] for row in records(tmp_path / "sweep")] == [
        *("finished", "finished", "refused", "finished")
    ]
    assert trained.seen == ["11", "111", "1111"]


def test_points_that_cannot_work_are_passed_over_or_refused_by_choice(typed, tmp_path, trained, capsys):
    words = ["-m", *SETTINGS, "model.n_heads=2,3", "schedule.warmup_steps=0,5", "data.batch_size=4"]
    code, said = typed("train", *words, NAMED, "sweep.impossible=refuse")
    assert (code, "sweep.impossible=skip" in said, trained.seen) == (2, True, [])
    assert not (tmp_path / "sweep").exists()
    assert typed("train", *words, NAMED, "sweep.impossible=skip")[0] == 0
    assert (trained.seen, [row["status"] for row in records(tmp_path / "sweep")]) == (["0"], ["finished"])


def test_halving_gives_most_trials_up_and_finishes_the_best_as_it_would_have_run_alone(typed, tmp_path):
    words = [*SETTINGS, "trainer.max_steps=6", "trainer.eval_every=1", "optimizer.lr=1e-5,1e-4,1e-2"]
    halving = ["sweep=halving", "sweep.prune_at=[1,3]"]
    assert typed("train", "-m", *words, *halving, NAMED)[0] == 0
    rows = records(tmp_path / "sweep")
    assert sorted((row["status"], row["steps"]) for row in rows) == [
        ("finished", 6),
        ("pruned", 1),
        ("pruned", 1),
    ]
    (best,) = [row for row in rows if row["status"] == "finished"]
    assert best["point"] == {"optimizer.lr": "0.01"}
    assert typed("train", *words[:-1], "optimizer.lr=1e-2", "hydra.run.dir=alone")[0] == 0
    alone = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert best["objective"] == alone["best_val_loss"]
    assert [step for step, _ in best["metrics"]["val/loss"]] == [1, 2, 3, 4, 5, 6]


def test_what_halving_lets_pause_is_not_given_up_where_failures_end_the_sweep(typed, tmp_path, trained):
    trained.failing[1e-2] = RuntimeError("a bug")
    words = [*SETTINGS, "trainer.max_steps=6", "trainer.eval_every=1", "optimizer.lr=1e-4,1e-3,1e-2", NAMED]
    halving = ["sweep=halving", "sweep.prune_at=[1]"]
    assert typed("train", "-m", *words, *halving, "sweep.most_failures=1")[0] == 1
    assert [row["status"] for row in records(tmp_path / "sweep")].count("pruned") == 0
    assert typed("train", "-m", *words, *halving)[0] == 1  # it goes on
    assert {row["status"] for row in records(tmp_path / "sweep")} == {"finished", "pruned", "failed"}


def test_a_sweep_that_has_passed_points_over_has_ended(typed, tmp_path):
    words = [*SETTINGS, "model.n_heads=2,3", "sweep.impossible=skip"]
    for times in (1, 2):
        assert typed("train", "-m", *words)[0] == 0
        assert len(list(tmp_path.glob("multirun/*/*"))) == times


@pytest.mark.parametrize("sweep", ["random", "tpe"])
def test_a_search_without_end_draws_as_many_trials_as_are_wanted(typed, tmp_path, sweep):
    if sweep == "tpe":
        pytest.importorskip("optuna")
    words = [f"sweep={sweep}", "sweep.trials=3", "optimizer.lr=tag(log, interval(1e-4,1e-2))", NAMED]
    assert typed("train", "-m", *SETTINGS, *words)[0] == 0
    rates = [float(row["point"]["optimizer.lr"]) for row in records(tmp_path / "sweep")]
    assert (len(set(rates)), min(rates) >= 1e-4, max(rates) <= 1e-2) == (3, True, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-m", "optimizer.lr=interval(1e-4,1e-3)"], "pip install '.[sweep]'"),
        (["-m", "sweep=bayes", "seed=1,2"], "sweep=bayes: no such option"),
        (["-m", "sweep.jobs=1,2"], "cannot be swept itself"),
        (["-m", "sweep.prune_at=[5,3]", "seed=1,2"], "rising numbers"),
        (["-m", "model.n_layr=1,2"], "did you mean model.n_layers?"),
        (["-m", "hydra/launcher=joblib", "seed=1,2"], "pip install hydra-joblib-launcher"),
        (["-m", "hydra/launcher=submitit_slurm", "seed=1,2"], "pip install hydra-submitit-launcher"),
        (["-m", "hydra/launcher=ray", "seed=1,2"], "pip install hydra-ray-launcher"),
        (["-m", "hydra/launcher=dask", "seed=1,2"], "pip install '.[sweep]'"),
        (["sweep=random", "sweep.trials=3"], "add -m"),
        (["-m", "resume=nowhere"], "is no sweep"),
        (["-m", "seed=1,2", "plan=true"], "leave -m out"),
        (["-m", "plan=false,true"], "leave -m out"),
    ],
)
def test_what_no_sweep_can_do_is_refused_in_a_line_that_helps(typed, tmp_path, monkeypatch, words, said):
    Plugins.instance()  # finds the launchers that happen to be installed, of which none is left
    launchers = ConfigStore.instance().repo["hydra"]["launcher"]
    for name in set(launchers) - {"basic.yaml"}:
        monkeypatch.delitem(launchers, name)
    code, error = typed("train", *SETTINGS, *words)
    assert (code, said in error, len(error.strip().splitlines()) <= 3) == (2, True, True), error
    assert list(tmp_path.iterdir()) == []


HOSTILE = [
    "hydra/launcher=joblib",
    "+hydra.callbacks.x._target_=os.system",
    "hydra.sweep.dir=canary",
    "data.path=${oc.env:HOME}",
    "model=../../canary",
    "~model",
    "+model.x=1",
    "experiment=/etc/x",
    "no such word",
    "x" * 100,
]


def test_a_foreign_record_s_words_reach_no_command_line(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "seed=1", NAMED)[0] == 0
    file = tmp_path / "sweep" / "search.json"
    search = json.loads(file.read_text())
    for word in HOSTILE:
        file.write_text(json.dumps(search | {"words": [*search["words"], word]}))
        before = contents(tmp_path)
        code, said = typed("train", "resume=sweep")
        assert (code, "is taken from no record" in said) == (3, True), (word, said)
        assert contents(tmp_path) == before


def test_a_foreign_point_is_no_part_of_a_command_line(typed, tmp_path):
    assert typed("train", "-m", *SETTINGS, "seed=1,2", NAMED)[0] == 0
    file = tmp_path / "sweep" / "trials" / "00001.json"
    trial = json.loads(file.read_text())
    file.write_text(json.dumps(trial | {"status": "waiting", "point": {"hydra.sweep.dir": "canary"}}))
    code, said = typed("train", "-m", *SETTINGS, "seed=1,2", NAMED)
    assert (code, "no point of this search" in said) == (3, True), said
    assert not (tmp_path / "canary").exists()

"""Where a sweep goes: into the folder that was named, and through no link that lies in one."""

import json

import pytest
from omegaconf import OmegaConf

from gpt_pretrain.sweep import place
from tests.sweep.test_sweeper import NAMED, SETTINGS, contents, records


@pytest.mark.parametrize(
    ("folder", "words", "is_named"),
    [
        ("multirun/${now:%Y-%m-%d}/${now:%H-%M-%S-%f}", [], False),
        ("sweep", ["hydra.sweep.dir=sweep"], True),
        ("sweep", ["++hydra.sweep.dir=sweep"], True),
        ("multirun/${now:%F}", ["hydra.sweep.dir=multirun/${now:%F}"], True),
        ("results", [], True),  # by a folder of settings
        ("multirun/${now:%F}", ["hydra.sweep.subdir=t_${hydra.job.num}"], False),
    ],
)
def test_a_folder_is_named_where_somebody_chose_it(folder, words, is_named):
    hydra = {"sweep": {"dir": folder}, "job": {"num": "???"}, "overrides": {"hydra": words, "task": []}}
    assert place._is_named(OmegaConf.create({"hydra": hydra})) == is_named


def test_a_sweep_s_words_that_hydra_resolves_for_each_trial_are_left_to_it(typed, tmp_path):
    words = ["seed=1,2", "hydra.sweep.subdir=t_${hydra.job.num}", NAMED]
    code, said = typed("train", "-m", *SETTINGS, *words)
    assert code == 0, said
    assert [trial["folder"] for trial in records(tmp_path / "sweep")] == ["t_0", "t_1"]


def test_settings_in_another_order_are_the_same_sweep(typed, tmp_path):
    words = [*SETTINGS, "trainer.max_steps=1", NAMED]
    assert typed("train", "-m", *words, "optimizer.lr=1e-3,2e-3", "seed=1,2")[0] == 0
    first = records(tmp_path / "sweep")
    (tmp_path / "sweep" / "trials" / "00001.json").unlink()
    code, said = typed("train", "-m", *words, "seed=1,2", "optimizer.lr=1e-3,2e-3")
    assert code == 0, said
    again = records(tmp_path / "sweep")
    assert [trial["point"] for trial in again] == [trial["point"] for trial in first]
    assert [trial["val_loss"] for trial in again] == [trial["val_loss"] for trial in first]


@pytest.fixture
def elsewhere(tmp_path):
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "file").write_text("precious\n")
    return folder


LINKS = [
    *("multirun.yaml", "search.json", "leaderboard.csv", ".leaderboard.csv.1.partial"),
    *("trials", ".locks", "workers", "experiment", "0", "0/.hydra", "new", "1/checkpoints"),
]


def test_no_link_in_a_sweep_s_folder_is_followed(typed, tmp_path, elsewhere):
    assert typed("train", "-m", *SETTINGS, "trainer.max_steps=1", "seed=1,2", NAMED)[0] == 0
    sweep = tmp_path / "sweep"
    file = sweep / "trials" / "00000.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"status": "interrupted"}))
    for name in LINKS:
        link, aside = sweep / name, tmp_path / "aside"
        is_folder = link.is_dir() or not link.name.endswith((".yaml", ".json", ".csv", ".partial"))
        if link.exists():
            link.rename(aside)
        link.symlink_to(elsewhere if is_folder else elsewhere / "file")
        before = contents(tmp_path)
        code, said = typed("train", "resume=sweep")
        assert code == 3, (name, said)
        assert contents(tmp_path) == before
        link.unlink()
        if aside.exists():
            aside.rename(link)


def test_what_stands_in_the_place_of_a_new_sweep_s_settings_is_not_written_through(
    typed, tmp_path, elsewhere
):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "multirun.yaml").symlink_to(elsewhere / "new")  # which is not there yet
    assert typed("train", "-m", *SETTINGS, "trainer.max_steps=1", "seed=1", NAMED)[0] == 0
    assert sorted(path.name for path in elsewhere.iterdir()) == ["file"]
    assert (tmp_path / "sweep" / "multirun.yaml").is_file()


def test_a_launcher_s_own_links_to_the_scripts_of_its_jobs_are_let_be(typed, tmp_path):
    words = ["-m", *SETTINGS, "trainer.max_steps=1", "seed=1", NAMED]
    assert typed("train", *words)[0] == 0
    (tmp_path / "sweep" / ".submitit").mkdir()
    (tmp_path / "sweep" / ".submitit" / "submission_file_1.sh").symlink_to("1_submission.sh")
    assert typed("train", *words)[0] == 0

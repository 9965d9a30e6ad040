"""What scripts see of an error: the exit codes that the README promises."""

import pytest

from gpt_pretrain import errors
from tests.conftest import QUICK

SETTINGS = [*QUICK, "trainer.max_steps=1"]


def test_each_kind_of_error_has_its_exit_code():
    assert errors.InputError.exit_code == 2
    assert errors.ArtifactError.exit_code == 3
    assert errors.DivergedError.exit_code == 4
    assert errors.InfrastructureError.exit_code == 5
    assert errors.StoppedError(15, "").exit_code == 143


@pytest.fixture
def full_disk(monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gpt_pretrain.training.train.train", full)


def test_a_full_disk_ends_with_5_in_one_line(typed, full_disk):
    code, said = typed("train", *SETTINGS)
    assert (code, said.splitlines()[-1]) == (
        5,
        "error: the machine failed: [Errno 28] No space left on device",
    )
    assert "Traceback" not in said


def test_debug_leaves_the_traceback(typed, full_disk):
    with pytest.raises(OSError, match="No space left"):
        typed("train", *SETTINGS, "debug=true")


def test_a_mistake_of_ours_is_not_passed_off_as_the_users(typed, monkeypatch):
    def mistaken(*_):
        raise ValueError("ours")

    monkeypatch.setattr("gpt_pretrain.training.train.train", mistaken)
    with pytest.raises(ValueError, match="ours"):
        typed("train", *SETTINGS)

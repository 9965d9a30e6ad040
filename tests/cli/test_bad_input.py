"""Input that cannot be used, in 160 cases and more: a few lines, exit code 2 or 3, no change on disk."""

import pytest

from tests.cli.bad_input import CASES, GIVEN, give
from tests.conftest import QUICK

QUICKEST = [*QUICK, "trainer.max_steps=2", "trainer.eval_batches=1"]


@pytest.fixture(autouse=True)
def _files(tmp_path):
    give(tmp_path)


@pytest.mark.parametrize(("program", "words"), CASES, ids=[" ".join(words)[:60] for _, words in CASES])
def test_what_cannot_be_used_is_refused_in_a_few_lines(typed, tmp_path, program, words):
    keys = {word.partition("=")[0].lstrip("+~") for word in words}
    base = [word for word in QUICKEST if word.partition("=")[0] not in keys] if program == "train" else []
    code, said = typed(program, *base, *words)
    assert code == 2 or (code == 3 and any(_is_artifact(word) for word in words)), (code, said)
    assert 1 <= len(said.strip().splitlines()) <= 4, said
    assert "Traceback" not in said
    assert "\x1b" not in said
    assert {path.name for path in tmp_path.iterdir()} == GIVEN


def _is_artifact(word: str) -> bool:
    """Whether it names a file that is there, and is to be opened as weights or as a tokenizer."""
    key, _, path = word.partition("=")
    return key in ("checkpoint", "weights.path", "tokenizer.path") and path in {*GIVEN, "/dev/zero", "."}


def test_there_are_as_many_cases_as_are_promised():
    assert len({tuple(words) for _, words in CASES}) >= 160

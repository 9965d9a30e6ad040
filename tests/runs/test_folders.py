"""What a killed process left in a run's folder is put right, and nothing else is touched."""

import json
import shutil

from gpt_pretrain.runs.folders import (
    MANIFEST,
    SAVED,
    find_checkpoints,
    has_saved,
    is_whole,
    remove,
    replace,
    restore,
    step_folder,
    tidy,
)


def checkpoint(run, step):
    folder = run / "checkpoints" / f"step-{step:08d}"
    folder.mkdir(parents=True)
    (folder / "file").write_bytes(b"12345")
    (folder / MANIFEST).write_text(json.dumps({"file": {"bytes": 5, "sha256": ""}}))
    return folder


def test_a_checkpoint_that_was_being_replaced_comes_back(tmp_path):
    folder = checkpoint(tmp_path, 1)
    aside = folder.with_name(f".{folder.name}.replaced")
    folder.rename(aside)  # killed here
    restore(tmp_path)
    assert is_whole(folder)
    assert not aside.exists()
    shutil.copytree(folder, aside)  # killed after the new one had come
    restore(tmp_path)
    tidy(tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == [folder.name]


def test_what_is_deleted_is_no_checkpoint_from_the_first_moment_on(tmp_path, monkeypatch):
    folder = checkpoint(tmp_path, 1)
    seen = []
    monkeypatch.setattr(shutil, "rmtree", lambda path: seen.append(path.name))
    remove(folder)
    assert seen == [".step-00000001.deleted.partial"]
    assert not folder.exists()


def test_a_deletion_that_fails_is_a_warning(tmp_path, monkeypatch, caplog):
    folder = checkpoint(tmp_path, 1)

    def full(path):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", full)
    remove(folder)
    assert "cannot be deleted: Read-only file system" in caplog.text


def test_a_file_of_another_size_is_not_whole(tmp_path):
    folder = checkpoint(tmp_path, 1)
    assert is_whole(folder)
    (folder / "file").write_bytes(b"1234")
    assert not is_whole(folder)
    (folder / MANIFEST).write_text("[]")
    assert not is_whole(folder)


def test_a_copy_beside_the_checkpoints_is_none_of_them(tmp_path):
    steps = [7, 12345678, 123456789]
    names = [step_folder(tmp_path, step).name for step in steps]
    others = [f"{names[0]}.bak", f"{names[0]} (copy)", "step-9", "step-best", f"step-{'9' * 200}"]
    for name in [*names, *others]:
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert [folder.name for folder in find_checkpoints(tmp_path)] == names[::-1]


def test_a_run_remembers_that_it_has_saved(tmp_path):
    assert not has_saved(tmp_path)
    (tmp_path / SAVED).touch()
    assert has_saved(tmp_path)


def test_a_file_is_replaced_whole(tmp_path):
    replace(tmp_path / "file", b"one")
    replace(tmp_path / "file", b"two")
    assert (tmp_path / "file").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]

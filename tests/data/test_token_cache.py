"""The token cache: built once, the same whoever builds it, repaired when damaged, continued when killed."""

import errno
import itertools
import json
import multiprocessing
import os
import random
import signal
import time
import zlib

import pytest

from gpt_pretrain.config import DataConfig, TokenizerConfig
from gpt_pretrain.data import fingerprints, shards, token_cache
from gpt_pretrain.data.corpus import load_corpus
from gpt_pretrain.data.sources import build_source
from gpt_pretrain.errors import InfrastructureError, InputError
from gpt_pretrain.tokenizer import build_tokenizer


def write(path, n_characters, seed=0):
    draw = random.Random(seed)
    words = ["lorem", "ipsum", "dolor", "sit", "amet,", "été", "\n"]
    path.write_text(" ".join(draw.choice(words) for _ in range(n_characters // 5)))
    return path


def content(folder):
    """Every file of a cache entry, by name."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def open_cache(path, cache, **settings):
    config = DataConfig(source="text_files", path=str(path), **settings)
    source = build_source(config, str(path), cache)
    return token_cache.open_or_build(
        source, config, build_tokenizer(TokenizerConfig(name="bytes")), cache, split=config.split
    )


def test_a_text_is_tokenized_once(tmp_path, cache):
    file = write(tmp_path / "a.txt", 1000)
    first, second = open_cache(file, cache), open_cache(file, cache)
    assert (first.built, second.built) == (True, False)
    assert first.folder == second.folder


def test_what_changes_the_tokens_changes_the_address_and_nothing_else_does(tmp_path, cache):
    file = write(tmp_path / "a.txt", 1000)
    (tmp_path / "b.txt").write_bytes(file.read_bytes())
    here = open_cache(file, cache).folder
    assert open_cache(tmp_path / "b.txt", cache).folder == here  # the same text under another name
    assert open_cache(file, cache, batch_size=3, num_workers=2).folder == here
    others = [open_cache(file, cache, **s).folder for s in ({"val_fraction": 0.2}, {"special_tokens": True})]
    others.append(open_cache(write(file, 1000, seed=1), cache).folder)
    assert len({here, *others}) == 4


def test_worker_processes_give_the_same_bytes(tmp_path):
    file = write(tmp_path / "a.txt", 1_500_000)
    entries = [content(open_cache(file, tmp_path / f"cache{n}", prepare_workers=n).folder) for n in (0, 1, 3)]
    assert entries[0] == entries[1] == entries[2]


def test_many_shards_read_as_one(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(shards, "SHARD_TOKENS", 1000)
    monkeypatch.setattr("gpt_pretrain.data.splits.BATCH_CHARACTERS", 700)
    monkeypatch.setattr("gpt_pretrain.tokenizer.segmentation.SEGMENT", 600)
    file = write(tmp_path / "a.txt", 20_000)
    entry = open_cache(file, cache)
    assert len(entry.index["streams"]["train"]["shards"]) > 5
    tokens = (entry.tokens("train") + entry.tokens("val"))[:]
    assert bytes(tokens.tolist()) == file.read_bytes()


@pytest.mark.parametrize("how", ["cut", "flipped", "missing", "index"])
def test_a_damaged_shard_is_found_and_built_again(tmp_path, cache, caplog, how):
    file = write(tmp_path / "a.txt", 5000)
    entry = open_cache(file, cache)
    sound = content(entry.folder)
    shard = entry.folder / "train-00000.bin"
    if how == "cut":
        os.truncate(shard, 100)
    elif how == "flipped":
        shard.write_bytes(bytes([sound[shard.name][0] ^ 1]) + sound[shard.name][1:])
    elif how == "missing":
        shard.unlink()
    else:
        (entry.folder / "index.json").write_text("{")
    again = open_cache(file, cache)
    assert again.built
    assert content(again.folder) == sound
    assert "is damaged" in caplog.text


def test_no_byte_of_the_index_can_change_unnoticed(tmp_path, cache):
    file = write(tmp_path / "a.txt", 3000)
    entry = open_cache(file, cache)
    index = entry.folder / "index.json"
    sound = index.read_bytes()
    for place in range(0, len(sound), 7):
        index.write_bytes(sound[:place] + bytes([sound[place] ^ 1]) + sound[place + 1 :])
        assert open_cache(file, cache).index == entry.index
    assert index.read_bytes() == sound


def test_a_large_cache_has_its_checksums_compared_on_demand(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(token_cache, "CHECKED_BYTES", 0)
    file = write(tmp_path / "a.txt", 5000)
    shard = open_cache(file, cache).folder / "train-00000.bin"
    shard.write_bytes(b"\1" + shard.read_bytes()[1:])
    assert not open_cache(file, cache).built  # sizes hold
    config = DataConfig(source="text_files", path=str(file))
    assert load_corpus(config, build_tokenizer("bytes"), checksums=True).parts[0].built


def test_an_interrupted_build_goes_on_and_gives_the_same_bytes(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    monkeypatch.setattr(token_cache, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 9000)
    monkeypatch.setattr("gpt_pretrain.data.splits.BATCH_CHARACTERS", 1000)
    monkeypatch.setattr("gpt_pretrain.tokenizer.segmentation.SEGMENT", 900)
    file = write(tmp_path / "a.txt", 30_000)
    whole = content(open_cache(file, tmp_path / "one").folder)
    encoded, original = [], token_cache.encode_batches

    def killed(*arguments, **options):
        for number, result in enumerate(original(*arguments, **options)):
            if number == 10:
                raise KeyboardInterrupt
            encoded.append(number)
            yield result

    monkeypatch.setattr(token_cache, "encode_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        open_cache(file, tmp_path / "two")
    (partial,) = (tmp_path / "two" / "tokens").glob("*.partial")
    with (partial / "train-00000.bin").open("ab") as stream:
        stream.write(b"written but not committed")
    (partial / "train-00002.bin").write_bytes(b"a shard begun but not committed")
    monkeypatch.setattr(token_cache, "encode_batches", original)
    assert content(open_cache(file, tmp_path / "two").folder) == whole
    assert "going on after 10 batches" in caplog.text


@pytest.mark.parametrize("damaged", ["progress.json", "train-00000.bin", "train-documents.bin"])
def test_an_interrupted_build_that_is_damaged_begins_anew(tmp_path, cache, monkeypatch, damaged):
    monkeypatch.setattr(token_cache, "COMMIT_SECONDS", 0.0)
    monkeypatch.setattr("gpt_pretrain.data.splits.BATCH_SEGMENTS", 2)
    (tmp_path / "a").mkdir()
    for number in range(8):
        write(tmp_path / "a" / f"{number}.txt", 500, seed=number)
    sound = content(open_cache(tmp_path / "a", tmp_path / "one").folder)
    original = token_cache.encode_batches

    def killed(*arguments, **options):
        yield from itertools.islice(original(*arguments, **options), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(token_cache, "encode_batches", killed)
    with pytest.raises(KeyboardInterrupt):
        open_cache(tmp_path / "a", cache)
    (partial,) = cache.glob("tokens/*.partial")
    os.truncate(partial / damaged, (partial / damaged).stat().st_size - 8)
    monkeypatch.setattr(token_cache, "encode_batches", original)
    assert content(open_cache(tmp_path / "a", cache).folder) == sound


def test_a_finished_build_that_was_never_given_its_name_is_taken_as_it_is(tmp_path, cache, monkeypatch):
    file = write(tmp_path / "a.txt", 5000)
    entry = open_cache(file, cache)
    sound = content(entry.folder)
    entry.folder.rename(entry.folder.with_suffix(".partial"))
    (entry.folder.with_suffix(".partial") / "progress.json").touch()
    monkeypatch.setattr(token_cache, "encode_batches", None)  # nothing is tokenized again
    assert content(open_cache(file, cache).folder) == sound


def test_a_build_killed_before_its_first_commit_starts_clean(tmp_path, cache):
    file = write(tmp_path / "a.txt", 5000)
    entry = open_cache(file, cache)
    sound = content(entry.folder)
    entry.folder.rename(entry.folder.with_suffix(".partial"))
    (entry.folder.with_suffix(".partial") / "index.json").unlink()
    assert content(open_cache(file, cache).folder) == sound


def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path, cache, monkeypatch):
    file = write(tmp_path / "a.txt", 5000)
    original = token_cache.encode_batches

    def changing(*arguments, **options):
        write(file, 5000, seed=1)
        yield from original(*arguments, **options)

    monkeypatch.setattr(token_cache, "encode_batches", changing)
    with pytest.raises(InputError, match="changed while it was read"):
        open_cache(file, cache)


def test_a_cache_folder_that_cannot_be_written_is_named(tmp_path):
    file = write(tmp_path / "a.txt", 100)
    (tmp_path / "cache").write_text("a file is in the way")
    with pytest.raises(InfrastructureError, match=r"set data\.cache_dir"):
        open_cache(file, tmp_path / "cache")


def test_a_full_disk_is_the_cache_s_fault_not_the_text_s(tmp_path, cache, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    file = write(tmp_path / "a.txt", 5000)
    monkeypatch.setattr(fingerprints, "SMALL", 0)  # the digest of a large file is kept in the cache too
    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(InfrastructureError, match=r"No space left on device\n.*set data\.cache_dir"):
        open_cache(file, cache)


def test_a_cache_that_cannot_be_written_can_be_read(tmp_path, cache, monkeypatch):
    file = write(tmp_path / "a.txt", 5000)
    built = open_cache(file, cache)

    def read_only(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(fingerprints, "SMALL", 0)
    monkeypatch.setattr("os.fsync", read_only)
    monkeypatch.setattr("pathlib.Path.mkdir", read_only)
    assert open_cache(file, cache).folder == built.folder


def test_a_tokenizing_process_that_dies_is_an_infrastructure_error(tmp_path, cache, monkeypatch):
    monkeypatch.setattr("gpt_pretrain.data.workers.encode_batch", None)  # only here: workers import their own
    original = token_cache.batches

    def killing(*arguments):
        for batch in original(*arguments):
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
                child.join()
            yield batch

    monkeypatch.setattr(token_cache, "batches", killing)
    with pytest.raises(InfrastructureError, match="a tokenizing process died"):
        open_cache(write(tmp_path / "a.txt", 2_000_000), cache, prepare_workers=1)


def _open_and_report(path, cache, reports, name, moment=None):
    """Open or build, then say when that was done and what came out; `tokenized.txt` gets who did each batch.
    Whoever does the batch of number `moment` kills the process that `victim` names: 0 is itself.
    """
    token_cache.COMMIT_SECONDS = 0.0
    original = token_cache.encode_batches

    def counting(*arguments, **options):
        for encoded in original(*arguments, **options):
            with (reports / "tokenized.txt").open("ab") as stream:
                stream.write(b"%d\n" % os.getpid())
            if len(builders_of(reports)) == moment:
                while not (reports / "victim").exists():
                    time.sleep(0.001)
                os.kill(int((reports / "victim").read_text()) or os.getpid(), signal.SIGKILL)
            yield encoded

    token_cache.encode_batches = counting
    entry = open_cache(path, cache)
    tokens = (entry.tokens("train") + entry.tokens("val"))[:]
    known = {"built": entry.built, "ended": time.time(), "tokens": zlib.crc32(tokens.tobytes())}
    (reports / f"{name}.partial").write_text(json.dumps(known))
    (reports / f"{name}.partial").rename(reports / f"{name}.json")


def builders_of(reports):
    return [int(pid) for pid in (reports / "tokenized.txt").read_text().split()]


@pytest.mark.slow
def test_eight_processes_build_an_empty_cache_once_though_one_is_killed(tmp_path):
    """None of them waits longer than the build and 2 s, where the build is what all builders together do: the
    text tokenized once, and once more the batch that a killed one had not committed.
    """
    file = write(tmp_path / "a.txt", 4_000_000)
    context = multiprocessing.get_context("fork")
    expected = content(open_cache(file, tmp_path / "warm").folder)
    (tmp_path / "alone").mkdir()
    alone = context.Process(target=_open_and_report, args=(file, tmp_path / "one", tmp_path / "alone", "0"))
    alone.start()
    alone.join()
    n_batches = len(builders_of(tmp_path / "alone"))
    draw, gone_on = random.Random(0), 0
    for number in range(20):
        cache, reports = tmp_path / f"cache{number}", tmp_path / f"reports{number}"
        reports.mkdir()
        moment = draw.randint(1, n_batches)
        arguments = [(file, cache, reports, k, moment) for k in range(8)]
        processes = [context.Process(target=_open_and_report, args=given) for given in arguments]
        for process in processes:
            process.start()
        victim = draw.choice(processes).pid if number % 2 else 0  # in every other round the builder
        (reports / "pid").write_text(str(victim))
        (reports / "pid").rename(reports / "victim")
        for process in processes:
            process.join(120)
        assert sum(process.exitcode == -signal.SIGKILL for process in processes) == 1
        known = [json.loads(report.read_bytes()) for report in reports.glob("*.json")]
        assert len(known) == 7
        assert sum(report["built"] for report in known) == 1
        assert len({report["tokens"] for report in known}) == 1
        (folder,) = [entry for entry in (cache / "tokens").iterdir() if not entry.suffix]
        assert content(folder) == expected
        assert not list(cache.rglob("*.partial"))
        builders = builders_of(reports)
        assert n_batches <= len(builders) <= n_batches + len(set(builders)) - 1
        gone_on += len(set(builders)) > 1
        named = folder.stat().st_ctime  # when the build ended, whoever did it
        assert max(report["ended"] for report in known) - named < 2
    assert gone_on >= 10  # rounds in which another built on

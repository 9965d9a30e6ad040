"""Trial 10: input that cannot be used, typed on the command line."""

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

from gpt_pretrain.config import TrainConfig
from gpt_pretrain.config.border import MEMBERS, sections
from tests.scoreboard.server import SETTINGS, Ended, fresh, run
from tests.scoreboard.table import Case, Profile

ESCAPE = "\x1b[31mred"
# What each line names is what must be refused; the exit code is 2 where none is given.
TYPED: list[tuple[str, list[str]]] = [
    ("train", word.split(" "))
    for word in (
        *("model.n_layr=2", "+model.n_layr=2", "~model.n_layers", "optimizer=adamx", "modle=tiny", "model"),
        *("optimizer.lr=abc", "optimizer.lr=nan", "optimizer.lr=inf", "optimizer.lr=-1", "optimizer.lr=[1]"),
        *(
            "trainer.max_epochs=1e308 trainer.max_steps=null",
            "trainer.max_steps=0",
            "trainer.max_steps=1e3x",
            "trainer.max_tokens=1",
        ),
        *("trainer.max_steps=9223372036854775808", "trainer.max_tokens=1e400", "trainer.max_steps={a:1}"),
        *("trainer.devices=5000", "trainer.devices=0", "trainer.num_nodes=3", "trainer=gpu", "trainer=tpu"),
        *("trainer.precision=8", "trainer.accelerator=tpu", "trainer.on_divergence=maybe", "trainer.spike=1"),
        *("data.num_workers=1000000", "data.num_workers=-1", "data.prepare_workers=1000000", "data.path=x"),
        *("data.batch_size=1000000000000", "data.batch_size=0", "data.stride=0", "data.val_fraction=1"),
        *("data.val_fraction=nan", "data.split=lines", "data.text_field=[a]", "data.source=nowhere"),
        *("model.n_layers=10000000", "model.emb_dim=1000000000", "model.vocab_size=1125899906842624"),
        *("model.vocab_size=3", "model.n_heads=3", "model.context_length=1000000000", "model.drop_rate=1"),
        *(
            "model.emb_dim=0",
            "model.tie_weights=perhaps",
            "model=nosuch",
            "weights=checkpoint",
            "weights=gpt9",
        ),
        *("weights.openai_urls=[[]]", "weights.openai_urls=5", "weights.path=/nowhere", "weights.path=''"),
        *(
            "tokenizer.special_tokens=[[a]]",
            "tokenizer.special_tokens=[a,a]",
            "tokenizer.special_tokens=['']",
        ),
        *("tokenizer=tiktoken", "tokenizer=huggingface", "tokenizer.name=none", "tokenizer.path=[a]"),
        *("decoding.num_beams=1000000", "decoding.num_beams=0", "decoding.top_p=2", "decoding.stop=[[a]]"),
        *(
            "decoding.logit_bias=[a]",
            "decoding.temperature=-1",
            "decoding.min_new_tokens=99",
            "decoding.top_k=0",
        ),
        *("schedule.warmup_steps=100", "schedule=cosin", "schedule.min_lr=9", "seed=-1", "seed=1.5"),
        *(
            "resume=/nowhere",
            "resume=''x",
            "resume=[a]",
            "logger=wandbx",
            "logger.csv=maybe",
            "experiment=none",
        ),
        *("hydra.run.dir=/proc/nowhere", "hydra.run.dir=/dev/null/x", "debug=maybe", "hydra.nosuch=1"),
        *(f"data.path={ESCAPE}", f"resume={ESCAPE}", f"data.val_path={'x' * 300}", f"resume={'x' * 5000}"),
        *(
            f"hydra.run.dir={'x' * 300}",
            "model.n_layers=",
            "=5",
            "'",
            "a=b=c",
            "trainer.max_steps=1,2",
            "${x}",
        ),
        *(
            "data.path=${oc.env:HOME}",
            "model.n_layers=${model.n_heads}x",
            "data.order=book",
            "trainer.draws=x",
        ),
        *("trainer.keep_last=1", "trainer.best_of=0", "trainer.grad_clip=0", "trainer.save_retries=-1"),
    )
]
FILES: list[tuple[str, bytes]] = [
    ("docx.docx", b"PK\x03\x04" + bytes(500)),
    ("zeros.txt", bytes(5000)),
    ("latin.txt", "Müller ".encode("latin1") * 500),
    ("utf16.txt", ("text " * 1000).encode("utf-16")),
    ("empty.txt", b""),
    ("short.txt", b"abc"),
    ("broken.jsonl", b'{"text": "a"}\n{"text": \n' * 50),
    ("other.jsonl", b'{"words": "a"}\n' * 50),
    ("deep.jsonl", b"[" * 100000 + b"\n"),
    ("footer.parquet", b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1"),
    ("empty.parquet", b""),
    ("cut.gz", b"\x1f\x8b\x08\x00" + bytes(20)),
    ("cut.jsonl.zst", b"\x28\xb5\x2f\xfd" + bytes(3)),
    ("page.html", b"<html>" + b"text " * 1000),
    ("table.csv", b"a,b\n" * 1000),
]
GENERATE = [
    *(
        "checkpoint=",
        "checkpoint=/nowhere",
        "checkpoint=/dev/zero",
        "checkpoint=pipe",
        "prompt=[a]",
        "prompt",
    ),
    *("prompts_file=/nowhere", "output=/nowhere/x.jsonl", "device=tpu", "num_samples=0", "decoding.top_p=0"),
    *("weights.path=pipe", "weights.path=/dev/zero", "weights.path=text.txt", "checkpoint=text.txt"),
    *("weights=scratch", "quantize=3", "decoding=bean", "decoding.slide=0", f"checkpoint={'x' * 400}"),
]


def matrix(profile: Profile, change: Callable[[], None] | None = None) -> Iterator[Case]:
    """Everything above; then each setting with values of another type or out of range; then random ones."""
    cases = [*TYPED, *(("generate", [word]) for word in GENERATE)]
    cases += [("train", ["data=text_files", f"data.path={name}"]) for name, _ in FILES]
    cases += [
        ("train", ["tokenizer=huggingface", f"tokenizer.path={path}"])
        for path in ("/dev/zero", "pipe", "text.txt", "deep.json", "/nowhere", ".")
    ]
    systematic = [
        ("train", [f"{key}={value}"]) for key in _keys() for value in ("[]", "{a: b}", "nosuch", "1e999")
    ]
    chance = profile.random("inputs")
    cases += systematic
    for program, words in cases if profile.full else chance.sample(cases, 40):
        yield _refused(profile, program, words, change)
    for number in range(profile.of(8, 3000)):
        words = _random_words(chance)
        ended = _typed(profile, "train", [*words, "trainer.max_steps=1", "trainer.eval_batches=1"], change)
        fine = ended.code in (0, 2, 3, 4) and ended.is_clean
        yield Case(f"random {number}: {' '.join(words)}"[:150], fine, f"{ended.code}: {ended.said[-300:]}")


def _refused(profile: Profile, program: str, words: list[str], change: Callable[[], None] | None) -> Case:
    ended = _typed(profile, program, words, change)
    left = sorted(path.name for path in _place(profile).iterdir() if path.name not in _given())
    lines = [line for line in ended.said.splitlines() if line.strip()]
    why = (
        f"exit code {ended.code}: {ended.said[-300:]}"
        if ended.code not in (2, 3)
        else f"a traceback: {ended.said[-300:]}"
        if not ended.is_clean
        else f"left behind: {left}"
        if left
        else f"{len(lines)} lines"
        if not 1 <= len(lines) <= 4
        else "a control character printed"
        if "\x1b" in ended.said
        else ""
    )
    return Case(f"{program} {' '.join(words)}"[:120], not why, why)


def _typed(profile: Profile, program: str, words: list[str], change: Callable[[], None] | None) -> Ended:
    place = fresh(_place(profile))
    for name, content in FILES:
        (place / name).write_bytes(content)
    (place / "text.txt").write_text("words of a text " * 2000)
    (place / "deep.json").write_text("[" * 200000)
    os.mkfifo(place / "pipe")
    keys = {word.partition("=")[0].lstrip("+~") for word in words}
    base = [word for word in SETTINGS if word.partition("=")[0] not in keys] if program == "train" else []
    return run(place, *base, *words, program=program, change=change)


def _place(profile: Profile) -> Path:
    return profile.folder / "typed"


def _given() -> set[str]:
    return {*(name for name, _ in FILES), "text.txt", "deep.json", "pipe"}


def _keys() -> list[str]:
    """Every numeric setting of training: what takes text or anything is not refused by its type."""
    keys = []
    for section, base in sections(TrainConfig):
        for cls in (base, *MEMBERS.get(base, {}).values()):
            for entry in dataclasses.fields(cls):
                if "int" in str(entry.type) or "float" in str(entry.type):
                    keys.append(f"{section}.{entry.name}")
            if base in MEMBERS:
                break
    return list(dict.fromkeys(key for key in keys if "early" not in key))


def _random_words(chance: random.Random) -> list[str]:
    values = [
        "0",
        "1",
        "2",
        "-1",
        "1e9",
        "null",
        "true",
        "abc",
        "''",
        "[]",
        "nan",
        "0.5",
        "[1,2]",
        "{}",
        "1e-9",
        "3",
    ]
    every = [
        f"{section}.{entry.name}"
        for section, base in sections(TrainConfig)
        for entry in dataclasses.fields(base)
        if f"{section}.{entry.name}"
        not in ("trainer.devices", "data.cache_dir", "data.url", "trainer.compile")
    ]
    return [f"{key}={chance.choice(values)}" for key in chance.sample(every, chance.randrange(1, 4))]


def unguarded(profile: Profile) -> Iterator[Case]:
    """Without the border that makes lines of errors."""
    case = _refused(profile, "train", ["model.n_heads=3"], _no_border)
    yield Case("errors as they come", case.holds, "a traceback")


def _no_border() -> None:
    from gpt_pretrain.errors import InputError, UserFacingError

    InputError.__bases__ = (ValueError,)
    assert UserFacingError

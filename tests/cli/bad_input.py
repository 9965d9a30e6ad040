"""Input that cannot be used, typed on the command line: each word, or a file's content, is one case."""

import os
from pathlib import Path

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
        *("data.num_workers=1000000", "data.num_workers=-1", "data.prepare_workers=1000000"),
        *("data.path=x", "data.path=a.txt,b.txt", "data=text_files data.path='caf\udce9.txt'"),
        *("data=mixture data.sources=['caf\udce9.txt:1']", "decoding.stop=['\udce9']"),
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
        *(
            "tokenizer=tiktoken",
            "tokenizer=huggingface",
            "tokenizer.name=none",
            "tokenizer=huggingface tokenizer.path=[a]",
        ),
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
    ("renamed.txt", b"PK\x03\x04" + b"ascii only" * 50 + bytes(2)),
    ("zeros.txt", bytes(5000)),
    ("a zero.txt", b"text " * 1000 + b"\0" + b"text " * 1000),
    ("notes.md", ("text " * 1000).encode("utf-16-le")),
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
TYPED += [
    ("train", ["tokenizer=huggingface", f"tokenizer.path={path}"])
    for path in ("/dev/zero", "pipe", "text.txt", "deep.json", "/nowhere", ".")
]
TYPED += [
    ("train", words.split(" "))
    for words in (
        *(
            "plan=true plan.device=z1",
            "plan=true plan.device=h100 plan.devices=0",
            "trainer.strategy=deepspeed",
        ),
        *("trainer.eval_every=0", "trainer.log_every=-1", "trainer.checkpoint_every=x", "sweep.trials=5x"),
        *("-m sweep.trials=0 seed=1,2", "-m sweep.jobs=0 seed=1,2", "-m optimizer.lr=interval(1,2)"),
        *("data=mixture data.sources={}", "data=mixture data.sources={nowhere:1}", "data=mixture"),
        *(
            "data=mixture data.sources={text.txt:-1}",
            "data=token_files data.path=text.txt",
            "data=text_files",
        ),
        "data=text_files data.path=text.txt data.val_path=zeros.txt",
        "data=text_files data.path=text.txt data.val_path=text.txt",
        "trainer.save_in_background=true trainer.on_divergence=rollback",
        "trainer.precision=16-mixed trainer.spike=20",
        "data=text_files data.path=/dev/zero",
        "data=text_files data.path=pipe",
    )
]
OTHERS = [
    (program, words.split(" "))
    for program, words in (
        *(
            ("evaluate", "checkpoint=/nowhere"),
            ("evaluate", "weights.path=text.txt"),
            ("evaluate", "nosuch=1"),
        ),
        *(("export", "format=word"), ("export", "weights.path=deep.json"), ("export", "max_shard_mb=-1")),
        *(("prepare", "data=text_files data.path=zeros.txt tokenizer=bytes"), ("prepare", "data=nosuch")),
        *(
            ("inspect_data", "data=text_files data.path=renamed.txt tokenizer=bytes"),
            ("plot", "runs=/nowhere"),
        ),
        *(("slurm", "nodes=0"), ("slurm", "gpus=-1"), ("slurm", "time=soon now"), ("plot", "format=gif")),
        ("generate", "prompts_file=zeros.txt"),
        *(("plot", "runs=**x"), ("evaluate", "cloze="), ("evaluate", "max_questions=3")),
        *(("generate", "score=ab next_tokens=3"), ("generate", "num_samples=2 decoding.temperature=0")),
        *(("generate", "prompt=a prompts_file=text.txt"), ("playground", "compare=")),
    )
]
CASES = [
    *TYPED,
    *OTHERS,
    *(("generate", [word]) for word in GENERATE),
    *(("train", ["data=text_files", f"data.path={name}"]) for name, _ in FILES),
]
GIVEN = {*(name for name, _ in FILES), "text.txt", "deep.json", "pipe"}


def give(place: Path) -> None:
    """The files that the cases name, in `place`."""
    for name, content in FILES:
        (place / name).write_bytes(content)
    (place / "text.txt").write_text("words of a text " * 2000)
    (place / "deep.json").write_text("[" * 200000)
    os.mkfifo(place / "pipe")

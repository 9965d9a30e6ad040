"""The programs. Heavy imports stand inside, so that nothing but real work pays for them."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_pretrain.cli.program import accepted, command
from gpt_pretrain.cli.resume import resume_arguments
from gpt_pretrain.config import GenerateConfig, TrainConfig
from gpt_pretrain.generation.prompts import quoted
from gpt_pretrain.launch.process import is_launched, launching, process, rank
from gpt_pretrain.runs.owner import owned
from gpt_pretrain.sweep.trial import conclude_trial, draws, goes_on, is_sweep, judge, run_alone, swept_first

if TYPE_CHECKING:
    from gpt_pretrain.launch.meeting import Meeting


@command(
    "train",
    TrainConfig,
    examples={
        "python train.py": "a small model on the Python reference, in two to three minutes on a laptop",
        "python train.py data=text_files data.path=books/": "on your own text",
        "python train.py model=gpt2_small tokenizer=gpt2 trainer.max_steps=1000": "another size, for longer",
        "python train.py -m optimizer=adamw,muon seed=1,2": "a sweep: four runs, one after another",
        "python train.py resume=auto trainer.max_epochs=18": "go on with the newest run",
    },
    rewrite=resume_arguments,
    outlive_reader=True,
    several=True,
)
def train_command(config: TrainConfig, run: Path) -> float | None:
    """Pretrain a GPT-2-style language model. A sweep's objective is the best validation loss."""
    from gpt_pretrain.training.preflight import preflight

    if config.plan:
        if not rank():
            _forecast(config, run)
        return None
    if rank():
        return _follow(config)
    with owned(run), _meeting(config) as meeting:
        goes_on(config, run)
        prepared = dataclasses.replace(preflight(config, run), draws=draws(config))
        if is_launched() or not (prepared.plan.world_size > 1 and is_sweep()):
            with accepted(run, config) as typed, launching(prepared.plan.world_size):
                words = swept_first(typed)
                if meeting is not None:
                    meeting.gather(run.absolute(), prepared.resume_from)
                # lightning takes seconds: bad input is refused before
                from gpt_pretrain.training.train import train

                hear = judge(config.sweep, prepared.plan)
                summary = train(config, prepared, run, words, hear, meeting)
            conclude_trial(summary)
            return summary["best_val_loss"]
    return run_alone(run)


def _forecast(config: TrainConfig, run: Path) -> None:
    from gpt_pretrain.training.forecast import forecast
    from gpt_pretrain.training.preflight import preflight

    forecast(config, preflight(config, run))


def _follow(config: TrainConfig) -> float | None:
    """A process other than the first, which has the folder and says where the run goes on."""
    from gpt_pretrain.training.preflight import preflight
    from gpt_pretrain.training.train import train

    with _meeting(config) as meeting:
        assert meeting is not None
        run, checkpoint = meeting.follow()
        config.resume = None if checkpoint is None else str(checkpoint)
        prepared = preflight(config, run)
        hear = judge(config.sweep, prepared.plan)
        return train(config, prepared, run, hear=hear, meeting=meeting)["best_val_loss"]


@contextmanager
def _meeting(config: TrainConfig) -> Iterator["Meeting | None"]:
    """Where the processes meet that another program started; None for one that nobody did."""
    if process().world_size == 1:
        yield None
        return
    from gpt_pretrain.launch.meeting import Meeting

    trainer = config.trainer
    meeting = Meeting(process(), limit=trainer.start_timeout, silence=trainer.silence_timeout)
    with meeting.telling():
        yield meeting


@command(
    "generate",
    GenerateConfig,
    examples={
        "python generate.py prompt='The statement'": "continue it with the newest run's best checkpoint",
        "python generate.py interactive=true": "prompts from the terminal",
        "python generate.py checkpoint=exported decoding=top_p num_samples=3": "three texts, of any weights",
        "python generate.py prompts_file=prompts.txt output=out.jsonl": "many prompts, into a file",
        "python generate.py next_tokens=5 prompt='The'": "what the model expects next",
    },
    rewrite=lambda arguments, conf: quoted(arguments),
)
def generate_command(config: GenerateConfig, run: Path) -> None:
    """Continue prompts with a trained model; show what it expects next, or score a text."""
    from gpt_pretrain.generation.run import generate

    generate(config)

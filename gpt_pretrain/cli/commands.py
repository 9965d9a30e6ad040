"""The programs. Heavy imports stand inside, so that nothing but real work pays for them."""

from contextlib import nullcontext
from pathlib import Path

from gpt_pretrain.cli.program import accept, command
from gpt_pretrain.cli.resume import resume_arguments
from gpt_pretrain.config import GenerateConfig, TrainConfig
from gpt_pretrain.generation.prompts import quoted
from gpt_pretrain.launch.process import launching, rank
from gpt_pretrain.runs.owner import owned
from gpt_pretrain.sweep.trial import conclude_trial, goes_on, is_sweep, judge, run_alone, swept_first


@command(
    "train",
    TrainConfig,
    example="python train.py model=tiny optimizer.lr=1e-4 trainer.max_steps=100",
    rewrite=resume_arguments,
    outlive_reader=True,
    several=True,
)
def train_command(config: TrainConfig, run: Path) -> float | None:
    """Pretrain a GPT-2-style language model. A sweep's objective is the best validation loss."""
    from gpt_pretrain.training.preflight import preflight

    with owned(run) if not rank() else nullcontext():
        goes_on(config, run)
        prepared = preflight(config, run)
        if not (prepared.plan.world_size > 1 and is_sweep()):
            words = swept_first(accept(run, config))
            with launching(prepared.plan.world_size):
                # lightning takes seconds: bad input is refused before
                from gpt_pretrain.training.train import train

                summary = train(config, prepared, run, words, judge(config.sweep, prepared.plan))
            conclude_trial(summary)
            return summary["best_val_loss"]
    return run_alone(run)


@command(
    "generate",
    GenerateConfig,
    example="python generate.py prompt='Every effort' decoding=greedy",
    rewrite=lambda arguments, conf: quoted(arguments),
)
def generate_command(config: GenerateConfig, run: Path) -> None:
    """Continue prompts with a trained model; show what it expects next, or score a text."""
    from gpt_pretrain.generation.run import generate

    generate(config)

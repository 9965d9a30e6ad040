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
    examples={
        "python train.py": "a small model on the Python reference, in two minutes on a laptop",
        "python train.py data=text_files data.path=books/": "on your own text",
        "python train.py model=gpt2_small tokenizer=gpt2 trainer.max_steps=1000": "another size, for longer",
        "python train.py -m optimizer=adamw,muon seed=1,2": "a sweep: four runs, one after another",
        "python train.py resume=auto trainer.max_epochs=12": "go on with the newest run",
    },
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

"""What can be known or go wrong before training: text, shape, plan, where to resume. No lightning."""

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gpt_pretrain.config import ModelConfig, TrainConfig
from gpt_pretrain.data.corpus import Corpus, check_same, check_windows, load_corpus, tokenizer_for
from gpt_pretrain.errors import InputError
from gpt_pretrain.plan import Plan, make_plan
from gpt_pretrain.runs import find_checkpoints, newest_valid
from gpt_pretrain.tokenizer import Tokenizer

if TYPE_CHECKING:
    from gpt_pretrain.weights.read import Weights

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True, frozen=True)
class Preparation:
    tokenizer: Tokenizer
    corpus: Corpus
    model: ModelConfig
    plan: Plan
    accelerator: str  # cpu or gpu
    devices: int  # per node
    num_nodes: int
    start_from: "Weights | None"  # the first weights; None: random ones
    resume_from: Path | None  # checkpoint with the whole training state


def prepare(config: TrainConfig, run: Path) -> Preparation:
    """Check the settings against data and machine. Raises InputError or ArtifactError within seconds."""
    resume_from = _resume_from(config, run)
    from gpt_pretrain.pretrained import fitting_model, open_pretrained  # torch takes seconds

    tokenizer = tokenizer_for(config.data, config.tokenizer)
    start_from = open_pretrained(config.weights, config.model)
    model = fitting_model(start_from, config.model, tokenizer.vocab_size)
    corpus = load_corpus(config.data, tokenizer)
    check_windows(corpus, config.data, model.context_length)
    if resume_from is not None:
        check_same(corpus, _trained_on(resume_from), str(resume_from.parent.parent))
    accelerator, devices, num_nodes = _machine(config)
    plan = make_plan(config, model, n_train_tokens=corpus.train_sizes, world_size=devices * num_nodes)
    return Preparation(
        tokenizer=tokenizer,
        corpus=corpus,
        model=model,
        plan=plan,
        accelerator=accelerator,
        devices=devices,
        num_nodes=num_nodes,
        start_from=start_from,
        resume_from=resume_from,
    )


def _resume_from(config: TrainConfig, run: Path) -> Path | None:
    if config.resume is None:
        if find_checkpoints(run):
            raise InputError(
                f"{run} holds a run already: resume={run} goes on with it, or give another hydra.run.dir"
            )
        return None
    checkpoint, passed_over = newest_valid(Path(config.resume))
    for line in passed_over:
        log.warning("passed over: %s", line)
    return checkpoint


def _trained_on(checkpoint: Path) -> dict[str, str]:
    """Fingerprints of the data at the time of `checkpoint`, as the data module stored them."""
    progress = json.loads((checkpoint / "trainer_state.json").read_bytes())
    return progress["GPTDataModule"]["corpus"]


def _machine(config: TrainConfig) -> tuple[str, int, int]:
    """Accelerator, devices of a node and nodes; torchrun's word goes before the settings'."""
    import torch

    trainer = config.trainer
    n_gpus = torch.cuda.device_count()
    if trainer.accelerator == "gpu" and n_gpus == 0:
        raise InputError(
            "trainer.accelerator=gpu: this machine has no GPU that torch can use; set trainer=cpu"
        )
    accelerator = "cpu" if trainer.accelerator == "cpu" or n_gpus == 0 else "gpu"
    if "TORCHELASTIC_RUN_ID" in os.environ:
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        return accelerator, devices, int(os.environ["WORLD_SIZE"]) // devices
    devices = trainer.devices or (n_gpus if accelerator == "gpu" else 1)
    if accelerator == "gpu" and devices > n_gpus:
        raise InputError(f"trainer.devices={devices}: this machine has {n_gpus} GPUs")
    return accelerator, devices, trainer.num_nodes

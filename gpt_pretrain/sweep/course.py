"""The course of a sweep: it finds the next trials, hands them to Hydra's launcher, and reads their
records. All that it knows stands in those, so that it can be killed at any moment and started again.
"""

import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from gpt_pretrain.config.words import word
from gpt_pretrain.sweep.ahead import look_ahead
from gpt_pretrain.sweep.apart import are_by_number, check_apart
from gpt_pretrain.sweep.board import Board
from gpt_pretrain.sweep.check import Sense
from gpt_pretrain.sweep.leaderboard import replace
from gpt_pretrain.sweep.place import find_folder
from gpt_pretrain.sweep.queue import Queue
from gpt_pretrain.sweep.record import Trial
from gpt_pretrain.sweep.search import check_same, in_recorded_order, read_search
from gpt_pretrain.sweep.trial import RECORD
from gpt_pretrain.sweep.version import code_version
from gpt_pretrain.sweep.workers import LOOKS, is_orphan, run_workers
from gpt_pretrain.terminal.watching import watching


class Course:
    def __init__(
        self, context: HydraContext, task: TaskFunction, config: DictConfig, max_batch_size: int | None
    ) -> None:
        self.context, self.task_function, self.config = context, task, config
        self.max_batch_size = max_batch_size

    def run(self, params: Mapping[str, Any], arguments: list[str]) -> None:
        """Sweep to the end. Raises UserFacingError where a trial failed, or where nothing can begin."""
        is_here = self._launcher_name() == "basic"
        sense = Sense(self.context.config_loader, self.config, here=is_here)
        search = read_search(sense, params, arguments, code_version())
        check_apart(sense, search.space)
        record = find_folder(self.config, search)
        search = in_recorded_order(search, record)
        ahead = look_ahead(sense, search)
        ahead.announce(record)
        queue = Queue(record, search, ahead.obstacle)
        record.begin(search.described)
        check_same(record, search.described, record.folder)  # another start may have come first meanwhile
        replace(record.folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        queue.begin()
        board = Board(queue, ahead)
        try:
            if search.config.jobs > 1 and is_here:
                run_workers(
                    self.config.hydra, record.folder, search.config.jobs, lambda: self._look(queue, board)
                )
            elif self._run(queue, board):
                queue.end()
        finally:
            queue.refresh()
            board.write()
        board.conclude()

    def _look(self, queue: Queue, board: Board) -> None:
        queue.refresh()
        board.look()

    @contextmanager
    def _looking(self, queue: Queue, board: Board) -> Iterator[None]:
        """Tell what has ended while the body waits for a launcher of several, which waits for them all."""
        if self._launcher_name() == "basic":
            yield
            return
        is_over = threading.Event()

        def look() -> None:
            while not is_over.wait(LOOKS):
                with watching("the sweep's table"):
                    self._look(queue, board)

        looker = threading.Thread(target=look, daemon=True)
        looker.start()
        try:
            yield
        finally:
            is_over.set()
            looker.join()

    def _launcher_name(self) -> str:
        return str(self.config.hydra.runtime.choices.get("hydra/launcher"))

    def _run(self, queue: Queue, board: Board) -> bool:
        """Launch trials until none is left to take. False where this process ends before that."""
        logging.getLogger("hydra._internal.core_plugins.basic_launcher").setLevel(logging.WARNING)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=self.task_function, config=self.config
        )
        while not is_orphan():
            # Asked before: what others measure until then may let a paused trial go on.
            waits = queue.config.prune == "halving" and bool(queue.others())
            trials = queue.next(self._at_most(queue))
            board.look()
            if trials:
                with self._looking(queue, board):
                    self._launch(launcher, queue, trials)
                self._look(queue, board)
            elif waits:
                time.sleep(1)
            else:
                return not queue.has_given_up()
        return False

    def _at_most(self, queue: Queue) -> int:
        """How many trials are launched at a time: a launcher of several gets all that wait for no other."""
        if self._launcher_name() == "basic":
            return 1
        if self._takes_all_down() and queue.has_died():  # alone, so that it does not end others again
            return 1
        depends = queue.config.strategy in ("tpe", "cmaes") or queue.config.prune != "none"
        depends |= queue.config.most_failures is not None
        return self.max_batch_size or (queue.config.jobs if depends else max(1, queue.total))

    def _launch(self, launcher: Launcher, queue: Queue, trials: Sequence[Trial]) -> None:
        """Launch trials that this process has taken, and read what became of them."""
        errors: dict[int, BaseException] = {}
        try:
            for batch in self._batches(trials):
                words = [self._words(queue, trial) for trial in batch]
                returns: Sequence[JobReturn] = launcher.launch(words, initial_job_idx=batch[0].number)
                for trial, returned in zip(batch, returns, strict=True):
                    if returned.status == JobStatus.FAILED:
                        errors[trial.number] = returned._return_value
        except Exception as error:  # of the launcher's own: a job that was killed, a queue that is gone
            errors = {trial.number: error for trial in trials}
            queue.settle(trials, errors, again=self._takes_all_down() and queue.has_begun(trials))
        except BaseException:  # a signal is for the whole sweep
            queue.settle(trials, {}, again=True)
            raise
        else:
            queue.settle(trials, errors, again=False)

    def _takes_all_down(self) -> bool:
        """Whether a process that dies ends those of all other trials, and nothing of them goes on."""
        return self._launcher_name() == "joblib"

    def _words(self, queue: Queue, trial: Trial) -> list[str]:
        """A trial's command line, and where its folder and its record are."""
        record = queue.record
        own = [f"{key}={text}" for key, text in trial.point.items()]
        words = [*queue.space.fixed, *own, word("hydra.sweep.dir", str(record.folder))]
        if are_by_number(self.config):
            words.append(word("hydra.sweep.subdir", str(trial.number)))
        return [*words, "+" + word(f"hydra.job.env_set.{RECORD}", str(record.file(trial.number).file))]

    def _batches(self, trials: Sequence[Trial]) -> list[Sequence[Trial]]:
        """Together, unless folders are named by the launcher's own count, which has no gaps."""
        if are_by_number(self.config):
            return [trials]
        return [[trial] for trial in trials]

"""TensorBoard's event files: what stands on which chart, as text, as picture, and in the HParams table.

The files lie in the run's folder itself, so that a run has its folder's name there. What is measured on
another split lies in a folder below it: curves of one tag in two runs share a chart, and that is how training
and validation loss come to stand on one. Groups of charts are numbered, for TensorBoard sorts them by name.
"""

import math
import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
from tensorboard.plugins.hparams import api_pb2, metadata
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData, SessionEndInfo, SessionStartInfo
from tensorboard.summary.writer.event_file_writer import EventFileWriter
from torch.utils.tensorboard import SummaryWriter

from gpt_pretrain.terminal.text import printable

VAL, WITHOUT_DROPOUT = "val", "train_without_dropout"  # the folders of other splits
# What has a curve over steps, tokens and seconds: its split's folder, its group.
CURVES = {
    "train/loss": ("", "1 loss"),
    "val/loss": (VAL, "1 loss"),
    "train/eval_loss": (WITHOUT_DROPOUT, "1 loss"),
    "train/perplexity": ("", "2 perplexity"),
    "val/perplexity": (VAL, "2 perplexity"),
    "val/bits_per_byte": (VAL, "3 bits per byte"),
}
AXES = {"over steps": "step", "over time (s)": "seconds", "over tokens": "tokens_seen"}
# What has one curve, over steps. Behind a slash stands whose it is: a group's, a layer's, a part's.
CHARTS = {
    "lr": "4 learning rate",
    "grad_norm": "5 gradient norm",
    "weight_norm": "6 weight norm",
    "update_ratio": "7 update to weight ratio",
    "tokens_per_sec": "8 speed/tokens per second",
    "mfu": "8 speed/model FLOPs utilization",
    "ms": "8 speed/milliseconds of a step",
    "memory_mb": "8 speed/memory in MB",
}
PICTURES = "9 pictures"
# Python sorts "(" before digits, and so the HParams table begins with these; the page of charts, which sorts
# digits first, ends with them.
FINAL = "(final)"
SESSION = ".hparams"  # the ending of the file that holds the run's row of the HParams table
EVENTS = "events.out.tfevents."  # how a file's name begins; ten digits follow, the second that it began in
FLUSH_SECONDS = 10  # a run is watched while it goes on


class EventFiles(Logger):
    """Writes one event a row and axis. A resumed run passes the first step that is due: from it on all is
    written anew, and dropped by who reads the files.
    """

    def __init__(self, run: Path, due: int = 0, pictures: bool = True) -> None:
        super().__init__()
        self.pictures = pictures
        self.run, self.due, self.first_step = run, due, max(0, due - 1)
        self.writers: dict[str, Any] = {}
        self._purged: set[str] = set()

    @property
    def name(self) -> str:
        return "tensorboard"

    @property
    def version(self) -> str:
        return ""

    @property
    def save_dir(self) -> str:
        return str(self.run)

    @property
    def experiment(self) -> Any:
        """The SummaryWriter of the run, for callbacks of one's own."""
        return self.writer("")

    def writer(self, split: str) -> Any:
        if split not in self.writers:
            purge_step = None if split in self._purged else self.purge_step  # closed, it may be opened again
            folder = self.run / split
            earlier = list(folder.glob(f"{EVENTS}*"))
            writer = SummaryWriter(str(folder), purge_step=purge_step, flush_secs=FLUSH_SECONDS)
            _name_after(earlier, writer.file_writer.event_writer)  # type: ignore[attr-defined]
            self.writers[split] = writer
            self._purged.add(split)
        return self.writers[split]

    @property
    def purge_step(self) -> int:
        """0 for a run that begins: also what an earlier one left in its folder goes then."""
        return self.due

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        for split, at, values in events({**metrics, "step": float(step or 0)}):
            self._write(split, values, at)
        if "val/loss" in metrics:
            self.save()

    @rank_zero_only
    def restore(self, rows: list[dict[str, float]]) -> None:
        """Write the curves that resuming drops though they are older than the checkpoint: those over tokens
        and seconds, which count in other numbers than steps.
        """
        for row in rows:
            for split, at, values in events(row):
                if row["step"] < self.purge_step <= at:
                    self._write(split, values, at)

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """See `begin`: Lightning asks for it before anything is known."""

    @rank_zero_only
    def begin(self, settings: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """The run's row of the HParams table, without an end, and `texts` by their names."""
        self._session(settings, None, {}, 0)
        self.writer(VAL)  # what will fail fails now
        for name, text in texts.items():
            self.log_text(name, text, self.first_step)
        self.save()

    @rank_zero_only
    def end(
        self, settings: Mapping[str, Any], finals: Mapping[str, float | None], *, step: int, finished: bool
    ) -> None:
        """The same row with the run's final numbers and how it ended."""
        status = api_pb2.STATUS_SUCCESS if finished else api_pb2.STATUS_FAILURE
        self._session(settings, status, finals, step)

    @rank_zero_only
    def log_text(self, name: str, text: str, step: int) -> None:
        """`text` as it is: indented, Markdown leaves its spaces and line ends alone."""
        block = "\n".join("    " + line for line in printable(text).expandtabs(4).split("\n"))
        self.experiment.add_text(name, block, step)

    @rank_zero_only
    def log_picture(self, name: str, png: bytes, step: int) -> None:
        width, height = (int.from_bytes(png[at : at + 4], "big") for at in (16, 20))  # as PNG has them
        image = Summary.Image(width=width, height=height, colorspace=4, encoded_image_string=png)
        value = Summary.Value(tag=f"{PICTURES}/{name}", image=image)
        self.experiment.file_writer.add_summary(Summary(value=[value]), step)

    @rank_zero_only
    def save(self) -> None:
        for writer in self.writers.values():
            writer.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        while self.writers:
            self.writers.popitem()[1].close()

    def _write(self, split: str, values: Mapping[str, float], step: int) -> None:
        summary = Summary(value=[Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()])
        self.writer(split).file_writer.add_summary(summary, step)

    def _session(
        self,
        settings: Mapping[str, Any],
        status: Any,
        finals: Mapping[str, float | None],
        step: int,
    ) -> None:
        """The row, in a file of its own that takes an earlier one's place: TensorBoard keeps the first that
        it reads, and a resumed run has other settings and another end.
        """
        earlier = list(self.run.glob(f"{EVENTS}*"))
        writer = EventFileWriter(str(self.run), filename_suffix=SESSION)
        _name_after(earlier, writer)  # else the run's own file, which begins with a purge, may come after it
        values = [_row_begins(settings)]
        if status is not None:
            measured = {f"{FINAL}/{key}": value for key, value in finals.items() if value is not None}
            values += [Summary.Value(tag=tag, simple_value=value) for tag, value in measured.items()]
            values += [_row_ends(status)]
        writer.add_event(Event(wall_time=time.time(), step=step, summary=Summary(value=values)))
        writer.close()
        for file in earlier:
            if file.name.endswith(SESSION):
                file.unlink()


def _name_after(earlier: list[Path], writer: EventFileWriter) -> None:
    """Readers take files by their names: of one that begins where `earlier` ones end, it comes after theirs,
    though the clock, another machine's perhaps, has gone back.
    """
    own = Path(writer._file_name)
    seconds = [int(found[1]) for file in [own, *earlier] if (found := _SECOND.match(file.name))]
    if (newest := max(seconds[1:], default=0)) < seconds[0]:
        return
    writer.flush()
    renamed = own.with_name(f"{EVENTS}{newest + 1:010d}{own.name[len(EVENTS) + 10 :]}")
    own.rename(renamed)
    writer._file_name = str(renamed)
    writer._general_file_writer.filename = os.fsencode(renamed)  # by which it opens it, each time


_SECOND = re.compile(re.escape(EVENTS) + "([0-9]{10})[.]")


def events(row: Mapping[str, float]) -> Iterator[tuple[str, int, dict[str, float]]]:
    """The events that a row of metrics comes to: a split's folder, a step of its axis, and values by tag."""
    for axis, key in AXES.items():
        if key not in row:
            continue
        splits: dict[str, dict[str, float]] = {}
        for name, (split, group) in CURVES.items():
            if name in row:
                splits.setdefault(split, {})[f"{group}/{axis}"] = row[name]
        if axis == "over steps":
            charts = {tag: value for name, value in row.items() if (tag := _chart(name))}
            splits[""] = splits.get("", {}) | charts
        for split, values in splits.items():
            if values:
                yield split, math.floor(row[key]), values


def _chart(key: str) -> str | None:
    name, _, of = key.partition("/")
    if name not in CHARTS:
        return None
    tag = CHARTS[name]
    return f"{tag}/{of}" if of else tag if "/" in tag else f"{tag}/all"


def _row_begins(settings: Mapping[str, Any]) -> Any:
    info = SessionStartInfo(start_time_secs=time.time())
    for key, value in settings.items():
        if isinstance(value, bool):  # which is a number, too
            info.hparams[key].bool_value = value
        elif isinstance(value, int | float):
            info.hparams[key].number_value = value
        else:
            info.hparams[key].string_value = printable(str(value))
    return _of_hparams(metadata.SESSION_START_INFO_TAG, HParamsPluginData(session_start_info=info))


def _row_ends(status: Any) -> Any:
    info = SessionEndInfo(status=status, end_time_secs=time.time())
    return _of_hparams(metadata.SESSION_END_INFO_TAG, HParamsPluginData(session_end_info=info))


def _of_hparams(tag: str, content: HParamsPluginData) -> Any:
    content.version = metadata.PLUGIN_DATA_VERSION
    plugin = SummaryMetadata.PluginData(plugin_name=metadata.PLUGIN_NAME, content=content.SerializeToString())
    # Its tensor stays empty, but TensorBoard passes over a value without one.
    return Summary.Value(tag=tag, metadata=SummaryMetadata(plugin_data=plugin), tensor=metadata.NULL_TENSOR)

"""Record a run with TensorBoard or Weights & Biases; `course_utils.training.tracked` reads it back.

Both callbacks are used with the same three lines::

    tracker = TensorBoard("runs/lr=0.1", config={"lr": 0.1})
    history = fit(model, train, val=val, loss_fn=loss_fn, optimizer=sgd, max_epochs=10, callbacks=[tracker])
    recorded = read_tensorboard(tracker.folder)
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from course_utils._validation import check_one_of
from course_utils.training.callbacks import Callback, TrainState
from course_utils.training.history import History
from course_utils.training.tracked import EVENT_FILES, WANDB_FILES, check_installed, read_tensorboard

__all__ = ["TensorBoard", "WeightsAndBiases"]


class _Tracker(Callback):
    """What the two callbacks have in common: which folder, which epochs, and how it ended.

    Attributes:
        folder: of the latest run; before the first one, the folder given.
    """

    _package: str
    _files: str

    def __init__(self, folder: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None) -> None:
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(f"config must be a dict of settings, got {config!r}")
        self.config = _plain(config or {}, "config")
        check_installed(type(self).__name__, self._package)
        self._given = Path(folder)
        self.folder = self._given
        self._number = 0  # of the run, for a resumed one to find its folder; 0 until it has one
        self._is_open = False
        self._n_written = 0

    def on_train_begin(self, state: TrainState) -> None:
        """Start a run in a folder that holds none, or go on with the one that is resumed."""
        resumed = state.epoch > 0 and self._number > 0
        if not resumed:
            self._number = 1
            while any(self._folder().glob(self._files)):
                self._number += 1
        self.folder = self._folder()
        self.folder.mkdir(parents=True, exist_ok=True)
        _wait_for_a_new_second(self.folder.glob(self._files))
        self._n_written = self._open(state, resumed)
        self._is_open = True

    def on_epoch_end(self, state: TrainState) -> None:
        """Write the epoch's metrics under their names in the history."""
        self._write_new_epochs(state.history)

    def on_train_end(self, state: TrainState) -> None:
        """Write why the run ended, and close the files."""
        self._number = 0  # the next `fit` is another run, unless it resumes this one
        if not self._is_open:
            return
        self._is_open = False
        stopped_by = state.history.stopped_by or "error"  # `fit` gives every other ending a reason
        try:
            self._write_new_epochs(state.history)  # an interrupt can fall between the record and this callback
        finally:
            self._close(stopped_by, epoch=len(state.history))

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on in the same place."""
        return {"number": self._number}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        self._number = state["number"]

    def _folder(self) -> Path:
        return self._given if self._number == 1 else Path(f"{self._given}-{self._number}")

    def _write_new_epochs(self, history: History) -> None:
        while self._n_written < len(history):
            self._write({name: history[name][self._n_written] for name in history}, self._n_written + 1)
            self._n_written += 1

    def _open(self, state: TrainState, resumed: bool) -> int:
        """Start writing in ``self.folder``, and return how many epochs need not be written any more."""
        raise NotImplementedError

    def _write(self, metrics: Mapping[str, float], epoch: int) -> None:
        raise NotImplementedError

    def _close(self, stopped_by: str, *, epoch: int) -> None:
        raise NotImplementedError


class TensorBoard(_Tracker):
    """Write the run as event files, which ``tensorboard --logdir runs`` shows while it goes on and after.

    Every metric becomes a scalar under its name in the history, with the epoch as its step. The settings stand on the
    page *Text*, and on the page *HParams* beside the scalars. A folder holds one run: if there is one already, the
    next goes to ``<folder>-2``, and nothing is overwritten. A resumed run goes on in its folder; what the interrupted
    one wrote after the checkpoint is hidden.

    Args:
        folder: of the run; TensorBoard takes its name for the run's, and shows all runs below one folder together.
        config: settings to record; numbers, texts, truth values, None, and lists and dicts of them.

    Attributes:
        folder: of the latest run; before the first one, the folder given.
        writer: torch's ``SummaryWriter`` while a run goes on, for whatever else is to be recorded; otherwise None.

    Raises:
        ImportError: TensorBoard is not installed.
        TypeError: a setting is nothing that a file could hold.
    """

    _package = "tensorboard"
    _files = EVENT_FILES

    def __init__(self, folder: str | os.PathLike[str], *, config: Mapping[str, Any] | None = None) -> None:
        super().__init__(folder, config=config)
        self.writer: Any = None

    def _open(self, state: TrainState, resumed: bool) -> int:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        n_written = 0
        if resumed and any(self.folder.glob(self._files)):
            n_written = min(len(read_tensorboard(self.folder)), state.epoch)
        self.writer = SummaryWriter(self.folder, purge_step=state.epoch + 1 if resumed else None)
        # The indent makes it a block of code on the page, and JSON does not mind it.
        self.writer.add_text("config", "    " + json.dumps(self.config, indent=4).replace("\n", "\n    "), 0)
        # `add_hparams` would make a second run of it. A bool would become 0 or 1.
        plain_numbers = {key: value for key, value in self.config.items() if type(value) in (int, float)}
        _, session_start, _ = hparams({key: str(value) for key, value in self.config.items()} | plain_numbers, {})
        self.writer.file_writer.add_summary(session_start)
        return n_written

    def _write(self, metrics: Mapping[str, float], epoch: int) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, epoch)
        self.writer.flush()  # a thread writes; whoever watches, or looks after a crash, shall find the epoch

    def _close(self, stopped_by: str, *, epoch: int) -> None:
        self.writer.add_text("stopped_by", stopped_by, epoch)
        self.writer.close()
        self.writer = None


class WeightsAndBiases(_Tracker):
    """Write the run with Weights & Biases; without an account, and nothing leaves the machine.

    Every metric is logged under its name in the history, with the epoch as its step; the settings are the run's
    ``config``. By default the files stay below ``folder`` and ``wandb sync <folder>/wandb/offline-run-*`` uploads them
    later. A folder holds one run: if there is one already, the next goes to ``<folder>-2``. A resumed run keeps its
    identifier; offline, it writes a second file with all epochs, which replaces the first.

    Differs from wandb's defaults: no output is captured and none printed, the machine is not monitored, nothing is
    reported to the makers, and a run of yours that is under way stays what it is.

    Args:
        folder: of the run; its last part is the run's name.
        config: settings to record; numbers, texts, truth values, None, and lists and dicts of them.
        project: under which the server lists the run.
        mode: ``"offline"``, or ``"online"`` to log in and upload at once, as wandb is set up on the machine.

    Attributes:
        folder: of the latest run; before the first one, the folder given.
        run: wandb's run while it goes on, for whatever else is to be recorded; otherwise None.

    Raises:
        ImportError: wandb is not installed.
        TypeError: a setting is nothing that a file could hold.
        ValueError: there is no such mode.
    """

    _package = "wandb"
    _files = WANDB_FILES

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        config: Mapping[str, Any] | None = None,
        project: str = "mlp-course",
        mode: str = "offline",
    ) -> None:
        super().__init__(folder, config=config)
        self.project = project
        self.mode = check_one_of(mode, "mode", ("offline", "online"))
        self.run: Any = None
        self._run_id: str | None = None

    def _open(self, state: TrainState, resumed: bool) -> int:
        online = self.mode == "online"
        with nullcontext() if online else _offline_session(self.folder.resolve()):
            import wandb

            self.run = wandb.init(
                project=self.project,
                name=self.folder.name,
                id=self._run_id if resumed else None,
                resume="allow" if resumed and online else None,
                mode=self.mode,
                dir=str(self.folder.resolve()),
                config=self.config,
                settings=wandb.Settings(
                    silent=True, console="off", x_disable_stats=True, symlink=False, reinit="create_new"
                ),
            )
        self._run_id = self.run.id
        return max(int(self.run.starting_step) - 1, 0)  # what the server has already; offline nothing

    def _write(self, metrics: Mapping[str, float], epoch: int) -> None:
        self.run.log(dict(metrics), step=epoch)

    def _close(self, stopped_by: str, *, epoch: int) -> None:
        run, self.run = self.run, None
        failed = stopped_by == "error" or stopped_by.startswith("non-finite")
        try:
            run.summary["stopped_by"] = stopped_by
            # 255 is what wandb itself gives a run that the stop button ended.
            run.finish(exit_code=255 if stopped_by == "interrupted" else int(failed))
        finally:
            _end_offline_session(self.folder.resolve())

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs to go on in the same place."""
        return {**super().state_dict(), "run_id": self._run_id}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        super().load_state_dict(state)
        self._run_id = state["run_id"]


# wandb has one background process for all runs of a Python process, and that one keeps files of its own. These are the
# folders of the offline runs for which we started it.
_offline_folders: list[Path] = []


@contextmanager
def _offline_session(folder: Path) -> Iterator[None]:
    """Inside, wandb starts with its own files below the folder, and without reports to its makers."""
    own_files = str((_offline_folders[0] if _offline_folders else folder) / "wandb" / "own")
    ours = dict.fromkeys(("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), own_files)
    ours |= {"WANDB_ERROR_REPORTING": "false", "WANDB_SILENT": "true"}
    before = {name: os.environ.get(name) for name in ours}
    os.environ |= ours
    try:
        import wandb  # with our settings, for the versions that report already while they are imported

        yours = wandb.run is not None  # then its process is running, and stays
        if not yours and not _offline_folders:
            wandb.teardown()  # one that idles since an earlier run of yours would not see our settings
        yield
        if not yours:
            _offline_folders.append(folder)
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_offline_session(folder: Path) -> None:
    if folder in _offline_folders:
        import wandb

        _offline_folders.remove(folder)
        if not _offline_folders:
            wandb.teardown()


def _wait_for_a_new_second(files: Iterable[Path]) -> None:
    """Both tools name a run's files by the second, and read them in that order; a resumed run must come later."""
    newest = max((path.stat().st_mtime for path in files), default=0.0)
    if int(newest) >= int(time.time()):
        time.sleep(1 - time.time() % 1)


def _plain(value: Any, name: str) -> Any:
    """Return a copy of the settings that JSON can hold, or raise a ``TypeError`` that names the culprit."""
    if isinstance(value, Mapping):
        return {_text(key, name): _plain(entry, f"{name}[{key!r}]") for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry, f"{name}[{index}]") for index, entry in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:  # of NumPy or torch
        value = value.item()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name} must be a number, a text, a truth value, None, or a list or dict of these, got {value!r}")


def _text(key: object, name: str) -> str:
    if not isinstance(key, str):
        raise TypeError(f"the keys of {name} must be texts, got {key!r}")
    return key

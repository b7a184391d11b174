"""TensorBoard and Weights & Biases themselves: what they record equals the history, and nothing is left over."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import math
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from course_utils.training import (
    Callback,
    History,
    ModelCheckpoint,
    NonFiniteLossError,
    TensorBoard,
    TrackedRun,
    TrainState,
    WeightsAndBiases,
    fit,
    read_tensorboard,
    read_wandb,
    tracked,
    tracking,
)

torch.set_num_threads(1)

Tracker: TypeAlias = TensorBoard | WeightsAndBiases
TOOLS = [(TensorBoard, read_tensorboard, 6e-8), (WeightsAndBiases, read_wandb, 0.0)]
both_tools = pytest.mark.parametrize(("tool", "read", "tolerance"), TOOLS, ids=["TensorBoard", "WeightsAndBiases"])
Tool: TypeAlias = "type[TensorBoard] | type[WeightsAndBiases]"
Reader: TypeAlias = Callable[[Path], TrackedRun]


@pytest.fixture(autouse=True)
def _environment_is_left_alone() -> Iterator[None]:
    before = environment()
    yield
    assert environment() == before


def environment() -> dict[str, str]:
    """Without what pytest and torch write there."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TORCH"))}


def fit_line(*callbacks: Any, **arguments: Any) -> History:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(24, 3, generator=generator)
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(0.1)
        model.bias.fill_(0.0)
    defaults: dict[str, Any] = {"loss_fn": nn.functional.cross_entropy, "max_epochs": 3, "batch_size": 8, "seed": 0}
    data = inputs, (inputs.sum(dim=1) > 0).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9)
    return fit(model, data, val=data, optimizer=optimizer, callbacks=callbacks, **(defaults | arguments))


def assert_same_curves(run: TrackedRun, history: History, tolerance: float) -> None:
    assert run.epochs == history.epochs
    assert set(run.curves) == set(history.keys())
    for name in history:
        np.testing.assert_allclose(run[name], history[name], rtol=tolerance, atol=0, err_msg=name)


class At(Callback):
    """Does something at an epoch's end."""

    def __init__(self, epoch: int, action: Callable[[], object]) -> None:
        self.epoch = epoch
        self.action = action

    def on_epoch_end(self, state: TrainState) -> None:
        if state.epoch == self.epoch:
            self.action()


def press_stop() -> None:
    raise KeyboardInterrupt


# --- behaviour: what is in the files equals what `fit` returned -------------------------------------------------------


@both_tools
def test_curves_settings_and_extras_come_back(tool: Tool, read: Reader, tolerance: float, tmp_path: Path) -> None:
    config = {
        "lr": np.float64(0.3),
        "width": torch.tensor(32),
        "flag": True,
        "none": None,
        "betas": (0.9, 0.999),
        "data": {"name": "ünits", "path": Path("data/x")},
        "notes": "long " * 20_000,  # crosses blocks in the file
    }
    tracker = tool(tmp_path / "runs" / "first", config=config)
    config["lr"] = 7.0  # too late

    def log_extra(state: TrainState) -> None:
        if state.epoch > 1 and isinstance(tracker, TensorBoard):
            tracker.writer.add_scalar("extra", 2.0 * state.epoch, state.epoch)
        elif state.epoch > 1 and isinstance(tracker, WeightsAndBiases):
            tracker.run.log({"extra": 2.0 * state.epoch}, step=state.epoch)

    history = fit_line(tracker, log_extra, penalty=lambda model: 1e-3 * model.weight.square().sum(), eval_train=True)
    run = read(tracker.folder)
    extra = run.curves.pop("extra")
    assert math.isnan(extra[0])
    assert extra[1:] == [4.0, 6.0]
    assert_same_curves(run, history, tolerance)
    assert run.config == {
        "lr": 0.3,
        "width": 32,
        "flag": True,
        "none": None,
        "betas": [0.9, 0.999],
        "data": {"name": "ünits", "path": "data/x"},
        "notes": "long " * 20_000,
    }
    assert type(run.config["width"]) is int
    assert type(run.config["flag"]) is bool
    assert run.stopped_by == "max_epochs"
    assert tracker.folder == tmp_path / "runs" / "first"
    assert vars(tracker).get("writer") is None
    assert vars(tracker).get("run") is None
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["first"]


@both_tools
def test_every_ending_is_recorded_each_run_in_a_folder_of_its_own(
    tool: Tool, read: Reader, tolerance: float, tmp_path: Path
) -> None:
    tracker = tool(tmp_path / "run", config={"lr": 0.3})

    def loss_that_breaks(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        calls.append(1)
        return loss * math.nan if len(calls) > 5 else loss  # in the second epoch: 3 steps and a validation each

    # The stop button falls between the history and the tracker, which comes second.
    history = fit_line(At(2, press_stop), tracker)
    assert_same_curves(read(tracker.folder), history, tolerance)
    assert (tracker.folder.name, len(history), read(tracker.folder).stopped_by) == ("run", 2, "interrupted")

    with pytest.raises(ZeroDivisionError):
        fit_line(tracker, At(1, lambda: 1 // 0))
    assert (tracker.folder.name, read(tracker.folder).epochs) == ("run-2", [1])
    assert read(tracker.folder).stopped_by == "error"

    calls: list[int] = []
    with pytest.raises(NonFiniteLossError) as caught:
        fit_line(tracker, loss_fn=loss_that_breaks)
    assert tracker.folder.name == "run-3"
    assert_same_curves(read(tracker.folder), caught.value.history, tolerance)
    assert read(tracker.folder).epochs == [1]
    assert str(read(tracker.folder).stopped_by).startswith("non-finite loss at epoch 2")

    fit_line(tracker, lambda state: state.stop("enough"))
    assert (tracker.folder.name, read(tracker.folder).stopped_by) == ("run-4", "enough")
    assert read(tmp_path / "run").epochs == [1, 2], "the first run is still there"
    if tool is WeightsAndBiases:
        assert [exit_code(tmp_path / name) for name in ("run", "run-2", "run-3", "run-4")] == [255, 1, 1, 0]


def exit_code(folder: Path) -> int:
    (path,) = folder.glob(tracked.WANDB_FILES)
    (code,) = [r.exit.exit_code for r in tracked._wandb_records(path.read_bytes()) if r.HasField("exit")]
    return int(code)


@both_tools
def test_nan_and_infinity_are_recorded(tool: Tool, read: Reader, tolerance: float, tmp_path: Path) -> None:
    bad = iter((math.nan, math.inf, -math.inf))

    def loss_fn(outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        return loss if outputs.requires_grad else loss * 0 + next(bad)

    tracker = tool(tmp_path)
    history = fit_line(tracker, loss_fn=loss_fn)
    assert_same_curves(read(tmp_path), history, tolerance)
    assert read(tmp_path).config == {}
    assert str(read(tmp_path)["val_loss"]) == "[nan, inf, -inf]"


@both_tools
def test_a_resumed_run_goes_on_where_it_was(tool: Tool, read: Reader, tolerance: float, tmp_path: Path) -> None:
    checkpoint, kept = tmp_path / "checkpoint.pt", tmp_path / "epoch 2.pt"
    tracker = tool(tmp_path / "run", config={"lr": 0.3})
    # Epochs 3 and 4 are recorded, and then lost with the checkpoint of epoch 2; the resumed run ends at epoch 3.
    fit_line(
        tracker,
        ModelCheckpoint(checkpoint),
        At(3, lambda: shutil.copy(checkpoint, kept)),  # still that of epoch 2: checkpoints come last
        At(4, press_stop),
        max_epochs=6,
    )
    assert read(tmp_path / "run").epochs == [1, 2, 3, 4]

    again = tool(tmp_path / "run", config={"lr": 0.3, "resumed": True})
    copies = [At(3, lambda: None), At(4, lambda: None)]
    history = fit_line(again, ModelCheckpoint(checkpoint), *copies, max_epochs=3, resume_from=kept)
    assert again.folder == tmp_path / "run"
    assert_same_curves(read(again.folder), history, tolerance)
    assert read(again.folder).stopped_by == "max_epochs"
    assert read(again.folder).config == {"lr": 0.3, "resumed": True}
    assert history == fit_line(), "resuming is exact, or the test shows nothing"
    if tool is TensorBoard:
        assert steps_of(again.folder) == [1, 2, 3], "none twice"
    if tool is WeightsAndBiases:
        names = sorted(path.stem for path in again.folder.glob(tracked.WANDB_FILES))
        assert len(names) == 2
        assert names[0] == names[1], "the same identifier"

    elsewhere = tool(tmp_path / "elsewhere")
    history = fit_line(elsewhere, ModelCheckpoint(checkpoint), *copies, max_epochs=5, resume_from=kept)
    assert_same_curves(read(tmp_path / "elsewhere"), history, tolerance)


def steps_of(folder: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return [event.step for event in EventAccumulator(str(folder)).Reload().Scalars("loss")]


def test_a_tracker_that_the_checkpoint_does_not_know_starts_a_run_with_all_epochs(tmp_path: Path) -> None:
    fit_line(ModelCheckpoint(tmp_path / "c.pt"), max_epochs=2)
    tracker = TensorBoard(tmp_path / "run")
    fit_line(tracker)
    history = fit_line(tracker, ModelCheckpoint(tmp_path / "c.pt"), max_epochs=4, resume_from=tmp_path / "c.pt")
    assert tracker.folder == tmp_path / "run-2"
    assert_same_curves(read_tensorboard(tracker.folder), history, 6e-8)


def test_the_second_run_of_a_resumed_one_is_resumed_in_its_own_folder(tmp_path: Path) -> None:
    fit_line(TensorBoard(tmp_path / "run"))
    fit_line(TensorBoard(tmp_path / "run"), ModelCheckpoint(tmp_path / "c.pt"))
    tracker = TensorBoard(tmp_path / "run")
    fit_line(tracker, ModelCheckpoint(tmp_path / "c.pt"), max_epochs=4, resume_from=tmp_path / "c.pt")
    assert tracker.folder == tmp_path / "run-2"
    fit_line(tracker)
    assert tracker.folder == tmp_path / "run-3", "without resume_from it is another run"


@pytest.mark.parametrize(("seconds_later", "waits"), [(0, [0.75]), (1, []), (-100, [0.75])])
def test_a_resumed_run_waits_for_a_new_second_because_files_are_named_by_it(
    seconds_later: int, waits: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit_line(TensorBoard(tmp_path / "run"), ModelCheckpoint(tmp_path / "c.pt"))
    (path,) = (tmp_path / "run").iterdir()
    os.utime(path, (1000.5, 1000.5))
    slept: list[float] = []
    clock = SimpleNamespace(time=lambda: 1000.25 + seconds_later, sleep=slept.append)  # also one that goes wrong
    monkeypatch.setattr(tracking, "time", clock)
    tracker = TensorBoard(tmp_path / "run")
    fit_line(tracker, ModelCheckpoint(tmp_path / "c.pt"), max_epochs=4, resume_from=tmp_path / "c.pt")
    assert slept == waits
    fit_line(TensorBoard(tmp_path / "new"))
    assert slept == waits, "nothing to wait for in a new folder"


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_shows_a_run_while_it_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[int, str | None]] = []

    def look(state: TrainState) -> None:
        run = read_tensorboard(tmp_path)
        seen.append((len(run), run.stopped_by))

    fit_line(TensorBoard(tmp_path), look)
    assert seen == [(1, None), (2, None), (3, None)]


def test_tensorboard_knows_the_hyperparameters_without_a_second_run(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    fit_line(TensorBoard(tmp_path, config={"lr": 0.3, "n": 2, "name": "x", "flag": True, "sizes": [8, 8]}))
    assert len(list(tmp_path.rglob("*"))) == 1
    metadata = EventAccumulator(str(tmp_path)).Reload().SummaryMetadata("_hparams_/session_start_info")
    given = HParamsPluginData.FromString(metadata.plugin_data.content).session_start_info.hparams
    assert given["lr"].number_value == 0.3
    assert given["n"].number_value == 2
    assert [given[name].string_value for name in ("name", "flag", "sizes")] == ["x", "True", "[8, 8]"]


# --- Weights & Biases -------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_wandb_prints_nothing_and_leaves_nothing_elsewhere(tmp_path: Path) -> None:
    code = (
        "from test_tracking import WeightsAndBiases, fit_line\nfit_line(WeightsAndBiases('runs/a', config={'lr': 0.3}))"
    )
    folders = {
        name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")
    }
    for folder in (*folders.values(), tmp_path / "here"):
        folder.mkdir()
    variables = {**os.environ, **{name: str(folder) for name, folder in folders.items()}}
    variables |= {"PYTHONPATH": str(Path(__file__).parent), "PYTHONWARNINGS": "error", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "here", env=variables, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    files = {path.relative_to(tmp_path).parts[:4] for path in tmp_path.rglob("*") if path.is_file()}
    assert {parts[:3] for parts in files} == {("here", "runs", "a")}
    assert {parts[3] for parts in files} == {"wandb"}
    assert not [path for folder in folders.values() for path in folder.rglob("*wandb*")], "nor an empty folder"
    assert len(read_wandb(tmp_path / "here" / "runs" / "a")) == 3
    names = [path.name for path in (tmp_path / "here" / "runs" / "a" / "wandb").iterdir()]
    assert sorted(name[:7] for name in names) == ["offline", "own"]


@pytest.mark.slow
def test_two_wandb_trackers_and_a_run_of_yours_do_not_disturb_each_other(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import wandb

    first, second = WeightsAndBiases(tmp_path / "a"), WeightsAndBiases(tmp_path / "b")
    history = fit_line(first, second)
    assert_same_curves(read_wandb(tmp_path / "a"), history, 0.0)
    assert_same_curves(read_wandb(tmp_path / "b"), history, 0.0)
    assert capfd.readouterr() == ("", "")

    yours = wandb.init(dir=str(tmp_path), mode="offline", settings=wandb.Settings(silent=True, console="off"))
    try:
        history = fit_line(first)
        assert wandb.run is yours
        yours.log({"still": 1.0})
    finally:
        yours.finish()
        wandb.teardown()
    assert_same_curves(read_wandb(tmp_path / "a-2"), history, 0.0)
    assert read_wandb(tmp_path)["still"] == [1.0]
    assert capfd.readouterr() == ("", "")


class StandIn:
    """Takes the place of wandb's functions, and notes what they were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import wandb

        self.inits: list[dict[str, Any]] = []
        self.logged: list[int] = []
        self.calls: list[str] = []
        monkeypatch.setattr(wandb, "init", self.init)
        monkeypatch.setattr(wandb, "teardown", lambda: self.calls.append("teardown"))

    def init(self, **arguments: Any) -> SimpleNamespace:
        self.calls.append("init")
        self.inits.append(arguments | {"environment": environment()})
        return SimpleNamespace(id="abc", starting_step=0, summary={}, log=self.log, finish=self.finish)

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.logged.append(step)

    def finish(self, exit_code: int) -> None:
        self.calls.append("finish")


def test_offline_wandb_keeps_its_own_files_and_reports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = StandIn(monkeypatch)
    fit_line(WeightsAndBiases(tmp_path / "a"), WeightsAndBiases(tmp_path / "b"))
    first, second = (asked["environment"] for asked in wandb.inits)
    assert first == second, "or wandb would complain that its settings changed"
    assert {name: value for name, value in first.items() if name not in environment()} == {
        **dict.fromkeys(
            ("WANDB_CACHE_DIR", "WANDB_CONFIG_DIR", "WANDB_DATA_DIR"), str(tmp_path / "a" / "wandb" / "own")
        ),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }
    # An idle process goes, so that the next one starts with these; both runs share it; after the last it goes too.
    assert wandb.calls == ["teardown", "init", "init", "finish", "finish", "teardown"]


def test_online_leaves_wandb_as_it_is_set_up_and_skips_what_the_server_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = StandIn(monkeypatch)

    def init(**arguments: Any) -> SimpleNamespace:
        run = wandb.init(**arguments)
        run.starting_step = 3 if arguments["resume"] else 0
        return run

    monkeypatch.setattr("wandb.init", init)
    tracker = WeightsAndBiases(tmp_path / "x", project="mine", mode="online")
    fit_line(tracker, ModelCheckpoint(tmp_path / "c.pt"), max_epochs=2)
    fit_line(tracker, ModelCheckpoint(tmp_path / "c.pt"), max_epochs=4, resume_from=tmp_path / "c.pt")
    assert [(a["mode"], a["project"], a["name"], a["id"], a["resume"]) for a in wandb.inits] == [
        ("online", "mine", "x", None, None),
        ("online", "mine", "x", "abc", "allow"),
    ]
    assert wandb.inits[0]["environment"] == environment()
    assert wandb.logged == [1, 2, 3, 4]
    assert "teardown" not in wandb.calls


@pytest.fixture(scope="module")
def wandb_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("wandb")
    fit_line(WeightsAndBiases(folder))
    (path,) = folder.glob(tracked.WANDB_FILES)
    return path.read_bytes()


def test_a_file_that_was_cut_off_is_read_up_to_there(wandb_bytes: bytes) -> None:
    whole = list(tracked._wandb_records(wandb_bytes))
    assert len(whole) > 10
    lengths = []
    for cut in [*range(40), *range(40, len(wandb_bytes), 31), len(wandb_bytes) - 1]:
        records = list(tracked._wandb_records(wandb_bytes[:cut]))
        assert records == whole[: len(records)]
        lengths.append(len(records))
    assert lengths == sorted(lengths)
    assert list(tracked._wandb_records(wandb_bytes + bytes(100))) == whole, "room that was not written yet"


def records_of(sizes: list[int]) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    messages: Any = wandb_internal_pb2
    return [messages.Record(num=number, uuid="x" * size) for number, size in enumerate(sizes, start=1)]


def written(records: list[Any]) -> bytes:
    """The file as the format's definition says it."""
    data = bytearray(b"head of")
    for record in records:
        content, first = record.SerializeToString(), True
        while True:
            room = 32768 - len(data) % 32768
            if room < 7:
                data += bytes(room)
                continue
            part, content = content[: room - 7], content[room - 7 :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not content]
            data += bytes(4) + len(part).to_bytes(2, "little") + bytes([kind]) + part
            first = False
            if not content:
                break
    return bytes(data)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(0, 70_000) | st.integers(32_700, 32_800), max_size=6))
def test_records_of_any_length_are_read(sizes: list[int]) -> None:
    assert list(tracked._wandb_records(written(records_of(sizes)))) == records_of(sizes)


@pytest.mark.parametrize("room", range(10))
def test_records_are_read_where_little_or_no_room_is_left_in_a_block(room: int) -> None:
    (size,) = (size for size in range(32_700, 32_768) if len(written(records_of([size]))) == 32_768 - room)
    records = records_of([size, 10, 40_000])
    assert list(tracked._wandb_records(written(records))) == records


# --- error messages ---------------------------------------------------------------------------------------------------


@both_tools
def test_a_missing_package_is_named_with_its_extra(
    tool: Tool, read: Reader, tolerance: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "tensorboard" if tool is TensorBoard else "wandb"
    message = f"needs the package {package}, which is not installed; run: pip install 'mlp-course-utils[lessons]'"
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=re.escape(f"{tool.__name__} {message}")):
        tool(tmp_path)
    with pytest.raises(ImportError, match=re.escape(f"{read.__name__} {message}")):
        read(tmp_path)
    # What `find_spec` returns for an empty folder of that name beside the script, as wandb itself makes one.
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: importlib.machinery.ModuleSpec(name, None))
    with pytest.raises(ImportError, match="not installed"):
        tool(tmp_path)
    assert not list(tmp_path.iterdir())


@both_tools
def test_a_folder_without_a_run_is_named(tool: Tool, read: Reader, tolerance: float, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"{re.escape(repr(str(tmp_path)))} holds no run of "):
        read(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read(tmp_path / "none")


@both_tools
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"model": nn.Linear}, r"config['model'] must be a number, a text, a truth value, None, or a list or dict"),
        ({"a": {"b": [1, {2}]}}, r"config['a']['b'][1] must be a number"),
        ({"w": torch.zeros(2)}, r"config['w'] must be a number"),
        ({1: 2}, r"the keys of config must be texts, got 1"),
        ({"a": {None: 2}}, r"the keys of config['a'] must be texts, got None"),
        ([1], r"config must be a dict of settings, got [1]"),
    ],
)
def test_settings_that_no_file_can_hold_are_named(
    tool: Tool, read: Reader, tolerance: float, config: Any, message: str, tmp_path: Path
) -> None:
    with pytest.raises(TypeError, match=re.escape(message)):
        tool(tmp_path, config=config)


def test_other_bad_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="mode must be one of 'offline', 'online', got 'disabled'"):
        WeightsAndBiases(tmp_path, mode="disabled")
    run = TrackedRun({}, [1, 2], {"loss": [1.0, 0.5]}, None)
    assert (run["loss"], "loss" in run, "val_loss" in run, len(run)) == ([1.0, 0.5], True, False, 2)
    with pytest.raises(KeyError, match="no metric 'accuracy'; recorded: loss"):
        run["accuracy"]
    with pytest.raises(KeyError, match="recorded: nothing yet"):
        TrackedRun({}, [], {}, None)["loss"]

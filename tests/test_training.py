"""The one way to train: stock when nothing is isolated, resumable bit for bit, whole results or none."""

import copy
import dataclasses
import errno
import os
import types
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import nn

from isotrain.config import MethodsView, Settings, load
from isotrain.data.windows import Windows
from isotrain.errors import InputError
from isotrain.files import read_json
from isotrain.forecast.encoders import Encoder
from isotrain.training import checkpoints
from isotrain.training import fit as training
from isotrain.training.fit import Fit, fit, prepare
from isotrain.training.tracking import Run

PARAMS = Path(__file__).parents[1] / "params.yaml"
SMALL = {
    "model.hidden": 6,
    "model.decoder": 8,
    "training.steps": 30,
    "training.stretches": 2,
    "training.stretch": 100,
    "training.origins": 4,
    "training.windows": 4,
    "training.validate_every": 10,
    "training.accelerator": "cpu",
    "isolation.every": 5,
    "window.history": 48,
    "runtime.threads": 1,
}
METHODS = tuple(load(PARAMS).methods)


def small(method: str, **changes: object) -> Settings:
    own = {path: value for path, value in SMALL.items() if path.startswith(("model.", "training.", "runtime."))}
    view = load(PARAMS, view=MethodsView, overrides=SMALL)
    isolates = view.settings(method).isolation is not None
    own |= {"isolation.every": 5} if isolates else {}
    return view.settings(method, own | {key.replace("__", "."): value for key, value in changes.items()})


def lower_layers(encoder: str, stop: float = 1.0) -> dict[str, object]:
    """What changes in the method ``isolated`` for the lower half of two layers to be isolated at step 10 of 30."""
    schedule = {"shape": "thaw", "fraction": 0.5, "start": 0.3, "stop": stop}
    zone = {"isolation__zone": "layer", "isolation__mode": "exact", "isolation__criterion": "depth"}
    return {"model__encoder": encoder, "model__layers": 2, "isolation__schedule": schedule, **zone}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for all tests: making one takes longer than a small fit."""
    return f"sqlite:///{tmp_path_factory.mktemp('runs')}/mlflow.db"


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, runs: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", runs)
    monkeypatch.setattr(training, "alone", nullcontext)  # nothing is timed here: no waiting for fits that are
    yield
    torch.set_flush_denormal(False)  # a fit's process-wide setting, which other tests would feel


def weights(folder: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(folder / "model.ckpt", weights_only=True)["state_dict"]
    return state


@pytest.mark.parametrize("masked", [None, {"moments": "hold", "correction": "global"}])
@pytest.mark.parametrize("method", ["stock", "stock-windowed"])
def test_isolation_off_is_a_plain_loop_over_nn_lstm_and_adam(
    method: str, masked: dict[str, str] | None, windows: Windows, tmp_path: Path
) -> None:
    module, _ = prepare(Fit(small(method), 3, windows, tmp_path))
    module.masked = masked
    plain = copy.deepcopy(module.net)
    stock = nn.LSTM(plain.encoder.lstm.input_size, 6, plain.encoder.lstm.num_layers, batch_first=True)
    stock.load_state_dict(plain.encoder.lstm.state_dict())
    plain.encoder.lstm, plain.encoder._spans = stock, ()  # type: ignore[assignment]
    plain.encoder.forward = types.MethodType(Encoder.forward, plain.encoder)  # type: ignore[method-assign]

    torch.manual_seed(11)
    _trainer(20).fit(module)

    torch.manual_seed(11)
    matrices = [p for p in plain.parameters() if p.dim() > 1]
    others = [p for p in plain.parameters() if p.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": module.weight_decay}, {"params": others, "weight_decay": 0.0}]
    adam = torch.optim.AdamW(groups, lr=module.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, module.learning_rate, total_steps=20, pct_start=module.rise, cycle_momentum=False, final_div_factor=100
    )
    plain.train()
    for step in range(20):
        at = module.sampler(step)
        truth = plain.series.truth_at(at.origins)
        known = ~truth.isnan()
        loss = (((plain(at) - truth.nan_to_num()) * known).abs() / plain.series.scales[0]).sum() / known.sum()
        adam.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
        adam.step()
        schedule.step()
    for (name, p), q in zip(module.net.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(p, q), name


def _trainer(steps: int) -> pl.Trainer:
    return pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


class Interrupted(Exception):
    pass


def interrupt(at: int, settings: Settings, windows: Windows, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Begin a fit that saves at each validation, and end it at the validation of step ``at``, before it is saved."""
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", -1.0)
    log_metrics = Run.metrics

    def interrupting(self: Run, values: dict[str, float], step: int = 0) -> None:
        log_metrics(self, values, step)
        if step == at:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(Run, "metrics", interrupting)
        with pytest.raises(Interrupted):
            fit(settings, 0, windows, out)


RESUMED: dict[str, tuple[str, dict[str, object]]] = {
    "nothing": ("tuned", {}),
    "random zones, thawed and frozen": ("masked-unit-50", {}),
    "a layer, remembered": ("layer", {}),
    "autonomous units, remembered": ("autonomous-75", {}),
    "a horizon that is measured": ("steps-adaptive", {}),
    "moments reset, a cyclic schedule": (
        "masked-unit-50",
        {"isolation__moments": "reset", "isolation__schedule": {"shape": "cyclic", "fraction": 0.5, "start": 0.0}},
    ),
    "moments of the active, a cubic schedule": (
        "cut-75",
        {"isolation__moments": "mean", "isolation__schedule": {"shape": "cubic", "fraction": 0.75, "start": 0.0}},
    ),
    "moments decaying, a plateau": (
        "masked-unit-50",
        {"isolation__moments": "decay", "isolation__schedule": {"shape": "plateau", "start": 0.0, "patience": 1}},
    ),
    "credit along the cell, thawed at 60 %": ("credit-thawed", {}),
    "credit along the cell, before it is thawed": (
        "credit-thawed",
        {"isolation__schedule": {"shape": "thaw", "fraction": 1.0, "start": 0.0, "stop": 0.9}},
    ),
    "no credit": ("credit-cell", {"isolation__mode": "none"}),
    "two hours before each origin, states renewed between two saves": (
        "credit-cell",
        {"isolation__zone": "step", "isolation__mode": "exact", "isolation__steps": 2, "isolation__renew": 7},
    ),
    **{f"the lower layers of {name}": ("isolated", lower_layers(name)) for name in ("gru", "tcn", "attention")},
    "the lower layers of gru, thawed": ("isolated", lower_layers("gru", stop=0.5)),
}


@pytest.mark.parametrize("what", RESUMED)
def test_interrupted_and_called_again_it_is_the_same_fit(
    what: str, windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The headline: in the middle of an epoch, bit for bit, whatever is isolated, scheduled and remembered."""
    method, changes = RESUMED[what]
    settings = small(method, **changes)
    whole = fit(settings, 0, windows, tmp_path / "whole")
    interrupt(20, settings, windows, tmp_path / "again", monkeypatch)
    assert not (tmp_path / "again" / "result.json").exists()
    assert len(list((tmp_path / "again").glob("resume-*.ckpt"))) == 1
    (tmp_path / "again" / ".model.ckpt.1.part").touch()  # what a kill in the middle of a write leaves
    resumed = fit(settings, 0, windows, tmp_path / "again")

    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(tmp_path / "again").items())
    assert [row["step"] for row in resumed["history"]] == [10, 20, 30]
    assert [row["val_mae"] for row in resumed["history"]] == [row["val_mae"] for row in whole["history"]]
    assert resumed["isolated_fraction"] == whole["isolated_fraction"]
    assert resumed["selections"][-1]["step"] == whole["selections"][-1]["step"] if whole["selections"] else True
    assert not list((tmp_path / "again").glob("*resume-*")) + list((tmp_path / "again").glob(".*"))


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


DAMAGES = {
    "empty": lambda content: b"",
    "cut": lambda content: content[: len(content) // 3],
    "random": lambda content: np.random.default_rng(0).bytes(len(content)),
    "one bit": flipped,
}


@pytest.mark.parametrize(
    ("damage", "which"), [*((damage, "the last") for damage in DAMAGES), ("cut", "both"), ("one bit", "both")]
)
def test_a_damaged_checkpoint_is_set_aside_and_the_fit_goes_on_from_before_it(
    damage: str,
    which: str,
    windows: Windows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings, out = small("masked-unit-50"), tmp_path / "again"
    fit(settings, 0, windows, tmp_path / "whole")
    interrupt(30, settings, windows, out, monkeypatch)
    saved = sorted(out.glob("*resume-*.ckpt"))  # the one before, then the last
    assert [path.name.split("-")[0] for path in saved] == ["before", "resume"]
    spoiled = saved if which == "both" else saved[1:]
    for path in spoiled:
        path.write_bytes(DAMAGES[damage](path.read_bytes()))
    result = fit(settings, 0, windows, out)
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(out).items())
    assert [row["step"] for row in result["history"]] == [10, 20, 30]
    assert caplog.text.count("it is set aside as unreadable-") == len(spoiled)
    assert ("resuming from" in caplog.text) == (which == "the last")
    assert len(list(out.glob("unreadable-*"))) == len(spoiled)


def test_a_checkpoint_that_does_not_fit_on_the_disk_leaves_the_one_before_it(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, out = small("masked-unit-50"), tmp_path / "again"
    fit(settings, 0, windows, tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "SAVE_EVERY_SECONDS", -1.0)
    calls: list[int] = []
    fsync = os.fsync

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        fit(settings, 0, windows, out)
    assert [path.name.split("-")[0] for path in out.iterdir()] == ["before"]
    fit(settings, 0, windows, out)
    expected = weights(tmp_path / "whole")
    assert all(torch.equal(value, expected[name]) for name, value in weights(out).items())


def test_the_first_save_comes_early_and_the_others_at_most_half_a_minute_apart(tmp_path: Path) -> None:
    """At most half of what was trained is lost, and at most half a minute of it."""
    saves = checkpoints.Resume(tmp_path / "resume-x.ckpt")
    saved = [0.0]
    for tenths in range(2000):
        if saves.is_due(tenths / 10):
            saves._last = tenths / 10
            saved.append(tenths / 10)
    assert saved[1] < 2
    gaps = np.diff(saved)
    assert gaps.max() < 31 and all(gap <= max(1.2, before + 0.2) for gap, before in zip(gaps, saved, strict=False))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_of_params_yaml_trains_and_says_what_it_did(method: str, windows: Windows, tmp_path: Path) -> None:
    settings = small(method)
    result = fit(settings, 0, windows, tmp_path / "run")
    assert read_json(tmp_path / "run" / "result.json") == result
    assert (result["method"], result["seed"], result["steps"]) == (method, 0, 30)
    assert result["regime"] == settings.training.regime
    assert (result["isolated_fraction"] > 0) == (settings.isolation is not None)
    assert sum(result["phase_seconds"].values()) == pytest.approx(result["train_seconds"])
    assert result["data"]["simulated"] is True
    with np.load(tmp_path / "run" / "forecasts.npz") as arrays:
        for prefix, part, error in (("", "test", result["test_mae"]), ("val_", "validation", result["val_mae"])):
            if settings.training.refit and part == "validation":
                assert error is None and "val_prediction" not in arrays
                continue
            difference = np.abs(arrays[f"{prefix}prediction"] - arrays[f"{prefix}truth"])
            assert np.nanmean(difference) == pytest.approx(error, rel=1e-5)
            assert (arrays[f"{prefix}origins"] == windows.origins(part)).all()
            assert (arrays[f"{prefix}time"] == windows.time[windows.origins(part)]).all()


def test_the_same_seed_is_the_same_fit_and_another_is_not(windows: Windows, tmp_path: Path) -> None:
    settings = small("tuned")
    first, again, other = (fit(settings, seed, windows, tmp_path / f"{n}") for n, seed in enumerate((0, 0, 1)))
    assert first["val_mae"] == again["val_mae"] != other["val_mae"]


def test_isolated_units_share_of_time_is_measured(windows: Windows, tmp_path: Path) -> None:
    assert fit(small("masked-unit-50"), 0, windows, tmp_path / "a")["isolated_fraction"] == pytest.approx(0.5)
    half = fit(small("layer"), 0, windows, tmp_path / "b")
    lower, whole = half["selections"][-1]["share"], half["isolated_fraction"]
    assert whole == pytest.approx(lower / 2)  # the lower layer, for the second half


def test_a_fit_that_diverges_says_so_and_stops(windows: Windows, tmp_path: Path) -> None:
    result = fit(small("stock", training__learning_rate=1e30), 0, windows, tmp_path / "run")
    assert result["diverged"] is True
    assert result["val_mae"] is None and result["test_mae"] is None
    assert read_json(tmp_path / "run" / "result.json") == result


def test_what_the_series_cannot_serve_is_refused_before_training(windows: Windows, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"training.stretch of 9000 h.*fit into the training part"):
        fit(small("tuned", training__stretch=9000), 0, windows, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("regime", ["streamed", "windowed"])
def test_a_refit_trains_on_the_validation_part_and_claims_no_error_there(
    regime: str, windows: Windows, tmp_path: Path
) -> None:
    settings = small("tuned", training__refit=True, training__regime=regime)
    draw = prepare(Fit(settings, 0, windows, tmp_path))[0].sampler
    origins = torch.cat([draw(step).origins.flatten() for step in range(1000)])
    first, last = windows.ranges("train", "validation")[0]
    assert first <= origins.min() and last - 24 < origins.max() < last  # the last one itself is drawn seldom
    assert last + windows.meta["horizon"] - 1 <= windows.ranges("test")[0][0]
    result = fit(settings, 0, windows, tmp_path / "run")
    assert (result["best_val_mae"], result["val_mae"], result["history"]) == (None, None, [])
    assert result["test_mae"] > 0 and not result["diverged"]


def test_a_refit_sees_what_it_is_trained_on_and_no_more(windows: Windows, tmp_path: Path) -> None:
    """Another truth in the validation part changes a refit alone; in the test part, no fit."""
    for refit, part, same in ((False, "validation", True), (True, "validation", False), (True, "test", True)):
        start = windows.ranges(part)[0][0]
        stop = {"validation": windows.ranges("test")[0][0], "test": len(windows.truth)}[part]
        truth = windows.truth.copy()
        truth[start:stop] += 10
        settings = small("tuned", training__refit=refit, training__steps=10)
        changed = dataclasses.replace(windows, truth=truth)
        folders = tmp_path / f"{refit}-{part}", tmp_path / f"{refit}-{part}-changed"
        for folder, series in zip(folders, (windows, changed), strict=True):
            fit(settings, 0, series, folder)
        as_it_is, with_others = (weights(folder) for folder in folders)
        assert all(torch.equal(value, with_others[name]) for name, value in as_it_is.items()) == same


@pytest.mark.parametrize("encoder", ["gru", "tcn", "attention"])
@pytest.mark.parametrize("order", ["unit exact", "unit cut", "unit autonomous", "step exact", "credit cell"])
def test_what_an_encoder_cannot_isolate_is_refused_before_training(
    encoder: str, order: str, windows: Windows, tmp_path: Path
) -> None:
    zone, mode = order.split()
    settings = small("isolated", model__encoder=encoder, isolation__zone=zone, isolation__mode=mode)
    with pytest.raises(InputError, match=f"{mode} of zone {zone} needs model.encoder lstm: in {encoder}"):
        fit(settings, 0, windows, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("encoder", "zone"), [("gru", "unit"), ("tcn", "channel"), ("attention", "unit")])
def test_any_encoder_can_be_masked_and_nothing_beside_it_is(
    encoder: str, zone: str, windows: Windows, tmp_path: Path
) -> None:
    settings = small(
        "isolated",
        model__encoder=encoder,
        isolation__zone=zone,
        isolation__mode="masked",
        isolation__criterion="random",
        isolation__schedule={"shape": "constant", "fraction": 0.5, "start": 0.0},
        isolation__thaw=False,
    )
    start = prepare(Fit(settings, 0, windows, tmp_path))[0].state_dict()
    fit(settings, 0, windows, tmp_path / "run")
    for name, value in weights(tmp_path / "run").items():
        if name.startswith(("net.encoder.gru", "net.encoder.blocks")) and value.dim() > 1:
            assert (value == start[name]).flatten(1).all(1).float().mean() == 0.5, name
    assert (weights(tmp_path / "run")["net.decoder.middle.weight"] != start["net.decoder.middle.weight"]).all()


def test_training_lowers_the_error_of_what_it_is_trained_on(windows: Windows, tmp_path: Path) -> None:
    fit(small("tuned", training__steps=120), 0, windows, tmp_path / "run")
    module, _ = prepare(Fit(small("tuned"), 0, windows, tmp_path))
    origins = windows.origins("train")[::7]

    def error() -> float:
        return float(np.nanmean(np.abs(module.forecast(torch.from_numpy(origins)).numpy() - windows.targets(origins))))

    untrained = error()
    module.load_state_dict(weights(tmp_path / "run"))
    assert error() < 0.8 * untrained


@pytest.mark.parametrize("of", [2, 3])
def test_the_shares_of_a_batch_have_its_loss_and_its_gradient_as_their_mean(
    of: int, windows: Windows, tmp_path: Path
) -> None:
    settings = small("native", model__dropout=0.0, model__state_dropout=0.0, runtime__bf16=False, training__stretches=4)
    module, _ = prepare(Fit(settings, 3, windows, tmp_path))
    at = module.sampler(0)
    truth = module.net.series.truth.clone()
    truth[at.origins[0]] = torch.nan  # what is unknown is not the same in each share
    module.net.series.truth = truth

    def loss_and_gradient() -> tuple[float, list[torch.Tensor]]:
        module.zero_grad()
        loss = module.loss(at)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in module.parameters() if p.grad is not None]

    whole, gradient = loss_and_gradient()
    module.processes = of
    shares = []
    for module.rank in range(of):
        shares.append(loss_and_gradient())
    assert sum(loss for loss, _ in shares) / of == pytest.approx(whole, rel=1e-5)
    for part in zip(gradient, *(own for _, own in shares), strict=True):
        torch.testing.assert_close(sum(part[1:]) / of, part[0], rtol=1e-4, atol=1e-6)


def test_a_fit_for_several_processes_is_refused_without_srun(windows: Windows, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"runtime\.processes = 2, and srun did not start this one"):
        fit(small("native", runtime__processes=2), 0, windows, tmp_path)


@pytest.mark.parametrize(("method", "name"), [("hours-4", "renew"), ("autonomous-75", "remember")])
def test_states_of_more_hours_than_the_memory_holds_are_refused(
    method: str, name: str, windows: Windows, tmp_path: Path
) -> None:
    one = windows.series[0]
    later = {part: [bound + 10**12 * (part != "train") for bound in bounds] for part, bounds in one["origins"].items()}
    later["train"] = [one["origins"]["train"][0], 10**12]
    huge = dataclasses.replace(windows, meta={**windows.meta, "series": [{**one, "origins": later}]})
    with pytest.raises(InputError, match=rf"isolation.{name} keeps the states of .* set isolation.{name} to"):
        prepare(Fit(small(method), 0, huge, tmp_path))
    prepare(Fit(small(method), 0, windows, tmp_path))


def test_more_processes_than_stretches_are_refused(
    windows: Windows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"STEP_NUM_TASKS": 3, "STEP_NUM_NODES": 1, "NTASKS_PER_NODE": 3, "PROCID": 1}.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    with pytest.raises(InputError, match=r"training\.stretches of 2 a step are too few for runtime\.processes = 3"):
        fit(small("native", runtime__processes=3), 0, windows, tmp_path)

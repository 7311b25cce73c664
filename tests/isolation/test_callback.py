"""The callback in real Lightning training: what moves, what the modules are asked to do, and resuming bit for bit."""

import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from isotrain.errors import InputError
from isotrain.isolation import CRITERIA, Isolation, MaskedAdam, Policy, Schedule
from isotrain.isolation.settings import ZONES
from isotrain.lstm import LSTM

TIME, INPUTS, HIDDEN = 6, 3, 4


def data() -> tuple[Tensor, Tensor]:
    x = torch.randn(40, TIME, INPUTS, generator=torch.Generator().manual_seed(1))
    return x, x.sum((1, 2))[:, None]


class Stack(nn.LSTM):
    """Two layers that leave the gradients of isolated layers uncomputed, the simplest way there is."""

    def __init__(self) -> None:
        super().__init__(INPUTS, HIDDEN, 2, batch_first=True)
        self.asked: list[dict[str, Any]] = []

    def isolate(self, layer: Sequence[int] = (), steps: int | None = None) -> None:
        self.asked.append({"layer": tuple(layer), "steps": steps})
        for name, p in self.named_parameters():
            p.requires_grad_(int(name[-1]) not in layer)


class Forecaster(pl.LightningModule):
    def __init__(self, lstm: nn.Module | None = None, optimiser: Any = MaskedAdam, **settings: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lstm = Stack() if lstm is None else lstm
        self.head = nn.Linear(HIDDEN, 1)
        self.optimiser, self.settings = optimiser, settings
        self.data = list(zip(*(part.split(5) for part in data()), strict=True))

    def training_step(self, _: Tensor, batch_idx: int) -> Tensor:
        """By number: Lightning restarts a plain DataLoader from its beginning when it resumes in an epoch."""
        x, y = self.data[batch_idx]
        return (self.head(self.lstm(x)[0][:, -1]) - y).square().mean()

    def configure_optimizers(self) -> Any:
        optimiser = self.optimiser(self.parameters(), lr=1e-2, **self.settings)
        scheduler = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.97)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def fit(
    model: Forecaster, *callbacks: pl.Callback, steps: int = 5, resume: Path | None = None, **more: Any
) -> pl.Trainer:
    quiet = ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing")
    settings: dict[str, Any] = dict.fromkeys(quiet, False) | {"accelerator": "cpu", "max_steps": steps} | more
    trainer = pl.Trainer(callbacks=list(callbacks), **settings)
    trainer.fit(model, DataLoader(TensorDataset(torch.arange(8))), ckpt_path=resume)
    return trainer


def constant(fraction: float = 0.5, start: float = 0.0) -> Any:
    return Schedule("constant", fraction=fraction, start=start)


def isolating(zone: str, criterion: Any, schedule: Schedule, mode: str = "masked", **settings: Any) -> Isolation:
    window = TIME if zone == "step" else None
    return Isolation(Policy(zone, mode, criterion, schedule, **settings), window=window)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("settings", [{}, {"weight_decay": 0.1, "fused": True}, {"moments": "decay"}])
@pytest.mark.parametrize("zone", ["weight", "gate", "unit", "layer"])
def test_isolated_weights_stay_and_active_ones_move(zone: str, settings: dict[str, Any]) -> None:
    model = Forecaster(**settings)
    before = weights_of(model)
    isolation = isolating(zone, "random", constant(), every=1, churn=0.0)
    trainer = fit(model, isolation)
    (optimiser,) = trainer.optimizers
    isolated = 0
    for name, p in model.named_parameters():
        active = optimiser.active(p)  # type: ignore[attr-defined]
        assert torch.equal(p[~active], before[name][~active])
        assert (p[active] != before[name][active]).all()
        isolated += int((~active).sum())
    weights = sum(p.numel() for p in model.lstm.parameters())
    assert isolation.isolated_share == pytest.approx(isolated / weights)
    assert 0.4 < isolation.isolated_share < 0.6
    assert [entry["step"] for entry in isolation.history] == [0]
    assert isolation.history[0]["churn"] == 0.5
    assert isolation.seconds >= isolation.history[0]["seconds"] > 0


def test_nothing_isolated_is_the_same_training_as_without() -> None:
    plain, isolated = Forecaster(optimiser=torch.optim.Adam), Forecaster()
    fit(plain)
    isolation = isolating("unit", "update_norm", constant(0.5, start=1.0), every=1)
    fit(isolated, isolation)
    assert all(torch.equal(p, weights_of(plain)[name]) for name, p in isolated.named_parameters())
    assert isolation.history == []
    assert isolation.isolated_share == 0


def test_a_linear_schedule_grows_and_looks_only_every_so_often() -> None:
    isolation = isolating("unit", "update_norm", Schedule("linear", fraction=0.5, start=0.0, stop=0.8), every=5)
    fit(Forecaster(), isolation, steps=20)
    assert [entry["step"] for entry in isolation.history] == [5, 10, 15]
    assert [entry["fraction"] for entry in isolation.history] == pytest.approx([0.15625, 0.3125, 0.46875])
    assert [entry["share"] for entry in isolation.history] == [0.25, 0.25, 0.5]  # 1, 1, 2 of 4 units a layer


def test_selections_draw_again_unless_no_zone_may_change_place() -> None:
    again, once = (isolating("weight", "random", constant(), every=1, churn=churn) for churn in (1.0, 0.0))
    for isolation in (again, once):
        fit(Forecaster(), isolation, steps=4)
    assert len(again.history) == 4
    assert all(0.3 < entry["churn"] < 0.7 for entry in again.history)
    assert len(once.history) == 1


def test_global_scope_follows_depth() -> None:
    model = Forecaster()
    trainer = fit(model, isolating("unit", CRITERIA["depth"], constant(), every=1, scope="global"))
    active = {name: trainer.optimizers[0].active(p) for name, p in model.lstm.named_parameters()}  # type: ignore[attr-defined]
    assert not any(mask.any() for name, mask in active.items() if name.endswith("l0"))
    assert all(mask.all() for name, mask in active.items() if name.endswith("l1"))


def test_exact_layers_give_the_same_weights_as_masked_ones() -> None:
    exact, masked = Forecaster(weight_decay=0.1), Forecaster(weight_decay=0.1)
    isolation = isolating("layer", "depth", constant(start=0.4), mode="exact", every=1)
    fit(exact, isolation, steps=10)
    fit(masked, isolating("layer", "depth", constant(start=0.4), every=1), steps=10)
    assert all(torch.equal(p, weights_of(masked)[name]) for name, p in exact.named_parameters())
    assert isinstance(exact.lstm, Stack)
    thaw = {"layer": (), "steps": None}
    assert exact.lstm.asked == [thaw, {"layer": (0,), "steps": None}, thaw]  # at the start, chosen, at the end
    assert masked.lstm.asked == []
    assert isolation.isolated_share == pytest.approx(4 * 4 * (3 + 4 + 2) / (4 * 4 * (3 + 4 + 2 + 4 + 4 + 2)))


def test_the_projects_own_lstm_isolates_what_it_is_asked_to() -> None:
    def model() -> Forecaster:
        torch.manual_seed(0)
        return Forecaster(lstm=LSTM(INPUTS, HIDDEN, 2, batch_first=True))

    exact, masked, short = model(), model(), model()
    fit(exact, isolating("layer", "depth", constant(start=0.4), mode="exact", every=1), steps=10)
    fit(masked, isolating("layer", "depth", constant(start=0.4), every=1), steps=10)
    for name, p in exact.named_parameters():
        torch.testing.assert_close(p.detach(), weights_of(masked)[name])
    isolation = isolating("step", "depth", constant(), mode="exact", every=1, steps=3)
    fit(short, isolation, steps=10)
    assert isolation.isolated_share == 0.5


def test_steps_are_for_the_module_and_need_no_masking_optimiser() -> None:
    model = Forecaster(optimiser=torch.optim.Adam)
    isolation = isolating("step", "depth", constant(), mode="exact", every=1, steps=1)
    fit(model, isolation)
    assert isinstance(model.lstm, Stack)
    assert [order["steps"] for order in model.lstm.asked] == [None, 1, None]
    assert isolation.isolated_share == pytest.approx(5 / 6)


def with_our_lstm(**options: Any) -> Forecaster:
    torch.manual_seed(0)
    return Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True), **options)


@pytest.mark.parametrize("mode", ["cell", "none"])
def test_credit_is_for_the_module_thaws_and_needs_no_masking_optimiser(mode: str) -> None:
    """All weights move; with credit that never came back they would have moved elsewhere."""
    fits = []
    for stop in (0.0, 0.6, 1.0):
        model = with_our_lstm(optimiser=torch.optim.Adam)
        before = weights_of(model)
        schedule = Schedule("thaw", fraction=1.0, start=0.0, stop=stop)
        isolation = isolating("credit", "random", schedule, mode=mode, every=1)
        fit(model, isolation, steps=10)
        assert all((p != before[name]).all() for name, p in model.named_parameters())
        assert isinstance(model.lstm, LSTM)
        assert model.lstm.isolated.nothing
        fits.append((weights_of(model), [(e["step"], e["share"], e["churn"]) for e in isolation.history]))
    (whole, never), (_, thawed), (left, always) = fits
    assert (never, thawed, always) == ([], [(0, 1.0, 1.0), (6, 0.0, 1.0)], [(0, 1.0, 1.0)])
    plain = with_our_lstm(optimiser=torch.optim.Adam)
    fit(plain, steps=10)
    assert all(torch.equal(p, whole[name]) for name, p in plain.named_parameters())
    for name in ("lstm.weight_hh_l0", "lstm.weight_ih_l1"):
        assert not torch.allclose(whole[name], left[name], rtol=1e-4)


def test_half_of_the_credit_is_that_of_the_layers_nearest_the_input() -> None:
    model = Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    asked: list[Any] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            asked.append(model.lstm.isolated.credit)

    isolation = isolating("credit", "depth", constant(0.5), mode="cell", every=1)
    fit(model, isolation, Watch(), steps=2)
    assert asked == [("cell", "full")] * 2
    assert isolation.isolated_share == 0.5
    assert len(isolation.history) == 1


def test_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "isotrain.isolation")
    fit(Forecaster(), isolating("unit", "random", constant(start=0.4), every=1), steps=5)
    fit(Forecaster(), isolating("layer", "depth", constant(), mode="exact"), steps=2)
    fit(Forecaster(), isolating("step", "depth", constant(), mode="exact", steps=3), steps=2)
    thaw = Schedule("thaw", fraction=1.0, start=0.0, stop=0.5)
    fit(Forecaster(LSTM(INPUTS, HIDDEN, 2)), isolating("credit", "depth", thaw, mode="none", every=1), steps=2)
    assert [record.message for record in caplog.records if record.name.startswith("isotrain.isolation")] == [
        "step 2: 4 of 8 units isolated, 50 % of the weights of their layers: saves nothing: masked",
        "step 0: 1 of 2 layers (lstm.l0) isolated, 47 % of the weights of their layers: their weight gradients are not "
        "computed; at best 32 % of their layers' multiply-adds saved",
        "step 0: backward over the last 3 of 6 time steps; at best 33 % of their layers' multiply-adds saved",
        "step 0: credit goes back in time not at all in 2 of 2 layers; at best 33 % of their layers' multiply-adds "
        "saved",
        "step 1: credit goes back in time as a whole; nothing is isolated",
    ]


def test_units_left_out_exactly_train_as_masked_ones() -> None:
    models = []
    for mode in ("exact", "masked"):
        torch.manual_seed(0)
        models.append(Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True), weight_decay=0.1))
        isolation = isolating("unit", "random", constant(start=0.4), mode=mode, every=1, churn=0.0)
        fit(models[-1], isolation, steps=10)
    for a, b in zip(models[0].parameters(), models[1].parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_zone_thawed_in_a_step_that_did_not_compute_its_gradient_stands_still_in_that_step() -> None:
    torch.manual_seed(0)
    model = Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    seen: list[dict[str, Tensor]] = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
            seen.append({name: trainer.optimizers[0].active(p).clone() for name, p in model.lstm.named_parameters()})  # type: ignore[attr-defined]

    fit(model, isolating("unit", "random", constant(), mode="exact", every=2), Watch(), steps=4)
    for name in seen[0]:
        assert torch.equal(seen[2][name], seen[1][name] & seen[3][name])  # chosen anew in step 2
    assert any((seen[3][name] & ~seen[2][name]).any() for name in seen[0])


def test_autonomous_units_are_chosen_once_fed_by_nothing_that_moves_and_stay() -> None:
    torch.manual_seed(0)
    model = Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    isolation = isolating("unit", "random", constant(), mode="autonomous", every=1)
    trainer = fit(model, isolation, steps=1)
    after_one = weights_of(model)
    active = {name: trainer.optimizers[0].active(p) for name, p in model.lstm.named_parameters()}  # type: ignore[attr-defined]
    into_isolated = {
        name: ~active[name] & active[f"weight_hh_{below}"].any(1)[:HIDDEN]
        for name, below in (("weight_hh_l0", "l0"), ("weight_hh_l1", "l1"), ("weight_ih_l1", "l0"))
    }
    for name, weights in into_isolated.items():
        assert weights.any()
        assert (model.lstm.get_parameter(name)[weights] == 0).all()
    torch.manual_seed(0)
    longer = Forecaster(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    again = isolating("unit", "random", constant(), mode="autonomous", every=1)
    fit(longer, again, steps=4)
    assert len(again.history) == 1
    for name, p in longer.lstm.named_parameters():
        assert torch.equal(p[~active[name]], after_one[f"lstm.{name}"][~active[name]])
        assert not torch.equal(p[active[name]], after_one[f"lstm.{name}"][active[name]])


class Groups(Forecaster):
    """Matrices with weight decay, vectors without, each with its own rate."""

    def configure_optimizers(self) -> Any:
        matrices = [p for p in self.parameters() if p.dim() > 1]
        vectors = [p for p in self.parameters() if p.dim() == 1]
        return MaskedAdam([{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "lr": 1e-3}], lr=1e-2)


@pytest.mark.parametrize("mode", ["masked", "exact"])
def test_mixed_precision_parameter_groups_and_early_stopping(mode: str) -> None:
    class Watched(Groups):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("flat", 1.0)
            return loss

    model = Watched(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    before = weights_of(model)
    stop = EarlyStopping("flat", patience=1, check_on_train_epoch_end=True)
    isolation = isolating("unit", "random", constant(), mode=mode, every=1, churn=0.0)
    more: dict[str, Any] = {"precision": "bf16-mixed", "gradient_clip_val": 0.1}
    trainer = fit(model, isolation, stop, steps=100, **more)
    assert trainer.global_step == 16  # two epochs of eight steps
    (optimiser,) = trainer.optimizers
    moved = 0
    for name, p in model.named_parameters():
        active = optimiser.active(p)  # type: ignore[attr-defined]
        assert torch.equal(p[~active], before[name][~active])
        moved += int((p[active] != before[name][active]).sum())
    assert moved > 100
    assert 0.4 < isolation.isolated_share < 0.6
    assert model.lstm.isolated.nothing  # thawed, though stopped early


def test_a_fit_that_fails_leaves_a_thawed_model() -> None:
    class Failing(Forecaster):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            if batch_idx == 3:
                raise RuntimeError("made to fail")
            return super().training_step(batch, batch_idx)

    model = Failing(LSTM(INPUTS, HIDDEN, 2, batch_first=True))
    with pytest.raises(RuntimeError, match="made to fail"):
        fit(model, isolating("unit", "random", constant(), mode="exact", every=1))
    assert model.lstm.isolated.nothing


def test_several_optimisers_are_refused() -> None:
    class Two(Forecaster):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def configure_optimizers(self) -> Any:
            return [MaskedAdam(self.lstm.parameters()), MaskedAdam(self.head.parameters())]

    with pytest.raises(InputError, match="isolation needs one optimiser, there are 2"):
        fit(Two(), isolating("unit", "random", constant()))


# 6. Resuming --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("isolation", "settings"),
    [
        (("unit", "random", "masked"), {"moments": "reset", "correction": "per_weight"}),
        (("weight", "update_norm", "masked"), {"moments": "decay", "variant": "tf15"}),
        (("gate", "update_norm", "masked"), {"weight_decay": 0.1, "amsgrad": True}),
        (("layer", "random", "exact"), {"fused": True}),
    ],
)
def test_resuming_in_the_middle_of_an_epoch_is_the_same_run(
    tmp_path: Path, isolation: tuple[str, str, str], settings: dict[str, Any]
) -> None:
    """With accumulation, clipping and an LR scheduler: 4 steps an epoch, stopped after step 6 of 14."""
    zone, criterion, mode = isolation
    more: dict[str, Any] = {"accumulate_grad_batches": 2, "gradient_clip_val": 0.1}

    def start() -> tuple[Forecaster, Isolation]:
        schedule = Schedule("linear", fraction=0.5, start=0.1, stop=0.6)
        return Forecaster(**settings), isolating(zone, criterion, schedule, mode=mode, every=2)

    whole, whole_isolation = start()
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=6, save_top_k=-1, filename="{step}")
    one = fit(whole, whole_isolation, keep, steps=14, enable_checkpointing=True, **more)
    resumed, resumed_isolation = start()
    two = fit(resumed, resumed_isolation, steps=14, resume=tmp_path / "step=6.ckpt", **more)

    assert one.global_step == two.global_step == 14
    assert all(torch.equal(p, weights_of(whole)[name]) for name, p in resumed.named_parameters())
    left, right = one.optimizers[0].state_dict()["state"], two.optimizers[0].state_dict()["state"]
    assert left.keys() == right.keys()
    for key in left:
        assert left[key].keys() == right[key].keys()
        assert all(torch.equal(left[key][name], right[key][name]) for name in left[key])
    assert any("active" in value for value in left.values())
    timeless = [
        [{key: value for key, value in entry.items() if key != "seconds"} for entry in run.history]
        for run in (whole_isolation, resumed_isolation)
    ]
    assert timeless[0] == timeless[1]
    assert len(timeless[0]) > 1
    if mode == "exact":
        assert isinstance(whole.lstm, Stack)
        assert isinstance(resumed.lstm, Stack)
        assert resumed.lstm.asked == whole.lstm.asked[-len(resumed.lstm.asked) :]


@pytest.mark.parametrize("stopped", [4, 10])  # credit left out, and credit back again
@pytest.mark.parametrize("mode", ["cell", "none"])
@pytest.mark.parametrize("optimiser", [MaskedAdam, torch.optim.Adam])
def test_resuming_in_either_part_of_a_training_whose_credit_thaws_is_the_same_run(
    tmp_path: Path, mode: str, stopped: int, optimiser: Any
) -> None:
    """It thaws at step 9 of 14, which is found at the selection before step 10."""

    def start() -> tuple[Forecaster, Isolation]:
        schedule = Schedule("thaw", fraction=1.0, start=0.0, stop=0.6)
        model = with_our_lstm(optimiser=optimiser)
        return model, isolating("credit", "depth", schedule, mode=mode, every=2)

    used: list[list[Any]] = [[], []]

    class Watch(pl.Callback):
        def __init__(self, model: Forecaster, into: list[Any]) -> None:
            self.model, self.into = model, into

        def on_train_batch_start(self, *_: Any) -> None:
            self.into.append(self.model.lstm.isolated.credit)

    whole, whole_isolation = start()
    keep = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=stopped, save_top_k=-1, filename="{step}")
    one = fit(whole, whole_isolation, keep, Watch(whole, used[0]), steps=14, enable_checkpointing=True)
    resumed, resumed_isolation = start()
    two = fit(resumed, resumed_isolation, Watch(resumed, used[1]), steps=14, resume=tmp_path / f"step={stopped}.ckpt")

    assert one.global_step == two.global_step == 14
    assert used[0] == [()] + [(mode, mode)] * 10 + [()] * 3  # chosen before the first update, and before the eleventh
    assert used[1] == used[0][stopped:]
    assert all(torch.equal(p, weights_of(whole)[name]) for name, p in resumed.named_parameters())
    left, right = one.optimizers[0].state_dict()["state"], two.optimizers[0].state_dict()["state"]
    for key in left:
        assert all(torch.equal(left[key][name], right[key][name]) for name in left[key])
    assert [e["step"] for e in whole_isolation.history] == [e["step"] for e in resumed_isolation.history] == [0, 10]


# Errors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"zone": "colum"}, f"zone='colum' is unknown: did you mean 'column'? The choices are {', '.join(ZONES)}"),
        ({"criterion": "best"}, f"criterion='best' is unknown: choose one of {', '.join(CRITERIA)}, neglected"),
        ({"count": "arcs"}, "count='arcs' is unknown: choose one of zones, weights, flops"),
        ({"churn": 1.5}, "churn=1.5 is outside [0, 1]"),
        ({"mode": "some"}, "mode='some' is unknown: choose one of masked, exact, cut, autonomous, cell, none"),
        (
            {"mode": "cell", "zone": "gate"},
            "mode='cell' does not exist for zone='gate', only for credit: use mode masked",
        ),
        (
            {"zone": "credit"},
            "mode='masked' does not exist for zone='credit', only for weight, row, column, tile, gate, unit, channel, "
            "kernel, layer: use mode cell or none",
        ),
        ({"scope": "layer"}, "scope='layer' is unknown: choose one of local, global"),
        ({"mode": "cut", "zone": "gate"}, "mode='cut' does not exist for zone='gate', only for unit: use mode masked"),
        (
            {"mode": "autonomous", "scope": "global"},
            "mode='autonomous' needs scope='local': each layer's units are fed by those of the layer below",
        ),
        (
            {"zone": "step"},
            "mode='masked' does not exist for zone='step', only for weight, row, column, tile, gate, unit, channel, "
            "kernel, layer: use mode exact",
        ),
        ({"criterion": "neglected"}, "criterion='neglected' does not exist for zone='unit': use zone step or credit"),
        ({"every": 0}, "every=0 is too small: give 1 or more"),
        ({"steps": 0}, "steps=0 is too small: give 1 or more"),
        ({"tile": (4, 0)}, "tile=(4, 0) is too small: give 1 or more"),
        ({"moments": "forget"}, "moments='forget' is unknown: choose one of hold, decay, reset, mean"),
    ],
)
def test_settings_that_do_not_go_together(arguments: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"zone": "unit", "mode": "masked", "criterion": "random", "schedule": constant()}
    with pytest.raises(InputError) as raised:
        Policy(**settings | arguments)
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("arguments", "model", "message"),
    [
        ({}, {"optimiser": torch.optim.Adam}, "optimiser Adam cannot leave weights out; use .*MaskedAdam"),
        (
            {"zone": "unit", "mode": "exact"},
            {"lstm": nn.LSTM(INPUTS, HIDDEN, 2, batch_first=True)},
            "cannot isolate in 'lstm': LSTM has no isolate",
        ),
        (
            {"schedule": constant(1.0)},
            {},
            "fraction=1.0 would isolate all of the 8 zones of kind 'unit': nothing",
        ),
        ({"modules": ["encoder"]}, {}, "Forecaster has no submodule 'encoder'"),
        ({"zone": "step", "mode": "exact", "criterion": "neglected"}, {}, "is measured: use .*callback_of"),
    ],
)
def test_what_cannot_work_is_refused_when_the_fit_starts(
    arguments: dict[str, Any], model: dict[str, Any], message: str
) -> None:
    settings: dict[str, Any] = {"zone": "unit", "criterion": "random", "schedule": constant()} | arguments
    with pytest.raises(InputError, match=message):
        fit(Forecaster(**model), isolating(**settings))


def test_a_training_without_an_end_and_a_checkpoint_of_another_network_are_refused() -> None:
    with pytest.raises(InputError, match="the schedule needs the length of training"):
        fit(Forecaster(), isolating("unit", "random", constant()), steps=-1, max_epochs=-1)
    other = isolating("unit", "random", constant())
    fit(Forecaster(lstm=nn.LSTM(INPUTS, HIDDEN, 1, batch_first=True)), other)
    isolation = isolating("unit", "random", constant())
    isolation.load_state_dict(other.state_dict())  # as Lightning does, before the fit starts
    with pytest.raises(InputError, match="the checkpoint isolates in other zones than"):
        fit(Forecaster(), isolation)


def test_a_diverged_training_is_named() -> None:
    def poisoned(view: Any) -> Tensor:
        return view.mean(view.weight / 0 - view.weight / 0)

    with pytest.raises(InputError, match=r"zones 'lstm.l0': a score is not a number"):
        fit(Forecaster(), isolating("unit", poisoned, constant()))


def test_a_training_that_ends_before_isolation_begins_says_so(caplog: pytest.LogCaptureFixture) -> None:
    class Watched(Forecaster):
        def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
            loss = super().training_step(batch, batch_idx)
            self.log("flat", 1.0)
            return loss

    stop = EarlyStopping("flat", patience=1, check_on_train_epoch_end=True)
    late = isolating("unit", "random", Schedule(fraction=0.5, start=0.9), every=1)
    trainer = fit(Watched(), late, stop, steps=100)
    assert f"ended after step {trainer.global_step} and nothing was isolated" in caplog.text
    assert "constant begins at 90 %" in caplog.text
    caplog.clear()
    fit(Forecaster(), isolating("unit", "random", constant(), every=1))
    assert "nothing was isolated" not in caplog.text


def test_a_checkpoint_of_another_criterion_says_so(caplog: pytest.LogCaptureFixture) -> None:
    made = isolating("unit", "random", constant())
    fit(Forecaster(), made)
    for criterion, said in (("magnitude", True), ("random", False)):
        caplog.clear()
        other = isolating("unit", criterion, constant())
        other.load_state_dict(made.state_dict())
        fit(Forecaster(), other)
        assert ("made with criterion random; this training goes on with magnitude" in caplog.text) == said


def test_settings_in_a_checkpoint_are_read_with_an_allow_list_of_two() -> None:
    kept = io.BytesIO()
    torch.save({"policy": Policy("unit", "cut", "snip", Schedule("cubic", 0.75))}, kept)
    kept.seek(0)
    with torch.serialization.safe_globals([Policy, Schedule]):
        assert torch.load(kept, weights_only=True)["policy"].schedule.fraction == 0.75

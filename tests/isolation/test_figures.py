"""Pictures of isolation show what the record holds: read from the drawn panels, not in pixels."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn

from isotrain.files import write_json
from isotrain.isolation.record import QUANTILES, Record, load
from isotrain.isolation.zones import zones
from isotrain.report.drawing import save
from isotrain.report.isolation import HEAT, draw, draw_run, folded

LSTM = {"lstm.l0": (4, 8), "lstm.l1": (4, 8)}


def made_up(layers: Mapping[str, tuple[int, int]], steps: Sequence[int], maps: Sequence[str] = ()) -> Record:
    """Random shares, one choice at each of ``steps``; score maps are the layers unless given."""
    draws = torch.Generator().manual_seed(0)
    record = Record([])
    for step in steps:
        active = {name: 255 * torch.randint(0, 2, shape, generator=draws) for name, shape in layers.items()}
        scores = {name: torch.rand(2, len(QUANTILES), generator=draws).sort().values for name in maps or layers}
        record.entries.append(
            {
                "step": step,
                "active": {name: share.to(torch.uint8) for name, share in active.items()},
                "scores": {name: score.double() for name, score in scores.items()},
            }
        )
    return record


def with_scores(*quantiles: Tensor) -> Record:
    """One layer, whose scores at steps 0, 10, 20, ... are ``quantiles`` (2, 7)."""
    record = made_up({"lstm.l0": (4, 8)}, range(0, 10 * len(quantiles), 10))
    for entry, scores in zip(record.entries, quantiles, strict=True):
        entry["scores"]["lstm.l0"] = scores.double()
    return record


def history(record: Record, **fixed: float) -> list[dict[str, Any]]:
    return [
        {"step": entry["step"], "share": 0.1 * number, "churn": 0.05 * number, **fixed}
        for number, entry in enumerate(record.entries)
    ]


def panel(figure: Figure, name: str) -> Axes:
    return next(axes for axes in figure.axes if axes.get_label() == name)


def panels(figure: Figure, kind: str) -> list[str]:
    return [label for axes in figure.axes if (label := str(axes.get_label())).startswith(kind)]


def shown(axes: Axes, x: float, y: float) -> float:
    """The share that the heat map has at a point, in the units of its axes."""
    across, up = axes.transData.transform((x, y))
    value = axes.images[0].get_cursor_data(SimpleNamespace(x=across, y=up, xdata=x, ydata=y))
    assert value is not None, f"nothing is drawn at {x, y}"
    return float(value)


def words(figure: Figure) -> str:
    texts = [text.get_text() for axes in figure.axes for text in axes.texts]
    return "\n".join([*texts, figure.get_suptitle(), figure.get_supxlabel()])


@pytest.mark.parametrize("steps", [(0, 10, 30), (20, 60, 80, 200), (5,)])
def test_every_cell_is_the_entrys_share_until_the_next_choice(steps: tuple[int, ...]) -> None:
    record = made_up(LSTM, steps)
    record.entries[0]["active"]["lstm.l1"][2, 3] = 102  # two fifths
    figure = draw(record, history(record), 240, "title")
    for layer, (gates, units) in LSTM.items():
        axes = panel(figure, f"heat {layer}")
        for entry, end in zip(record.entries, [*steps[1:], 240], strict=True):
            for gate in range(gates):
                for unit in range(units):
                    want = float(entry["active"][layer][gate, unit]) / 255
                    for step in (entry["step"] + 0.01, end - 0.01):
                        assert shown(axes, step, gate * units + unit + 0.5) == pytest.approx(want, abs=1e-6)
        if steps[0] > 0:
            assert all(shown(axes, steps[0] - 0.01, row + 0.5) == 1 for row in range(gates * units))
        assert axes.get_ylim() == (gates * units, 0)  # the first row at the top
        assert [text.get_text() for text in axes.get_yticklabels()] == ["i", "f", "g", "o"]


def test_neighbours_are_averaged_where_the_pixels_end_and_the_figure_says_so() -> None:
    steps = np.unique(np.random.default_rng(0).integers(0, 5000, 900))
    steps[0] = 0
    record = made_up({"lstm.l0": (4, 256)}, steps.tolist())
    figure = draw(record, history(record), 5000, "title")
    image = np.asarray(panel(figure, "heat lstm.l0").images[0].get_array())
    shares = np.stack([entry["active"]["lstm.l0"].numpy() for entry in record.entries]) / 255
    lines = shares.reshape(len(steps), 4 * 128, 2).mean(-1).T
    lasts = np.diff([*steps, 5000])
    merged = -(-len(steps) // 400)
    for column in range(image.shape[1]):
        group = slice(merged * column, merged * (column + 1))
        want = (lines[:, group] * lasts[group]).sum(1) / lasts[group].sum()
        np.testing.assert_allclose(image[:, column], want, atol=1e-5)
    assert "mean of 2 units" in words(figure) and f"up to {merged} choices" in words(figure)
    assert "mean of" not in words(draw(made_up(LSTM, [0]), [], 10, "title"))


@given(
    values=st.lists(st.tuples(st.floats(0, 1), st.floats(0.5, 9)), min_size=1, max_size=50),
    most=st.integers(1, 20),
)
def test_folding_keeps_the_weighted_mean(values: list[tuple[float, float]], most: int) -> None:
    numbers, weights = np.array(values).T
    merged, starts = folded(numbers[:, None], weights, most)
    assert len(merged) == len(starts) <= most
    sums = [group.sum() for group in np.split(weights, starts[1:])]
    assert (merged[:, 0] * sums).sum() == pytest.approx((numbers * weights).sum())


def test_time_steps_are_counted_back_from_the_end_of_the_window() -> None:
    record = Record([])
    for step, horizon in ((0, 60), (50, 24)):
        active = (torch.arange(168) >= 168 - horizon)[None]
        entry = {"step": step, "active": {"time": 255 * active.to(torch.uint8)}}
        record.entries.append(entry | {"scores": {"time": torch.rand(2, len(QUANTILES)).double()}})
    axes = panel(draw(record, history(record), 100, "title"), "heat time")
    assert "before the window's end" in axes.get_ylabel()
    top = axes.get_ylim()[1]
    for mark, text in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        assert mark - top == 168 - float(text.get_text())  # the end is at the bottom
    for step, horizon in ((20, 60), (70, 24)):
        assert shown(axes, step, 168 - horizon - 0.5) == 0 and shown(axes, step, 168 - horizon + 0.5) == 1


def test_whole_layers_are_bands_of_one_map() -> None:
    names = {f"lstm.l{index}": (4, 8) for index in range(48)}
    record = made_up(names, [0, 50], maps=["layers"])
    for number, entry in enumerate(record.entries):
        entry["active"] = {
            name: torch.full((4, 8), 255 * (index > number), dtype=torch.uint8) for index, name in enumerate(names)
        }
    figure = draw(record, history(record), 100, "title")
    assert panels(figure, "heat") == ["heat"] and panels(figure, "scores") == ["scores layers"]
    axes = panel(figure, "heat")
    assert [text.get_text() for text in axes.get_yticklabels()] == list(names)[:40]
    for step, number in ((25, 0), (75, 1)):
        assert [shown(axes, step, band + 0.5) for band in range(40)] == [float(band > number) for band in range(40)]
    assert all(name in words(figure) for name in list(names)[40:]) and "lstm.l39" not in words(figure)


def test_six_layers_are_drawn_and_the_rest_named() -> None:
    names = {f"gru.l{index}": (3, 4) for index in range(8)}
    record = made_up(names, [0, 10])
    figure = draw(record, history(record), 20, "title")
    assert panels(figure, "heat") == [f"heat gru.l{index}" for index in range(6)]
    assert len(panels(figure, "scores")) == 6
    assert [text.get_text() for text in panel(figure, "heat gru.l5").get_yticklabels()] == ["r", "z", "n"]
    assert "6 of 8 layers; left out: gru.l6, gru.l7." in words(figure)
    assert "left out" not in words(draw(made_up(LSTM, [0]), [], 20, "title"))


def test_scores_are_the_recorded_quantiles_with_gaps_where_there_are_none() -> None:
    first, second = torch.arange(14.0).reshape(2, 7), torch.arange(14.0).reshape(2, 7) / 2
    first[1] = torch.nan
    axes = panel(draw(with_scores(first, second), [], 30, "title"), "scores lstm.l0")
    medians = {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}
    for name, want in (("active", [3, 1.5, 1.5]), ("isolated", [np.nan, 5, 5])):
        assert np.array_equal(medians[name].get_xdata(), [0, 10, 30])
        assert np.array_equal(medians[name].get_ydata(), want, equal_nan=True)
        assert medians[name].get_drawstyle() == "steps-post"
    heights = [
        sorted({float(y) for path in band.get_paths() for y in path.vertices[:, 1]}) for band in axes.collections
    ]
    assert heights == [[0.5, 1, 2.5, 5], [1, 2, 4], [4, 6], [4.5, 5.5]]


@pytest.mark.parametrize(
    ("low", "high", "scale"),
    [(1.0, 2.0, "linear"), (-3.0, 3.0, "linear"), (1e-6, 1.0, "log"), (0.0, 1.0, "linear"), (5.0, 5.0, "linear")],
)
def test_the_axis_is_logarithmic_where_a_linear_one_would_hide_the_small(low: float, high: float, scale: str) -> None:
    spread = np.geomspace(low, high, 14) if scale == "log" else np.linspace(low, high, 14)
    record = with_scores(torch.tensor(spread).reshape(2, 7))
    assert panel(draw(record, [], 10, "title"), "scores lstm.l0").get_yscale() == scale


def test_zero_stays_visible_on_a_logarithmic_axis() -> None:
    scores = torch.tensor([0, *np.geomspace(1e-6, 1, 13)]).reshape(2, 7)
    axes = panel(draw(with_scores(scores), [], 10, "title"), "scores lstm.l0")
    assert axes.get_yscale() == "symlog" and axes.get_ylim()[0] == 0


def test_no_finite_score_is_said() -> None:
    figure = draw(with_scores(torch.full((2, 7), torch.nan)), [], 10, "title")
    assert "no finite score" in words(figure)


def test_churn_is_stems_and_the_isolated_share_a_line() -> None:
    record = made_up(LSTM, [20, 40, 60])
    axes = panel(draw(record, history(record), 100, "title"), "churn")
    stems = axes.collections[0].get_segments()  # type: ignore[attr-defined]
    np.testing.assert_allclose([stem[1] for stem in stems], [[20, 0], [40, 0.05], [60, 0.1]])
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [[0, 0], [20, 0], [40, 0.1], [60, 0.2], [100, 0.2]])
    assert axes.lines[0].get_drawstyle() == "steps-post"  # a choice holds until the next


def test_the_neglected_share_is_a_line_and_its_absence_is_said() -> None:
    record = made_up(LSTM, [20, 40])
    figure = draw(record, history(record, neglected=0.25), 100, "title")
    np.testing.assert_allclose(panel(figure, "neglected").lines[0].get_xydata(), [[20, 0.25], [40, 0.25]])
    assert "not measured" not in words(figure)
    assert "not measured" in words(draw(record, history(record), 100, "title"))


@pytest.mark.parametrize(("steps", "end"), [(100, 100), (30, 41)])
def test_every_panel_has_the_same_steps_to_the_end_of_the_run(steps: int, end: float) -> None:
    record = made_up(LSTM, [20, 40])
    figure = draw(record, history(record), steps, "unit by update_norm")
    named = [axes for axes in figure.axes if axes.get_label() != "<colorbar>"]
    assert len(named) == 2 + 2 + 1 + 1
    assert {axes.get_xlim() for axes in named} == {(0, end)}
    assert panel(figure, "neglected").get_xlabel() == "Optimiser step"
    assert figure.get_suptitle() == "unit by update_norm"
    assert len(figure.axes) == len(named) + 1  # one colour bar


def test_a_run_that_isolated_nothing_says_so() -> None:
    assert "nothing was isolated in 300 optimiser steps" in words(draw(Record([]), [], 300, "title"))


def test_active_is_light_and_isolated_dark() -> None:
    light, half, dark = (sum(HEAT["cmap"](share)[:3]) for share in (1.0, 0.5, 0.0))
    assert light > half + 0.5 > dark + 1


@pytest.mark.parametrize(("kind", "names"), [("unit", ["l0", "l1"]), ("layer", [""]), ("step", ["time"])])
def test_what_a_record_takes_down_can_be_drawn(kind: str, names: list[str], tmp_path: Path) -> None:
    maps = zones(nn.LSTM(3, 8, num_layers=2), kind, window=12 if kind == "step" else None)
    record = Record(maps)
    for step in (0, 10):
        scores = {zone_map.name: torch.rand(zone_map.count) for zone_map in maps}
        record.add(step, {name: score > score.median() for name, score in scores.items()}, scores)
    figure = draw(record, history(record), 20, kind)
    assert panels(figure, "heat") == [f"heat {name}".strip() for name in names]
    for name in ("one.png", "two.png"):
        save(draw(record, history(record), 20, kind), tmp_path / name)
    written = (tmp_path / "one.png").read_bytes()
    assert written.startswith(b"\x89PNG") and written == (tmp_path / "two.png").read_bytes()


def test_a_run_is_drawn_from_its_folder(tmp_path: Path) -> None:
    maps = zones(nn.LSTM(3, 8), "unit")
    record = Record(maps)
    record.add(0, {"l0": torch.arange(8) >= 4}, {"l0": torch.arange(8.0)})
    assert draw_run(tmp_path) is None
    record.save(tmp_path / "isolation.npz")
    again = load(tmp_path / "isolation.npz")
    assert [entry["step"] for entry in again.entries] == [0]
    for kind in ("active", "scores"):
        assert torch.equal(again.entries[0][kind]["l0"], record.entries[0][kind]["l0"])
    params = {"isolation.zone": "unit", "isolation.criterion": "snip", "training.steps": 20}
    result = {"method": "cut", "seed": 3, "params": params, "selections": history(record)}
    write_json(tmp_path / "result.json", result)
    figure = draw_run(tmp_path)
    assert figure is not None
    assert panels(figure, "heat") == ["heat l0"]
    assert panel(figure, "churn").get_xlim() == (0, 20)

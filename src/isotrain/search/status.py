"""The command ``isotrain search status``: the progress of a study, as a table for a terminal."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from optuna.trial import FrozenTrial, TrialState

from isotrain.compare.searched import Point, Searched
from isotrain.search.results import Tally, outline, tally
from isotrain.search.study import Place, open_study

SHOWN = 8  # points of the front, spread along it
RATE_OVER = 20  # so many last trials give the rate


def status(place: Place, now: datetime | None = None) -> str:
    """The number of finished, running, waiting and failed trials, the front, and the time left, as text.

    Raises :class:`~isotrain.errors.InputError` if there is no such study.
    """
    study = open_study(place, create=False)
    trials = study.get_trials(deepcopy=False)
    counted = tally(trials, place.search.retries)
    seen = outline(place, study, counted)
    now = now or datetime.now(UTC)
    lines = [f"study {seen.study}, {place.search.objectives}, sampler {seen.sampler}", ""]
    lines += [
        f"{name:<12} {text}"
        for name, text in [*_counts(place, counted, trials, now), *_times(place, seen, counted, now)]
    ]
    return "\n".join([*lines, "", *_front(seen)])


def _counts(place: Place, counted: Tally, trials: Sequence[FrozenTrial], now: datetime) -> list[tuple[str, str]]:
    running = [trial for trial in trials if trial.state == TrialState.RUNNING]
    workers = {str(trial.user_attrs.get("worker", "unknown")) for trial in running}
    silent = sum(_is_silent(place, trial, now) for trial in running)
    late = f", {silent} of them without a renewed lease for more than {place.search.lease:g} s" if silent else ""
    why = ", ".join(f"{number} {why}" for why, number in sorted(counted.failed.items(), key=lambda item: -item[1]))
    again = f"{counted.repeated}, {counted.again} to be queued again" if counted.again else str(counted.repeated)
    return [
        ("finished", str(len(counted.finished)) + (f", {counted.pruned} pruned besides" if counted.pruned else "")),
        ("running", f"{counted.running} on {len(workers)} workers{late}" if running else "0"),
        ("waiting", str(counted.waiting)),
        ("failed", f"{sum(counted.failed.values())} ({why})" if why else "0"),
        ("repeated", again),
    ]


def _is_silent(place: Place, trial: FrozenTrial, now: datetime) -> bool:
    """Whether the lease of a running trial is no longer renewed, by the clock of this machine."""
    lease = place.folder / "leases" / str(trial.number)
    return lease.exists() and now.timestamp() - lease.stat().st_mtime > place.search.lease


def _times(place: Place, seen: Searched, counted: Tally, now: datetime) -> list[tuple[str, str]]:
    grown = seen.hypervolumes[-1] if seen.hypervolumes else 0.0
    volume = f"{grown:.4g} within {_corner(seen)}" if seen.reference else f"from {seen.startup} finished trials on"
    rows = [("hypervolume", volume)]
    if seen.began:
        used = now - datetime.fromisoformat(seen.began)
        rows += [("time used", _span(used)), ("time left", _left(place, counted, used))]
    return rows


def _left(place: Place, counted: Tally, used: timedelta) -> str:
    """What is left of each limit of the budget; the first that is reached ends the study."""
    budget, limits = place.search, []
    if budget.trials is not None:
        missing = max(budget.trials - counted.ended, 0)
        pace = _seconds_a_trial(counted)
        when = f", {_span(timedelta(seconds=missing * pace))} at the present rate" if pace and missing else ""
        limits.append(f"{missing} of {budget.trials} trials{when}")
    if budget.hours is not None:
        limits.append(f"{_span(max(timedelta(hours=budget.hours) - used, timedelta()))} of {budget.hours:g} h")
    if budget.stall is not None:
        limits.append(f"until the hypervolume stands still for {budget.stall} trials")
    return "; ".join(limits)


def _seconds_a_trial(counted: Tally) -> float | None:
    """Mean seconds between the ends of two trials, over the last trials."""
    ends = [t.datetime_complete for t in counted.finished[-RATE_OVER:] if t.datetime_complete]
    return (ends[-1] - ends[0]).total_seconds() / (len(ends) - 1) if len(ends) > 1 else None


def _front(seen: Searched) -> list[str]:
    shown = seen.chosen(SHOWN)
    if not shown:
        return ["no trial has finished yet"]
    head = f"front: {len(seen.front)} points, as the search measured them" + (
        f", {len(shown)} shown" if len(shown) < len(seen.front) else ""
    )
    rows = [f"{'trial':>6} {'val. MAE, kW':>13} {'training, s':>12}  settings"]
    return [head, *rows, *[_row(point) for point in sorted(shown, key=lambda point: point.seconds)]]


def _row(point: Point) -> str:
    known = f"{point.known}: " if point.known else ""
    settings = ", ".join(f"{path.rpartition('.')[2]} {_short(value)}" for path, value in point.settings.items())
    return f"{point.number:>6} {point.val_mae:>13.3f} {point.seconds:>12.2f}  {known}{settings}"


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _corner(seen: Searched) -> str:
    assert seen.reference is not None
    return " and ".join(f"{name} {value:.4g}" for name, value in zip(seen.objectives, seen.reference, strict=False))


def _span(time: timedelta) -> str:
    minutes = round(time.total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"

"""What the report's figures share: a colour a method, a title that tells a simulated series, an axis of seconds."""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from isotrain.style import PALETTE

FIXED = {"stock": "#7A7A7A", "tuned": "#111111"}


class Learnt(Protocol):
    """A fit or a search, which learnt one series."""

    @property
    def data(self) -> Mapping[str, Any]: ...


def base_name(method: str) -> str:
    """The method without its regime: ``stock-windowed`` and ``stock`` share a colour."""
    return method.removesuffix("-windowed").removesuffix("-streamed")


def colours(methods: Iterable[str]) -> dict[str, str]:
    """Method -> colour, the same in every figure; the references are black and grey."""
    names = list(methods)
    others = list(dict.fromkeys(base_name(name) for name in names if base_name(name) not in FIXED))
    table = FIXED | {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(others)}
    return {name: table[base_name(name)] for name in names}


def titled(run: Learnt, title: str) -> str:
    """``title``, marked if the series that ``run`` learnt is not a measured one."""
    return f"SIMULATED series: {title}" if run.data["simulated"] else title


def seconds_axis(axes: Axes) -> None:
    """Plain numbers of seconds along a logarithmic x axis, more where it is short. Set its limits first."""
    low, high = axes.get_xlim()
    axes.xaxis.set_major_locator(MaxNLocator(6) if high < 6 * low else LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_locator(NullLocator())

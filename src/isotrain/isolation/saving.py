"""What a choice of zones leaves out, and what that can save at best: as numbers, and in one line for the log."""

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from isotrain.isolation.settings import Policy
from isotrain.isolation.zonemap import ZoneMap

_KEPT: dict[tuple[str, str], Callable[[float], float]] = {
    ("unit", "exact"): lambda a: 2 + a,
    ("unit", "cut"): lambda a: 1 + a + a * a,
    ("unit", "autonomous"): lambda a: 2 * a + a * a,
    ("layer", "exact"): lambda a: 1 + 2 * a,
    ("step", "exact"): lambda b: 1 + 2 * b,
    ("credit", "cell"): lambda a: 2 + a,
    ("credit", "none"): lambda a: 2 + a,
}


def saving(zone: str, mode: str, isolated: float) -> float:
    """The share of a step's multiply-adds that isolating the share ``isolated`` of a layer saves; 0 if masked.

    The limit that a clock can at best reach. A training step of a layer multiplies every weight three times for each
    sample and time step: forward, for the gradient of what feeds it, and for its own gradient. With a share a of the
    units active, out of 3 there remain ``exact`` 2 + a, ``cut`` 1 + a + a², ``autonomous`` and remembered 2a + a². An
    isolated layer keeps 1 if all below it are isolated too (else 2, which is not counted), time steps older than the
    last share b keep 1, a layer without credit 2: its own gradient is computed, that of its earlier states is not.

    The recurrent and the input matrix are counted alike, and where a layer is remembered, not run, that is not
    counted: the optimiser, the loss and the rest of the network are not in it either.
    """
    kept = _KEPT.get((zone, mode))
    return 0.0 if kept is None else 1 - kept(1 - isolated) / 3


_EFFECT = {
    "masked": "saves nothing: masked",
    "exact": "their weight gradients are not computed",
    "cut": "no gradient passes through them",
    "autonomous": "fed by the input alone, no gradient passes through them",
}


def isolated_share(maps: Sequence[ZoneMap], active: Mapping[str, Tensor]) -> float:
    """The share of the weights in zones that ``active`` leaves out; for the zones without weights, of the time steps
    (``"step"``) or of the layers (``"credit"``)."""
    isolated = sum(zone_map.isolated_weights(active[zone_map.name]) for zone_map in maps)
    return isolated / max(1, sum(int(zone_map.sizes().sum()) for zone_map in maps))


def describe(policy: Policy, maps: Sequence[ZoneMap], active: Mapping[str, Tensor]) -> str:
    """What is isolated, and what that should save, in one line."""
    isolated = {m.name: (~active[m.name]).nonzero().flatten().tolist() for m in maps}
    count, total = sum(map(len, isolated.values())), sum(zone_map.count for zone_map in maps)
    share = isolated_share(maps, active)
    saved = f"at best {100 * saving(policy.zone, policy.mode, share):.0f} % of their layers' multiply-adds saved"
    if policy.zone == "credit" and not count:
        return "credit goes back in time as a whole; nothing is isolated"
    if policy.zone == "credit":
        left = {"cell": "along the cell alone", "none": "not at all"}[policy.mode]
        return f"credit goes back in time {left} in {count} of {total} layers; {saved}"
    if policy.zone == "step":
        return f"backward over the last {total - count} of {total} time steps; {saved}"
    what = f"{count} of {total} {policy.zone}s"
    if policy.zone == "layer":
        (layers,) = maps
        what += f" ({', '.join(layers.covered[k].name for k in isolated[layers.name]) or 'none'})"
    effect = _EFFECT[policy.mode] + ("" if policy.mode == "masked" else f"; {saved}")
    return f"{what} isolated, {100 * share:.0f} % of the weights of their layers: {effect}"

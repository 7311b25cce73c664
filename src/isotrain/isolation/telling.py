"""Telling modules what they need not compute: the modes in which isolation saves time."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from isotrain.errors import InputError
from isotrain.isolation.policy import Policy
from isotrain.isolation.zones import ZoneMap

Active = Mapping[str, Tensor]  # zone map -> bool a zone, True = updated


class Listeners:
    """The modules that leave gradients uncomputed when told to. In mode ``"masked"`` there are none.

    A module is told through its ``isolate(layer=, units=, mode=, steps=)``. One without it can have its whole layer
    isolated all the same, if it is no stack of layers: autograd computes no gradient of a parameter that does not
    require one.

    Raises:
        InputError: a module that can neither.
    """

    def __init__(self, model: nn.Module, policy: Policy, maps: Sequence[ZoneMap]) -> None:
        self._policy, self._maps = policy, maps
        names = dict.fromkeys(name for zone_map in maps for name, _ in zone_map.layers)
        modules = dict(model.named_modules())
        self._modules = {name: modules[name] for name in names} if policy.mode != "masked" else {}
        for name, module in self._modules.items():
            switchable = policy.zone == "layer" and not isinstance(module, nn.RNNBase)
            if not hasattr(module, "isolate") and not switchable:
                raise InputError(
                    f"mode={policy.mode!r} cannot isolate in {name or 'the module'!r}: {type(module).__name__} has "
                    "no isolate(); use isotrain.lstm.LSTM, or mode='masked'"
                )

    def tell(self, active: Active) -> None:
        """What is isolated from now on."""
        for name, module in self._modules.items():
            if hasattr(module, "isolate"):
                module.isolate(**self._order(name, active))
            else:
                trains = name not in self._isolated_layers(active)
                for p in module.parameters(recurse=False):
                    p.requires_grad_(trains)

    def _order(self, module: str, active: Active) -> dict[str, Any]:
        """What ``module.isolate`` is called with; nothing thaws it."""
        isolated = [(m, active[m.name]) for m in self._maps if not active[m.name].all()]
        if not isolated:
            return {}
        if self._policy.zone == "step":
            steps = {"steps": int(isolated[0][1].sum())}
            return steps | {"mode": self._policy.mode} if self._policy.carried else steps
        if self._policy.zone == "layer":
            return {"layer": tuple(self._isolated_layers(active).get(module, ()))}
        units = {
            index: (~choice).nonzero().flatten()
            for zone_map, choice in isolated
            for name, index in zone_map.layers
            if name == module
        }
        return {"units": units, "mode": self._policy.mode}

    def _isolated_layers(self, active: Active) -> dict[str, list[int]]:
        """Module -> its isolated layers."""
        found: dict[str, list[int]] = {}
        for zone_map in self._maps:
            for (name, index), trains in zip(zone_map.layers, active[zone_map.name].tolist(), strict=True):
                if not trains:
                    found.setdefault(name, []).append(index)
        return found

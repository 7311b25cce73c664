"""Which modules of a network are divided, and which cannot be."""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

from torch import nn
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized
from torch.nn.utils.prune import BasePruningMethod
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from isotrain.errors import InputError
from isotrain.isolation.zones.layers import Layer, meaning_of

_NAMES_SHOWN = 10


def chosen_modules(module: nn.Module, modules: Sequence[str] | None, kind: str = "layer") -> dict[str, nn.Module]:
    """The submodules to divide into zones of one kind, by their dotted names, from the input upwards.

    Args:
        module: the network.
        modules: dotted names, or patterns ("encoder.*", as :mod:`fnmatch` reads them, ``*`` matching dots too). A
            name must have zones of that kind; a pattern takes those that have from among all that it matches. None:
            every recurrent module, or, in a network without any, every module that has zones of that kind.
        kind: by default "layer", which every module that owns parameters has.

    Raises:
        InputError: a name or a pattern that matches nothing, nothing that can be divided so, a module whose weights
            are computed from other parameters.
    """
    known = dict(module.named_modules())
    if isinstance(modules, str) or (modules is not None and not modules):
        raise InputError(f"modules={modules!r}: give a list of names or patterns, or None")
    if modules is None:
        recurrent = [name for name, part in known.items() if isinstance(part, nn.RNNBase)]
        chosen = recurrent or [name for name, part in known.items() if kind in kinds_of(part)]
        if not chosen:
            raise InputError(
                f"{type(module).__name__} has no recurrent module and no other with zones of kind {kind!r}; "
                f"its modules have {_kinds(known.values())}"
            )
    else:
        asked = {name for word in modules for name in _matches(module, known, word, kind)}
        chosen = [name for name in known if name in asked]
    for name in chosen:
        _refuse(name, known[name], kind)
    return {name: known[name] for name in chosen}


def kinds_of(module: nn.Module) -> tuple[str, ...]:
    """The kinds of zone of a module; none if it owns no parameters."""
    owns = computes_weights(module) or any(True for _ in module.parameters(recurse=False))
    return meaning_of(module).kinds if owns else ()


def computes_weights(module: nn.Module) -> bool:
    """Whether a parametrisation, a weight or spectral norm or a pruning makes its weights from other parameters."""
    hooks = module._forward_pre_hooks.values()
    return (
        is_parametrized(module)
        or isinstance(module, ParametrizationList)
        or any(isinstance(hook, (WeightNorm, SpectralNorm, BasePruningMethod)) for hook in hooks)
    )


def refuse_uninitialised(module: nn.Module) -> None:
    for name, p in module.named_parameters():
        if is_lazy(p):
            raise InputError(f"{name} is not initialised yet: run the network once on a batch, then ask for its zones")


def refuse_shared(module: nn.Module, layers: Iterable[Layer]) -> None:
    """Refuse a parameter that several modules own: isolated for one, it would be isolated for the others too."""
    owned = {name for layer in layers for name in layer.parts}
    first: dict[int, str] = {}
    places: list[tuple[str, str]] = []
    for prefix, part in module.named_modules():
        for key, p in part.named_parameters(prefix, recurse=False, remove_duplicate=False):
            if id(p) in first:
                places.append((key, first[id(p)]))
            first.setdefault(id(p), key)
    for again, before in places:
        if again in owned or before in owned:
            raise InputError(
                f"{again} is {before}, one tensor at two places of the network: isolate neither (name other modules), "
                "or untie them"
            )


def _matches(module: nn.Module, known: Mapping[str, nn.Module], word: str, kind: str) -> list[str]:
    if word in known:
        return [word]
    matching = [name for name in known if fnmatchcase(name, word)]
    if not matching:
        names = [name for name, part in known.items() if name and kinds_of(part)]
        more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
        raise InputError(
            f"modules: {type(module).__name__} has no submodule {word!r}; "
            f"it has {', '.join(names[:_NAMES_SHOWN]) or 'none with parameters'}{more}"
        )
    able = [name for name in matching if kind in kinds_of(known[name])]
    if not able:
        raise InputError(
            f"modules: nothing that {word!r} matches has zones of kind {kind!r}; "
            f"there is {_kinds(known[name] for name in matching)}"
        )
    return able


def _refuse(name: str, part: nn.Module, kind: str) -> None:
    label = f"{name or 'the module'} ({type(part).__name__})"
    if computes_weights(part):
        raise InputError(
            f"{label} computes its weights from other parameters (a parametrisation, a norm or a pruning): an isolated "
            "part of those would not keep the weights; remove it, or name other modules"
        )
    kinds = kinds_of(part)
    if not kinds:
        inside = f"{name}.*" if name else "*"
        raise InputError(f"{label} owns no parameters itself; name what is in it, for instance {inside!r}")
    if kind not in kinds:
        raise InputError(f"{label} has no zones of kind {kind!r}; it has {', '.join(kinds)}")


def _kinds(parts: Iterable[nn.Module]) -> str:
    found = {kind: None for part in parts for kind in kinds_of(part)}
    return ", ".join(found) or "none: they own no parameters"

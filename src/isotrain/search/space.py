"""The search space: from a trial, or a method, to values by dotted path, and from these to the settings of a fit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isotrain.config import Settings, decisive
from isotrain.config.params import MethodsView
from isotrain.config.search import Dimension, in_order, is_whole
from isotrain.errors import InputError

if TYPE_CHECKING:
    import optuna

Choose = Callable[[str, str, Dimension], Any]


@dataclass(frozen=True)
class Space:
    """What trials vary: dimensions over the settings of one method, the base.

    Attributes:
        methods: the sections and methods of params.yaml.
        base: the method whose values stay where no dimension sets one.
        dimensions: dotted path -> variants, of which at most one holds at a time. Their order does not matter:
            :func:`~isotrain.config.search.in_order` gives the order in which they are sampled.

    Example:
        >>> from isotrain.search.study import place
        >>> space = place("params.yaml").space
        >>> space.point("small")["model.hidden"]
        24
        >>> space.settings({"training.steps": 40}).training.steps
        40
    """

    methods: MethodsView
    base: str
    dimensions: Mapping[str, list[Dimension]]

    def suggest(self, trial: "optuna.Trial") -> dict[str, Any]:
        """Dotted path -> value, sampled by ``trial``; fixed values are included."""

        def ask(name: str, path: str, dimension: Dimension) -> Any:
            if not dimension.is_range:
                return trial.suggest_categorical(name, dimension.ends)
            suggest = trial.suggest_int if is_whole(path) else trial.suggest_float
            limits: dict[str, Any] = {"log": dimension.log} | ({"step": dimension.step} if dimension.step else {})
            return suggest(name, dimension.low, dimension.high, **limits)  # type: ignore[arg-type]

        return self._walk(ask)[0]

    def settings(self, overrides: Mapping[str, Any]) -> Settings:
        """The settings of the base with ``overrides`` (dotted path -> value).

        Raises :class:`InputError` for values that do not go together, such as a start after the stop.
        """
        return self.methods.settings(self.base, overrides)

    def point(self, method: str) -> dict[str, Any]:
        """The point of ``method`` in the space: name of a parameter in the study -> value, ready to be queued.

        Raises :class:`InputError`, naming the paths, for a method that is not in the space.
        """
        target = decisive(self.methods.whole_settings(method))

        def read(_: str, path: str, dimension: Dimension) -> Any:
            if not dimension.has(target[path]):
                raise self._outside(method, f"its {path} = {target[path]} is not {dimension}")
            return target[path]

        overrides, asked = self._walk(read)
        try:
            reached, wanted = decisive(self.settings(overrides)), decisive(self.methods.settings(method))
        except InputError as problem:
            raise self._outside(method, str(problem)) from None
        apart = [path for path in dict.fromkeys([*wanted, *reached]) if reached.get(path) != wanted.get(path)]
        if apart:
            raise self._outside(method, f"it differs from {self.base} in {', '.join(apart)}, which no dimension varies")
        return asked

    def describe(self) -> dict[str, Any]:
        """The dimensions as plain values; two spaces are the same if these are equal."""
        return {
            path: [variant.model_dump(exclude_unset=True) for variant in variants]
            for path, variants in self.dimensions.items()
        }

    def base_values(self) -> dict[str, Any]:
        """Dotted path -> value of those settings of the base that decide a result."""
        return decisive(self.methods.whole_settings(self.base))

    def _walk(self, choose: Choose) -> tuple[dict[str, Any], dict[str, Any]]:
        """Dotted path -> value of every dimension, and name in the study -> value of those that were chosen."""
        values, overrides, asked = self.base_values(), {}, {}
        for path in in_order(self.dimensions):
            variants = self.dimensions[path]
            for variant in variants:
                if not variant.holds(values):
                    continue
                name = parameter_name(path, variant, alone=len(variants) == 1)
                value = variant.value if variant.is_fixed else choose(name, path, variant)
                values[path] = overrides[path] = value
                if not variant.is_fixed:
                    asked[name] = value
                break
        return overrides, asked

    def _outside(self, method: str, reason: str) -> InputError:
        return InputError(
            f"params.yaml: search.known names {method}, which is not in search.space: {reason}; widen the space, or "
            "leave the method out of known"
        )


def parameter_name(path: str, variant: Dimension, *, alone: bool) -> str:
    """The name in Optuna: the dotted path, or ``path@condition`` for one of several variants."""
    if alone:
        return path
    return f"{path}@" + ",".join("+".join(map(str, variant.when[read])) for read in sorted(variant.when))


def path_of(parameter: str) -> str:
    """The dotted path of a parameter of the study."""
    return parameter.partition("@")[0]

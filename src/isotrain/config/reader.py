"""A YAML file as mappings, lists and numbers: only what a file of settings needs, everything else refused by its line.

Anchors, tags and nesting are what makes YAML grow without bound, or run code: a file of settings needs none of them.
"""

import re
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from isotrain.errors import InputError
from isotrain.files import read_plain, reading

LARGEST = 2**20  # bytes; the settings of this project are 20 kB
DEEPEST = 20  # levels; those of this project are 6


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent):
            raise yaml.MarkedYAMLError(problem="an alias: write the value out", problem_mark=mark)
        if getattr(event, "tag", None):
            raise yaml.MarkedYAMLError(problem=f"a tag, {event.tag[:40]}: leave it out", problem_mark=mark)
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"more than {DEEPEST} levels of nesting", problem_mark=mark)
        self.depth += 1
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a key that is no word", problem_mark=key.start_mark)
            if key.value in seen:
                name = str(key.value)[:80]
                first = seen[key.value].start_mark.line + 1
                problem = f"the key {name!r} is there already, in line {first}: leave one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen[key.value] = key
        return super().construct_mapping(node, deep)


# as YAML 1.2, and as DVC writes them: 1e-05 is a number without a point too
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?[0-9]+[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping that the file ``path`` holds.

    Raises :class:`InputError`, in one line that names the line of the file, if it is absent, larger than 1 MB, not
    UTF-8, no YAML, deeper than 20 levels, holds a key twice, an alias or a tag, or is no mapping.
    """
    try:
        with reading(path, "put the file of settings there"):
            content = read_plain(path)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist: run from the project's folder") from None
    if len(content) > LARGEST:
        raise InputError(f"{path} has {len(content) / 2**20:.0f} MB: a file of settings has less than 1")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as problem:
        line = content.count(b"\n", 0, problem.start) + 1
        raise InputError(f"{path} line {line} is not UTF-8: save the file in that encoding") from None
    loader = None
    try:
        with reading(path, "correct it"):  # numbers and dates that are none
            try:
                loader = _Loader(text)
                values = loader.get_single_data()
            except yaml.MarkedYAMLError as problem:
                mark = problem.problem_mark or problem.context_mark
                at = f" line {mark.line + 1}" if mark else ""
                said = problem.problem or problem.context
                raise InputError(f"{path}{at} is not valid YAML here: {said}") from None
            except yaml.YAMLError as problem:
                raise InputError(f"{path} is not valid YAML: {' '.join(str(problem).split())[:200]}") from None
    finally:
        if loader is not None:
            loader.dispose()
    if not isinstance(values, dict):
        raise InputError(f"{path} must hold sections (key: value), found {type(values).__name__}")
    return values

"""params.yaml as a file: what is no plain YAML of settings is refused by its line, in a moment, in one line."""

from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from isotrain.config import load
from isotrain.config.reader import read_yaml
from isotrain.errors import InputError

PARAMS = Path(__file__).parents[1] / "params.yaml"
# each line twice the one before: 32,768 values in the last
LAUGHS = "a: &a [x, x]\n" + "".join(f"{c}: &{c} [*{p}, *{p}]\n" for p, c in pairwise("abcdefghijklmnop"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"model: {hidden: 6}\nname: caf\xe9\n", "line 2 is not UTF-8"),
        (b"\xff\xfea\x00", "line 1 is not UTF-8"),
        (b"model: {hidden: 6}\nmodel: {hidden: 7}\n", "line 2 .*'model' is there already, in line 1"),
        (b"model:\n  hidden: 6\n  layers: 1\n  hidden: 7\n", "line 4 .*'hidden' is there already, in line 2"),
        (b"a: !!python/object/apply:os.system ['touch owned']\n", "line 1 .*a tag"),
        (b"a: !!int seven\n", "line 1 .*a tag"),
        (b"a: !!timestamp never\n", "line 1 .*a tag"),
        (b"a: 2019-02-31\n", "cannot be read.*day"),
        (b"a: " + b"9" * 5000 + b"\n", "cannot be read.*limit"),
        (b"a: " + b"[" * 10000 + b"\n", "levels of nesting"),
        (b"".join(b" " * n + b"a:\n" for n in range(200)), "levels of nesting"),
        (LAUGHS.encode(), "line 2 .*an alias"),
        (b"a: &a\n  b: *a\n", "an alias"),
        (b"{a: 1, [b]: 2}\n", "a key that is no word"),
        (b"a: 1\n? b\n: [\n", "not valid YAML"),
        (b"a: \x07\n", "not valid YAML"),
        (b"- a\n- b\n", "must hold sections .* found list"),
        (b"", "found NoneType"),
        (b"a: b\n--- \nc: d\n", "not valid YAML"),
        (b"a: x\n" * 300_000, "has 1 MB"),
    ],
)
def test_what_is_no_file_of_settings_is_refused_in_a_moment_and_in_a_line(
    content: bytes, words: str, tmp_path: Path
) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        load(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 1000
    assert not (tmp_path / "owned").exists()


def test_a_plain_file_is_what_any_reader_of_yaml_says() -> None:
    """Against PyYAML's own safe loader."""
    assert read_yaml(PARAMS) == yaml.safe_load(PARAMS.read_text())

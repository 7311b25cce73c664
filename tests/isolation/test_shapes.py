"""A wrong shape is refused by the annotations themselves, when they are checked."""

import subprocess
import sys

PROGRAM = """
from jaxtyping import TypeCheckError, install_import_hook
install_import_hook("isotrain.isolation", "beartype.beartype")
import torch
from isotrain.isolation.selection import select
from isotrain.isolation.zones import zones

(unit_map,) = zones(torch.nn.LSTM(2, 3), "unit")
unit_map.expand(torch.ones(3, dtype=torch.bool))
for wrong in (lambda: select({"a": torch.zeros(2, 3)}, 0.5), lambda: unit_map.expand(torch.ones(3))):
    try:
        wrong()
    except TypeCheckError:
        continue
    raise SystemExit("a wrong shape went through")
"""


def test_annotations_are_checked() -> None:
    """In a process of its own: the hook acts on what is imported after it, and other tests came before."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_mathematics_does_not_import_lightning() -> None:
    program = (
        "import sys; from isotrain.isolation.optimisers import MaskedAdam; import isotrain.isolation.criteria; "
        "sys.exit('pytorch_lightning' in sys.modules or 'pandas' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0

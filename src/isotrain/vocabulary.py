"""Words that params.yaml and the code share: which backward modes a kind of zone has."""

MODES_OF_ZONE: dict[str, tuple[str, ...]] = {
    "arc": ("masked",),
    "row": ("masked",),
    "column": ("masked",),
    "tile": ("masked",),
    "gate": ("masked",),
    "unit": ("masked", "exact", "cut", "autonomous"),
    "channel": ("masked",),
    "kernel": ("masked",),
    "layer": ("masked", "exact"),
    "step": ("exact", "autonomous"),
}

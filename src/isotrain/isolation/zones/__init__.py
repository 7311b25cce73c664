"""Zones: which arcs are isolated together, in any network."""

from isotrain.isolation.zones.choosing import chosen_modules
from isotrain.isolation.zones.division import KINDS, zones
from isotrain.isolation.zones.uses import count_uses
from isotrain.isolation.zones.zonemap import COUNTS, ZoneMap

__all__ = ["COUNTS", "KINDS", "ZoneMap", "chosen_modules", "count_uses", "zones"]

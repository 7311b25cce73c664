"""A trained forecaster adapted to a new series: its data choose what to thaw, the rest is isolated and remembered.

Open ``adapt.py`` first: from a bundle and a file to a new bundle. ``many.py`` does that for a folder, ``monthly.py``
for one series whenever hours are added. ``choose.py`` is the rule, ``candidates.py`` what may be thawed and how it is
fitted, ``memory.py`` what is run once and kept. docs/adapting.md says when it pays.
"""

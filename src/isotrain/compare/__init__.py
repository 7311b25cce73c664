"""Fits compared by numbers alone: targets, seconds to them, speed-ups, differences of errors, the trade-off's front.

In: the folders that fits and baselines left, each with a ``result.json`` or a row of ``baselines.json``. Out: typed
values with bootstrap intervals, which :mod:`isotrain.report` puts into words and pictures. Open ``results.py`` first
(what a fit recorded, and what weakens a comparison), then ``comparison.py`` (methods, roles, targets); ``accuracy.py``
holds the errors of every forecast, ``searched.py`` a search's points, ``statistics.py`` the mathematics.
"""

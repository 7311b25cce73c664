"""A trained forecaster adapted to a new series: what to thaw, by statistics; the rest isolated and remembered."""

"""From a raw series to windows: what a forecaster may know, and when.

In goes a CSV of hourly or finer readings, described by the section ``ingest`` of params.yaml, or the settings of a
simulated building. Out comes first a tidy table, hourly, without gaps, repaired from the past alone, with a flag for
every fault (:func:`.ingest.ingest`); then :class:`.windows.Windows`: arrays of features, targets and origins by part
(:func:`.windowing.make_windows`). Reading windows takes numpy alone; everything else here uses pandas.

Open ``windows.py`` first: it says what each array holds and at which hour each row is known. Then ``features.py``,
where every feature is one small function, and ``source.py``, which reads files and refuses what cannot be read.
"""

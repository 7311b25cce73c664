"""The search for settings that are worth their training time: a study, its workers, and its points on fresh seeds.

In: section ``search`` of params.yaml and the windows of the stage ``window``. Out: the study's folder below
``results/search`` (trials, leases, logs, fits on fresh seeds), and what it found as a
:class:`~isotrain.compare.searched.Searched`, which :mod:`isotrain.report.search` prints. Open ``worker.py`` first: its
:func:`~isotrain.search.worker.work` is the loop over trials. ``study.py`` and ``storage.py`` keep the study,
``space.py`` samples, ``objective.py`` and ``cost.py`` train and time a trial, ``recovery.py`` queues lost trials again,
``results.py`` and ``confirm.py`` sum a study up.
"""

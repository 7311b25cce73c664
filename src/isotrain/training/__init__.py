"""Training: one fit, and all fits of a study.

In: the settings of a method, a seed and :class:`~isotrain.data.windows.Windows`. Out: a folder with ``result.json``,
forecasts, checkpoint and bundle, and a run of MLflow. Open ``fit.py`` first (one fit), then ``fits.py`` (every method
with every seed, each in a process of its own) and ``baselines.py``. ``clock.py`` times a fit, ``result.py`` scores it,
``checkpoints.py`` resumes it, ``graphed.py`` replays its steps on a GPU; ``machine.py`` describes and locks the
machine; ``tracking.py`` writes runs to disk and
``outbox.py`` sends them to MLflow.
"""

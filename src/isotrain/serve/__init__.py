"""A trained forecaster in use.

In go a bundle (the result folder of a fit) and a newer file of the series; out come the forecast of the next hours
and its interval, as a table or a figure. The same bundle can be logged, registered and served as an MLflow model.

Open ``predict.py`` first; ``registry.py`` logs a model to MLflow and fetches it, ``pyfunc_model.py`` is what MLflow
runs.
"""

"""A trained forecaster in use: what it needs to be kept with, forecasts of new data, MLflow's form of it."""

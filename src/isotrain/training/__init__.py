"""One fit: a method, a seed and windows in; a result, a forecaster and an MLflow run out. Open fit.py first."""

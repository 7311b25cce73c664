"""The forecaster, the Lightning module around it, and the baselines it must beat."""

"""Is any criterion better than chance? One fit a criterion, schedule and seed, all of the same steps."""

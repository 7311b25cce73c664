"""What a comparison of training methods means: results, targets, intervals, the front. Knows numpy only."""

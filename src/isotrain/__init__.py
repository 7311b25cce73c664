"""isotrain: leave zones of a network out of training, and measure what that does to time and accuracy."""

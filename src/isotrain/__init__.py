"""isotrain: isolate (freeze) parts of a network while it trains, and measure what that does to time and accuracy.

The library is :mod:`isotrain.lstm` (an LSTM that can leave parts out of its backward pass) and
:mod:`isotrain.isolation` (which weights are isolated when, and the optimisers for it); open these first. All other
packages are the study: data, forecasters, training, search and reports.
"""

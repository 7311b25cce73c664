"""LSTM kernels of our own for CPUs: what is isolated is not computed."""

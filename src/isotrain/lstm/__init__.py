"""LSTM layers that can leave zones out of the backward pass, and the runtime that they run in."""

from isotrain.lstm.layer import LSTM

__all__ = ["LSTM"]

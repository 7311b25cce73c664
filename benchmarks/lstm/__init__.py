"""How fast one training step of an LSTM is: stock, tuned and native, whole and with zones isolated.

See ``benchmarks/README.md``; ``python -m benchmarks.lstm.run --help``.
"""

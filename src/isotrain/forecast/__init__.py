"""The forecaster of the next hours, its training as a Lightning module, and its intervals.

In go :class:`isotrain.data.windows.Windows` and the section ``model`` of params.yaml; out come forecasts of every
lead at every origin, in kW, and afterwards intervals around them from the errors on the validation part. A finished
fit leaves a *bundle*: a folder with everything that a forecast of new data needs, and no code.

Open ``network.py`` first (encoder and decoder together), then ``encoders.py`` (the LSTM and its rivals), ``series.py``
(what both read), ``stretches.py`` (which hours a training step covers: windowed or streamed), ``module.py`` (loss,
validation, optimiser), ``forecasts.py`` (scores), ``intervals.py`` and ``bundle.py``.
"""

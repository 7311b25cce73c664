"""The benchmark of training on a GPU: ``run.py`` is the command, ``steps.py`` says what is timed."""

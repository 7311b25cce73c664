"""Pages and figures for people: what the stages found, in words, tables and pictures.

In: typed values of :mod:`isotrain.compare`, folders of fits, tidy tables. Out: Markdown, one HTML page that needs no
other file, JSON, PNG and SVG. Open ``page.py`` first (the report of a study, in its order), then ``words.py`` (its
sentences), ``tables.py`` and ``figures.py``; ``isolation.py`` draws what was isolated when, ``search/`` is a search's
report.
"""

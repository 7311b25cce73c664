"""The report of a search: its front, its points on fresh seeds, and which settings matter.

In: a :class:`~isotrain.compare.searched.Searched`. Out: ``search.html``, ``search.md``, ``search.json`` and the figures
in ``search/``. Open ``page.py`` first; ``words.py`` has the sentences and verdicts, ``figures.py`` the figures.
"""

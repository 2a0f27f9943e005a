"""The language for engineers: text in, samples out. Pure: no I/O.

::

    text ──grammar──► tree ──check──► plan ──evaluate──► samples
                       (names, places)  (units, windows, kinds)   (NumPy columns, all assets at once)

What the language means is said in ``docs/formula.md``.
"""

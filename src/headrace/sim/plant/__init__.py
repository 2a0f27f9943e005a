"""The physics of the simulated site: pure, deterministic from a seed, no clock and no I/O.

One file a kind of machine; :mod:`plant` couples them. Every ``step`` takes the elapsed seconds and
gives what the machine's own sensors show, noise included.
"""

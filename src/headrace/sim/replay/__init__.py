"""Recordings served by real protocol servers, so that real data come in by the real door.

:mod:`loader` reads a file, :mod:`layout` gives its columns addresses and writes the site file's part,
:mod:`player` shows row after row with flow control.
"""

"""Headrace: an open industrial internet platform.

Rooms (packages) import only to their left:
``model < security, formula < bus < edge, historian < site < console < cli``.
``tests/test_house.py`` holds the rule; ``ARCHITECTURE.md`` tells one sample's life.
"""

__version__ = "0.1.0"

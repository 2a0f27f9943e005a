"""Alarms after ISA-18.2 (IEC 62682): states, journal, commands, metrics.

::

    results of conditions ──engine──► transitions ──store──► journal and states ──► who tells people
    commands of people    ──────┘     (machine's table)      (one transaction)

The machine and the engine are pure and know no clock but source time. One process, the apps role, holds
an :class:`~headrace.alarms.runtime.AlarmRuntime` and writes; any number read the store.
``docs/alarms.md`` says what it means.
"""

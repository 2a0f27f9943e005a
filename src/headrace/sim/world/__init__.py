"""A seeded world around the real edge, bus client, writer, tail and Sparkplug session.

What is real and what is simulated stands in ``docs/simulation.md``. Start with
:func:`headrace.sim.world.runner.run_plan`.
"""

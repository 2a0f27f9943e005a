"""What a decision of the policy costs: first time and again, with and without own policies; one core.

python bench/policy.py
"""

from __future__ import annotations

import time

from headrace.security.engine import Engine
from headrace.security.policy_text import PolicySet
from headrace.security.rights import Actor, Grant

ASKED = 5_000
PLACE = "utilities/pumping/pump_1"
OWN = (
    '@id("p{n}") forbid (principal == Person::"p{n}", action == Action::"write", resource is Tag);'
)


def main() -> None:
    """Print the figures."""
    own = PolicySet({"own.cedar": "\n".join(OWN.format(n=n) for n in range(200))})
    actor = Actor("leo", "viewer", grants=(Grant("operator", "utilities"),))
    for name, policies in (("built-in", PolicySet()), ("and 200 own", own)):
        engine = Engine(policies)
        for again in ("first", "again"):
            start_s = time.perf_counter()
            for tag_id in range(ASKED):
                engine.decide(actor, "write", f"tag/{tag_id}", {"equipment": PLACE})
            cost_us = (time.perf_counter() - start_s) / ASKED * 1e6
            print(f"{name}, {again}: {cost_us:.1f} us a decision")


if __name__ == "__main__":
    main()

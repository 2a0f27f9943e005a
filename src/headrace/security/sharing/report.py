"""The document for who asks who pays: what was shared, under which terms, what was read; from the chain."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.model.time import to_datetime
from headrace.security.audit import AuditEntry, Checkpoint, Verdict
from headrace.security.sharing.contract import SharingContract, Standing, State


def liability_report(
    contract: SharingContract,
    standing: Standing,
    state: State,
    entries: Sequence[AuditEntry],
    verdict: Verdict,
    checkpoint: Checkpoint | None,
) -> str:
    """Markdown.

    Args:
        entries: of the chain on ``share/<id>``, oldest first.
        verdict, checkpoint: of the whole chain at this moment.
    """
    terms = contract.terms
    level = f"{terms.aggregate} of {terms.every_us / 1e6:g} s" if terms.every_us else "samples"
    if terms.samples_min:
        level += f", only windows of {terms.samples_min:,} samples or more"
    reads = [e for e in entries if e.action == "share.read" and e.outcome == "done"]
    denied = [e for e in entries if e.action == "share.read" and e.outcome == "denied"]
    whole = "whole" if not verdict.flaws else f"BROKEN at {len(verdict.flaws)} places"
    lines = [
        f"# Sharing contract {contract.id}",
        "",
        f"{terms.offerer} shares with {terms.partner}, for: {terms.purpose}",
        "",
        f"* State: **{state}**; rows read: {standing.rows_used:,} of {terms.rows_max:,}",
        f"* May be read from {_at(terms.from_us)} until {_at(terms.until_us)} (UTC)",
        f"* Data from {_at(terms.data_from_us)} until {_at(terms.data_until_us)}, as {level}",
        f"* Signed by {terms.offerer} with key {terms.offerer_key[:16]}, "
        f"by {terms.partner} with key {terms.partner_key[:16]}",
        "",
        "## Tags",
        "",
        *(f"* {path}" for path, _ in terms.tags),
        "",
        f"## What was read: {len(reads)} reads, {sum(e.facts().get('rows', 0) for e in reads):,} rows",
        "",
        "| entry | at (UTC) | door | tags | rows | data from | to | SHA-256 of the answer |",
        "|---|---|---|---|---|---|---|---|",
        *(_read(entry) for entry in reads),
        "",
        f"Refused requests: {len(denied)}",
        "",
        "## What else happened",
        "",
        *(
            f"* {_at(e.at_us)}: {e.action} by {e.actor} {e.facts().get('reason', '')}".rstrip()
            for e in entries
            if e.action != "share.read"
        ),
        "",
        "## Evidence",
        "",
        f"The audit chain is {whole}: {verdict.entries:,} entries, the newest with digest "
        f"`{verdict.digest}`.",
    ]
    if checkpoint is not None:
        lines.append(f"Checkpoint: entry {checkpoint.number}, signature `{checkpoint.signature}`.")
    return "\n".join(lines) + "\n"


def _read(entry: AuditEntry) -> str:
    facts = entry.facts()
    span = f"{_at(facts.get('start_us', 0))} | {_at(facts.get('end_us', 0))}"
    about = f"{facts.get('door')} | {facts.get('tags')} | {facts.get('rows'):,}"
    return f"| {entry.number} | {_at(entry.at_us)} | {about} | {span} | `{facts.get('sha256')}` |"


def _at(at_us: int) -> str:
    return to_datetime(at_us).strftime("%Y-%m-%d %H:%M:%S")

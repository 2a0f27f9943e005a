"""Sharing contracts between companies: what a partner may read, signed by both, metered and told.

``contract.py`` is the document and its states, ``enforcement.py`` decides each request (both pure),
``book.py`` keeps contracts, meters and tokens beside the audit chain, ``report.py`` writes what was shared,
under which terms, and what was read.
"""

from headrace.security.sharing.book import SharingBook
from headrace.security.sharing.contract import SharingContract, Terms, sign_offer, sign_partner
from headrace.security.sharing.enforcement import Granted, SharingRequest, allow
from headrace.security.sharing.report import liability_report

__all__ = [
    "Granted",
    "SharingBook",
    "SharingContract",
    "SharingRequest",
    "Terms",
    "allow",
    "liability_report",
    "sign_offer",
    "sign_partner",
]

"""Packages that this installation can have and has, publishers that it trusts, and other catalogs."""

from headrace.apps.catalog.certified import check_certificate, check_publishable
from headrace.apps.catalog.entries import CatalogEntry, entry_of
from headrace.apps.catalog.installing import Catalog, Installation
from headrace.apps.catalog.publishers import Publishers
from headrace.apps.catalog.registry import Registry, check_needs
from headrace.apps.catalog.seen import Seen
from headrace.apps.catalog.sources import CatalogIndex, Source, write_catalog

__all__ = [
    "Catalog",
    "CatalogEntry",
    "CatalogIndex",
    "Installation",
    "Publishers",
    "Registry",
    "Seen",
    "Source",
    "check_certificate",
    "check_needs",
    "check_publishable",
    "entry_of",
    "write_catalog",
]

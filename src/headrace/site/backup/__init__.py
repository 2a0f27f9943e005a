"""Backups of a whole installation while it runs, sealed and signed; and the way back.

``repository.py`` is where they lie, ``collect.py`` makes one, ``restore.py`` puts one back. How to recover
a plant step by step: docs/backup.md. Why it is so: ADR 0028.
"""

from headrace.site.backup.collect import create_backup
from headrace.site.backup.repository import BackupHead, Repository
from headrace.site.backup.restore import restore_backup, verify_backup

__all__ = ["BackupHead", "Repository", "create_backup", "restore_backup", "verify_backup"]

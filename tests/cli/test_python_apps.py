"""The runtime is started for an app with Python, and for nothing else."""

from __future__ import annotations

import os
import zipfile

import pytest

from headrace.cli.python_apps import PythonApps

SITE = '[site]\nenterprise = "a"\nname = "b"\n'


@pytest.mark.parametrize(
    ("head", "more", "expected"),
    [
        ('python = "x"\n', '[app.load]\nversion = "1.0.0"\n', True),
        ('python = "x"\n', '[app.load]\nversion = "1.0.0"\nenabled = false\n', False),
        ('python = "x"\n', '[app.load]\nversion = "2.0.0"\n', False),
        ("", '[app.load]\nversion = "1.0.0"\n', False),
        ('python = "x"\n', "", False),
    ],
)
def test_only_an_enabled_app_with_python_counts(folder, head, more, expected):
    folder.packages.mkdir(parents=True)
    with zipfile.ZipFile(folder.packages / "load-1.0.0.hrapp", "w") as package:
        package.writestr("app.toml", head)
    folder.site_file.write_text(SITE + more)
    assert PythonApps(folder).are_there() is expected


def test_a_broken_site_file_changes_nothing(folder):
    folder.packages.mkdir(parents=True)
    with zipfile.ZipFile(folder.packages / "load-1.0.0.hrapp", "w") as package:
        package.writestr("app.toml", 'python = "x"')
    folder.site_file.write_text(SITE + '[app.load]\nversion = "1.0.0"\n')
    apps = PythonApps(folder)
    assert apps.are_there()
    folder.site_file.write_text("no [toml")
    os.utime(folder.site_file, (1, 1))
    assert apps.are_there()
    folder.site_file.write_text(SITE)
    assert not apps.are_there()
    assert not PythonApps(type(folder)(folder.root / "nothing")).are_there()

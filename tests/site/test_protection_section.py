"""``[protection.NAME]``: which tags it covers, what is wrong with it, and what an edge gets of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.site.desired import edge_configs
from headrace.site.file import SiteFiles, check_site, load_site

SITE = """\
[site]
enterprise = "acme"
name = "mill"
[connection.plc]
protocol = "bench"
endpoint = "127.0.0.1:1502"
[connection.plc_again]
protocol = "bench"
endpoint = "127.0.0.1:1502"
[[tag]]
path = "hall/line/mixer/recipe"
connection = "plc"
address = "register:0"
[[tag]]
path = "hall/line/mixer/load"
connection = "plc"
address = "register:1"
[[tag]]
path = "hall/line/mixer/speed"
connection = "plc_again"
address = "register:2"
"""


def checked(tmp_path: Path, more: str) -> list[tuple[str, int]]:
    (tmp_path / "site.toml").write_text(SITE + more)
    _, problems = check_site(SiteFiles(tmp_path / "site.toml"))
    return [(problem.code, problem.line) for problem in problems]


def test_what_an_edge_gets(tmp_path: Path) -> None:
    more = (
        '[protection.recipes]\ntags = ["**/recipe"]\nrule = "stays"\nkeep_mb = 32\n'
        '[protection.loads]\ntags = ["hall/**/load"]\nrule = "aggregated"\nfunction = "maximum"\n'
        'window_s = 30\n[protection.speeds]\ntags = ["speed"]\nrule = "encrypted"\nkey = "tenant"\n'
    )
    assert checked(tmp_path, more) == []
    model = load_site(tmp_path / "site.toml")
    ids = {tag.path: number for number, tag in enumerate(model.tags, 1)}
    plc, again = edge_configs(model, ids)["local"].connections
    assert [(r.name, r.rule, r.tag_ids, r.keep_bytes) for r in plc.protection] == [
        ("recipes", "stays", (1,), 32 << 20),
        ("loads", "aggregated", (2,), 256 << 20),
    ]
    assert (plc.protection[1].function, plc.protection[1].window_ms) == ("maximum", 30_000)
    assert [(r.rule, r.tag_ids, r.key) for r in again.protection] == [("encrypted", (3,), "tenant")]


@pytest.mark.parametrize(
    ("more", "code", "line"),
    [
        ('[protection.a]\ntags = ["nothing/*"]\nrule = "stays"\n', "SEC-1540", 23),
        ('[protection.a]\ntags = ["load"]\nrule = "aggregated"\nwindow_s = 1\n', "SEC-1541", 25),
        ('[protection.a]\ntags = ["load"]\nrule = "encrypted"\n', "SEC-1542", 22),
        (
            '[protection.a]\ntags = ["load"]\nrule = "stays"\n'
            '[protection.b]\ntags = ["**"]\nrule = "leaves"\n',
            "SEC-1543",
            26,
        ),
        (
            '[[tag]]\npath = "hall/x"\nconnection = "plc_again"\naddress = "register:1"\n'
            '[protection.a]\ntags = ["load"]\nrule = "stays"\n',
            "SEC-1544",
            27,
        ),
        ('[protection.a]\ntags = ["load"]\nrule = "stay"\n', "SITE-1005", 24),
        ('[protection.a]\ntags = ["load"]\nrule = "stays"\nfrom = 1\n', "SITE-1003", 25),
        ('[protection.a]\nrule = "stays"\n', "SITE-1004", 22),
    ],
)
def test_what_is_wrong(tmp_path: Path, more: str, code: str, line: int) -> None:
    assert checked(tmp_path, more) == [(code, line)]


FORMULAS = """
[asset_type.mixer]
quantities = { load = "%", speed = "1/min" }
formulas = '''
strain = load / 2
slow = speed / 2
alarm hot: load > 80 %
'''
[asset."hall/line/mixer"]
type = "mixer"
"""


@pytest.mark.parametrize(
    ("rule", "codes"),
    [
        ('rule = "stays"', ["SEC-1545", "SEC-1545"]),
        ('rule = "encrypted"\nkey = "tenant"', ["SEC-1545", "SEC-1545"]),
        ('rule = "aggregated"\nfunction = "maximum"\nwindow_s = 30', []),
        ('rule = "leaves"', []),
    ],
)
def test_a_formula_that_would_wait_for_what_never_comes_is_told_when_the_file_is_read(
    tmp_path: Path, rule: str, codes: list[str]
) -> None:
    units = SITE.replace('address = "register:1"', 'address = "register:1"\nunit = "%"')
    units = units.replace('address = "register:2"', 'address = "register:2"\nunit = "1/min"')
    text = f'{units}{FORMULAS}[protection.loads]\ntags = ["hall/**/load"]\n{rule}\n'
    (tmp_path / "site.toml").write_text(text)
    _, problems = check_site(SiteFiles(tmp_path / "site.toml"))
    assert [problem.code for problem in problems] == codes
    for problem, begins in zip(problems, ("strain = ", "alarm hot: "), strict=False):
        assert text.splitlines()[problem.line - 1].startswith(begins)
        assert "hall/line/mixer/load" in problem.what and "loads" in problem.what

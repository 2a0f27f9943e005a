"""An app laid on a scenario's site, by the keeper's own way: a site file with ``[app.ID]``, and the package
beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec

from headrace.bench.ground import SITE_FILE, Ground
from headrace.bench.scenario import Bind, Scenario
from headrace.model.app_manifest import AppManifest
from headrace.model.deployment import AppDeployment
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import APP_DOT, AppsConfig, given_name
from headrace.site.app_assets import deployments
from headrace.site.app_package import package_name
from headrace.site.file import load_site
from headrace.site.knowledge import apps_config
from headrace.site.model import SiteModel, SiteProblems

SHOWN: Final = 4


@dataclass(frozen=True)
class Laid:
    """An app on a site.

    Attributes:
        config: its formulas and alarms. deployment: what its Python gets.
        outputs: tag_id of each Python output -> (asset, name).
    """

    config: AppsConfig
    deployment: AppDeployment
    outputs: Mapping[int, tuple[str, str]] = field(default_factory=dict)


def load_files(files: Mapping[str, bytes]) -> SiteModel:
    """The site that some files are, ``site.toml`` among them.

    Raises:
        SiteProblems: SITE-1000 with everything that is wrong.
    """
    with TemporaryDirectory() as folder:
        for name, content in files.items():
            path = Path(folder, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return load_site(Path(folder, SITE_FILE))


def ids_of(model: SiteModel, known: Mapping[str, int] | None = None) -> dict[str, int]:
    """Path -> tag_id of all tags of a site, derived ones too.

    Args:
        known: those that have one; others get the next.
    """
    ids = dict(known or {})
    for tag in (*model.tags, *model.derived):
        ids.setdefault(tag.path, len(ids) + 1)
    return ids


def lay_app(manifest: AppManifest, package: bytes, ground: Ground, scenario: Scenario) -> Laid:
    """Bind an app to the assets of a scenario's site.

    Args:
        package: its ``.hrapp`` file.

    Raises:
        Misconfigured: APPS-2410 when the site cannot have the app so; APPS-2411 when it has no asset that
            the app can serve.
    """
    name = package_name(manifest.id, manifest.version)
    text = ground.files[SITE_FILE] + app_section(manifest, scenario).encode()
    try:
        model = load_files({**ground.files, SITE_FILE: text, name: package})
    except SiteProblems as error:
        told = [f"{each.code} {each.field}: {each.what}" for each in error.problems[:SHOWN]]
        raise Misconfigured(
            "APPS-2410",
            f"{manifest.id} does not fit on the site of scenario {scenario.name}: {'; '.join(told)}",
            error.problems[0].remedy,
        ) from error
    ids = ids_of(model, ground.ids)
    deployment = deployments(model, ids)[manifest.word]
    if not deployment.assets:
        why = [f"{which}: {reason}" for which, reason in list(deployment.unserved.items())[:SHOWN]]
        raise Misconfigured(
            "APPS-2411",
            f"{manifest.id} can serve no asset of scenario {scenario.name}: {'; '.join(why) or 'none'}",
            "Map names in the scenario's [bind], or correct the units in app.toml.",
        )
    outputs = {
        tag_id: (asset.path, output)
        for asset in deployment.assets
        for output, tag_id in asset.outputs.items()
    }
    return Laid(_own(apps_config(model, ids, {}), manifest), deployment, outputs)


def _own(config: AppsConfig, manifest: AppManifest) -> AppsConfig:
    """The part of the configuration that is the app's: the site's own formulas do not run with it."""
    prefix = manifest.word + APP_DOT
    return msgspec.structs.replace(
        config,
        assets=tuple(each for each in config.assets if each.type.startswith(prefix)),
        formulas=tuple(each for each in config.formulas if each.asset_type.startswith(prefix)),
    )


def app_section(manifest: AppManifest, scenario: Scenario) -> str:
    """``[app.ID]`` of the site file, as a scenario asks for it."""
    head = f"app.{manifest.id}"
    lines = ["", f"[{head}]", f'version = "{manifest.version}"']
    if scenario.settings:
        lines.append(f"settings = {_literal(scenario.settings)}")
    for name, needed in manifest.types.items():
        bind = scenario.bind.get(name, Bind())
        fields: dict[str, Any] = {"type": bind.type or needed.package or name}
        given = msgspec.to_builtins(bind)
        fields |= {key: value for key, value in given.items() if value and key != "type"}
        lines += ["", f"[{head}.bind.{name}]"]
        lines += [f"{key} = {_literal(value)}" for key, value in fields.items()]
    return "\n".join(lines) + "\n"


def told_name(word: str, path: str) -> str:
    """Last part of a path as the app calls it.

    Example:
        >>> told_name("seal_watch", "hall/p1/seal_watch_hot"), told_name("", "hall/p1/hot")
        ('hot', 'hot')
    """
    name = path.rpartition("/")[2]
    return name.removeprefix(given_name(word + APP_DOT, "")) if word else name


def _literal(value: object) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(k)} = {_literal(v)}" for k, v in value.items())
        return f"{{ {inner} }}"
    return json.dumps(value, ensure_ascii=False)

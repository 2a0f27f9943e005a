"""An app's formulas and alarm in the running apps role, beside the site's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from apps_rig import Rig, apps, rig_on
from headrace.alarms.store import AlarmStore
from headrace.bus.broker import BrokerAddress
from headrace.bus.client import Bus
from headrace.model.folder import DataFolder
from headrace.model.sample import make_batch
from headrace.site.file import load_site
from headrace.site.knowledge import apps_config
from packages import install
from waiting import until

APP = """\
id = "heat-loss"
version = "1.0.0"
title = { en = "Heat loss" }
settings.most = { default = 5.0, unit = "kW" }

[types.heater]
package = "furnace"
quantities = { given = "kW", taken = "kW" }

[formulas]
heater = '''
loss = given - taken
mean_loss = mean(loss, 2 s)
alarm leaks: loss > most, priority high, message "It leaks"
'''
"""
SITE = """\
[site]
enterprise = "acme"
name = "mill"

[asset_type.oven]
quantities = { zufuhr = "W", abgabe = "kW" }
formulas = "loss = zufuhr * 2"

[asset."hall/o1"]
type = "oven"

[asset."hall/o2"]
type = "oven"

[connection.plc]
protocol = "modbus"
endpoint = "127.0.0.1:1502"

[app.heat-loss]
version = "1.0.0"
[app.heat-loss.bind.heater]
type = "oven"
quantities = { given = "zufuhr", taken = "abgabe" }
settings."hall/o2" = { most = 50 }
"""


@pytest.fixture
async def rig(folder: DataFolder, broker: BrokerAddress, bus: Bus) -> AsyncIterator[Rig]:
    async with rig_on(folder, broker, bus) as made:
        yield made


async def test_an_app_runs_beside_the_sites_own_formulas(rig: Rig, tmp_path: Path) -> None:
    install(tmp_path, "heat-loss", "1.0.0", APP)
    names = ("hall/o1/zufuhr", "hall/o1/abgabe", "hall/o2/zufuhr", "hall/o2/abgabe")
    tags = "".join(
        f'[[tag]]\npath = "{path}"\nconnection = "plc"\naddress = "holding:{n}:uint16"\n'
        for n, path in enumerate(names)
    )
    (tmp_path / "site.toml").write_text(SITE + tags)
    model = load_site(tmp_path / "site.toml")
    ids = {tag.path: n for n, tag in enumerate((*model.tags, *model.derived), 1)}
    config = apps_config(model, ids, {})
    await rig.put(config)
    store = AlarmStore(rig.folder)
    async with apps(rig):
        await rig.running()
        start_us = rig.clock.now_us()
        for given, taken in ((9_000.0, 5.0), (40_000.0, 5.0)):
            at_us = rig.clock.now_us()
            values = np.array([given, taken, given, taken])
            await rig.send(
                make_batch(np.arange(1, 5), np.full(4, at_us), values, received_timestamp_us=at_us)
            )
            await rig.done(at_us)
        formulas = tuple(each for each in config.formulas if each.kind == "formula")
        plain = msgspec.structs.replace(config, formulas=formulas)
        await rig.check(plain, start_us, at_us + 1, rows_min=2 * 2 * 3)
        found = rig.reader.read([ids["hall/o1/heat_loss_loss"]], start_us, at_us + 1)
        assert found["value"].to_list() == [4.0, 35.0]

        def is_raised() -> bool:
            state = store.get("hall/o1/heat_loss_leaks")
            return state is not None and state.state == "UNACK"

        await until(is_raised, 30)
        quiet = store.get("hall/o2/heat_loss_leaks")
        assert quiet is not None and quiet.state == "NORM", "it has a setting of its own"
    store.close()

"""The role ``sim``: steps the plant in real time and shows it through the emulators.

Theory: one loop ticks each 100 ms. The waveform is made at every tick, the plant steps at every
tenth. Times are those of an ideal schedule, not of the loop's own delay, so a waveform has no gaps;
after a pause of more than two seconds the schedule begins anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from headrace.bus.broker import BrokerAddress, with_client_files, write_private
from headrace.bus.client import Bus, open_bus
from headrace.bus.subjects import Subjects
from headrace.model.decoding import UNREADABLE
from headrace.model.errors import Corrupt, Misconfigured
from headrace.model.folder import DataFolder
from headrace.model.tasks import end_tasks
from headrace.model.time import US_PER_S, Clock, SystemClock
from headrace.sim.demo import prepare_ports
from headrace.sim.demo_devices import demo_devices
from headrace.sim.devices import MakeEmulator, SimDevice, emulator_maker
from headrace.sim.emulators import Value
from headrace.sim.emulators.opcua_server import build_standard_nodes
from headrace.sim.faults import Faults
from headrace.sim.plant.plant import WAVEFORM_PATH, Plant

TICK_US: Final = 100_000
TICKS_PER_STEP: Final = 10
SAVE_STEPS: Final = 10
LATE_MAX_US: Final = 2_000_000
CATCH_UP_STEPS_MAX: Final = 60


class FaultCall(msgspec.Struct, forbid_unknown_fields=True):
    """Body of the calls ``fault_start`` and ``fault_stop``.

    Attributes:
        name: of the fault. target: where. parameters: of ``fault_start``, those not default.
    """

    name: str
    target: str
    parameters: dict[str, float] = {}


class Simulation:
    """Plant, faults and devices of one data folder; no clock and no loop of its own.

    Args:
        folder: where the state is kept, ``run/plant.json``.
        make: how to make emulators.
        seed: of a plant that begins anew.

    Raises:
        Corrupt: SIM-1001 or SIM-1022 when the saved state is damaged.
    """

    def __init__(self, folder: DataFolder, make: MakeEmulator, seed: int = 1) -> None:
        self.path = folder.run / "plant.json"
        self.plant = Plant(seed)
        self.devices = {
            device.name: SimDevice(device, make, self._written)
            for device in demo_devices(self.plant)
        }
        self.faults = Faults(self.plant, self.devices)
        self.steps = 0
        self._waveform = next(
            (device, tag.address)
            for device in self.devices.values()
            for tag in device.device.tags
            if tag.path == WAVEFORM_PATH
        )
        self._load()

    def step(self, at_us: int) -> None:
        """One second of the plant, up to ``at_us``, shown by all devices."""
        values = self._advance(at_us)
        for device in self.devices.values():
            shown = {
                tag.address: tag.raw(values[tag.path])
                for tag in device.device.tags
                if not tag.sample_interval_us
            }
            device.show(shown, at_us)
        self.steps += 1
        if self.steps % SAVE_STEPS == 0:
            self.save()

    def show_waveform(self, at_us: int) -> None:
        """The waveform's next 100 ms, which end at ``at_us``."""
        device, address = self._waveform
        device.show({address: self.plant.waveform().tolist()}, at_us)

    def catch_up(self, now_us: int) -> None:
        """Go through what the last run did after its last save, so that no counter runs back."""
        if self.plant.at_us == 0:
            return
        missed = (now_us - self.plant.at_us) // US_PER_S
        for _ in range(max(0, min(missed, CATCH_UP_STEPS_MAX))):
            self._advance(self.plant.at_us + US_PER_S)

    def save(self) -> None:
        """Keep the state on disk."""
        self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        state = {"plant": self.plant.save(), "faults": self.faults.save()}
        write_private(self.path, json.dumps(state))

    def status(self) -> dict[str, Any]:
        """Devices, steps and active faults, as plain data."""
        return {
            "seed": self.plant.seed,
            "at_us": self.plant.at_us,
            "steps": self.steps,
            "faults": self.faults.save(),
            "devices": [
                {
                    "name": name,
                    "protocol": device.device.protocol,
                    "tags": len(device.device.tags),
                    "serving": device.serving,
                    "error": device.error,
                }
                for name, device in self.devices.items()
            ],
        }

    def _advance(self, at_us: int) -> dict[str, Value]:
        self.faults.before_step(1.0)
        return self.faults.after_step(self.plant.step(1.0, at_us))

    def _written(self, path: str, value: Value) -> None:
        self.plant.write(path, value)
        self.save()

    def _load(self) -> None:
        try:
            saved = json.loads(self.path.read_text())
        except FileNotFoundError:
            return
        except (OSError, ValueError) as error:
            raise Corrupt(
                "SIM-1022", f"{self.path} cannot be read", "Remove it to begin with new machines."
            ) from error
        if not isinstance(saved, dict) or not {"plant", "faults"} <= set(saved):
            raise Corrupt(
                "SIM-1022", f"{self.path} is no saved site", "Remove it to begin with new machines."
            )
        self.plant.restore(saved["plant"])
        self.faults.restore(saved["faults"])


async def run(
    folder: DataFolder,
    address: BrokerAddress,
    subjects: Subjects,
    stop: asyncio.Event,
    seed: int = 1,
    *,
    clock: Clock | None = None,
) -> None:
    """Simulate the demo site until ``stop`` is set.

    Args:
        folder: of the installation. address: of its broker. subjects: of its site.
        stop: set to end. seed: of the plant at its first start.
        clock: of the devices; the machine's own by default.

    Raises:
        Corrupt: SIM-1001, SIM-1021 or SIM-1022 when saved state or ports are damaged.
        Transient: BUS-1025 when there is no broker.
    """
    used = clock or SystemClock()
    address = with_client_files(folder, address)
    ports = prepare_ports(folder, demo_devices(Plant(seed)))
    simulation = Simulation(folder, emulator_maker(ports, address), seed)
    simulation.catch_up(used.now_us())
    devices = list(simulation.devices.values())
    # Clients of the broker begin at once. Servers wait for the OPC UA address space, which another
    # process builds meanwhile: nobody shall ask a server that cannot answer.
    building = asyncio.create_task(build_standard_nodes())
    workers = [asyncio.create_task(d.run()) for d in devices if not d.device.has_port]
    try:
        async with open_bus(address, "sim") as bus:
            await answer_calls(bus, subjects, simulation)
            ticking = asyncio.create_task(_tick(simulation, used, stop))
            await building
            workers += [asyncio.create_task(d.run()) for d in devices if d.device.has_port]
            # A worker ends only by a programmer's error: then the role ends with it.
            done, _ = await asyncio.wait([ticking, *workers], return_when="FIRST_COMPLETED")
            ticking.cancel()
            for task in done:
                task.result()
    finally:
        await end_tasks(building, *workers)
        simulation.save()


async def _tick(simulation: Simulation, clock: Clock, stop: asyncio.Event) -> None:
    at_us, tick = clock.now_us() // TICK_US * TICK_US, 0
    while not stop.is_set():
        simulation.show_waveform(at_us)
        if tick % TICKS_PER_STEP == 0:
            simulation.step(at_us)
        at_us, tick = at_us + TICK_US, tick + 1
        late_us = clock.now_us() - at_us
        if abs(late_us) > LATE_MAX_US:
            at_us, late_us = clock.now_us() // TICK_US * TICK_US, 0
        try:
            await asyncio.wait_for(stop.wait(), max(0.0, -late_us / US_PER_S))
        except TimeoutError:
            continue


async def answer_calls(bus: Bus, subjects: Subjects, simulation: Simulation) -> None:
    """Answer ``fault_list``, ``fault_start``, ``fault_stop`` and ``status`` on the bus."""
    faults = simulation.faults

    async def fault_list(body: bytes) -> bytes:
        del body
        return msgspec.json.encode(faults.list_all())

    async def fault_start(body: bytes) -> bytes:
        call = decode_call(body)
        started = faults.start(call.name, call.target, call.parameters)
        simulation.save()
        return msgspec.json.encode(started)

    async def fault_stop(body: bytes) -> bytes:
        call = decode_call(body)
        stopped = faults.stop(call.name, call.target)
        simulation.save()
        return msgspec.json.encode(stopped)

    async def status(body: bytes) -> bytes:
        del body
        return msgspec.json.encode(simulation.status())

    calls: dict[str, Callable[[bytes], Awaitable[bytes]]] = {
        "fault_list": fault_list,
        "fault_start": fault_start,
        "fault_stop": fault_stop,
        "status": status,
    }
    for verb, handler in calls.items():
        await bus.answer(subjects.sim_call(verb), handler)


def decode_call(body: bytes) -> FaultCall:
    """The body of a call.

    Raises:
        Misconfigured: SIM-1015 when it is none.

    Example:
        >>> decode_call(b'{"name":"cavitation","target":"pump_1"}').target
        'pump_1'
    """
    try:
        return msgspec.json.decode(body, type=FaultCall)
    except UNREADABLE as error:
        raise Misconfigured(
            "SIM-1015",
            f"a fault call cannot be read: {error}",
            'Send {"name": ..., "target": ..., "parameters": {...}}.',
        ) from error

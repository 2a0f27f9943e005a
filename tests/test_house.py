"""The house style, as far as a program can hold it. Each message names the remedy.

One pass over the syntax tree of every module: rooms import only to their left, drivers live in their
own place, functions and files stay short, what is banned is named with its replacement, and every
exemption says why.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "headrace"

# Each room may import the rooms in its set, and nothing else of ours.
_LEFT = ["model", "security", "formula", "bus", "edge", "historian", "site", "alarms"]
ROOMS: dict[str, set[str]] = {
    "model": set(),
    "security": {"model"},
    "formula": {"model"},
    "bus": {"model", "security", "formula"},
    "edge": {"model", "security", "formula", "bus"},
    "historian": {"model", "security", "formula", "bus"},
    "site": {"model", "security", "formula", "bus", "edge", "historian"},
    "alarms": {"model", "security", "formula", "bus", "edge", "historian", "site"},
    "app": {"model"},
    "apps": {*_LEFT, "app"},
    "sim": set(_LEFT),
    "testing": {*_LEFT, "sim"},
    "bench": {*_LEFT, "app", "apps", "sim", "testing"},
    "client": {"model"},
    "console": {*_LEFT, "client", "apps"},
    "cli": {*_LEFT, "app", "apps", "sim", "testing", "bench", "client", "console"},
}

# Where a driver may be imported. Paths are relative to src/headrace.
DRIVERS: dict[str, tuple[str, ...]] = {
    "nats": ("bus/", "historian/", "sim/world/link"),
    "deltalake": ("historian/",),
    "obstore": ("historian/",),
    "asyncua": ("edge/connectors/opcua/", "sim/emulators/opcua"),
    "pymodbus": ("sim/emulators/modbus",),
    "paho": ("edge/connectors/mqtt/", "sim/emulators/mqtt", "sim/emulators/sparkplug"),
    "google": ("edge/connectors/sparkplug/", "sim/emulators/sparkplug"),
    "sqlalchemy": ("site/", "security/", "alarms/", "console/", "apps/models/"),
    "onnx": ("apps/models/",),
    "onnxruntime": ("apps/models/",),
    "nicegui": ("console/",),
    "fastapi": ("console/",),
    "uvicorn": ("console/",),
    "argon2": ("security/",),
    "joserfc": ("security/",),
    "pyotp": ("security/",),
    "segno": ("security/",),
    "pyrage": ("security/",),
    "cedarpy": ("security/",),
    "cryptography": ("security/", "apps/models/", "edge/connectors/opcua/", "sim/emulators/opcua"),
    "matplotlib": ("cli/", "console/", "historian/"),
    "typer": ("cli/",),
    "rich": ("cli/",),
    "tomlkit": ("site/",),
    "basyx": ("apps/asset_types/",),
    "fastexcel": ("site/",),
    "xlsxwriter": ("site/", "alarms/"),
}

# Rooms whose modules may be imported inside functions: the command line starts fast that way, and
# drivers are imported where they are used.
LAZY_ROOMS = {"cli"}

BANNED_CALLS = {
    "datetime.now": "take a Clock (model/time.py)",
    "datetime.utcnow": "take a Clock (model/time.py)",
    "datetime.today": "take a Clock (model/time.py)",
    "time.time": "take a Clock (model/time.py)",
    "uuid.uuid4": "take an id from the registry, or secrets for tokens",
    "random.random": "take a seeded numpy Generator",
    "random.randint": "take a seeded numpy Generator",
    "random.choice": "take a seeded numpy Generator",
    "np.random.seed": "take a seeded numpy Generator",
    "time.sleep": "wait on a condition",
    "eval": "parse it",
    "exec": "parse it",
    "pickle.loads": "use msgspec; models travel as ONNX",
    "os.system": "use subprocess with a list",
}
# The supervisor is a plain loop with a period; drivers' threads may wait.
CALLS_ALLOWED = {
    ("cli/up.py", "time.sleep"),
    ("cli/supervisor.py", "time.sleep"),
}

# The three supervisors that may catch everything, because what they run is not theirs.
BROAD_EXCEPT_ALLOWED = {"edge/host.py"}

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 800
FILES_EXEMPT: dict[str, str] = {}


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(tree(path)))


def name_of(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def room_of(path: Path) -> str:
    first = path.relative_to(SOURCE).parts[0]
    return first.removesuffix(".py")


@cache
def imports(path: Path) -> list[tuple[str, int, bool]]:
    """(module, line, inside a function or under TYPE_CHECKING) of every import."""
    found = []
    inside: set[ast.AST] = set()
    for node in nodes(path):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            inside.update(ast.walk(node))
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno, node in inside) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.append((node.module, node.lineno, node in inside))
            found += [(f"{node.module}.{a.name}", node.lineno, node in inside) for a in node.names]
    return found


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def check(problems: list[str]) -> None:
    assert not problems, "\n" + "\n".join(problems)


def test_rooms_import_only_to_their_left():
    problems = []
    for path in modules():
        room = room_of(path)
        if room.startswith("__"):
            continue
        assert room in ROOMS, (
            f"{room} is a new room: give it a place in ROOMS and in ARCHITECTURE.md"
        )
        for module, line, _ in imports(path):
            parts = module.split(".")
            if parts[0] != "headrace" or len(parts) < 2 or parts[1] not in ROOMS:
                continue
            if parts[1] != room and parts[1] not in ROOMS[room]:
                problems.append(
                    f"{name_of(path)}:{line} imports {module}; {room} may import only "
                    f"{sorted(ROOMS[room])}. Move what both need to the left, or pass it in."
                )
    check(sorted(set(problems)))


def test_drivers_live_in_one_place():
    problems = []
    for path in modules():
        for module, line, _ in imports(path):
            places = DRIVERS.get(module.split(".")[0])
            if places and not name_of(path).startswith(places):
                problems.append(
                    f"{name_of(path)}:{line} imports {module}; it lives in {places}. "
                    "Use what that place offers, or extend it."
                )
    check(sorted(set(problems)))


def test_no_import_of_ours_inside_functions():
    problems = []
    for path in modules():
        if room_of(path) in LAZY_ROOMS:
            continue
        for module, line, inside in imports(path):
            package = f"headrace.{'.'.join(path.relative_to(SOURCE).parts[:-1])}"
            own = module.startswith(package) and ("connectors" in package or "emulators" in package)
            if inside and module.startswith("headrace") and not own:
                problems.append(
                    f"{name_of(path)}:{line} imports {module} in a function; move it up."
                )
    check(sorted(set(problems)))


def test_modules_do_not_import_in_circles():
    names = {
        ".".join(["headrace", *path.relative_to(SOURCE).with_suffix("").parts]).removesuffix(
            ".__init__"
        )
        for path in modules()
    }
    graph = defaultdict(set)
    for path in modules():
        own = ".".join(["headrace", *path.relative_to(SOURCE).with_suffix("").parts])
        own = own.removesuffix(".__init__")
        for module, _, inside in imports(path):
            if not inside and module in names and module != own:
                graph[own].add(module)
    done: set[str] = set()

    def visit(name: str, way: list[str]) -> None:
        if name in way:
            pytest.fail(f"import circle: {' -> '.join([*way[way.index(name) :], name])}")
        if name not in done:
            for target in sorted(graph[name]):
                visit(target, [*way, name])
            done.add(name)

    for name in sorted(graph):
        visit(name, [])


def test_functions_and_files_are_short():
    problems = []
    for path in [
        *modules(),
        *sorted((ROOT / "tests").rglob("*.py")),
        *sorted((ROOT / "bench").rglob("*.py")),
    ]:
        where = path.relative_to(ROOT).as_posix()
        lines = path.read_text(encoding="utf-8").count("\n")
        if lines > FILE_LINES_MAX and where not in FILES_EXEMPT:
            problems.append(
                f"{where} has {lines} lines; at most {FILE_LINES_MAX}: split it by concept."
            )
        for node in nodes(path):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            body = node.body[1:] if ast.get_docstring(node) else node.body
            length = (node.end_lineno or 0) - body[0].lineno + 1 if body else 0
            if length > FUNCTION_LINES_MAX:
                problems.append(
                    f"{where}:{node.lineno} {node.name} has {length} lines; at most "
                    f"{FUNCTION_LINES_MAX}: give its parts names."
                )
    check(problems)


def test_banned_calls():
    problems = []
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.Call):
                called = dotted(node.func)
                remedy = BANNED_CALLS.get(called)
                allowed = (
                    name_of(path) == "model/time.py" or (name_of(path), called) in CALLS_ALLOWED
                )
                if remedy and not allowed:
                    problems.append(f"{name_of(path)}:{node.lineno} calls {called}; {remedy}.")
    check(problems)


def test_transactions_say_that_they_write():
    """One that reads first and then writes is refused by SQLite at once when another wrote in between."""
    problems = []
    for path in modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if re.search(r"engine\.begin\(\)", line):
                problems.append(
                    f"{name_of(path)}:{number} begins unsaid; use security.database.writing."
                )
    check(problems)


def test_files_of_tests_have_names_of_their_own():
    """pytest puts their folders on one path: of two with one name the first imported is both."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    check(
        [f"tests/**/{name} is there twice; rename one." for name in names if names.count(name) > 1]
    )


def test_queues_are_bounded():
    problems = []
    for path in modules():
        for node in nodes(path):
            if not isinstance(node, ast.Call):
                continue
            called = dotted(node.func).split(".")[-1]
            line = path.read_text(encoding="utf-8").splitlines()[node.lineno - 1]
            if called in {"Queue", "LifoQueue", "PriorityQueue"} and not (
                node.args or node.keywords
            ):
                problems.append(f"{name_of(path)}:{node.lineno} makes a queue without maxsize.")
            if (
                called == "deque"
                and not any(k.arg == "maxlen" for k in node.keywords)
                and "bounded by" not in line
            ):
                problems.append(
                    f"{name_of(path)}:{node.lineno} makes a deque without maxlen; bound it, or say "
                    "'bounded by ...' on the line."
                )
            if called == "SimpleQueue":
                problems.append(
                    f"{name_of(path)}:{node.lineno} uses SimpleQueue, which has no bound."
                )
    check(problems)


def test_what_cannot_be_decoded_is_caught_in_all_its_kinds():
    """Bytes of others may also be no UTF-8, or nested deeper than the stack."""
    problems = []
    for path in modules():
        for node in nodes(path):
            if isinstance(node, ast.ExceptHandler) and node.type is not None:
                names = {dotted(each) for each in ast.walk(node.type)}
                if names & {"msgspec.MsgspecError", "msgspec.DecodeError"}:
                    where = f"{name_of(path)}:{node.lineno}"
                    problems.append(f"{where} misses some of model/decoding.py: UNREADABLE")
    check(problems)


def test_no_except_hides_an_error():
    problems = []
    for path in modules():
        for node in nodes(path):
            if not isinstance(node, ast.ExceptHandler):
                continue
            names = {dotted(n) for n in ast.walk(node.type)} if node.type else {"bare"}
            broad = names & {"bare", "Exception", "BaseException"}
            raises = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            if broad and not raises and name_of(path) not in BROAD_EXCEPT_ALLOWED:
                problems.append(
                    f"{name_of(path)}:{node.lineno} catches everything and goes on; name the errors, "
                    "or raise one of ours from it."
                )
    check(problems)


def test_every_exemption_says_why():
    pattern = re.compile(r"#\s*(noqa|type:\s*ignore)(\S*)(.*)")
    problems = []
    for path in modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            found = pattern.search(line)
            if found and not found.group(2):
                problems.append(f"{name_of(path)}:{number} {found.group(1)} without a code.")
    check(problems)


def test_no_dead_module():
    """Every module is imported by another one, is an entry point, or is run by name."""
    known = {"headrace.__main__", "headrace.cli.app"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for group in project["entry-points"].values():
        known |= {target.split(":")[0] for target in group.values()}
    known |= {"headrace.apps.models.probe"}  # run by its name, in a process of its own
    imported: set[str] = set()
    for path in modules():
        imported |= {module for module, _, _ in imports(path)}
    text = (SOURCE / "cli" / "app.py").read_text()
    dead = []
    for path in modules():
        name = ".".join(["headrace", *path.relative_to(SOURCE).with_suffix("").parts])
        if name.endswith("__init__") or name in known or name in imported:
            continue
        if name.startswith("headrace.cli.") and f'"{name.split(".")[-1]}"' in text:
            continue
        if name.startswith(("headrace.testing", "headrace.client")):
            continue  # for others to import
        dead.append(f"{name_of(path)} is imported by nothing; use it or remove it.")
    check(dead)


def test_units_go_last_in_names():
    wrong = re.compile(r"\b(ms|us|seconds|bytes|rows)_(timeout|interval|delay|max|min|limit)\b")
    problems = []
    for path in modules():
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if found := wrong.search(line):
                problems.append(f"{name_of(path)}:{number} {found.group()}: the unit goes last.")
    check([p for p in problems if "bytes_max" not in p and "rows_max" not in p])


def test_locks_name_no_host_and_no_path():
    for lock in ROOT.glob("requirements*.lock"):
        for number, line in enumerate(lock.read_text().splitlines(), 1):
            assert "://" not in line, f"{lock.name}:{number} names a host or path: make lock"
            assert not line.startswith("-"), f"{lock.name}:{number} has an option: make lock"


def test_ci_calls_make_test_and_nothing_else():
    lines = (ROOT / ".ci" / "run").read_text().split("\n")
    commands = [line for line in lines if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["exec make test"]

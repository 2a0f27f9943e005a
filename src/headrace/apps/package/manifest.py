"""Reads ``app.toml`` and tells everything that is wrong with it and with what it names, each at its line."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Container, Mapping
from typing import Final

from headrace.apps.package.tables import read_table
from headrace.apps.package.versions import is_range, parse_version
from headrace.formula.binding import check_all
from headrace.formula.grammar import KEYWORDS, parse_statement, split_statements
from headrace.formula.problems import FormulaProblem
from headrace.model.app_manifest import AppManifest, NeededType, Output, Setting, drift_name
from headrace.model.errors import Misconfigured
from headrace.model.knowledge import AppsConfig, AssetTypeConfig, FormulaConfig
from headrace.model.units import check_unit
from headrace.site.model import Problem
from headrace.site.notes import Notes, near
from headrace.site.toml_lines import Key

MANIFEST: Final = "app.toml"
ID: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", re.ASCII)
ID_MAX: Final = 40
LANGUAGES: Final = ("en", "zh")
MANIFEST_BYTES_MAX: Final = 256 * 1024
DOTS_MAX: Final = 100
MEMORY_MB_MAX: Final = 16_384
SERVICE_S_MAX: Final = 60.0
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)
_HEAD: Final = re.compile(r"(alarm[ \t]+)?([^\W\d]\w*)[ \t]*[=:]")
_CALL: Final = re.compile(r"[a-z][a-z0-9-]*\.[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_HOST: Final = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\]):(\d{1,5})", re.ASCII)
_WORD_REMEDY: Final = "Use A-Z a-z 0-9 and _, no digit first, and no word of the formula language."
_ID_REMEDY: Final = f"Use a-z 0-9 and -, a letter first, at most {ID_MAX}."
PLAIN: Final = ("", "text", "condition")


class PackageProblems(Misconfigured):
    """A package's file that was not accepted; ``problems`` holds every reason, in the order of lines."""

    def __init__(self, problems: list[Problem]) -> None:
        first = problems[0]
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(
            "APPS-2000",
            f"{first.field}: {first.what}{more}",
            "See them all: headrace app check",
            where=f"{first.file}:{first.line}",
        )
        self.problems = problems


def read_manifest(
    content: bytes, files: Container[str], read: Callable[[str], bytes]
) -> AppManifest:
    """The manifest of an app.

    Args:
        content: of ``app.toml``. files: names of all files of the package. read: content of one.

    Raises:
        PackageProblems: everything that is wrong, as one APPS-2000.
    """
    manifest, problems = check_manifest(content, files, read)
    if manifest is None:
        raise PackageProblems(problems)
    return manifest


def check_manifest(
    content: bytes, files: Container[str], read: Callable[[str], bytes]
) -> tuple[AppManifest | None, list[Problem]]:
    """The manifest and no problems, or None and all of them, in the order of files and lines."""
    notes = Notes(MANIFEST)
    try:
        notes.text = toml_text(content)
        data = tomllib.loads(notes.text)
    except (ValueError, RecursionError) as error:  # no UTF-8, no TOML, or too much
        line = re.search(r"line (\d+)", str(error))
        what = f"it is no TOML: {error}"
        notes.add(
            MANIFEST, int(line[1]) if line else 1, "file", "APPS-2002", what, "Correct that line."
        )
        return None, notes.problems
    manifest = read_table(notes, data, AppManifest)
    _Check(notes, manifest, files, read).run()
    if notes.count:
        return None, sorted(notes.problems, key=lambda each: (each.file != MANIFEST, each.line))
    return manifest, []


def toml_text(content: bytes) -> str:
    """The text of a TOML file of a package, when no parser can take long over it.

    A key of thousands of dots takes a parser minutes, so a line may have :data:`DOTS_MAX`.

    Raises:
        ValueError: it is too long, no UTF-8, or has such a line.
    """
    if len(content) > MANIFEST_BYTES_MAX:
        raise ValueError(f"it has {len(content):,} bytes, and may have {MANIFEST_BYTES_MAX:,}")
    text = content.decode("utf-8")
    for number, line in enumerate(text.split("\n"), 1):
        if line.count(".") > DOTS_MAX:
            raise ValueError(f"more than {DOTS_MAX} dots (at line {number})")
    return text


class _Check:
    """What a manifest says, held against itself and against the files beside it."""

    def __init__(
        self,
        notes: Notes,
        manifest: AppManifest,
        files: Container[str],
        read: Callable[[str], bytes],
    ) -> None:
        self.notes = notes
        self.manifest = manifest
        self.files = files
        self.read = read

    def run(self) -> None:
        self._identity()
        for name, kind in self.manifest.types.items():
            self._type(name, kind)
        self._formulas()
        self._outputs()
        for name, setting in self.manifest.settings.items():
            self._setting(name, setting)
        self._python()
        self._views()
        self._budgets()
        self._permissions()

    def _wrong_name(self, key: Key, name: str, what: str) -> None:
        if not _WORD.fullmatch(name) or name in KEYWORDS:
            self.notes.at(key, "APPS-2006", f"{what} has the name {name!r}", _WORD_REMEDY)

    def _unit(self, key: Key, unit: str, plain: tuple[str, ...] = PLAIN) -> None:
        if unit in plain:
            return
        try:
            check_unit(unit)
        except Misconfigured as error:
            self.notes.at(key, "APPS-2010", error.what, error.remedy)

    def _range(self, key: Key, text: str) -> None:
        if not is_range(text):
            what = f"{text!r} is no range of versions"
            self.notes.at(key, "APPS-2008", what, "Write for example >=1.2, <2")

    def _reference(self, key: Key, name: str, known: Mapping[str, object], what: str) -> bool:
        if name not in known:
            self.notes.at(key, "APPS-2009", f"there is no {what} {name!r}", near(name, known))
            return False
        return True

    def _text(self, key: Key, text: Mapping[str, str], *, required: bool = False) -> None:
        for language in text:
            if language not in LANGUAGES:
                what = f"{language!r} is no language of the console"
                self.notes.at((*key, language), "APPS-2005", what, "Use en and zh.")
        if (required or text) and not text.get("en", "").strip():
            self.notes.at(key, "APPS-2004", f"{key[-1]} has no English", 'Write en = "...".')

    # --- who it is --------------------------------------------------------------------------------

    def _identity(self) -> None:
        manifest, notes = self.manifest, self.notes
        if manifest.id and not is_id(manifest.id):
            notes.at(("id",), "APPS-2006", f"the app has the id {manifest.id!r}", _ID_REMEDY)
        if manifest.publisher and not is_id(manifest.publisher):
            what = f"the publisher has the name {manifest.publisher!r}"
            notes.at(("publisher",), "APPS-2006", what, _ID_REMEDY)
        if manifest.version and parse_version(manifest.version) is None:
            what = f"the version is {manifest.version!r}"
            notes.at(("version",), "APPS-2007", what, "Write major.minor.patch, such as 1.0.0.")
        self._range(("headrace",), manifest.headrace)
        self._text(("title",), manifest.title, required=True)
        self._text(("description",), manifest.description)
        for name, text in manifest.requires.items():
            if not is_id(name):
                what = f"a package has the id {name!r}"
                notes.at(("requires", name), "APPS-2006", what, _ID_REMEDY)
            self._range(("requires", name), text)

    # --- what it needs ----------------------------------------------------------------------------

    def _type(self, name: str, kind: NeededType) -> None:
        key: Key = ("types", name)
        self._wrong_name(key, name, "a needed type")
        if not is_id(kind.package):
            what = f"a package of asset types has the id {kind.package!r}"
            self.notes.at((*key, "package"), "APPS-2006", what, _ID_REMEDY)
        self._range((*key, "version"), kind.version)
        seen: dict[str, str] = {}
        for word in ("quantities", "optional", "attributes", "relations"):
            for each, value in getattr(kind, word).items():
                place = (*key, word, each)
                self._wrong_name(place, each, f"one of the {word}")
                if each in seen:
                    what = f"{each!r} stands in {seen[each]} and in {word}"
                    self.notes.at(place, "APPS-2011", what, "Name each once.")
                seen[each] = word
                if word == "relations":
                    self._reference(place, value, self.manifest.types, "needed type")
                else:
                    self._unit(place, value)

    # --- what it gives ----------------------------------------------------------------------------

    def _formulas(self) -> None:
        formulas: list[FormulaConfig] = []
        for kind, text in self.manifest.formulas.items():
            if self._reference(("formulas", kind), kind, self.manifest.types, "needed type"):
                formulas += self._statements(kind, text)
        config = AppsConfig(
            enterprise="", site="", types=asset_types(self.manifest), formulas=tuple(formulas)
        )
        for found in check_all(config)[1]:
            self._formula_problem(found.asset_type, found.problem)
        names = {(each.asset_type, each.name) for each in formulas}
        for kind, titles in self.manifest.titles.items():
            known = {name: 0 for of, name in names if of == kind}
            for name, text_of in titles.items():
                self._reference(("titles", kind, name), name, known, f"formula of {kind}")
                self._text(("titles", kind, name), text_of)

    def _statements(self, kind: str, text: str) -> list[FormulaConfig]:
        found: dict[str, FormulaConfig] = {}
        for line, source in split_statements(text):
            head = _HEAD.match(source)
            try:
                if head is None:
                    parse_statement(source, line=line)
                    continue
            except FormulaProblem as problem:
                self._formula_problem(kind, problem)
                continue
            if head[2] in found:
                where = self.notes.text_line(("formulas", kind), line)
                what = f"{kind} has the formula {head[2]!r} twice"
                self.notes.add(
                    MANIFEST, where, f"formulas.{kind}", "APPS-2011", what, "Rename one."
                )
                continue
            found[head[2]] = FormulaConfig(
                asset_type=kind, name=head[2], kind="alarm" if head[1] else "formula",
                text=source.rstrip(), line=line,
            )  # fmt: skip
        return list(found.values())

    def _formula_problem(self, kind: str, problem: FormulaProblem) -> None:
        line = self.notes.text_line(("formulas", kind), problem.line)
        self.notes.formula(line, f"formulas.{kind}", problem)

    def _outputs(self) -> None:
        taken = {(kind, name) for kind, name, _ in formula_heads(self.manifest)}
        for place, output in enumerate(self.manifest.outputs):
            self._output(("outputs", place), output, taken)
            taken.add((output.type, output.name))

    def _output(self, key: Key, output: Output, taken: set[tuple[str, str]]) -> None:
        self._wrong_name((*key, "name"), output.name, "an output")
        self._unit((*key, "unit"), output.unit)
        self._text((*key, "title"), output.title)
        self._reference((*key, "type"), output.type, self.manifest.types, "needed type")
        if output.model:
            models = dict.fromkeys(self.manifest.models)
            self._reference((*key, "model"), output.model, models, "model")
            self._shadowed(key, output, taken)
        if (output.type, output.name) in taken:
            what = f"{output.type} gives {output.name!r} twice"
            self.notes.at((*key, "name"), "APPS-2011", what, "Rename one of the two.")

    def _shadowed(self, key: Key, output: Output, taken: set[tuple[str, str]]) -> None:
        """The names that the platform gives beside those of a model are not for others."""
        names = {each.name for each in self.manifest.outputs if each.type == output.type}
        names |= {name for kind, name in taken if kind == output.type}
        needed = self.manifest.types.get(output.type)
        names |= {*needed.quantities, *needed.optional} if needed is not None else set()
        for name in (output.shadow, drift_name(output.model)):
            if name in names:
                what = f"{output.type} has {name!r}, which is of the model {output.model}"
                self.notes.at((*key, "model"), "APPS-2011", what, "Rename that one.")

    def _setting(self, name: str, setting: Setting) -> None:
        key: Key = ("settings", name)
        self._wrong_name(key, name, "a setting")
        self._unit((*key, "unit"), setting.unit, ("",))
        self._text((*key, "title"), setting.title)
        self._text((*key, "help"), setting.help)
        default = setting.default
        wanted = {"number": (int, float), "text": (str,), "condition": (bool,)}[setting.kind]
        if not isinstance(default, wanted) or isinstance(default, bool) != (
            setting.kind == "condition"
        ):
            what = f"its default is {default!r}, and its kind {setting.kind}"
            self.notes.at((*key, "default"), "APPS-2015", what, "Give a default of its kind.")
            return
        if setting.kind == "number":
            low = float("-inf") if setting.minimum is None else setting.minimum
            high = float("inf") if setting.maximum is None else setting.maximum
            if low > high or not low <= float(default) <= high:
                what = f"its default {default} is not within {low} and {high}"
                self.notes.at((*key, "default"), "APPS-2015", what, "Give one within the limits.")

    # --- what lies beside it ----------------------------------------------------------------------

    def _python(self) -> None:
        manifest, module = self.manifest, self.manifest.python
        for place, service in enumerate(manifest.services):
            self._wrong_name(("services", place, "name"), service.name, "a service")
            self._text(("services", place, "title"), service.title)
            if not 0 < service.timeout_s <= SERVICE_S_MAX:
                what = f"timeout_s is {service.timeout_s}"
                remedy = f"Give more than 0 and at most {SERVICE_S_MAX:g}."
                self.notes.at(("services", place, "timeout_s"), "APPS-2016", what, remedy)
        if not module:
            for word in ("outputs", "services", "models"):
                if getattr(manifest, word):
                    what = f"the app has {word}, and no Python that gives them"
                    self.notes.at((word,), "APPS-2017", what, 'Name its module: python = "..."')
            return
        self._wrong_name(("python",), module, "the Python module")
        names = (f"{module}.py", f"{module}/__init__.py")
        name = next((each for each in names if each in self.files), None)
        if name is None:
            what = f"there is neither {names[0]} nor {names[1]}"
            self.notes.at(("python",), "APPS-2012", what, "Write one beside app.toml.")
            return
        try:
            ast.parse(self.read(name))
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            line = getattr(error, "lineno", None) or 1
            what = f"it is no Python: {getattr(error, 'msg', error)}"
            self.notes.add(name, line, "syntax", "APPS-2013", what, "Correct that line.")

    def _views(self) -> None:
        for place, name in enumerate(self.manifest.views):
            path = view_file(name)
            if path not in self.files:
                what = f"there is no file {path}"
                self.notes.at(("views", place), "APPS-2012", what, "Write it, or take it out.")

    def _budgets(self) -> None:
        budgets = self.manifest.budgets
        limits = {
            "memory_mb": (16, MEMORY_MB_MAX),
            "cpu_percent": (1, 6_400),
            "messages_per_s": (0, 10_000),
            "rows_per_s": (0, 1_000_000),
        }
        for word, (low, high) in limits.items():
            value = getattr(budgets, word)
            if not low <= value <= high:
                what, remedy = f"{word} is {value}", f"Give one from {low} to {high}."
                self.notes.at(("budgets", word), "APPS-2016", what, remedy)

    def _permissions(self) -> None:
        permissions = self.manifest.permissions
        for place, name in enumerate(permissions.writes):
            kind, _, quantity = name.partition(".")
            of = self.manifest.types.get(kind)
            if of is None or quantity not in {**of.quantities, **of.optional}:
                what = f"{name!r} is no quantity of a needed type"
                self.notes.at(
                    ("permissions", "writes", place), "APPS-2014", what, "Write type.quantity."
                )
        for place, name in enumerate(permissions.calls):
            if not _CALL.fullmatch(name):
                what = f"{name!r} is no service of an app"
                self.notes.at(
                    ("permissions", "calls", place), "APPS-2014", what, "Write app-id.service."
                )
        for place, name in enumerate(permissions.network):
            match = _HOST.fullmatch(name)
            if match is None or not 0 < int(match[1]) < 65_536:
                what = f"{name!r} is no place in a network"
                self.notes.at(
                    ("permissions", "network", place), "APPS-2014", what, "Write host:port."
                )


def is_id(text: str) -> bool:
    """Whether a text can be the id of a package or a publisher."""
    return bool(ID.fullmatch(text)) and len(text) <= ID_MAX


def view_file(name: str) -> str:
    """File of a view as the manifest names it: ``pump.toml`` or ``views/pump.toml``."""
    return name if name.startswith("views/") else f"views/{name}"


def asset_types(manifest: AppManifest) -> tuple[AssetTypeConfig, ...]:
    """The needed types, as formulas see them: what is set for an asset is an attribute to them."""
    settings = {name: each.measure for name, each in manifest.settings.items()}
    given = {(type, name) for type, name, _ in formula_heads(manifest)}
    return tuple(
        AssetTypeConfig(
            name=name,
            # An output with a formula's name is told of as such, once.
            quantities={n: u for n, u in manifest.readable(name).items() if (name, n) not in given},
            attributes={**settings, **kind.attributes},
            relations=kind.relations,
        )
        for name, kind in manifest.types.items()
    )


def formula_heads(manifest: AppManifest) -> list[tuple[str, str, str]]:
    """(needed type, name, ``formula`` or ``alarm``) of each statement that has a name."""
    return [
        (kind, head[2], "alarm" if head[1] else "formula")
        for kind, text in manifest.formulas.items()
        for _, source in split_statements(text)
        if (head := _HEAD.match(source)) is not None
    ]

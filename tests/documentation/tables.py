"""
The tables of the documentation, computed from the code: ``python -m tests.documentation``.

A page marks the place of a table with ``<!-- computed: NAME -->`` and ``<!-- end -->``; what stands
between them is written anew.  `tests.documentation.test_pages` fails where a page says
something else than the code.  Whoever adds a limit, an option, a protocol or a counter writes its
sentence where it is declared, and runs this.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from types import FunctionType
from typing import Any

import msgspec
from msgspec import Struct
from zope.interface.interface import InterfaceClass

from echod.admin.metric_families import METRICS
from echod.config.limits import Limits
from echod.config.settings import Configuration, ListenerSettings
from echod.config.tls_settings import TLSSettings
from echod.connection.states import ENDS, Reason
from echod.daemon.options import Options
from echod.insight.timeline import EVENTS
from echod.interfaces import IDatagramProtocolMaker, IProtocolMaker, IStreamProtocolMaker
from echod.server.counters import DATAGRAMS, PROCESS, REFUSED, STREAMS
from echod.server.registry import BUILTIN

__all__ = ["PUBLIC", "ROOT", "TABLES", "computed", "pages", "shown"]

#: The modules that are public: what they offer stays, whatever else moves.
PUBLIC = ("kit", "wire.framing", "client", "testing", "interfaces", "errors")

ROOT = Path(__file__).parents[2]
_MARKED = re.compile(r"(<!-- computed: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
_DESCRIBED = re.compile(r"^:[ic]var (\w+): (.*?)(?=^:|\Z)", re.MULTILINE | re.DOTALL)


def pages() -> list[str]:
    """The pages that have a computed table, as paths from the project's root."""
    found = sorted(ROOT.glob("docs/*.md"))
    return [str(page.relative_to(ROOT)) for page in found if shown(page.read_text())]


def shown(text: str) -> list[str]:
    """The names of a page's computed tables."""
    return [name for _, name, _ in _MARKED.findall(text)]


def computed(text: str) -> str:
    """A page's text with all of its tables as the code says."""

    def table(found: re.Match[str]) -> str:
        return f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}"

    return _MARKED.sub(table, text)


def fields(kind: type) -> dict[str, str]:
    """What a class's docstring says of its ``:ivar``, or ``:cvar``, in one line each."""
    found = _DESCRIBED.findall(inspect.cleandoc(kind.__doc__ or ""))
    return {name: " ".join(text.split()) for name, text in found}


# -- Tables ------------------------------------------------------------------------------------


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(titles)
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(_cell(each) for each in line)} |" for line in lines)


def _cell(text: str) -> str:
    """Markdown within a cell: code has one backtick, and no bar ends it."""
    # ``code`` and `Name` of a docstring are both code here.
    return text.replace("``", "`").replace("|", "\\|").replace("  ", " ")


def _code(text: str) -> str:
    return f"`{text}`"


def _sentence(text: str) -> str:
    """With a capital, and a full stop at its end."""
    text = text.strip()
    return text if not text else text[0].upper() + text[1:].rstrip(".") + "."


def _keys(kind: type[Struct], without: Iterable[str] = ()) -> str:
    """The keys of a table of the configuration, with types, units, defaults and meanings."""
    docs = fields(kind)
    assert {*docs} <= {*kind.__struct_fields__}, f"{kind.__name__} explains what it does not have"
    rows = []
    for field in msgspec.structs.fields(kind):
        if field.encode_name in without:
            continue
        info: Any = msgspec.inspect.type_info(field.type)
        words, unit = "", ""
        while isinstance(info, msgspec.inspect.Metadata):
            words = words or (info.extra_json_schema or {}).get("description", "")
            unit = unit or (info.extra or {}).get("unit", "")
            info = info.type
        # The help has a list's default at its end; here it has a column.
        words = re.sub(r" \[\S*\]$", "", words)
        meaning = " ".join(filter(None, map(_sentence, (words, docs.get(field.name, "")))))
        rows.append((_code(field.encode_name), _type(info), unit or "", _default(field), meaning))
    return _table(("key", "type", "unit", "default", "meaning"), rows)


def _type(info: Any) -> str:
    """A type's name in TOML's words."""
    if isinstance(info, msgspec.inspect.UnionType):
        kinds = [each for each in info.types if not isinstance(each, msgspec.inspect.NoneType)]
        return " or ".join(map(_type, kinds))
    if isinstance(info, msgspec.inspect.LiteralType):
        return " or ".join(_code(f'"{value}"') for value in info.values)
    names: dict[type, str] = {
        msgspec.inspect.StrType: "text",
        msgspec.inspect.IntType: "integer",
        msgspec.inspect.FloatType: "number",
        msgspec.inspect.BoolType: "true or false",
        msgspec.inspect.ListType: "list",
        msgspec.inspect.TupleType: "list",
        msgspec.inspect.DictType: "table",
    }
    return names[type(info)]


def _default(field: msgspec.structs.FieldInfo) -> str:
    value = field.default
    if value is msgspec.NODEFAULT:
        if field.default_factory is msgspec.NODEFAULT:
            return "must be given"
        value = field.default_factory()
    if value is None or value in ({}, ""):
        return ""
    return _code(msgspec.json.encode(value).decode())


def _options() -> str:
    """The options of the command line, all but those that are computed from `Limits`."""
    limits = {name.replace("_", "-") for name in Limits.__struct_encode_fields__}
    rows = [(f"--{name}", words or "") for name, _, words in Options.optFlags]
    for name, short, default, words in Options.optParameters:
        if name not in limits:
            given = "" if default is None else f" Default: {default}."
            title = f"--{name} VALUE" + (f", -{short} VALUE" if short else "")
            rows.append((title, _sentence(words or "") + given))
    methods = {key[4:]: method for key, method in vars(Options).items() if key.startswith("opt_")}
    for name, method in methods.items():
        if len(name) > 1:
            names = [f"--{name}", *(f"-{key}" for key in methods if methods[key] is method)]
            takes = " VALUE" if len(inspect.signature(method).parameters) > 1 else ""
            title = ", ".join(f"{each}{takes}" for each in names if each != f"-{name}")
            rows.append((title, " ".join((method.__doc__ or "").split())))
    titles = ("option", "meaning")
    return _table(titles, [(_code(title), _sentence(words)) for title, words in sorted(rows)])


def _protocols() -> str:
    rows = []
    for maker in BUILTIN:
        served = [
            word
            for kind, word in ((IStreamProtocolMaker, "streams"), (IDatagramProtocolMaker, "UDP"))
            if kind.providedBy(maker)
        ]
        prefers = ", ".join(_code(f"{key} = {value}") for key, value in maker.defaults.items())
        rows.append((_code(maker.name), " and ".join(served), maker.description, prefers))
    return _table(("protocol", "served on", "what it does", "limits that it prefers"), rows)


def _protocolOptions() -> str:
    def of(maker: IProtocolMaker) -> Iterable[tuple[str, ...]]:
        for field in msgspec.structs.fields(maker.options):
            info: Any = msgspec.inspect.type_info(field.type)
            words = ""
            while isinstance(info, msgspec.inspect.Metadata):
                words = words or (info.extra_json_schema or {}).get("description", "")
                info = info.type
            yield _code(f"{maker.name}.{field.encode_name}"), _type(info), _default(field), words

    rows = [row for maker in BUILTIN if maker.options is not None for row in of(maker)]
    return _table(("option", "type", "default", "meaning"), rows)


def _meanings(title: str, meanings: Mapping[str, str]) -> str:
    return _table((title, "meaning"), [(_code(key), words) for key, words in meanings.items()])


def _members(title: str, kind: type[enum.Enum]) -> str:
    docs = fields(kind)
    return _meanings(title, {member.value: docs[member.name] for member in kind})


def _names(module: str) -> str:
    """What a public module offers, each name with the first sentence of what is said of it."""
    found = importlib.import_module(f"echod.{module}")
    rows = []
    for name in sorted(found.__all__, key=str.lower):
        value = getattr(found, name)
        own = isinstance(value, InterfaceClass | type | FunctionType)
        text = (inspect.getdoc(value) or "") if own else _above(name)
        first = " ".join(text.split("\n\n")[0].split())
        assert first, f"nothing is said of {module}.{name}"
        rows.append((_code(name), _sentence(first)))
    return _table(("name", "meaning"), rows)


def _above(name: str) -> str:
    """The comment (``#:``) above a constant, or a type's name, in the module that defines it."""
    comment = re.compile(rf"((?:^#:.*\n)+){name}\b", re.MULTILINE)
    for path in sorted((ROOT / "echod").rglob("*.py")):
        if found := comment.search(path.read_text()):
            return found[1].replace("#:", "")
    return ""


def _metrics() -> str:
    rows = [
        (_code(each.name), each.kind, ", ".join(map(_code, each.labels)), each.meaning)
        for each in METRICS
    ]
    return _table(("metric", "type", "labels", "meaning"), rows)


def _ends() -> str:
    """Reasons that have the same ends share a row, in the order in which they are declared."""
    rows: dict[tuple[str, ...], list[str]] = {}
    for reason in Reason:
        rows.setdefault(tuple(sorted(ENDS[reason])), []).append(_code(reason.value))
    return _table(
        ("end", "meaning"),
        [
            (", ".join(map(_code, ends)), f"Connections that are gone for {', '.join(reasons)}.")
            for ends, reasons in rows.items()
        ],
    )


TABLES: dict[str, Callable[[], str]] = {
    **{f"names of echod.{module}": partial(_names, module) for module in PUBLIC},
    "options": _options,
    "file": lambda: _keys(Configuration),
    "listener": lambda: _keys(ListenerSettings, Limits.__struct_encode_fields__),
    "limits": lambda: _keys(Limits),
    "tls": lambda: _keys(TLSSettings),
    "protocols": _protocols,
    "protocol options": _protocolOptions,
    "process counters": lambda: _meanings("counter", PROCESS),
    "stream counters": lambda: _meanings("counter", STREAMS),
    "datagram counters": lambda: _meanings("counter", DATAGRAMS),
    "closed reasons": lambda: _members("reason", Reason),
    "refused reasons": lambda: _meanings("reason", REFUSED),
    "timeline events": lambda: _meanings("event", EVENTS),
    "metrics": _metrics,
    "ends": _ends,
}

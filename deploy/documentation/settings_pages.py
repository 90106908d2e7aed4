"""Generates the settings reference: one table per table of a settings file, from the structs that parse it.

The meaning of a setting is the docstring below its field; types, bounds and defaults are those that msgspec enforces.
"""

import ast
import inspect
import textwrap
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import inspect as types

from jobs.settings import Settings
from schemas.wire.tenant_settings import TenantSettings
from serving.gateway.gateway_settings import GatewaySettings

_UNITS: Final = ((86_400_000, "day"), (3_600_000, "hour"), (60_000, "minute"), (1_000, "second"))
_HEAD: Final = "| setting | type | default | meaning |\n|---|---|---|---|"
_NAMES: Final = {types.IntType: "integer", types.FloatType: "number", types.StrType: "text", types.BoolType: "boolean"}


class SettingsPage(NamedTuple):
    """The settings of one file."""

    title: str
    introduction: str
    root: type[msgspec.Struct]


JOB: Final = SettingsPage(
    "Settings of the job",
    "The job, and every command that takes `--settings`, reads one TOML file, `freshet.toml` in the examples. "
    "Unknown settings are refused with their names. Secrets are never in the file: it names the environment variables "
    "or files that hold them. It may begin with a byte order mark or be UTF-16, as Windows editors save files.",
    Settings,
)
GATEWAY: Final = SettingsPage(
    "Settings of the gateway",
    "`freshet gateway run --settings gateway.toml` reads one TOML file; `deploy/gateway.toml` is an example. "
    "Unknown settings are refused with their names. Secrets are never in the file. It may begin with a byte order mark "
    "or be UTF-16, as Windows editors save files.",
    GatewaySettings,
)
TENANT: Final = SettingsPage(
    "The tenant file",
    "One TOML file contains the settings that a tenant's job, its gateways and its producers must share. The "
    'settings of the job name it (`tenant = "tenant.toml"`), and so do those of the gateway (`tenants.<name> = '
    '"tenant.toml"`) and `load_tenant` of the client library; `deploy/tenant.toml` is an example. A job whose '
    "settings name it refuses the same values in its own file. A relative `key_ring` is taken from the folder of "
    "the file.",
    TenantSettings,
)


def settings_page(page: SettingsPage) -> str:
    """The page as Markdown."""
    lines = [f"# {page.title}", "", page.introduction]
    single = [field for field in msgspec.structs.fields(page.root) if not _tables(field.type)]
    if single:
        lines += ["", "## Top level", "", _HEAD, *(_row(page.root, field) for field in single)]
    for field in msgspec.structs.fields(page.root):
        lines += _sections(field.encode_name, field.type)
    return "\n".join(lines) + "\n"


def _sections(name: str, annotation: Any) -> list[str]:
    """A section for a struct, and one for each nested struct."""
    lines: list[str] = []
    for suffix, struct in _tables(annotation):
        title = f"{name}{suffix}"
        fields = msgspec.structs.fields(struct)
        rows = [_row(struct, field) for field in fields if not _tables(field.type)]
        lines += ["", f"## `[{title}]`", "", _prose(struct), "", _HEAD, *rows]
        for field in fields:
            lines += _sections(f"{title}.{field.encode_name}", field.type)
    return lines


def _tables(annotation: Any) -> list[tuple[str, type[msgspec.Struct]]]:
    """The struct itself, which may be left out, or the value type of a dictionary of structs."""
    kind = _alone(types.type_info(annotation))
    if isinstance(kind, types.StructType):
        return [("", kind.cls)]
    if isinstance(kind, types.DictType) and isinstance(kind.value_type, types.StructType):
        return [(".<name>", kind.value_type.cls)]
    return []


def _alone(kind: types.Type) -> types.Type:
    """What is left of a union with None, if that is one type."""
    others = [one for one in getattr(kind, "types", ()) if not isinstance(one, types.NoneType)]
    return others[0] if len(others) == 1 else kind


def _row(struct: type[msgspec.Struct], field: msgspec.structs.FieldInfo) -> str:
    cells = (f"`{field.encode_name}`", _type(field.type), _default(field), _meaning(struct, field.name))
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _meaning(struct: type[msgspec.Struct], field: str) -> str:
    """The docstring below the field. Raises :class:`LookupError` if there is none."""
    try:
        return _meanings(struct)[field]
    except KeyError:
        raise LookupError(f"{struct.__module__}.{struct.__name__}: write a docstring below {field}") from None


def _meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    found: dict[str, str] = {}
    for cls in reversed([cls for cls in struct.__mro__ if issubclass(cls, msgspec.Struct) and cls.__struct_fields__]):
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
        assert isinstance(body, ast.ClassDef)
        for field, below in pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and (text := _text(below)):
                found[field.target.id] = " ".join(text.split())
    return found


def _text(node: ast.stmt) -> str | None:
    value = node.value.value if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) else None
    return value if isinstance(value, str) else None


def _prose(struct: type[msgspec.Struct]) -> str:
    return inspect.cleandoc(struct.__doc__ or "")


def _type(annotation: Any) -> str:
    return _type_text(types.type_info(annotation))


def _type_text(kind: types.Type) -> str:
    if isinstance(kind, types.UnionType):
        return " or ".join(_type_text(one) for one in kind.types if not isinstance(one, types.NoneType))
    if isinstance(kind, types.StructType):
        return "table of " + ", ".join(f"`{field.encode_name}`" for field in kind.fields)
    if isinstance(kind, types.LiteralType):
        return ", ".join(f'`"{value}"`' for value in kind.values)
    if isinstance(kind, types.DictType):
        return f"table of {_type_text(kind.value_type)}"
    if isinstance(kind, types.VarTupleType | types.ListType):
        return f"array of {_type_text(kind.item_type)}"
    return _NAMES[type(kind)] + _bounds(kind)


def _bounds(kind: types.Type) -> str:
    low, above, high = (getattr(kind, name, None) for name in ("ge", "gt", "le"))
    said = [
        f"{words} {value:,}"
        for words, value in (("at least", low), ("above", above), ("at most", high))
        if value is not None
    ]
    return f", {', '.join(said)}" if said else ""


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "required"
    if field.default is None:
        return "—"
    if isinstance(field.default, bool):
        return f"`{str(field.default).lower()}`"
    if isinstance(field.default, tuple):
        return "`[" + ", ".join(f'"{one}"' for one in field.default) + "]`"
    if isinstance(field.default, str):
        return f'`"{field.default}"`'
    return f"`{field.default}`" + (_duration(field.default) if field.encode_name.endswith("_ms") else "")


def _duration(ms: int) -> str:
    """The duration in the largest unit that gives a whole number.

    >>> _duration(604_800_000), _duration(20)
    (' (7 days)', '')
    """
    for unit, name in _UNITS:
        if ms >= unit and ms % unit == 0:
            count = ms // unit
            return f" ({count} {name}{'s' if count > 1 else ''})"
    return ""

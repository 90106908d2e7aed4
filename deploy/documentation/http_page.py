"""Generates the reference of the HTTP API from the OpenAPI document and the table of roles."""

from typing import Any, Final

from serving.gateway.app import documented_api
from serving.gateway.roles import ROUTES

_INTRODUCTION: Final = """
`freshet gateway openapi` prints the OpenAPI 3.1 document from which this page is written;
a running gateway serves it at `/openapi.json`. [HTTP gateway](http-gateway.md) explains authentication and errors.
"""


def http_page() -> str:
    """The page as Markdown."""
    document = documented_api().openapi()
    lines = ["# HTTP API reference", "", document["info"]["description"].strip(), _INTRODUCTION, *_overview(document)]
    for path, method, operation in _operations(document):
        lines += ["", f"## {method} {path}", "", operation["description"], "", f"Roles: {_roles(method, path)}."]
        lines += _parameters(operation) + _body(operation) + _responses(operation)
    return "\n".join(lines + _types(document)) + "\n"


def _types(document: dict[str, Any]) -> list[str]:
    """A table of fields for each type of the OpenAPI document."""
    lines = ["", "## Types"]
    for name, schema in sorted(document["components"]["schemas"].items()):
        required = schema.get("required", [])
        rows = [
            f"| `{field}` | {_field_type(of)} | {'yes' if field in required else ''} |"
            for field, of in schema["properties"].items()
        ]
        lines += [
            "",
            f"### {name}",
            "",
            schema.get("description", ""),
            "",
            "| field | type | required |",
            "|---|---|---|",
        ]
        lines += rows
    return lines


def _field_type(schema: dict[str, Any]) -> str:
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"] if value is not None)
    if "anyOf" in schema:
        return " or ".join(_field_type(one) for one in schema["anyOf"] if one.get("type") != "null")
    if schema.get("type") == "array":
        return f"array of {_field_type(schema['items'])}"
    return _names(schema)


def _operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method.upper(), operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def _overview(document: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{method} {path}` | {_roles(method, path)} | {operation['description'].partition(chr(10))[0]} |"
        for path, method, operation in _operations(document)
    ]
    return ["| route | roles | |", "|---|---|---|", *rows]


def _roles(method: str, path: str) -> str:
    (route,) = [route for route in ROUTES.values() if (route.method, route.path) == (method, path)]
    return ", ".join(sorted(route.roles)) or "none, no credentials needed"


def _parameters(operation: dict[str, Any]) -> list[str]:
    rows = [
        f"| `{one['name']}` | {one['in']} | {_type(one['schema'])} | {one['description']} |"
        for one in operation.get("parameters", [])
    ]
    return ["", "| parameter | in | type | meaning |", "|---|---|---|---|", *rows] if rows else []


def _type(schema: dict[str, Any]) -> str:
    if schema["type"] == "array":
        return f"up to {schema['maxItems']} of: {_type(schema['items'])}"
    bounds = [
        f"{words} {schema[name]}"
        for name, words in (("minimum", "from"), ("maximum", "to"), ("maxLength", "up to"), ("default", "default"))
        if name in schema
    ]
    return " ".join([schema["type"], *bounds, *(["characters"] if "maxLength" in schema else [])])


def _body(operation: dict[str, Any]) -> list[str]:
    if "requestBody" not in operation:
        return []
    (content,) = operation["requestBody"]["content"].values()
    return ["", f"Body (JSON): {_names(content['schema'])}."]


def _names(schema: dict[str, Any]) -> str:
    """The types of the OpenAPI document that a schema allows."""
    if "$ref" in schema:
        return f"`{schema['$ref'].rpartition('/')[2]}`"
    if schema.get("type") == "array":
        return f"array of {_names(schema['items'])}"
    either = schema.get("oneOf") or schema.get("anyOf")
    return " or ".join(map(_names, either)) if either else schema.get("type", "text")


def _responses(operation: dict[str, Any]) -> list[str]:
    rows = []
    for status, response in sorted(operation["responses"].items()):
        kinds = {_names(content.get("schema", {})) for content in response.get("content", {}).values()}
        rows.append(f"| {status} | {response['description']} | {', '.join(sorted(kinds))} |")
    return ["", "| status | meaning | body |", "|---|---|---|", *rows]

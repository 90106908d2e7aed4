"""The fields of a struct and their kinds, without bounds, for schema languages with fewer features than msgspec.

The Avro and Protobuf schemas are both generated from this, so a field is declared only once, in :mod:`schemas.events`
or :mod:`schemas.consents`.
"""

import inspect
from typing import Final, Literal, NamedTuple

import msgspec
from msgspec import inspect as types

Kind = Literal["text", "int32", "int64", "float", "bool", "texts", "text_map"]
_INT32_MAX: Final = 2**31 - 1


class Field(NamedTuple):
    """A field; `default` is None if it may be absent, and is meaningless if it is required."""

    name: str
    kind: Kind
    required: bool
    default: object


def fields_of(struct: type[msgspec.Struct]) -> list[Field]:
    """The fields of `struct` in order, which is part of the published schemas: only append.

    >>> from schemas.events import Interaction
    >>> fields_of(Interaction)[2]
    Field(name='ts', kind='int64', required=True, default=None)
    """
    shape = types.type_info(struct)
    assert isinstance(shape, types.StructType)
    return [
        Field(field.name, _kind(field.type), field.required, None if field.required else field.default)
        for field in shape.fields
    ]


def summary_of(struct: type[msgspec.Struct]) -> str:
    """The first line of the docstring of `struct`."""
    return (inspect.getdoc(struct) or "").partition("\n")[0]


def _kind(shape: types.Type) -> Kind:
    match shape:
        case types.UnionType(types=(inner, types.NoneType())):
            return _kind(inner)
        case types.Metadata(type=inner):
            return _kind(inner)
        case types.IntType(ge=low, le=high):
            return "int64" if low is None or high is None or max(-low, high) > _INT32_MAX else "int32"
        case types.FloatType():
            return "float"
        case types.BoolType():
            return "bool"
        case types.StrType() | types.LiteralType():
            return "text"
        case types.ListType(item_type=item) if _kind(item) == "text":
            return "texts"
        case types.DictType(key_type=key, value_type=value) if _kind(key) == _kind(value) == "text":
            return "text_map"
    raise TypeError(f"no schema language of ours has a kind for {type(shape).__name__}")

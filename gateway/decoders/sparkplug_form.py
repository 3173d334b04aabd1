"""The form of a Sparkplug B payload, as protobuf describes it (Eclipse Sparkplug 3.0, §6.4.1), and its data types.

Invariant: names and numbers are those of the specification; what is made of a payload is for `sparkplug`.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ARRAYS", "TYPES", "payload_class"]

_VALUES = "int_value uint32, long_value uint64, float_value float, double_value double, boolean_value bool, "
_VALUES += "string_value string"

_MESSAGES: dict[str, tuple[int, str]] = {
    "Payload": (1, "timestamp uint64, metrics *Metric, seq uint64, uuid string, body bytes"),
    "Metric": (
        1,
        (
            "name string, alias uint64, timestamp uint64, datatype uint32, is_historical bool, is_transient bool, "
            f"is_null bool, metadata MetaData, properties PropertySet, | {_VALUES}, bytes_value bytes, "
            "dataset_value DataSet, template_value Template"
        ),
    ),
    "MetaData": (
        1,
        (
            "is_multi_part bool, content_type string, size uint64, seq uint64, file_name string, file_type string, "
            "md5 string, description string"
        ),
    ),
    "PropertySet": (1, "keys *string, values *PropertyValue"),
    "PropertyValue": (
        1,
        f"type uint32, is_null bool, | {_VALUES}, propertyset_value PropertySet, propertysets_value PropertySetList",
    ),
    "PropertySetList": (1, "propertyset *PropertySet"),
    "DataSet": (1, "num_of_columns uint64, columns *string, types *uint32, rows *Row"),
    "Row": (1, "elements *DataSetValue"),
    "DataSetValue": (1, f"| {_VALUES}"),
    "Template": (1, "version string, metrics *Metric, parameters *Parameter, template_ref string, is_definition bool"),
    "Parameter": (1, f"name string, type uint32, | {_VALUES}"),
}
"""By message its first number, and its fields in the order of their numbers; `*` repeated, behind `|` one of them."""

_NAMES = """
Unknown Int8 Int16 Int32 Int64 UInt8 UInt16 UInt32 UInt64 Float Double Boolean String DateTime Text UUID DataSet Bytes
File Template PropertySet PropertySetList Int8Array Int16Array Int32Array Int64Array UInt8Array UInt16Array UInt32Array
UInt64Array FloatArray DoubleArray BooleanArray StringArray DateTimeArray
"""

TYPES = dict(enumerate(_NAMES.split()))
"""Data types by number."""

ARRAYS = {22: "b", 23: "h", 24: "i", 25: "q", 26: "B", 27: "H", 28: "I", 29: "Q", 30: "f", 31: "d", 34: "q"}
"""Those whose items lie in a row, little end first, as `struct` names them."""


def payload_class() -> Any:
    """The class of a payload, which reads its bytes.

    Raises:
        ImportError: protobuf is not installed.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field_type = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="sparkplug_b.proto", package="sparkplug", syntax="proto2")
    for name, (first, text) in _MESSAGES.items():
        message = file.message_type.add(name=name)
        is_choice = False
        for number, part in enumerate(text.split(", "), start=first):
            if part.startswith("| "):
                is_choice = True
                message.oneof_decl.add(name="value")
                part = part[2:]
            field_name, kind = part.split(" ")
            field = message.field.add(name=field_name, number=number)
            field.label = field_type.LABEL_REPEATED if kind[0] == "*" else field_type.LABEL_OPTIONAL
            kind = kind.removeprefix("*")
            if kind in _MESSAGES:
                field.type, field.type_name = field_type.TYPE_MESSAGE, f".sparkplug.{kind}"
            else:
                field.type = getattr(field_type, f"TYPE_{kind.upper()}")
            if is_choice:
                field.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)  # type: ignore[no-untyped-call,unused-ignore]
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sparkplug.Payload"))

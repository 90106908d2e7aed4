"""The messages of inference over gRPC, as descriptors: the fields that are used, by their numbers.

From `open_inference_grpc.proto` of the Open Inference Protocol, and `predict.proto` and `tensor.proto` of TensorFlow.
Fields that are left out are skipped by the protobuf library. A map is a repeated message of key and value.
"""

from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass

_KINDS: Final = {
    "double": FieldDescriptorProto.TYPE_DOUBLE,
    "float": FieldDescriptorProto.TYPE_FLOAT,
    "int64": FieldDescriptorProto.TYPE_INT64,
    "uint64": FieldDescriptorProto.TYPE_UINT64,
    "int32": FieldDescriptorProto.TYPE_INT32,
    "uint32": FieldDescriptorProto.TYPE_UINT32,
    "bool": FieldDescriptorProto.TYPE_BOOL,
    "string": FieldDescriptorProto.TYPE_STRING,
    "bytes": FieldDescriptorProto.TYPE_BYTES,
}
_MESSAGES: Final[dict[str, dict[int, str]]] = {
    "Contents": {
        1: "repeated bool bool_contents",
        2: "repeated int32 int_contents",
        3: "repeated int64 int64_contents",
        4: "repeated uint32 uint_contents",
        5: "repeated uint64 uint64_contents",
        6: "repeated float fp32_contents",
        7: "repeated double fp64_contents",
    },
    "Tensor": {1: "string name", 2: "string datatype", 3: "repeated int64 shape", 5: "Contents contents"},
    "Wanted": {1: "string name"},
    "ModelInferRequest": {
        1: "string model_name",
        2: "string model_version",
        5: "repeated Tensor inputs",
        6: "repeated Wanted outputs",
        7: "repeated bytes raw_input_contents",
    },
    "ModelInferResponse": {5: "repeated Tensor outputs", 6: "repeated bytes raw_output_contents"},
    "ModelMetadataRequest": {1: "string name", 2: "string version"},
    "ModelMetadataResponse": {4: "repeated Tensor inputs", 5: "repeated Tensor outputs"},
    "Version": {1: "int64 value"},
    "ModelSpec": {1: "string name", 2: "Version version", 3: "string signature_name"},
    "Dimension": {1: "int64 size"},
    "Shape": {2: "repeated Dimension dim"},
    "TensorProto": {
        1: "int32 dtype",
        2: "Shape tensor_shape",
        4: "bytes tensor_content",
        5: "repeated float float_val",
        6: "repeated double double_val",
        7: "repeated int32 int_val",
        10: "repeated int64 int64_val",
    },
    "Entry": {1: "string key", 2: "TensorProto value"},
    "PredictRequest": {1: "ModelSpec model_spec", 2: "repeated Entry inputs", 3: "repeated string output_filter"},
    "PredictResponse": {1: "repeated Entry outputs"},
}


def _file() -> FileDescriptorProto:
    file = FileDescriptorProto(name="freshet/scoring.proto", package="freshet.scoring", syntax="proto3")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, text in fields.items():
            *repeated, kind, field_name = text.split()
            field = message.field.add(name=field_name, number=number)
            field.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if kind in _KINDS:
                field.type = _KINDS[kind]
            else:
                field.type, field.type_name = field.TYPE_MESSAGE, f".freshet.scoring.{kind}"
    return file


_POOL: Final = DescriptorPool()
_POOL.Add(_file())


def message(name: str) -> Any:
    """The class of a message."""
    return GetMessageClass(_POOL.FindMessageTypeByName(f"freshet.scoring.{name}"))

"""Writes spec/golden/grpc: requests of TensorFlow Serving's gRPC API as Google's protobuf writes them, with what TensorFlow itself reads out of their
tensors (tf.io.parse_tensor) as the expected answers of models that copy. Run: python3 spec/golden/make_grpc.py (needs tensorflow,
tensorflow-serving-api, ml_dtypes)."""
import json
import os

import ml_dtypes
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import predict_pb2

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "grpc")

# our name -> NumPy's type, the field that lists elements
TYPES = {
    "float32": (np.float32, "float_val"), "float64": (np.float64, "double_val"), "float16": (np.float16, "half_val"),
    "bfloat16": (ml_dtypes.bfloat16, "half_val"), "int8": (np.int8, "int_val"), "int16": (np.int16, "int_val"), "int32": (np.int32, "int_val"),
    "int64": (np.int64, "int64_val"), "uint8": (np.uint8, "int_val"), "uint16": (np.uint16, "int_val"), "uint32": (np.uint32, "uint32_val"),
    "uint64": (np.uint64, "uint64_val"), "bool": (np.bool_, "bool_val"), "string": (np.object_, "string_val"),
    "float8e5m2": (ml_dtypes.float8_e5m2, "float8_val"), "float8e4m3fn": (ml_dtypes.float8_e4m3fn, "float8_val"),
    "float8e4m3fnuz": (ml_dtypes.float8_e4m3fnuz, "float8_val"), "float8e5m2fnuz": (ml_dtypes.float8_e5m2fnuz, "float8_val"),
    "int4": (ml_dtypes.int4, "int_val"), "uint4": (ml_dtypes.uint4, "int_val"), "int2": (ml_dtypes.int2, "int_val"), "uint2": (ml_dtypes.uint2, "int_val"),
}


def values(name):
    """A row of three by two that has what is special about the type."""
    numpy = TYPES[name][0]
    if name == "string":
        flat = [b"", b"plain", "gr\u00fcn".encode(), b"\0nul\0", b"\xff\xfe", b"x" * 200]
        return np.array(flat, dtype=object).reshape(3, 2)
    if name == "bool":
        return np.array([[True, False], [False, True], [True, True]])
    if name in ("float32", "float64", "float16", "bfloat16"):
        info = ml_dtypes.finfo(numpy)
        return np.array([[0.1, -0.0], [np.inf, -np.inf], [np.nan, float(info.smallest_subnormal)]]).astype(numpy)
    if name.startswith("float8"):
        return np.array([[0.5, -1.5], [3, -2], [0, 16]], dtype=np.float32).astype(numpy)
    info = ml_dtypes.iinfo(numpy)
    low, high = int(info.min), int(info.max)
    return np.array([[low, high], [1, 0], [-1 if low < 0 else 2, high - 1]], dtype=object).astype(numpy)


def bits(array):
    return array.view({1: np.uint8, 2: np.uint16}[array.itemsize])


def typed(name, array, shape=None):
    """A TensorProto with a typed list, as tensor.proto's comments describe them."""
    numpy, field = TYPES[name]
    proto = tensor_pb2.TensorProto(dtype=tf.as_dtype(tf.string if name == "string" else numpy).as_datatype_enum)
    proto.tensor_shape.SetInParent()
    for size in array.shape if shape is None else shape:
        proto.tensor_shape.dim.add(size=size)
    flat = array.reshape(-1)
    if field == "float8_val":
        proto.float8_val = bits(flat).tobytes()
    elif field == "half_val":
        proto.half_val.extend(int(v) for v in bits(flat))
    elif field == "string_val":
        proto.string_val.extend(flat)
    elif field in ("float_val", "double_val"):
        getattr(proto, field).extend(flat.tolist())
    else:
        getattr(proto, field).extend(int(v) for v in flat)
    return proto


def unpacked_type():
    """TensorProto, its lists not packed."""
    file = descriptor_pb2.FileDescriptorProto(name="unpacked.proto", package="unpacked", syntax="proto3")
    message = file.message_type.add(name="Tensor")
    for field in tensor_pb2.TensorProto.DESCRIPTOR.fields:
        if field.name.endswith("_val") and field.message_type is None and field.name != "float8_val":
            added = message.field.add(name=field.name, number=field.number, label=3, type=field.type)
            if field.type not in (field.TYPE_BYTES, field.TYPE_STRING):
                added.options.packed = False
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("unpacked.Tensor"))


UNPACKED = unpacked_type()


def unpacked(proto):
    """Bytes of the same tensor with unpacked lists."""
    head, lists = tensor_pb2.TensorProto(), UNPACKED()
    head.CopyFrom(proto)
    for field, value in proto.ListFields():
        if field.name in UNPACKED.DESCRIPTOR.fields_by_name:
            getattr(lists, field.name).extend(value)
            head.ClearField(field.name)
    return head.SerializeToString() + lists.SerializeToString()


def parsed(bytes_):
    proto = tensor_pb2.TensorProto.FromString(bytes_)
    value = tf.io.parse_tensor(proto.SerializeToString(), tf.as_dtype(proto.dtype)).numpy()
    return np.array(value, dtype=object) if isinstance(value, bytes) else np.asarray(value)


def request(tensors, signature="", filter_=(), version=None, label=None, name="m", raw=None):
    message = predict_pb2.PredictRequest()
    message.model_spec.name = name
    message.model_spec.signature_name = signature
    if version is not None:
        message.model_spec.version.value = version
    if label is not None:
        message.model_spec.version_label = label
    for key, tensor in tensors.items():
        message.inputs[key].CopyFrom(tensor)
    message.output_filter.extend(filter_)
    bytes_ = message.SerializeToString(deterministic=True)
    if raw is not None:  # a tensor that is bytes already, as another entry of the map
        entry = b"\x0a\x01x" + b"\x12" + varint(len(raw)) + raw
        bytes_ += b"\x12" + varint(len(entry)) + entry
    return bytes_


def varint(value):
    out = b""
    while value >= 0x80:
        out += bytes([value & 0x7F | 0x80])
        value >>= 7
    return out + bytes([value])


def response(tensors, signature="serving_default", version=3, name="m"):
    message = predict_pb2.PredictResponse()
    message.model_spec.name = name
    message.model_spec.version.value = version
    message.model_spec.signature_name = signature
    for key, tensor in tensors.items():
        message.outputs[key].CopyFrom(tensor)
    return message.SerializeToString(deterministic=True)


def same(a, b):
    if a.dtype == object:
        return (a == b).all()
    if a.dtype.name.endswith(("int2", "int4")):  # bits beyond the value may be anything
        a, b = a.astype(np.int8), b.astype(np.int8)
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def contents(name, array):
    """A TensorProto with tensor_content."""
    proto, flat = typed(name, array.reshape(-1)[:0], array.shape), array.reshape(-1)
    if name == "string":
        proto.tensor_content = b"".join(varint(len(text)) for text in flat) + b"".join(flat)
    else:
        proto.tensor_content = (flat.astype(np.int8) if name in ("int2", "int4") else flat).tobytes()
    return proto


def answers(name, array):
    """The expected answers of a model that copies `array`: in typed lists and as tensor_content."""
    lists = typed(name, array)
    assert same(parsed(lists.SerializeToString()), array), name
    content = contents(name, array)
    assert same(parsed(content.SerializeToString()), array), name
    return response({"y": lists}), response({"y": content})


def copies():
    cases = []

    def case(title, name, dims, raw):
        array = parsed(raw)
        lists, content = answers(name, array)
        cases.append({"title": f"{name}: {title}", "dtype": name, "dims": dims, "request": request({}, raw=raw).hex(), "response": lists.hex(),
                      "content": content.hex()})

    any2 = [-1, -1]
    for name in TYPES:
        array = values(name)
        case("typed list", name, any2, typed(name, array).SerializeToString())
        case("made by TensorFlow", name, any2, tf.make_tensor_proto(array).SerializeToString())
        case("tensor_content", name, any2, contents(name, array).SerializeToString())
        if not name.startswith("float8"):
            case("unpacked list", name, any2, unpacked(typed(name, array)))
        some = array.reshape(-1)[:3]
        case("the last is repeated", name, any2, typed(name, some, (2, 4)).SerializeToString())
        case("nothing is zeros", name, any2, typed(name, some[:0], (2, 2)).SerializeToString())
        case("more than its shape holds", name, [-1], typed(name, array, (4,)).SerializeToString())
        case("no rows", name, any2, typed(name, some[:0], (0, 3)).SerializeToString())
        case("scalar", name, [], typed(name, some[:1], ()).SerializeToString())
    flat = np.arange(6, dtype=np.float32)
    whole = typed("float32", flat).SerializeToString()
    case("an empty piece of the list", "float32", [-1], whole + b"\x2a\0")
    ranked = typed("float32", flat)
    ranked.tensor_shape.unknown_rank = True  # which TensorFlow ignores
    case("unknown rank", "float32", [-1], ranked.SerializeToString())
    two = typed("float32", flat[:2], (6,)).SerializeToString() + tensor_pb2.TensorProto(float_val=flat[2:]).SerializeToString()
    case("list in two pieces", "float32", [-1], two)
    case("fields in another order", "int64", [-1],
         tensor_pb2.TensorProto(int64_val=[5, -6, 7]).SerializeToString() + typed("int64", np.zeros(0, np.int64), (3,)).SerializeToString())
    case("large integers", "int64", [-1], typed("int64", np.array([2**53 + 1, -2**53 - 1, 127, 128, -1])).SerializeToString())
    return cases


def wrong():
    """Tensors that TensorFlow cannot read."""
    shape = typed("float32", np.arange(6, dtype=np.float32).reshape(2, 3))
    cases = {}

    def case(title, change):
        proto = tensor_pb2.TensorProto()
        proto.CopyFrom(shape)
        change(proto)
        try:
            tf.io.parse_tensor(proto.SerializeToString(), tf.float32)
        except tf.errors.InvalidArgumentError:
            cases[title] = request({"x": proto}).hex()
        else:
            raise AssertionError(title)

    case("content too short", lambda p: setattr(p, "tensor_content", b"\0" * 23))
    case("content too long", lambda p: setattr(p, "tensor_content", b"\0" * 28))
    case("negative size", lambda p: setattr(p.tensor_shape.dim[0], "size", -2))
    case("no type", lambda p: setattr(p, "dtype", 0))
    case("too large to count", lambda p: (setattr(p.tensor_shape.dim[0], "size", 2**62), setattr(p.tensor_shape.dim[1], "size", 4)))
    return cases


def requests():
    """Requests of a model with inputs a, b and outputs sum = a + b, diff = a - b, float32 (-1, 2)."""
    a, b = np.array([[4, 3], [0.5, -1]], np.float32), np.array([[2, 1], [0.25, 8]], np.float32)
    pa, pb = tf.make_tensor_proto(a), typed("float32", b)
    both, out = {"a": pa, "b": pb}, {"sum": typed("float32", a + b), "diff": typed("float32", a - b)}
    long_request = predict_pb2.PredictRequest.FromString(request(both))
    long_request.client_id = b"someone"
    long_request.request_options.max_cache_length = 7
    long_request.predict_streamed_options.split_dimensions["a"] = 1
    head = predict_pb2.PredictRequest()
    head.model_spec.name, head.model_spec.signature_name = "m", "other"
    rest = request(both, name="")
    swapped = response({"total": out["diff"], "rest": out["sum"]}, "other")
    return {
        "both": [request(both), response(out)],
        "filtered": [request(both, filter_=["diff"]), response({"diff": out["diff"]})],
        "versioned": [request(both, version=3), response(out)],
        "named signature": [request(both, signature="other", filter_=["rest", "total"]), swapped],
        "model_spec last": [rest + head.SerializeToString(), swapped],
        "other fields": [long_request.SerializeToString(), response(out)],
        "unknown fields": [b"\xfa\x01\x03abc" + b"\xf0\x01\x05" + b"\xf5\x01\0\0\0\0" + b"\xf1\x01" + b"\0" * 8 + request(both), response(out)],
        "twice: the last counts": [request({"a": pb}) + request(both), response(out)],
        "missing": [request({"a": pa})],
        "extra": [request({**both, "c": pa})],
        "renamed": [request({"a": pa, "c": pb})],
        "none": [request({})],
        "no signature": [request(both, signature="nobody's")],
        "unknown output": [request(both, filter_=["sum", "product"])],
        "output twice": [request(both, filter_=["sum", "sum"])],
        "strings": [request({"a": pa, "b": tf.make_tensor_proto([["x", "y"]])})],
        "complex": [request({"a": pa, "b": tf.make_tensor_proto(np.zeros((1, 2), np.complex64))})],
        "three columns": [request({"a": pa, "b": typed("float32", np.zeros((2, 3), np.float32))})],
        "one dimension": [request({"a": pa, "b": typed("float32", np.zeros(2, np.float32))})],
        "too many elements": [request({"a": pa, "b": typed("float32", np.zeros(1, np.float32), (500, 2))})],
        "no model_spec": [request(both)[len(request({})):]],
        "empty name": [request(both, name="")],
        "label": [request(both, label="canary")],
        "version 0": [request(both, version=0)],
        "negative version": [request(both, version=-1)],
    }


if __name__ == "__main__":
    os.makedirs(ROOT, exist_ok=True)
    document = {"copies": copies(), "wrong": wrong(), "requests": {k: [b.hex() for b in v] for k, v in requests().items()}}
    with open(os.path.join(ROOT, "predict.json"), "w") as f:
        json.dump(document, f, indent=0)
        f.write("\n")

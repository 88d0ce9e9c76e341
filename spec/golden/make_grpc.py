"""Writes spec/golden/grpc: requests of TensorFlow Serving's gRPC API as Google's protobuf writes them, with what TensorFlow itself reads out of their
tensors (tf.io.parse_tensor) as the expected answers of models that copy; and requests of KServe's gRPC API as tritonclient writes them, with the
answers that it reads. Run: python3 spec/golden/make_grpc.py (needs tensorflow, tensorflow-serving-api, tritonclient[grpc], ml_dtypes)."""
import json
import os

import ml_dtypes
import numpy as np
import tensorflow as tf
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from tensorflow.core.framework import tensor_pb2
from tensorflow_serving.apis import classification_pb2, inference_pb2, input_pb2, predict_pb2, regression_pb2
from tritonclient import grpc as triton
from tritonclient.grpc import service_pb2
from tritonclient.grpc._utils import _get_inference_request
from tritonclient.utils import np_to_triton_dtype, serialize_byte_tensor

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


def unpacked_type(message_type, skipped=()):
    """The lists of a message, not packed."""
    file = descriptor_pb2.FileDescriptorProto(name=f"unpacked{message_type.name}.proto", package="unpacked", syntax="proto3")
    message = file.message_type.add(name=message_type.name)
    for field in message_type.fields:
        if field.is_repeated and field.message_type is None and field.name not in skipped:
            added = message.field.add(name=field.name, number=field.number, label=3, type=field.type)
            if field.type not in (field.TYPE_BYTES, field.TYPE_STRING):
                added.options.packed = False
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"unpacked.{message_type.name}"))


UNPACKED = unpacked_type(tensor_pb2.TensorProto.DESCRIPTOR)


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
        "other fields": [long_request.SerializeToString(deterministic=True), response(out)],
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


def example(**features):
    """A tf.Example, its lists by the types of the values."""
    message = tf.train.Example()
    for name, listed in features.items():
        feature = message.features.feature[name]
        feature.SetInParent()
        if listed is None:
            continue
        kind = {float: feature.float_list, int: feature.int64_list, bytes: feature.bytes_list}[type(listed[0])]
        kind.value.extend(listed)
    return message


def input_of(examples, context=None):
    if context is None:
        return input_pb2.Input(example_list=input_pb2.ExampleList(examples=examples))
    return input_pb2.Input(example_list_with_context=input_pb2.ExampleListWithContext(examples=examples, context=context))


def spec(message, signature="", name="m"):
    message.name = name
    message.signature_name = signature


def classified(rows):
    result = classification_pb2.ClassificationResult()
    for row in rows:
        each = result.classifications.add()
        for label, score in row:
            each.classes.add(label=label, score=score)
    return result


def regressed(values_):
    result = regression_pb2.RegressionResult()
    for value in values_:
        result.regressions.add(value=value)
    return result


def answered(message, signature="serving_default"):
    spec(message.model_spec, signature)
    message.model_spec.version.value = 3
    return message


def examples():
    """For a model that copies x, three float32, to its scores, whose classes are called a, b and c, and adds them up to its value; for one that adds
    up the columns u and v; for one that copies n, an int64, to its label; and for the pipeline of spec/golden/pipeline."""
    out = {}
    rows = [[1.0, 0.25, -2.0], [0.0, -0.0, float("inf")], [3.5, 1e-40, 7.0]]
    three = [example(x=row) for row in rows]
    labelled = [list(zip("abc", row)) for row in rows]

    def case(title, message, input_, signature="", response_=None):
        message.input.CopyFrom(input_)
        if hasattr(message, "model_spec"):
            spec(message.model_spec, signature)
        out[title] = [message.SerializeToString(deterministic=True)] + ([response_.SerializeToString(deterministic=True)] if response_ else [])

    def classes(rows_, signature="serving_default"):
        return answered(classification_pb2.ClassificationResponse(result=classified(rows_)), signature)

    def numbers(values_, signature="serving_default"):
        return answered(regression_pb2.RegressionResponse(result=regressed(values_)), signature)

    classify, regress = classification_pb2.ClassificationRequest, regression_pb2.RegressionRequest
    case("classify", classify(), input_of(three), response_=classes(labelled))
    case("classify: named signature", classify(), input_of(three), "scores_only", classes(labelled, "scores_only"))
    case("classify: context", classify(), input_of([example(), three[0], example(y=[b"unused"])], example(x=rows[2])),
         response_=classes([labelled[2], labelled[0], labelled[2]]))
    case("classify: whole numbers", classify(), input_of([example(x=[1, 2, -3])]), response_=classes([list(zip("abc", [1, 2, -3]))]))
    case("classify: labels", classify(), input_of([example(n=[v]) for v in (5, -7, 2**62)]),
         response_=classes([[(str(v), 0)] for v in (5, -7, 2**62)]))
    case("regress", regress(), input_of([example(u=[1.5], v=[2.0]), example(u=[-1.0], v=[1.0])]), response_=numbers([3.5, 0]))
    case("regress: one list", regress(), input_of([example(x=[1.5, 2.0]), example(x=[4, 5])]), response_=numbers([3.5, 9]))
    case("regress: context", regress(), input_of([example(u=[1.0]), example(u=[2.0], v=[0.5])], example(v=[10.0])), response_=numbers([11, 2.5]))
    case("pipeline", classify(), input_of([example(island=[i.encode()], mass=[m]) for i, m in (("Torgersen", 3750.0), ("Biscoe", 4725.0), ("Dream", 3675.0),
                                                                                             ("Biscoe", 5450.0))]))
    case("no input", classify(), input_pb2.Input())
    case("no examples", classify(), input_of([]))
    case("no examples but context", classify(), input_of([], three[0]))
    case("no signature", classify(), input_of(three), "nobody's")
    case("no feature", classify(), input_of([three[0], example(y=[1.0])]))
    case("feature without a list", classify(), input_of([example(x=None)]))
    case("two values", classify(), input_of([three[0], example(x=[1.0, 2.0])]))
    case("bytes", classify(), input_of([example(x=[b"1", b"2", b"3"])]))

    def multi(title, tasks, input_, results=None):
        message = inference_pb2.MultiInferenceRequest()
        for name, signature, method in tasks:
            task = message.tasks.add(method_name=method)
            spec(task.model_spec, signature, name)
        response_ = None
        if results:
            response_ = inference_pb2.MultiInferenceResponse()
            for (_, signature, _), result in zip(tasks, results):
                each = response_.results.add()
                answered(each, signature or "serving_default")
                (each.regression_result if isinstance(result, regression_pb2.RegressionResult) else each.classification_result).CopyFrom(result)
        case(title, message, input_, response_=response_)

    a, b = "tensorflow/serving/classify", "tensorflow/serving/regress"
    sums = regressed([float(np.float32(sum(np.float32(v) for v in row))) for row in rows])
    multi("multi", [("m", "", a), ("m", "value_only", b)], input_of(three), [classified(labelled), sums])
    multi("multi: one", [("m", "value_only", b)], input_of(three), [sums])
    multi("multi: twice", [("m", "", a), ("m", "serving_default", a)], input_of(three))
    multi("multi: another method", [("m", "", "tensorflow/serving/predict")], input_of(three))
    multi("multi: another model", [("m", "", a), ("n", "value_only", b)], input_of(three))
    multi("multi: no model", [("m", "", a), ("", "value_only", b)], input_of(three))
    multi("multi: no signature", [("m", "nobody's", a)], input_of(three))
    multi("multi: other inputs", [("m", "", a), ("m", "renamed", b)], input_of(three))
    multi("multi: no tasks", [], input_of(three))
    return out


# KServe's protocol: our name -> its name and the list of contents
DATATYPES = {
    "bool": ("BOOL", "bool_contents"), "uint8": ("UINT8", "uint_contents"), "uint16": ("UINT16", "uint_contents"), "uint32": ("UINT32", "uint_contents"),
    "uint64": ("UINT64", "uint64_contents"), "int8": ("INT8", "int_contents"), "int16": ("INT16", "int_contents"), "int32": ("INT32", "int_contents"),
    "int64": ("INT64", "int64_contents"), "float16": ("FP16", None), "bfloat16": ("BF16", None), "float32": ("FP32", "fp32_contents"),
    "float64": ("FP64", "fp64_contents"), "string": ("BYTES", "bytes_contents"),
}
INFER_UNPACKED = {d: unpacked_type(d) for d in (service_pb2.InferTensorContents.DESCRIPTOR, service_pb2.ModelInferRequest.InferInputTensor.DESCRIPTOR)}


def raw_bytes(array):
    if array.dtype == object:
        return serialize_byte_tensor(array).item() if array.size else b""
    return array.tobytes()


def given(name, array, input_="x"):
    """An input as tritonclient makes it."""
    tensor = triton.InferInput(input_, list(array.shape), DATATYPES[name][0])
    assert np_to_triton_dtype(array.dtype) == DATATYPES[name][0], name
    tensor.set_data_from_numpy(array)
    return tensor


def infer(inputs, outputs=None, id_="", version="", parameters=None, **more):
    return _get_inference_request(model_name="m", inputs=inputs, model_version=version, request_id=id_, outputs=outputs, sequence_id=more.get("sequence", 0),
                                  sequence_start=False, sequence_end=False, priority=more.get("priority", 0), timeout=more.get("timeout"),
                                  parameters=parameters)


def inferred(outputs, id_="", version="3", model="m"):
    """A ModelInferResponse of (name, datatype, array), and whether tritonclient reads it back."""
    message = service_pb2.ModelInferResponse(model_name=model, model_version=version, id=id_)
    for name, datatype, array in outputs:
        message.outputs.add(name=name, datatype=datatype, shape=list(array.shape))
        message.raw_output_contents.append(raw_bytes(array))
    result = triton.InferResult(message)
    for name, datatype, array in outputs:
        if array.size:
            assert same(result.as_numpy(name), array), name
    return message.SerializeToString()


def contents_of(name, array):
    """The same input with typed contents."""
    datatype, field = DATATYPES[name]
    tensor = service_pb2.ModelInferRequest.InferInputTensor(name="x", datatype=datatype, shape=list(array.shape))
    flat = array.reshape(-1)
    getattr(tensor.contents, field).extend(flat.tolist())
    tensor.contents.SetInParent()
    return tensor


def without_packing(tensor):
    """Bytes of an input with unpacked lists."""
    kinds = {d.name: t for d, t in INFER_UNPACKED.items()}
    head, shape, lists = service_pb2.ModelInferRequest.InferInputTensor(), kinds["InferInputTensor"](), kinds["InferTensorContents"]()
    head.CopyFrom(tensor)
    shape.shape.extend(tensor.shape)
    for field, value in tensor.contents.ListFields():
        getattr(lists, field.name).extend(value)
    head.ClearField("shape")
    head.ClearField("contents")
    contents = lists.SerializeToString()
    return head.SerializeToString() + shape.SerializeToString() + b"\x2a" + varint(len(contents)) + contents


def infer_copies():
    cases = []

    def case(title, name, dims, bytes_, array):
        cases.append({"title": f"{name}: {title}", "dtype": name, "dims": dims, "request": bytes_.hex(),
                      "response": inferred([("y", DATATYPES[name][0], array)]).hex()})

    for name in DATATYPES:
        array, any2 = values(name), [-1, -1]
        empty, scalar = array[:0], array.reshape(-1)[:1].reshape(())
        case("raw", name, any2, infer([given(name, array)]).SerializeToString(), array)
        case("no rows", name, any2, infer([given(name, empty)]).SerializeToString(), empty)
        if name != "string":
            case("scalar", name, [], infer([given(name, scalar)]).SerializeToString(), scalar)
        if DATATYPES[name][1]:
            head = b"\x0a\x01m"
            for title, bytes_ in (("typed", contents_of(name, array).SerializeToString()), ("typed, not packed", without_packing(contents_of(name, array)))):
                case(title, name, any2, head + b"\x2a" + varint(len(bytes_)) + bytes_, array)
            bytes_ = contents_of(name, empty).SerializeToString()
            case("typed, no rows", name, any2, head + b"\x2a" + varint(len(bytes_)) + bytes_, empty)
    raw = service_pb2.ModelInferRequest(model_name="m")
    raw.inputs.add(name="x", datatype="BOOL", shape=[3])
    raw.raw_input_contents.append(b"\x00\x02\xff")
    case("any byte but 0 is true", "bool", [-1], raw.SerializeToString(), np.array([False, True, True]))
    return cases


def infer_requests():
    """Requests of the model with inputs a, b and outputs sum, diff."""
    a, b = np.array([[4, 3], [0.5, -1]], np.float32), np.array([[2, 1], [0.25, 8]], np.float32)
    ga, gb = given("float32", a, "a"), given("float32", b, "b")
    total, difference = ("sum", "FP32", a + b), ("diff", "FP32", a - b)
    both = infer([ga, gb])
    out = {}

    def good(title, message, outputs, **more):
        out[title] = [message if isinstance(message, bytes) else message.SerializeToString(deterministic=True), inferred(outputs, **more)]

    def bad(title, message, change=None):
        copy = service_pb2.ModelInferRequest()
        copy.CopyFrom(message)
        if change:
            change(copy)
        out[title] = [copy.SerializeToString(deterministic=True)]

    def classes(k):
        ranked = [[f"{row[i]:f}:{i}".encode() for i in np.argsort(-row, kind="stable")[:k]] for row in a + b]
        return ("sum", "BYTES", np.array(ranked, dtype=object))

    good("both", both, [total, difference])
    good("the other way round", infer([gb, ga]), [total, difference])
    good("one output", infer([ga, gb], outputs=[triton.InferRequestedOutput("diff")]), [difference])
    good("twice the same output", infer([ga, gb], outputs=[triton.InferRequestedOutput("diff"), triton.InferRequestedOutput("diff")]), [difference])
    good("best class", infer([ga, gb], outputs=[triton.InferRequestedOutput("sum", class_count=1), triton.InferRequestedOutput("diff")]),
         [classes(1), difference])
    good("all classes", infer([ga, gb], outputs=[triton.InferRequestedOutput("sum", class_count=9)]), [classes(2)])
    good("id", infer([ga, gb], id_="gr\u00fcn-1"), [total, difference], id_="gr\u00fcn-1")
    good("parameters", infer([ga, gb], sequence=7, priority=2, timeout=5000000, parameters={"text": "x", "number": 4, "flag": True, "real": 0.5}),
         [total, difference])
    good("version", infer([ga, gb], version="3"), [total, difference])
    good("unknown fields", b"\xfa\x01\x03abc" + b"\xf0\x01\x05" + both.SerializeToString() + b"\xf5\x01\0\0\0\0", [total, difference])
    raw_first = service_pb2.ModelInferRequest(raw_input_contents=both.raw_input_contents).SerializeToString()
    bad("rest", both, lambda m: m.ClearField("raw_input_contents"))
    good("raw contents first", raw_first + out.pop("rest")[0], [total, difference])

    bad("one input", infer([ga]))
    bad("three inputs", infer([ga, gb, given("float32", a, "c")]))
    bad("other input", infer([ga, given("float32", a, "c")]))
    bad("input twice", infer([ga, ga]))
    bad("no input", service_pb2.ModelInferRequest(model_name="m"))
    bad("other type", infer([ga, given("float64", b.astype(np.float64), "b")]))
    bad("no type", both, lambda m: setattr(m.inputs[1], "datatype", "FLOAT"))
    bad("shape", infer([ga, given("float32", np.zeros((2, 3), np.float32), "b")]))
    bad("negative shape", both, lambda m: m.inputs[1].shape.__setitem__(0, -1))
    bad("deep", both, lambda m: m.inputs[1].shape.extend([1] * 20))
    bad("raw too short", both, lambda m: m.raw_input_contents.__setitem__(1, b"\0" * 15))
    bad("raw missing", both, lambda m: m.raw_input_contents.pop())
    bad("both forms", both, lambda m: m.inputs[0].contents.fp32_contents.extend([1, 2, 3, 4]))
    bad("shared memory", both, lambda m: m.inputs[0].parameters["shared_memory_region"].SetInParent())

    def typed_with(change):
        def apply(message):
            del message.raw_input_contents[:]
            for tensor in message.inputs:
                tensor.contents.fp32_contents.extend([1, 2, 3, 4])
            change(message.inputs[1].contents)
        return apply

    def instead(field, values_):
        def apply(contents):
            contents.ClearField("fp32_contents")
            getattr(contents, field).extend(values_)
        return apply

    bad("typed: too few", both, typed_with(lambda c: c.fp32_contents.pop()))
    bad("typed: too many", both, typed_with(lambda c: c.fp32_contents.append(5)))
    bad("typed: nothing", both, typed_with(instead("fp32_contents", [])))
    bad("typed: other list", both, typed_with(instead("int_contents", [1, 2, 3, 4])))
    bad("typed: two lists", both, typed_with(lambda c: c.fp64_contents.append(5)))
    bad("unknown output", infer([ga, gb], outputs=[triton.InferRequestedOutput("product")]))
    bad("no classes", infer([ga, gb], outputs=[triton.InferRequestedOutput("sum", class_count=1)]),
        lambda m: setattr(m.outputs[0].parameters["classification"], "int64_param", -1))
    bad("classes of another type", infer([ga, gb], outputs=[triton.InferRequestedOutput("sum", class_count=1)]),
        lambda m: setattr(m.outputs[0].parameters["classification"], "string_param", "1"))
    for name, field, value in (("sequence_id", "bool_param", True), ("sequence_start", "int64_param", 1), ("sequence_end", "string_param", "x"),
                               ("priority", "string_param", "1"), ("timeout", "uint64_param", 5), ("triton_x", "int64_param", 1),
                               ("triton_enable_empty_final_response", "int64_param", 1), ("other", "uint64_param", 1)):
        bad(f"parameter {name}", both, lambda m, n=name, f=field, v=value: setattr(m.parameters[n], f, v))
    bad("negative priority", both, lambda m: setattr(m.parameters["priority"], "int64_param", -1))
    bad("empty parameter", both, lambda m: m.parameters["nothing"].SetInParent())
    bad("shape and id", infer([ga, given("float32", np.zeros((2, 3), np.float32), "b")], id_="42"))
    bad("other model", both, lambda m: setattr(m, "model_name", "nobody"))
    bad("other version", both, lambda m: setattr(m, "model_version", "9"))
    bad("label", both, lambda m: setattr(m, "model_version", "canary"))
    return out


def infer_strings():
    """Raw strings that are cut off, and what Triton's core calls them."""
    message = service_pb2.ModelInferRequest(model_name="m")
    message.inputs.add(name="x", datatype="BYTES", shape=[2])
    out = {}
    for title, raw in (("length cut off", b"\x01\0\0\0a\x01\0"), ("bytes cut off", b"\x01\0\0\0a\x05\0\0\0bcd"), ("too few", b"\x01\0\0\0a"),
                       ("too many", b"\x01\0\0\0a" * 3)):
        del message.raw_input_contents[:]
        message.raw_input_contents.append(raw)
        out[title] = message.SerializeToString().hex()
    return out


def write(name, document):
    with open(os.path.join(ROOT, name), "w") as f:
        json.dump(document, f, indent=0)
        f.write("\n")


def in_hex(requests_):
    return {title: [b.hex() for b in each] for title, each in requests_.items()}


def seeds(folder, requests_):
    """Where fuzzing begins."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../fuzz/seeds", folder)
    os.makedirs(folder, exist_ok=True)
    for title, bytes_ in requests_.items():
        with open(os.path.join(folder, title), "wb") as f:
            f.write(bytes_)


def some(cases, titles):
    return {title.replace(": ", "_").replace(" ", "_").replace(",", ""): bytes.fromhex(case["request"]) for case in cases for title in titles
            if case["title"] == title}


if __name__ == "__main__":
    os.makedirs(ROOT, exist_ok=True)
    tensors, infers, features = copies(), infer_copies(), examples()
    write("predict.json", {"copies": tensors, "wrong": wrong(), "requests": in_hex(requests())})
    write("examples.json", in_hex(features))
    write("infer.json", {"copies": infers, "requests": in_hex(infer_requests()), "strings": infer_strings()})
    seeds("predict_proto", some(tensors, ["float32: tensor_content", "string: typed list", "string: tensor_content", "int64: unpacked list",
                                          "bool: the last is repeated", "int8: scalar", "float32: list in two pieces"]))
    seeds("infer_proto", some(infers, ["float32: raw", "string: raw", "int64: typed", "bool: typed, not packed", "float16: raw", "string: typed"]))
    seeds("examples_proto", {name: first + features[title][0] for name, first, title in
                             (("classify", b"\0", "classify"), ("context", b"\0", "classify: context"), ("regress", b"\1", "regress: one list"),
                              ("multi", b"\2", "multi"), ("bytes", b"\0", "bytes"))})

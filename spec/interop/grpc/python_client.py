"""The table of check_grpc_clients.py with Python's grpcio. Arguments: the configuration (a JSON file) and what to run: all, with modules made from the .proto files
that `mlserve proto` prints, or tfserving, with those of tensorflow-serving-api. Prints one JSON object per case."""
import asyncio
import hashlib
import json
import sys
import threading

import grpc
import numpy as np
from tensorflow.core.framework import tensor_pb2, types_pb2
from tensorflow_serving.apis import (classification_pb2, get_model_metadata_pb2, get_model_status_pb2, inference_pb2, model_management_pb2,
                                     model_service_pb2_grpc, predict_pb2, prediction_service_pb2_grpc, regression_pb2)

with open(sys.argv[1], encoding="utf-8") as file:
    CONFIG = json.load(file)
ALL = sys.argv[2] == "all"
TIMEOUT = 30
UNLIMITED = [("grpc.max_receive_message_length", -1)]


def report(name, **result):
    print(json.dumps({"case": name, **result}), flush=True)


def run(name, function):
    """A case gives a value or a status."""
    try:
        report(name, value=function())
    except grpc.RpcError as error:
        report(name, code=error.code().name, message=error.details())


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def numbers(count):
    """What all clients send where much is sent."""
    return ((np.arange(count, dtype=np.int64) * 7919 % 10007) - 5000).astype("<f4")


# ---- TensorFlow Serving ----

def tensor(array):
    proto = tensor_pb2.TensorProto()
    if array.dtype == object:
        proto.dtype = types_pb2.DT_STRING
        proto.string_val.extend(word.encode() for word in array.ravel())
    else:
        proto.dtype = types_pb2.DT_INT64 if array.dtype == np.int64 else types_pb2.DT_FLOAT
        proto.tensor_content = array.tobytes()
    for size in array.shape:
        proto.tensor_shape.dim.add().size = size
    return proto


def predict_request(model, version=None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = model
    if version:
        request.model_spec.version.value = version
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tensor(array))
    return request


def shape_of(proto):
    return [dim.size for dim in proto.tensor_shape.dim]


def floats_of(proto):
    return np.frombuffer(proto.tensor_content, "<f4") if proto.tensor_content else np.array(proto.float_val, "<f4")


def examples(into, features, rows):
    for row in rows:
        example = into.example_list.examples.add()
        for name, value in zip(features, row):
            example.features.feature[name].float_list.value.append(value)


def model_configs(extra):
    request = model_management_pb2.ReloadConfigRequest()
    for name, base in [*CONFIG["models"].items(), *extra]:
        request.config.model_config_list.config.add(name=name, base_path=base, model_platform="onnx")
    return request


def classes_of(result):
    return [[[each.label, each.score] for each in row.classes] for row in result.classifications]


class Serving:
    def __init__(self, channel, admin):
        self.service = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self.models = model_service_pb2_grpc.ModelServiceStub(channel)
        self.admin = model_service_pb2_grpc.ModelServiceStub(admin)
        self.admin_service = prediction_service_pb2_grpc.PredictionServiceStub(admin)
        self.x = np.array(CONFIG["x"], "<f4")

    def predict(self, request, service=None, **options):
        return (service or self.service).Predict(request, timeout=TIMEOUT, **options)

    def halves(self, **options):
        return floats_of(self.predict(predict_request("half_plus_two", x=np.array(CONFIG["halves"], "<f4")), **options).outputs["y"]).tolist()

    def predict_content(self):
        response = self.predict(predict_request("linear", x=self.x))
        scores = response.outputs["scores"]
        return {"scores": floats_of(scores).tolist(), "shape": shape_of(scores), "model": response.model_spec.name,
                "version": response.model_spec.version.value, "signature": response.model_spec.signature_name}

    def predict_typed(self):
        request = predict_request("linear", 1)
        proto = request.inputs["x"]
        proto.dtype = types_pb2.DT_FLOAT
        for size in self.x.shape:
            proto.tensor_shape.dim.add().size = size
        proto.float_val.extend(self.x.ravel().tolist())
        return floats_of(self.predict(request).outputs["scores"]).tolist()

    def predict_words(self):
        response = self.predict(predict_request("words", w=np.array(CONFIG["words"], object)))
        return [word.decode() for word in response.outputs["same"].string_val]

    def classify(self):
        request = classification_pb2.ClassificationRequest()
        request.model_spec.name = "linear"
        examples(request.input, CONFIG["features"], CONFIG["x"])
        return classes_of(self.service.Classify(request, timeout=TIMEOUT).result)

    def regress(self):
        request = regression_pb2.RegressionRequest()
        request.model_spec.name = "half_plus_two"
        request.model_spec.signature_name = "tensorflow/serving/regress"
        examples(request.input, ["x"], [[value] for value in CONFIG["halves"]])
        return [each.value for each in self.service.Regress(request, timeout=TIMEOUT).result.regressions]

    def multi_inference(self):
        request = inference_pb2.MultiInferenceRequest()
        for name, method in (("half_plus_two", "regress"),):
            task = request.tasks.add(method_name="tensorflow/serving/" + method)
            task.model_spec.name = name
            task.model_spec.signature_name = "tensorflow/serving/" + method
        examples(request.input, ["x"], [[value] for value in CONFIG["halves"]])
        results = self.service.MultiInference(request, timeout=TIMEOUT).results
        return [[each.value for each in result.regression_result.regressions] for result in results]

    def model_metadata(self):
        request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
        request.model_spec.name = "linear"
        response = self.service.GetModelMetadata(request, timeout=TIMEOUT)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not response.metadata["signature_def"].Unpack(signatures):
            return "not a SignatureDefMap"
        signature = signatures.signature_def["serving_default"]
        return {"inputs": {name: [types_pb2.DataType.Name(info.dtype), [dim.size for dim in info.tensor_shape.dim]] for name, info in signature.inputs.items()},
                "outputs": sorted(signature.outputs), "method": signature.method_name}

    def model_status(self):
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = "linear"
        response = self.models.GetModelStatus(request, timeout=TIMEOUT)
        return [[each.version, get_model_status_pb2.ModelVersionStatus.State.Name(each.state), each.status.error_message]
                for each in response.model_version_status]

    def reload_config(self):
        request = model_configs([("added", CONFIG["added"])])
        if self.admin.HandleReloadConfigRequest(request, timeout=TIMEOUT).status.error_code != 0:
            return "refused"
        values = floats_of(self.predict(predict_request("added", x=np.array(CONFIG["halves"], "<f4")), self.admin_service).outputs["y"]).tolist()
        self.admin.HandleReloadConfigRequest(model_configs([]), timeout=TIMEOUT)
        try:
            self.predict(predict_request("added", x=np.array(CONFIG["halves"], "<f4")), self.admin_service)
        except grpc.RpcError as error:
            return [values, error.code().name]
        return [values, "OK"]

    def error_unknown(self):
        try:
            self.admin.HandleReloadConfigRequest(model_configs([("missing", CONFIG["missing"])]), timeout=TIMEOUT)
        finally:
            self.admin.HandleReloadConfigRequest(model_configs([]), timeout=TIMEOUT)

    def error_failed_precondition(self):
        request = predict_request("linear", x=self.x)
        request.model_spec.signature_name = "none"
        self.predict(request)

    def large(self):
        x = numbers(CONFIG["large"]).reshape(1, -1)
        proto = self.predict(predict_request("negate", x=x)).outputs["y"]
        return [shape_of(proto), sha256(floats_of(proto).tobytes())]

    def slow(self, deadline):
        call = self.service.Predict.future(predict_request("slow", n=np.array([CONFIG["iterations"]], np.int64)), timeout=deadline)
        return call

    def cancelled(self):
        call = self.slow(TIMEOUT)
        call.cancel()
        try:
            call.result()
        except grpc.FutureCancelledError:
            return {"code": call.code().name, "after": self.halves()}
        return "not cancelled"

    def deadline(self):
        call = self.slow(CONFIG["deadline"])
        return {"code": call.code().name, "after": self.halves()}

    def streams(self):
        calls = [self.service.Predict.future(predict_request("half_plus_two", x=np.array([i], "<f4")), timeout=TIMEOUT) for i in range(CONFIG["streams"])]
        return [floats_of(call.result().outputs["y"]).tolist() for call in calls]

    def cases(self):
        yield "predict_content", self.predict_content
        yield "predict_typed", self.predict_typed
        yield "predict_words", self.predict_words
        yield "classify", self.classify
        yield "regress", self.regress
        yield "multi_inference", self.multi_inference
        yield "model_metadata", self.model_metadata
        yield "model_status", self.model_status
        yield "reload_config", self.reload_config
        yield "predict_gzip", lambda: self.halves(compression=grpc.Compression.Gzip)
        yield "predict_metadata", lambda: self.halves(metadata=(("x-note", "plain"), ("x-note-bin", bytes(range(256)))))
        yield "predict_large", self.large
        yield "predict_streams", self.streams
        yield "deadline", self.deadline
        yield "cancelled", self.cancelled
        yield "error_invalid_argument", lambda: self.predict(predict_request("linear", x=self.x[:, :2]))
        yield "error_not_found", lambda: self.predict(predict_request(CONFIG["unknown"], x=self.x))
        yield "error_failed_precondition", self.error_failed_precondition
        yield "error_permission_denied", lambda: self.models.HandleReloadConfigRequest(model_configs([]), timeout=TIMEOUT)
        yield "error_unknown", self.error_unknown
        yield "error_resource_exhausted", lambda: self.predict(predict_request("negate", x=np.zeros((1, CONFIG["too_large"]), "<f4")))


# ---- KServe, health and reflection ----

def infer_request(service, model, **inputs):
    request = service.ModelInferRequest(model_name=model, id="r1")
    for name, array in inputs.items():
        request.inputs.add(name=name, datatype="INT64" if array.dtype == np.int64 else "FP32", shape=list(array.shape))
        request.raw_input_contents.append(array.tobytes())
    return request


def first_output(response):
    return np.frombuffer(response.raw_output_contents[0], "<f4").tolist()


def kserve_cases(channel, admin, serving):
    import grpc_service_pb2 as service
    import grpc_service_pb2_grpc
    stub, chief = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel), grpc_service_pb2_grpc.GRPCInferenceServiceStub(admin)
    x = np.array(CONFIG["x"], "<f4")
    halves = np.array(CONFIG["halves"], "<f4")

    def infer_raw():
        response = stub.ModelInfer(infer_request(service, "linear", x=x), timeout=TIMEOUT)
        output = response.outputs[0]
        return {"scores": first_output(response), "shape": list(output.shape), "datatype": output.datatype, "output": output.name, "id": response.id,
                "model": response.model_name, "version": response.model_version}

    def infer_typed():
        request = service.ModelInferRequest(model_name="linear", model_version="1")
        given = request.inputs.add(name="x", datatype="FP32", shape=list(x.shape))
        given.contents.fp32_contents.extend(x.ravel().tolist())
        response = stub.ModelInfer(request, timeout=TIMEOUT)
        return list(response.outputs[0].contents.fp32_contents) or first_output(response)

    def infer_words():
        words = np.array(CONFIG["words"], object)
        request = service.ModelInferRequest(model_name="words")
        request.inputs.add(name="w", datatype="BYTES", shape=list(words.shape)).contents.bytes_contents.extend(word.encode() for word in words.ravel())
        response = stub.ModelInfer(request, timeout=TIMEOUT)
        if response.outputs[0].contents.bytes_contents:
            return [word.decode() for word in response.outputs[0].contents.bytes_contents]
        raw, at, found = response.raw_output_contents[0], 0, []
        while at < len(raw):
            size = int.from_bytes(raw[at:at + 4], "little")
            found.append(raw[at + 4:at + 4 + size].decode())
            at += 4 + size
        return found

    def metadata():
        server, model = stub.ServerMetadata(service.ServerMetadataRequest()), stub.ModelMetadata(service.ModelMetadataRequest(name="linear"))
        return {"server": server.name, "model": model.name, "versions": list(model.versions), "input": [model.inputs[0].name, model.inputs[0].datatype,
                list(model.inputs[0].shape)], "output": [model.outputs[0].name, model.outputs[0].datatype, list(model.outputs[0].shape)]}

    def config():
        found = stub.ModelConfig(service.ModelConfigRequest(name="linear"), timeout=TIMEOUT).config
        return {"name": found.name, "input": found.input[0].name, "dims": list(found.input[0].dims), "output": found.output[0].name}

    def statistics():
        def count():
            return stub.ModelStatistics(service.ModelStatisticsRequest(name="linear"), timeout=TIMEOUT).model_stats[0].inference_count
        before = count()
        stub.ModelInfer(infer_request(service, "linear", x=x), timeout=TIMEOUT)
        return count() - before

    def repository():
        def states():
            index = chief.RepositoryIndex(service.RepositoryIndexRequest(), timeout=TIMEOUT)
            return {model.state for model in index.models if model.name == "spare"}
        found = [sorted(states())]
        chief.RepositoryModelUnload(service.RepositoryModelUnloadRequest(model_name="spare"), timeout=TIMEOUT)
        found.append("READY" in states())
        try:
            chief.ModelInfer(infer_request(service, "spare", x=halves), timeout=TIMEOUT)
        except grpc.RpcError as error:
            found.append(error.code().name)
        chief.RepositoryModelLoad(service.RepositoryModelLoadRequest(model_name="spare"), timeout=TIMEOUT)
        found.append(first_output(chief.ModelInfer(infer_request(service, "spare", x=halves), timeout=TIMEOUT)))
        return found

    def stream():
        requests = [infer_request(service, "linear", x=x), infer_request(service, "linear", x=x[:, :2]), infer_request(service, "linear", x=x)]
        return [response.error_message or first_output(response.infer_response) for response in stub.ModelStreamInfer(iter(requests), timeout=TIMEOUT)]

    def stream_metadata():
        requests = iter([infer_request(service, "none", x=x)])
        return [response.error_message for response in stub.ModelStreamInfer(requests, timeout=TIMEOUT, metadata=(("triton_grpc_error", "true"),))]

    def stream_gzip():
        requests = iter([infer_request(service, "linear", x=x)] * 2)
        return [first_output(response.infer_response) for response in stub.ModelStreamInfer(requests, timeout=TIMEOUT, compression=grpc.Compression.Gzip)]

    def large():
        response = stub.ModelInfer(infer_request(service, "negate", x=numbers(CONFIG["large"]).reshape(1, -1)), timeout=TIMEOUT)
        return [list(response.outputs[0].shape), sha256(response.raw_output_contents[0])]

    def streams():
        """All streams of one connection are open, and have said something, before one of them ends."""
        async def one(aio, i, arrived, everybody):
            call = aio.ModelStreamInfer(timeout=TIMEOUT)
            request = infer_request(service, "half_plus_two", x=np.array([i], "<f4"))
            await call.write(request)
            first = first_output((await call.read()).infer_response)
            arrived.append(i)
            if len(arrived) == CONFIG["streams"]:
                everybody.set()
            await everybody.wait()
            await call.write(request)
            second = first_output((await call.read()).infer_response)
            await call.done_writing()
            return first if first == second and await call.read() == grpc.aio.EOF else "differs"

        async def everything():
            async with grpc.aio.insecure_channel(CONFIG["target"]) as connection:
                aio, arrived, everybody = grpc_service_pb2_grpc.GRPCInferenceServiceStub(connection), [], asyncio.Event()
                return await asyncio.gather(*(one(aio, i, arrived, everybody) for i in range(CONFIG["streams"])))
        return asyncio.run(everything())

    def stream_cancelled():
        """An open stream, cancelled by the client, ends with that status, and the connection goes on."""
        cancelled = threading.Event()

        def forever():
            yield infer_request(service, "linear", x=x)
            cancelled.wait(TIMEOUT)
        call = stub.ModelStreamInfer(forever(), timeout=TIMEOUT)
        first = first_output(next(call).infer_response)
        call.cancel()
        cancelled.set()
        try:
            next(call)
        except grpc.RpcError:
            return {"code": call.code().name, "first": first, "after": serving.halves()}
        return "not cancelled"

    def stream_deadline():
        call = stub.ModelStreamInfer(iter(()), timeout=TIMEOUT)
        ended = [response.error_message for response in call]
        held = grpc_service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelStreamInfer(hold(0.5), timeout=CONFIG["deadline"])
        try:
            next(held)
        except grpc.RpcError:
            return [ended, held.code().name]
        return "no deadline"

    def hold(seconds):
        asyncio.run(asyncio.sleep(seconds))
        return
        yield

    yield "live", lambda: [stub.ServerLive(service.ServerLiveRequest()).live, stub.ServerReady(service.ServerReadyRequest()).ready,
                           stub.ModelReady(service.ModelReadyRequest(name="linear")).ready, stub.ModelReady(service.ModelReadyRequest(name="none")).ready]
    yield "metadata", metadata
    yield "infer_raw", infer_raw
    yield "infer_typed", infer_typed
    yield "infer_words", infer_words
    yield "config", config
    yield "statistics", statistics
    yield "repository", repository
    yield "stream", stream
    yield "stream_metadata", stream_metadata
    yield "stream_gzip", stream_gzip
    yield "stream_cancelled", stream_cancelled
    yield "stream_deadline", stream_deadline
    yield "infer_large", large
    yield "infer_streams", streams
    yield "infer_error_invalid_argument", lambda: stub.ModelInfer(infer_request(service, "linear", x=x[:, :2]), timeout=TIMEOUT)
    yield "infer_error_not_found", lambda: stub.ModelInfer(infer_request(service, CONFIG["unknown"], x=x), timeout=TIMEOUT)
    yield "error_unavailable", lambda: stub.RepositoryIndex(service.RepositoryIndexRequest(), timeout=TIMEOUT)
    yield "error_internal", lambda: channel.unary_unary("/inference.GRPCInferenceService/ModelMetadata")(b"\xff\xff\xff", timeout=TIMEOUT)
    yield "error_unimplemented", lambda: channel.unary_unary("/inference.GRPCInferenceService/ModelFly")(b"", timeout=TIMEOUT)
    yield "error_unimplemented_service", lambda: channel.unary_unary("/some.Service/Method")(b"", timeout=TIMEOUT)
    yield from health_cases(channel, admin, chief, service)
    yield from reflection_cases(channel)


def health_cases(channel, admin, chief, service):
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    health = health_pb2_grpc.HealthStub(channel)

    def check(name):
        response = health.Check(health_pb2.HealthCheckRequest(service=name), timeout=TIMEOUT)
        return health_pb2.HealthCheckResponse.ServingStatus.Name(response.status)

    def watch():
        call = health_pb2_grpc.HealthStub(admin).Watch(health_pb2.HealthCheckRequest(service="spare"), timeout=TIMEOUT)
        states = [next(call).status]
        chief.RepositoryModelUnload(service.RepositoryModelUnloadRequest(model_name="spare"), timeout=TIMEOUT)
        states.append(next(call).status)
        chief.RepositoryModelLoad(service.RepositoryModelLoadRequest(model_name="spare"), timeout=TIMEOUT)
        states.append(next(call).status)
        call.cancel()
        return [health_pb2.HealthCheckResponse.ServingStatus.Name(state) for state in states]

    yield "health", lambda: [check(name) for name in ("", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "linear")]
    yield "health_unknown", lambda: check("none")
    yield "health_watch", watch


def reflection_cases(channel):
    from google.protobuf.descriptor_pool import DescriptorPool
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

    def services():
        database = ProtoReflectionDescriptorDatabase(channel)
        pool = DescriptorPool(database)
        found = pool.FindServiceByName("inference.GRPCInferenceService")
        return {"services": sorted(database.get_services()), "methods": sorted(method.name for method in found.methods)}
    yield "reflection", services


def main():
    with grpc.insecure_channel(CONFIG["target"], options=UNLIMITED) as channel, grpc.insecure_channel(CONFIG["admin"]) as admin:
        serving = Serving(channel, admin)
        for name, function in serving.cases():
            run(name, function)
        if ALL:
            for name, function in kserve_cases(channel, admin, serving):
                run(name, function)


main()

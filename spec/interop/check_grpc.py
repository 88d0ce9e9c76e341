"""gRPC against its own clients: every message, field, enum and method that the server's reflection tells of is compared with the published ones
(tensorflow-serving-api, tritonclient, grpcio-health-checking, grpcio-reflection), and grpcio, tritonclient and TensorFlow Serving's stubs ask a running
`mlserve serve` what does not run a model, in all ways that a call can go."""
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
stderr = os.dup(2)
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # TensorFlow talks before it can be told not to
import grpc  # noqa: E402
import numpy as np  # noqa: E402
import tritonclient.grpc as triton  # noqa: E402
from google.protobuf import descriptor_pool  # noqa: E402
from grpc_health.v1 import health_pb2, health_pb2_grpc  # noqa: E402
from grpc_reflection.v1alpha import reflection_pb2  # noqa: E402, F401
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase  # noqa: E402
from tensorflow_serving.apis import (get_model_metadata_pb2, get_model_status_pb2, model_management_pb2, model_service_pb2,  # noqa: E402, F401
                                     model_service_pb2_grpc, prediction_service_pb2, prediction_service_pb2_grpc)
from tritonclient.grpc import service_pb2  # noqa: E402, F401
from tritonclient.utils import InferenceServerException  # noqa: E402

from support import ROOT, check, environment, finish  # noqa: E402

os.dup2(stderr, 2)

OURS_ALONE = {  # what these packages do not have yet: the Open Inference Protocol's field, and the newest method of health
    "inference.ModelMetadataResponse.properties", "grpc.health.v1.HealthListRequest", "grpc.health.v1.HealthListResponse", "grpc.health.v1.Health.List",
}


# ---- descriptors ----

def compare_enum(ours, theirs):
    for value in ours.values:
        other = theirs.values_by_name.get(value.name)
        check(other is not None and other.number == value.number, f"value {ours.full_name}.{value.name}")


def shape_of(field):
    return (field.number, field.type, field.is_repeated, field.is_packed, field.message_type and field.message_type.full_name,
            field.enum_type and field.enum_type.full_name, field.containing_oneof and field.containing_oneof.name, field.json_name)


def compare_message(ours, published):
    if ours.full_name in OURS_ALONE:
        return
    try:
        theirs = published.FindMessageTypeByName(ours.full_name)
    except KeyError:
        check(ours.GetOptions().map_entry, f"message {ours.full_name} is not a published one")
        return
    for field in ours.fields:
        if field.full_name in OURS_ALONE:
            continue
        other = theirs.fields_by_name.get(field.name)
        if check(other is not None, f"field {field.full_name} is not a published one"):
            check(shape_of(field) == shape_of(other), f"field {field.full_name}: {shape_of(field)}, published {shape_of(other)}")
    for nested in ours.nested_types:
        compare_message(nested, published)
    for enum in ours.enum_types:
        compare_enum(enum, published.FindEnumTypeByName(enum.full_name))


def compare_descriptors(channel):
    published = descriptor_pool.Default()
    database = ProtoReflectionDescriptorDatabase(channel)
    pool = descriptor_pool.DescriptorPool(database)
    services = database.get_services()
    check(sorted(services) == ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection",
                               "inference.GRPCInferenceService", "tensorflow.serving.ModelService", "tensorflow.serving.PredictionService"],
          f"services {services}")
    files, todo = {}, [pool.FindServiceByName(name).file for name in services if name != "grpc.reflection.v1.ServerReflection"]
    while todo:
        file = todo.pop()
        if file.name not in files:
            files[file.name] = file
            todo.extend(file.dependencies)
    check("tensorflow/core/framework/tensor.proto" in files, "reflection gives what is imported")
    for file in files.values():
        for message in file.message_types_by_name.values():
            compare_message(message, published)
        for enum in file.enum_types_by_name.values():
            compare_enum(enum, published.FindEnumTypeByName(enum.full_name))
        for service in file.services_by_name.values():
            theirs = published.FindServiceByName(service.full_name)
            for method in service.methods:
                other = theirs.methods_by_name.get(method.name)
                check(method.full_name in OURS_ALONE or other is not None and (other.input_type.full_name, other.output_type.full_name, other.client_streaming, other.server_streaming)
                      == (method.input_type.full_name, method.output_type.full_name, method.client_streaming, method.server_streaming),
                      f"method {method.full_name}")
    try:
        database.FindFileByName("no/such.proto")
        check(False, "a file that is not there is refused")
    except KeyError:
        check(True, "")


# ---- calls ----

def refused(call, code, text=""):
    try:
        call()
    except grpc.RpcError as error:
        check(error.code() == code and text in error.details(), f"{error.code()} {error.details()!r}, expected {code} {text!r}")
    except InferenceServerException as error:
        check(error.status() == f"StatusCode.{code.name}" and text in error.message(), f"{error.status()} {error.message()!r}, expected {code} {text!r}")
    else:
        check(False, f"no error, expected {code} {text!r}")


def check_tensorflow(channel, base):
    predictions, models = prediction_service_pb2_grpc.PredictionServiceStub(channel), model_service_pb2_grpc.ModelServiceStub(channel)
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "penguins"
    answer = predictions.GetModelMetadata(request, timeout=10)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    check(answer.metadata["signature_def"].Unpack(signatures), "metadata is a SignatureDefMap")
    signature = signatures.signature_def["serving_default"]
    check(sorted(signature.inputs) == ["island", "mass"] and signature.inputs["mass"].dtype == 1 and signature.inputs["island"].dtype == 7, "inputs")
    check([d.size for d in signature.inputs["mass"].tensor_shape.dim] == [-1, 1], "shape")
    check(signature.method_name == "tensorflow/serving/predict" and answer.model_spec.version.value == 1, "method and version")
    request.model_spec.name = "none"
    refused(lambda: predictions.GetModelMetadata(request, timeout=10), grpc.StatusCode.NOT_FOUND, "Servable not found for request: Latest(none)")
    request.model_spec.name, request.model_spec.version_label = "penguins", "none"
    refused(lambda: predictions.GetModelMetadata(request, timeout=10), grpc.StatusCode.INVALID_ARGUMENT, "Unrecognized servable version label: none")

    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "penguins"
    for options in ({}, {"compression": grpc.Compression.Gzip}, {"compression": grpc.Compression.Deflate}, {"metadata": (("x-trace-bin", b"\0\xff"), ("a", "b"))}):
        status = models.GetModelStatus(request, timeout=10, **options).model_version_status
        check([(s.version, s.state, s.status.error_code) for s in status] == [(1, 30, 0)], f"status {status}")
    request.model_spec.version.value = 2 ** 63 - 1
    refused(lambda: models.GetModelStatus(request, timeout=10), grpc.StatusCode.NOT_FOUND, "Could not find version 9223372036854775807 of model penguins")

    def reload(*list_of_models):
        request = model_management_pb2.ReloadConfigRequest()
        request.config.model_config_list.SetInParent()
        for name, directory, version, label in list_of_models:
            config = request.config.model_config_list.config.add(name=name, base_path=directory, model_platform="tensorflow")
            if version:
                config.model_version_policy.specific.versions.append(version)
                config.version_labels[label] = version
        return models.HandleReloadConfigRequest(request, timeout=60)

    penguins = os.path.join(base, "penguins")
    check(reload(("penguins", penguins, 1, "stable"), ("more", penguins, 0, "")).status.error_code == 0, "reload")
    request = get_model_status_pb2.GetModelStatusRequest()
    request.model_spec.name = "more"
    check(models.GetModelStatus(request, timeout=10).model_version_status[0].state == 30, "a new model is available")
    refused(lambda: reload(("penguins", "relative", 0, "")), grpc.StatusCode.INVALID_ARGUMENT, "Expected model penguins to have an absolute path or URI")
    refused(lambda: reload(("penguins", penguins, 0, ""), ("bad", os.path.join(base, "bad"), 0, "")), grpc.StatusCode.UNKNOWN,
            "1 model(s) did not become available: {{name: bad version: 1 due to error: ")
    check(reload(("penguins", penguins, 0, "")).status.error_code == 0, "reload")
    check(models.GetModelStatus(request, timeout=10).model_version_status[0].state in (40, 50), "what is no longer listed goes")


def check_triton(address):
    client = triton.InferenceServerClient(address)
    check(client.is_server_live() and client.is_server_ready() and client.is_model_ready("penguins"), "live and ready")
    check(not client.is_model_ready("none") and not client.is_model_ready("penguins", "9"), "not ready")
    metadata = client.get_server_metadata(as_json=True)
    check(metadata["name"] == "mlserve" and "statistics" in metadata["extensions"], f"server metadata {metadata}")
    metadata = client.get_model_metadata("penguins")
    check([(i.name, i.datatype, list(i.shape)) for i in metadata.inputs] == [("island", "BYTES", [-1, 1]), ("mass", "FP32", [-1, 1])], "inputs")
    refused(lambda: client.get_model_metadata("none"), grpc.StatusCode.NOT_FOUND, "Request for unknown model: 'none' is not found")
    config = client.get_model_config("penguins").config
    check((config.name, config.backend, [i.data_type for i in config.input]) == ("penguins", "mlserve", [13, 11]), f"configuration {config}")

    inputs = [triton.InferInput("island", [2, 1], "BYTES"), triton.InferInput("mass", [2, 1], "FP32")]
    inputs[0].set_data_from_numpy(np.array([[b"Biscoe"], [b"Dream"]], dtype=np.object_))
    inputs[1].set_data_from_numpy(np.array([[3750.0], [4200.0]], dtype=np.float32))
    expected = client.infer("penguins", inputs).as_numpy("output_label")
    check(expected.shape == (2,), "infer")
    for algorithm in ("gzip", "deflate"):
        check((client.infer("penguins", inputs, compression_algorithm=algorithm).as_numpy("output_label") == expected).all(), f"infer, {algorithm}")
    statistics = client.get_inference_statistics("penguins").model_stats[0]
    check((statistics.inference_count, statistics.execution_count, statistics.inference_stats.success.count) == (6, 3, 3), f"statistics {statistics}")

    answers, done = [], threading.Event()

    def heard(result, error):
        answers.append((result and result.get_response().id, error and error.message()))
        if len(answers) == 4:
            done.set()
    client.start_stream(heard)
    for i in range(4):
        client.async_stream_infer("none" if i == 2 else "penguins", inputs, request_id=str(i))
    check(done.wait(10), "a stream answers")
    client.stop_stream()
    check([a[0] for a in answers if a[0]] == ["0", "1", "3"] and any(a[1] and "'none' is not found" in a[1] for a in answers), f"stream {answers}")

    index = client.get_model_repository_index(as_json=True)["models"]
    check({"name": "penguins", "version": "1", "state": "READY"} in index, f"index {index}")
    client.unload_model("penguins")
    check(not client.is_model_ready("penguins"), "unloaded")
    client.load_model("penguins")
    check(client.is_model_ready("penguins"), "loaded")
    refused(lambda: client.load_model("none"), grpc.StatusCode.INVALID_ARGUMENT, "failed to load 'none', failed to poll from model repository")
    refused(lambda: client.load_model("penguins", config="{}"), grpc.StatusCode.UNIMPLEMENTED)
    refused(lambda: client.get_trace_settings(), grpc.StatusCode.UNIMPLEMENTED, "unknown method TraceSetting for service inference.GRPCInferenceService")
    return client


def check_health(channel, client):
    stub = health_pb2_grpc.HealthStub(channel)
    for name in ("", "penguins", "PredictionService", "tensorflow.serving.ModelService", "inference.GRPCInferenceService"):
        check(stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status == health_pb2.HealthCheckResponse.SERVING, f"health of '{name}'")
    refused(lambda: stub.Check(health_pb2.HealthCheckRequest(service="none"), timeout=10), grpc.StatusCode.NOT_FOUND)
    seen, watch = [], stub.Watch(health_pb2.HealthCheckRequest(service="penguins"))

    def follow():
        try:
            for each in watch:
                seen.append(each.status)
        except grpc.RpcError as error:
            seen.append(error.code())
    thread = threading.Thread(target=follow)
    thread.start()

    def within(seconds, wanted):
        stop = time.monotonic() + seconds
        while seen != wanted and time.monotonic() < stop:
            time.sleep(0.02)
        check(seen == wanted, f"watch {seen}, expected {wanted}")
    within(5, [1])
    client.unload_model("penguins")
    within(5, [1, 2])
    client.load_model("penguins")
    within(5, [1, 2, 1])
    watch.cancel()
    thread.join()
    check(seen[3:] == [grpc.StatusCode.CANCELLED], f"cancelled {seen}")
    refused(lambda: list(stub.Watch(health_pb2.HealthCheckRequest(), timeout=0.3)), grpc.StatusCode.DEADLINE_EXCEEDED)


def check_calls(channel):
    def call(path, body=b"", **options):
        return channel.unary_unary(path)(body, timeout=10, **options)
    refused(lambda: call("/no.Such/Method"), grpc.StatusCode.UNIMPLEMENTED, "unknown service no.Such")
    refused(lambda: call("/inference.GRPCInferenceService/ServerReady", b"\xff"), grpc.StatusCode.INTERNAL, "Cannot parse the request")
    refused(lambda: call("/inference.GRPCInferenceService/ModelReady", b"x" * 4194305), grpc.StatusCode.RESOURCE_EXHAUSTED,
            "Received message larger than max (4194305 vs. 4194304)")
    check(call("/inference.GRPCInferenceService/ServerLive") == b"\x08\x01", "bytes of ServerLive")
    # unknown fields are skipped, 3 MB of them too
    check(call("/inference.GRPCInferenceService/ServerLive", b"\xa2\x06\xc0\x8d\xb7\x01" + b"x" * 3000000) == b"\x08\x01", "3 MB of unknown fields")
    futures = [channel.unary_unary("/inference.GRPCInferenceService/ServerLive").future(b"", timeout=20) for _ in range(400)]
    check(all(future.result() == b"\x08\x01" for future in futures), "400 calls at a time")


def check_server(base, transport):
    print(f"grpc: --transport {transport}", flush=True)
    server = subprocess.Popen(["lua5.4", os.path.join(ROOT, "bin/mlserve"), "serve", "--model", "penguins=" + os.path.join(base, "penguins"), "--rest-port", "0",
                               "--grpc-port", "0", "--admin", "--transport", transport], stdout=subprocess.PIPE, text=True, env=environment(), cwd=base)
    try:
        line = server.stdout.readline()
        address = re.search(r"http://[^,]+, http://(\S+)", line)[1]
        with grpc.insecure_channel(address) as channel:
            compare_descriptors(channel)
            client = check_triton(address)
            check_health(channel, client)
            check_calls(channel)
            check_tensorflow(channel, base)
            client.close()
    finally:
        server.terminate()
        check(server.wait(20) == 0, "the server ends with 0")


def main():
    for transport in ("http", "nginx"):
        base = tempfile.mkdtemp()
        for name in ("penguins", "bad"):
            os.makedirs(os.path.join(base, name, "1"))
        shutil.copy(os.path.join(ROOT, "spec/golden/pipeline/model.onnx"), os.path.join(base, "penguins", "1"))
        with open(os.path.join(base, "bad", "1", "model.onnx"), "w") as file:
            file.write("no model")
        try:
            check_server(base, transport)
        finally:
            shutil.rmtree(base)
    finish()


if __name__ == "__main__":
    main()

"""The table of check_grpc_clients.py with Triton's client, tritonclient.grpc. Argument: the configuration (a JSON file). Prints one JSON object per case."""
import base64
import hashlib
import json
import queue
import sys
import time

import ml_dtypes
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException, triton_to_np_dtype

with open(sys.argv[1], encoding="utf-8") as file:
    CONFIG = json.load(file)
TIMEOUT = 30
X = np.array(CONFIG["x"], np.float32)
HALVES = np.array(CONFIG["halves"], np.float32)


def run(name, function):
    try:
        print(json.dumps({"case": name, "value": function()}), flush=True)
    except InferenceServerException as error:
        print(json.dumps({"case": name, "code": status_of(error), "message": error.message()}), flush=True)


def status_of(error):
    """The name that the client makes of the code: StatusCode.NOT_FOUND, or words of its own for what it has cancelled itself."""
    text = error.status() or ""
    return "CANCELLED" if text == "StatusCode.CANCELLED" or "cancelled" in error.message().lower() else text.replace("StatusCode.", "")


def given(name, array, datatype="FP32"):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


def numbers(count):
    return ((np.arange(count, dtype=np.int64) * 7919 % 10007) - 5000).astype(np.float32)


def ask(server, model, inputs, output, **options):
    return server.infer(model, inputs, client_timeout=TIMEOUT, **options).as_numpy(output).ravel().tolist()


def halves(server, **options):
    return ask(server, "half_plus_two", given("x", HALVES), "y", **options)


def infer_raw(server):
    response = server.infer("linear", given("x", X), request_id="r1", outputs=[triton.InferRequestedOutput("scores")])
    message, output = response.get_response(), response.get_output("scores")
    return {"scores": response.as_numpy("scores").ravel().tolist(), "shape": list(output.shape), "datatype": output.datatype, "output": output.name,
            "id": message.id, "model": message.model_name, "version": message.model_version}


def infer_words(server):
    words = np.array([word.encode() for word in CONFIG["words"]], np.object_)
    return [word.decode() for word in server.infer("words", given("w", words, "BYTES")).as_numpy("same")]


def datatypes(server):
    """Every datatype there and back, and as doubles."""
    found = {}
    for datatype, text in CONFIG["types"].items():
        kind = ml_dtypes.bfloat16 if datatype == "BF16" else triton_to_np_dtype(datatype)
        x = np.frombuffer(base64.b64decode(text), kind).reshape(-1, 3)
        response = server.infer("type_" + datatype.lower(), given("x", x, datatype))
        same, wide = response.as_numpy("same"), response.as_numpy("wide")
        same = same.astype(kind)
        found[datatype] = [base64.b64encode(same.tobytes()).decode(), wide.ravel().tolist()]
    return found


def classification(server):
    """Triton's extension: the two best classes of each row, "score:index:label"."""
    texts = server.infer("linear", given("x", X), outputs=[triton.InferRequestedOutput("scores", class_count=2)]).as_numpy("scores")
    return [[[int(text.decode().split(":")[1]), float(text.decode().split(":")[0])] for text in row] for row in texts]


def metadata(server):
    model = server.get_model_metadata("linear")
    return {"server": server.get_server_metadata().name, "model": model.name, "versions": list(model.versions),
            "input": [model.inputs[0].name, model.inputs[0].datatype, list(model.inputs[0].shape)],
            "output": [model.outputs[0].name, model.outputs[0].datatype, list(model.outputs[0].shape)]}


def config(server):
    found = server.get_model_config("linear").config
    return {"name": found.name, "input": found.input[0].name, "dims": list(found.input[0].dims), "output": found.output[0].name}


def statistics(server):
    before = server.get_inference_statistics("linear").model_stats[0].inference_count
    server.infer("linear", given("x", X))
    return server.get_inference_statistics("linear").model_stats[0].inference_count - before


def repository(admin):
    def states():
        return sorted(model.state for model in admin.get_model_repository_index().models if model.name == "spare")
    found = [states()]
    admin.unload_model("spare")
    found.append("READY" in states())
    try:
        ask(admin, "spare", given("x", HALVES), "y")
    except InferenceServerException as error:
        found.append(status_of(error))
    admin.load_model("spare")
    found.append(ask(admin, "spare", given("x", HALVES), "y"))
    return found


def large(server):
    got = server.infer("negate", given("x", numbers(CONFIG["large"]).reshape(1, -1)), client_timeout=TIMEOUT).as_numpy("y")
    return [list(got.shape), hashlib.sha256(got.tobytes()).hexdigest()]


def streams(server):
    answers, found = queue.Queue(), {}
    for i in range(CONFIG["streams"]):
        server.async_infer("half_plus_two", given("x", np.array([i], np.float32)), lambda result, error: answers.put((result, error)), request_id=str(i),
                           client_timeout=TIMEOUT)
    for _ in range(CONFIG["streams"]):
        result, error = answers.get(timeout=TIMEOUT)
        if error:
            raise error
        found[int(result.get_response().id)] = result.as_numpy("y").tolist()
    return [found[i] for i in range(CONFIG["streams"])]


def stream(server, models, **options):
    """Requests of one stream, in their order; errors come as texts."""
    answers, found = queue.Queue(), []
    server.start_stream(lambda result, error: answers.put((result, error)), **options)
    for model, x in models:
        server.async_stream_infer(model, given("x", x), request_id="r1")
        result, error = answers.get(timeout=TIMEOUT)
        if error and status_of(error):
            server.stop_stream(cancel_requests=True)
            raise error
        found.append(error.message() if error else result.as_numpy("scores").ravel().tolist())
    server.stop_stream()
    return found


def slow(server, deadline, cancel):
    answers = queue.Queue()
    call = server.async_infer("slow", given("n", np.array([CONFIG["iterations"]], np.int64), "INT64"), lambda result, error: answers.put(error),
                              client_timeout=deadline)
    if cancel:
        time.sleep(0.05)
        call.cancel()
    error = answers.get(timeout=TIMEOUT)
    return {"code": status_of(error) if error else "OK", "after": halves(server)}


def main():
    with triton.InferenceServerClient(CONFIG["target"]) as server, triton.InferenceServerClient(CONFIG["admin"]) as admin:
        run("live", lambda: [server.is_server_live(), server.is_server_ready(), server.is_model_ready("linear"), server.is_model_ready("none")])
        run("metadata", lambda: metadata(server))
        run("infer_raw", lambda: infer_raw(server))
        run("infer_words", lambda: infer_words(server))
        run("datatypes", lambda: datatypes(server))
        run("classification", lambda: classification(server))
        run("config", lambda: config(server))
        run("statistics", lambda: statistics(server))
        run("repository", lambda: repository(admin))
        run("infer_gzip", lambda: halves(server, compression_algorithm="gzip"))
        run("infer_deflate", lambda: halves(server, compression_algorithm="deflate"))
        run("infer_metadata", lambda: halves(server, headers={"x-note": "plain", "x-note-bin": bytes(range(256))}))
        run("stream", lambda: stream(server, [("linear", X), ("linear", X[:, :2]), ("linear", X)]))
        run("stream_gzip", lambda: stream(server, [("linear", X)] * 2, compression_algorithm="gzip"))
        run("stream_metadata", lambda: stream(server, [("none", X)], headers={"triton_grpc_error": "true"}))
        run("infer_large", lambda: large(server))
        run("infer_streams", lambda: streams(server))
        run("deadline", lambda: slow(server, CONFIG["deadline"], False))
        run("cancelled", lambda: slow(server, TIMEOUT, True))
        run("infer_error_invalid_argument", lambda: ask(server, "linear", given("x", X[:, :2]), "scores"))
        run("infer_error_not_found", lambda: ask(server, CONFIG["unknown"], given("x", X), "scores"))
        run("infer_error_resource_exhausted", lambda: ask(server, "negate", given("x", np.zeros((1, CONFIG["too_large"]), np.float32)), "y"))
        run("error_unavailable", server.get_model_repository_index)
        run("error_unimplemented", server.get_log_settings)


main()

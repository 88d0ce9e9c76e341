"""mlserve.client against a server written in Python: what it sends is decoded with json, NumPy, ml_dtypes, gzip and Triton's own decoder of strings, as the
protocols' documents say; what it is sent is encoded with them, and must arrive element for element."""
import base64
import gzip
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import ml_dtypes
import numpy as np
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from support import ask, check, finish

KINDS = {
    "bool": ("BOOL", np.bool_), "uint8": ("UINT8", np.uint8), "uint16": ("UINT16", np.uint16), "uint32": ("UINT32", np.uint32), "uint64": ("UINT64", np.uint64),
    "int8": ("INT8", np.int8), "int16": ("INT16", np.int16), "int32": ("INT32", np.int32), "int64": ("INT64", np.int64), "float16": ("FP16", np.float16),
    "bfloat16": ("BF16", ml_dtypes.bfloat16), "float32": ("FP32", np.float32), "float64": ("FP64", np.float64), "string": ("BYTES", np.object_),
}
DTYPES = {datatype: (name, kind) for name, (datatype, kind) in KINDS.items()}
rng = np.random.default_rng(11)
seen = []      # (path, headers, body), bodies as they were before compression
answers = {}   # path -> (headers, body)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        seen.append((self.path, self.headers, body))
        headers, text = answers.get(self.path, ({}, b"{}"))
        self.send_response(200 if self.path in answers else 404)
        for name, value in headers.items():
            self.send_header(name, value)
        if "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send_header("Content-Encoding", "gzip")
            text = gzip.compress(text)
        if len(text) % 2:  # both framings
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for at in range(0, len(text), 1000):
                piece = text[at:at + 1000]
                self.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")
        else:
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

    do_GET = do_POST = answer


def random_array(dtype, shape):
    kind = KINDS[dtype][1]
    if dtype == "string":
        return np.array([bytes(rng.integers(0, 256, rng.integers(0, 9), dtype=np.uint8)) for _ in range(int(np.prod(shape)))], dtype=np.object_).reshape(shape)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(np.bool_)
    if np.issubdtype(kind, np.integer):
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, shape, dtype=kind, endpoint=True)
    return (rng.normal(size=shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(kind)


def for_lua(dtype, array):
    if dtype == "string":
        return {"dtype": dtype, "shape": list(array.shape), "texts": [item.hex() for item in array.reshape(-1)]}
    return {"dtype": dtype, "shape": list(array.shape), "hex": array.tobytes().hex()}


def same_array(dtype, a, b):
    if a.shape != b.shape:
        return False
    return list(a.reshape(-1)) == list(b.reshape(-1)) if dtype == "string" else a.tobytes() == b.tobytes()


def from_lua(value):
    if value["dtype"] == "string":
        return np.array([bytes.fromhex(item) for item in value["texts"]], dtype=np.object_).reshape(value["shape"])
    return np.frombuffer(bytes.fromhex(value["hex"]), dtype=KINDS[value["dtype"]][1]).reshape(value["shape"])


def decode_infer(headers, body):
    """Inputs by name and the document, as the binary tensor extension says."""
    size = headers.get("Inference-Header-Content-Length")
    document = json.loads(body[:int(size)] if size else body)
    rest = body[int(size):] if size else b""
    arrays = {}
    for entry in document["inputs"]:
        name, kind = DTYPES[entry["datatype"]]
        if "data" in entry:
            array = np.array(entry["data"], dtype=kind).reshape(entry["shape"])
            if name == "string":
                array = np.array([item.encode() for item in array.reshape(-1)], dtype=np.object_).reshape(entry["shape"])
        else:
            count = entry["parameters"]["binary_data_size"]
            piece, rest = rest[:count], rest[count:]
            array = deserialize_bytes_tensor(piece) if name == "string" else np.frombuffer(piece, dtype=kind)
            array = array.reshape(entry["shape"])
        arrays[entry["name"]] = array
    return document, arrays, rest


def encode_infer(outputs, binary):
    entries, tail = [], b""
    for name, (dtype, array) in outputs.items():
        entry = {"name": name, "datatype": KINDS[dtype][0], "shape": list(array.shape)}
        if binary:
            piece = serialize_byte_tensor(array).item() if dtype == "string" and array.size else b"" if dtype == "string" else array.tobytes()
            entry["parameters"] = {"binary_data_size": len(piece)}
            tail += piece
        else:
            entry["data"] = [item.decode() for item in array.reshape(-1)] if dtype == "string" else array.astype(np.float64).reshape(-1).tolist() \
                if dtype in ("float16", "bfloat16") else array.tolist()
        entries.append(entry)
    text = json.dumps({"model_name": "m", "outputs": entries}).encode()
    return ({"Inference-Header-Content-Length": str(len(text)), "Content-Type": "application/octet-stream"} if binary else {}), text + tail


def printable(array):
    return np.array([base64.b64encode(item) for item in array.reshape(-1)], dtype=np.object_).reshape(array.shape)


def kserve_cases(url):
    calls, checks = [], []
    for binary in (True, False):
        for compression in (None, "gzip"):
            for dtype in KINDS:
                for shape in ((2, 3), (1,), (0, 4), (300, 7)):
                    array, back = random_array(dtype, shape), random_array(dtype, shape)
                    if not binary and dtype == "string":
                        array, back = printable(array), printable(back)
                    if not binary and dtype == "float16":
                        array, back = np.clip(array, -6e4, 6e4), np.clip(back, -6e4, 6e4)
                    path = f"/v2/models/{len(calls)}/infer"
                    answers[path] = encode_infer({"y": (dtype, back)}, binary)
                    made = {"url": url, "protocol": "kserve", "binary": binary}
                    if compression:
                        made["compression"] = compression
                    calls.append({"client": made, "method": "predict", "model": str(len(calls)), "named": True, "inputs": {"x": for_lua(dtype, array)},
                                  "options": {"outputs": ["y"], "id": "é"}})
                    checks.append((path, dtype, array, back, binary))
    results = ask("client.lua", {"calls": calls})
    requests = {path: (headers, body) for path, headers, body in seen}
    for (path, dtype, array, back, binary), result in zip(checks, results):
        document, arrays, rest = decode_infer(*requests[path])
        what = f"{dtype} {list(array.shape)} {'binary' if binary else 'JSON'}"
        check(rest == b"" and document["id"] == "é" and [output["name"] for output in document["outputs"]] == ["y"], f"request with {what}")
        check(same_array(dtype, arrays["x"], array), f"input of {what}")
        check("value" in result and result["value"]["y"]["dtype"] == dtype and same_array(dtype, from_lua(result["value"]["y"]), back),
              f"output of {what}: {result.get('message')}")


def jsonable(dtype, array):
    return [{"b64": base64.b64encode(item).decode()} for item in array] if dtype == "string" and array.ndim == 1 else array.tolist()


def tfserving_cases(url):
    """Types that TensorFlow Serving's JSON has. A tensor's own type is asked for, as the answer does not say it."""
    calls, checks = [], []
    for form in ("column", "row"):
        for dtype in ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint32", "bool", "string"):
            for shape in ((2,), (5, 3), (2, 3, 4)) if dtype != "string" else ((6,),):
                a, b, back = (random_array(dtype, shape) for _ in range(3))
                path = f"/v1/models/t{len(calls)}/versions/4:predict"
                if form == "column":
                    answer = {"outputs": {"p": jsonable(dtype, back), "q": [0.5]}}
                else:
                    answer = {"predictions": [{"p": item, "q": 0.5} for item in jsonable(dtype, back)]}
                answers[path] = ({}, json.dumps(answer).encode())
                calls.append({"client": {"url": url}, "method": "predict", "model": f"t{len(calls)}", "named": True,
                              "inputs": {"a": for_lua(dtype, a), "b": for_lua(dtype, b)},
                              "options": {"version": 4, "format": form, "signature": "s\"ig", "dtypes": {"p": dtype}}})
                checks.append((path, dtype, a, b, back, form))
    results = ask("client.lua", {"calls": calls})
    requests = {path: json.loads(body) for path, _, body in seen if path.startswith("/v1/")}

    def array_of(dtype, value):
        if dtype != "string":
            return np.array(value, dtype=KINDS[dtype][1])
        return np.array([base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode() for item in value], dtype=np.object_)

    for (path, dtype, a, b, back, form), result in zip(checks, results):
        request, what = requests[path], f"{dtype} {list(a.shape)} in {form} format"
        if form == "column":
            given = request["inputs"]
        else:
            given = {name: [row[name] for row in request["instances"]] for name in ("a", "b")}
        check(request["signature_name"] == 's"ig' and set(given) == {"a", "b"}, f"request with {what}")
        check(same_array(dtype, array_of(dtype, given["a"]), a) and same_array(dtype, array_of(dtype, given["b"]), b), f"inputs of {what}")
        value = result.get("value") or {}
        check("p" in value and value["p"]["dtype"] == dtype and same_array(dtype, from_lua(value["p"]), back), f"output of {what}: {result.get('message')}")
        check("q" in value and set(struct.unpack(f"<{len(value['q']['hex']) // 8}f", bytes.fromhex(value["q"]["hex"]))) == {0.5}, f"second output of {what}")


def main():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        kserve_cases(url)
        tfserving_cases(url)
    finally:
        server.shutdown()
    finish()


main()

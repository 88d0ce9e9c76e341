// The part of check_grpc_clients.py's table that a page can run, once with Google's grpc-web and once with Connect's client; messages are protoc-gen-es's in both.
// esbuild makes one file of it, browser.js calls runTable in the page.
import { create, toBinary, fromBinary } from "@bufbuild/protobuf";
import { Code, ConnectError, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import * as grpcWeb from "grpc-web";
import { GRPCInferenceService } from "./gen/grpc_service_pb.js";
import { PredictionService } from "./gen/tensorflow_serving/apis/prediction_service_pb.js";
import { ModelService } from "./gen/tensorflow_serving/apis/model_service_pb.js";
import { DataType } from "./gen/tensorflow/core/framework/types_pb.js";
import { Health, HealthCheckResponse_ServingStatus } from "./gen/grpc/health/v1/health_pb.js";

const snake = name => name.replace(/(?<!^)(?=[A-Z])/g, "_").toUpperCase().replace("CANCELED", "CANCELLED");

// ---- the two clients, with the same methods: unary(service, method, message, options) and stream(…), an async iterable ----

function connectClient(address) {
  const transport = createGrpcWebTransport({ baseUrl: address, useBinaryFormat: true });
  const clients = new Map();
  const of = service => {
    if (!clients.has(service)) clients.set(service, createClient(service, transport));
    return clients.get(service);
  };
  return {
    unary: (service, method, message, { timeout = 30, signal, headers } = {}) => of(service)[method](message, { timeoutMs: timeout * 1000, signal, headers }),
    stream: (service, method, message, { signal } = {}) => of(service)[method](message, { signal }),
    status: error => error instanceof ConnectError ? { code: snake(Code[error.code]), message: error.rawMessage } : { code: "none", message: String(error.stack) },
  };
}

function googleClient(address, format) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const codes = Object.fromEntries(Object.entries(grpcWeb.StatusCode).map(([name, code]) => [code, name]));
  const prepare = (service, method, kind) => {
    const described = service.method[method];
    const path = `/${service.typeName}/${described.name}`;
    return [address + path, new grpcWeb.MethodDescriptor(path, kind, Object, Object, message => toBinary(described.input, message),
      bytes => fromBinary(described.output, bytes)), described];
  };
  return {
    unary(service, method, message, { timeout = 30, signal, headers = {} } = {}) {
      const [url, descriptor, described] = prepare(service, method, grpcWeb.MethodType.UNARY);
      const metadata = { ...headers, deadline: String(Date.now() + timeout * 1000) };
      return client.unaryCall(url, create(described.input, message), metadata, descriptor, { signal });
    },
    async *stream(service, method, message, { signal } = {}) {
      const [url, descriptor, described] = prepare(service, method, grpcWeb.MethodType.SERVER_STREAMING);
      const call = client.serverStreaming(url, create(described.input, message), {}, descriptor);
      const arrived = [];
      let wake, ended = false, problem = null;
      const tell = () => wake && wake();
      if (signal) signal.addEventListener("abort", () => call.cancel());
      call.on("data", answer => tell(arrived.push(answer)));
      call.on("error", error => tell(problem = error));
      call.on("end", () => tell(ended = true));
      for (;;) {
        if (arrived.length) yield arrived.shift();
        else if (problem) throw problem;
        else if (ended) return;
        else await new Promise(resolve => { wake = resolve; });
      }
    },
    status: error => error instanceof grpcWeb.RpcError ? { code: codes[error.code], message: error.message } : { code: "none", message: String(error.stack) },
  };
}

// ---- the table ----

const bytesOf = values => new Uint8Array(Float32Array.from(values).buffer);
const floats = bytes => Array.from(new Float32Array(bytes.slice().buffer));
const numbers = count => Float32Array.from({ length: count }, (_, i) => i * 7919 % 10007 - 5000);
// a page of http:// has no crypto.subtle, except that of this machine
const digest = async bytes => Array.from(new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)), byte => byte.toString(16).padStart(2, "0")).join("");

const shapeProto = shape => ({ dim: shape.map(size => ({ size: BigInt(size) })) });
const tensor = (values, shape) => ({ dtype: DataType.DT_FLOAT, tensorShape: shapeProto(shape), tensorContent: bytesOf(values) });
const shapeOf = proto => proto.tensorShape.dim.map(dim => Number(dim.size));
const valuesOf = proto => proto.tensorContent.length ? floats(proto.tensorContent) : proto.floatVal;
const predictRequest = (name, inputs, signatureName = "") => ({ modelSpec: { name, signatureName }, inputs });
const inferRequest = (modelName, values, shape) =>
  ({ modelName, id: "r1", inputs: [{ name: "x", datatype: "FP32", shape: shape.map(BigInt) }], rawInputContents: [bytesOf(values)] });
const scoresOf = response => floats(response.rawOutputContents[0]);

async function runTable(kind, config) {
  const make = address => kind === "connect" ? connectClient(address) : googleClient(address, kind);
  const here = make(`${config.scheme}://${config.rest}`), chief = make(`${config.scheme}://${config.admin_rest}`), found = [];
  async function run(name, work) {
    try {
      found.push({ case: name, value: await work() });
    } catch (error) {
      found.push({ case: name, ...here.status(error) });
    }
  }
  async function codeOf(promise) {
    try {
      await promise;
      return "OK";
    } catch (error) {
      return here.status(error).code;
    }
  }
  const flat = config.x.flat(), rows = config.x.length, count = config.halves.length;
  const x = tensor(flat, [rows, 4]);
  const predict = async (request, output, options) => valuesOf((await here.unary(PredictionService, "predict", request, options)).outputs[output]);
  const infer = (request, options, client = here) => client.unary(GRPCInferenceService, "modelInfer", request, options);
  const halves = options => predict(predictRequest("half_plus_two", { x: tensor(config.halves, [count]) }), "y", options);
  const slow = options => infer({
    modelName: "slow", inputs: [{ name: "n", datatype: "INT64", shape: [1n], contents: { int64Contents: [BigInt(config.iterations)] } }],
  }, options);

  await run("predict_content", async () => {
    const { outputs, modelSpec } = await here.unary(PredictionService, "predict", predictRequest("linear", { x }));
    return { scores: valuesOf(outputs.scores), shape: shapeOf(outputs.scores), model: modelSpec.name, version: Number(modelSpec.versionChoice.value.value),
      signature: modelSpec.signatureName };
  });
  await run("classify", async () => {
    const examples = config.x.map(row => ({
      features: { feature: Object.fromEntries(row.map((value, i) => [config.features[i], { kind: { case: "floatList", value: { value: [value] } } }])) },
    }));
    const input = { kind: { case: "exampleList", value: { examples } } };
    const { result } = await here.unary(PredictionService, "classify", { modelSpec: { name: "linear" }, input });
    return result.classifications.map(row => row.classes.map(each => [each.label, each.score]));
  });
  await run("model_status", async () => {
    const { modelVersionStatus } = await here.unary(ModelService, "getModelStatus", { modelSpec: { name: "linear" } });
    const names = { 30: "AVAILABLE" };
    return modelVersionStatus.map(each => [Number(each.version), names[each.state] || each.state, each.status.errorMessage]);
  });
  await run("predict_metadata", () => halves({ headers: { "x-note": "plain", "x-note-bin": btoa(String.fromCharCode(...Array(256).keys())) } }));
  await run("predict_large", async () => {
    const { y } = (await here.unary(PredictionService, "predict", predictRequest("negate", { x: tensor(numbers(config.large), [1, config.large]) }))).outputs;
    return [shapeOf(y), await digest(bytesOf(valuesOf(y)))];
  });
  await run("predict_streams", () => Promise.all(Array.from({ length: config.streams }, (_, i) =>
    predict(predictRequest("half_plus_two", { x: tensor([i], [1]) }), "y"))));
  await run("metadata", async () => {
    const server = await here.unary(GRPCInferenceService, "serverMetadata", {});
    const model = await here.unary(GRPCInferenceService, "modelMetadata", { name: "linear" });
    const describe = each => [each.name, each.datatype, each.shape.map(Number)];
    return { server: server.name, model: model.name, versions: model.versions, input: describe(model.inputs[0]), output: describe(model.outputs[0]) };
  });
  await run("infer_raw", async () => {
    const response = await infer(inferRequest("linear", flat, [rows, 4])), output = response.outputs[0];
    return { scores: scoresOf(response), shape: output.shape.map(Number), datatype: output.datatype, output: output.name, id: response.id,
      model: response.modelName, version: response.modelVersion };
  });
  await run("infer_words", async () => {
    const contents = { bytesContents: config.words.map(word => new TextEncoder().encode(word)) };
    const response = await infer({ modelName: "words", inputs: [{ name: "w", datatype: "BYTES", shape: [BigInt(config.words.length)], contents }] });
    const text = new TextDecoder();
    if (response.outputs[0].contents) return response.outputs[0].contents.bytesContents.map(word => text.decode(word));
    const raw = response.rawOutputContents[0], view = new DataView(raw.buffer, raw.byteOffset, raw.byteLength), words = [];
    for (let at = 0; at < raw.length; at += 4 + view.getUint32(at, true)) words.push(text.decode(raw.subarray(at + 4, at + 4 + view.getUint32(at, true))));
    return words;
  });
  await run("infer_large", async () => {
    const response = await infer(inferRequest("negate", numbers(config.large), [1, config.large]));
    return [response.outputs[0].shape.map(Number), await digest(response.rawOutputContents[0])];
  });
  await run("deadline", async () => ({ code: await codeOf(slow({ timeout: config.deadline })), after: await halves() }));
  await run("cancelled", async () => {
    const controller = new AbortController();
    setTimeout(() => controller.abort(), 50);
    return { code: await codeOf(slow({ signal: controller.signal })), after: await halves() };
  });
  await run("health", () => Promise.all(["", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "linear"].map(async service =>
    HealthCheckResponse_ServingStatus[(await here.unary(Health, "check", { service })).status])));
  await run("health_unknown", () => here.unary(Health, "check", { service: "none" }));
  if (kind !== "binary") { // in which grpc-web has no streams
    await run("health_watch", async () => {
      const controller = new AbortController(), states = [];
      for await (const { status } of chief.stream(Health, "watch", { service: "spare" }, { signal: controller.signal })) {
        states.push(HealthCheckResponse_ServingStatus[status]);
        if (states.length === 1) await chief.unary(GRPCInferenceService, "repositoryModelUnload", { modelName: "spare" });
        if (states.length === 2) await chief.unary(GRPCInferenceService, "repositoryModelLoad", { modelName: "spare" });
        if (states.length === 3) break;
      }
      controller.abort();
      return states;
    });
  }
  const cut = flat.slice(0, 2 * rows);
  await run("error_invalid_argument", () => predict(predictRequest("linear", { x: tensor(cut, [rows, 2]) }), "scores"));
  await run("error_not_found", () => predict(predictRequest(config.unknown, { x }), "scores"));
  await run("error_failed_precondition", () => predict(predictRequest("linear", { x }, "none"), "scores"));
  await run("error_resource_exhausted", () => predict(predictRequest("negate", { x: tensor(new Float32Array(config.too_large), [1, config.too_large]) }), "y"));
  await run("error_permission_denied", () => here.unary(ModelService, "handleReloadConfigRequest", {
    config: { config: { case: "modelConfigList", value: { config: [] } } },
  }));
  await run("infer_error_invalid_argument", () => infer(inferRequest("linear", cut, [rows, 2])));
  await run("infer_error_not_found", () => infer(inferRequest(config.unknown, flat, [rows, 4])));
  await run("error_unavailable", () => here.unary(GRPCInferenceService, "repositoryIndex", {}));
  await run("error_unimplemented_service", () => here.unary({
    ...Health, typeName: "some.Service", method: { check: { ...Health.method.check, name: "Method" } },
    methods: [{ ...Health.method.check, name: "Method", localName: "check", parent: { typeName: "some.Service" } }],
  }, "check", { service: "" }));
  return found;
}

window.runTable = runTable;

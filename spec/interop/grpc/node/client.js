// The table of check_grpc_clients.py with @grpc/grpc-js; messages and stubs come from the .proto files at run time. Argument: the configuration (a JSON file).
// Prints one JSON object per case.
"use strict";
const crypto = require("crypto");
const fs = require("fs");
const path = require("path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const config = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
const protos = path.join(__dirname, "..", "protos");
const files = ["grpc_service.proto", "tensorflow_serving/apis/prediction_service.proto", "tensorflow_serving/apis/model_service.proto",
  "tensorflow/core/framework/types.proto", "grpc/health/v1/health.proto", "grpc/reflection/v1/reflection.proto", "google/protobuf/descriptor.proto"];
const definition = loader.loadSync(files, { includeDirs: [protos], keepCase: true, longs: Number, enums: String, bytes: Buffer, defaults: true, oneofs: true });
const loaded = grpc.loadPackageDefinition(definition);
const serving = loaded.tensorflow.serving;
const insecure = grpc.credentials.createInsecure();
const unlimited = { "grpc.max_receive_message_length": -1, "grpc.max_send_message_length": -1 };
const gzip = { ...unlimited, "grpc.default_compression_algorithm": 2 };

function clients(target, options) {
  return {
    prediction: new serving.PredictionService(target, insecure, options), models: new serving.ModelService(target, insecure, options),
    infer: new loaded.inference.GRPCInferenceService(target, insecure, options), health: new loaded.grpc.health.v1.Health(target, insecure, options),
    reflection: new loaded.grpc.reflection.v1.ServerReflection(target, insecure, options),
  };
}
const here = clients(config.target, unlimited), chief = clients(config.admin, {}), squeezed = clients(config.target, gzip);
const after = seconds => ({ deadline: Date.now() + seconds * 1000 });

// One call as a promise.
function call(client, method, message, options = after(30), metadata = new grpc.Metadata()) {
  return new Promise((resolve, reject) => client[method](message, metadata, options, (error, answer) => error ? reject(error) : resolve(answer)));
}

async function run(name, work) {
  try {
    console.log(JSON.stringify({ case: name, value: await work() }));
  } catch (error) {
    console.log(JSON.stringify({ case: name, code: grpc.status[error.code] || String(error.stack), message: error.details || "" }));
  }
}

const bytesOf = values => Buffer.from(Float32Array.from(values).buffer);
function floats(bytes) {
  return Array.from({ length: bytes.length / 4 }, (_, i) => bytes.readFloatLE(4 * i));
}
const digest = bytes => crypto.createHash("sha256").update(bytes).digest("hex");
const numbers = count => Float32Array.from({ length: count }, (_, i) => i * 7919 % 10007 - 5000);
const flat = config.x.flat();
const rows = config.x.length;
const cut = flat.slice(0, 2 * rows);

// ---- TensorFlow Serving ----

const shapeProto = shape => ({ dim: shape.map(size => ({ size })) });
const tensor = (values, shape) => ({ dtype: "DT_FLOAT", tensor_shape: shapeProto(shape), tensor_content: bytesOf(values) });
const predictRequest = (model, inputs, spec) => ({ model_spec: { name: model, ...spec }, inputs });
const shapeOf = proto => proto.tensor_shape.dim.map(dim => dim.size);
const valuesOf = proto => proto.tensor_content.length ? floats(proto.tensor_content) : proto.float_val;

async function predict(request, output, client = here.prediction, options, metadata) {
  return valuesOf((await call(client, "Predict", request, options, metadata)).outputs[output]);
}
const halvesOf = model => predictRequest(model, { x: tensor(config.halves, [config.halves.length]) });
const halves = (client, metadata) => predict(halvesOf("half_plus_two"), "y", client, undefined, metadata);

function input(features, list) {
  const examples = list.map(row => ({ features: { feature: Object.fromEntries(row.map((value, i) => [features[i], { float_list: { value: [value] } }])) } }));
  return { example_list: { examples } };
}
const column = config.halves.map(value => [value]);
const regress = { name: "half_plus_two", signature_name: "tensorflow/serving/regress" };
const reload = extra => ({
  config: { model_config_list: { config: Object.entries({ ...config.models, ...extra }).map(([name, base]) => ({ name, base_path: base, model_platform: "onnx" })) } },
});
const int64 = value => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigInt64LE(BigInt(value));
  return bytes;
};
const slow = predictRequest("slow", { n: { dtype: "DT_INT64", tensor_shape: shapeProto([1]), tensor_content: int64(config.iterations) } });

async function codeOf(promise) {
  try {
    await promise;
    return "OK";
  } catch (error) {
    return grpc.status[error.code];
  }
}

async function servingCases() {
  const x = tensor(flat, [rows, 4]);
  await run("predict_content", async () => {
    const { outputs, model_spec } = await call(here.prediction, "Predict", predictRequest("linear", { x }));
    return { scores: valuesOf(outputs.scores), shape: shapeOf(outputs.scores), model: model_spec.name, version: model_spec.version.value,
      signature: model_spec.signature_name };
  });
  await run("predict_typed", () => predict(predictRequest("linear", { x: { dtype: "DT_FLOAT", tensor_shape: x.tensor_shape, float_val: flat } },
    { version: { value: 1 } }), "scores"));
  await run("predict_words", async () => {
    const w = { dtype: "DT_STRING", tensor_shape: shapeProto([config.words.length]), string_val: config.words.map(word => Buffer.from(word)) };
    return (await call(here.prediction, "Predict", predictRequest("words", { w }))).outputs.same.string_val.map(word => word.toString());
  });
  await run("classify", async () => {
    const { result } = await call(here.prediction, "Classify", { model_spec: { name: "linear" }, input: input(config.features, config.x) });
    return result.classifications.map(row => row.classes.map(each => [each.label, each.score]));
  });
  const values = result => result.regressions.map(each => each.value);
  await run("regress", async () => values((await call(here.prediction, "Regress", { model_spec: regress, input: input(["x"], column) })).result));
  await run("multi_inference", async () => {
    const request = { tasks: [{ model_spec: regress, method_name: "tensorflow/serving/regress" }], input: input(["x"], column) };
    return (await call(here.prediction, "MultiInference", request)).results.map(each => values(each.regression_result));
  });
  await run("model_metadata", async () => {
    const { metadata } = await call(here.prediction, "GetModelMetadata", { model_spec: { name: "linear" }, metadata_field: ["signature_def"] });
    const text = metadata.signature_def;
    if (!text.type_url.endsWith("/tensorflow.serving.SignatureDefMap")) return text.type_url;
    const found = definition["tensorflow.serving.SignatureDefMap"].deserialize(text.value).signature_def.serving_default;
    const inputs = Object.entries(found.inputs).map(([name, info]) => [name, [info.dtype, shapeOf(info)]]);
    return { inputs: Object.fromEntries(inputs), outputs: Object.keys(found.outputs).sort(), method: found.method_name };
  });
  await run("model_status", async () => {
    const found = await call(here.models, "GetModelStatus", { model_spec: { name: "linear" } });
    return found.model_version_status.map(each => [each.version, each.state, each.status.error_message]);
  });
  await run("reload_config", async () => {
    await call(chief.models, "HandleReloadConfigRequest", reload({ added: config.added }));
    const found = await predict(halvesOf("added"), "y", chief.prediction);
    await call(chief.models, "HandleReloadConfigRequest", reload({}));
    return [found, await codeOf(predict(halvesOf("added"), "y", chief.prediction))];
  });
  await run("predict_gzip", () => halves(squeezed.prediction));
  await run("predict_metadata", () => {
    const metadata = new grpc.Metadata();
    metadata.set("x-note", "plain");
    metadata.set("x-note-bin", Buffer.from(Array.from({ length: 256 }, (_, i) => i)));
    return halves(here.prediction, metadata);
  });
  await run("predict_large", async () => {
    const { y } = (await call(here.prediction, "Predict", predictRequest("negate", { x: tensor(numbers(config.large), [1, config.large]) }))).outputs;
    return [shapeOf(y), digest(bytesOf(valuesOf(y)))];
  });
  await run("predict_streams", () => Promise.all(Array.from({ length: config.streams }, (_, i) =>
    predict(predictRequest("half_plus_two", { x: tensor([i], [1]) }), "y"))));
  await run("deadline", async () => ({ code: await codeOf(predict(slow, "y", here.prediction, after(config.deadline))), after: await halves() }));
  await run("cancelled", async () => {
    const code = await new Promise(resolve => {
      const made = here.prediction.Predict(slow, new grpc.Metadata(), after(30), error => resolve(error ? grpc.status[error.code] : "OK"));
      setTimeout(() => made.cancel(), 50);
    });
    return { code, after: await halves() };
  });
  await run("error_invalid_argument", () => predict(predictRequest("linear", { x: tensor(cut, [rows, 2]) }), "scores"));
  await run("error_not_found", () => predict(predictRequest(config.unknown, { x }), "scores"));
  await run("error_failed_precondition", () => predict(predictRequest("linear", { x }, { signature_name: "none" }), "scores"));
  await run("error_resource_exhausted", () => predict(predictRequest("negate", { x: tensor(new Float32Array(config.too_large), [1, config.too_large]) }), "y"));
  await run("error_permission_denied", () => call(here.models, "HandleReloadConfigRequest", reload({})));
  await run("error_unknown", async () => {
    try {
      return await call(chief.models, "HandleReloadConfigRequest", reload({ missing: config.missing }));
    } finally {
      await call(chief.models, "HandleReloadConfigRequest", reload({}));
    }
  });
}

// ---- KServe ----

const inferRequest = (model, values, shape) =>
  ({ model_name: model, id: "r1", inputs: [{ name: "x", datatype: "FP32", shape }], raw_input_contents: [bytesOf(values)] });
const scoresOf = response => floats(response.raw_output_contents[0]);
const read = stream => new Promise((resolve, reject) => {
  const done = (how, value) => {
    stream.removeAllListeners();
    stream.on("error", () => {}); // what comes later is of no interest
    stream.pause();
    how(value);
  };
  stream.once("data", message => done(resolve, message));
  stream.once("end", () => done(resolve, null));
  stream.once("error", error => done(reject, error));
  stream.resume();
});

async function streamInfer(client, requests, metadata = new grpc.Metadata()) {
  const stream = client.ModelStreamInfer(metadata, after(30)), found = [];
  for (const request of requests) stream.write(request);
  stream.end();
  for await (const response of stream) found.push(response.error_message || scoresOf(response.infer_response));
  return found;
}

async function inferCases() {
  const linear = inferRequest("linear", flat, [rows, 4]), bad = inferRequest("linear", cut, [rows, 2]);
  await run("live", async () => [(await call(here.infer, "ServerLive", {})).live, (await call(here.infer, "ServerReady", {})).ready,
    (await call(here.infer, "ModelReady", { name: "linear" })).ready, (await call(here.infer, "ModelReady", { name: "none" })).ready]);
  await run("metadata", async () => {
    const server = await call(here.infer, "ServerMetadata", {}), model = await call(here.infer, "ModelMetadata", { name: "linear" });
    const describe = each => [each.name, each.datatype, each.shape];
    return { server: server.name, model: model.name, versions: model.versions, input: describe(model.inputs[0]), output: describe(model.outputs[0]) };
  });
  await run("infer_raw", async () => {
    const response = await call(here.infer, "ModelInfer", linear), output = response.outputs[0];
    return { scores: scoresOf(response), shape: output.shape, datatype: output.datatype, output: output.name, id: response.id, model: response.model_name,
      version: response.model_version };
  });
  await run("infer_typed", async () => {
    const inputs = [{ name: "x", datatype: "FP32", shape: [rows, 4], contents: { fp32_contents: flat } }];
    const response = await call(here.infer, "ModelInfer", { model_name: "linear", model_version: "1", inputs });
    return response.outputs[0].contents ? response.outputs[0].contents.fp32_contents : scoresOf(response);
  });
  await run("infer_words", async () => {
    const inputs = [{ name: "w", datatype: "BYTES", shape: [config.words.length], contents: { bytes_contents: config.words.map(word => Buffer.from(word)) } }];
    const response = await call(here.infer, "ModelInfer", { model_name: "words", inputs });
    if (response.outputs[0].contents) return response.outputs[0].contents.bytes_contents.map(word => word.toString());
    const raw = response.raw_output_contents[0], found = [];
    for (let at = 0; at < raw.length; at += 4 + raw.readUInt32LE(at)) found.push(raw.subarray(at + 4, at + 4 + raw.readUInt32LE(at)).toString());
    return found;
  });
  await run("config", async () => {
    const found = (await call(here.infer, "ModelConfig", { name: "linear" })).config;
    return { name: found.name, input: found.input[0].name, dims: found.input[0].dims, output: found.output[0].name };
  });
  await run("statistics", async () => {
    const count = async () => (await call(here.infer, "ModelStatistics", { name: "linear" })).model_stats[0].inference_count, before = await count();
    await call(here.infer, "ModelInfer", linear);
    return await count() - before;
  });
  const spare = inferRequest("spare", config.halves, [config.halves.length]);
  await run("repository", async () => {
    const states = async () => (await call(chief.infer, "RepositoryIndex", {})).models.filter(model => model.name === "spare").map(model => model.state);
    const found = [await states()];
    await call(chief.infer, "RepositoryModelUnload", { model_name: "spare" });
    found.push((await states()).includes("READY"), await codeOf(call(chief.infer, "ModelInfer", spare)));
    await call(chief.infer, "RepositoryModelLoad", { model_name: "spare" });
    return [...found, scoresOf(await call(chief.infer, "ModelInfer", spare))];
  });
  await run("stream", () => streamInfer(here.infer, [linear, bad, linear]));
  await run("stream_gzip", () => streamInfer(squeezed.infer, [linear, linear]));
  await run("stream_metadata", () => {
    const strict = new grpc.Metadata();
    strict.set("triton_grpc_error", "true");
    return streamInfer(here.infer, [inferRequest("none", flat, [rows, 4])], strict);
  });
  await run("stream_cancelled", async () => {
    const stream = here.infer.ModelStreamInfer(new grpc.Metadata(), after(30));
    stream.write(linear);
    const first = scoresOf((await read(stream)).infer_response);
    stream.cancel();
    return { first, code: await codeOf(read(stream)), after: await halves() };
  });
  await run("stream_deadline", async () => {
    const ended = await streamInfer(here.infer, []);
    return [ended, await codeOf(read(here.infer.ModelStreamInfer(new grpc.Metadata(), after(config.deadline))))];
  });
  await run("infer_large", async () => {
    const response = await call(here.infer, "ModelInfer", inferRequest("negate", numbers(config.large), [1, config.large]));
    return [response.outputs[0].shape, digest(response.raw_output_contents[0])];
  });
  await run("infer_streams", async () => {
    // every stream has been answered before the first of them ends
    const streams = Array.from({ length: config.streams }, () => here.infer.ModelStreamInfer(new grpc.Metadata(), after(30)));
    const exchange = async (stream, i) => {
      stream.write(inferRequest("half_plus_two", [i], [1]));
      return scoresOf((await read(stream)).infer_response);
    };
    const first = await Promise.all(streams.map(exchange)), second = await Promise.all(streams.map(exchange));
    const ends = await Promise.all(streams.map(stream => {
      stream.end();
      return read(stream);
    }));
    return ends.every(end => end === null) && JSON.stringify(first) === JSON.stringify(second) ? first : "differs";
  });
  await run("infer_error_invalid_argument", () => call(here.infer, "ModelInfer", bad));
  await run("infer_error_not_found", () => call(here.infer, "ModelInfer", inferRequest(config.unknown, flat, [rows, 4])));
  await run("error_unavailable", () => call(here.infer, "RepositoryIndex", {}));
  const raw = (method, bytes) => new Promise((resolve, reject) => here.infer.makeUnaryRequest(method, message => message, message => message, bytes,
    new grpc.Metadata(), after(30), (error, answer) => error ? reject(error) : resolve(answer)));
  await run("error_internal", () => raw("/inference.GRPCInferenceService/ModelMetadata", Buffer.from([255, 255, 255])));
  await run("error_unimplemented", () => raw("/inference.GRPCInferenceService/ModelFly", Buffer.alloc(0)));
  await run("error_unimplemented_service", () => raw("/some.Service/Method", Buffer.alloc(0)));
}

// ---- health and reflection ----

async function otherCases() {
  const check = async service => (await call(here.health, "Check", { service })).status;
  await run("health", () => Promise.all(["", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "linear"].map(check)));
  await run("health_unknown", () => check("none"));
  await run("health_watch", async () => {
    const stream = chief.health.Watch({ service: "spare" }, after(30));
    const found = [(await read(stream)).status];
    await call(chief.infer, "RepositoryModelUnload", { model_name: "spare" });
    found.push((await read(stream)).status);
    await call(chief.infer, "RepositoryModelLoad", { model_name: "spare" });
    found.push((await read(stream)).status);
    stream.cancel();
    return found;
  });
  await run("reflection", async () => {
    const stream = here.reflection.ServerReflectionInfo(new grpc.Metadata(), after(30));
    stream.write({ list_services: "" });
    const services = (await read(stream)).list_services_response.service.map(each => each.name).sort();
    stream.write({ file_containing_symbol: "inference.GRPCInferenceService" });
    const described = (await read(stream)).file_descriptor_response.file_descriptor_proto.map(definition["google.protobuf.FileDescriptorProto"].deserialize);
    stream.end();
    const methods = described.flatMap(file => file.service.flatMap(service => service.method.map(method => method.name))).sort();
    return { services, methods };
  });
}

async function main() {
  await servingCases();
  await inferCases();
  await otherCases();
  for (const set of [here, chief, squeezed]) for (const client of Object.values(set)) client.close();
}

main();

// The table of check_grpc_clients.py in Go. Argument: the configuration (a JSON file). Prints one JSON object per case.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"mlserve.interop/pb/inference"
	"mlserve.interop/pb/serving"
	"mlserve.interop/pb/tensorflow"
)

const timeout = 30 * time.Second

var config struct {
	Target, Admin, Added, Missing, Unknown string
	X                                      [][]float32
	Halves                                 []float32
	Words, Features                        []string
	Models                                 map[string]string
	Large                                  int
	TooLarge                               int `json:"too_large"`
	Streams                                int
	Iterations                             int64
	Deadline                               float64
}

var (
	connection, chief     *grpc.ClientConn
	dialled               int32
	prediction, adminPred serving.PredictionServiceClient
	models, adminModels   serving.ModelServiceClient
	infer, adminInfer     inference.GRPCInferenceServiceClient
)

type result map[string]interface{}

var names = map[codes.Code]string{
	codes.OK: "OK", codes.Canceled: "CANCELLED", codes.Unknown: "UNKNOWN", codes.InvalidArgument: "INVALID_ARGUMENT", codes.DeadlineExceeded: "DEADLINE_EXCEEDED",
	codes.NotFound: "NOT_FOUND", codes.PermissionDenied: "PERMISSION_DENIED", codes.ResourceExhausted: "RESOURCE_EXHAUSTED",
	codes.FailedPrecondition: "FAILED_PRECONDITION", codes.Aborted: "ABORTED", codes.Unimplemented: "UNIMPLEMENTED", codes.Internal: "INTERNAL",
	codes.Unavailable: "UNAVAILABLE",
}

func codeOf(err error) string { return names[status.Code(err)] }

func run(name string, call func(ctx context.Context) (interface{}, error)) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	line := result{"case": name}
	value, err := call(ctx)
	if err != nil {
		line["code"], line["message"] = codeOf(err), status.Convert(err).Message()
	} else {
		line["value"] = value
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

func floats(data []byte) []float32 {
	values := make([]float32, len(data)/4)
	for i := range values {
		values[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
	}
	return values
}

func bytesOf(values []float32) []byte {
	data := make([]byte, 0, 4*len(values))
	for _, value := range values {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(value))
	}
	return data
}

func digest(values []float32) string {
	sum := sha256.Sum256(bytesOf(values))
	return hex.EncodeToString(sum[:])
}

// What all clients send where much is sent.
func numbers(count int) []float32 {
	values := make([]float32, count)
	for i := range values {
		values[i] = float32(int64(i)*7919%10007 - 5000)
	}
	return values
}

func flat() []float32 {
	var values []float32
	for _, row := range config.X {
		values = append(values, row...)
	}
	return values
}

// ---- TensorFlow Serving ----

func shapeProto(shape ...int64) *tensorflow.TensorShapeProto {
	proto := &tensorflow.TensorShapeProto{}
	for _, size := range shape {
		proto.Dim = append(proto.Dim, &tensorflow.TensorShapeProto_Dim{Size: size})
	}
	return proto
}

func tensor(values []float32, shape ...int64) *tensorflow.TensorProto {
	return &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: shapeProto(shape...), TensorContent: bytesOf(values)}
}

func predictRequest(model, input string, given *tensorflow.TensorProto) *serving.PredictRequest {
	return &serving.PredictRequest{ModelSpec: &serving.ModelSpec{Name: model}, Inputs: map[string]*tensorflow.TensorProto{input: given}}
}

func shapeOf(proto *tensorflow.TensorProto) []int64 {
	shape := []int64{}
	for _, dim := range proto.TensorShape.Dim {
		shape = append(shape, dim.Size)
	}
	return shape
}

func valuesOf(proto *tensorflow.TensorProto) []float32 {
	if len(proto.TensorContent) > 0 {
		return floats(proto.TensorContent)
	}
	return proto.FloatVal
}

func predict(ctx context.Context, request *serving.PredictRequest, output string, options ...grpc.CallOption) ([]float32, error) {
	response, err := prediction.Predict(ctx, request, options...)
	if err != nil {
		return nil, err
	}
	return valuesOf(response.Outputs[output]), nil
}

func halvesRequest(model string) *serving.PredictRequest {
	return predictRequest(model, "x", tensor(config.Halves, int64(len(config.Halves))))
}

func halves(ctx context.Context, options ...grpc.CallOption) ([]float32, error) {
	return predict(ctx, halvesRequest("half_plus_two"), "y", options...)
}

func input(features []string, rows [][]float32) *serving.Input {
	list := &serving.ExampleList{}
	for _, row := range rows {
		found := map[string]*tensorflow.Feature{}
		for i, value := range row {
			found[features[i]] = &tensorflow.Feature{Kind: &tensorflow.Feature_FloatList{FloatList: &tensorflow.FloatList{Value: []float32{value}}}}
		}
		list.Examples = append(list.Examples, &tensorflow.Example{Features: &tensorflow.Features{Feature: found}})
	}
	return &serving.Input{Kind: &serving.Input_ExampleList{ExampleList: list}}
}

func column(values []float32) [][]float32 {
	var rows [][]float32
	for _, value := range values {
		rows = append(rows, []float32{value})
	}
	return rows
}

func regressions(found *serving.RegressionResult) []float32 {
	var values []float32
	for _, each := range found.Regressions {
		values = append(values, each.Value)
	}
	return values
}

func reload(extra map[string]string) *serving.ReloadConfigRequest {
	list := &serving.ModelConfigList{}
	for _, bases := range []map[string]string{config.Models, extra} {
		for name, base := range bases {
			list.Config = append(list.Config, &serving.ModelConfig{Name: name, BasePath: base, ModelPlatform: "onnx"})
		}
	}
	return &serving.ReloadConfigRequest{Config: &serving.ModelServerConfig{Config: &serving.ModelServerConfig_ModelConfigList{ModelConfigList: list}}}
}

func slow(ctx context.Context) error {
	given := make([]byte, 8)
	binary.LittleEndian.PutUint64(given, uint64(config.Iterations))
	_, err := predict(ctx, predictRequest("slow", "n", &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_INT64, TensorShape: shapeProto(1), TensorContent: given}), "y")
	return err
}

func servingCases() {
	x := flat()
	given := tensor(x, int64(len(config.X)), 4)
	run("predict_content", func(ctx context.Context) (interface{}, error) {
		response, err := prediction.Predict(ctx, predictRequest("linear", "x", given))
		if err != nil {
			return nil, err
		}
		scores, spec := response.Outputs["scores"], response.ModelSpec
		return result{"scores": valuesOf(scores), "shape": shapeOf(scores), "model": spec.Name, "version": spec.GetVersion().GetValue(), "signature": spec.SignatureName}, nil
	})
	run("predict_typed", func(ctx context.Context) (interface{}, error) {
		request := predictRequest("linear", "x", &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_FLOAT, TensorShape: given.TensorShape, FloatVal: x})
		request.ModelSpec.VersionChoice = &serving.ModelSpec_Version{Version: wrapperspb.Int64(1)}
		return predict(ctx, request, "scores")
	})
	run("predict_words", func(ctx context.Context) (interface{}, error) {
		words := &tensorflow.TensorProto{Dtype: tensorflow.DataType_DT_STRING, TensorShape: shapeProto(int64(len(config.Words)))}
		for _, word := range config.Words {
			words.StringVal = append(words.StringVal, []byte(word))
		}
		response, err := prediction.Predict(ctx, predictRequest("words", "w", words))
		if err != nil {
			return nil, err
		}
		found := []string{}
		for _, word := range response.Outputs["same"].StringVal {
			found = append(found, string(word))
		}
		return found, nil
	})
	run("classify", func(ctx context.Context) (interface{}, error) {
		response, err := prediction.Classify(ctx, &serving.ClassificationRequest{ModelSpec: &serving.ModelSpec{Name: "linear"}, Input: input(config.Features, config.X)})
		if err != nil {
			return nil, err
		}
		rows := [][][]interface{}{}
		for _, each := range response.Result.Classifications {
			row := [][]interface{}{}
			for _, class := range each.Classes {
				row = append(row, []interface{}{class.Label, class.Score})
			}
			rows = append(rows, row)
		}
		return rows, nil
	})
	regress := &serving.ModelSpec{Name: "half_plus_two", SignatureName: "tensorflow/serving/regress"}
	run("regress", func(ctx context.Context) (interface{}, error) {
		response, err := prediction.Regress(ctx, &serving.RegressionRequest{ModelSpec: regress, Input: input([]string{"x"}, column(config.Halves))})
		if err != nil {
			return nil, err
		}
		return regressions(response.Result), nil
	})
	run("multi_inference", func(ctx context.Context) (interface{}, error) {
		tasks := []*serving.InferenceTask{{ModelSpec: regress, MethodName: "tensorflow/serving/regress"}}
		response, err := prediction.MultiInference(ctx, &serving.MultiInferenceRequest{Tasks: tasks, Input: input([]string{"x"}, column(config.Halves))})
		if err != nil {
			return nil, err
		}
		found := [][]float32{}
		for _, each := range response.Results {
			found = append(found, regressions(each.GetRegressionResult()))
		}
		return found, nil
	})
	run("model_metadata", func(ctx context.Context) (interface{}, error) {
		request := &serving.GetModelMetadataRequest{ModelSpec: &serving.ModelSpec{Name: "linear"}, MetadataField: []string{"signature_def"}}
		response, err := prediction.GetModelMetadata(ctx, request)
		if err != nil {
			return nil, err
		}
		signatures := &serving.SignatureDefMap{}
		if err := response.Metadata["signature_def"].UnmarshalTo(signatures); err != nil {
			return nil, err
		}
		signature, inputs, outputs := signatures.SignatureDef["serving_default"], result{}, []string{}
		for name, info := range signature.Inputs {
			inputs[name] = []interface{}{info.Dtype.String(), shapeOf(&tensorflow.TensorProto{TensorShape: info.TensorShape})}
		}
		for name := range signature.Outputs {
			outputs = append(outputs, name)
		}
		sort.Strings(outputs)
		return result{"inputs": inputs, "outputs": outputs, "method": signature.MethodName}, nil
	})
	run("model_status", func(ctx context.Context) (interface{}, error) {
		response, err := models.GetModelStatus(ctx, &serving.GetModelStatusRequest{ModelSpec: &serving.ModelSpec{Name: "linear"}})
		if err != nil {
			return nil, err
		}
		found := [][]interface{}{}
		for _, each := range response.ModelVersionStatus {
			found = append(found, []interface{}{each.Version, each.State.String(), each.Status.GetErrorMessage()})
		}
		return found, nil
	})
	run("reload_config", func(ctx context.Context) (interface{}, error) {
		if _, err := adminModels.HandleReloadConfigRequest(ctx, reload(map[string]string{"added": config.Added})); err != nil {
			return nil, err
		}
		response, err := adminPred.Predict(ctx, halvesRequest("added"))
		if err != nil {
			return nil, err
		}
		if _, err := adminModels.HandleReloadConfigRequest(ctx, reload(nil)); err != nil {
			return nil, err
		}
		_, err = adminPred.Predict(ctx, halvesRequest("added"))
		return []interface{}{valuesOf(response.Outputs["y"]), codeOf(err)}, nil
	})
	run("predict_gzip", func(ctx context.Context) (interface{}, error) { return halves(ctx, grpc.UseCompressor(gzip.Name)) })
	run("predict_metadata", func(ctx context.Context) (interface{}, error) {
		every := make([]byte, 256)
		for i := range every {
			every[i] = byte(i)
		}
		return halves(metadata.AppendToOutgoingContext(ctx, "x-note", "plain", "x-note-bin", string(every)))
	})
	run("predict_large", func(ctx context.Context) (interface{}, error) {
		response, err := prediction.Predict(ctx, predictRequest("negate", "x", tensor(numbers(config.Large), 1, int64(config.Large))))
		if err != nil {
			return nil, err
		}
		return []interface{}{shapeOf(response.Outputs["y"]), digest(valuesOf(response.Outputs["y"]))}, nil
	})
	run("predict_streams", func(ctx context.Context) (interface{}, error) {
		return concurrently(func(i int) ([]float32, error) {
			return predict(ctx, predictRequest("half_plus_two", "x", tensor([]float32{float32(i)}, 1)), "y")
		})
	})
	run("deadline", func(ctx context.Context) (interface{}, error) {
		short, cancel := context.WithTimeout(ctx, time.Duration(config.Deadline*float64(time.Second)))
		defer cancel()
		err := slow(short)
		after, problem := halves(ctx)
		return result{"code": codeOf(err), "after": after}, problem
	})
	run("cancelled", func(ctx context.Context) (interface{}, error) {
		short, cancel := context.WithCancel(ctx)
		time.AfterFunc(50*time.Millisecond, cancel)
		err := slow(short)
		after, problem := halves(ctx)
		return result{"code": codeOf(err), "after": after}, problem
	})
	fails := func(name string, request *serving.PredictRequest) {
		run(name, func(ctx context.Context) (interface{}, error) { return predict(ctx, request, "y") })
	}
	fails("error_invalid_argument", predictRequest("linear", "x", tensor(x[:6], 3, 2)))
	fails("error_not_found", predictRequest(config.Unknown, "x", given))
	signature := predictRequest("linear", "x", given)
	signature.ModelSpec.SignatureName = "none"
	fails("error_failed_precondition", signature)
	fails("error_resource_exhausted", predictRequest("negate", "x", tensor(make([]float32, config.TooLarge), 1, int64(config.TooLarge))))
	run("error_permission_denied", func(ctx context.Context) (interface{}, error) { return models.HandleReloadConfigRequest(ctx, reload(nil)) })
	run("error_unknown", func(ctx context.Context) (interface{}, error) {
		_, err := adminModels.HandleReloadConfigRequest(ctx, reload(map[string]string{"missing": config.Missing}))
		if _, problem := adminModels.HandleReloadConfigRequest(ctx, reload(nil)); problem != nil {
			return nil, problem
		}
		return "accepted", err
	})
}

// One call each for 0, 1, …, all at the same time.
func concurrently(call func(i int) ([]float32, error)) (interface{}, error) {
	var group sync.WaitGroup
	found, problems := make([][]float32, config.Streams), make([]error, config.Streams)
	for i := range found {
		group.Add(1)
		go func(i int) {
			defer group.Done()
			found[i], problems[i] = call(i)
		}(i)
	}
	group.Wait()
	for _, err := range problems {
		if err != nil {
			return nil, err
		}
	}
	if made := atomic.LoadInt32(&dialled); made != 1 {
		return nil, fmt.Errorf("%d connections were made", made)
	}
	return found, nil
}

// ---- KServe ----

func inferRequest(model string, values []float32, shape ...int64) *inference.ModelInferRequest {
	given := &inference.ModelInferRequest_InferInputTensor{Name: "x", Datatype: "FP32", Shape: shape}
	return &inference.ModelInferRequest{ModelName: model, Id: "r1", Inputs: []*inference.ModelInferRequest_InferInputTensor{given}, RawInputContents: [][]byte{bytesOf(values)}}
}

func scoresOf(response *inference.ModelInferResponse) []float32 { return floats(response.RawOutputContents[0]) }

func inferCases() {
	x := flat()
	rows := int64(len(config.X))
	linear, bad := inferRequest("linear", x, rows, 4), inferRequest("linear", x[:6], rows, 2)
	count := int64(len(config.Halves))
	run("live", func(ctx context.Context) (interface{}, error) {
		live, err := infer.ServerLive(ctx, &inference.ServerLiveRequest{})
		if err != nil {
			return nil, err
		}
		ready, err := infer.ServerReady(ctx, &inference.ServerReadyRequest{})
		if err != nil {
			return nil, err
		}
		model, err := infer.ModelReady(ctx, &inference.ModelReadyRequest{Name: "linear"})
		if err != nil {
			return nil, err
		}
		none, err := infer.ModelReady(ctx, &inference.ModelReadyRequest{Name: "none"})
		return []bool{live.Live, ready.Ready, model.Ready, none.GetReady()}, err
	})
	run("metadata", func(ctx context.Context) (interface{}, error) {
		server, err := infer.ServerMetadata(ctx, &inference.ServerMetadataRequest{})
		if err != nil {
			return nil, err
		}
		model, err := infer.ModelMetadata(ctx, &inference.ModelMetadataRequest{Name: "linear"})
		if err != nil {
			return nil, err
		}
		describe := func(each *inference.ModelMetadataResponse_TensorMetadata) []interface{} {
			return []interface{}{each.Name, each.Datatype, each.Shape}
		}
		return result{"server": server.Name, "model": model.Name, "versions": model.Versions, "input": describe(model.Inputs[0]), "output": describe(model.Outputs[0])}, nil
	})
	run("infer_raw", func(ctx context.Context) (interface{}, error) {
		response, err := infer.ModelInfer(ctx, linear)
		if err != nil {
			return nil, err
		}
		output := response.Outputs[0]
		return result{"scores": scoresOf(response), "shape": output.Shape, "datatype": output.Datatype, "output": output.Name, "id": response.Id,
			"model": response.ModelName, "version": response.ModelVersion}, nil
	})
	run("infer_typed", func(ctx context.Context) (interface{}, error) {
		given := &inference.ModelInferRequest_InferInputTensor{Name: "x", Datatype: "FP32", Shape: []int64{rows, 4}, Contents: &inference.InferTensorContents{Fp32Contents: x}}
		response, err := infer.ModelInfer(ctx, &inference.ModelInferRequest{ModelName: "linear", ModelVersion: "1", Inputs: []*inference.ModelInferRequest_InferInputTensor{given}})
		if err != nil {
			return nil, err
		}
		if found := response.Outputs[0].GetContents().GetFp32Contents(); found != nil {
			return found, nil
		}
		return scoresOf(response), nil
	})
	run("infer_words", func(ctx context.Context) (interface{}, error) {
		contents := &inference.InferTensorContents{}
		for _, word := range config.Words {
			contents.BytesContents = append(contents.BytesContents, []byte(word))
		}
		given := &inference.ModelInferRequest_InferInputTensor{Name: "w", Datatype: "BYTES", Shape: []int64{int64(len(config.Words))}, Contents: contents}
		response, err := infer.ModelInfer(ctx, &inference.ModelInferRequest{ModelName: "words", Inputs: []*inference.ModelInferRequest_InferInputTensor{given}})
		if err != nil {
			return nil, err
		}
		found := []string{}
		for _, word := range response.Outputs[0].GetContents().GetBytesContents() {
			found = append(found, string(word))
		}
		for _, raw := range response.RawOutputContents {
			for len(raw) >= 4 {
				size := binary.LittleEndian.Uint32(raw)
				found, raw = append(found, string(raw[4:4+size])), raw[4+size:]
			}
		}
		return found, nil
	})
	run("config", func(ctx context.Context) (interface{}, error) {
		response, err := infer.ModelConfig(ctx, &inference.ModelConfigRequest{Name: "linear"})
		if err != nil {
			return nil, err
		}
		found := response.Config
		return result{"name": found.Name, "input": found.Input[0].Name, "dims": found.Input[0].Dims, "output": found.Output[0].Name}, nil
	})
	run("statistics", func(ctx context.Context) (interface{}, error) {
		counts := []uint64{}
		for i := 0; i < 2; i++ {
			response, err := infer.ModelStatistics(ctx, &inference.ModelStatisticsRequest{Name: "linear"})
			if err != nil {
				return nil, err
			}
			counts = append(counts, response.ModelStats[0].InferenceCount)
			if _, err := infer.ModelInfer(ctx, linear); err != nil {
				return nil, err
			}
		}
		return counts[1] - counts[0], nil
	})
	spare := inferRequest("spare", config.Halves, count)
	run("repository", func(ctx context.Context) (interface{}, error) {
		states := func() ([]string, error) {
			found := []string{}
			index, err := adminInfer.RepositoryIndex(ctx, &inference.RepositoryIndexRequest{})
			for _, model := range index.GetModels() {
				if model.Name == "spare" {
					found = append(found, model.State)
				}
			}
			return found, err
		}
		before, err := states()
		if err != nil {
			return nil, err
		}
		if _, err := adminInfer.RepositoryModelUnload(ctx, &inference.RepositoryModelUnloadRequest{ModelName: "spare"}); err != nil {
			return nil, err
		}
		after, err := states()
		if err != nil {
			return nil, err
		}
		ready := false
		for _, state := range after {
			ready = ready || state == "READY"
		}
		_, refusal := adminInfer.ModelInfer(ctx, spare)
		if _, err := adminInfer.RepositoryModelLoad(ctx, &inference.RepositoryModelLoadRequest{ModelName: "spare"}); err != nil {
			return nil, err
		}
		response, err := adminInfer.ModelInfer(ctx, spare)
		if err != nil {
			return nil, err
		}
		return []interface{}{before, ready, codeOf(refusal), scoresOf(response)}, nil
	})
	run("stream", func(ctx context.Context) (interface{}, error) { return stream(ctx, []*inference.ModelInferRequest{linear, bad, linear}) })
	run("stream_gzip", func(ctx context.Context) (interface{}, error) {
		return stream(ctx, []*inference.ModelInferRequest{linear, linear}, grpc.UseCompressor(gzip.Name))
	})
	run("stream_metadata", func(ctx context.Context) (interface{}, error) {
		strict := metadata.AppendToOutgoingContext(ctx, "triton_grpc_error", "true")
		return stream(strict, []*inference.ModelInferRequest{inferRequest("none", x, rows, 4)})
	})
	run("stream_cancelled", func(ctx context.Context) (interface{}, error) {
		short, cancel := context.WithCancel(ctx)
		defer cancel()
		call, err := infer.ModelStreamInfer(short)
		if err != nil {
			return nil, err
		}
		first, err := exchange(call, linear)
		if err != nil {
			return nil, err
		}
		cancel()
		_, err = call.Recv()
		after, problem := halves(ctx)
		return result{"code": codeOf(err), "first": first, "after": after}, problem
	})
	run("stream_deadline", func(ctx context.Context) (interface{}, error) {
		call, err := infer.ModelStreamInfer(ctx)
		if err != nil {
			return nil, err
		}
		if err := call.CloseSend(); err != nil {
			return nil, err
		}
		ended := []string{}
		if _, err := call.Recv(); !errors.Is(err, io.EOF) {
			ended = append(ended, "not ended")
		}
		short, cancel := context.WithTimeout(ctx, time.Duration(config.Deadline*float64(time.Second)))
		defer cancel()
		if call, err = infer.ModelStreamInfer(short); err != nil {
			return nil, err
		}
		_, err = call.Recv()
		return []interface{}{ended, codeOf(err)}, nil
	})
	run("infer_large", func(ctx context.Context) (interface{}, error) {
		response, err := infer.ModelInfer(ctx, inferRequest("negate", numbers(config.Large), 1, int64(config.Large)))
		if err != nil {
			return nil, err
		}
		return []interface{}{response.Outputs[0].Shape, digest(scoresOf(response))}, nil
	})
	run("infer_streams", func(ctx context.Context) (interface{}, error) {
		// every stream has been answered before the first of them ends
		var arrived sync.WaitGroup
		arrived.Add(config.Streams)
		return concurrently(func(i int) ([]float32, error) {
			call, err := infer.ModelStreamInfer(ctx)
			var first, second []float32
			request := inferRequest("half_plus_two", []float32{float32(i)}, 1)
			if err == nil {
				first, err = exchange(call, request)
			}
			arrived.Done()
			if err != nil {
				return nil, err
			}
			arrived.Wait()
			if second, err = exchange(call, request); err != nil {
				return nil, err
			}
			if err := call.CloseSend(); err != nil {
				return nil, err
			}
			if _, err := call.Recv(); !errors.Is(err, io.EOF) || first[0] != second[0] {
				return nil, fmt.Errorf("stream %d: %v, %v, %v", i, first, second, err)
			}
			return first, nil
		})
	})
	fails := func(name string, request *inference.ModelInferRequest) {
		run(name, func(ctx context.Context) (interface{}, error) { return infer.ModelInfer(ctx, request) })
	}
	fails("infer_error_invalid_argument", bad)
	fails("infer_error_not_found", inferRequest(config.Unknown, x, rows, 4))
	run("error_unavailable", func(ctx context.Context) (interface{}, error) { return infer.RepositoryIndex(ctx, &inference.RepositoryIndexRequest{}) })
	raw := func(name, method string, message []byte) {
		run(name, func(ctx context.Context) (interface{}, error) {
			var answer []byte
			return answer, connection.Invoke(ctx, method, message, &answer, grpc.ForceCodec(bare{}))
		})
	}
	raw("error_internal", "/inference.GRPCInferenceService/ModelMetadata", []byte{255, 255, 255})
	raw("error_unimplemented", "/inference.GRPCInferenceService/ModelFly", nil)
	raw("error_unimplemented_service", "/some.Service/Method", nil)
}

// Bytes as they are.
type bare struct{}

func (bare) Marshal(message interface{}) ([]byte, error) { return message.([]byte), nil }
func (bare) Unmarshal(data []byte, message interface{}) error {
	*message.(*[]byte) = append([]byte{}, data...)
	return nil
}
func (bare) Name() string { return "proto" }

func exchange(call inference.GRPCInferenceService_ModelStreamInferClient, request *inference.ModelInferRequest) ([]float32, error) {
	if err := call.Send(request); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	response, err := call.Recv()
	if err != nil {
		return nil, err
	}
	if response.ErrorMessage != "" {
		return nil, errors.New(response.ErrorMessage)
	}
	return scoresOf(response.InferResponse), nil
}

func stream(ctx context.Context, requests []*inference.ModelInferRequest, options ...grpc.CallOption) (interface{}, error) {
	found := []interface{}{}
	call, err := infer.ModelStreamInfer(ctx, options...)
	if err != nil {
		return nil, err
	}
	for _, request := range requests {
		if err := call.Send(request); err != nil {
			return nil, err
		}
	}
	if err := call.CloseSend(); err != nil {
		return nil, err
	}
	for {
		response, err := call.Recv()
		if errors.Is(err, io.EOF) {
			return found, nil
		}
		if err != nil {
			return nil, err
		}
		if response.ErrorMessage != "" {
			found = append(found, response.ErrorMessage)
		} else {
			found = append(found, scoresOf(response.InferResponse))
		}
	}
}

// ---- health and reflection ----

func otherCases() {
	health := grpc_health_v1.NewHealthClient(connection)
	check := func(ctx context.Context, services ...string) (interface{}, error) {
		found := []string{}
		for _, service := range services {
			response, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{Service: service})
			if err != nil {
				return nil, err
			}
			found = append(found, response.Status.String())
		}
		return found, nil
	}
	run("health", func(ctx context.Context) (interface{}, error) {
		return check(ctx, "", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "linear")
	})
	run("health_unknown", func(ctx context.Context) (interface{}, error) { return check(ctx, "none") })
	run("health_watch", func(ctx context.Context) (interface{}, error) {
		found := []string{}
		call, err := grpc_health_v1.NewHealthClient(chief).Watch(ctx, &grpc_health_v1.HealthCheckRequest{Service: "spare"})
		if err != nil {
			return nil, err
		}
		steps := []func() error{
			func() error { return nil },
			func() error {
				_, err := adminInfer.RepositoryModelUnload(ctx, &inference.RepositoryModelUnloadRequest{ModelName: "spare"})
				return err
			},
			func() error {
				_, err := adminInfer.RepositoryModelLoad(ctx, &inference.RepositoryModelLoadRequest{ModelName: "spare"})
				return err
			},
		}
		for _, step := range steps {
			if err := step(); err != nil {
				return nil, err
			}
			response, err := call.Recv()
			if err != nil {
				return nil, err
			}
			found = append(found, response.Status.String())
		}
		return found, nil
	})
	run("reflection", func(ctx context.Context) (interface{}, error) {
		call, err := grpc_reflection_v1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
		if err != nil {
			return nil, err
		}
		ask := func(request *grpc_reflection_v1.ServerReflectionRequest) (*grpc_reflection_v1.ServerReflectionResponse, error) {
			if err := call.Send(request); err != nil {
				return nil, err
			}
			return call.Recv()
		}
		services, methods := []string{}, []string{}
		response, err := ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}})
		if err != nil {
			return nil, err
		}
		for _, service := range response.GetListServicesResponse().GetService() {
			services = append(services, service.Name)
		}
		wanted := &grpc_reflection_v1.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: "inference.GRPCInferenceService"}
		if response, err = ask(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: wanted}); err != nil {
			return nil, err
		}
		for _, data := range response.GetFileDescriptorResponse().GetFileDescriptorProto() {
			file := &descriptorpb.FileDescriptorProto{}
			if err := proto.Unmarshal(data, file); err != nil {
				return nil, err
			}
			for _, service := range file.Service {
				for _, method := range service.Method {
					methods = append(methods, method.GetName())
				}
			}
		}
		sort.Strings(services)
		sort.Strings(methods)
		return result{"services": services, "methods": methods}, call.CloseSend()
	})
}

func dial(target string, counter *int32) *grpc.ClientConn {
	connect := func(ctx context.Context, address string) (net.Conn, error) {
		atomic.AddInt32(counter, 1)
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
	made, err := grpc.NewClient("passthrough:///"+target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(connect))
	if err != nil {
		panic(err)
	}
	return made
}

func main() {
	text, err := os.ReadFile(os.Args[1])
	if err == nil {
		err = json.Unmarshal(text, &config)
	}
	if err != nil {
		panic(err)
	}
	var others int32
	connection, chief = dial(config.Target, &dialled), dial(config.Admin, &others)
	prediction, adminPred = serving.NewPredictionServiceClient(connection), serving.NewPredictionServiceClient(chief)
	models, adminModels = serving.NewModelServiceClient(connection), serving.NewModelServiceClient(chief)
	infer, adminInfer = inference.NewGRPCInferenceServiceClient(connection), inference.NewGRPCInferenceServiceClient(chief)
	servingCases()
	inferCases()
	otherCases()
}

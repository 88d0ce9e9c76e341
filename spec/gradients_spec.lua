-- Every differentiable operator, checked numerically in float64: the analytic gradient of a random projection of the outputs against central
-- differences. One row per case; a differentiable operator without a row fails the last test.
local core = require "mlserve.core"

local TOLERANCE = 1e-6 -- relative; step 1e-6 leaves about 1e-9 of truncation and 1e-9 of rounding

-- Values away from the kinks of piecewise operators: |x| in [0.1, 1.1], distinct, either sign (or positive only).
local function values(shape, positive, stream)
  local t = core.random_uniform(shape, 0.1, 1.1, 11, stream):cast("float64")
  if positive then return t end
  local signs = core.random_uniform(shape, -1, 1, 12, stream):reshape({ t:count() }):totable()
  local flat = t:reshape({ t:count() })
  for i = 1, t:count() do
    if signs[i] < 0 then flat:set(i, -flat:get(i)) end
  end
  return t
end

local f64 = function(nested) return core.tensor(nested, "float64") end
local i64 = function(nested) return core.tensor(nested, "int64") end
local scalar = function(v) return core.full({}, v, "float64") end

-- { operator, inputs: shapes (random float64) or tensors (constants), attributes, outputs, positive }
local cases = {
  { "Abs", { { 2, 3 } } },
  { "Add", { { 2, 3 }, { 2, 3 } } }, { "Add", { { 2, 1, 3 }, { 4, 1 } } }, { "Add", { { 3 }, { 2, 3 } } }, { "Add", { { 2, 3 }, {} } },
  { "Sub", { { 2, 3 }, { 2, 3 } } }, { "Sub", { { 3 }, { 2, 3 } } },
  { "Mul", { { 2, 3 }, { 2, 3 } } }, { "Mul", { { 2, 1 }, { 1, 3 } } },
  { "Div", { { 2, 3 }, { 2, 3 } }, positive = true }, { "Div", { { 2, 3 }, { 3 } }, positive = true },
  { "Pow", { { 2, 3 }, { 2, 3 } }, positive = true }, { "Pow", { { 2, 3 }, scalar(2) } },
  { "Max", { { 2, 3 }, { 2, 3 } } }, { "Max", { { 2, 3 }, { 3 }, { 2, 1 } } }, { "Min", { { 2, 3 }, { 3 } } },
  { "Sum", { { 2, 3 }, { 3 }, { 2, 3 } } }, { "Mean", { { 2, 3 }, { 3 } } },
  { "Mod", { { 2, 3 }, { 2, 3 } }, { fmod = 1 } }, { "Mod", { { 2, 3 }, { 2, 3 } } },
  { "Clip", { { 2, 4 }, scalar(-0.45), scalar(0.55) } },
  { "Erf", { { 2, 3 } } }, { "Exp", { { 2, 3 } } }, { "Log", { { 2, 3 } }, positive = true }, { "Neg", { { 2, 3 } } },
  { "Reciprocal", { { 2, 3 } } }, { "Sqrt", { { 2, 3 } }, positive = true },
  { "Where", { core.tensor({ { true, false, true }, { false, false, true } }), { 2, 3 }, { 3 } } },
  -- trigonometry and hyperbolic functions
  { "Acos", { { 2, 3 } }, scale = 0.8 }, { "Acosh", { { 2, 3 } }, positive = true, offset = 1 }, { "Asin", { { 2, 3 } }, scale = 0.8 },
  { "Asinh", { { 2, 3 } } }, { "Atan", { { 2, 3 } } }, { "Atanh", { { 2, 3 } }, scale = 0.8 }, { "Cos", { { 2, 3 } } }, { "Cosh", { { 2, 3 } } },
  { "Sin", { { 2, 3 } } }, { "Sinh", { { 2, 3 } } }, { "Tan", { { 2, 3 } } },
  -- activations
  { "Celu", { { 2, 3 } }, { alpha = 0.7 } }, { "Elu", { { 2, 3 } }, { alpha = 0.7 } }, { "Gelu", { { 2, 3 } } },
  { "Gelu", { { 2, 3 } }, { approximate = "tanh" } }, { "HardSigmoid", { { 2, 3 } } }, { "HardSwish", { { 2, 3 } } },
  { "LeakyRelu", { { 2, 3 } }, { alpha = 0.2 } }, { "Mish", { { 2, 3 } } }, { "PRelu", { { 2, 3 }, { 3 } } }, { "Relu", { { 2, 3 } } },
  { "Selu", { { 2, 3 } } }, { "Shrink", { { 2, 4 } }, { lambd = 0.4, bias = 0.2 } }, { "Sigmoid", { { 2, 3 } } }, { "Softplus", { { 2, 3 } } }, { "Softsign", { { 2, 3 } } },
  { "SwiGLU", { { 2, 3 }, { 2, 3 } }, { alpha = 0.7 } }, { "Swish", { { 2, 3 } } }, { "Tanh", { { 2, 3 } } }, { "ThresholdedRelu", { { 2, 4 } }, { alpha = 0.35 } },
  { "Softmax", { { 2, 4 } } }, { "Softmax", { { 2, 4, 3 } }, { axis = 1 } }, { "LogSoftmax", { { 2, 4 } } }, { "LogSoftmax", { { 2, 4, 2 } }, { axis = 0 } },
  { "Dropout", { { 4, 5 }, core.full({}, 0.4, "float32"), core.tensor(true) }, nil, 2 },
  -- shape and data movement
  { "Cast", { { 2, 3 } }, { to = 11 } }, { "CastLike", { { 2, 3 }, scalar(0) } }, { "Identity", { { 2, 3 } } },
  { "Concat", { { 2, 3 }, { 2, 1 }, { 2, 2 } }, { axis = 1 } }, { "Expand", { { 2, 1 }, i64 { 2, 3 } } }, { "Flatten", { { 2, 3, 2 } } },
  { "Gather", { { 4, 3 }, i64 { { 0, 2 }, { 3, 2 } } } }, { "Gather", { { 2, 4 }, i64 { 1, -1 } }, { axis = 1 } },
  { "Reshape", { { 2, 6 }, i64 { 3, -1 } } }, { "Slice", { { 4, 5 }, i64 { 1, 4 }, i64 { 3, 0 }, i64 { 0, 1 }, i64 { 1, -2 } } },
  { "Split", { { 4, 3 }, i64 { 1, 3 } }, { axis = 0 }, 2 }, { "Squeeze", { { 2, 1, 3 }, i64 { 1 } } }, { "Tile", { { 2, 3 }, i64 { 2, 2 } } },
  { "Transpose", { { 2, 3, 4 } }, { perm = { 2, 0, 1 } } }, { "Unsqueeze", { { 2, 3 }, i64 { 0, 2 } } },
  -- indices, triangles, running sums, searching
  { "Compress", { { 3, 4 }, core.tensor({ false, true, true }) }, { axis = 0 } }, { "Compress", { { 2, 3 }, core.tensor({ true, false, false, true, true }) } },
  { "CumProd", { { 2, 4 }, i64 { 1 } } }, { "CumProd", { { 3, 2 }, i64 { 0 } }, { exclusive = 1 } }, { "CumProd", { { 2, 4 }, i64 { -1 } }, { reverse = 1 } },
  { "CumProd", { { 2, 4, 2 }, i64 { 1 } }, { exclusive = 1, reverse = 1 } },
  { "CumSum", { { 2, 4 }, i64 { 1 } } }, { "CumSum", { { 3, 2 }, i64 { 0 } }, { exclusive = 1 } }, { "CumSum", { { 2, 4, 2 }, i64 { -2 } }, { reverse = 1, exclusive = 1 } },
  { "GatherElements", { { 3, 3 }, i64 { { 1, 2, 0 }, { 2, 0, 0 } } } }, { "GatherElements", { { 2, 3 }, i64 { { 0, -1, 2, 2 }, { 1, 1, 0, 1 } } }, { axis = 1 } },
  { "GatherND", { { 2, 3, 2 }, i64 { { 0, 1 }, { 1, -1 }, { 0, 1 } } } }, { "GatherND", { { 2, 3 }, i64 { { 0, 2 }, { 1, 0 } } } },
  { "GatherND", { { 2, 3, 2 }, i64 { { 1 }, { -1 } } }, { batch_dims = 1 } },
  { "ReverseSequence", { { 3, 2, 2 }, i64 { 2, 3 } } },
  { "ScatterElements", { { 3, 3 }, i64 { { 1, 0, 2 }, { 0, 2, 1 } }, { 2, 3 } } },
  { "ScatterElements", { { 2, 4 }, i64 { { 1, 1 }, { 0, -1 } }, { 2, 2 } }, { axis = 1, reduction = "add" } },
  { "ScatterND", { { 4, 2 }, i64 { { 3 }, { 1 } }, { 2, 2 } } }, { "ScatterND", { { 3, 2 }, i64 { { 0, 1 }, { 0, 1 }, { -1, 0 } }, { 3 } }, { reduction = "add" } },
  { "TopK", { { 2, 5 }, i64 { 3 } }, nil, 2, only = 1 }, { "TopK", { { 4, 3 }, i64 { 2 } }, { axis = 0, largest = 0 } },
  { "Trilu", { { 3, 4 } } }, { "Trilu", { { 2, 3, 3 }, i64(-1) }, { upper = 0 } },
  -- reductions
  { "ReduceL1", { { 2, 3 }, i64 { 1 } } }, { "ReduceL2", { { 2, 3 }, i64 { 0 } } }, { "ReduceLogSum", { { 2, 3 }, i64 { 1 } }, positive = true },
  { "ReduceLogSumExp", { { 2, 3 }, i64 { 1 } }, { keepdims = 0 } }, { "ReduceMax", { { 2, 3 }, i64 { 1 } } },
  { "ReduceMean", { { 2, 3, 2 }, i64 { 0, 2 } } }, { "ReduceMean", { { 2, 3 } }, { keepdims = 0 } }, { "ReduceMin", { { 2, 3 }, i64 { 0 } } },
  { "ReduceProd", { { 2, 3 }, i64 { 1 } } }, { "ReduceSum", { { 2, 3 }, i64 { -1 } }, { keepdims = 0 } }, { "ReduceSumSquare", { { 2, 3 } } },
  -- products
  { "Gemm", { { 2, 3 }, { 3, 4 }, { 4 } } }, { "Gemm", { { 3, 2 }, { 4, 3 }, { 2, 1 } }, { transA = 1, transB = 1, alpha = 0.5, beta = 2 } },
  { "Gemm", { { 2, 3 }, { 4, 3 } }, { transB = 1 } }, { "Gemm", { { 3, 2 }, { 3, 4 }, {} }, { transA = 1 } },
  { "MatMul", { { 2, 3 }, { 3, 4 } } }, { "MatMul", { { 2, 2, 3 }, { 3, 4 } } }, { "MatMul", { { 2, 1, 2, 3 }, { 3, 3, 2 } } },
  { "MatMul", { { 3 }, { 3, 4 } } }, { "MatMul", { { 2, 3 }, { 3 } } }, { "MatMul", { { 3 }, { 3 } } },
  -- convolution, pooling and images
  { "Conv", { { 2, 3, 5, 6 }, { 4, 3, 3, 2 }, { 4 } }, { pads = { 1, 0, 2, 1 }, strides = { 2, 1 } } },
  { "Conv", { { 1, 4, 7 }, { 6, 2, 3 }, { 6 } }, { group = 2, dilations = { 2 }, pads = { 1, 2 } } },
  { "Conv", { { 2, 3, 4, 4 }, { 3, 1, 3, 3 } }, { group = 3, auto_pad = "SAME_UPPER", strides = { 2, 2 } } },
  { "Conv", { { 2, 3, 2, 3 }, { 5, 3, 1, 1 }, { 5 } } }, { "Conv", { { 1, 2, 3, 4, 3 }, { 2, 2, 2, 2, 2 } }, { pads = { 0, 1, 0, 1, 0, 1 } } },
  { "ConvTranspose", { { 2, 3, 3, 4 }, { 3, 2, 3, 2 }, { 2 } }, { strides = { 2, 1 }, pads = { 1, 0, 0, 1 }, output_padding = { 1, 0 } } },
  { "ConvTranspose", { { 1, 4, 5 }, { 4, 1, 3 }, { 2 } }, { group = 2, dilations = { 2 } } },
  { "ConvTranspose", { { 1, 2, 3, 3 }, { 2, 2, 3, 3 } }, { strides = { 3, 2 }, output_shape = { 10, 8 } } },
  { "ConvTranspose", { { 2, 2, 3, 3 }, { 2, 3, 1, 1 } } },
  { "AveragePool", { { 1, 2, 5, 4 } }, { kernel_shape = { 3, 2 }, pads = { 1, 0, 1, 1 }, strides = { 2, 1 } } },
  { "AveragePool", { { 2, 1, 7 } }, { kernel_shape = { 3 }, pads = { 1, 1 }, count_include_pad = 1, ceil_mode = 1, strides = { 2 } } },
  { "AveragePool", { { 1, 1, 6, 6 } }, { kernel_shape = { 2, 2 }, dilations = { 2, 3 } } },
  { "MaxPool", { { 1, 2, 5, 4 } }, { kernel_shape = { 3, 2 }, pads = { 1, 0, 1, 1 }, strides = { 2, 1 } } },
  { "MaxPool", { { 2, 1, 7 } }, { kernel_shape = { 3 }, ceil_mode = 1, strides = { 2 }, dilations = { 2 } } },
  { "GlobalAveragePool", { { 2, 3, 2, 4 } } }, { "GlobalMaxPool", { { 2, 3, 2, 4 } } },
  { "Pad", { { 2, 3, 2 }, i64 { 1, 0, 2, 0, 1, -1 } } }, { "Pad", { { 2, 3 }, i64 { -1, 2 }, scalar(3), i64 { 1 } } },
  { "Resize", { { 1, 2, 3, 4 }, f64 {}, core.tensor { 1, 1, 2, 1.5 } } },
  { "Resize", { { 1, 2, 3, 4 }, f64 {}, core.tensor { 1, 1, 2, 1.5 } }, { mode = "linear" } },
  { "Resize", { { 1, 1, 4, 5 }, f64 {}, core.tensor({}), i64 { 1, 1, 7, 3 } }, { mode = "linear", coordinate_transformation_mode = "align_corners" } },
  { "Resize", { { 1, 1, 6, 5 }, f64 {}, core.tensor({}), i64 { 3, 4 } }, { mode = "cubic", axes = { 2, 3 }, antialias = 1 } },
  { "DepthToSpace", { { 1, 8, 2, 3 } }, { blocksize = 2 } }, { "DepthToSpace", { { 1, 8, 2, 1 } }, { blocksize = 2, mode = "CRD" } },
  { "SpaceToDepth", { { 2, 1, 4, 6 } }, { blocksize = 2 } },
  { "Einsum", { { 2, 3 }, { 3, 4 } }, { equation = "ij,jk->ik" } }, { "Einsum", { { 2, 2, 3 }, { 2, 4, 3 } }, { equation = "...ij,...kj->...ik" } },
  { "Einsum", { { 3 }, { 2 }, { 3, 2 } }, { equation = "a,b,ab->ba" } }, { "Einsum", { { 2, 3, 2 } }, { equation = "abc->cab" } },
  -- recurrent
  { "RNN", { { 3, 2, 4 }, { 1, 5, 4 }, { 1, 5, 5 }, { 1, 10 } }, nil, 2 },
  { "RNN", { { 3, 2, 4 }, { 2, 5, 4 }, { 2, 5, 5 }, { 2, 10 }, core.tensor({ 3, 2 }, "int32"), { 2, 2, 5 } }, { direction = "bidirectional" }, 2 },
  { "GRU", { { 3, 2, 4 }, { 1, 15, 4 }, { 1, 15, 5 }, { 1, 30 } }, nil, 2 },
  { "GRU", { { 3, 2, 4 }, { 1, 15, 4 }, { 1, 15, 5 }, { 1, 30 }, core.tensor({ 1, 3 }, "int32"), { 1, 2, 5 } }, { linear_before_reset = 1 }, 2 },
  { "GRU", { { 2, 3, 4 }, { 2, 15, 4 }, { 2, 15, 5 }, { 2, 30 } }, { direction = "bidirectional", layout = 1 }, 2 },
  { "LSTM", { { 3, 2, 4 }, { 1, 20, 4 }, { 1, 20, 5 }, { 1, 40 } }, nil, 3 },
  { "LSTM", { { 3, 2, 4 }, { 2, 20, 4 }, { 2, 20, 5 }, { 2, 40 }, core.tensor({ 3, 2 }, "int32"), { 2, 2, 5 }, { 2, 2, 5 }, { 2, 15 } },
    { direction = "bidirectional" }, 3 },
  { "LSTM", { { 2, 3, 4 }, { 1, 20, 4 }, { 1, 20, 5 } }, { direction = "reverse", layout = 1 }, 3 },
  -- transformers
  { "Attention", { { 2, 2, 3, 4 }, { 2, 2, 5, 4 }, { 2, 2, 5, 3 } } }, { "Attention", { { 1, 4, 3, 2 }, { 1, 2, 3, 2 }, { 1, 2, 3, 2 } }, { is_causal = 1, scale = 0.7 } },
  { "Attention", { { 2, 3, 4 }, { 2, 3, 4 }, { 2, 3, 4 }, core.tensor({ { true, false, true }, { false, false, false }, { true, true, true } }) },
    { q_num_heads = 2, kv_num_heads = 2, softcap = 1.5 } },
  { "ai.onnx.preview.FlexAttention", { { 1, 4, 3, 2 }, { 1, 2, 5, 2 }, { 1, 2, 5, 3 } }, { scale = 0.7 } },
  { "CausalConvWithState", { { 2, 3, 5 }, { 3, 1, 4 }, { 3 }, { 2, 3, 3 } }, { activation = "silu" }, 2 },
  { "CausalConvWithState", { { 2, 3, 2 }, { 3, 1, 4 } }, nil, 2 }, { "CausalConvWithState", { { 2, 3, 4 }, { 3, 1, 1 }, { 3 } } },
  { "RotaryEmbedding", { { 2, 2, 3, 4 }, f64 { { 1, 0.8 }, { 0.6, 0.5 }, { 0.1, 0 } }, f64 { { 0, 0.6 }, { 0.8, 0.5 }, { 0.9, 1 } }, i64 { { 0, 1, 2 }, { 2, 2, 0 } } } },
  { "RotaryEmbedding", { { 1, 2, 12 }, f64 { { { 0.8 }, { 0.1 } } }, f64 { { { 0.6 }, { 0.9 } } } }, { num_heads = 3, rotary_embedding_dim = 2, interleaved = 1 } },
  -- normalisation
  { "BatchNormalization", { { 4, 3 }, { 3 }, { 3 }, f64 { 0.1, 0.2, 0.3 }, f64 { 1, 2, 3 } }, { training_mode = 1 }, 3, only = 1 },
  { "BatchNormalization", { { 4, 3, 2 }, { 3 }, { 3 }, f64 { 0.1, 0.2, 0.3 }, f64 { 1, 2, 3 } } },
  { "LayerNormalization", { { 4, 6 }, { 6 }, { 6 } } }, { "LayerNormalization", { { 2, 3, 4 }, { 3, 4 } }, { axis = 1 } },
  { "InstanceNormalization", { { 2, 3, 2, 3 }, { 3 }, { 3 } } }, { "GroupNormalization", { { 2, 6, 3 }, { 6 }, { 6 } }, { num_groups = 3 } },
  { "GroupNormalization", { { 2, 4, 2, 2 }, { 2 }, { 2 } }, { num_groups = 2 } },
  { "RMSNormalization", { { 4, 6 }, { 6 } } }, { "RMSNormalization", { { 2, 3, 4 }, { 3, 4 } }, { axis = 1, epsilon = 0.1 } },
  -- losses
  { "SoftmaxCrossEntropyLoss", { { 3, 4 }, i64 { 0, 3, 1 } } }, { "SoftmaxCrossEntropyLoss", { { 3, 4 }, i64 { 0, 3, 1 }, f64 { 1, 2, 3, 4 } } },
  { "SoftmaxCrossEntropyLoss", { { 2, 4, 2 }, i64 { { 0, 3 }, { 1, 2 } } }, { reduction = "none" } },
  { "SoftmaxCrossEntropyLoss", { { 3, 4 }, i64 { 0, 3, 1 } }, { ignore_index = 3, reduction = "sum" } },
  { "NegativeLogLikelihoodLoss", { { 3, 4 }, i64 { 0, 3, 1 } } }, { "NegativeLogLikelihoodLoss", { { 3, 4 }, i64 { 0, 3, 1 }, f64 { 1, 2, 3, 4 } } },
  { "mlserve.SquaredError", { { 3, 2 }, f64 { { 1, 0 }, { 0, 1 }, { 1, 1 } } } }, { "mlserve.AbsoluteError", { { 3, 2 }, f64 { { 2, 2 }, { 2, 2 }, { 2, 2 } } } },
  { "mlserve.HuberLoss", { { 3, 2 }, f64 { { 2, 0 }, { 0, 2 }, { 2, 2 } } }, { delta = 0.8 } },
  { "mlserve.BinaryCrossEntropy", { { 3, 1 }, f64 { { 1 }, { 0 }, { 1 } } }, positive = true, scale = 0.8 },
  { "mlserve.SigmoidCrossEntropy", { { 3, 1 }, f64 { { 1 }, { 0 }, { 1 } } } },
  { "mlserve.SigmoidCrossEntropy", { { 3, 1 }, f64 { { 1 }, { 0 }, { 1 } }, f64 { 1, 2, 3 } } },
}

local function describe_case(case)
  local parts = {}
  for _, input in ipairs(case[2]) do
    parts[#parts + 1] = type(input) == "table" and "(" .. table.concat(input, ",") .. ")" or "constant (" .. table.concat(input:shape(), ",") .. ")"
  end
  return case[1] .. " " .. table.concat(parts, " ")
end

local function check(case)
  local graph, inputs, ids = core.graph(case[1]), {}, {}
  for i, input in ipairs(case[2]) do
    if type(input) == "table" then
      local t = values(input, case.positive, i)
      if case.scale or case.offset then
        local flat = t:reshape({ t:count() })
        for k = 1, t:count() do flat:set(k, flat:get(k) * (case.scale or 1) + (case.offset or 0)) end
      end
      inputs[#inputs + 1] = t
      ids[i] = graph:input("x" .. i, "float64", input)
    else
      ids[i] = graph:initializer("c" .. i, input)
    end
  end
  local outputs = { graph:node(case[1], ids, case[3], case[4] or 1) }
  for i = 1, case.only or #outputs do graph:output(outputs[i]) end
  return core.grad_check(graph, inputs)
end

describe("gradient of", function()
  for _, case in ipairs(cases) do
    it(describe_case(case), function()
      local worst, where, elements = check(case)
      assert.is_true(elements > 0, "nothing was compared")
      assert.is_true(worst < TOLERANCE, ("error %g at %s"):format(worst, where))
    end)
  end

  it("every differentiable operator has a case", function()
    local covered, missing = {}, {}
    for _, case in ipairs(cases) do covered[case[1]] = true end
    for _, op in ipairs(core.operators()) do
      local name = (op.domain == "" and "" or op.domain .. ".") .. op.name
      if op.differentiable and not covered[name] then missing[#missing + 1] = name end
    end
    table.sort(missing)
    assert.are.equal("", table.concat(missing, " "))
  end)

  it("a value used twice is the sum of both uses", function()
    local graph = core.graph("shared")
    local x = graph:input("x", "float64", { 3 })
    graph:output((graph:node("Mul", { x, graph:node("Exp", { x }) })))
    local worst, where = core.grad_check(graph, { values({ 3 }, false, 1) })
    assert.is_true(worst < TOLERANCE, where)
  end)

  it("a chain of layers", function()
    local graph = core.graph("chain")
    local x = graph:input("x", "float64", { 4, 5 })
    local w = graph:initializer("w", values({ 5, 6 }, false, 2), true)
    local b = graph:initializer("b", values({ 6 }, false, 3), true)
    local h = graph:node("Tanh", { graph:node("Gemm", { x, w, b }) })
    graph:output((graph:node("Softmax", { h })))
    local worst, where, elements = core.grad_check(graph, { values({ 4, 5 }, false, 1) })
    assert.are.equal(20 + 30 + 6, elements)
    assert.is_true(worst < TOLERANCE, where)
  end)
end)

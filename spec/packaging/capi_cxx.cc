// mlserve.h in C++11, built and run by capi.sh: predicts the row that is given as arguments. No C idiom that C++ refuses may be needed.
#include <mlserve.h>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

namespace {
struct Free {
  void operator()(mlserve_model *model) const { mlserve_model_free(model); }
  void operator()(mlserve_value *value) const { mlserve_value_free(value); }
};
using Model = std::unique_ptr<mlserve_model, Free>;
using Value = std::unique_ptr<mlserve_value, Free>;

void must(mlserve_status status, const std::string &message) {
  if (status == MLSERVE_OK) return;
  std::fprintf(stderr, "%s: %s\n", mlserve_status_name(status), message.c_str());
  std::exit(1);
}
}  // namespace

int main(int argc, char **argv) {
  if (argc < 3) return 2;
  std::vector<float> row;
  for (int i = 2; i < argc; i++) row.push_back(std::strtof(argv[i], nullptr));
  char message[MLSERVE_MESSAGE_MAX] = "";
  mlserve_options options = MLSERVE_OPTIONS_INIT;
  options.level = MLSERVE_LEVEL_EXACT;
  mlserve_model *loaded;
  must(mlserve_load(argv[1], &options, &loaded, message, sizeof message), message);
  const Model model(loaded);
  const int64_t dims[] = {1, static_cast<int64_t>(row.size())};
  const char *in_names[] = {mlserve_info_name(mlserve_input(model.get(), 0))};
  const char *out_names[] = {mlserve_info_name(mlserve_output(model.get(), 0))};
  mlserve_value *in, *out = nullptr;
  must(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, row.data(), row.size() * sizeof(float), &in, message, sizeof message), message);
  const Value input(in);
  must(mlserve_run(model.get(), in_names, &in, 1, out_names, &out, 1, message, sizeof message), message);
  const Value output(out);
  const float *scores = static_cast<const float *>(mlserve_value_data(out));
  for (size_t i = 0; i < mlserve_value_count(out); i++) std::printf("%.6f\n", static_cast<double>(scores[i]));
  return mlserve_abi_version() == MLSERVE_ABI_VERSION ? 0 : 1;
}

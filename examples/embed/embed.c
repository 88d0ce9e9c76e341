/* Predicts rows of numbers from C: loads a model, says what goes in and comes out, then reads rows from standard input.
 *   cc embed.c -o embed $(pkg-config --cflags --libs mlserve)
 *   tail -n 5 ../data/breast_cancer.csv | cut -d, -f1-30 | ./embed models/cancer/1/model.onnx */
#include <mlserve.h>
#include <stdio.h>
#include <stdlib.h>

static char message[MLSERVE_MESSAGE_MAX];

static void must(mlserve_status status) {
  if (status == MLSERVE_OK) return;
  fprintf(stderr, "%s: %s\n", mlserve_status_name(status), message);
  exit(1);
}

static void print(const char *what, const mlserve_info *info) {
  printf("%s %s: %s (", what, mlserve_info_name(info), mlserve_dtype_name(mlserve_info_dtype(info)));
  for (int32_t d = 0; d < mlserve_info_rank(info); d++) printf("%s%lld", d ? ", " : "", (long long)mlserve_info_dim(info, d));
  printf(")\n");
}

int main(int argc, char **argv) {
  mlserve_model *model;
  mlserve_value *in, *out = NULL; /* the first run makes `out`, later ones write into it */
  float row[1024];
  must(argc == 2 ? mlserve_load(argv[1], NULL, &model, message, sizeof message) : MLSERVE_INVALID_ARGUMENT);
  for (size_t i = 0; i < mlserve_inputs(model); i++) print("input", mlserve_input(model, i));
  for (size_t i = 0; i < mlserve_outputs(model); i++) print("output", mlserve_output(model, i));

  int64_t width = mlserve_info_dim(mlserve_input(model, 0), 1), dims[2] = {1, width}, n = 0;
  must(mlserve_value_wrap(MLSERVE_FLOAT32, dims, 2, row, sizeof row, &in, message, sizeof message));
  while (scanf("%f%*[,\n]", &row[n]) == 1) {
    if (++n < width) continue;
    n = 0;
    must(mlserve_run(model, NULL, &in, 1, NULL, &out, 1, message, sizeof message));
    for (size_t i = 0; i < mlserve_value_count(out); i++) printf("%s%.6f", i ? " " : "", ((float *)mlserve_value_data(out))[i]);
    printf("\n");
  }
  mlserve_value_free(in);
  mlserve_value_free(out);
  mlserve_model_free(model);
  return 0;
}

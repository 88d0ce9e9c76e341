/* One output of an answer.
 * Lives here: what a protocol of tensors says of an output that is none: sequences and maps become strings of JSON. May include: tensor, codec, base.
 * Ownership: an answer borrows the output's view; ml_answer_clear drops the strings that were made. */
#ifndef ML_SERVE_ANSWER_H
#define ML_SERVE_ANSWER_H
#include "serve/json_tensor.h"

typedef struct ml_answer {
  const char *name;
  ml_view view;        /* a tensor */
  size_t bytes, whole; /* for the codec: sizes of its elements and of all of it */
  ml_str *strings;     /* made here */
  ml_json_writer text; /* what they point into */
} ml_answer;

/* Fills a zeroed answer from an output: a tensor as it is, a sequence as one JSON text for each of its items, any other container as one. */
ml_status ml_answer_set(ml_answer *answer, const char *name, const ml_view *output, ml_error *err);
void ml_answer_clear(ml_answer *answer); /* zeroed again */

/* Strings that are made one by one: room for n; then each is written to answer->text and ended; then all get their places. */
ml_status ml_answer_strings(ml_answer *answer, size_t n, ml_error *err);
void ml_answer_end_string(ml_answer *answer, size_t i);
ml_status ml_answer_place(ml_answer *answer, ml_error *err);

#endif

/* Regular expressions: whole matches and searches in time proportional to the text.
 * Lives here: patterns made into automata, and one walk through UTF-8. May include: tensor, base. Ownership: the caller frees a
 * pattern; strings belong to the caller. Thread-safety: a pattern is never changed after it was made; each thread has a room of
 * its own. */
#ifndef ML_OPS_REGEX_H
#define ML_OPS_REGEX_H
#include <stdbool.h>
#include "base/status.h"
#include "tensor/tensor.h"

typedef struct ml__regex ml__regex;

/* what: the attribute that holds the pattern, for messages */
ml_status ml__regex_new(ml_str pattern, const char *what, ml__regex **out, ml_error *err);
void ml__regex_free(ml__regex *m); /* NULL allowed */
/* Bytes of room that the functions below need: aligned for size_t, zero before the first use. */
size_t ml__regex_room(const ml__regex *m);
/* Does the whole of s match? */
bool ml__regex_matches(const ml__regex *m, ml_str s, void *room);
/* The leftmost match from `start` <= s.length on, and of those the longest: s[*begin … *end-1], perhaps empty. ^ and \b see all
 * of s. */
bool ml__regex_find(const ml__regex *m, ml_str s, size_t start, size_t *begin, size_t *end, void *room);

/* One character of a text; *at < length moves behind it. U+FFFD and one byte where it is no UTF-8. */
uint32_t ml__utf8_next(const char *s, size_t length, size_t *at);

#endif

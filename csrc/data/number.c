/* A CSV cell as a number: the loose decimal grammar (+1, .5, 5., 007), surrounding spaces, and infinities as most tools spell
 * them. */
#include <math.h>
#include <string.h>
#include "codec/decimal.h"
#include "data/table.h"

static bool is_space(char c) { return c == ' ' || c == '\t'; }

static bool is_word(const char *at, size_t length, const char *word) {
  if (strlen(word) != length) return false;
  for (size_t i = 0; i < length; ++i)
    if ((at[i] | 32) != word[i]) return false;
  return true;
}

bool ml_parse_number(const char *text, size_t length, double *out) {
  const char *at = text, *end = text + length;
  ml_decimal decimal;
  while (at < end && is_space(*at)) ++at;
  while (at < end && is_space(end[-1])) --end;
  if (at == end) return false;
  if (ml_decimal_scan(at, end, ML_DECIMAL_LOOSE, &decimal) == end) return ml_decimal_to_double(&decimal, out);
  bool negative = *at == '-';
  if (*at == '-' || *at == '+') ++at;
  if (!is_word(at, (size_t)(end - at), "inf") && !is_word(at, (size_t)(end - at), "infinity")) return false;
  *out = negative ? -(double)INFINITY : (double)INFINITY;
  return true;
}

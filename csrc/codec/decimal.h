/* Decimal text to binary floating point and back, exactly.
 * Lives here: scanning a number, rounding it once to float or double, printing the shortest text that reads back the same. For
 * JSON and CSV; no locale, no errno. May include: libc. Allocates nothing; thread-safe; needs the default rounding mode (to
 * nearest). */
#ifndef ML_CODEC_DECIMAL_H
#define ML_CODEC_DECIMAL_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A scanned number: mantissa * 10^exponent, or, when `truncated` (over 19 significant digits), at least that and less than
 * (mantissa + 1) * 10^exponent. */
typedef struct ml_decimal {
  uint64_t mantissa;
  int64_t exponent;
  const char *digits; /* where the digits begin; borrowed, read again when the first 19 do not decide */
  const char *stop;   /* one past digits and fraction; after a failed scan the offending place */
  bool negative, truncated;
  bool integral; /* neither fraction nor exponent in the text */
} ml_decimal;

/* JSON: RFC 8259. LOOSE also takes a leading '+', leading zeros and a dot with digits on one side only (".5", "5."). */
typedef enum ml_decimal_grammar { ML_DECIMAL_JSON, ML_DECIMAL_LOOSE } ml_decimal_grammar;

/* Scans the number at `at`, reading nothing at or after `end`; returns one past its last character, NULL when there is none. */
static inline const char *ml_decimal_scan(const char *at, const char *end, ml_decimal_grammar grammar, ml_decimal *out);

/* Correctly rounded (to nearest, ties to even) whatever the digits; false when too large: *out is then infinite. */
static inline bool ml_decimal_to_float(const ml_decimal *number, float *out);
static inline bool ml_decimal_to_double(const ml_decimal *number, double *out);
/* |number| as an integer: false unless integral and below 2^64. */
bool ml_decimal_to_uint64(const ml_decimal *number, uint64_t *out);

#define ML_DECIMAL_MAX 32 /* room that printing may use */
/* Shortest decimal that reads back to the same finite value and, of those, the closest; always has '.' or 'e': "1.0", "-0.25",
 * "1e-7". Returns its length; no NUL is written. */
size_t ml_decimal_print_float(float value, char out[ML_DECIMAL_MAX]);
size_t ml_decimal_print_double(double value, char out[ML_DECIMAL_MAX]);
size_t ml_decimal_print_int64(int64_t value, char out[ML_DECIMAL_MAX]);
size_t ml_decimal_print_uint64(uint64_t value, char out[ML_DECIMAL_MAX]);

/* ---- inline parts ---- */

bool ml__decimal_to_float_slow(const ml_decimal *number, float *out);
bool ml__decimal_to_double_slow(const ml_decimal *number, double *out);
void ml__decimal_truncate(ml_decimal *number);

extern const double ml__exact_powers[23]; /* 10^0 to 10^22, the powers of ten that a double holds exactly */

static inline bool ml__is_digit(char c) { return (unsigned char)(c - '0') < 10; }

/* Value of eight digits (0 to 9, one a byte, first digit in the lowest byte): neighbours are paired three times, the last two at
 * once. */
static inline uint64_t ml__eight_digits(uint64_t v) {
  v = v * 10 + (v >> 8);
  return ((v & 0x000000ff000000ffu) * 0x000f424000000064u + (v >> 16 & 0x000000ff000000ffu) * 0x0000271000000001u) >> 32;
}

/* Appends the digits at p to *mantissa (modulo 2^64) and returns where they end. */
static inline const char *ml__scan_digits(const char *p, const char *end, uint64_t *mantissa) {
  static const uint64_t power[8] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000};
  uint64_t m = *mantissa;
  while (end - p >= 8) {
    uint64_t v;
    memcpy(&v, p, sizeof v);
    v ^= 0x3030303030303030u;
    /* Bit 7 of each byte that is no digit; a carry out of one can only reach bytes after it. */
    uint64_t other = ((v + 0x7676767676767676u) | v) & 0x8080808080808080u;
    if (other != 0) {
      unsigned count = (unsigned)__builtin_ctzll(other) >> 3;
      if (count > 0) m = m * power[count] + ml__eight_digits(v << (64 - 8 * count)); /* zeros in front */
      *mantissa = m;
      return p + count;
    }
    m = m * 100000000u + ml__eight_digits(v);
    p += 8;
  }
  for (; p < end && ml__is_digit(*p); ++p) m = m * 10 + (uint64_t)(*p - '0');
  *mantissa = m;
  return p;
}

static inline const char *ml_decimal_scan(const char *at, const char *end, ml_decimal_grammar grammar, ml_decimal *out) {
  const char *p = at;
  uint64_t mantissa = 0;
  int64_t exponent = 0;
  out->negative = p < end && *p == '-';
  p += out->negative || (grammar == ML_DECIMAL_LOOSE && p < end && *p == '+');
  out->digits = p;
  if (p < end && ml__is_digit(*p)) {
    mantissa = (uint64_t)(*p++ - '0');
    if (p < end && ml__is_digit(*p)) {
      if (mantissa == 0 && grammar == ML_DECIMAL_JSON) goto fail;
      p = ml__scan_digits(p, end, &mantissa);
    }
  } else if (grammar == ML_DECIMAL_JSON || !(end - p >= 2 && *p == '.' && ml__is_digit(p[1]))) {
    goto fail;
  }
  ptrdiff_t digits = p - out->digits;
  bool integral = true;
  if (p < end && *p == '.') {
    const char *fraction = ++p;
    integral = false;
    p = ml__scan_digits(p, end, &mantissa);
    if (p == fraction && grammar == ML_DECIMAL_JSON) goto fail;
    exponent = fraction - p;
    digits += p - fraction;
  }
  out->stop = p;
  if (p < end && (*p | 0x20) == 'e') {
    bool minus = false;
    integral = false;
    if (++p < end && (*p == '-' || *p == '+')) minus = *p++ == '-';
    if (p == end || !ml__is_digit(*p)) goto fail;
    int64_t written = 0;
    for (; p < end && ml__is_digit(*p); ++p)
      if (written < INT64_MAX / 100) written = written * 10 + (*p - '0'); /* stays far above any length of text */
    exponent += minus ? -written : written;
  }
  out->mantissa = mantissa;
  out->exponent = exponent;
  out->integral = integral;
  out->truncated = false;
  if (digits > 19) ml__decimal_truncate(out);
  return p;
fail:
  out->stop = p;
  return NULL;
}

/* Both operands exact, so the one operation rounds correctly (Clinger, "How to Read Floating Point Numbers Accurately", 1990). */
static inline bool ml__decimal_exact(const ml_decimal *number, double *out) {
  if (number->mantissa > UINT64_C(1) << 53 || (uint64_t)number->exponent + 22 > 44 || number->truncated) return false;
  double value = (double)(int64_t)number->mantissa;
  if (number->exponent < 0) value /= ml__exact_powers[-number->exponent];
  else value *= ml__exact_powers[number->exponent];
  *out = number->negative ? -value : value;
  return true;
}

/* Rounding that double again is the same as rounding the number itself unless the double lies half-way between two floats (the
 * number may lie beside it): the first rounding is monotonic, so otherwise both are on the same side. Values here are zero or
 * within 1e-22 to 1e38, where floats are normal and finite: half-way is one pattern of the 29 bits that go. */
static inline bool ml__decimal_exact_float(const ml_decimal *number, float *out) {
  double value;
  uint64_t bits;
  if (!ml__decimal_exact(number, &value)) return false;
  memcpy(&bits, &value, sizeof bits);
  if ((bits & 0x1fffffff) == 0x10000000) return false;
  *out = (float)value;
  return true;
}

static inline bool ml_decimal_to_double(const ml_decimal *number, double *out) {
  return ml__decimal_exact(number, out) || ml__decimal_to_double_slow(number, out);
}

static inline bool ml_decimal_to_float(const ml_decimal *number, float *out) {
  return ml__decimal_exact_float(number, out) || ml__decimal_to_float_slow(number, out);
}

#endif

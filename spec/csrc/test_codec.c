/* Codec: bounds, grammar, exactness, allocation failure.
 * Authorities: strtof and strtod for reading numbers, snprintf for the fewest digits, RFC 8259 (grammar), RFC 4648 section 10,
 * RFC 3720 appendix B.4, the encoding page of the protobuf documentation, and Unicode's table 3-7. Every text is put against an
 * unreadable page, so that reading one byte too far ends the test. Usage: test_codec [SCALE], the factor for the number of random
 * cases. */
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/alloc.h"
#include "codec/base64.h"
#include "codec/crc32c.h"
#include "codec/decimal.h"
#include "codec/decimal_powers.h"
#include "codec/json.h"
#include "codec/protobuf.h"
#include "codec/utf8.h"
#include "tap.h"

static unsigned long scale = 1;

static uint64_t random_state = 0x9e3779b97f4a7c15u;
static uint64_t random64(void) { /* xorshift64* */
  random_state ^= random_state >> 12;
  random_state ^= random_state << 25;
  random_state ^= random_state >> 27;
  return random_state * 0x2545f4914f6cdd1du;
}
static unsigned random_below(unsigned n) { return (unsigned)(random64() >> 33) % n; }

/* ---- texts that end where memory does ---- */

#define GUARDED (1u << 20)
static char *guard_end;

static void guard_init(void) {
  size_t page = (size_t)sysconf(_SC_PAGESIZE);
  char *base = mmap(NULL, GUARDED + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (base == MAP_FAILED || mprotect(base + GUARDED, page, PROT_NONE) != 0) exit(EXIT_FAILURE);
  guard_end = base + GUARDED;
}
static char *guarded(const void *text, size_t length) {
  return length == 0 ? guard_end : memmove(guard_end - length, text, length);
}

/* ---- decimal ---- */

typedef struct natural { int used; uint32_t limb[64]; } natural; /* up to 2048 bits, as slow and plain as can be */

static void natural_times(natural *a, uint32_t factor) {
  uint64_t carry = 0;
  for (int i = 0; i < a->used; ++i) {
    carry += (uint64_t)a->limb[i] * factor;
    a->limb[i] = (uint32_t)carry;
    carry >>= 32;
  }
  if (carry != 0) a->limb[a->used++] = (uint32_t)carry;
}
static int natural_bits(const natural *a) { return a->used * 32 - __builtin_clz(a->limb[a->used - 1]); }
static unsigned natural_bit(const natural *a, int i) { return i < 0 ? 0 : a->limb[i / 32] >> (i % 32) & 1; }
static bool natural_subtract_if_less(natural *a, const natural *b) { /* a -= b when a >= b */
  uint32_t difference[64];
  uint64_t borrow = 0;
  for (int i = 0; i < 64; ++i) {
    uint64_t x = i < a->used ? a->limb[i] : 0, y = i < b->used ? b->limb[i] : 0, d = x - y - borrow;
    difference[i] = (uint32_t)d;
    borrow = d >> 63;
  }
  if (borrow != 0) return false;
  memcpy(a->limb, difference, sizeof difference);
  for (a->used = 64; a->used > 0 && a->limb[a->used - 1] == 0;) --a->used;
  return true;
}

static void test_powers(void) {
  int wrong = 0;
  for (int q = ML__POWER_MIN; q <= ML__POWER_MAX; ++q) {
    natural power = {.used = 1, .limb = {1}};
    uint64_t high = 0, low = 0;
    for (int i = 0; i < abs(q); ++i) natural_times(&power, 10);
    int bits = natural_bits(&power);
    if (q < 0) { /* 128 steps of long division of 2^(bits + 127) */
      natural rest = {.used = (bits - 1) / 32 + 1};
      rest.limb[(bits - 1) / 32] = 1u << ((bits - 1) % 32);
      for (int i = 0; i < 128; ++i) {
        natural_times(&rest, 2);
        high = high << 1 | low >> 63;
        low = low << 1 | natural_subtract_if_less(&rest, &power);
      }
    } else {
      for (int i = 0; i < 128; ++i) {
        high = high << 1 | low >> 63;
        low = low << 1 | natural_bit(&power, bits - 1 - i);
      }
    }
    wrong += ml__powers[q - ML__POWER_MIN][0] != high || ml__powers[q - ML__POWER_MIN][1] != low;
  }
  ok(wrong == 0, "table of powers of ten: %d rows wrong", wrong);
}

static unsigned long number_cases, number_wrong;

/* text is NUL-terminated and JSON */
static void check_number(const char *text) {
  size_t length = strlen(text);
  const char *at = guarded(text, length);
  ml_decimal number;
  float f = -1, expected_f = strtof(text, NULL);
  double d = -1, expected_d = strtod(text, NULL);
  const char *past = ml_decimal_scan(at, at + length, ML_DECIMAL_JSON, &number);
  bool right = past == at + length;
  if (right) {
    bool fits_d = ml_decimal_to_double(&number, &d), fits_f = ml_decimal_to_float(&number, &f);
    right = memcmp(&d, &expected_d, sizeof d) == 0 && memcmp(&f, &expected_f, sizeof f) == 0 &&
            fits_d == (bool)isfinite(expected_d) && fits_f == (bool)isfinite(expected_f);
  }
  ++number_cases;
  if (!right && number_wrong++ < 20) printf("# %s: %a %a, expected %a %a\n", text, d, (double)f, expected_d, (double)expected_f);
}

static void check_neighbourhood(char *text) { /* of a text like "d.ddd…e±x": one digit more or less at the end */
  char copy[1400];
  check_number(text);
  char *e = strchr(text, 'e');
  size_t head = (size_t)(e - text);
  const char *const tails[] = {"1", "0000000000000000000000000000001", "000000000", "9"};
  for (size_t i = 0; i < sizeof tails / sizeof tails[0]; ++i) {
    memcpy(copy, text, head);
    snprintf(copy + head, sizeof copy - head, "%s%s", tails[i], e);
    check_number(copy);
  }
  if (text[head - 1] > '0') { /* just below */
    memcpy(copy, text, head);
    --copy[head - 1];
    snprintf(copy + head, sizeof copy - head, "99999999999999999999999%s", e);
    check_number(copy);
  }
}

/* All digits of value, without the zeros at the end. */
static void exact_text(long double value, char *text, size_t size) {
  snprintf(text, size, "%.1080Le", value);
  char *e = strchr(text, 'e'), *last = e;
  while (last[-1] == '0' && last[-2] != '.') --last;
  memmove(last, e, strlen(e) + 1);
}

static void test_reading_numbers(void) {
  static const char *const chosen[] = {
      "0", "-0", "0.0", "-0.0e5", "1", "-1", "0.1", "0.5", "0.50000000000000000", "0.500000000000000000000000000", "16777217",
      "16777219", "9007199254740993", "9007199254740992.5", "9007199254740993.0000000000000000000000000001",
      "18446744073709551615", "18446744073709551616", "1e22", "1e23", "1e-22", "123456789012345678901234567890", "1e308",
      "1.7976931348623157e308", "1.7976931348623158e308", "1.797693134862315807e308", "1.7976931348623159e308", "1e309", "1e999",
      "-1e999", "1e-999", "-1e-999", "0e999", "0e99999999999999999999999", "1e99999999999999999999999",
      "1e-99999999999999999999999", "4.9406564584124654e-324", "2.4703282292062327e-324", "2.4703282292062328e-324",
      "2.2250738585072011e-308", "2.2250738585072012e-308", "2.2250738585072014e-308", "3.4028234663852886e38",
      "3.4028235677973366e38", "3.40282356779733661637539395458e38", "3.5e38", "1.401298464324817e-45", "7.006492321624085e-46",
      "7.006492321624086e-46", "1.1754943508222875e-38", "1.17549429e-38", "0.000000000000000000000000000000000001e36",
      "1000000000000000000000000000000000000e-36", "0.3", "0.37", "3.14159265358979323846264338327950288", "8.5e37", "1e-45",
      "1e-46", "6.0221407600000000000000e23", "100000000000000000000000000000000000000000e-60", "9223372036854775807",
      "9223372036854775808"};
  for (size_t i = 0; i < sizeof chosen / sizeof chosen[0]; ++i) check_number(chosen[i]);

  char text[1400];
  for (unsigned long i = 0; i < 600000 * scale; ++i) { /* any digits, any exponent */
    char *p = text;
    unsigned count = 1 + random_below(i % 50 == 0 ? 60 : 22), dot = random_below(count + 1);
    if (random_below(4) == 0) *p++ = '-';
    if (dot == 0) *p++ = '0';
    for (unsigned k = 0; k < count; ++k) {
      if (k == dot) *p++ = '.';
      unsigned digit = random_below(10);
      if (k == 0 && dot > 1 && digit == 0) digit = 1;
      *p++ = (char)('0' + digit);
    }
    *p = '\0';
    if (i % 3 != 0) {
      int range = i % 3 == 1 ? 80 : 700;
      snprintf(p, 16, "%s%d", random_below(2) ? "e" : "E", (int)random_below((unsigned)range) - range / 2);
    }
    check_number(text);
  }
  for (unsigned long i = 0; i < 60000 * scale; ++i) { /* printed doubles and floats */
    uint64_t bits = random64();
    double d;
    float f;
    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &bits, sizeof f);
    if (isfinite(d)) {
      snprintf(text, sizeof text, "%.*e", 13 + (int)random_below(8), d);
      check_number(text);
    }
    if (isfinite(f)) {
      snprintf(text, sizeof text, "%.*e", 6 + (int)random_below(14), (double)f);
      check_number(text);
    }
    snprintf(text, sizeof text, "%.*f", (int)random_below(22), (double)(random64() >> 11) * 0x1p-53);
    check_number(text);
  }
  for (unsigned long i = 0; i < 2000 * scale; ++i) { /* half-way between neighbours, and beside that */
    uint64_t bits = random64();
    double d, next_d;
    float f, next_f;
    if (i % 4 == 0) bits &= UINT64_C(0x800fffff807fffff); /* subnormal */
    memcpy(&d, &bits, sizeof d);
    memcpy(&f, &bits, sizeof f);
    next_d = nextafter(d, INFINITY);
    next_f = nextafterf(f, INFINITY);
    if (isfinite(d) && isfinite(next_d)) {
      exact_text((long double)d / 2 + (long double)next_d / 2, text, sizeof text);
      check_neighbourhood(text);
      exact_text(d, text, sizeof text);
      check_neighbourhood(text);
    }
    if (isfinite(f) && isfinite(next_f)) {
      exact_text(((long double)f + (long double)next_f) / 2, text, sizeof text);
      check_neighbourhood(text);
    }
    /* the same with few digits: odd multiples of half a unit above 2^24 and 2^53, dyadic fractions padded with zeros */
    snprintf(text, sizeof text, "%llu", (unsigned long long)((random64() >> 39 | 1u << 24) * 2 + 1) << random_below(10));
    check_number(text);
    snprintf(text, sizeof text, "%.*f", 10 + (int)random_below(20), (double)random_below(1u << 20) / 1024);
    check_number(text);
    snprintf(text, sizeof text, "%llu.5", (unsigned long long)(random64() >> 12 | UINT64_C(1) << 52));
    check_number(text);
  }
  { /* more digits than anything looks at */
    enum { LONG = 100000 };
    char *long_text = malloc(LONG + 32);
    if (long_text != NULL) {
      memset(long_text, '3', LONG);
      long_text[1] = '.';
      long_text[LONG] = '\0';
      check_number(long_text);
      memset(long_text, '0', LONG);
      long_text[0] = '0', long_text[1] = '.';
      strcpy(long_text + LONG, "17e100000");
      check_number(long_text); /* 1.7e… back from a hundred thousand zeros */
      memset(long_text, '9', LONG);
      strcpy(long_text + LONG, "e-99990");
      check_number(long_text);
      free(long_text);
    }
  }
  ok(number_wrong == 0, "%lu of %lu numbers differ from strtod or strtof", number_wrong, number_cases);

  static const struct { const char *text; bool json, loose; double value;
  } grammar[] = {{"+1", false, true, 1},   {".5", false, true, 0.5}, {"-.5", false, true, -0.5},
                 {"5.", false, true, 5},   {"007", false, true, 7},  {"5.e1", false, true, 50},
                 {".", false, false, 0},   {"+", false, false, 0},   {"-", false, false, 0},
                 {"", false, false, 0},    {"e5", false, false, 0},  {"1e", false, false, 0},
                 {"1e+", false, false, 0}, {"--1", false, false, 0}, {"00000000000000000000000000012", false, true, 12},
                 {"1.5", true, true, 1.5}};
  for (size_t i = 0; i < sizeof grammar / sizeof grammar[0]; ++i) {
    size_t length = strlen(grammar[i].text);
    const char *at = guarded(grammar[i].text, length);
    ml_decimal number;
    double value = 0;
    ok((ml_decimal_scan(at, at + length, ML_DECIMAL_JSON, &number) == at + length) == grammar[i].json, "JSON grammar: %s",
       grammar[i].text);
    bool taken = ml_decimal_scan(at, at + length, ML_DECIMAL_LOOSE, &number) == at + length;
    ok(taken == grammar[i].loose && (!taken || (ml_decimal_to_double(&number, &value) && value == grammar[i].value)),
       "loose grammar: %s", grammar[i].text);
  }
}

static unsigned long print_cases, print_wrong;

static size_t significant_digits(const char *text, size_t length) {
  size_t count = 0, zeros = 0;
  for (size_t i = 0; i < length && (text[i] | 0x20) != 'e'; ++i) {
    if (text[i] < '0' || text[i] > '9' || (count == 0 && text[i] == '0')) continue;
    ++count;
    zeros = text[i] == '0' ? zeros + 1 : 0;
  }
  return count - zeros;
}

static void check_print(double value, bool is_float, bool thorough) {
  char text[ML_DECIMAL_MAX + 1], other[64];
  size_t length = is_float ? ml_decimal_print_float((float)value, text) : ml_decimal_print_double(value, text);
  ml_decimal number;
  float f = 0;
  double d = 0;
  text[length] = '\0';
  bool right = length <= ML_DECIMAL_MAX && ml_decimal_scan(text, text + length, ML_DECIMAL_JSON, &number) == text + length &&
               !number.integral;
  if (right && is_float) right = ml_decimal_to_float(&number, &f) && f == (float)value && !signbit(f) == !signbit(value);
  if (right && !is_float) right = ml_decimal_to_double(&number, &d) && d == value && !signbit(d) == !signbit(value);
  if (right && thorough && value != 0) {
    size_t digits = significant_digits(text, length);
    right = is_float ? strtof(text, NULL) == (float)value : strtod(text, NULL) == value;
    if (digits > 1) { /* one digit less must not do */
      snprintf(other, sizeof other, "%.*e", (int)digits - 2, value);
      right = right && (is_float ? strtof(other, NULL) != (float)value : strtod(other, NULL) != value);
    }
    /* of those with as many digits, the closest; unless that one does not read back, as may happen at powers of two */
    snprintf(other, sizeof other, "%.*e", (int)digits - 1, value);
    if (is_float ? strtof(other, NULL) == (float)value : strtod(other, NULL) == value)
      right = right && strtod(other, NULL) == strtod(text, NULL);
  }
  ++print_cases;
  if (!right && print_wrong++ < 20) printf("# printed %s for %.17g (%s)\n", text, value, is_float ? "float" : "double");
}

static void test_printing_numbers(void) {
  for (int field = 0; field < 255; ++field) /* every exponent of float, at its ends and inside */
    for (int i = 0; i < 24; ++i) {
      uint32_t mantissa = i < 4 ? (uint32_t)i : i < 8 ? 0x7fffffu - (uint32_t)(i - 4) : (uint32_t)random64() & 0x7fffff;
      uint32_t bits = (uint32_t)field << 23 | mantissa | (uint32_t)(i & 1) << 31;
      float value;
      memcpy(&value, &bits, sizeof value);
      check_print((double)value, true, true);
    }
  for (int field = 0; field < 2047; ++field)
    for (int i = 0; i < 12; ++i) {
      uint64_t mantissa = i < 3 ? (uint64_t)i : i < 6 ? UINT64_C(0xfffffffffffff) - (uint64_t)(i - 3) : random64() >> 12;
      uint64_t bits = (uint64_t)field << 52 | mantissa | (uint64_t)(i & 1) << 63;
      double value;
      memcpy(&value, &bits, sizeof value);
      check_print(value, false, true);
    }
  uint32_t stride = (uint32_t)(UINT64_C(0x100000000) / (2000000 * scale)) | 1;
  for (uint64_t bits = random_below(stride); bits < UINT64_C(0x100000000); bits += stride) {
    uint32_t low = (uint32_t)bits;
    float value;
    memcpy(&value, &low, sizeof value);
    if (isfinite(value)) check_print((double)value, true, bits % 64 == 0);
  }
  for (unsigned long i = 0; i < 200000 * scale; ++i) {
    uint64_t bits = random64();
    double value;
    memcpy(&value, &bits, sizeof value);
    if (isfinite(value)) check_print(value, false, i % 8 == 0);
    check_print((double)(random64() % 2000000) / 1000, false, i % 8 == 0);
    check_print((double)(int64_t)(random64() >> random_below(64)), false, i % 8 == 0);
  }
  ok(print_wrong == 0, "%lu of %lu numbers printed wrongly", print_wrong, print_cases);

  static const struct { double value; const char *as_float, *as_double;
  } table[] = {
      {0.0, "0.0", "0.0"}, {-0.0, "-0.0", "-0.0"}, {1, "1.0", "1.0"}, {-1, "-1.0", "-1.0"}, {0.1, "0.1", "0.1"},
      {100, "100.0", "100.0"}, {9e6, "9000000.0", "9000000.0"}, {1e20, "100000000000000000000.0", "100000000000000000000.0"},
      {1e21, "1e21", "1e21"}, {1e-5, "0.00001", "0.00001"}, {1e-6, "1e-6", "1e-6"}, {1.5e-7, "1.5e-7", "1.5e-7"},
      {-2.5e30, "-2.5e30", "-2.5e30"}, {16777216, "16777216.0", "16777216.0"},
      {0.3333333333333333, "0.33333334", "0.3333333333333333"}, {123456.789, "123456.79", "123456.789"},
      {5e-324, "0.0", "5e-324"}, {1.401298464324817e-45, "1e-45", "1.401298464324817e-45"},
      {FLT_MAX, "3.4028235e38", "3.4028234663852886e38"}};
  char text[ML_DECIMAL_MAX];
  for (size_t i = 0; i < sizeof table / sizeof table[0]; ++i) {
    size_t length = ml_decimal_print_float((float)table[i].value, text);
    ok(length == strlen(table[i].as_float) && memcmp(text, table[i].as_float, length) == 0, "float %s, got %.*s",
       table[i].as_float, (int)length, text);
    length = ml_decimal_print_double(table[i].value, text);
    ok(length == strlen(table[i].as_double) && memcmp(text, table[i].as_double, length) == 0, "double %s, got %.*s",
       table[i].as_double, (int)length, text);
  }
}

/* ---- JSON reader ---- */

static bool is_document(const char *text, size_t length, bool nonfinite, ml_error *err) { /* by skipping */
  ml_json_reader reader;
  ml_json_reader_init(&reader, text, length);
  reader.allow_nonfinite = nonfinite;
  return ml_json_skip(&reader, err) == ML_OK && ml_json_expect_end(&reader, err) == ML_OK;
}

static ml_status walk(ml_json_reader *reader, ml_error *err) { /* by reading every value */
  bool first = true, more;
  ml_json_kind kind = ml_json_peek(reader);
  switch (kind) {
    case ML_JSON_NULL: case ML_JSON_TRUE: case ML_JSON_FALSE: return ml_json_literal_read(reader, kind, err);
    case ML_JSON_NUMBER: {
      ml_json_number number;
      ml_json_reader copy = *reader, again = *reader;
      double d;
      float f;
      ml_status status = ml_json_number_read(&copy, &number, err);
      ok(ml_json_double_read(&again, &d, NULL) == status &&
             (status != ML_OK || (copy.at == again.at && (d == number.value || isnan(d)))),
         "double_read as number_read");
      again = *reader;
      status = ml_json_float_read(&again, &f, NULL);
      ok(again.at == copy.at || status != ML_OK, "float_read ends as number_read");
      again = *reader;
      if (ml_json_number_read(reader, &number, err) == ML_OK) return ML_OK;
      *reader = again;
      return strstr(err->message, "out of range") != NULL ? ml_json_skip(reader, err) : ML_INVALID_ARGUMENT;
    }
    case ML_JSON_STRING: {
      size_t bound, length;
      ML_TRY(ml_json_string_length(reader, &bound, err));
      char *copy = malloc(bound > 0 ? bound : 1);
      if (copy == NULL) return ML_RESOURCE_EXHAUSTED;
      ml_status status = ml_json_string_read(reader, copy, &length, err);
      if (status == ML_OK) ok(length <= bound && ml_utf8_valid(copy, length, NULL), "string within its bound and UTF-8");
      free(copy);
      return status;
    }
    case ML_JSON_ARRAY:
      ML_TRY(ml_json_enter_array(reader, err));
      for (;;) {
        ML_TRY(ml_json_array_next(reader, &first, &more, err));
        if (!more) return ML_OK;
        ML_TRY(walk(reader, err));
      }
    case ML_JSON_OBJECT:
      ML_TRY(ml_json_enter_object(reader, err));
      for (;;) {
        char scratch[256];
        const char *key;
        size_t length;
        ML_TRY(ml_json_object_next(reader, &first, &more, scratch, sizeof scratch, &key, &length, err));
        if (!more) return ML_OK;
        ML_TRY(walk(reader, err));
      }
    default: return ml_json_fail(reader, err, "no value");
  }
}

static bool walks(const char *text, size_t length, bool nonfinite, ml_error *err) {
  ml_json_reader reader;
  ml_json_reader_init(&reader, text, length);
  reader.allow_nonfinite = nonfinite;
  return walk(&reader, err) == ML_OK && ml_json_expect_end(&reader, err) == ML_OK && reader.depth == 0;
}

static void check_document(const char *text, size_t length, bool valid, bool nonfinite) {
  ml_error err = {0};
  const char *at = guarded(text, length);
  ok(is_document(at, length, nonfinite, &err) == valid, "%s by skipping: %.*s (%s)", valid ? "accepted" : "refused",
     (int)(length < 60 ? length : 60), text, err.message);
  if (!valid) ok(err.code == ML_INVALID_ARGUMENT && strstr(err.message, " at line ") != NULL, "place in \"%s\"", err.message);
  ok(walks(at, length, nonfinite, &err) == valid, "%s by reading: %.*s (%s)", valid ? "accepted" : "refused",
     (int)(length < 60 ? length : 60), text, err.message);
}

#define LITERAL(text) {text, sizeof(text) - 1}
typedef struct span { const char *text; size_t length; } span;

static const span accepted[] = {
    LITERAL("null"), LITERAL("true"), LITERAL("false"), LITERAL("0"), LITERAL("-0"), LITERAL("-0.0"), LITERAL("1"),
    LITERAL("42 "), LITERAL(" 42"), LITERAL("\t\n\r 42\t\n\r "), LITERAL("-1"), LITERAL("10"), LITERAL("1.5"), LITERAL("0.5"),
    LITERAL("-0.5"), LITERAL("1e5"), LITERAL("1E5"), LITERAL("1e+5"), LITERAL("1e-5"), LITERAL("1E+05"), LITERAL("0e0"),
    LITERAL("0e+1"), LITERAL("0.0e-0"), LITERAL("1.25e10"), LITERAL("123456789012345678901234567890"), LITERAL("1e-999"),
    LITERAL("0.000000000000000000000000000000000001"), LITERAL("1e999"), LITERAL("\"\""), LITERAL("\"a\""), LITERAL("\"\\\"\""),
    LITERAL("\"\\\\\""), LITERAL("\"\\/\""), LITERAL("\"\\b\\f\\n\\r\\t\""), LITERAL("\"\\u0041\""), LITERAL("\"\\u00e9\""),
    LITERAL("\"\\u20AC\""), LITERAL("\"\\uD83D\\uDE00\""), LITERAL("\"\\u0000\""), LITERAL("\"\\uFFFF\""),
    LITERAL("\"\\udbff\\udfff\""), LITERAL("\"\x7f\""), LITERAL("\"\xc3\xa9\""), LITERAL("\"\xe2\x82\xac\""),
    LITERAL("\"\xf0\x9f\x98\x80\""), LITERAL("\"\xf4\x8f\xbf\xbf\""), LITERAL("\"\xef\xbf\xbf\""), LITERAL("\"\xe2\x80\xa8\""),
    LITERAL("\"// not a comment\""), LITERAL("\"a\\\\\\\"b\""), LITERAL("\"0123456789abcdef0123456789abcdef\""),
    LITERAL("\"[{]},:\""), LITERAL("[]"), LITERAL("[ ]"), LITERAL("[\n]"), LITERAL("[1]"), LITERAL("[1,2]"),
    LITERAL("[ 1 , 2 ]"), LITERAL("[[]]"), LITERAL("[[],[]]"), LITERAL("[[[[[]]]]]"), LITERAL("[null,true,false]"),
    LITERAL("[1,\"a\",{}]"), LITERAL("[0.370000,-1e3]"), LITERAL("{}"), LITERAL("{ }"), LITERAL("{\"a\":1}"),
    LITERAL("{ \"a\" : 1 }"), LITERAL("{\"a\":1,\"b\":2}"), LITERAL("{\"a\":{\"b\":{\"c\":[]}}}"), LITERAL("{\"\":0}"),
    LITERAL("{\"a\":1,\"a\":1}"), LITERAL("{\"\\u0061\\n\":null}"), LITERAL("{\"a\":[]}"), LITERAL("[{\"a\":[{}]},[]]"),
    LITERAL("{\"instances\":[[1.0,2.0],[3,4e0]]}"), LITERAL("{\"\xc3\xa9\":\"\xc3\xa9\"}"), LITERAL("[\"\",\"\"]"),
    LITERAL("[-1.5e-3]"), LITERAL("[1\n,2\n]"), LITERAL("[true]"), LITERAL("[\"\\u005C\"]"), LITERAL("{\"\\\"\":1}")};

static const span refused[] = {
    LITERAL(""), LITERAL(" "), LITERAL("\n"), LITERAL("nul"), LITERAL("nulll"), LITERAL("Null"), LITERAL("TRUE"), LITERAL("tru"),
    LITERAL("fals"), LITERAL("truefalse"), LITERAL("+1"), LITERAL("-"), LITERAL("--1"), LITERAL("01"), LITERAL("-01"),
    LITERAL("00"), LITERAL("-00.5"), LITERAL(".5"), LITERAL("-.5"), LITERAL("1."), LITERAL("1.e5"), LITERAL("-1."),
    LITERAL("1e"), LITERAL("1e+"), LITERAL("1e-"), LITERAL("1ee5"), LITERAL("1e5.5"), LITERAL("1.5.5"), LITERAL("0x10"),
    LITERAL("0x"), LITERAL("1_000"), LITERAL("1,000"), LITERAL("1 000"), LITERAL("1a"), LITERAL("- 1"), LITERAL("1e 5"),
    LITERAL("1 .5"), LITERAL("e5"), LITERAL("E"), LITERAL("NaN"), LITERAL("nan"), LITERAL("Infinity"), LITERAL("-Infinity"),
    LITERAL("Inf"), LITERAL("-NaN"), LITERAL("inf"), LITERAL("1f"), LITERAL("1.5f"), LITERAL("0b1"), LITERAL("0o7"),
    LITERAL("\xef\xbc\x91"), LITERAL("1\0"), LITERAL("\0"), LITERAL("\"a\0b\""), LITERAL("\""), LITERAL("\"a"), LITERAL("'a'"),
    LITERAL("a"), LITERAL("\"\\\""), LITERAL("\"\\"), LITERAL("\"\\x41\""), LITERAL("\"\\a\""), LITERAL("\"\\v\""),
    LITERAL("\"\\0\""), LITERAL("\"\\'\""), LITERAL("\"\\u\""), LITERAL("\"\\u1\""), LITERAL("\"\\u12\""), LITERAL("\"\\u123\""),
    LITERAL("\"\\u123g\""), LITERAL("\"\\u+123\""), LITERAL("\"\\u 123\""), LITERAL("\"\\U0041\""), LITERAL("\"\\ud800\""),
    LITERAL("\"\\udc00\""), LITERAL("\"\\ud800\\ud800\""), LITERAL("\"\\ud800a\""), LITERAL("\"\\ud800\\n\""),
    LITERAL("\"\\udc00\\ud800\""), LITERAL("\"\\ud800\\u0041\""), LITERAL("\"\\ud800\\u\""), LITERAL("\"\\ud800\\udc0\""),
    LITERAL("\"\\ud800\\"), LITERAL("\"\n\""), LITERAL("\"\t\""), LITERAL("\"\x1f\""), LITERAL("\"\x01\""), LITERAL("\"\x80\""),
    LITERAL("\"\xbf\""), LITERAL("\"\xc0\x80\""), LITERAL("\"\xc1\xbf\""), LITERAL("\"\xc3\""), LITERAL("\"\xc3(\""),
    LITERAL("\"\xe0\x80\x80\""), LITERAL("\"\xe0\x9f\xbf\""), LITERAL("\"\xe2\x82\""), LITERAL("\"\xed\xa0\x80\""),
    LITERAL("\"\xed\xbf\xbf\""), LITERAL("\"\xf0\x80\x80\x80\""), LITERAL("\"\xf0\x8f\xbf\xbf\""), LITERAL("\"\xf0\x9f\x98\""),
    LITERAL("\"\xf4\x90\x80\x80\""), LITERAL("\"\xf5\x80\x80\x80\""), LITERAL("\"\xfe\""), LITERAL("\"\xff\""),
    LITERAL("\"0123456789\xff\""), LITERAL("\xef\xbb\xbf{}"), LITERAL("["), LITERAL("]"), LITERAL("[1"), LITERAL("[1,"),
    LITERAL("[1,]"), LITERAL("[,1]"), LITERAL("[,]"), LITERAL("[1,,2]"), LITERAL("[1 2]"), LITERAL("[1;2]"), LITERAL("[1]]"),
    LITERAL("[1}"), LITERAL("[[1]"), LITERAL("[1,\n]"), LITERAL("[\"a\""), LITERAL("[:1]"), LITERAL("[1:2]"), LITERAL("[a]"),
    LITERAL("[-]"), LITERAL("[\"a\",\n4\n,1,"), LITERAL("[] []"), LITERAL("[]1"), LITERAL("1 2"), LITERAL("[*]"),
    LITERAL("[1e]"), LITERAL("[01]"), LITERAL("{"), LITERAL("}"), LITERAL("{\"a\""), LITERAL("{\"a\":"), LITERAL("{\"a\":1"),
    LITERAL("{\"a\":1,"), LITERAL("{\"a\":1,}"), LITERAL("{,}"), LITERAL("{,\"a\":1}"), LITERAL("{\"a\":1,,\"b\":2}"),
    LITERAL("{\"a\" 1}"), LITERAL("{\"a\"}"), LITERAL("{\"a\":}"), LITERAL("{:1}"), LITERAL("{a:1}"), LITERAL("{'a':1}"),
    LITERAL("{1:1}"), LITERAL("{null:1}"), LITERAL("{[]:1}"), LITERAL("{\"a\":1 \"b\":2}"), LITERAL("{\"a\":1]"),
    LITERAL("{\"a\"::1}"), LITERAL("{\"a\":1}}"), LITERAL("{\"a\":1}#"), LITERAL("{\"\xff\":1}"), LITERAL("{\"\\x\":1}"),
    LITERAL("{\"a\":/**/1}"), LITERAL("// a\n1"), LITERAL("/**/1"), LITERAL("# a\n1"), LITERAL("[1]\v"), LITERAL("[1]\f"),
    LITERAL("\xc2\xa0" "1"), LITERAL("\xe2\x80\x83" "1"), LITERAL("<null>"), LITERAL("[\x01]"), LITERAL("{\"a\":\"b"),
    LITERAL("[\"\\u00A\"]")};

static void test_json_grammar(void) {
  for (size_t i = 0; i < sizeof accepted / sizeof accepted[0]; ++i) {
    check_document(accepted[i].text, accepted[i].length, true, false);
    /* cut anywhere: refused, but for numbers and space at the end */
    ml_error err = {0};
    for (size_t cut = 0; cut < accepted[i].length; ++cut) {
      char first = accepted[i].text[0];
      bool by_skipping = is_document(guarded(accepted[i].text, cut), cut, false, &err);
      ok(by_skipping == walks(guard_end - cut, cut, false, &err), "both agree on %.*s", (int)cut, accepted[i].text);
      if (first == '"' || first == '[' || first == '{') ok(!by_skipping, "refused cut at %zu: %s", cut, accepted[i].text);
    }
  }
  for (size_t i = 0; i < sizeof refused / sizeof refused[0]; ++i)
    check_document(refused[i].text, refused[i].length, false, false);
  static const char *const nonfinite[] = {"NaN", "Infinity", "-Infinity", "Inf", "-Inf", "[NaN,-Inf,Infinity]", "{\"a\":Inf}"};
  for (size_t i = 0; i < sizeof nonfinite / sizeof nonfinite[0]; ++i) {
    check_document(nonfinite[i], strlen(nonfinite[i]), true, true);
    check_document(nonfinite[i], strlen(nonfinite[i]), false, false);
  }
  static const char *const no_nonfinite[] = {"nan", "-NaN", "Infinit", "Infinityy", "+Inf", "-", "I", "N", "-I", "Na"};
  for (size_t i = 0; i < sizeof no_nonfinite / sizeof no_nonfinite[0]; ++i)
    check_document(no_nonfinite[i], strlen(no_nonfinite[i]), false, true);

  /* depth */
  enum { DEEP = 100000 };
  char *deep = malloc(2 * DEEP);
  if (deep == NULL) return;
  for (int depth = 62; depth <= 66; ++depth) {
    memset(deep, '[', (size_t)depth);
    memset(deep + depth, ']', (size_t)depth);
    check_document(deep, 2 * (size_t)depth, depth <= ML_JSON_MAX_DEPTH, false);
  }
  memset(deep, '[', DEEP);
  memset(deep + DEEP, ']', DEEP);
  check_document(deep, DEEP, false, false);
  check_document(deep, 2 * DEEP, false, false);
  for (int i = 0; i + 5 <= 2 * DEEP; i += 5) memcpy(deep + i, "{\"a\":", 5);
  check_document(deep, 2 * DEEP, false, false);
  { /* skipping counts the levels already entered */
    ml_json_reader reader;
    ml_error err;
    memset(deep, '[', 70);
    memset(deep + 70, ']', 70);
    ml_json_reader_init(&reader, deep + 5, 130);
    for (int i = 0; i < 3; ++i) {
      bool first = true, more;
      ok(ml_json_enter_array(&reader, &err) == ML_OK && ml_json_array_next(&reader, &first, &more, &err) == ML_OK && more,
         "entered");
    }
    ok(ml_json_skip(&reader, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "64 levels") != NULL, "depth is shared: %s",
       err.message);
  }
  free(deep);
}

static void check_string(const span raw, const span expected) {
  ml_json_reader reader;
  ml_error err = {0};
  char out[256];
  size_t bound = 0, length = 0;
  ml_json_reader_init(&reader, guarded(raw.text, raw.length), raw.length);
  bool right = ml_json_string_length(&reader, &bound, &err) == ML_OK && bound == raw.length - 2 &&
               ml_json_string_read(&reader, out, &length, &err) == ML_OK && length == expected.length &&
               memcmp(out, expected.text, length) == 0 && reader.at == reader.end;
  ok(right, "string %.*s: %s", (int)raw.length, raw.text, err.message);
}

static void test_json_values(void) {
  static const span strings[][2] = {
      {LITERAL("\"\""), LITERAL("")},
      {LITERAL("\"abc\""), LITERAL("abc")},
      {LITERAL("\"\\\"\\\\\\/\\b\\f\\n\\r\\t\""), LITERAL("\"\\/\b\f\n\r\t")},
      {LITERAL("\"\\u0000\""), LITERAL("\0")},
      {LITERAL("\"\\u007f\\u0080\\u07ff\\u0800\\ud7ff\\ue000\\uffff\""),
       LITERAL("\x7f\xc2\x80\xdf\xbf\xe0\xa0\x80\xed\x9f\xbf\xee\x80\x80\xef\xbf\xbf")},
      {LITERAL("\"\\ud800\\udc00\\uDBFF\\uDFFF\""), LITERAL("\xf0\x90\x80\x80\xf4\x8f\xbf\xbf")},
      {LITERAL("\"0123456789\\n0123456789\xe2\x82\xac\""), LITERAL("0123456789\n0123456789\xe2\x82\xac")},
      {LITERAL("\"\\\\\\\\\""), LITERAL("\\\\")}};
  for (size_t i = 0; i < sizeof strings / sizeof strings[0]; ++i) check_string(strings[i][0], strings[i][1]);

  static const struct { const char *text; bool integral, negative, fits; int64_t integer; uint64_t magnitude;
  } integers[] = {
      {"0", true, false, true, 0, 0}, {"-0", true, true, true, 0, 0}, {"7", true, false, true, 7, 7},
      {"-7", true, true, false, -7, 7}, {"9223372036854775807", true, false, true, INT64_MAX, INT64_MAX},
      {"9223372036854775808", false, false, true, 0, UINT64_C(9223372036854775808)},
      {"-9223372036854775808", true, true, false, INT64_MIN, UINT64_C(9223372036854775808)},
      {"-9223372036854775809", false, true, false, 0, UINT64_C(9223372036854775809)},
      {"18446744073709551615", false, false, true, 0, UINT64_MAX}, {"18446744073709551616", false, false, false, 0, 0},
      {"10000000000000000000", false, false, true, 0, UINT64_C(10000000000000000000)},
      {"99999999999999999999", false, false, false, 0, 0}, {"100000000000000000000000000000", false, false, false, 0, 0},
      {"1.0", false, false, false, 0, 0}, {"1e2", false, false, false, 0, 0},
      {"10000000000000000000.5", false, false, false, 0, 0}, {"-18446744073709551616", false, true, false, 0, 0}};
  for (size_t i = 0; i < sizeof integers / sizeof integers[0]; ++i) {
    ml_json_reader reader;
    ml_json_number number;
    ml_error err;
    size_t length = strlen(integers[i].text);
    ml_json_reader_init(&reader, guarded(integers[i].text, length), length);
    ok(ml_json_number_read(&reader, &number, &err) == ML_OK && number.integral == integers[i].integral &&
           number.negative == integers[i].negative && number.fits_uint64 == integers[i].fits &&
           number.integer == integers[i].integer && number.magnitude == integers[i].magnitude &&
           number.value == strtod(integers[i].text, NULL),
       "number %s", integers[i].text);
  }

  ml_json_reader reader;
  ml_error err;
  float f;
  double d;
  ml_json_reader_init(&reader, "1e999", 5);
  ok(ml_json_double_read(&reader, &d, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "number out of range: 1e999") != NULL,
     "%s", err.message);
  ml_json_reader_init(&reader, "1e39", 4);
  ok(ml_json_float_read(&reader, &f, &err) == ML_INVALID_ARGUMENT && strstr(err.message, "out of range") != NULL, "%s",
     err.message);
  ml_json_reader_init(&reader, "1e-999", 6);
  ok(ml_json_float_read(&reader, &f, &err) == ML_OK && f == 0, "1e-999 is 0");
  const char *place = "{\n  \"\xc3\xa9\": [1,\n 2, x]}";
  ok(!is_document(place, strlen(place), false, &err) && strstr(err.message, "got 'x' at line 3, column 5 (offset 18)") != NULL,
     "%s", err.message);
  place = "\"\xc3\xa9\xc3\xa9\x01\"";
  ok(!is_document(place, strlen(place), false, &err) && strstr(err.message, "at line 1, column 4 (offset 5)") != NULL, "%s",
     err.message);
  ml_json_reader_init(&reader, NULL, 0);
  ok(ml_json_peek(&reader) == ML_JSON_END && ml_json_skip(&reader, NULL) == ML_INVALID_ARGUMENT, "no text, no error wanted");
  ml_json_reader_init(&reader, "x", 1);
  ok(ml_json_peek(&reader) == ML_JSON_INVALID, "a byte with which no value begins");

  float values[4];
  size_t count = 9;
  ml_json_reader_init(&reader, "[1, 2.5 ,-3e0\n] ", 16);
  ok(ml_json_enter_array(&reader, &err) == ML_OK && ml_json_floats_read(&reader, values, 4, &count, &err) == ML_OK &&
         count == 3 && values[0] == 1 && values[1] == 2.5f && values[2] == -3 && reader.depth == 0 &&
         ml_json_expect_end(&reader, &err) == ML_OK,
     "floats_read");
  ml_json_reader_init(&reader, "[]", 2);
  ok(ml_json_enter_array(&reader, &err) == ML_OK && ml_json_floats_read(&reader, NULL, 0, &count, &err) == ML_OK && count == 0,
     "no floats");
  static const char *const bad_rows[] = {"[1,2,3]", "[1,\"a\"]", "[1,]", "[1", "[1 2]", "[[1]]", "[1e99]", "[", "[1,"};
  for (size_t i = 0; i < sizeof bad_rows / sizeof bad_rows[0]; ++i) {
    size_t length = strlen(bad_rows[i]);
    ml_json_reader_init(&reader, guarded(bad_rows[i], length), length);
    ok(ml_json_enter_array(&reader, &err) == ML_OK &&
           ml_json_floats_read(&reader, values, 2, &count, &err) == ML_INVALID_ARGUMENT &&
           strstr(err.message, " at line 1") != NULL,
       "floats_read refuses %s: %s", bad_rows[i], err.message);
  }

  /* keys: borrowed, unescaped, too long for scratch */
  char text[700], scratch[256];
  const char *key = NULL;
  size_t length = 0;
  bool first = true, more = false;
  ml_json_reader_init(&reader, "{\"a\\u0062\":1}", 13);
  ok(ml_json_enter_object(&reader, &err) == ML_OK &&
         ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, &err) == ML_OK && more &&
         key == scratch && length == 2 && memcmp(key, "ab", 2) == 0,
     "escaped key");
  for (int escaped = 0; escaped < 2; ++escaped) {
    size_t used = 0;
    text[used++] = '{';
    text[used++] = '"';
    memset(text + used, 'k', 255 + 2 * (size_t)escaped);
    used += 255 + 2 * (size_t)escaped;
    memcpy(text + used, "\\n\":0}", 6);
    used += 6;
    first = true;
    ml_json_reader_init(&reader, text, used);
    ml_status status = ml_json_enter_object(&reader, &err);
    if (status == ML_OK) status = ml_json_object_next(&reader, &first, &more, scratch, sizeof scratch, &key, &length, &err);
    ok(escaped ? status == ML_INVALID_ARGUMENT : status == ML_OK && length == 256, "key of 256 bytes fits, of 258 does not (%d)",
       escaped);
  }
}

/* ---- JSON writer ---- */

static void write_everything(ml_json_writer *writer) {
  char many[300];
  memset(many, 'x', sizeof many);
  ml_json_put_literal(writer, "{\"s\":");
  ml_json_put_string(writer, "q\"\\\b\f\n\r\t\x01\x7f\xc3\xa9", 11);
  ml_json_put_literal(writer, ",\"b\":");
  ml_json_put_base64(writer, "foobar!", 7);
  ml_json_put_literal(writer, ",\"n\":[");
  for (int i = 0; i < 200; ++i) {
    ml_json_put_float(writer, (float)i / 3);
    ml_json_put_literal(writer, ",");
    ml_json_put_double(writer, (double)i / 3);
    ml_json_put_literal(writer, ",");
    ml_json_put_int64(writer, -i);
    ml_json_put_literal(writer, ",");
    ml_json_put_uint64(writer, UINT64_MAX);
    ml_json_put_literal(writer, ",");
  }
  ml_json_put_string(writer, many, sizeof many);
  ml_json_put_literal(writer, "]}");
}

static void check_put_string(const span bytes, const span expected) {
  ml_json_writer writer;
  ml_json_writer_init(&writer);
  ml_json_put_string(&writer, guarded(bytes.text, bytes.length), bytes.length);
  ok(writer.status == ML_OK && writer.length == expected.length && memcmp(writer.text, expected.text, expected.length) == 0,
     "written %s", expected.text);
  ml_json_writer_free(&writer);
}

static void test_json_writer(void) {
  static const span strings[][2] = {
      {LITERAL(""), LITERAL("\"\"")},
      {LITERAL("a\"b\\c/d"), LITERAL("\"a\\\"b\\\\c/d\"")},
      {LITERAL("\b\f\n\r\t\0\x1f\x7f"), LITERAL("\"\\b\\f\\n\\r\\t\\u0000\\u001f\x7f\"")},
      {LITERAL("\xe2\x82\xac\xf0\x9f\x98\x80"), LITERAL("\"\xe2\x82\xac\xf0\x9f\x98\x80\"")},
      /* Unicode 15, section 3.9, tables 3-8 to 3-11: one replacement for each maximal subpart */
      {LITERAL("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82"
               "A"),
       LITERAL("\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
               "A\"")},
      {LITERAL("\xed\xa0\x80"
               "A"),
       LITERAL("\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
               "A\"")},
      {LITERAL("\xf4\x91\x92\x93\xff"
               "A"),
       LITERAL("\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
               "A\"")},
      {LITERAL("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf"
               "A"),
       LITERAL("\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
               "A\"")},
      {LITERAL("12345678\xe2\x82"), LITERAL("\"12345678\xef\xbf\xbd\"")}};
  for (size_t i = 0; i < sizeof strings / sizeof strings[0]; ++i) check_put_string(strings[i][0], strings[i][1]);
  unsigned wrong = 0;
  for (int i = 0; i < 20000; ++i) { /* any bytes give a JSON string, and UTF-8 comes back unchanged */
    char bytes[40], back[240];
    size_t length = random_below(40), size = 0, bound;
    for (size_t k = 0; k < length; ++k) bytes[k] = (char)(random_below(3) ? random64() : 0x80 | (random64() & 0x3f));
    ml_json_writer writer;
    ml_json_reader reader;
    ml_json_writer_init(&writer);
    ml_json_put_string(&writer, guarded(bytes, length), length);
    ml_json_reader_init(&reader, writer.text, writer.length);
    bool read = ml_json_string_length(&reader, &bound, NULL) == ML_OK && bound <= sizeof back &&
                ml_json_string_read(&reader, back, &size, NULL) == ML_OK;
    wrong += !read || (ml_utf8_valid(bytes, length, NULL) && (size != length || memcmp(bytes, back, size) != 0));
    ml_json_writer_free(&writer);
  }
  ok(wrong == 0, "%u of 20000 random strings do not come back", wrong);

  ml_json_writer writer;
  ml_json_writer_init(&writer);
  ml_json_put_float(&writer, NAN);
  ml_json_put_literal(&writer, " ");
  ml_json_put_float(&writer, -INFINITY);
  ml_json_put_literal(&writer, " ");
  ml_json_put_double(&writer, (double)INFINITY);
  ml_json_put_literal(&writer, " ");
  ml_json_put_int64(&writer, INT64_MIN);
  ml_json_put_literal(&writer, " ");
  ml_json_put_uint64(&writer, UINT64_MAX);
  ml_json_put_literal(&writer, " ");
  ml_json_put_int64(&writer, 0);
  ml_json_put_literal(&writer, " ");
  ml_json_put_base64(&writer, NULL, 0);
  const char *expected = "NaN -Infinity Infinity -9223372036854775808 18446744073709551615 0 \"\"";
  ok(writer.length == strlen(expected) && memcmp(writer.text, expected, writer.length) == 0, "%.*s", (int)writer.length,
     writer.text);
  ml_json_writer_free(&writer);

  ml_json_writer_init(&writer);
  write_everything(&writer);
  ml_error err = {0};
  ok(writer.status == ML_OK && is_document(writer.text, writer.length, false, &err), "what is written can be read: %s",
     err.message);
  ml_json_writer_free(&writer);
  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (int persistent = 0; persistent < 2; ++persistent)
    for (uint64_t n = 1; n < 100; ++n) {
      ml_json_writer_init(&writer);
      ml_alloc_fail_at(n, persistent);
      write_everything(&writer);
      ml_alloc_fail_at(0, false);
      ml_status status = writer.status;
      size_t length = writer.length;
      ml_json_put_literal(&writer, "more");
      ok(status == ML_OK || (status == ML_RESOURCE_EXHAUSTED && writer.status == status && writer.length == length),
         "failure %u is clean and sticky", (unsigned)n);
      ml_json_writer_free(&writer);
      if (status == ML_OK) break;
      ok(n < 99, "the writer comes through at last");
    }
  ok(ml_alloc_get_stats().live_blocks == live, "no block is left");
}

/* ---- protobuf ---- */

static ml_status pb_walk(const uint8_t *bytes, size_t size, unsigned *fields, ml_error *err) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  ml_pb_reader_init(&reader, bytes, size);
  *fields = 0;
  while (ml_pb_next(&reader, &field, &status, err)) {
    ++*fields;
    if (status != ML_OK) return ML_INTERNAL;
  }
  if (status == ML_OK && reader.at != reader.end) return ML_INTERNAL;
  return status;
}

static void write_message(ml_pb_writer *writer) {
  char big[400];
  memset(big, 'b', sizeof big);
  ml_pb_put_varint(writer, 1, 150);
  ml_pb_put_string(writer, 2, "testing");
  ml_pb_put_string(writer, 3, "");
  ml_pb_put_string(writer, 3, NULL);
  ml_pb_put_float(writer, 4, 1.5f);
  ml_pb_put_double(writer, 5, -2.25);
  ml_pb_put_varint(writer, 6, (uint64_t)(int64_t)-1);
  size_t outer = ml_pb_open(writer, 7);
  size_t empty = ml_pb_open(writer, 1);
  ml_pb_close(writer, empty);
  size_t inner = ml_pb_open(writer, 2);
  ml_pb_put_bytes(writer, 1, big, sizeof big);
  ml_pb_close(writer, inner);
  ml_pb_put_varint(writer, 3, 0);
  ml_pb_close(writer, outer);
  ml_pb_put_bytes(writer, 0x1fffffff, NULL, 0);
}

static void test_protobuf(void) {
  ml_pb_reader reader;
  ml_pb_field field;
  ml_status status;
  ml_error err = {0};
  unsigned fields;
  ml_pb_writer writer;
  ml_pb_writer_init(&writer);
  write_message(&writer);
  ok(writer.status == ML_OK &&
         memcmp(writer.bytes,
                "\x08\x96\x01\x12\x07testing\x25\0\0\xc0\x3f\x29\0\0\0\0\0\0\x02\xc0\x30\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
                37) == 0,
     "the documentation's examples byte for byte");
  size_t size = writer.size;
  const uint8_t *bytes = (const uint8_t *)guarded(writer.bytes, size);
  ml_pb_reader_init(&reader, bytes, size);
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 1 && field.wire == ML_PB_VARINT && field.integer == 150,
     "varint");
  ok(ml_pb_expect(&field, ML_PB_VARINT, "M.f", &err) == ML_OK &&
         ml_pb_expect(&field, ML_PB_BYTES, "ModelProto.graph", &err) == ML_DATA_LOSS &&
         strstr(err.message, "ModelProto.graph: expected wire type bytes, got varint") != NULL,
     "%s", err.message);
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 2 && field.size == 7 && memcmp(field.bytes, "testing", 7) == 0,
     "bytes");
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 4 && ml_pb_float(&field) == 1.5f, "float");
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 5 && ml_pb_double(&field) == -2.25, "double");
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 6 && (int64_t)field.integer == -1, "negative int64");
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 7 && field.wire == ML_PB_BYTES, "embedded");
  ml_pb_reader sub = ml_pb_reader_sub(&reader, &field);
  ml_pb_field inner;
  ok(sub.begin == bytes && ml_pb_next(&sub, &inner, &status, &err) && inner.number == 1 && inner.size == 0, "empty embedded");
  ok(ml_pb_next(&sub, &inner, &status, &err) && inner.number == 2 && inner.size == 403, "embedded with a two-byte length");
  ok(ml_pb_next(&sub, &inner, &status, &err) && inner.number == 3 && inner.integer == 0, "zero is written");
  ok(!ml_pb_next(&sub, &inner, &status, &err) && status == ML_OK, "end of embedded");
  ok(ml_pb_next(&reader, &field, &status, &err) && field.number == 0x1fffffff && field.size == 0, "largest field number");
  ok(!ml_pb_next(&reader, &field, &status, &err) && status == ML_OK, "end");

  /* cut at every byte: damaged, unless between two fields */
  unsigned whole = 0;
  for (size_t cut = 0; cut <= size; ++cut) {
    status = pb_walk((const uint8_t *)guarded(writer.bytes, cut), cut, &fields, &err);
    ok(status == ML_OK || (status == ML_DATA_LOSS && strstr(err.message, "offset") != NULL), "cut at %zu", cut);
    whole += status == ML_OK;
  }
  ok(whole == 8, "whole only between fields: %u", whole);
  ml_pb_writer_free(&writer);

  static const struct { span bytes; const char *message;
  } malformed[] = {
      {LITERAL("\x08"), "cut short"}, {LITERAL("\x88"), "cut short"}, {LITERAL("\x08\x80"), "cut short"},
      {LITERAL("\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02"), "64 bits"},
      {LITERAL("\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x00"), "10 bytes"},
      {LITERAL("\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"), "10 bytes"}, {LITERAL("\x00\x00"), "field number 0"},
      {LITERAL("\x02\x00"), "field number 0"}, {LITERAL("\x80\x80\x80\x80\x10\x00"), "outside 1..536870911"},
      {LITERAL("\x88\x80\x80\x80\x80\x01\x00"), "outside 1..536870911"}, {LITERAL("\x0b\x0c"), "group"},
      {LITERAL("\x0c"), "group"}, {LITERAL("\x0e"), "wire type 6"}, {LITERAL("\x0f"), "wire type 7"},
      {LITERAL("\x09\0\0\0\0\0\0\0"), "cut short"}, {LITERAL("\x0d\0\0\0"), "cut short"},
      {LITERAL("\x0a\x01"), "claims 1 bytes, 0 are left"},
      {LITERAL("\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "claims 18446744073709551615"},
      {LITERAL("\x0a\xff\xff\xff\xff\x0f"), "claims 4294967295"}, {LITERAL("\x08\x01\x0a\x05zzzz"), "at offset 2 claims 5"}};
  for (size_t i = 0; i < sizeof malformed / sizeof malformed[0]; ++i) {
    const uint8_t *at = (const uint8_t *)guarded(malformed[i].bytes.text, malformed[i].bytes.length);
    ok(pb_walk(at, malformed[i].bytes.length, &fields, &err) == ML_DATA_LOSS && strstr(err.message, malformed[i].message) != NULL,
       "malformed %zu: %s", i, err.message);
    ml_pb_reader_init(&reader, at, malformed[i].bytes.length);
    while (ml_pb_next(&reader, &field, &status, NULL)) {}
    ok(!ml_pb_next(&reader, &field, &status, NULL) && status == ML_DATA_LOSS, "asked again, the same answer");
  }
  ok(pb_walk((const uint8_t *)"\x88\x80\x00\x80\x00", 5, &fields, &err) == ML_OK && fields == 1,
     "longer varints than needed are allowed");
  ok(pb_walk(NULL, 0, &fields, &err) == ML_OK && fields == 0, "no bytes");
  ok(ml_pb_zigzag(0) == 0 && ml_pb_zigzag(1) == -1 && ml_pb_zigzag(2) == 1 && ml_pb_zigzag(UINT64_MAX) == INT64_MIN, "zigzag");

  /* packed */
  int64_t integers[8];
  float floats[4];
  double doubles[4];
  size_t count = 99;
  ml_pb_reader_init(&reader, "\x32\x06\x03\x8e\x02\x9e\xa7\x05", 8);
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_count(&field, ML_PB_VARINT, &count, "f", &err) == ML_OK &&
         count == 3 && ml_pb_packed_read(&field, ML_PB_VARINT, integers, "f", &err) == ML_OK && integers[0] == 3 &&
         integers[1] == 270 && integers[2] == 86942,
     "packed varints");
  ok(ml_pb_packed_count(&field, ML_PB_FIXED32, &count, "TensorProto.float_data", &err) == ML_DATA_LOSS &&
         strstr(err.message, "TensorProto.float_data: 6 packed bytes are no multiple of 4") != NULL, "%s", err.message);
  ok(ml_pb_packed_count(&field, ML_PB_FIXED64, &count, "f", &err) == ML_DATA_LOSS, "6 bytes are no doubles");
  ml_pb_reader_init(&reader, "\x30\x8e\x02", 3);
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_count(&field, ML_PB_VARINT, &count, "f", &err) == ML_OK &&
         count == 1 && ml_pb_packed_read(&field, ML_PB_VARINT, integers, "f", &err) == ML_OK && integers[0] == 270,
     "not packed");
  ok(ml_pb_packed_count(&field, ML_PB_FIXED32, &count, "f", &err) == ML_DATA_LOSS &&
         strstr(err.message, "expected wire type fixed32 or packed bytes, got varint") != NULL &&
         ml_pb_packed_read(&field, ML_PB_FIXED32, floats, "f", &err) == ML_DATA_LOSS,
     "%s", err.message);
  ml_pb_reader_init(&reader, "\x0a\x08\0\0\x80\x3f\0\0\0\x40\x0d\0\0\x40\x40\x0a\x08\0\0\0\0\0\0\xf0\x3f", 25);
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_count(&field, ML_PB_FIXED32, &count, "f", &err) == ML_OK &&
         count == 2 && ml_pb_packed_read(&field, ML_PB_FIXED32, floats, "f", &err) == ML_OK && floats[0] == 1 && floats[1] == 2,
     "packed floats");
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_read(&field, ML_PB_FIXED32, floats, "f", &err) == ML_OK &&
         floats[0] == 3,
     "one float");
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_count(&field, ML_PB_FIXED64, &count, "f", &err) == ML_OK &&
         count == 1 && ml_pb_packed_read(&field, ML_PB_FIXED64, doubles, "f", &err) == ML_OK && doubles[0] == 1,
     "packed double");
  static const span bad_varints[] = {LITERAL("\x0a\x02\x01\x80"),
                                     LITERAL("\x0a\x0b\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01")};
  for (size_t i = 0; i < 2; ++i) {
    ml_pb_reader_init(&reader, guarded(bad_varints[i].text, bad_varints[i].length), bad_varints[i].length);
    ok(ml_pb_next(&reader, &field, &status, &err) &&
           (ml_pb_packed_count(&field, ML_PB_VARINT, &count, "f", &err) == ML_DATA_LOSS || count == 1) &&
           ml_pb_packed_read(&field, ML_PB_VARINT, integers, "f", &err) == ML_DATA_LOSS,
       "bad packed varint: %s", err.message);
  }
  ml_pb_reader_init(&reader, guarded("\x0a", 2), 2);
  ok(ml_pb_next(&reader, &field, &status, &err) && ml_pb_packed_count(&field, ML_PB_VARINT, &count, "f", &err) == ML_OK &&
         count == 0 && ml_pb_packed_read(&field, ML_PB_VARINT, NULL, "f", &err) == ML_OK &&
         ml_pb_packed_read(&field, ML_PB_FIXED32, NULL, "f", &err) == ML_OK,
     "empty packed");

  /* nesting, with contents that make every length grow to two and three bytes on the way out */
  for (size_t content = 0; content < 40000; content = content * 3 + 1) {
    size_t marks[64];
    char *fill = calloc(1, content + 1);
    if (fill == NULL) break;
    ml_pb_writer_init(&writer);
    for (int i = 0; i < 64; ++i) marks[i] = ml_pb_open(&writer, 1);
    ml_pb_put_bytes(&writer, 2, fill, content);
    for (int i = 63; i >= 0; --i) ml_pb_close(&writer, marks[i]);
    ml_pb_reader_init(&reader, writer.bytes, writer.size);
    int depth = 0;
    while (ml_pb_next(&reader, &field, &status, &err) && field.number == 1 && reader.at == reader.end) {
      reader = ml_pb_reader_sub(&reader, &field);
      ++depth;
    }
    ok(writer.status == ML_OK && depth == 64 && field.number == 2 && field.size == content && reader.at == reader.end,
       "64 deep around %zu bytes", content);
    ml_pb_writer_free(&writer);
    free(fill);
  }

  uint64_t live = ml_alloc_get_stats().live_blocks;
  for (int persistent = 0; persistent < 2; ++persistent)
    for (uint64_t n = 1; n < 100; ++n) {
      ml_pb_writer_init(&writer);
      ml_alloc_fail_at(n, persistent);
      write_message(&writer);
      ml_alloc_fail_at(0, false);
      status = writer.status;
      ok(status == ML_OK || status == ML_RESOURCE_EXHAUSTED, "failure %u is clean", (unsigned)n);
      ml_pb_put_varint(&writer, 1, 1);
      ok(writer.status == status, "and sticky");
      ml_pb_writer_free(&writer);
      if (status == ML_OK) break;
      ok(n < 99, "the writer comes through at last");
    }
  ml_pb_writer_init(&writer);
  ml_pb_put_bytes(&writer, 1, "", SIZE_MAX - 3);
  ok(writer.status == ML_RESOURCE_EXHAUSTED, "a size that overflows");
  ml_pb_writer_free(&writer);
  ok(ml_alloc_get_stats().live_blocks == live, "no block is left");
}

/* ---- base64, CRC-32C, UTF-8 ---- */

static void test_base64(void) {
  static const char *const vectors[][2] = {
      {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"fooba", "Zm9vYmE="},
      {"foobar", "Zm9vYmFy"}, {"\xfb\xff\xbe", "+/++"}};
  char text[512], bytes[512];
  size_t size;
  ml_error err = {0};
  for (size_t i = 0; i < sizeof vectors / sizeof vectors[0]; ++i) {
    size_t length = strlen(vectors[i][0]), characters;
    ok(ml_base64_encoded_size(length, &characters) && characters == strlen(vectors[i][1]), "size of %s", vectors[i][1]);
    ml_base64_encode(guarded(vectors[i][0], length), length, text);
    ok(memcmp(text, vectors[i][1], characters) == 0, "encode %s", vectors[i][1]);
    for (int padded = 0; padded < 2; ++padded) {
      size_t given = padded ? characters : strcspn(vectors[i][1], "=");
      ok(ml_base64_decode(guarded(vectors[i][1], given), given, bytes, &size, &err) == ML_OK && size == length &&
             memcmp(bytes, vectors[i][0], size) == 0,
         "decode %.*s: %s", (int)given, vectors[i][1], err.message);
    }
  }
  static const struct { const char *text; const char *message;
  } bad[] = {
      {"A", "offset 0"}, {"Zm9vA", "offset 4"}, {"Zm9v=", "padding at offset 4"}, {"Zg=", "offset 3"}, {"Zg===", "offset 4"},
      {"=", "offset 0"}, {"Z===", "offset 1"}, {"Zg==Zg==", "offset 4"}, {"Zm9-", "0x2d at offset 3"},
      {"Zm_v", "0x5f at offset 2"}, {"Zm9v!", "offset 4"}, {"\xff", "0xff at offset 0"}, {"Zh==", "offset 1 are not zero"},
      {"Zm9=", "offset 2 are not zero"}, {"Zm8=\v", "offset 4"}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; ++i) {
    size_t length = strlen(bad[i].text);
    ok(ml_base64_decode(guarded(bad[i].text, length), length, bytes, &size, &err) == ML_INVALID_ARGUMENT &&
           strstr(err.message, bad[i].message) != NULL,
       "refused %s: %s", bad[i].text, err.message);
  }
  ok(ml_base64_decode(" Zm\r\n9v\tYg = = \n", 16, bytes, &size, &err) == ML_OK && size == 4 && memcmp(bytes, "foob", 4) == 0,
     "white space: %s", err.message);
  size_t characters;
  ok(!ml_base64_encoded_size(SIZE_MAX, &characters), "encoded size overflows");
  unsigned wrong = 0;
  for (int i = 0; i < 20000; ++i) {
    char original[128];
    size_t length = random_below(128), given;
    for (size_t k = 0; k < length; ++k) original[k] = (char)random64();
    if (!ml_base64_encoded_size(length, &given)) continue;
    ml_base64_encode(original, length, text);
    if (i % 2) while (given > 0 && text[given - 1] == '=') --given;
    /* the output, too, ends where memory does */
    size_t bound = ml_base64_decoded_bound(given);
    char *copy = malloc(given + 1);
    if (copy == NULL) return;
    memcpy(copy, text, given);
    wrong += bound > length + 3 || ml_base64_decode(copy, given, guard_end - bound, &size, &err) != ML_OK || size != length ||
             memcmp(guard_end - bound, original, length) != 0;
    free(copy);
  }
  ok(wrong == 0, "%u of 20000 random byte strings do not come back", wrong);
}

static void test_crc32c(void) {
  uint8_t bytes[1024];
  ok(ml_crc32c(0, "123456789", 9) == 0xe3069283u, "check value");
  memset(bytes, 0, 32);
  ok(ml_crc32c(0, bytes, 32) == 0x8a9136aau, "32 zeros");
  memset(bytes, 0xff, 32);
  ok(ml_crc32c(0, bytes, 32) == 0x62a8ab43u, "32 ones");
  for (int i = 0; i < 32; ++i) bytes[i] = (uint8_t)i;
  ok(ml_crc32c(0, bytes, 32) == 0x46dd794eu, "32 ascending");
  for (int i = 0; i < 32; ++i) bytes[i] = (uint8_t)(31 - i);
  ok(ml_crc32c(0, bytes, 32) == 0x113fdb5cu, "32 descending");
  ok(ml_crc32c(0, NULL, 0) == 0 && ml_crc32c(0x1234, bytes, 0) == 0x1234, "nothing");
  unsigned wrong = 0;
  for (size_t i = 0; i < sizeof bytes; ++i) bytes[i] = (uint8_t)random64();
  for (size_t length = 0; length < 600; ++length) { /* bit by bit */
    const uint8_t *at = (const uint8_t *)guarded(bytes, length);
    uint32_t plain = ~0u;
    for (size_t i = 0; i < length; ++i) {
      plain ^= at[i];
      for (int bit = 0; bit < 8; ++bit) plain = plain >> 1 ^ (plain & 1 ? 0x82f63b78u : 0);
    }
    size_t cut = length > 0 ? random_below((unsigned)length) : 0;
    wrong += ml_crc32c(0, at, length) != ~plain || ml_crc32c_portable(0, at, length) != ~plain ||
             ml_crc32c(ml_crc32c(0, at, cut), at + cut, length - cut) != ~plain ||
             ml_crc32c_portable(ml_crc32c(0, at, cut), at + cut, length - cut) != ~plain;
  }
  ok(wrong == 0, "%u of 600 lengths differ from the bitwise checksum", wrong);
}

/* Straight from the definition: decode, then ask whether the number needed that many bytes. */
static size_t plain_utf8(const unsigned char *p, size_t left) {
  static const uint32_t least[5] = {0, 0, 0x80, 0x800, 0x10000};
  if (p[0] < 0x80) return 1;
  size_t width = p[0] >> 5 == 6 ? 2 : p[0] >> 4 == 14 ? 3 : p[0] >> 3 == 30 ? 4 : 0;
  if (width == 0 || left < width) return 0;
  uint32_t code = p[0] & (0xffu >> (width + 1));
  for (size_t i = 1; i < width; ++i) {
    if (p[i] >> 6 != 2) return 0;
    code = code << 6 | (p[i] & 0x3f);
  }
  return code >= least[width] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ? width : 0;
}

static void test_utf8(void) {
  unsigned wrong = 0;
  for (uint32_t lead = 0; lead < 256; ++lead) /* all pairs of bytes, with tails and without */
    for (uint32_t second = 0; second < 256; ++second)
      for (size_t left = 1; left <= 4; ++left) {
        unsigned char bytes[4] = {(unsigned char)lead, (unsigned char)second, 0x80, 0xbf};
        const unsigned char *at = (const unsigned char *)guarded(bytes, left);
        wrong += ml_utf8_sequence(at, left, NULL) != plain_utf8(at, left);
      }
  ok(wrong == 0, "%u sequences differ from the definition", wrong);
  wrong = 0;
  for (int i = 0; i < 50000; ++i) {
    unsigned char bytes[100];
    size_t length = random_below(100), used = 0;
    while (used < length) {
      uint32_t code = random_below(4) ? random_below(0x80) : random_below(0x110000);
      if (i % 3 == 0) code &= 0x7f;
      if (code < 0x80 || used + 4 > length) bytes[used++] = (unsigned char)(code & 0x7f);
      else if (code < 0x800)
        bytes[used++] = (unsigned char)(0xc0 | code >> 6), bytes[used++] = (unsigned char)(0x80 | (code & 0x3f));
      else if (code < 0x10000)
        bytes[used++] = (unsigned char)(0xe0 | code >> 12), bytes[used++] = (unsigned char)(0x80 | (code >> 6 & 0x3f)),
        bytes[used++] = (unsigned char)(0x80 | (code & 0x3f));
      else
        bytes[used++] = (unsigned char)(0xf0 | code >> 18), bytes[used++] = (unsigned char)(0x80 | (code >> 12 & 0x3f)),
        bytes[used++] = (unsigned char)(0x80 | (code >> 6 & 0x3f)), bytes[used++] = (unsigned char)(0x80 | (code & 0x3f));
    }
    if (i % 2 && length > 0) bytes[random_below((unsigned)length)] = (unsigned char)random64();
    const unsigned char *at = (const unsigned char *)guarded(bytes, length);
    size_t expected = 0, bad = SIZE_MAX, width;
    while (expected < length && (width = plain_utf8(at + expected, length - expected)) > 0) expected += width;
    bool valid = ml_utf8_valid(at, length, &bad);
    wrong += valid != (expected == length) || (!valid && bad != expected);
  }
  ok(wrong == 0, "%u of 50000 random texts are judged wrongly", wrong);
  ok(ml_utf8_valid(NULL, 0, NULL), "nothing is valid");
}

int main(int argc, char **argv) {
  if (argc > 1) scale = strtoul(argv[1], NULL, 10);
  if (scale == 0) scale = 1;
  guard_init();
  test_powers();
  test_reading_numbers();
  test_printing_numbers();
  test_json_grammar();
  test_json_values();
  test_json_writer();
  test_protobuf();
  test_base64();
  test_crc32c();
  test_utf8();
  return done();
}

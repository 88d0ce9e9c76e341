/* Decimal to binary and back, the parts that are not a multiplication or division by an exact power of ten.
 *
 * Reading. w * 10^q is bounded from both sides: the table holds the first 128 bits T of 10^q, so that with w normalised to 64
 * bits the number lies in [w*T, w*(T + 1)), a relative width of 2^-127. The first 64 bits of that product and the knowledge that
 * more follow decide the rounding, unless the next 64 bits are all ones (the upper bound might carry) or the digits were cut at
 * 19 and w and w + 1 round differently. This is the idea of Lemire, "Number Parsing at a Gigabyte per Second" (2021), with an
 * interval in place of that paper's case analysis. What remains is decided by comparing all digits with the half-way point in big
 * integers; a half-way point between doubles has at most 767 significant digits, so 800 and a note whether anything follows
 * suffice and the integers are bounded.
 *
 * Printing. Schubfach (Giulietti, "The Schubfach way to render doubles", 2020): the rounding interval of the value is scaled by
 * the power of ten that leaves one or two shortest candidates in it, computed with one 128-bit (float: 64-bit) approximation of
 * the power and round-to-odd. */
#include "codec/decimal.h"

#include <assert.h>
#include <float.h>

#include "codec/decimal_powers.h"

_Static_assert(FLT_EVAL_METHOD == 0, "float and double operations must round to their own precision");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "digits are read eight at a time, first digit lowest");

__extension__ typedef unsigned __int128 wide;

const double ml__exact_powers[23] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                     1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

/* floor(log2(10^q)) for |q| <= 342, floor(log10(2^e)) for |e| <= 1700 or so */
static inline int log2_of_power10(int q) { return (q * 217706) >> 16; }
static inline int log10_of_power2(int e) { return (e * 1262611) >> 22; }

/* ---- reading ---- */

typedef struct binary {
  int mantissa_bits;              /* with the hidden one */
  int min_exponent, max_exponent; /* of normal numbers 1.xxx * 2^exponent */
  int min_power, max_power;       /* of ten, outside which every 64-bit w gives zero or infinity */
} binary;

static const binary binary32 = {24, -126, 127, -64, 38}, binary64 = {53, -1022, 1023, -342, 308};

static inline uint64_t infinity_of(binary format) {
  return (uint64_t)(format.max_exponent - format.min_exponent + 2) << (format.mantissa_bits - 1);
}

/* IEEE bits (no sign) of top * 2^(exponent - 63), top's highest bit set; `more` says that something smaller than its last bit
 * follows. With `down` rounds towards zero. */
static inline uint64_t assemble(uint64_t top, bool more, int exponent, binary format, bool down) {
  int drop = 64 - format.mantissa_bits;
  uint64_t mantissa, base = 0;
  bool half, rest;
  if (exponent > format.max_exponent) return infinity_of(format) - down;
  if (exponent < format.min_exponent) drop += format.min_exponent - exponent;
  else base = (uint64_t)(exponent - format.min_exponent) << (format.mantissa_bits - 1); /* the hidden one adds 1 to this */
  if (drop > 64) return 0;
  if (drop == 64) {
    mantissa = 0;
    half = top >> 63;
    rest = (top << 1) != 0;
  } else {
    mantissa = top >> drop;
    half = top >> (drop - 1) & 1;
    rest = (top & ((UINT64_C(1) << (drop - 1)) - 1)) != 0;
  }
  if (!down) mantissa += half && (rest || more || (mantissa & 1));
  return base + mantissa; /* a carry out of the mantissa is the next exponent, at last infinity */
}

/* The 64 leading bits of w * 10^q rounded down, whether more follow, and the exponent of the first; false when they are not
 * certain. */
static inline bool multiply(uint64_t w, int q, uint64_t *top, bool *more, int *exponent) {
  const uint64_t *power = ml__powers[q - ML__POWER_MIN];
  int zeros = __builtin_clzll(w);
  w <<= zeros;
  wide high = (wide)w * power[0], low = (wide)w * power[1];
  high += (uint64_t)(low >> 64);
  uint64_t first = (uint64_t)(high >> 64), second = (uint64_t)high, third = (uint64_t)low;
  int shift = !(first >> 63);
  if (shift) {
    first = first << 1 | second >> 63;
    second = second << 1 | third >> 63;
    third <<= 1;
  }
  *top = first;
  *exponent = log2_of_power10(q) + 64 - zeros - shift;
  if (q >= 0 && q <= 55) { /* the table's row is exact */
    *more = (second | third) != 0;
    return true;
  }
  *more = true; /* the row is less than the power */
  return second < UINT64_MAX - 1; /* the error is below 2 units of `second` */
}

#define LIMBS 80 /* 5120 bits; the largest numbers met have about 2700: 801 digits, or 54 bits times 5^1124 */

typedef struct big {
  int used;
  uint64_t limb[LIMBS]; /* lowest first */
} big;

static void big_multiply_add(big *a, uint64_t factor, uint64_t addend) {
  uint64_t carry = addend;
  for (int i = 0; i < a->used; ++i) {
    wide product = (wide)a->limb[i] * factor + carry;
    a->limb[i] = (uint64_t)product;
    carry = (uint64_t)(product >> 64);
  }
  if (carry != 0) {
    assert(a->used < LIMBS);
    a->limb[a->used++] = carry;
  }
}

static void big_multiply_power5(big *a, int power) {
  for (; power >= 27; power -= 27) big_multiply_add(a, UINT64_C(7450580596923828125), 0);
  uint64_t rest = 1;
  for (; power > 0; --power) rest *= 5;
  big_multiply_add(a, rest, 0);
}

static void big_shift_left(big *a, int bits) {
  int limbs = bits / 64;
  bits %= 64;
  if (bits > 0) big_multiply_add(a, UINT64_C(1) << bits, 0);
  if (limbs == 0 || a->used == 0) return;
  assert(a->used + limbs <= LIMBS);
  memmove(a->limb + limbs, a->limb, (size_t)a->used * sizeof a->limb[0]);
  memset(a->limb, 0, (size_t)limbs * sizeof a->limb[0]);
  a->used += limbs;
}

static int big_compare(const big *a, const big *b) {
  if (a->used != b->used) return a->used < b->used ? -1 : 1;
  for (int i = a->used - 1; i >= 0; --i)
    if (a->limb[i] != b->limb[i]) return a->limb[i] < b->limb[i] ? -1 : 1;
  return 0;
}

#define MAX_DIGITS 800

/* The digits as one integer times 10^(result). */
static int collect_digits(const ml_decimal *number, big *out) {
  out->used = 0;
  if (!number->truncated) {
    big_multiply_add(out, 1, number->mantissa);
    return (int)number->exponent;
  }
  int taken = 0;
  bool more = false;
  for (const char *p = number->digits; p < number->stop; ++p) {
    if (*p == '.' || (*p == '0' && taken == 0)) continue;
    if (taken < MAX_DIGITS) {
      big_multiply_add(out, 10, (uint64_t)(*p - '0'));
      ++taken;
    } else if (*p != '0') {
      more = true;
      break;
    }
  }
  if (more) {
    big_multiply_add(out, 10, 1);
    ++taken;
  }
  return (int)number->exponent + 19 - taken; /* number->exponent is that of the nineteenth */
}

/* Rounds to `below` (IEEE bits of a value not above the number, less than a tiny part of a unit from the one before the right
 * one) or the value after it. */
static uint64_t decide_exactly(const ml_decimal *number, uint64_t below, binary format) {
  uint64_t hidden = UINT64_C(1) << (format.mantissa_bits - 1);
  uint64_t mantissa = below & (hidden - 1);
  int field = (int)(below >> (format.mantissa_bits - 1));
  if (field > 0) mantissa |= hidden;
  else field = 1;
  /* half-way above it: (2 * mantissa + 1) * 2^power2 */
  int power2 = format.min_exponent + field - 1 - (format.mantissa_bits - 1) - 1;
  big left, right = {.used = 0};
  int power10 = collect_digits(number, &left);
  big_multiply_add(&right, 1, 2 * mantissa + 1);
  if (power10 >= 0) big_multiply_power5(&left, power10);
  else big_multiply_power5(&right, -power10);
  if (power10 >= power2) big_shift_left(&left, power10 - power2);
  else big_shift_left(&right, power2 - power10);
  int order = big_compare(&left, &right);
  return below + (order > 0 || (order == 0 && (mantissa & 1)));
}

/* The IEEE bits (no sign); false when only decide_exactly can tell, *below is then what it needs. */
static inline __attribute__((always_inline)) bool convert(const ml_decimal *number, binary format, uint64_t *bits,
                                                          uint64_t *below) {
  uint64_t w = number->mantissa, top, next_top;
  int exponent, next_exponent;
  bool more, next_more;
  if (w == 0 || number->exponent < format.min_power) {
    *bits = 0;
    return true;
  }
  if (number->exponent > format.max_power) {
    *bits = infinity_of(format);
    return true;
  }
  int q = (int)number->exponent;
  if (__builtin_expect(multiply(w, q, &top, &more, &exponent), true)) {
    *bits = assemble(top, more, exponent, format, false);
    if (!number->truncated) return true;
    if (multiply(w + 1, q, &next_top, &next_more, &next_exponent) &&
        assemble(next_top, next_more, next_exponent, format, false) == *bits)
      return true;
  }
  *below = assemble(top, more, exponent, format, true);
  return false;
}

/* "0.50000000000000000" is 5e-1: trailing zeros are what most often hides an exact case. */
static bool without_zeros(const ml_decimal *number, ml_decimal *shorter) {
  *shorter = *number;
  if (number->truncated || number->mantissa % 10 != 0) return false;
  do {
    shorter->mantissa /= 10;
    ++shorter->exponent;
  } while (shorter->mantissa % 10 == 0);
  return true;
}

bool ml__decimal_to_double_slow(const ml_decimal *number, double *out) {
  uint64_t bits, below;
  if (!convert(number, binary64, &bits, &below)) {
    ml_decimal shorter;
    if (without_zeros(number, &shorter) && ml__decimal_exact(&shorter, out)) return true;
    bits = decide_exactly(number, below, binary64);
  }
  uint64_t with_sign = bits | (uint64_t)number->negative << 63;
  memcpy(out, &with_sign, sizeof *out);
  return bits != infinity_of(binary64);
}

bool ml__decimal_to_float_slow(const ml_decimal *number, float *out) {
  uint64_t bits, below;
  if (!convert(number, binary32, &bits, &below)) {
    ml_decimal shorter;
    if (without_zeros(number, &shorter) && ml__decimal_exact_float(&shorter, out)) return true;
    bits = decide_exactly(number, below, binary32);
  }
  uint32_t with_sign = (uint32_t)bits | (uint32_t)number->negative << 31;
  memcpy(out, &with_sign, sizeof *out);
  return bits != infinity_of(binary32);
}

/* Over 19 digits were scanned: keeps the first 19 significant ones. */
void ml__decimal_truncate(ml_decimal *number) {
  const char *p = number->digits;
  while (p < number->stop && (*p == '0' || *p == '.')) ++p;
  const char *dot = memchr(p, '.', (size_t)(number->stop - p));
  int64_t significant = number->stop - p - (dot != NULL);
  if (significant <= 19) return; /* what the mantissa lost beyond 64 bits were zeros */
  uint64_t mantissa = 0;
  for (int taken = 0; taken < 19; ++p) {
    if (*p == '.') continue;
    mantissa = mantissa * 10 + (uint64_t)(*p - '0');
    ++taken;
  }
  number->mantissa = mantissa;
  number->exponent += significant - 19;
  number->truncated = true;
}

bool ml_decimal_to_uint64(const ml_decimal *number, uint64_t *out) {
  if (!number->integral) return false;
  if (!number->truncated) {
    *out = number->mantissa;
    return number->exponent == 0;
  }
  if (number->exponent != 1) return false;
  uint64_t tens;
  return !__builtin_mul_overflow(number->mantissa, (uint64_t)10, &tens) &&
         !__builtin_add_overflow(tens, (uint64_t)(number->stop[-1] - '0'), out);
}

/* ---- printing ---- */

static const char pairs[201] =
    "0001020304050607080910111213141516171819202122232425262728293031323334353637383940414243444546474849"
    "5051525354555657585960616263646566676869707172737475767778798081828384858687888990919293949596979899";

/* Writes the digits of value so that they end before `end`; returns where they begin. */
static inline char *digits_before(char *end, uint64_t value) {
  while (value >= 100000000) { /* 32-bit division is several times faster */
    uint32_t low = (uint32_t)(value % 100000000);
    value /= 100000000;
    for (int i = 0; i < 4; ++i) {
      end -= 2;
      memcpy(end, pairs + 2 * (low % 100), 2);
      low /= 100;
    }
  }
  uint32_t rest = (uint32_t)value;
  while (rest >= 100) {
    end -= 2;
    memcpy(end, pairs + 2 * (rest % 100), 2);
    rest /= 100;
  }
  if (rest >= 10) {
    end -= 2;
    memcpy(end, pairs + 2 * rest, 2);
  } else {
    *--end = (char)('0' + rest);
  }
  return end;
}

/* digits * 10^power as text. Plain notation for 1e-5 <= |value| < 1e21, as JSON writers commonly do. */
static size_t layout(uint64_t digits, int power, char *out) {
  char buffer[24], *end = buffer + sizeof buffer;
  char *first = digits_before(end, digits);
  while (end[-1] == '0' && end - first > 1) {
    --end;
    ++power;
  }
  int count = (int)(end - first), scientific = count + power - 1;
  char *to = out;
  if (scientific >= 0 && scientific < 21) {
    int whole = scientific + 1;
    if (count <= whole) {
      memcpy(to, first, (size_t)count);
      memset(to + count, '0', (size_t)(whole - count));
      to += whole;
      *to++ = '.';
      *to++ = '0';
    } else {
      memcpy(to, first, (size_t)whole);
      to += whole;
      *to++ = '.';
      memcpy(to, first + whole, (size_t)(count - whole));
      to += count - whole;
    }
  } else if (scientific < 0 && scientific >= -5) {
    memcpy(to, "0.0000", 6);
    to += 1 - scientific;
    memcpy(to, first, (size_t)count);
    to += count;
  } else {
    *to++ = *first;
    if (count > 1) {
      *to++ = '.';
      memcpy(to, first + 1, (size_t)(count - 1));
      to += count - 1;
    }
    *to++ = 'e';
    if (scientific < 0) {
      *to++ = '-';
      scientific = -scientific;
    }
    char exponent[8];
    char *begin = digits_before(exponent + sizeof exponent, (uint64_t)scientific);
    size_t width = (size_t)(exponent + sizeof exponent - begin);
    memcpy(to, begin, width);
    to += width;
  }
  return (size_t)(to - out);
}

typedef struct shortest { uint64_t digits; int power; } shortest;

/* The choice among candidates, common to both widths: below, at and above are four times the lower end, the value and the upper
 * end of the rounding interval in units of 10^power, rounded to odd; both ends belong to it when the value's mantissa is even. */
static inline shortest choose(uint64_t below, uint64_t at, uint64_t above, bool even, int power) {
  uint64_t lower = below + !even, upper = above - !even, s = at / 4;
  if (s >= 10) { /* one digit less, if exactly one of the two neighbours lies inside */
    uint64_t ten = s / 10;
    bool down = lower <= 40 * ten, up = 40 * ten + 40 <= upper;
    if (down != up) return (shortest){ten + up, power + 1};
  }
  bool down = lower <= 4 * s, up = 4 * s + 4 <= upper;
  if (down != up) return (shortest){s + up, power};
  uint64_t middle = 4 * s + 2;
  return (shortest){s + (at > middle || (at == middle && (s & 1))), power};
}

/* c * 10^-k scaled: the high part of the product with a sticky last bit (that 1 may still be the table's error is part of the
 * proof) */
static inline uint64_t scale64(uint64_t high, uint64_t low, uint64_t c) {
  wide x = (wide)low * c, y = (wide)high * c + (uint64_t)(x >> 64);
  return (uint64_t)(y >> 64) | ((uint64_t)y > 1);
}

static inline uint64_t scale32(uint64_t power, uint32_t c) {
  wide x = (wide)power * c;
  return (uint64_t)(x >> 64) | ((uint32_t)((uint64_t)x >> 32) > 1);
}

/* floor(log10(2^exponent)), or of 3/4 * 2^exponent where the lower neighbour is closer */
static inline int power_for(int exponent, bool closer) {
  return closer ? (exponent * 1262611 - 524031) >> 22 : log10_of_power2(exponent);
}

size_t ml_decimal_print_double(double value, char out[ML_DECIMAL_MAX]) {
  uint64_t bits;
  char *to = out;
  memcpy(&bits, &value, sizeof bits);
  if (bits >> 63) *to++ = '-';
  bits &= INT64_MAX;
  uint64_t fraction = bits & ((UINT64_C(1) << 52) - 1);
  int field = (int)(bits >> 52), exponent = (field > 0 ? field : 1) - 1075;
  assert(field < 2047);
  uint64_t c = field > 0 ? fraction | UINT64_C(1) << 52 : fraction;
  if (bits == 0 || (exponent <= 0 && exponent > -53 && (c & ((UINT64_C(1) << -exponent) - 1)) == 0))
    return layout(bits == 0 ? 0 : c >> -exponent, 0, to) + (size_t)(to - out); /* an integer below 2^53 */
  bool closer = fraction == 0 && field > 1;
  int k = power_for(exponent, closer), h = exponent + log2_of_power10(-k) + 1;
  const uint64_t *power = ml__powers[-k - ML__POWER_MIN];
  uint64_t low = power[1] + 1, high = power[0] + (low == 0);
  shortest best = choose(scale64(high, low, (4 * c - 2 + closer) << h), scale64(high, low, (4 * c) << h),
                         scale64(high, low, (4 * c + 2) << h), (c & 1) == 0, k);
  return layout(best.digits, best.power, to) + (size_t)(to - out);
}

size_t ml_decimal_print_float(float value, char out[ML_DECIMAL_MAX]) {
  uint32_t bits;
  char *to = out;
  memcpy(&bits, &value, sizeof bits);
  if (bits >> 31) *to++ = '-';
  bits &= INT32_MAX;
  uint32_t fraction = bits & ((1u << 23) - 1);
  int field = (int)(bits >> 23), exponent = (field > 0 ? field : 1) - 150;
  assert(field < 255);
  uint32_t c = field > 0 ? fraction | 1u << 23 : fraction;
  if (bits == 0 || (exponent <= 0 && exponent > -24 && (c & ((1u << -exponent) - 1)) == 0))
    return layout(bits == 0 ? 0 : c >> -exponent, 0, to) + (size_t)(to - out);
  bool closer = fraction == 0 && field > 1;
  int k = power_for(exponent, closer), h = exponent + log2_of_power10(-k) + 1;
  uint64_t power = ml__powers[-k - ML__POWER_MIN][0] + 1;
  shortest best = choose(scale32(power, (4 * c - 2 + closer) << h), scale32(power, (4 * c) << h),
                         scale32(power, (4 * c + 2) << h), (c & 1) == 0, k);
  return layout(best.digits, best.power, to) + (size_t)(to - out);
}

static size_t print_digits(uint64_t value, char *out) {
  char buffer[24];
  char *first = digits_before(buffer + sizeof buffer, value);
  size_t length = (size_t)(buffer + sizeof buffer - first);
  memcpy(out, first, length);
  return length;
}

size_t ml_decimal_print_uint64(uint64_t value, char out[ML_DECIMAL_MAX]) { return print_digits(value, out); }

size_t ml_decimal_print_int64(int64_t value, char out[ML_DECIMAL_MAX]) {
  if (value >= 0) return print_digits((uint64_t)value, out);
  *out = '-';
  return 1 + print_digits(0 - (uint64_t)value, out + 1);
}

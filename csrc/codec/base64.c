#include "codec/base64.h"

#include <stdint.h>
#include <string.h>

#include "base/alloc.h"

static const char alphabet[65] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* value + 1 of each character of the alphabet, 0 elsewhere; so that the rest of the table is what C fills in */
static const uint8_t value_plus_one[256] = {
    ['A'] = 1,  ['B'] = 2,  ['C'] = 3,  ['D'] = 4,  ['E'] = 5,  ['F'] = 6,  ['G'] = 7,  ['H'] = 8,  ['I'] = 9,  ['J'] = 10,
    ['K'] = 11, ['L'] = 12, ['M'] = 13, ['N'] = 14, ['O'] = 15, ['P'] = 16, ['Q'] = 17, ['R'] = 18, ['S'] = 19, ['T'] = 20,
    ['U'] = 21, ['V'] = 22, ['W'] = 23, ['X'] = 24, ['Y'] = 25, ['Z'] = 26, ['a'] = 27, ['b'] = 28, ['c'] = 29, ['d'] = 30,
    ['e'] = 31, ['f'] = 32, ['g'] = 33, ['h'] = 34, ['i'] = 35, ['j'] = 36, ['k'] = 37, ['l'] = 38, ['m'] = 39, ['n'] = 40,
    ['o'] = 41, ['p'] = 42, ['q'] = 43, ['r'] = 44, ['s'] = 45, ['t'] = 46, ['u'] = 47, ['v'] = 48, ['w'] = 49, ['x'] = 50,
    ['y'] = 51, ['z'] = 52, ['0'] = 53, ['1'] = 54, ['2'] = 55, ['3'] = 56, ['4'] = 57, ['5'] = 58, ['6'] = 59, ['7'] = 60,
    ['8'] = 61, ['9'] = 62, ['+'] = 63, ['/'] = 64};

bool ml_base64_encoded_size(size_t size, size_t *characters) {
  return ml_mul_size(size / 3 + (size % 3 != 0), 4, characters);
}

void ml_base64_encode(const void *bytes, size_t size, char *text) {
  const uint8_t *from = bytes;
  char *to = text;
  for (; size >= 3; size -= 3, from += 3, to += 4) {
    unsigned group = (unsigned)from[0] << 16 | (unsigned)from[1] << 8 | from[2];
    to[0] = alphabet[group >> 18];
    to[1] = alphabet[group >> 12 & 63];
    to[2] = alphabet[group >> 6 & 63];
    to[3] = alphabet[group & 63];
  }
  if (size == 0) return;
  unsigned group = (unsigned)from[0] << 16 | (size == 2 ? (unsigned)from[1] << 8 : 0);
  to[0] = alphabet[group >> 18];
  to[1] = alphabet[group >> 12 & 63];
  to[2] = size == 2 ? alphabet[group >> 6 & 63] : '=';
  to[3] = '=';
}

static inline bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

ml_status ml_base64_decode(const char *text, size_t length, void *bytes, size_t *size, ml_error *err) {
  const unsigned char *from = (const unsigned char *)text;
  uint8_t *to = bytes;
  uint32_t group = 0;
  unsigned held = 0; /* characters in group */
  size_t i = 0, last = 0;
  *size = 0;
  while (i < length) {
    while (held == 0 && length - i >= 4) { /* whole groups without white space */
      unsigned a = value_plus_one[from[i]], b = value_plus_one[from[i + 1]], c = value_plus_one[from[i + 2]],
               d = value_plus_one[from[i + 3]];
      if (a == 0 || b == 0 || c == 0 || d == 0) break;
      uint32_t whole = (a - 1) << 18 | (b - 1) << 12 | (c - 1) << 6 | (d - 1);
      to[0] = (uint8_t)(whole >> 16);
      to[1] = (uint8_t)(whole >> 8);
      to[2] = (uint8_t)whole;
      to += 3;
      i += 4;
    }
    if (i == length) break;
    unsigned value = value_plus_one[from[i]];
    if (value == 0) {
      if (is_space(text[i])) {
        ++i;
        continue;
      }
      if (text[i] == '=') break;
      return ml_fail(err, ML_INVALID_ARGUMENT, "base64: character 0x%02x at offset %zu is not in the alphabet", from[i], i);
    }
    last = i++;
    group = group << 6 | (value - 1);
    if (++held == 4) {
      to[0] = (uint8_t)(group >> 16);
      to[1] = (uint8_t)(group >> 8);
      to[2] = (uint8_t)group;
      to += 3;
      group = 0;
      held = 0;
    }
  }
  unsigned padding = 0;
  for (size_t k = i; k < length; ++k) {
    if (is_space(text[k])) continue;
    if (text[k] != '=')
      return ml_fail(err, ML_INVALID_ARGUMENT, "base64: character 0x%02x at offset %zu follows the padding", from[k], k);
    if (held < 2 || ++padding + held > 4) return ml_fail(err, ML_INVALID_ARGUMENT, "base64: unexpected padding at offset %zu", k);
  }
  if (padding > 0 && padding + held != 4)
    return ml_fail(err, ML_INVALID_ARGUMENT, "base64: padding cut short at offset %zu", length);
  if (held == 1) return ml_fail(err, ML_INVALID_ARGUMENT, "base64: the lone character at offset %zu holds no whole byte", last);
  if (held > 1) {
    unsigned unused = held == 2 ? 4 : 2;
    if ((group & ((1u << unused) - 1)) != 0)
      return ml_fail(err, ML_INVALID_ARGUMENT, "base64: unused bits of the character at offset %zu are not zero", last);
    group >>= unused;
    if (held == 3) *to++ = (uint8_t)(group >> 8);
    *to++ = (uint8_t)group;
  }
  *size = (size_t)(to - (uint8_t *)bytes);
  return ML_OK;
}

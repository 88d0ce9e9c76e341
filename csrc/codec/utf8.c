#include "codec/utf8.h"

#include <stdint.h>
#include <string.h>

static inline bool is_tail(unsigned char byte) { return (byte & 0xc0) == 0x80; }

size_t ml_utf8_sequence(const unsigned char *bytes, size_t left, size_t *bad) {
  size_t length, seen = 1;
  unsigned char lowest = 0x80, highest = 0xbf; /* what the second byte may be: rules out overlong forms and surrogates */
  if (bad != NULL) *bad = 1;
  if (left == 0) return 0;
  unsigned char lead = bytes[0];
  if (lead < 0x80) return 1;
  if (lead < 0xc2 || lead > 0xf4) return 0;
  if (lead < 0xe0) {
    length = 2;
  } else if (lead < 0xf0) {
    length = 3;
    if (lead == 0xe0) lowest = 0xa0;
    else if (lead == 0xed) highest = 0x9f;
  } else {
    length = 4;
    if (lead == 0xf0) lowest = 0x90;
    else if (lead == 0xf4) highest = 0x8f;
  }
  if (left > 1 && bytes[1] >= lowest && bytes[1] <= highest) {
    seen = 2;
    while (seen < length && seen < left && is_tail(bytes[seen])) ++seen;
  }
  if (seen == length) return length;
  if (bad != NULL) *bad = seen;
  return 0;
}

bool ml_utf8_valid(const void *bytes, size_t length, size_t *bad_offset) {
  const unsigned char *at = bytes;
  size_t i = 0;
  while (i < length) {
    while (length - i >= 32) { /* four words of ASCII a turn */
      uint64_t word[4];
      memcpy(word, at + i, sizeof word);
      if (((word[0] | word[1] | word[2] | word[3]) & 0x8080808080808080u) != 0) break;
      i += 32;
    }
    /* Up to 32 bytes one by one, so that text which is seldom ASCII does not try the words after every character. */
    size_t stop = length - i > 32 ? i + 32 : length;
    while (i < stop) {
      if (at[i] < 0x80) {
        ++i;
        continue;
      }
      size_t width = ml_utf8_sequence(at + i, length - i, NULL);
      if (width == 0) {
        if (bad_offset != NULL) *bad_offset = i;
        return false;
      }
      i += width;
    }
  }
  return true;
}

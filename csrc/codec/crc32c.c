/* CRC-32C: eight bytes a step, by table (slicing-by-8: Kounavis and Berry, "A Systematic Approach to Building High Performance
 * Software-based CRC Generators", 2005) or by the processor's own instruction.
 * A remainder is linear in the bits of the message, so the eight tables of 256 follow from what each of the eight bits of a byte
 * leaves behind when 0 to 7 zero bytes come after it: 64 constants (reflected polynomial 0x82f63b78), from which the preprocessor
 * makes the tables. Nothing is computed at start-up and nothing can change later. */
#include "codec/crc32c.h"

#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__ARM_FEATURE_CRC32)
#include <arm_acle.h>
#endif

#define ENTRY(n, b0, b1, b2, b3, b4, b5, b6, b7)                                                                       \
  (((n)&1 ? b0 : 0) ^ ((n)&2 ? b1 : 0) ^ ((n)&4 ? b2 : 0) ^ ((n)&8 ? b3 : 0) ^ ((n)&16 ? b4 : 0) ^ ((n)&32 ? b5 : 0) ^ \
   ((n)&64 ? b6 : 0) ^ ((n)&128 ? b7 : 0))
#define BASIS0(F, n) F(n, 0xf26b8303u, 0xe13b70f7u, 0xc79a971fu, 0x8ad958cfu, 0x105ec76fu, 0x20bd8edeu, 0x417b1dbcu, 0x82f63b78u)
#define BASIS1(F, n) F(n, 0x13a29877u, 0x274530eeu, 0x4e8a61dcu, 0x9d14c3b8u, 0x3fc5f181u, 0x7f8be302u, 0xff17c604u, 0xfbc3faf9u)
#define BASIS2(F, n) F(n, 0xa541927eu, 0x4f6f520du, 0x9edea41au, 0x38513ec5u, 0x70a27d8au, 0xe144fb14u, 0xc76580d9u, 0x8b277743u)
#define BASIS3(F, n) F(n, 0xdd45aab8u, 0xbf672381u, 0x7b2231f3u, 0xf64463e6u, 0xe964b13du, 0xd725148bu, 0xaba65fe7u, 0x52a0c93fu)
#define BASIS4(F, n) F(n, 0x38116facu, 0x7022df58u, 0xe045beb0u, 0xc5670b91u, 0x8f2261d3u, 0x1ba8b557u, 0x37516aaeu, 0x6ea2d55cu)
#define BASIS5(F, n) F(n, 0xef306b19u, 0xdb8ca0c3u, 0xb2f53777u, 0x6006181fu, 0xc00c303eu, 0x85f4168du, 0x0e045bebu, 0x1c08b7d6u)
#define BASIS6(F, n) F(n, 0x68032cc8u, 0xd0065990u, 0xa5e0c5d1u, 0x4e2dfd53u, 0x9c5bfaa6u, 0x3d5b83bdu, 0x7ab7077au, 0xf56e0ef4u)
#define BASIS7(F, n) F(n, 0x493c7d27u, 0x9278fa4eu, 0x211d826du, 0x423b04dau, 0x847609b4u, 0x0d006599u, 0x1a00cb32u, 0x34019664u)
#define ROW4(B, n) B(ENTRY, (n)), B(ENTRY, (n) + 1), B(ENTRY, (n) + 2), B(ENTRY, (n) + 3)
#define ROW16(B, n) ROW4(B, n), ROW4(B, (n) + 4), ROW4(B, (n) + 8), ROW4(B, (n) + 12)
#define ROW64(B, n) ROW16(B, n), ROW16(B, (n) + 16), ROW16(B, (n) + 32), ROW16(B, (n) + 48)
#define TABLE(B) {ROW64(B, 0), ROW64(B, 64), ROW64(B, 128), ROW64(B, 192)}

/* table[k][n]: what byte n leaves when k zero bytes follow it */
static const uint32_t table[8][256] = {TABLE(BASIS0), TABLE(BASIS1), TABLE(BASIS2), TABLE(BASIS3),
                                       TABLE(BASIS4), TABLE(BASIS5), TABLE(BASIS6), TABLE(BASIS7)};

uint32_t ml_crc32c_portable(uint32_t crc, const void *bytes, size_t size) {
  const uint8_t *p = bytes;
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint32_t low = crc ^ ((uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24);
    crc = table[7][low & 0xff] ^ table[6][low >> 8 & 0xff] ^ table[5][low >> 16 & 0xff] ^ table[4][low >> 24] ^ table[3][p[4]] ^
          table[2][p[5]] ^ table[1][p[6]] ^ table[0][p[7]];
  }
  for (; size > 0; --size) crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
  return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const void *bytes, size_t size) {
  const uint8_t *p = bytes;
  uint64_t wide = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    wide = _mm_crc32_u64(wide, word);
  }
  crc = (uint32_t)wide;
  for (; size > 0; --size) crc = _mm_crc32_u8(crc, *p++);
  return ~crc;
}

uint32_t ml_crc32c(uint32_t crc, const void *bytes, size_t size) {
  return __builtin_cpu_supports("sse4.2") ? crc32c_sse42(crc, bytes, size) : ml_crc32c_portable(crc, bytes, size);
}
#elif defined(__ARM_FEATURE_CRC32)
uint32_t ml_crc32c(uint32_t crc, const void *bytes, size_t size) {
  const uint8_t *p = bytes;
  crc = ~crc;
  for (; size >= 8; size -= 8, p += 8) {
    uint64_t word;
    memcpy(&word, p, sizeof word);
    crc = __crc32cd(crc, word);
  }
  for (; size > 0; --size) crc = __crc32cb(crc, *p++);
  return ~crc;
}
#else
uint32_t ml_crc32c(uint32_t crc, const void *bytes, size_t size) { return ml_crc32c_portable(crc, bytes, size); }
#endif

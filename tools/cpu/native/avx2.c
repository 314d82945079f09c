/* avx2.c: AVX2 with FMA, and for int8 products of 16-bit numbers, or (VNNI) AVX-VNNI. */
#ifdef __x86_64__

#include <immintrin.h>

#include "net.h"

#define FLOATS
#define WIDTH 256

#ifdef VNNI
TARGET("avx2,fma,avxvnni")
#define FAMILY native_avx2_vnni
enum { WORDS = 0 };
#else
TARGET("avx2,fma")
#define FAMILY native_avx2
enum { WORDS = 1 }; /* int8 is multiplied as 16-bit numbers: sums of products of bytes would overflow 16 bits */
#endif

#include "pieces.h"

/* As rows.h wants them. 6 rows need 12 of the 16 registers for sums; words leave room for 4. */
enum { COLUMNS = 16, UNROLL = 2 };
INLINE int at_once(enum number num) { return WORDS && num != F32 ? 4 : 6; }

typedef struct { __m256i bytes, odd; } group; /* with WORDS, of int8: bytes of even k's and of odd ones as words */

INLINE group of_row(enum number num, const void *p) {
    __m256i x = _mm256_set1_epi32(*(const int32_t *)p);
    return WORDS && num != F32 ? (group){_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)} : (group){x};
}

INLINE group of_columns(enum number num, const void *p) {
    __m256i y = _mm256_loadu_si256(p);
    return WORDS && num != F32 ? (group){_mm256_srai_epi16(_mm256_slli_epi16(y, 8), 8), _mm256_srai_epi16(y, 8)} : (group){y};
}

INLINE vec dot(enum number num, vec c, group x, group y) {
    if (num == F32) return _mm256_fmadd_ps((vec)x.bytes, (vec)y.bytes, c);
#ifdef VNNI
    return (vec)_mm256_dpbusd_avx_epi32((__m256i)c, x.bytes, y.bytes);
#else
    __m256i even = _mm256_madd_epi16(x.bytes, y.bytes), odd = _mm256_madd_epi16(x.odd, y.odd);
    return (vec)_mm256_add_epi32(_mm256_add_epi32((__m256i)c, even), odd);
#endif
}

#include "rows.h"
#include "layers.h"
TARGET_END

#endif

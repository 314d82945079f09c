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

/* c + a 4-byte group of k's (one fp32, four u8) x that group of 8 columns */
INLINE __m256 dot(enum number num, __m256 c, __m256 a, __m256 b) {
    if (num == F32) return _mm256_fmadd_ps(a, b, c);
#ifdef VNNI
    c = (__m256)_mm256_dpbusd_avx_epi32((__m256i)c, (__m256i)a, (__m256i)b);
#endif
    return c;
}

/* The same for int8 where x and b are bytes of even and of odd k's as 16-bit numbers. */
INLINE __m256 dot_words(__m256 c, const __m256i x[2], const __m256i b[2]) {
    __m256i even = _mm256_madd_epi16(x[0], b[0]), odd = _mm256_madd_epi16(x[1], b[1]);
    return (__m256)_mm256_add_epi32(_mm256_add_epi32((__m256i)c, even), odd);
}

INLINE void signed_words(const void *from, __m256i to[2]) {
    __m256i b = _mm256_loadu_si256(from);
    to[0] = _mm256_srai_epi16(_mm256_slli_epi16(b, 8), 8), to[1] = _mm256_srai_epi16(b, 8);
}

/* How many rows go together: 6 need 12 of the 16 registers for sums; words leave room for 4. */
INLINE int at_once(enum number num) { return WORDS && num != F32 ? 4 : 6; }

/* n rows x 16 columns */
INLINE void some_rows(enum number num, int n, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step,
                      int kt, const float *init, long init_row, float *out, long out_row) {
    __m256 c[6][2];
    for (int r = 0; r < n; r++)
        for (int i = 0; i < 2; i++) c[r][i] = init ? _mm256_loadu_ps(init + r * init_row + i * 8) : _mm256_setzero_ps();
    for (int k = 0; k < kt; k++, a += a_step, b += b_step)
#pragma GCC unroll 2
        for (int i = 0; i < 64; i += 4) {
            const float *columns = (const float *)(b + i * 16);
            if (WORDS && num != F32) {
                __m256i b0[2], b1[2];
                signed_words(columns, b0), signed_words(columns + 8, b1);
#pragma GCC unroll 4
                for (int r = 0; r < n; r++) {
                    __m256i x = _mm256_set1_epi32(*(const int32_t *)(a + r * a_row + i));
                    __m256i words[2] = {_mm256_and_si256(x, _mm256_set1_epi16(255)), _mm256_srli_epi16(x, 8)};
                    c[r][0] = dot_words(c[r][0], words, b0);
                    c[r][1] = dot_words(c[r][1], words, b1);
                }
                continue;
            }
            __m256 b0 = _mm256_loadu_ps(columns), b1 = _mm256_loadu_ps(columns + 8);
#pragma GCC unroll 6
            for (int r = 0; r < n; r++) {
                __m256 x = _mm256_broadcast_ss((const float *)(a + r * a_row + i));
                c[r][0] = dot(num, c[r][0], x, b0);
                c[r][1] = dot(num, c[r][1], x, b1);
            }
        }
    for (int r = 0; r < n; r++, out += out_row) _mm256_storeu_ps(out, c[r][0]), _mm256_storeu_ps(out + 8, c[r][1]);
}

#include "halves.h"
#include "layers.h"
TARGET_END

#endif

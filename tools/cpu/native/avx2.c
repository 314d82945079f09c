/* avx2.c: AVX2 with FMA for fp32, and with AVX-VNNI for int8. */
#ifdef __x86_64__

#include <immintrin.h>

#pragma GCC target("avx2,fma")

#include "net.h"

typedef float act;
enum { SHIFTED = 1 };
#define FLOATS

#include "vectors.h"
#include "pieces.h"

/* c + a 4-byte group of k's (one fp32, four u8) x that group of 8 columns */
INLINE __m256 dot(enum number num, __m256 c, __m256 a, __m256 b) {
    if (num == F32) return _mm256_fmadd_ps(a, b, c);
    /* by its name, since the file's target lacks it: only a CPU that has it is asked for int8 */
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(c) : "x"(a), "x"(b));
    return c;
}

/* n rows x 16 columns: with n = 6, 12 of the 16 registers are sums */
INLINE void some_rows(enum number num, int n, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step,
                      int kt, const int32_t *init, float *out, long out_row) {
    __m256 c[6][2];
    for (int r = 0; r < n; r++)
        for (int i = 0; i < 2; i++) c[r][i] = init ? _mm256_loadu_ps((const float *)init + i * 8) : _mm256_setzero_ps();
    for (int k = 0; k < kt; k++, a += a_step, b += b_step)
#pragma GCC unroll 2
        for (int i = 0; i < 64; i += 4) {
            const float *columns = (const float *)(b + i * 16);
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
#include "products.h"
#include "attention.h"

static void nothing(void) {}

#include "layers.h"

const struct family native_avx2 = {sizeof(act), SHIFTED, 16, nothing, nothing, run_blocks, run_tail};

#endif

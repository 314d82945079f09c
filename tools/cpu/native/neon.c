/* neon.c: Arm's 128-bit vectors: with bf16 activations, BFDOT and (int8) USDOT, or (FLOATS) in fp32. */
#ifdef __aarch64__

#include <arm_neon.h>

#ifdef FLOATS
typedef float act;
#define FAMILY native_neon
#else
#pragma GCC target("arch=armv8.2-a+bf16+i8mm")
#include <stdint.h>
typedef uint16_t act;
#define FAMILY native_neon_bf16
#endif

#include "net.h"

enum { SHIFTED = 1 };

#include "vectors.h"
#include "pieces.h"

/* c + a 4-byte group of k's (one fp32, two bf16, four u8) x that group of 4 columns */
INLINE float32x4_t dot(enum number num, float32x4_t c, float32x4_t a, float32x4_t b) {
#ifdef FLOATS
    return vfmaq_f32(c, a, b);
#else
    if (num == BF16) return vbfdotq_f32(c, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
    int32x4_t sum = vusdotq_s32(vreinterpretq_s32_f32(c), vreinterpretq_u8_f32(a), vreinterpretq_s8_f32(b));
    return vreinterpretq_f32_s32(sum);
#endif
}

/* n rows x 16 columns: with n = 6, 24 of the 32 registers are sums */
INLINE void some_rows(enum number num, int n, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step,
                      int kt, const int32_t *init, float *out, long out_row) {
    float32x4_t c[6][4];
    for (int r = 0; r < n; r++)
        for (int i = 0; i < 4; i++) c[r][i] = init ? vld1q_f32((const float *)init + i * 4) : vdupq_n_f32(0);
    for (int k = 0; k < kt; k++, a += a_step, b += b_step)
        for (int i = 0; i < 64; i += 4) {
            float32x4_t column[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; j++) column[j] = vld1q_f32((const float *)(b + i * 16 + j * 16));
#pragma GCC unroll 6
            for (int r = 0; r < n; r++) {
                float32x4_t x = vld1q_dup_f32((const float *)(a + r * a_row + i));
#pragma GCC unroll 4
                for (int j = 0; j < 4; j++) c[r][j] = dot(num, c[r][j], x, column[j]);
            }
        }
    for (int r = 0; r < n; r++, out += out_row)
        for (int i = 0; i < 4; i++) vst1q_f32(out + i * 4, c[r][i]);
}

#include "halves.h"
#include "products.h"
#include "attention.h"

static void nothing(void) {}

#include "layers.h"

const struct family FAMILY = {sizeof(act), SHIFTED, 16, nothing, nothing, run_blocks, run_tail};

#endif

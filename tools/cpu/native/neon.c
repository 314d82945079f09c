/* neon.c: Arm's 128-bit vectors: with bf16 activations, BFDOT and (int8) USDOT, or (FLOATS) in fp32. */
#ifdef __aarch64__

#include <arm_neon.h>

#include "net.h"

#ifdef FLOATS
#define FAMILY native_neon
#else
TARGET("arch=armv8.2-a+bf16+i8mm")
#define FAMILY native_neon_bf16
#endif

#define WIDTH 128
#include "pieces.h"

/* c + a 4-byte group of k's (one fp32, two bf16, four u8) x that group of 4 columns */
INLINE float32x4_t dot(enum number num, float32x4_t c, float32x4_t a, float32x4_t b) {
#ifdef FLOATS
    if (num == F32) return vfmaq_f32(c, a, b);
    int16x8_t x = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_f32(a)))), y[2]; /* twice the group */
    y[0] = vmovl_s8(vget_low_s8(vreinterpretq_s8_f32(b))), y[1] = vmovl_s8(vget_high_s8(vreinterpretq_s8_f32(b)));
    int32x4_t each[4]; /* column's four products */
    for (int i = 0; i < 2; i++) {
        each[2 * i] = vmull_s16(vget_low_s16(x), vget_low_s16(y[i]));
        each[2 * i + 1] = vmull_s16(vget_high_s16(x), vget_high_s16(y[i]));
    }
    int32x4_t four = vpaddq_s32(vpaddq_s32(each[0], each[1]), vpaddq_s32(each[2], each[3]));
    return vreinterpretq_f32_s32(vaddq_s32(vreinterpretq_s32_f32(c), four));
#else
    if (num == BF16) return vbfdotq_f32(c, vreinterpretq_bf16_f32(a), vreinterpretq_bf16_f32(b));
    int32x4_t sum = vusdotq_s32(vreinterpretq_s32_f32(c), vreinterpretq_u8_f32(a), vreinterpretq_s8_f32(b));
    return vreinterpretq_f32_s32(sum);
#endif
}

INLINE int at_once(enum number num) { return 6; }

/* n rows x 16 columns: with n = 6, 24 of the 32 registers are sums */
INLINE void some_rows(enum number num, int n, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step,
                      int kt, const float *init, long init_row, float *out, long out_row) {
    float32x4_t c[6][4];
    for (int r = 0; r < n; r++)
        for (int i = 0; i < 4; i++) c[r][i] = init ? vld1q_f32(init + r * init_row + i * 4) : vdupq_n_f32(0);
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
#include "layers.h"

#endif

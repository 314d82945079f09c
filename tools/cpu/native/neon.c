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

/* As rows.h wants them. With 6 rows, 24 of the 32 registers are sums. */
enum { COLUMNS = 16, UNROLL = 1 };
INLINE int at_once(enum number num) { return 6; }
typedef vec group;
INLINE group of_row(enum number num, const void *p) { return vld1q_dup_f32(p); }
INLINE group of_columns(enum number num, const void *p) { return vld1q_f32(p); }

INLINE vec dot(enum number num, vec c, group a, group b) {
#ifdef FLOATS
    if (num == F32) return vfmaq_f32(c, a, b);
    int16x8_t x = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(vreinterpretq_u8_f32(a)))), y[2]; /* x: the group, twice */
    y[0] = vmovl_s8(vget_low_s8(vreinterpretq_s8_f32(b))), y[1] = vmovl_s8(vget_high_s8(vreinterpretq_s8_f32(b)));
    int32x4_t each[4]; /* the four products of each column */
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

#include "rows.h"
#include "layers.h"

#endif

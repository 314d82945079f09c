/* avx512_emulation.h: AVX-512's and AVX-VNNI's instructions in plain C, each as Intel's manual defines it, for CPUs with AVX2
 * alone: the engine's own sources, compiled for that, compute in AVX-512's order. rcp14 is as near as it must be, not Intel's
 * very bits; and a product of bf16 is rounded as by two multiply-adds. */
#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define TARGET(units) _Pragma("GCC target(\"avx2,fma\")")
#pragma GCC push_options
#pragma GCC target("avx2,fma")

union line {
    __m512 ps;
    __m512i si;
    float f[16];
    int8_t s8[64];
    uint8_t u8[64];
    int16_t s16[32];
    uint16_t u16[32];
    int32_t s32[16];
    uint32_t u32[16];
    int64_t s64[8];
};
#define EACH(n) for (int i = 0; i < n; i++)
#define OPERATION static __attribute__((noinline, unused)) /* inlined, they would take minutes to compile */
#define FIELD_float ps
#define FIELD_whole si
#define TYPE_float __m512
#define TYPE_whole __m512i
/* lines a, b and c of numbers of one kind to a line r: of n elements, `set` sets element i */
#define OF_1(kind, name, n, set) \
    OPERATION TYPE_##kind e_##name(TYPE_##kind x) { \
        union line a = {.FIELD_##kind = x}, r; \
        EACH(n) set; \
        return r.FIELD_##kind; \
    }
#define OF_2(kind, name, n, set, ...) \
    OPERATION TYPE_##kind e_##name(TYPE_##kind x, TYPE_##kind y __VA_ARGS__) { \
        union line a = {.FIELD_##kind = x}, b = {.FIELD_##kind = y}, r; \
        EACH(n) set; \
        return r.FIELD_##kind; \
    }
#define OF_3(kind, name, n, set) \
    OPERATION TYPE_##kind e_##name(TYPE_##kind x, TYPE_##kind y, TYPE_##kind z) { \
        union line a = {.FIELD_##kind = x}, b = {.FIELD_##kind = y}, c = {.FIELD_##kind = z}, r; \
        EACH(n) set; \
        return r.FIELD_##kind; \
    }
#define COMMA ,

OF_3(float, fmadd_ps, 16, r.f[i] = __builtin_fmaf(a.f[i], b.f[i], c.f[i]))
OF_3(float, fmsub_ps, 16, r.f[i] = __builtin_fmaf(a.f[i], b.f[i], -c.f[i]))
OF_3(float, fnmadd_ps, 16, r.f[i] = __builtin_fmaf(-a.f[i], b.f[i], c.f[i]))
OF_2(float, add_ps, 16, r.f[i] = a.f[i] + b.f[i])
OF_2(float, max_ps, 16, r.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i])
OF_2(float, min_ps, 16, r.f[i] = a.f[i] < b.f[i] ? a.f[i] : b.f[i])
OF_1(float, sqrt_ps, 16, r.f[i] = __builtin_sqrtf(a.f[i]))
OF_1(float, rint_ps, 16, r.f[i] = __builtin_rintf(a.f[i]))
OF_1(float, rcp14_ps, 16, (r.f[i] = 1 / a.f[i], r.u32[i] &= ~255u))
OF_2(float, scalef_ps, 16, r.f[i] = b.f[i] < -300 ? 0 : __builtin_ldexpf(a.f[i], (int)b.f[i]))
OF_2(float, least_ps, 16, r.f[i] = __builtin_fminf(__builtin_fabsf(a.f[i]), __builtin_fabsf(b.f[i])))
OF_2(float, most_ps, 16, r.f[i] = __builtin_fmaxf(__builtin_fabsf(a.f[i]), __builtin_fabsf(b.f[i])))
OF_2(float, select_ps, 16, r.f[i] = mask >> i & 1 ? b.f[i] : a.f[i], COMMA uint32_t mask)
OF_2(float, shuffle_ps, 16, r.f[i] = (i & 2 ? b : a).f[i / 4 * 4 + (imm >> i % 4 * 2 & 3)], COMMA const int imm)
OF_2(float, shuffle_f32x4, 16, r.f[i] = (i & 8 ? b : a).f[(imm >> i / 4 * 2 & 3) * 4 + i % 4], COMMA const int imm)
OF_2(whole, shuffle_i32x4, 16, r.s32[i] = (i & 8 ? b : a).s32[(imm >> i / 4 * 2 & 3) * 4 + i % 4], COMMA const int imm)
OF_2(whole, unpack_32, 16, r.s32[i] = (i & 1 ? b : a).s32[i / 4 * 4 + i % 4 / 2 + high * 2], COMMA const int high)
OF_2(whole, unpack_64, 8, r.s64[i] = (i & 1 ? b : a).s64[i / 2 * 2 + high], COMMA const int high)
OF_2(whole, max_epi16, 32, r.s16[i] = a.s16[i] > b.s16[i] ? a.s16[i] : b.s16[i])
OF_2(whole, select_epi16, 32, r.s16[i] = mask >> i & 1 ? b.s16[i] : a.s16[i], COMMA uint32_t mask)
OF_3(whole, permutex2var_epi16, 32, r.s16[i] = (b.s16[i] & 32 ? c : a).s16[b.s16[i] & 31])
OF_3(whole, dpbusd_epi32, 16, (r.s32[i] = a.s32[i] + b.u8[4 * i] * c.s8[4 * i] + b.u8[4 * i + 1] * c.s8[4 * i + 1] +
                               b.u8[4 * i + 2] * c.s8[4 * i + 2] + b.u8[4 * i + 3] * c.s8[4 * i + 3]))
OPERATION float e_bf16(uint16_t x) { return (union { uint32_t u; float f; }){(uint32_t)x << 16}.f; }
OF_3(float, dpbf16, 16, (r.f[i] = __builtin_fmaf(e_bf16(b.u16[2 * i + 1]), e_bf16(c.u16[2 * i + 1]), a.f[i]),
                         r.f[i] = __builtin_fmaf(e_bf16(b.u16[2 * i]), e_bf16(c.u16[2 * i]), r.f[i])))
OF_2(float, cvtne2ps, 32, (r.u16[i] = ((i < 16 ? b : a).u32[i % 16] + 0x7fff + ((i < 16 ? b : a).u32[i % 16] >> 16 & 1)) >> 16))

OPERATION __m512i e_set1_epi32(int32_t x) { union line r; EACH(16) r.s32[i] = x; return r.si; }
OPERATION __m512i e_cvtps_epi32(__m512 x) { union line a = {.ps = x}, r; EACH(16) r.s32[i] = __builtin_rintf(a.f[i]); return r.si; }
OPERATION __m512i e_load(uint64_t mask, int bytes, const void *p) { /* what is masked is not read */
    union line r;
    EACH(64 / bytes) if (mask >> i & 1) memcpy(r.u8 + i * bytes, (const uint8_t *)p + i * bytes, bytes);
        else memset(r.u8 + i * bytes, 0, bytes);
    return r.si;
}
OPERATION uint32_t e_at_least(__m512 x, __m512 y) { union line a = {.ps = x}, b = {.ps = y}; uint32_t m = 0; EACH(16) m |= (a.f[i] >= b.f[i]) << i; return m; }
OPERATION float e_largest(__m512 x) { union line a = {.ps = x}; EACH(16) if (a.f[i] > a.f[0]) a.f[0] = a.f[i]; return a.f[0]; }
OPERATION __m256 e_half(__m512 x, int half) { union line a = {.ps = x}; return _mm256_loadu_ps(a.f + half * 8); }
#define NARROWED(name, to, store, n, from, low, high) \
    OPERATION to e_##name(__m512i x) { \
        union line a = {.si = x}, r; \
        EACH(n) r.u8[i] = a.from[i] < low ? low : a.from[i] > high ? high : a.from[i]; \
        return store((const to *)r.u8); \
    }
NARROWED(cvtsepi32_epi8, __m128i, _mm_loadu_si128, 16, s32, -128, 127)
NARROWED(cvtusepi32_epi8, __m128i, _mm_loadu_si128, 16, u32, 0u, 255u)
NARROWED(cvtsepi16_epi8, __m256i, _mm256_loadu_si256, 32, s16, -128, 127)
NARROWED(cvtusepi16_epi8, __m256i, _mm256_loadu_si256, 32, u16, 0, 255)
OPERATION __m256i e_dpbusd_256(__m256i c, __m256i a, __m256i b) {
    union line x = {.si = {0}}, y = x, z = x;
    memcpy(&x, &c, 32), memcpy(&y, &a, 32), memcpy(&z, &b, 32);
    x.si = e_dpbusd_epi32(x.si, y.si, z.si);
    return memcpy(&c, &x, 32), c;
}
#pragma GCC pop_options

#undef EACH
#undef COMMA
#define _mm512_fmadd_ps e_fmadd_ps
#define _mm512_fmsub_ps e_fmsub_ps
#define _mm512_fnmadd_ps e_fnmadd_ps
#define _mm512_add_ps e_add_ps
#define _mm512_max_ps e_max_ps
#define _mm512_min_ps e_min_ps
#define _mm512_sqrt_ps e_sqrt_ps
#define _mm512_rcp14_ps e_rcp14_ps
#define _mm512_scalef_ps e_scalef_ps
#define _mm512_max_epi16 e_max_epi16
#define _mm512_permutex2var_epi16 e_permutex2var_epi16
#define _mm512_dpbusd_epi32 e_dpbusd_epi32
#define _mm512_set1_epi32 e_set1_epi32
#define _mm512_cvtps_epi32 e_cvtps_epi32
#define _mm512_cvtsepi32_epi8 e_cvtsepi32_epi8
#define _mm512_cvtusepi32_epi8 e_cvtusepi32_epi8
#define _mm512_cvtsepi16_epi8 e_cvtsepi16_epi8
#define _mm512_cvtusepi16_epi8 e_cvtusepi16_epi8
#define _mm512_reduce_max_ps e_largest
#define _mm512_roundscale_ps(x, zero) e_rint_ps(x)
#define _mm512_range_ps(a, b, imm) ((imm) == 10 ? e_least_ps(a, b) : e_most_ps(a, b))
#define _mm512_shuffle_ps e_shuffle_ps
#define _mm512_shuffle_f32x4 e_shuffle_f32x4
#define _mm512_shuffle_i32x4 e_shuffle_i32x4
#define _mm512_cmp_ps_mask(a, b, ge) e_at_least(a, b)
#define _mm512_extractf32x8_ps e_half
#define _mm512_castps512_ps256(x) e_half(x, 0)
#define _mm512_maskz_scalef_ps(mask, x, n) e_select_ps((__m512){0}, e_scalef_ps(x, n), mask)
#define _mm512_maskz_mov_ps(mask, x) e_select_ps((__m512){0}, x, mask)
#define _mm512_mask_mov_ps(old, mask, x) e_select_ps(old, x, mask)
#define _mm512_mask_max_ps(old, mask, x, y) e_select_ps(old, e_max_ps(x, y), mask)
#define _mm512_mask_blend_epi16(mask, x, y) e_select_epi16(x, y, mask)
#define _mm512_unpacklo_epi32(a, b) e_unpack_32(a, b, 0)
#define _mm512_unpackhi_epi32(a, b) e_unpack_32(a, b, 1)
#define _mm512_unpacklo_epi64(a, b) e_unpack_64(a, b, 0)
#define _mm512_unpackhi_epi64(a, b) e_unpack_64(a, b, 1)
#define _mm512_setzero_si512() ((__m512i){0})
#define _mm512_loadu_si512(p) e_load(-1, 4, p)
#define _mm512_loadu_ps(p) ((__m512)e_load(-1, 4, p))
#define _mm512_maskz_loadu_epi32(mask, p) e_load(mask, 4, p)
#define _mm512_maskz_loadu_epi16(mask, p) e_load(mask, 2, p)
#define _mm512_storeu_si512(p, x) do { __m512i stored = x; memcpy(p, &stored, 64); } while (0)
#define _mm512_dpbf16_ps(c, a, b) e_dpbf16(c, (__m512)(a), (__m512)(b))
#define __m512bh __m512
#define _mm512_cvtne2ps_pbh e_cvtne2ps
#define _mm256_dpbusd_avx_epi32 e_dpbusd_256

/* vectors.h: a register of floats, by the units' own instructions where the compiler's portable vectors have no
 * equivalent. A 64-byte line of floats is 16 / VL registers: what works on lines loops over them, and sums up in 16
 * lanes, whose order docs/bits.md defines. Every fused multiply-add is written out: the compiler must make none itself.
 *
 * Whoever includes it has defined WIDTH, the bits of a register; FLOATS where activations between operators are no bf16;
 * and TILES where AMX multiplies. */
#ifdef FLOATS
typedef float act;
#else
typedef uint16_t act;
#endif
#ifdef TILES
enum { SHIFTED = 0, ROWS_AT_ONCE = 32 };
#else
enum { SHIFTED = 1, ROWS_AT_ONCE = 16 }; /* int8 units that multiply u8 by s8: activations are moved up by 128 */
#endif
enum { VL = WIDTH / 32 };
typedef float vec __attribute__((vector_size(4 * VL)));
typedef int32_t ivec __attribute__((vector_size(4 * VL)));
typedef float vec_at __attribute__((vector_size(4 * VL), aligned(4), may_alias)); /* anywhere in memory */
typedef int32_t ivec_at __attribute__((vector_size(4 * VL), aligned(4), may_alias));
typedef uint32_t uvec __attribute__((vector_size(4 * VL)));
typedef uint16_t words __attribute__((vector_size(2 * VL)));
typedef uint16_t words_at __attribute__((vector_size(2 * VL), aligned(2), may_alias));

enum { KA = 64 / sizeof(act) }; /* activations in a 64-byte line */

INLINE vec V(float x) { return (vec){0} + x; }
INLINE vec load(const void *p) { return *(const vec_at *)p; }
INLINE void store(void *p, vec x) { *(vec_at *)p = x; }
INLINE vec absolute(vec a) { return (vec)((ivec)a & 0x7fffffff); }
INLINE vec whole(ivec x) { return __builtin_convertvector(x, vec); }

/* put_8: the nearest integers, as bytes of u8 or s8; the signed ones moved up by 128 where SHIFTED */

#if WIDTH >= 256
/* halves are added until one is left */
INLINE float total_of_8(__m256 x) {
    __m128 s = _mm256_castps256_ps128(x) + _mm256_extractf128_ps(x, 1);
    s += _mm_movehl_ps(s, s);
    return s[0] + s[1];
}
#endif

#if WIDTH == 512

INLINE vec fma3(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec max2(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec min2(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec root(vec a) { return _mm512_sqrt_ps(a); }
INLINE vec nearest(vec x) { return _mm512_roundscale_ps(x, 0); }
INLINE vec times_2_to(vec x, vec n) {
    if (sizeof(act) == 2) return _mm512_scalef_ps(x, n);
    return _mm512_maskz_scalef_ps(_mm512_cmp_ps_mask(n, V(-126), _CMP_GE_OQ), x, n);
}
INLINE vec least_absolute(vec x, vec y) { return _mm512_range_ps(x, y, 10); }
INLINE float total(const vec *x) { return total_of_8(_mm512_castps512_ps256(*x) + _mm512_extractf32x8_ps(*x, 1)); }
INLINE float largest(vec x) { return _mm512_reduce_max_ps(x); }
INLINE void put_8(enum number num, void *to, vec x) {
    __m512i whole = _mm512_cvtps_epi32(x);
    __m128i n = num == U8 ? _mm512_cvtusepi32_epi8(whole) : _mm512_cvtsepi32_epi8(whole);
    _mm_storeu_si128(to, num == S8 && SHIFTED ? _mm_xor_si128(n, _mm_set1_epi8(-128)) : n);
}

/* The sum or the maximum of each of 16 vectors, in one vector: a tree of 15 joins instead of 16 reductions, each of which
 * adds halves as `total` does. The vector in slot r ends in element r: the inputs are taken in the order that undoes the
 * tree's own. */
#define JOIN(op, shuffle, a, b, i, j) op(shuffle(a, b, i), shuffle(a, b, j))
#define TREE(name, op) \
    INLINE vec name(const vec v[16]) { \
        __m512 e[4]; \
        for (int i = 0; i < 4; i++) \
            e[i] = JOIN(op, _mm512_shuffle_f32x4, JOIN(op, _mm512_shuffle_f32x4, v[i], v[4 + i], 0x44, 0xee), \
                        JOIN(op, _mm512_shuffle_f32x4, v[8 + i], v[12 + i], 0x44, 0xee), 0x88, 0xdd); \
        return JOIN(op, _mm512_shuffle_ps, JOIN(op, _mm512_shuffle_ps, e[0], e[1], 0x44, 0xee), \
                    JOIN(op, _mm512_shuffle_ps, e[2], e[3], 0x44, 0xee), 0x88, 0xdd); \
    }
TREE(sum16, _mm512_add_ps)
TREE(max16, _mm512_max_ps)
INLINE void totals(const vec v[16][16 / VL], float to[16]) { store(to, sum16(*v)); }

#else

#if WIDTH == 256
INLINE vec fma3(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
INLINE vec max2(vec a, vec b) { return _mm256_max_ps(a, b); }
INLINE vec min2(vec a, vec b) { return _mm256_min_ps(a, b); }
INLINE vec root(vec a) { return _mm256_sqrt_ps(a); }
INLINE vec nearest(vec x) { return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
INLINE float total(const vec *x) { return total_of_8(x[0] + x[1]); }
INLINE float largest(vec x) {
    __m128 s = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_max_ps(s, _mm_movehl_ps(s, s));
    return MAX(s[0], s[1]);
}
INLINE void put_8(enum number num, void *to, vec x) {
    __m256i n = _mm256_cvtps_epi32(x);
    __m128i p = _mm_packs_epi32(_mm256_castsi256_si128(n), _mm256_extracti128_si256(n, 1));
    _mm_storel_epi64(to, num == U8 ? _mm_packus_epi16(p, p) : _mm_xor_si128(_mm_packs_epi16(p, p), _mm_set1_epi8(-128)));
}
#else
INLINE vec fma3(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
INLINE vec max2(vec a, vec b) { return vmaxq_f32(a, b); }
INLINE vec min2(vec a, vec b) { return vminq_f32(a, b); }
INLINE vec root(vec a) { return vsqrtq_f32(a); }
INLINE vec nearest(vec x) { return vrndnq_f32(x); }
INLINE float total(const vec *x) {
    vec s = (x[0] + x[2]) + (x[1] + x[3]);
    float32x2_t t = vadd_f32(vget_low_f32(s), vget_high_f32(s));
    return t[0] + t[1];
}
INLINE float largest(vec x) { return vmaxvq_f32(x); }
INLINE void put_8(enum number num, void *to, vec x) {
    int16x4_t n = vqmovn_s32(vcvtnq_s32_f32(x));
    int16x8_t p = vcombine_s16(n, n);
    uint8x8_t q = num == U8 ? vqmovun_s16(p) : veor_u8(vreinterpret_u8_s8(vqmovn_s16(p)), vdup_n_u8(128));
    memcpy(to, &q, 4);
}
#endif

INLINE vec least_absolute(vec x, vec y) { return min2(absolute(x), absolute(y)); }
INLINE vec times_2_to(vec x, vec n) { /* x in [1/2, 2]; n is a whole number, at most 127; 0 where it is below -126 */
    return x * (vec)((__builtin_convertvector(max2(n, V(-127)), ivec) + 127) << 23);
}
INLINE void totals(const vec v[16][16 / VL], float to[16]) {
    for (int r = 0; r < 16; r++) to[r] = total(v[r]);
}

#endif

/* 2^x: minimax polynomial on [-1/2, 1/2]; relative error 2e-7, or 7e-5 where the result becomes bf16 (rough) */
INLINE vec exp2v(vec x, int rough) {
    vec n = nearest(x), f = x - n, p;
    if (rough) {
        p = fma3(V(0.055171772837638855f), f, V(0.2426113784313202f));
        p = fma3(p, f, V(0.6932609677314758f));
        return times_2_to(fma3(p, f, V(0.9999279975891113f)), n);
    }
    p = fma3(V(0.0013276472454890609f), f, V(0.009675541892647743f));
    p = fma3(p, f, V(0.05550713092088699f));
    p = fma3(p, f, V(0.24022120237350464f));
    p = fma3(p, f, V(0.6931469440460205f));
    return times_2_to(fma3(p, f, V(1.0000001192092896f)), n);
}

/* x Phi(x) = max(x, 0) + an even function, here a polynomial in min(|x|, 3.9) that is 0 at both ends: nine operations;
 * absolute error 1.9e-4, a tenth of what rounding a result near 1 to bf16 costs. Where the result stays fp32 (fine) it
 * is -|x| Phi(-|x|), by Abramowitz and Stegun 7.1.26, whose error is 1.5e-7. */
INLINE vec gelu(vec x, int fine) {
    if (fine) {
        vec z = absolute(x), t = 1 / fma3(z, V(0.23164189f), V(1)); /* 0.3275911 / sqrt(2) */
        vec p = fma3(V(0.530702714f), t, V(-0.7265760135f));        /* their coefficients, halved */
        p = fma3(p, t, V(0.7107068705f));
        p = fma3(p, t, V(-0.142248368f));
        p = fma3(p, t, V(0.127414796f)) * t;
        vec e = exp2v(max2(x * x * -0.72134752f, V(-126)), 0); /* e^(-x^2 / 2) */
        return fma3(-(z * p), e, max2(x, V(0)));
    }
    vec t = least_absolute(x, V(3.9f));
    vec p = fma3(V(0.0007324224570766091f), t, V(-0.011149106547236443f));
    p = fma3(p, t, V(0.06421492248773575f));
    p = fma3(p, t, V(-0.15796837210655212f));
    p = fma3(p, t, V(0.06807174533605576f));
    p = fma3(p, t, V(0.37375563383102417f));
    p = fma3(p, t, V(-0.4962508976459503f));
    return fma3(p, t, max2(x, V(0)));
}

/* x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3) */
INLINE vec gelu_tanh(vec x) {
    vec e = exp2v(min2(x * fma3(x * x, V(-0.1029432397f), V(-2.302208198f)), V(126)), 0);
    return x / (e + 1);
}

INLINE vec tanhv(vec x) { /* 1 - 2 / (e^2x + 1) */
    vec e = exp2v(min2(max2(x, V(-20)), V(20)) * 2.8853900817779268f, 0);
    return 1 - 2 / (e + 1);
}

/* ---- activations -------------------------------------------------------------------------------------- */

/* bf16 as floats */
INLINE vec bf16s(const void *p) { return (vec)(__builtin_convertvector(*(const words_at *)p, ivec) << 16); }

/* activations as floats */
INLINE vec get(const void *p) { return sizeof(act) == 2 ? bf16s(p) : load(p); }

/* the nearest bf16, ties to even */
INLINE words nearest_bf16(vec x) {
    uvec u = (uvec)x;
    return __builtin_convertvector((u + 0x7fff + (u >> 16 & 1)) >> 16, words);
}

/* Floats [j, j + VL) and [16 + j, 16 + j + VL) of 32 as activations; `next`: bytes to the second line, where 16 fill
 * one. */
INLINE void put2(void *to, long next, int j, vec x, vec y) {
    if (sizeof(act) == 4) {
        store((float *)to + j, x);
        store((float *)((uint8_t *)to + next) + j, y);
        return;
    }
#if WIDTH == 512 && !defined(FLOATS)
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x));
#else
    *(words_at *)((act *)to + j) = nearest_bf16(x);
    *(words_at *)((act *)to + 16 + j) = nearest_bf16(y);
#endif
}

/* the 64-byte line of `row` and k-tile `k` in A tiles of `kt` k-tiles */
INLINE void *line(const void *a, int kt, int row, int k) {
    return (uint8_t *)a + ((int64_t)(row / 16) * kt + k) * 1024 + row % 16 * 64;
}

/* the activation of `row` and `column` in A tiles, and those after it up to a multiple of 16 */
INLINE void *cell(const void *a, int kt, int row, int column) {
    return (act *)line(a, kt, row, column / KA) + column % KA;
}

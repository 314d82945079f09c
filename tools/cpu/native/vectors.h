/* vectors.h: 16 floats at a time: in AVX-512 by its own instructions, elsewhere in the compiler's portable vectors.
 *
 * Whoever includes it has defined `act`, the type of an activation between operators: bf16 (uint16_t) or float. */
typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef float vec_at __attribute__((vector_size(64), aligned(4), may_alias)); /* anywhere in memory */
typedef int32_t ivec_at __attribute__((vector_size(64), aligned(4), may_alias));
typedef float quad __attribute__((vector_size(16)));
typedef union { vec v; ivec i; float f[16]; int32_t n[16]; quad q[4]; } lanes;

enum { KA = 64 / sizeof(act) }; /* activations in a 64-byte line */

INLINE vec V(float x) { return (vec){0} + x; }
INLINE vec load(const void *p) { return *(const vec_at *)p; }
INLINE void store(void *p, vec x) { *(vec_at *)p = x; }

#ifdef __AVX512F__

INLINE vec fma16(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
INLINE vec max2(vec a, vec b) { return _mm512_max_ps(a, b); }
INLINE vec min2(vec a, vec b) { return _mm512_min_ps(a, b); }
INLINE vec absolute(vec a) { return _mm512_abs_ps(a); }
INLINE vec root(vec a) { return _mm512_sqrt_ps(a); }
INLINE vec nearest(vec x) { return _mm512_roundscale_ps(x, 0); }
INLINE vec times_2_to(vec x, vec n) { return _mm512_scalef_ps(x, n); }
INLINE vec least_absolute(vec x, vec y) { return _mm512_range_ps(x, y, 10); }
INLINE vec whole(ivec x) { return _mm512_cvtepi32_ps((__m512i)x); }
INLINE float total(vec x) { return _mm512_reduce_add_ps(x); }
INLINE float largest(vec x) { return _mm512_reduce_max_ps(x); }
INLINE void put_s8(void *to, vec x) { _mm_storeu_si128(to, _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x))); }
INLINE void put_u8(void *to, vec x) { _mm_storeu_si128(to, _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(x))); }

/* The sum or the maximum of each of 16 vectors, in one vector: a tree of 15 joins instead of 16 reductions. The
 * vector in slot r ends in element r: the inputs are taken in the order that undoes the tree's own. */
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

#else

#define MAGIC 12582912.0f /* 1.5 x 2^23: x + MAGIC holds the nearest whole number in its low bits */

INLINE vec fma16(vec a, vec b, vec c) { return a * b + c; }
/* by hand: gcc 12 takes a comparison of vectors apart, element by element, where they are longer than a register */
#ifdef __AVX2__
typedef __m256 part;
#define part_max _mm256_max_ps
#define part_min _mm256_min_ps
#else
typedef float32x4_t part;
#define part_max vmaxq_f32
#define part_min vminq_f32
#endif
#define PARTS(name, op) \
    INLINE vec name(vec a, vec b) { \
        union { vec v; part p[64 / sizeof(part)]; } x = {a}, y = {b}; \
        for (unsigned i = 0; i < 64 / sizeof(part); i++) x.p[i] = op(x.p[i], y.p[i]); \
        return x.v; \
    }
PARTS(max2, part_max)
PARTS(min2, part_min)
INLINE vec absolute(vec a) { return (vec)((ivec)a & 0x7fffffff); }
INLINE vec nearest(vec x) { return (x + MAGIC) - MAGIC; }
INLINE vec least_absolute(vec x, vec y) { return min2(absolute(x), absolute(y)); }
INLINE vec whole(ivec x) { return __builtin_convertvector(x, vec); }
INLINE vec times_2_to(vec x, vec n) { /* x in [1/2, 2]; n is at most 127, and below -126 counts as -126 */
    return x * (vec)((ivec)(max2(n, V(-126)) + (MAGIC + 127)) << 23);
}
INLINE vec root(vec a) {
    lanes x = {a};
    for (int i = 0; i < 16; i++) x.f[i] = __builtin_sqrtf(x.f[i]);
    return x.v;
}
INLINE float total(vec v) {
    lanes x = {v};
    quad s = (x.q[0] + x.q[1]) + (x.q[2] + x.q[3]);
    return (s[0] + s[2]) + (s[1] + s[3]);
}
INLINE float largest(vec v) {
    lanes x = {v};
    lanes turned = {.q = {x.q[2], x.q[3], x.q[0], x.q[1]}};
    x.v = max2(v, turned.v);
    turned = (lanes){.q = {x.q[1], x.q[0], x.q[3], x.q[2]}};
    x.v = max2(x.v, turned.v);
    return MAX(MAX(x.f[0], x.f[1]), MAX(x.f[2], x.f[3]));
}
INLINE vec sum16(const vec v[16]) {
    lanes out;
    for (int r = 0; r < 16; r++) out.f[r] = total(v[r]);
    return out.v;
}
INLINE void put_s8(void *to, vec x) {
    lanes n = {.i = (ivec)(x + MAGIC)};
    for (int i = 0; i < 16; i++) ((int8_t *)to)[i] = (int8_t)n.n[i]; /* the low byte of MAGIC is 0 */
}
#define put_u8 put_s8

#endif

/* 2^x: minimax polynomial on [-1/2, 1/2]; relative error 7e-5 where the result becomes bf16 (rough), else 3e-6, or
 * 2e-7 where activations are fp32 */
INLINE vec exp2v(vec x, int rough) {
    vec n = nearest(x), f = x - n, p;
    if (sizeof(act) == 4) {
        p = fma16(V(0.0013276472454890609f), f, V(0.009675541892647743f));
        p = fma16(p, f, V(0.05550713092088699f));
        p = fma16(p, f, V(0.24022120237350464f));
        p = fma16(p, f, V(0.6931469440460205f));
        return times_2_to(fma16(p, f, V(1.0000001192092896f)), n);
    }
    if (rough) {
        p = fma16(V(0.055171772837638855f), f, V(0.2426113784313202f));
        p = fma16(p, f, V(0.6932609677314758f));
        return times_2_to(fma16(p, f, V(0.9999279975891113f)), n);
    }
    p = fma16(V(0.009570085443556309f), f, V(0.0559178926050663f));
    p = fma16(p, f, V(0.2402474582195282f));
    p = fma16(p, f, V(0.6931217908859253f));
    return times_2_to(fma16(p, f, V(0.9999992847442627f)), n);
}

/* x Phi(x) = max(x, 0) + an even function, here a polynomial in min(|x|, 3.9) that is 0 at both ends: nine operations;
 * absolute error 1.9e-4, a tenth of what rounding a result near 1 to bf16 costs. Where the result stays fp32 (fine) it
 * is -|x| Phi(-|x|), by Abramowitz and Stegun 7.1.26, whose error is 1.5e-7. */
INLINE vec gelu(vec x, int fine) {
    if (fine) {
        vec z = absolute(x), t = 1 / fma16(z, V(0.23164189f), V(1)); /* 0.3275911 / sqrt(2) */
        vec p = fma16(V(0.530702714f), t, V(-0.7265760135f));        /* their coefficients, halved */
        p = fma16(p, t, V(0.7107068705f));
        p = fma16(p, t, V(-0.142248368f));
        p = fma16(p, t, V(0.127414796f)) * t;
        vec e = exp2v(max2(x * x * -0.72134752f, V(-126)), 0); /* e^(-x^2 / 2) */
        return fma16(-(z * p), e, max2(x, V(0)));
    }
    vec t = least_absolute(x, V(3.9f));
    vec p = fma16(V(0.0007324224570766091f), t, V(-0.011149106547236443f));
    p = fma16(p, t, V(0.06421492248773575f));
    p = fma16(p, t, V(-0.15796837210655212f));
    p = fma16(p, t, V(0.06807174533605576f));
    p = fma16(p, t, V(0.37375563383102417f));
    p = fma16(p, t, V(-0.4962508976459503f));
    return fma16(p, t, max2(x, V(0)));
}

INLINE vec tanhv(vec x) { /* 1 - 2 / (e^2x + 1) */
    vec e = exp2v(min2(max2(x, V(-20)), V(20)) * 2.8853900817779268f, 0);
    return 1 - 2 / (e + 1);
}

/* ---- activations -------------------------------------------------------------------------------------- */

/* 16 bf16 as floats */
INLINE vec bf16s(const void *p) {
#ifdef __AVX512F__
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(p)), 16);
#else
    lanes x;
    for (int i = 0; i < 16; i++) x.n[i] = (int32_t)((uint32_t)((const uint16_t *)p)[i] << 16);
    return x.v;
#endif
}

/* 16 activations as floats */
INLINE vec get(const void *p) { return sizeof(act) == 2 ? bf16s(p) : load(p); }

/* 32 floats as activations; `next`: bytes to the second line, where 16 fill one */
INLINE void put2(void *to, long next, vec x, vec y) {
    if (sizeof(act) == 4) {
        store(to, x);
        store((uint8_t *)to + next, y);
        return;
    }
#ifdef __AVX512BF16__
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(y, x));
#else
    lanes both[2] = {{x}, {y}};
    for (int i = 0; i < 32; i++) { /* the nearest, ties to even */
        uint32_t u = (uint32_t)both[i / 16].n[i % 16];
        ((uint16_t *)to)[i] = (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
    }
#endif
}

/* the 64-byte line of `row` and k-tile `k` in A tiles of `kt` k-tiles */
INLINE void *line(const void *a, int kt, int row, int k) {
    return (uint8_t *)a + ((int64_t)(row / 16) * kt + k) * 1024 + row % 16 * 64;
}

/* 16 activations of `row`, from column 16 j on, in A tiles */
INLINE void *cell(const void *a, int kt, int row, int j) {
    return (uint8_t *)line(a, kt, row, j * 16 / KA) + j * 16 % KA * sizeof(act);
}

/* peak.c: what this CPU can do at most, to hold the engines against (tools/bench/bench.py).
 *
 *     gcc -O3 -std=gnu11 -shared -fPIC -pthread -o build/lib/peak.so tools/bench/peak.c
 *
 * peak(kind, seconds) runs one thread's worth for about `seconds` and returns operations (a multiply-add is two) or
 * bytes per second; 0 where the CPU lacks the unit. The caller starts one thread per core and adds up.
 */
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { AT_MEMORY, AT_FP32, AT_BF16, AT_INT8, AT_BF16_L2, AT_INT8_L2 };

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

/* STREAM's triad, a = b + s c, over 3 x 64 MB: bytes read and written, without the read that a write may cost */
static double triad(double seconds) {
    enum { N = 8 << 20 };
    double *a = malloc(3 * N * sizeof *a), *b = a + N, *c = b + N, passes = 0;
    if (!a) return 0;
    for (int i = 0; i < N; i++) a[i] = b[i] = c[i] = i;
    double start = now(), end;
    do {
        for (int i = 0; i < N; i++) a[i] = b[i] + 3 * c[i];
        __asm__ volatile("" ::"r"(a) : "memory");
        passes++;
    } while ((end = now()) < start + seconds);
    free(a);
    return passes * 3 * N * sizeof *a / (end - start);
}

#include "../cpu/native/engine.c" /* native_cpu, tiles_on; from here on it may be compiled for AVX-512 and AMX */

#if !defined(__x86_64__)

double peak(int kind, double seconds) { return kind == AT_MEMORY ? triad(seconds) : 0; }

#else

/* 20 sums of 16 floats: enough in flight to hide the latency of a multiply-add */
static double fma32(long steps) {
    __m512 sum[20], x = V(1e-3f);
    for (int i = 0; i < 20; i++) sum[i] = V(i);
    for (long s = 0; s < steps; s++) {
#pragma GCC unroll 20
        for (int i = 0; i < 20; i++) sum[i] = _mm512_fmadd_ps(x, x, sum[i]);
        __asm__ volatile("" : "+v"(x));
    }
    for (int i = 1; i < 20; i++) sum[0] = _mm512_add_ps(sum[0], sum[i]);
    __asm__ volatile("" ::"v"(sum[0]));
    return steps * 20.0 * 16 * 2;
}

/* 2 x 2 tiles; `from`: 1 MB of operands, which stay in L2 and not in L1, or none: operands stay in the tiles */
#define TILES(name, op, per_tile) \
    static double name(long steps, const uint8_t *from) { \
        for (long s = 0; s < steps; s++) { \
            const uint8_t *p = from + (s & 255) * 4096; \
            if (from) { \
                FENCE(); \
                _tile_loadd(4, p, 64); \
                _tile_loadd(5, p + 1024, 64); \
                _tile_loadd(6, p + 2048, 64); \
                _tile_loadd(7, p + 3072, 64); \
            } \
            PRODUCTS(op); \
        } \
        return steps * 4.0 * per_tile; \
    }
TILES(tiles_bf16, _tile_dpbf16ps, 16 * 16 * 32 * 2)
TILES(tiles_int8, _tile_dpbssd, 16 * 16 * 64 * 2)

double peak(int kind, double seconds) {
    if (kind == AT_MEMORY) return triad(seconds);
    if (kind == AT_FP32 && !(__builtin_cpu_supports("avx512f"))) return 0;
    int need = kind == AT_FP32 ? 0 : 4 | (kind == AT_BF16 || kind == AT_BF16_L2 ? 1 : 2);
    if (need && (native_cpu() & need) != need) return 0;
    uint8_t *l2 = kind >= AT_BF16_L2 ? aligned_alloc(4096, 1 << 20) : NULL;
    if (l2) memset(l2, 0, 1 << 20);
    if (need) tiles_on();
    double done = 0, start = now(), end;
    do {
        if (kind == AT_FP32) done += fma32(100000);
        else if (kind == AT_BF16 || kind == AT_BF16_L2) done += tiles_bf16(10000, l2);
        else done += tiles_int8(10000, l2);
    } while ((end = now()) < start + seconds);
    if (need) _tile_release();
    free(l2);
    return done / (end - start);
}

#endif

/* peak.c: what this CPU can do at most, to hold the engines against (lab/bench.py, tools/cpu/yardstick.py).
 *
 * work(kind, seconds, done) runs one thread's worth for about `seconds`; done[0]: operations (a multiply-add is two) or
 * bytes, done[1]: seconds on the clock, done[2]: seconds that this thread had a processor. All are 0 where the CPU lacks
 * the unit: bf16 and int8 are AMX's tiles, else AVX-512's dot products; `_L2` tiles alone. fp32 is AVX-512's multiply-adds,
 * else AVX2's. The caller starts one thread per core and adds up.
 *
 * What is compiled for a unit stands between push_options and pop_options; all else runs on every CPU.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { AT_MEMORY, AT_FP32, AT_BF16, AT_INT8, AT_BF16_L2, AT_INT8_L2, AT_ANY };

static double clock_of(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

typedef double piece(const uint8_t *data); /* one piece of work: how many operations or bytes */

/* STREAM's triad, a = b + s c, over 3 x 64 MB: bytes read and written, without the read that a write may cost */
enum { TRIAD = 8 << 20, STEPS = 20000 };
static double triad(const uint8_t *data) {
    double *a = (double *)data, *b = a + TRIAD, *c = b + TRIAD;
    for (int i = 0; i < TRIAD; i++) a[i] = b[i] + 3 * c[i];
    __asm__ volatile("" ::"r"(a) : "memory");
    return 3.0 * TRIAD * sizeof *a;
}

/* 8 sums of 16 floats in the compiler's own vectors: runs on every CPU */
typedef float floats __attribute__((vector_size(64)));
static double portable(const uint8_t *data) {
    floats sum[8] = {0}, x = (floats){0} + 1e-3f;
    for (int s = 0; s < STEPS; s++) {
#pragma GCC unroll 8
        for (int i = 0; i < 8; i++) sum[i] += x * sum[i] + x;
        __asm__ volatile("" : "+m"(x));
    }
    for (int i = 1; i < 8; i++) sum[0] += sum[i];
    __asm__ volatile("" ::"m"(sum[0]));
    return STEPS * 8.0 * 16 * 3;
}

#if !defined(__x86_64__)

static piece *unit(int kind) { return kind == AT_MEMORY ? triad : kind == AT_ANY ? portable : 0; }

#else

#pragma GCC push_options
#include "amx.c" /* its tiles: from here on code is compiled for AVX-512 and AMX */

/* Sums of `floats` columns, `k` products each: enough in flight to hide the latency of a multiply-add. In assembler,
 * since gcc 12 moves sums from register to register. Sums of zeros take as long as any others. */
#define EACH16(f) f(16) f(17) f(18) f(19) f(20) f(21) f(22) f(23) f(24) f(25) f(26) f(27) f(28) f(29) f(30) f(31)
#define EACH12(f) f(4) f(5) f(6) f(7) f(8) f(9) f(10) f(11) f(12) f(13) f(14) f(15)
#define NAMED(n) , "xmm" #n
#define CLEAR16(n) "vpxord %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n"
#define CLEAR12(n) "vxorps %%ymm" #n ", %%ymm" #n ", %%ymm" #n "\n"
#define SUMS(name, n, op, floats, k) \
    static __attribute__((noinline)) double name(const uint8_t *data) { \
        long left = STEPS; \
        __asm__ volatile(CLEAR##n(0) EACH##n(CLEAR##n) "1:\n" EACH##n(op) "dec %0\njnz 1b\n" \
                         : "+r"(left) : : "cc", "xmm0" EACH##n(NAMED)); \
        return STEPS * (double)n * floats * 2 * k; \
    }
#define FMA(n) "vfmadd231ps %%zmm0, %%zmm0, %%zmm" #n "\n"
#define AVX2_FMA(n) "vfmadd231ps %%ymm0, %%ymm0, %%ymm" #n "\n"
#define BF16(n) "vdpbf16ps %%zmm0, %%zmm0, %%zmm" #n "\n"
#define VNNI(n) "vpdpbusd %%zmm0, %%zmm0, %%zmm" #n "\n"
SUMS(sums_fp32, 16, FMA, 16, 1)
SUMS(sums_bf16, 16, BF16, 16, 2)
SUMS(sums_int8, 16, VNNI, 16, 4)

/* 2 x 2 tiles; `data`: 1 MB of operands, which stay in L2 and not in L1, or none: operands stay in the tiles */
#define ON_TILES(name, op, per_tile) \
    static double name(const uint8_t *data) { \
        tiles_on(); \
        for (int s = 0; s < STEPS; s++) { \
            const uint8_t *p = data + (s & 255) * 4096; \
            if (data) { \
                FENCE(); \
                _tile_loadd(4, p, 64); \
                _tile_loadd(5, p + 1024, 64); \
                _tile_loadd(6, p + 2048, 64); \
                _tile_loadd(7, p + 3072, 64); \
            } \
            PRODUCTS(op); \
        } \
        tiles_off(); \
        return STEPS * 4.0 * per_tile; \
    }
ON_TILES(tiles_bf16, _tile_dpbf16ps, 16 * 16 * 32 * 2)
ON_TILES(tiles_int8, _tile_dpbssd, 16 * 16 * 64 * 2)

#pragma GCC pop_options

SUMS(sums_avx2, 12, AVX2_FMA, 8, 1)

/* Whether this CPU has the tiles of a kind, and the kernel lets this process use them. */
static int has_tiles(int kind) {
    int bf16 = kind == AT_BF16 || kind == AT_BF16_L2, int8 = kind == AT_INT8 || kind == AT_INT8_L2;
    return ((bf16 && __builtin_cpu_supports("amx-bf16")) || (int8 && __builtin_cpu_supports("amx-int8")))
        && !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */);
}

/* what a kind does; NULL where the CPU lacks its unit */
static piece *unit(int kind) {
    if (kind == AT_MEMORY) return triad;
    if (kind == AT_ANY) return portable;
    if (has_tiles(kind)) return kind == AT_BF16 || kind == AT_BF16_L2 ? tiles_bf16 : tiles_int8;
    if (kind == AT_BF16) return __builtin_cpu_supports("avx512bf16") ? sums_bf16 : 0;
    if (kind == AT_INT8) return __builtin_cpu_supports("avx512vnni") ? sums_int8 : 0;
    if (kind != AT_FP32) return 0;
    return __builtin_cpu_supports("avx512f") ? sums_fp32 : __builtin_cpu_supports("fma") ? sums_avx2 : 0;
}

#endif

void work(int kind, double seconds, double *done) {
    piece *run = unit(kind);
    int64_t bytes = kind == AT_MEMORY ? 3 * TRIAD * sizeof(double) : kind == AT_BF16_L2 || kind == AT_INT8_L2 ? 1 << 20 : 0;
    uint8_t *data = bytes && run ? aligned_alloc(4096, bytes) : 0;
    done[0] = done[1] = done[2] = 0;
    if (!run || (bytes && !data)) return;
    if (data) memset(data, 0, bytes);
    double start = clock_of(CLOCK_MONOTONIC), own = clock_of(CLOCK_THREAD_CPUTIME_ID), end;
    do done[0] += run(data);
    while ((end = clock_of(CLOCK_MONOTONIC)) < start + seconds);
    done[1] = end - start;
    done[2] = clock_of(CLOCK_THREAD_CPUTIME_ID) - own;
    free(data);
}

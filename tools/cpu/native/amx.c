/* amx.c: the AMX matrix units, and AVX-512 with bf16 for all else. */
#ifdef __x86_64__

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net.h"
TARGET("avx2,fma,avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,amx-tile,amx-bf16,amx-int8")

#define WIDTH 512
typedef uint16_t act;
enum { SHIFTED = 0, SUMMED = 0 };

#include "vectors.h"
#include "pieces.h"

/* gcc's tile intrinsics do not tell the compiler that they read memory */
#define FENCE() __asm__ volatile("" ::: "memory")

/* Whether the kernel lets this process use the tiles. */
int native_amx_allowed(void) { return !syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18 /* tile data */); }

/* static: gcc believes that the intrinsic reads 8 bytes, and drops the other stores to a local one */
static void tiles_on(void) {
    static const struct { uint8_t palette, start_row, reserved[14]; uint16_t colsb[16]; uint8_t rows[16]; } config = {
        .palette = 1, .colsb = {[0 ... 7] = 64}, .rows = {[0 ... 7] = 16}};
    _tile_loadconfig(&config);
}

/* gcc's tile intrinsics are statements, not expressions */
#define ZERO4() do { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); } while (0)
#define LOAD4(c) do { _tile_loadd(0, c, 64); _tile_loadd(1, (c) + 256, 64); _tile_loadd(2, (c) + 512, 64); \
                      _tile_loadd(3, (c) + 768, 64); } while (0)
#define STORE4(c) do { _tile_stored(0, c, 64); _tile_stored(1, (c) + 256, 64); _tile_stored(2, (c) + 512, 64); \
                       _tile_stored(3, (c) + 768, 64); } while (0)
#define PRODUCTS(op) do { op(0, 4, 6); op(1, 4, 7); op(2, 5, 6); op(3, 5, 7); } while (0)

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C.
 *  - The tile unit eats 1 KB per 16 cycles, more than L2 gives: B is taken STRIP k-tiles at a time, which stay in
 *    L1 while all rows pass by, A streams around L1 (tileloaddt1), and the sums rest in `part` between strips.
 *  - Vector work on a finished block runs between the tile operations of the next one.
 *  - Every block prefetches its share of the weights that come next. */
enum { STRIP = 16 };
INLINE void gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt, int rows,
                 int p0, int p1, int panels, const void *next, const struct epilogue *e) {
    float raw[2][1024] __attribute__((aligned(64)));
    float *part = w->part;
    int pairs = (rows + 31) / 32, strips = (kt + STRIP - 1) / STRIP, strip = (kt + strips - 1) / strips;
    int per_step = (8 + strip - 1) / strip;
    int fetch = (32 + pairs - 1) / pairs, first = e->first, turn = 0;
    unsigned done = 8; /* quarters of the tile rows of `last` that have been finished, of 8 */
    const int in_tiles = kind == ADD && num == BF16;
    struct block last = {0};
    FENCE();
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * kt * 2048;
        const uint8_t *soon = p + 1 < p1 ? bp + kt * 2048 : (const uint8_t *)next;
        for (int k0 = 0; k0 < kt; k0 += strip)
            for (int m = 0; m < pairs; m++) {
                const uint8_t *at = (const uint8_t *)a + ((int64_t)m * 2 * kt + k0) * 1024, *bt = bp + k0 * 2048;
                const uint8_t *end = bp + MIN(kt, k0 + strip) * 2048;
                float *c = in_tiles ? e->c + ((int64_t)m * panels + p) * 1024 : part + m * 1024;
                if (k0 || (in_tiles && !first)) LOAD4(c);
                else ZERO4();
                for (; bt < end; bt += 2048, at += 1024) {
                    _tile_loadd(6, bt, 64);
                    _tile_stream_loadd(4, at, 64);
                    _tile_loadd(7, bt + 1024, 64);
                    _tile_stream_loadd(5, at + kt * 1024, 64);
                    if (num == BF16) PRODUCTS(_tile_dpbf16ps);
                    else if (num == S8) PRODUCTS(_tile_dpbssd);
                    else PRODUCTS(_tile_dpbusd);
                    for (int i = 0; i < fetch; i++, soon += 64) _mm_prefetch((const char *)soon, _MM_HINT_T1);
                    if (!in_tiles)
                        for (int i = 0; i < per_step && done < 8; i++) finish(kind, num, first, &last, done++);
                }
                if (in_tiles || k0 + strip < kt) {
                    STORE4(c);
                    continue;
                }
                while (done < 8) finish(kind, num, first, &last, done++);
                STORE4(raw[turn]);
                last = block_of(kind, e, m * 32, p, p0, panels), last.raw = raw[turn];
                done = 0, turn = !turn;
            }
    }
    while (done < 8) finish(kind, num, first, &last, done++);
    FENCE();
}

#include "attention.h"

/* scores of 16 queries and all keys of one head */
static void scores_of(const struct work *w, const act *from, int head, int keys, int rows) {
    int nd = w->s.hdp / 32, ld = w->s.ld * 2;
    _tile_loadd(4, from, ld);
    if (nd == 2) _tile_loadd(5, from + 32, ld);
    for (int j = 0; j < keys; j += 32) {
        const uint8_t *k = w->k + ((int64_t)head * keys + j) / 16 * nd * 1024;
        _tile_zero(0); _tile_zero(1);
        _tile_loadd(6, k, 64); _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(7, k + nd * 1024, 64); _tile_dpbf16ps(1, 4, 7);
        if (nd == 2) {
            _tile_loadd(6, k + 1024, 64); _tile_dpbf16ps(0, 5, 6);
            _tile_loadd(7, k + 3072, 64); _tile_dpbf16ps(1, 5, 7);
        }
        float *to = w->scores + (int64_t)head * 16 * keys + j;
        _tile_stored(0, to, keys * 4); _tile_stored(1, to + 16, keys * 4);
    }
}

/* p x values of one head, and p x ones: the row sums, in all 16 columns */
static void values_of(const struct work *w, int head, int keys, int rows) {
    static const act ones[512] __attribute__((aligned(64))) = {[0 ... 511] = 0x3f80};
    uint8_t *o = w->o + head * 5 * 1024;
    int nd = w->s.hdp / 32;
    _tile_loadd(7, ones, 64);
    _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); _tile_zero(4);
    for (int j = 0; j < keys; j += 32) {
        const uint8_t *v = w->v + ((int64_t)head * keys + j) / 32 * nd * 2048;
        _tile_loadd(5, w->p + ((int64_t)head * keys + j) * 32, 64);
        _tile_loadd(6, v, 64); _tile_dpbf16ps(0, 5, 6);
        _tile_loadd(6, v + 1024, 64); _tile_dpbf16ps(1, 5, 6);
        if (nd == 2) {
            _tile_loadd(6, v + 2048, 64); _tile_dpbf16ps(2, 5, 6);
            _tile_loadd(6, v + 3072, 64); _tile_dpbf16ps(3, 5, 6);
        }
        _tile_dpbf16ps(4, 5, 7);
    }
    _tile_stored(0, o, 64); _tile_stored(1, o + 1024, 64); _tile_stored(4, o + 4096, 64);
    if (nd == 2) { _tile_stored(2, o + 2048, 64); _tile_stored(3, o + 3072, 64); }
}

static void start(void) { tiles_on(); }
static void stop(void) { _tile_release(); }

#include "layers.h"

const struct family native_amx = {2, SHIFTED, 32, start, stop, run_blocks, run_tail};
TARGET_END

#else

int native_amx_allowed(void) { return 0; }

#endif

/* tiles.h: AMX's tiles, and the product of matrices by them. */
/* gcc's tile intrinsics do not tell the compiler that they read memory */
#define FENCE() __asm__ volatile("" ::: "memory")

/* static: gcc believes that the intrinsic reads 8 bytes, and drops the other stores to a local one */
static void tiles_on(void) {
    static const struct { uint8_t palette, start_row, reserved[14]; uint16_t colsb[16]; uint8_t rows[16]; } config = {
        .palette = 1, .colsb = {[0 ... 7] = 64}, .rows = {[0 ... 7] = 16}};
    _tile_loadconfig(&config);
}
static void tiles_off(void) { _tile_release(); }

/* gcc's tile intrinsics are statements, not expressions */
#define ZERO4() do { _tile_zero(0); _tile_zero(1); _tile_zero(2); _tile_zero(3); } while (0)
#define LOAD4(c) do { _tile_loadd(0, c, 64); _tile_loadd(1, (c) + 256, 64); _tile_loadd(2, (c) + 512, 64); \
                      _tile_loadd(3, (c) + 768, 64); } while (0)
#define STORE4(c) do { _tile_stored(0, c, 64); _tile_stored(1, (c) + 256, 64); _tile_stored(2, (c) + 512, 64); \
                       _tile_stored(3, (c) + 768, 64); } while (0)
#define PRODUCTS(op) do { op(0, 4, 6); op(1, 4, 7); op(2, 5, 6); op(3, 5, 7); } while (0)

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C.
 *  - The tile unit eats 1 KB per 16 cycles, more than L2 gives: B is taken TILE_STRIP k-tiles at a time, which stay in
 *    L1 while all rows pass by, A streams around L1 (tileloaddt1), and the sums rest in `part` between strips.
 *  - Vector work on a finished block runs between the tile operations of the next one, from its third k-tile on, when the
 *    block has left the store buffer.
 *  - Every block prefetches its share of the weights that come next. */
enum { TILE_STRIP = 16 };
INLINE void tile_gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt,
                      int rows, int p0, int p1, int panels, const void *next, const struct epilogue *e) {
    float raw[2][1024] __attribute__((aligned(64)));
    float *part = w->part;
    int pairs = (rows + 31) / 32, strips = (kt + TILE_STRIP - 1) / TILE_STRIP, strip = (kt + strips - 1) / strips;
    int late = MIN(2, strip - 1), per_step = (8 + strip - late - 1) / (strip - late);
    int fetch = (32 + pairs - 1) / pairs, first = e->first, turn = 0;
    unsigned done = 8; /* how many groups of 4 rows of `last`, of 8, are finished */
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
                    if (!in_tiles && bt >= bp + (k0 + late) * 2048)
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

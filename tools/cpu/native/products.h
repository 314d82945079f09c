/* products.h: matrix products and attention of the families that have a `product` of at most 16 rows and 32 columns.
 *
 *     product(num, a, a_row, a_step, b, b_step, half, kt, rows, init, out, out_row, out_half, soon, fetch)
 *
 * `rows` rows of A, a_row bytes apart, times kt k-tiles of B; from one k-tile to the next it is a_step and b_step bytes,
 * from B's first 16 columns to the others `half`. Sums start with init[32], or with 0 if it is NULL; those of row r and
 * the first (second) 16 columns go to out + r * out_row (+ out_half). It may compute, and write, all of 16 rows.
 * Meanwhile it fetches 2 * kt * fetch lines from `soon` on. */
#define SUMMED 1
#define FENCE()

/* a bf16 panel of B as fp32, [kt][2][16][64 bytes] -> [2 kt][2][16][64 bytes] */
static const uint8_t *widen(const uint8_t *b, int kt, uint8_t *to) {
    for (int k = 0; k < kt; k++)
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 256; i += VL, b += VL * 4) {
                ivec pairs = *(const ivec_at *)b;
                uint8_t *line = to + (2 * k + i / 128) * 2048 + half * 1024 + i % 128 / 16 * 128 + i % 16 * 4;
                store(line, (vec)(pairs << 16));
                store(line + 64, (vec)(pairs & (int32_t)0xffff0000));
            }
    return to;
}

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C. All of k is summed up in registers, and a
 * panel of B stays in L1 or L2 while all rows pass by; meanwhile the next one is fetched, some lines for each k-tile. */
INLINE void gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt, int rows,
                 int p0, int p1, int panels, const void *next, const struct epilogue *e) {
    float raw[512] __attribute__((aligned(64)));
    int wide = num == BF16 && sizeof(act) == 4;
    int bytes = kt * (wide ? 1024 : 2048), steps = (rows + 15) / 16 * 2 * kt;
    int fetch = (bytes / 64 + steps - 1) / steps;
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * bytes;
        const uint8_t *soon = p + 1 < p1 ? bp + bytes : (const uint8_t *)next;
        if (wide) bp = widen(bp, kt / 2, w->panel);
        const uint8_t *end = soon + bytes;
        for (int r = 0; r < rows; r += 16, soon += 128 * kt * fetch) {
            int n = MIN(16, rows - r);
            product(wide ? F32 : num, line(a, kt, r, 0), 64, 1024, bp, 2048, 1024, kt, n,
                    SHIFTED && num == S8 ? e->sums + p * 32 : 0, raw, 16, 256, soon, soon < end ? fetch : 0);
            struct block done = block_of(kind, e, r, p, p0, panels);
            done.raw = raw;
            for (int i = 0; i * 4 < n; i++) finish(kind, num, e->first, &done, i);
        }
    }
}

static void scores_of(const struct work *w, const act *q, int head, int keys, int rows) {
    int nd = w->s.hdp / KA;
    for (int j = 0; j < keys; j += 32)
        product(sizeof(act) == 2 ? BF16 : F32, q, w->s.ld * sizeof(act), 64,
                w->k + ((int64_t)head * keys + j) / 16 * nd * 1024, 1024, nd * 1024, nd, rows, 0,
                w->scores + (int64_t)head * 16 * keys + j, keys, 16, 0, 0);
}

static void values_of(const struct work *w, int head, int keys, int rows) {
    int nv = w->s.hdp / 32, kt = keys / KA;
    for (int d = 0; d < nv; d++)
        product(sizeof(act) == 2 ? BF16 : F32, w->p + (int64_t)head * kt * 1024, 64, 1024,
                w->v + ((int64_t)head * kt * nv + d) * 2048, nv * 2048, 1024, kt, rows, 0,
                (float *)(w->o + head * 5 * 1024 + d * 2048), 16, 256, 0, 0);
}

/* halves.h: the products of families whose `some_rows` takes 16 columns and as many rows as `at_once` says, 4 or 6. */

/* `rows` rows of A, at most 16, x 16 columns of B; sums of row r start with those at init + r * init_row (0: NULL) */
INLINE void half_product(enum number num, const uint8_t *a, long a_row, long a_step, const uint8_t *b, long b_step, int kt,
                         int rows, const float *init, long init_row, float *out, long out_row) {
#define STEP(n, r) \
    some_rows(num, n, a + (r) * a_row, a_row, a_step, b, b_step, kt, init ? init + (r) * init_row : 0, init_row, \
              out + (r) * out_row, out_row)
    if (rows == 1) STEP(1, 0);
    else if (at_once(num) == 4)
        for (int r = 0; r < rows; r += 4) STEP(4, r);
    else {
        STEP(6, 0);
        if (rows > 6) STEP(5, 6);
        if (rows > 11) STEP(5, 11);
    }
#undef STEP
}

/* As attention.h describes it. */
INLINE void product(enum number num, const void *a, long a_row, long a_step, const void *b, long b_step, long half,
                    int kt, int rows, float *out, long out_row, long out_half) {
    for (int i = 0; i < 2; i++)
        half_product(num, a, a_row, a_step, (const uint8_t *)b + i * half, b_step, kt, rows, 0, 0, out + i * out_half, out_row);
}

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C. Half a panel of B, STRIP k-tiles of it at a
 * time, stays in L1 while all rows pass by; the sums rest in `part`. */
enum { STRIP = 8 };
INLINE void gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt, int rows,
                 int p0, int p1, int panels, const void *next, const struct epilogue *e) {
    int wide = num == BF16 && sizeof(act) == 4, strips = (kt + STRIP - 1) / STRIP, strip = (kt + strips - 1) / strips;
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * kt * (wide ? 1024 : 2048);
        const float *init = SHIFTED && num == S8 ? (const float *)e->sums + p * 32 : 0;
        if (wide) bp = widen(bp, kt / 2, w->panel);
        for (int k = 0; k < kt; k += strip)
            for (int i = 0; i < 2; i++, init += init ? 16 : 0)
                for (int r = 0; r < rows; r += 16) {
                    float *part = w->part + r * 32 + i * 256;
                    half_product(wide ? F32 : num, line(a, kt, r, k), 64, 1024, bp + k * 2048 + i * 1024, 2048,
                                 MIN(strip, kt - k), MIN(16, rows - r), k ? part : init, k ? 16 : 0, part, 16);
                }
        for (int r = 0; r < rows; r += 16) {
            struct block done = block_of(kind, e, r, p, p0, panels);
            done.raw = w->part + r * 32;
            for (int i = 0; i * 4 < MIN(16, rows - r); i++) finish(kind, num, e->first, &done, i);
        }
    }
}

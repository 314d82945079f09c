/* rows.h: products of matrices whose sums rest in registers, from what a family defines:
 *
 *     COLUMNS            16 or 32: how many columns of B it multiplies at a time
 *     UNROLL             how many groups of k's the loop takes at a time
 *     at_once(num)       4, 6 or 8: how many rows of A, so that all sums fit
 *     of_row(num, p)     a group of 4 bytes of k's (one fp32, two bf16, four int8) at p, for all columns
 *     of_columns(num, p) such groups of VL columns
 *     dot(num, c, x, y)  c + a row's group x times those of columns y */
INLINE void some_rows(enum number num, int n, int first, struct product m, int fetch) {
    enum { REGISTERS = COLUMNS / VL };
    const uint8_t *a = m.a + first * m.a_row, *b = m.b, *soon = m.soon + (int64_t)first / 8 * m.kt * fetch * 64;
    vec c[8][REGISTERS];
    for (int r = 0; r < n; r++)
        for (int j = 0; j < REGISTERS; j++)
            c[r][j] = m.init ? load(m.init + (first + r) * m.init_row + j * VL) : V(0);
    for (int k = 0; k < m.kt; k++, a += m.a_step, b += m.b_step) {
        for (int f = 0; f < fetch; f++, soon += 64) __builtin_prefetch(soon, 0, 3);
#pragma GCC unroll UNROLL
        for (int i = 0; i < 64; i += 4) {
            group columns[REGISTERS];
#pragma GCC unroll 4
            for (int j = 0; j < REGISTERS; j++)
                columns[j] = of_columns(num, b + j * VL / 16 * m.half + i * 16 + j * VL % 16 * 4);
#pragma GCC unroll 8
            for (int r = 0; r < n; r++) {
                group x = of_row(num, a + r * m.a_row + i);
#pragma GCC unroll 4
                for (int j = 0; j < REGISTERS; j++) c[r][j] = dot(num, c[r][j], x, columns[j]);
            }
        }
    }
    for (int r = 0; r < n; r++)
        for (int j = 0; j < REGISTERS; j++)
            store(m.out + (first + r) * m.out_row + j * VL / 16 * m.out_half + j * VL % 16, c[r][j]);
}

/* `rows` rows, at most 16, x COLUMNS columns */
INLINE void columns_product(enum number num, int rows, struct product m) {
    if (rows == 1) some_rows(num, 1, 0, m, 2 * m.fetch);
    else if (at_once(num) == 4)
        for (int r = 0; r < rows; r += 4) some_rows(num, 4, r, m, 0);
    else if (at_once(num) == 6) {
        some_rows(num, 6, 0, m, 0);
        if (rows > 6) some_rows(num, 5, 6, m, 0);
        if (rows > 11) some_rows(num, 5, 11, m, 0);
    } else
        for (int r = 0; r < rows; r += 8) some_rows(num, 8, r, m, rows > 8 ? m.fetch : 2 * m.fetch);
}

/* As attention.h describes it. */
INLINE void product(enum number num, int rows, struct product m) {
    for (int i = 0; i < 32; i += COLUMNS, m.b += m.half, m.out += m.out_half) columns_product(num, rows, m);
}

/* [rows, kt tiles] x panels [p0, p1) of B; `panels` is the row length of C. Where a panel's 32 columns go together, it stays
 * in L1 or L2 while all rows pass by, all of k is summed up in registers, and the next panel is fetched meanwhile. Else half
 * a panel, STRIP k-tiles of it at a time, stays in L1, and the sums rest in `part`. */
enum { STRIP = 8 };
INLINE void gemm(enum kind kind, enum number num, const struct work *w, const void *a, const void *b, int kt, int rows,
                 int p0, int p1, int panels, const void *next, const struct epilogue *e) {
#ifdef TILES
    if (num == S8 || num == U8) return tile_gemm(kind, num, w, a, b, kt, rows, p0, p1, panels, next, e);
#endif
    int wide = num == BF16 && sizeof(act) == 4, bytes = kt * (wide ? 1024 : 2048), whole_panel = COLUMNS == 32;
    int strips = whole_panel ? 1 : (kt + STRIP - 1) / STRIP, strip = (kt + strips - 1) / strips;
    float block_sums[512] __attribute__((aligned(64)));
    int steps = (rows + 15) / 16 * 2 * kt, fetch = whole_panel ? (bytes / 64 + steps - 1) / steps : 0;
    for (int p = p0; p < p1; p++) {
        const uint8_t *bp = (const uint8_t *)b + (int64_t)p * bytes;
        const uint8_t *soon = p + 1 < p1 ? bp + bytes : (const uint8_t *)next, *end = soon + bytes;
        const float *sums = SHIFTED && num == S8 ? (const float *)e->sums + p * 32 : 0;
        if (wide) bp = widen(bp, kt / 2, w->panel);
        for (int i = 0, k = 0; i < strips; i++, k += strip)
            for (int column = 0; column < 32; column += COLUMNS)
                for (int r = 0; r < rows; r += 16, soon += 128 * kt * fetch) {
                    float *raw = whole_panel ? block_sums : w->part + r * 32, *part = raw + column * 16;
                    int n = MIN(16, rows - r);
                    columns_product(wide ? F32 : num, n, (struct product){
                        .a = line(a, kt, r, k), .a_row = 64, .a_step = 1024, .b = bp + k * 2048 + column * 64, .b_step = 2048,
                        .half = 1024, .kt = MIN(strip, kt - k), .init = i ? part : sums ? sums + column : 0,
                        .init_row = i ? 16 : 0, .out = part, .out_row = 16, .out_half = 256, .soon = soon,
                        .fetch = soon < end ? fetch : 0});
                    if (i + 1 < strips || column + COLUMNS < 32) continue;
                    struct block done = block_of(kind, e, r, p, p0, panels);
                    done.raw = raw;
                    for (int quarter = 0; quarter * 4 < n; quarter++) finish(kind, num, e->first, &done, quarter);
                }
    }
}

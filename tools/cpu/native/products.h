/* products.h: attention's products, of the families that have a `product` of at most 16 rows and 32 columns.
 *
 *     product(num, a, a_row, a_step, b, b_step, half, kt, rows, init, out, out_row, out_half, soon, fetch)
 *
 * `rows` rows of A, a_row bytes apart, times kt k-tiles of B; from one k-tile to the next it is a_step and b_step bytes,
 * from B's first 16 columns to the others `half`. Sums start with init[32], or with 0 if it is NULL; those of row r and
 * the first (second) 16 columns go to out + r * out_row (+ out_half). It may compute, and write, all of 16 rows.
 * Meanwhile it fetches 2 * kt * fetch lines from `soon` on. */
#define SUMMED 1
#define FENCE()

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

/* halves.h: the product of families whose `some_rows` takes at most 6 rows and 16 columns (see products.h). */
INLINE void product(enum number num, const void *a, long a_row, long a_step, const void *b, long b_step, long half,
                    int kt, int rows, const int32_t *init, float *out, long out_row, long out_half,
                    const uint8_t *soon, int fetch) {
    const uint8_t *x = a, *y = b;
    for (int f = 0; f < 2 * kt * fetch; f++) __builtin_prefetch(soon + f * 64, 0, 3);
    for (int i = 0; i < 2; i++, y += half, out += out_half, init += init ? 16 : 0) {
        if (rows == 1) {
            some_rows(num, 1, x, a_row, a_step, y, b_step, kt, init, out, out_row);
            continue;
        }
        some_rows(num, 6, x, a_row, a_step, y, b_step, kt, init, out, out_row);
        if (rows > 6) some_rows(num, 5, x + 6 * a_row, a_row, a_step, y, b_step, kt, init, out + 6 * out_row, out_row);
        if (rows > 11)
            some_rows(num, 5, x + 11 * a_row, a_row, a_step, y, b_step, kt, init, out + 11 * out_row, out_row);
    }
}

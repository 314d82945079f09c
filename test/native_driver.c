/* Runs the native engine where there is no Python: what test_native.py writes to standard input -> logits to standard output.
 * Standard input: 6 numbers of the run, those of the net, then the arrays; each number and length as int32. */
#include <stdio.h>
#include <stdlib.h>

#include "../tools/cpu/native/net.h"

extern const struct family native_neon_bf16, native_neon;
void native_sums(const struct family *family, const struct net *m, int32_t *sums);
int64_t native_bytes(const struct family *family, const struct net *m, int n, int block, int group, int longest,
                     int threads);
void native_run(const struct family *family, const struct net *m, const int32_t *ids, const int32_t *types,
                const int64_t *start, const int32_t *rows, const int32_t *keys, int n, int block, int group, int longest,
                int threads, uint8_t *work, float *logits, int32_t *left, float *head_inputs);

static void *taken(int64_t bytes) {
    void *p = aligned_alloc(4096, (bytes + 8192) / 4096 * 4096);
    if (fread(p, 1, bytes, stdin) != (size_t)bytes) exit(1);
    return p;
}

static void *array(void) { return taken(*(int32_t *)taken(4)); }

int main(void) {
    int32_t *run = taken(24); /* whether activations are fp32, n, block, group, longest, threads */
    const struct family *family = run[0] ? &native_neon : &native_neon_bf16;
    struct net m = *(struct net *)taken(sizeof(struct net));
    m.base = array(), m.off = array(), m.precision = array();
    int32_t *sums = array();
    m.sums = sums, m.exits = 0;
    int32_t *ids = array(), *types = array();
    int64_t *start = array();
    int32_t *rows = array(), *keys = array();
    native_sums(family, &m, sums);
    float *logits = calloc(run[1] * m.labels, 4);
    uint8_t *work = aligned_alloc(4096, native_bytes(family, &m, run[1], run[2], run[3], run[4], run[5]) / 4096 * 4096 + 8192);
    native_run(family, &m, ids, types, start, rows, keys, run[1], run[2], run[3], run[4], run[5], work, logits, 0, 0);
    return fwrite(logits, 4, run[1] * m.labels, stdout) != (size_t)(run[1] * m.labels);
}

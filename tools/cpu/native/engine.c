/* engine.c: BERT sequence classifiers on the CPU, without a single padded token.
 *
 * Sentences are concatenated, whole, into blocks of a few hundred tokens. A thread takes a group of blocks
 * and runs all layers on it with no barrier; a matrix product sees one tall [tokens, hidden] operand, and
 * attention runs per sentence. Where a few sentences give no equal blocks, all threads are a team: each has an
 * equal share of all rows, and they meet once a layer, for the keys and values of the sentences between them. The last
 * layer is computed for the [CLS] rows only, after all blocks, so that its weights are read once for hundreds of
 * sentences instead of once per block.
 *
 * Every row of a matrix product, every LayerNorm and every sentence's attention sees its own data in an order
 * that does not depend on where the sentence lies: results are the same bits for any plan and thread count.
 */
#include <fenv.h>
#include <pthread.h>

#include "net.h"

/* ---- the workspace ------------------------------------------------------------------------------------ */

INLINE void *take(uint8_t **at, int64_t bytes) {
    void *p = *at;
    *at += UP(bytes, 64) + 64; /* the spare line staggers the arrays in the cache sets */
    return p;
}

/* Lays the arrays of a thread out from `at` and returns the end, so that the same lines also measure. */
static uint8_t *layout(struct work *w, const struct net *m, int act, int rows, int group, int longest, uint8_t *at) {
    struct size s = m->s;
    int64_t r = UP(rows, 32) + 32, keys = UP(longest, 32); /* attention tiles may read 31 rows past the block */
    *w = (struct work){.m = m, .s = s, .step = r * s.h * act};
    w->h = take(&at, group * w->step);
    w->qkv = take(&at, r * s.ld * act);
    w->ctx = take(&at, r * s.ctx * act);
    w->inter = take(&at, r * s.slice * act);
    w->cls = take(&at, r * s.h * act);
    w->q = take(&at, r * s.ld * act);
    w->a8 = take(&at, r * MAX(s.h, s.ctx));
    w->inter8 = take(&at, r * s.slice);
    w->c = take(&at, r * s.h * 4);
    w->part = take(&at, r * 128);
    w->scale = take(&at, r * 4);
    w->inter_scale = take(&at, r * 4);
    w->k = take(&at, m->heads * keys * s.hdp * act);
    w->v = take(&at, m->heads * keys * s.hdp * act);
    w->p = take(&at, m->heads * 16 * keys * act);
    w->scores = take(&at, m->heads * 16 * keys * 4);
    w->o = take(&at, m->heads * 5 * 1024);
    w->panel = take(&at, act == 4 ? MAX(s.h, MAX(s.ctx, s.slice)) * 128L : 0);
    return at;
}

/* ---- the run ------------------------------------------------------------------------------------------ */

/* Threads stay from run to run: a new one costs the wake-up of a core that sleeps, and with AMX the kernel's trap at
 * its first tile. Before it sleeps, a thread spins for a while: one request soon follows another. */
enum { SPINS = 2000 };
static struct {
    pthread_mutex_t use;   /* held through a run */
    pthread_mutex_t sleep; /* held by whoever falls asleep, or wakes others */
    pthread_cond_t wake, done;
    uint64_t threads; /* besides the caller's */
    struct run *run;
    _Atomic uint64_t call; /* the run's number << 16 | the threads that it calls */
    _Atomic uint64_t busy; /* of these, those that have not finished */
} pool = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, PTHREAD_COND_INITIALIZER};

/* Returns when *value is no longer `old`. Whoever changes it calls awake. */
static void await(_Atomic uint64_t *value, uint64_t old, pthread_cond_t *on) {
    for (int i = 0; i < SPINS && *value == old; i++)
#ifdef __x86_64__
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
    if (*value != old) return;
    pthread_mutex_lock(&pool.sleep);
    while (*value == old) pthread_cond_wait(on, &pool.sleep);
    pthread_mutex_unlock(&pool.sleep);
}

static void awake(pthread_cond_t *on) {
    pthread_mutex_lock(&pool.sleep); /* no thread is between its last look and its sleep */
    pthread_cond_broadcast(on);
    pthread_mutex_unlock(&pool.sleep);
}

/* Takes `take` of the remaining items, or fewer near the end, so that threads end together. Returns how many: 0 at the end. */
static int next_items(struct run *j, int *first) {
    int n, i = j->next;
    do {
        if (i >= j->items) return 0;
        n = MIN(j->take, MAX(j->least, (j->items - i + j->threads - 1) / j->threads));
    } while (!atomic_compare_exchange_weak(&j->next, &i, i + n));
    *first = i;
    return MIN(n, j->items - i);
}

static void work_on(struct run *j) {
    const struct work *w = &j->work[atomic_fetch_add(&j->next_thread, 1)];
    fenv_t callers;
    fegetenv(&callers);
    fesetenv(FE_DFL_ENV); /* to nearest, denormal numbers as they are, no traps: whatever the caller's program has set */
    if (j->family->start) j->family->start();
    for (int n, i; (n = next_items(j, &i));) j->task(j, w, i, n);
    if (j->family->stop) j->family->stop();
    fesetenv(&callers);
}

static void *worker(void *number) {
    for (uint64_t call = 0;;) {
        await(&pool.call, call, &pool.wake);
        call = pool.call;
        if ((uintptr_t)number >= (call & 0xffff)) continue;
        work_on(pool.run);
        if (atomic_fetch_sub(&pool.busy, 1) == 1) awake(&pool.done);
    }
    return 0;
}

/* A forked process has none of the threads. */
static void reset_pool(void) {
    pthread_mutex_init(&pool.use, 0), pthread_mutex_init(&pool.sleep, 0);
    pthread_cond_init(&pool.wake, 0), pthread_cond_init(&pool.done, 0);
    pool.threads = 0, pool.call = 0;
}

static __attribute__((constructor)) void on_load(void) { pthread_atfork(0, 0, reset_pool); }

/* Calls task(i, n) for all items, `take` at a time, and near the end fewer, at least `least`; or task(i, 1) for each thread
 * of a team. If a thread cannot be created we go on with fewer, and without the team. */
static void parallel(struct run *j, void (*task)(struct run *, const struct work *, int, int), int items, int take,
                     int least) {
    uint64_t want = (j->team ? j->team : MIN(j->threads, (items + take - 1) / take)) - 1;
    j->task = task, j->next = j->next_thread = 0;
    if (want) pthread_mutex_lock(&pool.use);
    for (pthread_t id; want > pool.threads; pool.threads++) {
        if (pthread_create(&id, 0, worker, (void *)(uintptr_t)pool.threads)) break;
        pthread_detach(id);
    }
    if (want > pool.threads) want = pool.threads, j->team = 0;
    j->items = j->team ? j->team : items, j->take = j->team ? 1 : take, j->least = MIN(least, j->take);
    if (want) {
        pool.run = j, pool.busy = want;
        pool.call = ((pool.call >> 16) + 1) << 16 | want;
        awake(&pool.wake);
    }
    work_on(j);
    if (!want) return;
    for (uint64_t busy; (busy = pool.busy);) await(&pool.busy, busy, &pool.done);
    pthread_mutex_unlock(&pool.use);
}

/* Groups sentences into blocks of at most `room` rows: always the longest that still fits, so blocks are nearly
 * full. Returns the number of blocks. `by` is scratch for [longest + 1] heads of lists, `link` for n. */
static int plan(const int32_t *rows, int n, int room, int longest, int32_t *by, int32_t *link, int32_t *order,
                int32_t *block) {
    for (int i = 0; i <= longest; i++) by[i] = -1;
    for (int i = n; i--;) link[i] = by[rows[i]], by[rows[i]] = i;
    int blocks = 0, done = 0;
    while (done < n) {
        block[blocks++] = done;
        for (int rest = room, len = longest; len > 0;) {
            if (len > rest) len = rest;
            else if (by[len] < 0) len--;
            else rest -= len, order[done++] = by[len], by[len] = link[by[len]];
        }
    }
    block[blocks] = n;
    return blocks;
}

/* Lays out all memory of a run from `at` and returns the end. */
static uint8_t *arrange(struct run *j, const struct net *m, int n, int block, int group, int longest, int threads,
                        uint8_t *at) {
    struct size s = m->s;
    struct work none;
    int measure = !j->logits, act = j->family->act;
    j->work = take(&at, threads * sizeof *j->work);
    j->order = take(&at, 4L * n);
    j->block = take(&at, 4L * n + 4);
    j->link = take(&at, 4L * n);
    j->by = take(&at, 4L * longest + 4);
    j->ctx = take(&at, UP(n, 32) * (int64_t)s.ctx * act);
    j->h = take(&at, UP(n, 32) * (int64_t)s.h * act);
    j->qkv_step = (UP((int64_t)threads * block, 32) + 32) * s.ld * act;
    j->qkv = take(&at, 2 * j->qkv_step);
    for (int t = 0; t < threads; t++) {
        at = (uint8_t *)UP((uintptr_t)at, 4096);
        at = layout(measure ? &none : &j->work[t], m, act, MAX(block, longest), group, longest, at);
    }
    return at;
}

/* How many rows a family's product writes at a time. */
int native_rows(const struct family *family) { return family->rows; }

/* sums[layers][qkv + h + inter], of a family whose activations are moved up by 128: -128 x the sum of each column of the
 * int8 weights of Q | K | V, of the output projection and of the feed-forward's first; all others stay as they are. */
void native_sums(const struct family *family, const struct net *m, int32_t *sums) {
    struct size s = m->s;
    const int which[] = {Q_K_V, OUT, UP_W}, k[] = {s.h, s.ctx, s.h}, n[] = {s.qkv, s.h, s.inter};
    for (int l = 0; l < m->layers && family->shifted; l++)
        for (int i = 0; i < 3; sums += n[i++]) {
            const int8_t *b = weight(m, l, which[i]);
            for (int column = 0; m->precision[l] == S8 && column < n[i]; column += 32)
                for (int t = 0; t < k[i] / 64 * 2; t++)
                    for (int at = 0; at < 1024; at++) sums[column + t % 2 * 16 + at % 64 / 4] -= 128 * *b++;
        }
}

/* Bytes of workspace for native_run; what it holds beforehand does not matter. */
int64_t native_bytes(const struct family *family, const struct net *m, int n, int block, int group, int longest,
                     int threads) {
    struct run j = {.family = family};
    uint8_t *base = (uint8_t *)4096;
    return arrange(&j, m, n, block, group, longest, threads, base) - base;
}

/* logits[n][labels] of n sentences: sentence i has ids[start[i] .. start[i] + rows[i]), and as many types (NULL: all
 * 0), of which the first keys[i] are attended to (keys < rows: padded). A block holds at most `block` rows (at least
 * the longest sentence); a thread takes `group` blocks at once. `work`: native_bytes, 4096-aligned. left[i]: the layer,
 * from 1, whose head answered sentence i, if one did. head_inputs (or NULL): [n][layers - 1][2 h]. The caller has checked
 * everything. */
void native_run(const struct family *family, const struct net *m, const int32_t *ids, const int32_t *types,
                const int64_t *start, const int32_t *rows, const int32_t *keys, int n, int block, int group, int longest,
                int threads, uint8_t *work, float *logits, int32_t *left, float *head_inputs) {
    struct run j = {.m = m, .family = family, .ids = ids, .types = types, .rows = rows, .keys = keys,
                    .start = start, .logits = logits, .n = n, .threads = threads, .room = MAX(block, longest),
                    .left = left, .head_inputs = head_inputs};
    arrange(&j, m, n, block, group, longest, threads, work);
    int blocks = plan(rows, n, j.room, longest, j.by, j.link, j.order, j.block);
    int64_t all = start[n - 1] + rows[n - 1];
    if (all <= (int64_t)threads * block && (blocks > threads || longest > block) /* blocks would not be equal */
        && !m->exits && !head_inputs)
        j.team = MIN(threads, (all + j.family->rows - 1) / j.family->rows);
    parallel(&j, j.family->blocks, blocks, MIN(group, (blocks + threads - 1) / threads), 1);
    j.team = 0;
    int rows_each = UP(MIN((j.last + threads - 1) / threads, block), 32);
    if (j.last) parallel(&j, j.family->tail, j.last, rows_each, rows_each);
}

/* For LD_PRELOAD: folders are read in reverse order, and the clock is a year ahead (tools/checks/reproduce.py). */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static __thread struct entry { DIR *folder; struct entry *next; struct dirent64 said; } *waiting, *last;

static struct entry *taken(DIR *folder) {
    struct entry **at = &waiting, *one;
    while (*at && (*at)->folder != folder) at = &(*at)->next;
    if ((one = *at)) *at = one->next;
    return one;
}
struct dirent64 *readdir64(DIR *folder) {
    free(last);
    if ((last = taken(folder))) return &last->said;
    for (struct dirent64 *said; (said = REAL(readdir64)(folder)); ) { /* all of them, at the first call; none after the last */
        struct entry *one = malloc(sizeof *one);
        memcpy(&one->said, said, said->d_reclen);
        one->folder = folder, one->next = waiting, waiting = one;
    }
    return (last = taken(folder)) ? &last->said : NULL;
}
struct dirent *readdir(DIR *folder) { return (struct dirent *)readdir64(folder); }
int closedir(DIR *folder) {
    for (struct entry *one; (one = taken(folder)); ) free(one);
    return REAL(closedir)(folder);
}
int clock_gettime(clockid_t clock, struct timespec *now) {
    int status = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME) now->tv_sec += 365 * 86400;
    return status;
}

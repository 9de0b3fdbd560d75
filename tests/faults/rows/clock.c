/* Preloaded before libfaketime. What libfaketime does when it starts, or when the first of its functions is called,
   allocates; jemalloc calls those functions while it starts, and would wait for itself. Until libfaketime has started,
   it is not called. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static int (*faked_gettime)(clockid_t, struct timespec *);
static int (*faked_cond_init)(pthread_cond_t *, const pthread_condattr_t *);

/* The constructor of what is preloaded first is called last. */
__attribute__((constructor)) static void libfaketime_has_started(void) {
    faked_cond_init = (int (*)(pthread_cond_t *, const pthread_condattr_t *))dlsym(RTLD_NEXT, "pthread_cond_init");
    faked_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    return faked_gettime ? faked_gettime(clock, now) : (int)syscall(SYS_clock_gettime, clock, now);
}

int pthread_cond_init(pthread_cond_t *cond, const pthread_condattr_t *attributes) {
    if (faked_cond_init) {
        return faked_cond_init(cond, attributes);
    }
    /* jemalloc's, which has no attributes. */
    *cond = (pthread_cond_t)PTHREAD_COND_INITIALIZER;
    return 0;
}

/* Preloaded before libfaketime. What libfaketime does when it starts, or when the first of its functions is called,
   allocates; jemalloc calls those functions while it starts, and would wait for itself. Until libfaketime has started,
   it is not called.

   And libfaketime leaves cnd_timedwait alone, by which librdkafka waits until a time of the faked clock: by the real one,
   that is an hour too long, or no wait at all. Here it waits by the faked clock, as it would by a real one that jumps: a wait ends early when the clock
   goes forward, and lasts as much longer when it goes back, unless it is signalled. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

/* How soon a wait notices that the clock has jumped. */
#define LOOK_AGAIN_NS 20000000L
#define SECOND_NS 1000000000L

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

static struct timespec after(struct timespec time, long ns) {
    time.tv_nsec += ns;
    if (time.tv_nsec >= SECOND_NS) {
        time.tv_nsec -= SECOND_NS;
        time.tv_sec++;
    }
    return time;
}

static long ns_until(struct timespec then, struct timespec now) {
    time_t seconds = then.tv_sec - now.tv_sec;
    if (seconds < -1 || seconds > 1) {
        return seconds < 0 ? 0 : LOOK_AGAIN_NS;
    }
    long ns = seconds * SECOND_NS + then.tv_nsec - now.tv_nsec;
    return ns < 0 ? 0 : ns < LOOK_AGAIN_NS ? ns : LOOK_AGAIN_NS;
}

/* With the C library a condition and a lock of C are those of POSIX. */
int cnd_timedwait(cnd_t *cond, mtx_t *lock, const struct timespec *until) {
    for (;;) {
        struct timespec now, steady;
        clock_gettime(CLOCK_REALTIME, &now);
        long ns = ns_until(*until, now);
        if (ns == 0) {
            return thrd_timedout;
        }
        syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &steady);
        steady = after(steady, ns);
        int waited = pthread_cond_clockwait((pthread_cond_t *)cond, (pthread_mutex_t *)lock, CLOCK_MONOTONIC, &steady);
        if (waited != ETIMEDOUT) {
            return waited == 0 ? thrd_success : thrd_error;
        }
    }
}

/* Clock, chance, threads and log. A thread's body runs at once where the thread is started. */
#include <pthread.h>

#include "base/clock.h"
#include "base/log.h"
#include "core/signature.h"
#include "world.h"

int64_t __wrap_clock_now_ms(void);
int64_t __wrap_clock_mono_us(void);
void __wrap_rng_seed_from_system(struct rng *r);
int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg);
int __wrap_pthread_join(pthread_t t, void **ret);
int __wrap_pthread_setname_np(pthread_t t, const char *name);
struct signer *__wrap_signer_new(void);
void __wrap_signer_free(struct signer *s);
void __wrap_signer_forget(struct signer *s);
void __wrap_log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n);

int64_t __wrap_clock_now_ms(void) {
    return world_wall();
}

int64_t __wrap_clock_mono_us(void) {
    return world.true_ms * 1000;
}

void __wrap_rng_seed_from_system(struct rng *r) {
    rng_seed(r, rng_next(&world.rng));
}

int __wrap_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *arg), void *arg) {
    (void)attr;
    *t = pthread_self();
    fn(arg);
    return 0;
}

int __wrap_pthread_join(pthread_t t, void **ret) {
    (void)t;
    (void)ret;
    return 0;
}

int __wrap_pthread_setname_np(pthread_t t, const char *name) {
    (void)t;
    (void)name;
    return 0;
}

struct signer *__wrap_signer_new(void) {
    return malloc(1);
}

void __wrap_signer_free(struct signer *s) {
    free(s);
}

void __wrap_signer_forget(struct signer *s) {
    (void)s;
}

/* What goes wrong on purpose is no news. */
void __wrap_log_write(enum log_level level, const char *message, const struct log_field *fields, size_t n) {
    (void)level;
    (void)message;
    (void)fields;
    (void)n;
}

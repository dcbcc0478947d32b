#include "cli/sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Of kernels newer than Debian 12's headers. */
#ifndef LANDLOCK_ACCESS_FS_TRUNCATE
#define LANDLOCK_ACCESS_FS_TRUNCATE (1ULL << 14)
#endif
#ifndef LANDLOCK_ACCESS_FS_REFER
#define LANDLOCK_ACCESS_FS_REFER (1ULL << 13)
#endif

#define COUNT(array) (sizeof(array) / sizeof(array)[0])

enum { ABI_REFER = 2, ABI_TRUNCATE = 3 };

/* What libraries read while the server runs: name resolution, certificates, and what is loaded on demand. */
static const char *const always_readable[] = {
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/run/resolvconf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/localtime",
    "/etc/ssl",
    "/etc/ca-certificates",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/etc/gnutls",
    "/etc/crypto-policies",
    "/etc/ld.so.cache",
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/share/zoneinfo",
    "/dev/null",
    "/dev/urandom",
    "/dev/random",
    "/proc/self",
    "/sys/devices/system/cpu",
};

enum {
    READS = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR,
    WRITES = READS | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_REMOVE_FILE |
             LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_TRUNCATE,
    OF_A_FILE = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | LANDLOCK_ACCESS_FS_TRUNCATE,
};

/* Everything this kernel can rule; what no path is given is forbidden everywhere, running programs for one.
 */
static uint64_t handled_by(long abi) {
    uint64_t all = (LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1;
    if (abi >= ABI_REFER)
        all |= LANDLOCK_ACCESS_FS_REFER;
    if (abi >= ABI_TRUNCATE)
        all |= LANDLOCK_ACCESS_FS_TRUNCATE;
    return all;
}

static int allow(int ruleset, uint64_t handled, const char *path, uint64_t access) {
    _cleanup_close_ int fd = open(path, O_PATH | O_CLOEXEC);
    struct stat st;
    if (fd < 0)
        return errno == ENOENT || errno == EACCES || errno == ENOTDIR ? 0 : -errno;
    if (fstat(fd, &st) < 0)
        return -errno;
    struct landlock_path_beneath_attr rule = {.parent_fd = fd, .allowed_access = access & handled};
    if (!S_ISDIR(st.st_mode))
        rule.allowed_access &= OF_A_FILE;
    return syscall(SYS_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH_BENEATH, &rule, 0) < 0 ? -errno : 0;
}

/* 1 when confined, 0 when the kernel knows no Landlock. */
static int confine_files(const struct sandbox *s) {
    long abi = syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 1)
        return 0;
    struct landlock_ruleset_attr attr = {.handled_access_fs = handled_by(abi)};
    _cleanup_close_ int ruleset = (int)syscall(SYS_landlock_create_ruleset, &attr, sizeof attr, 0);
    int r = ruleset < 0 ? -errno : 0;
    for (size_t i = 0; r == 0 && i < COUNT(always_readable); i++)
        r = allow(ruleset, attr.handled_access_fs, always_readable[i], READS);
    for (size_t i = 0; r == 0 && i < s->readable_n; i++)
        r = allow(ruleset, attr.handled_access_fs, s->readable[i], READS);
    for (size_t i = 0; r == 0 && i < s->writable_n; i++)
        r = allow(ruleset, attr.handled_access_fs, s->writable[i], WRITES);
    if (r == 0 && syscall(SYS_landlock_restrict_self, ruleset, 0) < 0)
        r = -errno;
    return r < 0 ? r : 1;
}

/* ---- system calls ---- */

#if defined(__x86_64__)
#define ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCHITECTURE AUDIT_ARCH_AARCH64
#endif

#ifdef ARCHITECTURE

/* What a server never does, and who took it over would do next. */
static const uint32_t forbidden[] = {
    SYS_execve,       SYS_execveat,      SYS_ptrace,          SYS_process_vm_readv, SYS_process_vm_writev,
    SYS_mount,        SYS_umount2,       SYS_pivot_root,      SYS_chroot,           SYS_unshare,
    SYS_setns,        SYS_bpf,           SYS_perf_event_open, SYS_userfaultfd,      SYS_init_module,
    SYS_finit_module, SYS_delete_module, SYS_kexec_load,      SYS_kexec_file_load,  SYS_reboot,
    SYS_swapon,       SYS_swapoff,       SYS_add_key,         SYS_request_key,      SYS_keyctl,
    SYS_setuid,       SYS_setgid,        SYS_setreuid,        SYS_setregid,         SYS_setresuid,
    SYS_setresgid,    SYS_setgroups,     SYS_io_uring_setup,  SYS_personality,      SYS_acct,
    SYS_settimeofday, SYS_clock_settime, SYS_sethostname,     SYS_setdomainname,    SYS_open_by_handle_at,
};

enum { X32_CALLS = 0x40000000, FILTER_MAX = 2 * COUNT(forbidden) + 24 };

#define LOAD(field)                                                                                          \
    (struct sock_filter) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define RETURN(value)         (struct sock_filter) BPF_STMT(BPF_RET | BPF_K, (value))
#define UNLESS_EQUAL(k, skip) (struct sock_filter) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, (skip))

/* Threads may be made, processes not: clone3 hides its flags from a filter, the C library then falls back to
 * clone. */
static size_t write_filter(struct sock_filter f[FILTER_MAX]) {
    size_t n = 0;
    f[n++] = LOAD(arch);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCHITECTURE, 1, 0);
    f[n++] = RETURN(SECCOMP_RET_KILL_PROCESS);
    f[n++] = LOAD(nr);
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, X32_CALLS, 0, 1);
    f[n++] = RETURN(SECCOMP_RET_ERRNO | ENOSYS);
    f[n++] = UNLESS_EQUAL(SYS_clone3, 1);
    f[n++] = RETURN(SECCOMP_RET_ERRNO | ENOSYS);
#ifdef SYS_fork
    f[n++] = UNLESS_EQUAL(SYS_fork, 1);
    f[n++] = RETURN(SECCOMP_RET_ERRNO | EPERM);
    f[n++] = UNLESS_EQUAL(SYS_vfork, 1);
    f[n++] = RETURN(SECCOMP_RET_ERRNO | EPERM);
#endif
    for (size_t i = 0; i < COUNT(forbidden); i++) {
        f[n++] = UNLESS_EQUAL(forbidden[i], 1);
        f[n++] = RETURN(SECCOMP_RET_ERRNO | EPERM);
    }
    f[n++] = UNLESS_EQUAL(SYS_clone, 3);
    f[n++] = LOAD(args[0]); /* flags; little-endian: the lower half */
    f[n++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, CLONE_THREAD, 1, 0);
    f[n++] = RETURN(SECCOMP_RET_ERRNO | EPERM);
    f[n++] = RETURN(SECCOMP_RET_ALLOW);
    CHECK(n <= FILTER_MAX);
    return n;
}

/* 1 when confined, 0 when the kernel filters no calls. */
static int confine_calls(void) {
    struct sock_filter filter[FILTER_MAX];
    struct sock_fprog program = {.len = (unsigned short)write_filter(filter), .filter = filter};
    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0)
        return 1;
    return errno == ENOSYS || errno == EINVAL ? 0 : -errno;
}

#else

static int confine_calls(void) {
    return 0;
}

#endif

int sandbox_enter(const struct sandbox *s, unsigned *ret_confined) {
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return -errno;
    int files = confine_files(s);
    int calls = files < 0 ? files : confine_calls();
    if (calls < 0)
        return calls;
    *ret_confined = (files ? SANDBOX_FILES : 0U) | (calls ? SANDBOX_CALLS : 0U);
    return 0;
}

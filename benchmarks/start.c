/* The system calls of a container's start and end, with nothing around them: what `warm_start.py` compares proa with.
 *
 *     cc -O2 -o start start.c
 *     ./start COUNT LOWER SCRATCH FILTER [CGROUP-HIERARCHY...]     prints microseconds per start, one line each
 *
 * FILTER: a file with the seccomp filter, as packed sock_filter records.
 *
 * Each start: directories for the writable layer and the container, their records (written aside and renamed), hosts,
 * hostname and resolv.conf, a cgroup in every hierarchy with device rules and a limit of processes, pipes for the
 * output, clone3 into mount, pid, uts, ipc, network and cgroup namespaces with a pidfd; in the child the overlay root,
 * /proc, /dev with its devices, /dev/pts, /dev/shm, /dev/mqueue, /sys with the cgroups read-only, the three files
 * bound, masked and read-only paths, pivot_root, loopback up, sysctls, a session keyring, the filter, capabilities
 * dropped, ids set, execve of /bin/true; the parent waits, drains the pipes, removes the cgroups, records the end, moves
 * the directories out of the way and removes the records. Deleting the moved directories is not timed: proa, too,
 * does that later.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *masked[] = {"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
                               "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
                               "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware"};
static const char *readonly[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};
static const struct { const char *name; int major, minor; } nodes[] = {
    {"/dev/null", 1, 3}, {"/dev/zero", 1, 5}, {"/dev/full", 1, 7}, {"/dev/random", 1, 8}, {"/dev/urandom", 1, 9},
    {"/dev/tty", 5, 0}};
static const char *links[][2] = {{"/proc/self/fd", "/dev/fd"}, {"/proc/self/fd/0", "/dev/stdin"},
                                 {"/proc/self/fd/1", "/dev/stdout"}, {"/proc/self/fd/2", "/dev/stderr"},
                                 {"pts/ptmx", "/dev/ptmx"}};
static const char *files[] = {"hosts", "hostname", "resolv.conf"};
static const char *rules[] = {"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm",
                              "c 5:2 rwm", "c 136:* rwm", "c 10:200 rwm"};
/* What Docker's containers keep: CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE,
 * NET_RAW, SYS_CHROOT, MKNOD, AUDIT_WRITE, SETFCAP. */
static const uint64_t kept = 0xa80425fb;
static struct sock_filter filter[4096];
static struct sock_fprog program = {.filter = filter};

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(1);
    }
}

static void put(const char *path, int flags, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC | flags, 0600);
    must(fd, path);
    must(write(fd, text, strlen(text)), path);
    close(fd);
}

/* A record, as they must survive a crash: written aside, renamed. */
static void record(const char *directory, const char *name)
{
    static const char text[2048] = {[0 ... 2046] = 'r'};
    char aside[4096], path[4096];
    snprintf(aside, sizeof aside, "%s/%s.new", directory, name);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    put(aside, O_CREAT | O_EXCL, text);
    must(rename(aside, path), path);
}

static void mask(const char *path)
{
    struct stat status;
    if (stat(path, &status))
        return;
    if (S_ISDIR(status.st_mode))
        must(mount("tmpfs", path, "tmpfs", MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, "nr_inodes=2"), path);
    else
        must(mount("/dev/null", path, NULL, MS_BIND, NULL), path);
}

static void mount_cgroups(char **hierarchies, int count)
{
    unsigned long secure = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(mount("cgroup", "sys/fs/cgroup", "tmpfs", secure, "mode=755"), "cgroups");
    for (int i = 0; i < count; i++) {
        char path[4096];
        const char *name = strrchr(hierarchies[i], '/') + 1;
        snprintf(path, sizeof path, "sys/fs/cgroup/%s", name);
        must(mkdir(path, 0755), path);
        must(mount("cgroup", path, "cgroup", secure | MS_RDONLY, name), path);
    }
    must(mount(NULL, "sys/fs/cgroup", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | secure, NULL), "cgroups");
}

static void drop_privileges(void)
{
    must(syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, "_ses.bench"), "keyring");
    must(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, &program), "seccomp");
    must(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0), "ambient");
    for (int capability = 0; capability <= CAP_LAST_CAP; capability++)
        if (!(kept >> capability & 1))
            must(prctl(PR_CAPBSET_DROP, capability, 0, 0, 0), "bounding set");
    gid_t group = 0;
    must(setgroups(1, &group), "setgroups");
    must(setresgid(0, 0, 0), "setresgid");
    must(setresuid(0, 0, 0), "setresuid");
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct sets[2] = {{kept, kept, 0}, {kept >> 32, kept >> 32, 0}};
    must(syscall(SYS_capset, &header, sets), "capset");
}

static void be_container(const char *lower, const char *scratch, const char *own, char **hierarchies, int count)
{
    char options[12288], root[4096];
    unsigned long secure = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(setsid(), "setsid");
    must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave");
    snprintf(root, sizeof root, "%s/root", scratch);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/layer/upper,workdir=%s/layer/work,volatile", lower, own, own);
    must(mount("overlay", root, "overlay", 0, options), "overlay");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", secure, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755), "pts");
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
    must(mount("sysfs", "sys", "sysfs", secure | MS_RDONLY, NULL), "sysfs");
    mount_cgroups(hierarchies, count);
    must(mkdir("dev/mqueue", 0755), "mkdir");
    must(mount("mqueue", "dev/mqueue", "mqueue", secure, NULL), "mqueue");
    must(mkdir("dev/shm", 0755), "mkdir");
    must(mount("shm", "dev/shm", "tmpfs", secure, "mode=1777,size=64m"), "shm");
    umask(0);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char source[8192], target[4096];
        snprintf(source, sizeof source, "%s/container/%s", own, files[i]);
        snprintf(target, sizeof target, "etc/%s", files[i]);
        put(target, O_CREAT | O_EXCL, "");
        must(mount(source, target, NULL, MS_BIND | MS_REC, NULL), target);
        must(mount(NULL, target, NULL, MS_REC | MS_PRIVATE, NULL), target);
    }
    for (size_t i = 0; i < sizeof nodes / sizeof *nodes; i++)
        must(mknod(nodes[i].name + 1, S_IFCHR | 0666, makedev(nodes[i].major, nodes[i].minor)), nodes[i].name);
    for (size_t i = 0; i < sizeof links / sizeof *links; i++)
        must(symlink(links[i][0], links[i][1] + 1), links[i][1]);
    must(syscall(SYS_pivot_root, ".", "."), "pivot_root");
    must(umount2(".", MNT_DETACH), "umount2");
    must(chdir("/"), "chdir /");
    int control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo"};
    must(ioctl(control, SIOCGIFFLAGS, &request), "lo");
    request.ifr_flags |= IFF_UP;
    must(ioctl(control, SIOCSIFFLAGS, &request), "lo up");
    must(sethostname("container", 9), "sethostname");
    put("/proc/sys/net/ipv4/ping_group_range", 0, "0 2147483647");
    put("/proc/sys/net/ipv4/ip_unprivileged_port_start", 0, "0");
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL))
            continue;
        must(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | secure, NULL), readonly[i]);
    }
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        mask(masked[i]);
    must(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
    drop_privileges();
    umask(022);
    char *arguments[] = {"true", NULL}, *environment[] = {"PATH=/bin", NULL};
    execve("/bin/true", arguments, environment);
    must(-1, "execve");
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e6 + t.tv_nsec / 1e3;
}

static int delete(const char *path, const struct stat *status, int kind, struct FTW *place)
{
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static void make_cgroup(const char *hierarchy, const char *directory)
{
    char path[4096];
    must(mkdir(directory, 0755), directory);
    if (strstr(hierarchy, "cpuset"))
        for (int i = 0; i < 2; i++) {
            const char *name = i ? "cpuset.mems" : "cpuset.cpus";
            char value[256] = "";
            snprintf(path, sizeof path, "%s/%s", hierarchy, name);
            int fd = open(path, O_RDONLY);
            must(read(fd, value, sizeof value - 1), path);
            close(fd);
            snprintf(path, sizeof path, "%s/%s", directory, name);
            put(path, 0, value);
        }
    if (strstr(hierarchy, "devices")) {
        snprintf(path, sizeof path, "%s/devices.deny", directory);
        put(path, 0, "a");
        snprintf(path, sizeof path, "%s/devices.allow", directory);
        for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
            put(path, 0, rules[i]);
    }
    if (strstr(hierarchy, "pids")) {
        snprintf(path, sizeof path, "%s/pids.max", directory);
        put(path, 0, "2048");
    }
}

int main(int count, char **words)
{
    if (count < 5)
        return fprintf(stderr, "usage: start COUNT LOWER SCRATCH FILTER [CGROUP-HIERARCHY...]\n"), 2;
    char **hierarchies = words + 5;
    int hierarchy_count = count - 5 < 64 ? count - 5 : 64;
    int filter_fd = open(words[4], O_RDONLY);
    ssize_t filter_bytes = read(filter_fd, filter, sizeof filter);
    must(filter_bytes, words[4]);
    close(filter_fd);
    program.len = filter_bytes / sizeof *filter;
    for (int round = atoi(words[1]); round > 0; round--) {
        char path[4096], trash[4096], own[4000], container[4096];
        int joins[64], out[2][2];
        double begun = now();
        snprintf(own, sizeof own, "%s/%d-%d", words[3], getpid(), round);
        snprintf(container, sizeof container, "%s/container", own);
        must(mkdir(own, 0755), own);
        const char *parts[] = {"layer", "layer/upper", "layer/work", "container"};
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            snprintf(path, sizeof path, "%s/%s", own, parts[i]);
            must(mkdir(path, 0755), path);
        }
        record(own, "layer.json");
        record(own, "container.json");
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            snprintf(path, sizeof path, "%s/%s", container, files[i]);
            put(path, O_CREAT | O_EXCL, "127.0.0.1 localhost\n");
            must(chmod(path, 0644), path);
        }
        for (int i = 0; i < hierarchy_count; i++) {
            snprintf(path, sizeof path, "%s/proa-bench-%d", hierarchies[i], getpid());
            make_cgroup(hierarchies[i], path);
            snprintf(path, sizeof path, "%s/proa-bench-%d/tasks", hierarchies[i], getpid());
            joins[i] = open(path, O_WRONLY | O_CLOEXEC);
        }
        for (int i = 0; i < 2; i++)
            must(pipe2(out[i], O_CLOEXEC), "pipe2");
        int pidfd = -1;
        struct clone_args arguments = {
            .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_PIDFD,
            .pidfd = (uintptr_t)&pidfd,
            .exit_signal = SIGCHLD,
        };
        pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
        must(pid, "clone3");
        if (pid == 0) {
            for (int i = 0; i < hierarchy_count; i++)
                must(write(joins[i], "0", 1), "join");
            must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
            for (int i = 0; i < 2; i++)
                must(dup2(out[i][1], i + 1), "dup2");
            be_container(words[2], words[3], own, hierarchies, hierarchy_count);
        }
        for (int i = 0; i < 2; i++)
            close(out[i][1]);
        record(container, "monitor.json");
        snprintf(path, sizeof path, "%s/container.json", own);
        must(unlink(path), path);
        record(own, "container.json");
        siginfo_t ended;
        struct pollfd waited = {.fd = pidfd, .events = POLLIN};
        must(poll(&waited, 1, -1), "poll");
        must(waitid(P_PIDFD, pidfd, &ended, WEXITED), "waitid");
        close(pidfd);
        for (int i = 0; i < 2; i++) {
            char text[4096];
            ssize_t length;
            while ((length = read(out[i][0], text, sizeof text)) > 0)
                fwrite(text, 1, length, stderr);
            close(out[i][0]);
        }
        for (int i = 0; i < hierarchy_count; i++) {
            close(joins[i]);
            snprintf(path, sizeof path, "%s/proa-bench-%d", hierarchies[i], getpid());
            while (rmdir(path) && errno == EBUSY)
                usleep(100);
        }
        record(container, "exit.json");
        snprintf(path, sizeof path, "%s/monitor.json", container);
        must(unlink(path), path);
        snprintf(trash, sizeof trash, "%s/%d-%d-container", words[3], getpid(), round);
        must(rename(container, trash), trash);
        snprintf(path, sizeof path, "%s/layer.json", own);
        must(unlink(path), path);
        snprintf(path, sizeof path, "%s/layer", own);
        snprintf(trash, sizeof trash, "%s/%d-%d-layer", words[3], getpid(), round);
        must(rename(path, trash), trash);
        snprintf(path, sizeof path, "%s/container.json", own);
        must(unlink(path), path);
        if (ended.si_code != CLD_EXITED || ended.si_status)
            return fprintf(stderr, "the program ended with %d\n", ended.si_status), 1;
        printf("%.0f\n", now() - begun);
        nftw(trash, delete, 16, FTW_DEPTH | FTW_PHYS);
        snprintf(trash, sizeof trash, "%s/%d-%d-container", words[3], getpid(), round);
        nftw(trash, delete, 16, FTW_DEPTH | FTW_PHYS);
        must(rmdir(own), own);
        usleep(50000); /* the pause that the SDK makes, too */
    }
    return 0;
}

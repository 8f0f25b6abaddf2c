/* The system calls of a container's start and end, with nothing around them: what `warm_start.py` compares proa with.
 *
 *     cc -O2 -o start start.c
 *     ./start COUNT LOWER SCRATCH [CGROUP-HIERARCHY...]     prints microseconds per start, one line each
 *
 * Each start: directories for the writable layer, a cgroup in every hierarchy, clone3 into mount, pid, uts, ipc, network and cgroup namespaces; in the child
 * the overlay root, /proc, /dev with its devices, /dev/pts, /dev/shm, /dev/mqueue, /sys, masked and read-only paths,
 * pivot_root, loopback up, no_new_privs, execve of /bin/true; the parent waits and removes the cgroups.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <net/if.h>
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

static void must(long result, const char *what)
{
    if (result < 0) {
        perror(what);
        _exit(1);
    }
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

static void be_container(const char *lower, const char *scratch, const char *own)
{
    char options[12288], root[4096];
    unsigned long secure = MS_NOSUID | MS_NOEXEC | MS_NODEV;
    must(setsid(), "setsid");
    must(mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL), "slave");
    snprintf(root, sizeof root, "%s/root", scratch);
    snprintf(options, sizeof options, "lowerdir=%s,upperdir=%s/upper,workdir=%s/work,volatile", lower, own, own);
    must(mount("overlay", root, "overlay", 0, options), "overlay");
    must(chdir(root), "chdir");
    must(mount("proc", "proc", "proc", secure, NULL), "proc");
    must(mount("tmpfs", "dev", "tmpfs", MS_NOSUID | MS_STRICTATIME, "mode=755,size=65536k"), "dev");
    must(mkdir("dev/pts", 0755), "pts");
    must(mount("devpts", "dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5"), "devpts");
    must(mount("sysfs", "sys", "sysfs", secure | MS_RDONLY, NULL), "sysfs");
    must(mkdir("dev/mqueue", 0755), "mkdir");
    must(mount("mqueue", "dev/mqueue", "mqueue", secure, NULL), "mqueue");
    must(mkdir("dev/shm", 0755), "mkdir");
    must(mount("shm", "dev/shm", "tmpfs", secure, "mode=1777,size=64m"), "shm");
    umask(0);
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
    for (size_t i = 0; i < sizeof readonly / sizeof *readonly; i++) {
        if (mount(readonly[i], readonly[i], NULL, MS_BIND | MS_REC, NULL))
            continue;
        must(mount(NULL, readonly[i], NULL, MS_BIND | MS_REMOUNT | MS_RDONLY | secure, NULL), readonly[i]);
    }
    for (size_t i = 0; i < sizeof masked / sizeof *masked; i++)
        mask(masked[i]);
    must(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs");
    must(syscall(SYS_close_range, 3, ~0U, 0), "close_range");
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

int main(int count, char **words)
{
    if (count < 4)
        return fprintf(stderr, "usage: start COUNT LOWER SCRATCH [CGROUP-HIERARCHY...]\n"), 2;
    for (int round = atoi(words[1]); round > 0; round--) {
        char path[4096], own[4000];
        int joins[64], joined = 0;
        double begun = now();
        snprintf(own, sizeof own, "%s/%d-%d", words[3], getpid(), round);
        must(mkdir(own, 0755), own);
        for (int i = 0; i < 2; i++) {
            snprintf(path, sizeof path, "%s/%s", own, i ? "work" : "upper");
            must(mkdir(path, 0755), path);
        }
        for (int i = 4; i < count && joined < 64; i++) {
            snprintf(path, sizeof path, "%s/proa-bench-%d", words[i], getpid());
            must(mkdir(path, 0755), path);
            if (strstr(words[i], "cpuset"))
                for (int j = 0; j < 2; j++) {
                    const char *name = j ? "cpuset.mems" : "cpuset.cpus";
                    char value[256];
                    snprintf(path, sizeof path, "%s/%s", words[i], name);
                    int fd = open(path, O_RDONLY);
                    ssize_t length = read(fd, value, sizeof value);
                    close(fd);
                    snprintf(path, sizeof path, "%s/proa-bench-%d/%s", words[i], getpid(), name);
                    fd = open(path, O_WRONLY);
                    must(write(fd, value, length > 0 ? length : 0), path);
                    close(fd);
                }
            snprintf(path, sizeof path, "%s/proa-bench-%d/tasks", words[i], getpid());
            joins[joined++] = open(path, O_WRONLY | O_CLOEXEC);
        }
        struct clone_args arguments = {
            .flags = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET,
            .exit_signal = SIGCHLD,
        };
        pid_t pid = syscall(SYS_clone3, &arguments, sizeof arguments);
        must(pid, "clone3");
        if (pid == 0) {
            for (int i = 0; i < joined; i++)
                must(write(joins[i], "0", 1), "join");
            must(unshare(CLONE_NEWCGROUP), "cgroup namespace");
            be_container(words[2], words[3], own);
        }
        int status;
        must(waitpid(pid, &status, 0), "waitpid");
        for (int i = 0; i < joined; i++)
            close(joins[i]);
        for (int i = 4; i < count; i++) {
            snprintf(path, sizeof path, "%s/proa-bench-%d", words[i], getpid());
            while (rmdir(path) && errno == EBUSY)
                usleep(100);
        }
        if (status)
            return fprintf(stderr, "the program ended with %d\n", status), 1;
        printf("%.0f\n", now() - begun);
    }
    return 0;
}

/*
 * The floor: an echo server in C that does what an echo must do and nothing else.
 *
 *     epoll_echo PORT BUFFER
 *
 * One thread, level-triggered epoll; for each event one read of at most BUFFER bytes and one
 * write.  What the kernel does not take waits in a buffer of the connection, and nothing more is
 * read from it until that is gone.  No limits, deadlines or counters: this is no server to run.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct {
    int fd;
    char *rest;          /* echo that the kernel did not take, or NULL */
    size_t size, offset; /* of `rest` */
} Connection;

static int ep;

static void watch(int how, Connection *c, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(ep, how, c->fd, &event);
}

static void drop(Connection *c) {
    close(c->fd);
    free(c->rest);
    free(c);
}

static void welcome(int listener) {
    int one = 1, fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        Connection *c = calloc(1, sizeof *c);
        c->fd = fd;
        watch(EPOLL_CTL_ADD, c, EPOLLIN);
    }
}

/* Send what waits; 1 once it is gone, 0 if some is left, -1 if the peer is gone. */
static int flush(Connection *c) {
    ssize_t n = write(c->fd, c->rest + c->offset, c->size - c->offset);
    if (n < 0) return errno == EAGAIN ? 0 : -1;
    if ((c->offset += (size_t)n) < c->size) return 0;
    free(c->rest);
    c->rest = NULL;
    watch(EPOLL_CTL_MOD, c, EPOLLIN);
    return 1;
}

static int echo(Connection *c, char *buffer, size_t size) {
    ssize_t n = read(c->fd, buffer, size);
    if (n <= 0) return n < 0 && errno == EAGAIN ? 0 : -1;
    ssize_t sent = write(c->fd, buffer, (size_t)n);
    if (sent < 0) {
        if (errno != EAGAIN) return -1;
        sent = 0;
    }
    if (sent < n) {
        c->size = (size_t)(n - sent);
        c->offset = 0;
        c->rest = malloc(c->size);
        memcpy(c->rest, buffer + sent, c->size);
        watch(EPOLL_CTL_MOD, c, EPOLLOUT);
    }
    return 0;
}

int main(int count, char **words) {
    if (count != 3) return fprintf(stderr, "usage: epoll_echo PORT BUFFER\n"), 2;
    size_t size = strtoul(words[2], NULL, 10);
    char *buffer = malloc(size);
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[1]))};
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(listener, (struct sockaddr *)&at, sizeof at) || listen(listener, 4096))
        return perror("listen"), 1;
    ep = epoll_create1(EPOLL_CLOEXEC);
    Connection door = {.fd = listener};
    watch(EPOLL_CTL_ADD, &door, EPOLLIN);
    struct epoll_event events[512];
    for (;;) {
        int n = epoll_wait(ep, events, 512, -1);
        for (int i = 0; i < n; i++) {
            Connection *c = events[i].data.ptr;
            if (c == &door) welcome(listener);
            else if ((c->rest ? flush(c) : echo(c, buffer, size)) < 0) drop(c);
        }
    }
}

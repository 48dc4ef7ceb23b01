/*
 * The load generator: one thread, one epoll, as little work for a message as there can be.
 *
 *     load MODE port=N [key=number ...] [pattern=raw|line|frame]
 *
 * It speaks with its parent in lines.  It connects and warms up, writes {"ready": ...} on
 * standard output, waits for a line on standard input, works, writes its result as one line of
 * JSON, and keeps its connections open until standard input ends.  The parent reads the
 * server's counters in the two pauses, so that neither connecting nor closing is counted.
 *
 * Modes and their keys (sizes in bytes, times in seconds; results: times in nanoseconds):
 *
 *   pingpong  connections, message, seconds, spin      one message in flight on each
 *   bulk      connections, block, flight, message, seconds
 *                                                      flight blocks in flight on each
 *   churn     connections, message, seconds, half      connect, send, read it back, close; with
 *                                                      half, half-close and read to EOF instead
 *   idle      connections, message                     each echoes once and is then held
 *   stalled   connections, block, most                 send until nothing more is taken, or
 *                                                      `most` bytes each; never read
 *   flood     connections, block, flight, message, seconds
 *                                                      one ping-pong client, first alone, then
 *                                                      while the connections flood
 *
 * Echoed bytes are counted and not looked at; bulk modes, and pingpong with messages of 8 KiB and
 * more, let the kernel drop them uncopied (MSG_TRUNC), so that this side does less than any server
 * can.
 *
 * It is linked twice, with plain.c and with tls.c; wire.h says what those are.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "wire.h"

enum { EVENTS = 1024, BATCH = 64, SOURCES = 16 };
/* A run in which nothing has come for this long is given up. */
#define STUCK 10.0
/* Bytes that a flooding connection reads or writes before the ping-pong client is looked at
 * again: some microseconds of work, which is the error of the latency that is measured. */
#define FLOOD_STEP 16384
/* From this size on, echoes of messages are dropped uncopied. */
#define DROPPED 8192

static int port, connections = 1, spin, half;
static size_t message = 64, block = 65536, flight = 1, most = 16 << 20;
static double seconds = 1;
static char pattern = 'r';
static char *payload;
static int ep;
static unsigned opened;

/* -- Time and figures --------------------------------------------------------------------- */

static uint64_t clockOf(clockid_t which) {
    struct timespec t;
    clock_gettime(which, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}
static uint64_t now(void) { return clockOf(CLOCK_MONOTONIC); }
static uint64_t ownCPU(void) { return clockOf(CLOCK_PROCESS_CPUTIME_ID); }

/* Latencies, in 128 steps for each power of two: 0.8 % fine. */
enum { STEPS = 128, SLOTS = 40 * STEPS };
typedef struct {
    uint64_t slot[SLOTS], count, longest;
} Histogram;

static void record(Histogram *h, uint64_t value) {
    unsigned index = (unsigned)value;
    if (value >= STEPS) {
        int shift = 63 - __builtin_clzll(value) - 7;
        index = (unsigned)((uint64_t)(shift + 1) * STEPS + (value >> shift) - STEPS);
    }
    h->slot[index < SLOTS ? index : SLOTS - 1]++;
    h->count++;
    if (value > h->longest) h->longest = value;
}

static uint64_t percentile(const Histogram *h, double share) {
    uint64_t wanted = (uint64_t)(share * (double)h->count), seen = 0;
    for (unsigned index = 0; index < SLOTS; index++) {
        seen += h->slot[index];
        if (seen > wanted) {
            if (index < STEPS) return index;
            unsigned shift = index / STEPS - 1;
            uint64_t middle = ((uint64_t)(index % STEPS + STEPS) << shift) + ((1ull << shift) >> 1);
            return middle < h->longest ? middle : h->longest;
        }
    }
    return h->longest;
}

/* -- Words to the parent ------------------------------------------------------------------ */

void fail(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    printf("{\"error\": \"");
    vprintf(format, arguments);
    printf("\"}\n");
    fflush(stdout);
    exit(1);
}

static void failErrno(const char *what) { fail("%s: %s", what, strerror(errno)); }

static void waitForParent(void) {
    char c;
    ssize_t n;
    do n = read(0, &c, 1);
    while (n < 0 && errno == EINTR);
    if (n != 1) exit(0);
}

static void ready(uint64_t bytes) {
    printf("{\"ready\": %llu}\n", (unsigned long long)bytes);
    fflush(stdout);
    waitForParent();
}

static void printLatency(const char *prefix, const Histogram *h) {
    printf(", \"%ssamples\": %llu, \"%sp50\": %llu, \"%sp90\": %llu, \"%sp99\": %llu,"
           " \"%slongest\": %llu",
           prefix, (unsigned long long)h->count, prefix, (unsigned long long)percentile(h, 0.5),
           prefix, (unsigned long long)percentile(h, 0.9), prefix,
           (unsigned long long)percentile(h, 0.99), prefix, (unsigned long long)h->longest);
}

static void result(uint64_t count, uint64_t bytes, uint64_t shortOnes, uint64_t wall, uint64_t cpu) {
    printf("{\"count\": %llu, \"bytes\": %llu, \"short\": %llu, \"wall\": %llu, \"cpu\": %llu",
           (unsigned long long)count, (unsigned long long)bytes, (unsigned long long)shortOnes,
           (unsigned long long)wall, (unsigned long long)cpu);
}

static void finish(void) {
    printf("}\n");
    fflush(stdout);
    waitForParent();
    exit(0);
}

/* -- Connections -------------------------------------------------------------------------- */

/* Connected, from one of several source addresses in turn, so that ports in TIME_WAIT do not
 * run out. */
static void dial(Client *client) {
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0) failErrno("socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
    struct timeval limit = {.tv_sec = (time_t)STUCK};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    struct sockaddr_in from = {.sin_family = AF_INET};
    from.sin_addr.s_addr = htonl(INADDR_LOOPBACK + opened++ % SOURCES);
    if (bind(fd, (struct sockaddr *)&from, sizeof from)) failErrno("bind");
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof to)) failErrno("connect");
    client->fd = fd;
    client->sent = client->got = 0;
    wireOpen(client);
}

static void watch(int how, Client *client, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(ep, how, client->fd, &event)) failErrno("epoll_ctl");
}

/* Bytes that were read, 0 if there are none for now; ends the run at EOF and errors. */
static size_t take(Client *client, void *into, size_t size) {
    ssize_t n = wireRead(client, into, size);
    if (n > 0) return (size_t)n;
    if (n == 0) fail("the server closed a connection");
    if (errno != EAGAIN && errno != EINTR) failErrno("recv");
    return 0;
}

static size_t put(Client *client, const void *from, size_t size) {
    ssize_t n = wireWrite(client, from, size);
    if (n >= 0) return (size_t)n;
    if (errno != EAGAIN && errno != EINTR) failErrno("send");
    return 0;
}

/* Send what is left of the message: a large one, or one behind a handshake, takes some turns. */
static void putRest(Client *client) {
    client->sent += put(client, payload + client->sent, message - client->sent);
}

static void startMessage(Client *client, uint64_t time) {
    client->sent = client->got = 0;
    client->sentAt = time;
    putRest(client);
}

/* Go on with the message and its echo; whether all of that is there. */
static int echoed(Client *client, char *echo) {
    if (client->sent < message) putRest(client);
    client->got += take(client, echo, message - client->got);
    return client->got == message;
}

/* Open `count` connections and let each echo one message, a batch at a time. */
static Client *dialAll(int count) {
    Client *clients = calloc((size_t)count, sizeof *clients);
    char *echo = malloc(message);
    for (int first = 0; first < count; first += BATCH) {
        int last = first + BATCH < count ? first + BATCH : count;
        for (int i = first; i < last; i++) {
            dial(&clients[i]);
            putRest(&clients[i]);
        }
        for (int i = first; i < last; i++) {
            struct pollfd one = {.fd = clients[i].fd, .events = POLLIN};
            while (!echoed(&clients[i], echo))
                if (poll(&one, 1, (int)(STUCK * 1000)) <= 0) fail("no echo on connection %d", i);
        }
    }
    free(echo);
    return clients;
}

/* -- Modes -------------------------------------------------------------------------------- */

static void pingpong(void) {
    static Histogram latencies;
    Client *clients = dialAll(connections);
    char *echo = message < DROPPED ? malloc(message) : NULL;
    for (int i = 0; i < connections; i++) watch(EPOLL_CTL_ADD, &clients[i], EPOLLIN | EPOLLOUT | EPOLLET);
    ready(0);
    uint64_t cpu = ownCPU(), begin = now(), last = begin, time = begin;
    uint64_t end = begin + (uint64_t)(seconds * 1e9);
    int outstanding = connections;
    for (int i = 0; i < connections; i++) startMessage(&clients[i], now());
    struct epoll_event events[EVENTS];
    while (outstanding) {
        int n = epoll_wait(ep, events, EVENTS, spin ? 0 : 1000);
        if (n <= 0) {
            if (now() - last > (uint64_t)(STUCK * 1e9)) fail("no echo for %g s", STUCK);
            continue;
        }
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            if (!client->sentAt || !echoed(client, echo)) continue;
            last = time = now();
            record(&latencies, time - client->sentAt);
            client->sentAt = 0;
            if (time < end) startMessage(client, time);
            else outstanding--;
        }
    }
    result(latencies.count, latencies.count * message, 0, last - begin, ownCPU() - cpu);
    printLatency("", &latencies);
    finish();
}

/* Send up to the window; once `ending`, only what completes the block. */
static void fill(Client *client, size_t window, int ending) {
    int full = 0;
    while (client->inFlight < window && !(ending && client->offset == 0)) {
        size_t size = block - client->offset, sent = put(client, payload + client->offset, size);
        client->inFlight += sent;
        client->offset = (client->offset + sent) % block;
        if (sent < size) {
            full = 1;
            break;
        }
    }
    if (full != client->wantsWrite) {
        client->wantsWrite = full;
        watch(EPOLL_CTL_MOD, client, full ? EPOLLIN | EPOLLOUT : EPOLLIN);
    }
}

/* Be woken for no less than so many bytes: fewer turns of this side's loop. */
static void wakeAt(Client *clients, size_t bytes) {
    int low = (int)bytes;
    for (int i = 0; i < connections; i++)
        setsockopt(clients[i].fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
}

static void bulk(void) {
    size_t window = block * flight;
    Client *clients = dialAll(connections);
    for (int i = 0; i < connections; i++) watch(EPOLL_CTL_ADD, &clients[i], EPOLLIN);
    ready(0);
    uint64_t cpu = ownCPU(), begin = now(), last = begin, bytes = 0;
    uint64_t end = begin + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) fill(&clients[i], window, 0);
    int busy = connections, ending = 0;
    /* An eighth of what is under way: the server always has the rest to work on. */
    wakeAt(clients, window > 8 ? window / 8 : 1);
    struct epoll_event events[EVENTS];
    while (busy) {
        int n = epoll_wait(ep, events, EVENTS, 1000);
        uint64_t time = now();
        if (!ending && time >= end) {
            ending = 1;
            wakeAt(clients, 1);
        }
        if (n > 0) last = time;
        else if (time - last > (uint64_t)(STUCK * 1e9)) fail("no echo for %g s", STUCK);
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            if (events[i].events & ~(uint32_t)EPOLLOUT) {
                size_t got = take(client, NULL, window);
                client->inFlight -= got;
                bytes += got;
            }
            fill(client, window, ending);
        }
        if (ending) {
            busy = 0;
            for (int i = 0; i < connections; i++) busy += clients[i].inFlight > 0;
            if (!busy) last = now();
        }
    }
    result(bytes / message, bytes, 0, last - begin, ownCPU() - cpu);
    finish();
}

static void sendOnce(Client *client) {
    putRest(client);
    if (half && client->sent == message) wireFinish(client);
}

static void dialOnce(Client *client) {
    dial(client);
    sendOnce(client);
    watch(EPOLL_CTL_ADD, client, EPOLLIN);
}

static void churn(void) {
    char *echo = malloc(message + 1);
    Client *clients = calloc((size_t)connections, sizeof *clients);
    /* To EOF means: a byte too many is seen. */
    size_t wanted = message + (half ? 1 : 0);
    ready(0);
    uint64_t cpu = ownCPU(), begin = now(), last = begin, count = 0, bytes = 0, shortOnes = 0;
    uint64_t end = begin + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < connections; i++) dialOnce(&clients[i]);
    int open = connections;
    struct epoll_event events[EVENTS];
    while (open) {
        int n = epoll_wait(ep, events, EVENTS, 1000);
        if (n <= 0 && now() - last > (uint64_t)(STUCK * 1e9)) fail("nothing for %g s", STUCK);
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            ssize_t got = 1;
            if (client->sent < message) sendOnce(client);
            while (got > 0 && client->got < wanted) {
                got = wireRead(client, echo, wanted - client->got);
                if (got > 0) client->got += (size_t)got;
            }
            if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
            last = now();
            count++;
            bytes += client->got;
            shortOnes += got < 0 || client->got != message;
            wireClose(client);
            if (last >= end) open--;
            else dialOnce(client);
        }
    }
    result(count, bytes, shortOnes, last - begin, ownCPU() - cpu);
    finish();
}

static void idle(void) {
    dialAll(connections);
    ready(0);
    result((uint64_t)connections, 0, 0, 0, 0);
    finish();
}

static void stalled(void) {
    Client *clients = calloc((size_t)connections, sizeof *clients);
    for (int i = 0; i < connections; i++) dial(&clients[i]);
    uint64_t last = now(), bytes = 0;
    while (now() - last < 500000000u) {
        for (int i = 0; i < connections; i++) {
            Client *client = &clients[i];
            while (client->inFlight < most) {
                size_t size = block - client->offset;
                if (size > most - client->inFlight) size = most - client->inFlight;
                size_t sent = put(client, payload + client->offset, size);
                if (!sent) break;
                client->inFlight += sent;
                client->offset = (client->offset + sent) % block;
                bytes += sent;
                last = now();
            }
        }
        usleep(1000);
    }
    ready(bytes);
    result((uint64_t)connections, bytes, 0, 0, 0);
    finish();
}

/* One look at the ping-pong client: its echo, if it is there, and the next message. */
static void look(Client *client, Histogram *latencies, char *echo, int again) {
    if (!client->sentAt || !echoed(client, echo)) return;
    uint64_t time = now();
    record(latencies, time - client->sentAt);
    client->sentAt = 0;
    if (again) startMessage(client, time);
}

static void flood(size_t tiny) {
    static Histogram alone, among;
    char *echo = malloc(message), *floods = malloc(block);
    extern void compose(char *, size_t, size_t);
    compose(floods, block, tiny);
    Client *one = dialAll(1), *clients = calloc((size_t)connections, sizeof *clients);
    size_t window = block * flight;
    ready(0);

    uint64_t end = now() + (uint64_t)(seconds * 0.5e9);
    startMessage(one, now());
    while (one->sentAt) {
        uint64_t time = now();
        look(one, &alone, echo, time < end);
        if (time > end + (uint64_t)(STUCK * 1e9)) fail("no echo for %g s", STUCK);
    }

    for (int i = 0; i < connections; i++) {
        dial(&clients[i]);
        watch(EPOLL_CTL_ADD, &clients[i], EPOLLIN | EPOLLOUT);
    }
    uint64_t cpu = ownCPU(), begin = now(), time = begin, bytes = 0;
    /* A tenth of the time for the flood to rise, then the client begins. */
    uint64_t from = begin + (uint64_t)(seconds * 0.1e9);
    end = from + (uint64_t)(seconds * 1e9);
    struct epoll_event events[EVENTS];
    int begun = 0;
    while (time < end || one->sentAt) {
        if (time > end + (uint64_t)(STUCK * 1e9)) {
            /* Starved for good: what it has waited so far counts as its latency. */
            record(&among, time - one->sentAt);
            break;
        }
        if (!begun && time >= from) {
            begun = 1;
            startMessage(one, time);
        }
        int n = epoll_wait(ep, events, EVENTS, 0);
        look(one, &among, echo, time < end);
        for (int i = 0; i < n; i++) {
            Client *client = events[i].data.ptr;
            if (events[i].events & ~(uint32_t)EPOLLOUT) {
                size_t got = take(client, NULL, FLOOD_STEP * 4);
                client->inFlight -= got;
                bytes += got;
                look(one, &among, echo, time < end);
            }
            if (events[i].events & EPOLLOUT && client->inFlight < window) {
                size_t size = block - client->offset;
                if (size > FLOOD_STEP) size = FLOOD_STEP;
                size_t sent = put(client, floods + client->offset, size);
                client->inFlight += sent;
                client->offset = (client->offset + sent) % block;
                look(one, &among, echo, time < end);
            }
        }
        time = now();
    }
    result(bytes / tiny, bytes, 0, time - begin, ownCPU() - cpu);
    printLatency("alone_", &alone);
    printLatency("", &among);
    finish();
}

/* Fill `into` with whole messages of `each` bytes, as the pattern wants them. */
void compose(char *into, size_t size, size_t each) {
    for (size_t i = 0; i < size; i++) into[i] = (char)('a' + i % 26);
    if (pattern == 'r') return;
    if (each < 2 || size % each) fail("a block must hold whole messages of two bytes or more");
    for (size_t at = 0; at < size; at += each) {
        if (pattern == 'l') {
            memcpy(into + at + each - 2, "\r\n", 2);
        } else {
            into[at] = (char)((each - 2) >> 8);
            into[at + 1] = (char)(each - 2);
        }
    }
}

int main(int count, char **words) {
    size_t tiny = 2;
    signal(SIGPIPE, SIG_IGN);
    for (int i = 2; i < count; i++) {
        char *value = strchr(words[i], '=');
        if (!value) fail("%s: write key=value", words[i]);
        *value++ = 0;
        const char *key = words[i];
        if (!strcmp(key, "port")) port = atoi(value);
        else if (!strcmp(key, "connections")) connections = atoi(value);
        else if (!strcmp(key, "message")) message = strtoul(value, NULL, 10);
        else if (!strcmp(key, "block")) block = strtoul(value, NULL, 10);
        else if (!strcmp(key, "flight")) flight = strtoul(value, NULL, 10);
        else if (!strcmp(key, "most")) most = strtoul(value, NULL, 10);
        else if (!strcmp(key, "tiny")) tiny = strtoul(value, NULL, 10);
        else if (!strcmp(key, "seconds")) seconds = atof(value);
        else if (!strcmp(key, "spin")) spin = atoi(value);
        else if (!strcmp(key, "half")) half = atoi(value);
        else if (!strcmp(key, "pattern")) pattern = *value;
        else fail("%s: no such key", key);
    }
    const char *mode = count > 1 ? words[1] : "";
    if (!port || connections < 1 || !message || !block || !flight || !tiny)
        fail("port, connections and sizes must be positive");
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    if ((rlim_t)connections + 16 > limit.rlim_cur)
        fail("%d connections need more descriptors than %llu", connections,
             (unsigned long long)limit.rlim_cur);
    if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0) failErrno("epoll_create1");
    size_t size = block > message ? block : message;
    payload = malloc(size);
    compose(payload, size, message);
    if (!strcmp(mode, "pingpong")) pingpong();
    if (!strcmp(mode, "bulk")) bulk();
    if (!strcmp(mode, "churn")) churn();
    if (!strcmp(mode, "idle")) idle();
    if (!strcmp(mode, "stalled")) stalled();
    if (!strcmp(mode, "flood")) flood(tiny);
    fail("%s: no such mode", mode);
    return 1;
}

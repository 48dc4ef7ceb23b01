/*
 * What carries the load generator's bytes: plain.c over TCP as it is, tls.c over OpenSSL.
 *
 * One of them is linked to load.c.  A connection is begun by wireOpen over a socket that is
 * connected; then wireRead and wireWrite are as recv(2) and send(2) that do not block, with
 * their returned values and errno.
 */
#include <stdint.h>
#include <sys/types.h>

typedef struct {
    int fd;
    void *tls;         /* of tls.c */
    size_t inFlight;   /* bytes sent and not come back */
    size_t offset;     /* within the block that is being sent */
    size_t sent;       /* of the message that is going out */
    size_t got;        /* of the message that is coming back */
    uint64_t sentAt;   /* nanoseconds */
    int wantsWrite;    /* whether EPOLLOUT is asked for */
} Client;

void wireOpen(Client *client);
/* Into NULL: drop them. */
ssize_t wireRead(Client *client, void *into, size_t size);
ssize_t wireWrite(Client *client, const void *from, size_t size);
/* No more will be sent: FIN, or close_notify. */
void wireFinish(Client *client);
void wireClose(Client *client);

/* Of load.c: one line of JSON with the reason, and the end of the process. */
void fail(const char *format, ...) __attribute__((noreturn, format(printf, 1, 2)));

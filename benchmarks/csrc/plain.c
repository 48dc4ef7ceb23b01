/* TCP as it is; see wire.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "wire.h"

void wireOpen(Client *client) { (void)client; }

ssize_t wireRead(Client *client, void *into, size_t size) {
    /* With MSG_TRUNC the kernel drops them uncopied. */
    return recv(client->fd, into, size, MSG_DONTWAIT | (into ? 0 : MSG_TRUNC));
}

ssize_t wireWrite(Client *client, const void *from, size_t size) {
    return send(client->fd, from, size, MSG_DONTWAIT);
}

void wireFinish(Client *client) {
    if (shutdown(client->fd, SHUT_WR)) fail("shutdown: %s", strerror(errno));
}

void wireClose(Client *client) { close(client->fd); }

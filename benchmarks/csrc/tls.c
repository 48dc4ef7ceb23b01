/*
 * TLS 1.3 (RFC 8446) over OpenSSL; see wire.h.
 *
 * Every server gets the same offer: one cipher, one group, no session to resume.  The handshake
 * is part of the first writes and reads.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string.h>
#include <unistd.h>

#include "wire.h"

/* What OpenSSL's servers choose of its clients' usual offer; one, so that Go's choose it too. */
#define CIPHER "TLS_AES_256_GCM_SHA384"
#define GROUP "X25519"
/* Bytes of one read(2): a message of 64 KiB with its records' heads. */
#define READ_AHEAD (5 * 16384)

static SSL_CTX *context;

static void failTLS(const char *what) {
    const char *reason = ERR_reason_error_string(ERR_peek_error());
    fail("%s: %s", what, reason ? reason : "OpenSSL does not say why");
}

/* Certificates are not looked at: servers.py has verified each once, and the less this side does
 * the better. */
static int acceptAny(X509_STORE_CTX *store, void *nothing) {
    (void)store, (void)nothing;
    return 1;
}

static void makeContext(void) {
    context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, CIPHER) || !SSL_CTX_set1_groups_list(context, GROUP))
        failTLS("OpenSSL");
    SSL_CTX_set_cert_verify_callback(context, acceptAny, NULL);
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
}

void wireOpen(Client *client) {
    if (!context) makeContext();
    int flags = fcntl(client->fd, F_GETFL);
    if (fcntl(client->fd, F_SETFL, flags | O_NONBLOCK)) fail("fcntl: %s", strerror(errno));
    SSL *tls = SSL_new(context);
    if (!tls || !SSL_set_fd(tls, client->fd)) failTLS("OpenSSL");
    SSL_set_connect_state(tls);
    client->tls = tls;
}

/* -1 with errno, or 0 at the peer's close_notify; ends the run at an error of TLS. */
static ssize_t unable(Client *client, int returned) {
    switch (SSL_get_error(client->tls, returned)) {
    case SSL_ERROR_ZERO_RETURN: return 0;
    case SSL_ERROR_WANT_READ:
    case SSL_ERROR_WANT_WRITE: errno = EAGAIN; return -1;
    case SSL_ERROR_SYSCALL: return -1;
    default: failTLS("TLS"); return -1;
    }
}

ssize_t wireRead(Client *client, void *into, size_t size) {
    static char dropped[1 << 16];
    size_t got = 0;
    /* A record each; what the next ones hold must not stay behind in OpenSSL, unseen by epoll. */
    while (got < size) {
        size_t left = size - got, one;
        if (!into && left > sizeof dropped) left = sizeof dropped;
        int done = SSL_read_ex(client->tls, into ? (char *)into + got : dropped, left, &one);
        if (!done) return got ? (ssize_t)got : unable(client, done);
        got += one;
    }
    return (ssize_t)got;
}

ssize_t wireWrite(Client *client, const void *from, size_t size) {
    size_t sent = 0;
    while (sent < size) {
        size_t one;
        int done = SSL_write_ex(client->tls, (const char *)from + sent, size - sent, &one);
        if (!done) return sent ? (ssize_t)sent : unable(client, done);
        sent += one;
    }
    return (ssize_t)sent;
}

void wireFinish(Client *client) {
    if (SSL_shutdown(client->tls) < 0) failTLS("close_notify");
}

void wireClose(Client *client) {
    /* Unless that went out before. */
    if (!(SSL_get_shutdown(client->tls) & SSL_SENT_SHUTDOWN)) SSL_shutdown(client->tls);
    SSL_free(client->tls);
    ERR_clear_error();
    close(client->fd);
}

/* Holds many WebSocket connections with one epoll loop, and notes when a message of the shared topic reached them.
 *
 * Built by `compiled` in benchmarks/processes.py. It takes one JSON command a line on standard input and answers each with one line:
 *
 *   {"open": 100000, "port": 8000, "topics": 100, "addresses": 100, "concurrency": 256, "timeout": 120}
 *       opens connections until that many were tried, each with a topic of its own (many/0 to many/99 in turn) and
 *       many/all; the answer comes when each is subscribed or has failed.
 *   {"report": 1}   what was received so far.
 *   {"reset": 1}    forgets the deliveries of the shared topic, then reports.
 *   {"drop": 1}     closes all at once, as a network does, then reports.
 *
 * Times are seconds of CLOCK_MONOTONIC, which all processes of a machine share. It answers pings and close frames, and
 * looks no further into frames than at the first bytes of their JSON.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define STDIN UINT32_MAX
#define EVENTS 1024
#define READ_BYTES 65536
#define PREFIX (size_t)20

#ifndef IP_BIND_ADDRESS_NO_PORT
#define IP_BIND_ADDRESS_NO_PORT 24
#endif

static const char BROADCAST[] = "{\"topic\":\"many/all\"";
static const char SUBSCRIBED[] = "{\"event\":\"subscribed\"";

enum state { UNUSED, CONNECTING, SHAKING, WAITING, READY, GONE };

struct connection {
    int fd;
    uint8_t state, head_size, prefix_size, newlines, is_answered;
    uint8_t head[10]; /* of the frame that is being read */
    char prefix[PREFIX];
    uint64_t left; /* of its payload */
};

static struct connection *connections;
static uint32_t total, tried, pending, ready, wanted;
static int epoll, port, topics, addresses, concurrency, is_opening;
static double opening_since, opening_until;
static long frames, bytes, pings, broadcasts, closed, failed, codes[5000];
static double first_delivery, last_delivery, first_close, last_close;
static char why[160];
static unsigned char input[READ_BYTES];

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec + time.tv_nsec / 1e9;
}

static void end(struct connection *one, const char *reason) {
    if (one->state == READY) {
        ready--;
        closed++;
        last_close = now();
        if (first_close == 0) first_close = last_close;
    } else {
        pending--;
        failed++;
        if (!*why) snprintf(why, sizeof why, "%.150s", reason);
    }
    close(one->fd);
    one->state = GONE;
}

static void start(uint32_t index) {
    struct connection *one = &connections[index];
    struct sockaddr_in from = {.sin_family = AF_INET}, to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int yes = 1;
    memset(one, 0, sizeof *one);
    one->state = CONNECTING;
    pending++;
    one->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (one->fd < 0) {
        end(one, strerror(errno));
        return;
    }
    /* the port is chosen when the other end is known, so that each address has all of them */
    setsockopt(one->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
    from.sin_addr.s_addr = htonl((127u << 24) | (2u << 8) | (index % (uint32_t)addresses + 1));
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(one->fd, (struct sockaddr *)&from, sizeof from) ||
        (connect(one->fd, (struct sockaddr *)&to, sizeof to) && errno != EINPROGRESS)) {
        end(one, strerror(errno));
        return;
    }
    struct epoll_event event = {.events = EPOLLOUT, .data.u32 = index};
    epoll_ctl(epoll, EPOLL_CTL_ADD, one->fd, &event);
}

static void send_request(struct connection *one, uint32_t index) {
    char request[512];
    int error = 0;
    socklen_t size = sizeof error;
    getsockopt(one->fd, SOL_SOCKET, SO_ERROR, &error, &size);
    if (error) {
        end(one, strerror(error));
        return;
    }
    int length = snprintf(request, sizeof request,
                          "GET /ws?topic=many%%2F%u&topic=many%%2Fall&since=now HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n"
                          "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                          "Sec-WebSocket-Key: AAECAwQFBgcICQoLDA0ODw==\r\n\r\n",
                          index % (uint32_t)topics, port);
    if (send(one->fd, request, (size_t)length, MSG_NOSIGNAL) != length) {
        end(one, "the request could not be sent");
        return;
    }
    one->state = SHAKING;
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    epoll_ctl(epoll, EPOLL_CTL_MOD, one->fd, &event);
}

static void frame_begun(struct connection *one) {
    frames++;
    if (one->head[0] == 0x89) { /* a ping, which has no payload here */
        static const unsigned char pong[6] = {0x8a, 0x80};
        pings++;
        if (send(one->fd, pong, sizeof pong, MSG_NOSIGNAL) < 0) perror("pong");
    }
}

/* Returns 0 when the connection has ended. */
static int frame_ended(struct connection *one) {
    if (one->head[0] == 0x81) {
        if (one->prefix_size >= sizeof BROADCAST - 1 && !memcmp(one->prefix, BROADCAST, sizeof BROADCAST - 1)) {
            broadcasts++;
            last_delivery = now();
            if (first_delivery == 0) first_delivery = last_delivery;
        } else if (one->state == WAITING && one->prefix_size == PREFIX && !memcmp(one->prefix, SUBSCRIBED, PREFIX)) {
            one->state = READY;
            pending--;
            ready++;
        }
    } else if (one->head[0] == 0x88) {
        unsigned code = one->prefix_size >= 2 ? (unsigned)(uint8_t)one->prefix[0] << 8 | (uint8_t)one->prefix[1] : 0;
        char text[40];
        if (code < 5000) codes[code]++;
        snprintf(text, sizeof text, "closed with %u", code);
        end(one, text);
        return 0;
    }
    one->head_size = one->prefix_size = 0;
    return 1;
}

static size_t head_length(const struct connection *one) {
    if (one->head_size < 2) return 2;
    return one->head[1] == 126 ? 4 : one->head[1] == 127 ? 10 : 2;
}

static void take(struct connection *one, const unsigned char *at, const unsigned char *stop) {
    while (at < stop) {
        if (one->head_size < head_length(one)) {
            one->head[one->head_size++] = *at++;
            if (one->head_size < head_length(one)) continue;
            one->left = one->head[1] & 127;
            if (one->head_size > 2) {
                one->left = 0;
                for (int byte = 2; byte < one->head_size; byte++) one->left = one->left << 8 | one->head[byte];
            }
            frame_begun(one);
        } else {
            size_t size = (size_t)(stop - at) < one->left ? (size_t)(stop - at) : one->left;
            size_t kept = PREFIX - one->prefix_size < size ? PREFIX - one->prefix_size : size;
            memcpy(one->prefix + one->prefix_size, at, kept);
            one->prefix_size += (uint8_t)kept;
            one->left -= size;
            at += size;
        }
        if (!one->left && !frame_ended(one)) return;
    }
}

static void receive(struct connection *one) {
    ssize_t size = recv(one->fd, input, sizeof input, 0);
    if (size < 0 && errno == EAGAIN) return;
    if (size <= 0) {
        end(one, size ? strerror(errno) : "closed by the server");
        return;
    }
    bytes += size;
    unsigned char *at = input, *stop = input + size;
    if (one->state == SHAKING) {
        if (!one->is_answered && (size < 12 || memcmp(input, "HTTP/1.1 101", 12))) {
            input[size < 100 ? size : 100] = 0;
            end(one, (char *)input);
            return;
        }
        one->is_answered = 1;
        while (at < stop && one->newlines < 2) { /* the head ends with an empty line */
            if (*at == '\n') one->newlines++;
            else if (*at != '\r') one->newlines = 0;
            at++;
        }
        if (one->newlines < 2) return;
        one->state = WAITING;
    }
    take(one, at, stop);
}

static void report(void) {
    printf("{\"ready\": %u, \"failed\": %ld, \"closed\": %ld, \"frames\": %ld, \"bytes\": %ld, \"pings\": %ld, "
           "\"broadcasts\": %ld, \"first_delivery\": %.6f, \"last_delivery\": %.6f, \"first_close\": %.6f, "
           "\"last_close\": %.6f, \"restart_closes\": %ld, \"seconds\": %.3f, \"why\": \"",
           ready, failed, closed, frames, bytes, pings, broadcasts, first_delivery, last_delivery, first_close,
           last_close, codes[1012], now() - opening_since);
    for (char *at = why; *at; at++) putchar(*at < ' ' || *at == '"' || *at == '\\' ? ' ' : *at);
    printf("\"}\n");
    fflush(stdout);
}

static double number_of(const char *line, const char *name, double otherwise) {
    const char *found = strstr(line, name);
    return found ? atof(found + strlen(name)) : otherwise;
}

static void obey(void) {
    char line[512] = "";
    ssize_t size = read(0, line, sizeof line - 1);
    if (size <= 0) exit(0);
    uint32_t count = (uint32_t)number_of(line, "\"open\": ", 0);
    if (count) {
        wanted = total + count;
        connections = realloc(connections, wanted * sizeof *connections);
        port = (int)number_of(line, "\"port\": ", 0);
        topics = (int)number_of(line, "\"topics\": ", 100);
        addresses = (int)number_of(line, "\"addresses\": ", 100);
        concurrency = (int)number_of(line, "\"concurrency\": ", 256);
        opening_since = now();
        opening_until = opening_since + number_of(line, "\"timeout\": ", 120);
        total = wanted;
        is_opening = 1;
        return;
    }
    if (strstr(line, "\"reset\"")) broadcasts = 0, first_delivery = last_delivery = 0;
    if (strstr(line, "\"drop\""))
        for (uint32_t index = 0; index < tried; index++)
            if (connections[index].state < GONE) end(&connections[index], "dropped");
    report();
}

int main(void) {
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.u32 = STDIN};
    epoll = epoll_create1(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &event);
    for (;;) {
        while (is_opening && tried < wanted && pending < (uint32_t)concurrency) start(tried++);
        if (is_opening && ((tried == wanted && !pending) || now() > opening_until)) {
            is_opening = 0;
            report();
        }
        int found = epoll_wait(epoll, events, EVENTS, is_opening ? 100 : 1000);
        for (int at = 0; at < found; at++) {
            uint32_t index = events[at].data.u32;
            if (index == STDIN) {
                obey();
                continue;
            }
            struct connection *one = &connections[index];
            if (one->state == CONNECTING) send_request(one, index);
            else if (one->state != GONE) receive(one);
        }
    }
}

/* A stand-in for a broker that is no bottleneck: it answers the gateway and sends it messages at a set rate.
 *
 * Built by `compiled` in benchmarks/processes.py. It prints {"port": …} and takes one JSON command a line on standard input, as
 * benchmarks/publisher.py does: {"rate": 100000, "devices": 100} publishes from now on, {"rate": 0} stops and is
 * answered with what was published, how fast, and what was acknowledged.
 *
 * PUBLISH packets lie prebuilt, one for each device; only the numbers in them change. What it can't write waits in the
 * sockets: nothing is ever dropped here. At QoS 1 no more messages are under way than the client's Receive Maximum
 * allows (MQTT 5 §3.1.2.11.3), and acknowledgements must come in the order of the messages (§4.6).
 *
 * It does not: authenticate, match topics (whoever subscribed last gets all), keep sessions or retained messages.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CONNECTIONS 16
#define INPUT_BYTES 65536
#define OUTPUT_BYTES 65536
#define MAX_DEVICES 1000
#define MAX_PACKET 256
#define COUNT_BASE 1000000000L /* benchmarks/messages.py */
#define TICK_MS 1

struct client {
    int fd, version, qos, is_subscribed;
    long window; /* messages at QoS 1 that may be under way */
    unsigned char input[INPUT_BYTES];
    size_t held;
    unsigned char identifier[8]; /* the property of the subscription, as it came */
    size_t identifier_size;
};

struct template {
    unsigned char bytes[MAX_PACKET];
    size_t size, packet_id, ts, seq, number;
};

static struct client clients[CONNECTIONS];
static struct client *target;
static struct template templates[MAX_DEVICES];
static int devices;
static unsigned char output[OUTPUT_BYTES];
static size_t output_size, output_sent;
static double rate;
static long published, acknowledged, misordered, most_under_way, sent_at_qos_1;

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void answer(struct client *client, const void *bytes, size_t size) {
    if (client == target && output_sent < output_size) { /* not into the middle of a packet */
        if (output_size + size > OUTPUT_BYTES) {
            memmove(output, output + output_sent, output_size - output_sent);
            output_size -= output_sent;
            output_sent = 0;
        }
        if (output_size + size <= OUTPUT_BYTES) {
            memcpy(output + output_size, bytes, size);
            output_size += size;
            return;
        }
    }
    if (send(client->fd, bytes, size, MSG_NOSIGNAL) != (ssize_t)size) perror("answer");
}

static size_t varint(const unsigned char *at, size_t *value) {
    size_t read = 0;
    for (*value = 0; read < 4; read++) {
        *value |= (size_t)(at[read] & 127) << 7 * read;
        if (at[read] < 128) return read + 1;
    }
    return 4;
}

/* Walks the properties of CONNECT and SUBSCRIBE (MQTT 5 §2.2.2.2); returns where they end. */
static const unsigned char *properties(struct client *client, const unsigned char *at) {
    size_t size, ignored;
    at += varint(at, &size);
    const unsigned char *end = at + size;
    while (at < end) {
        switch (*at) {
        case 0x21: /* Receive Maximum */
            client->window = at[1] << 8 | at[2];
            at += 3;
            break;
        case 0x0b: /* Subscription Identifier */
            client->identifier_size = 1 + varint(at + 1, &ignored);
            memcpy(client->identifier, at, client->identifier_size);
            at += client->identifier_size;
            break;
        case 0x11: case 0x27: at += 5; break; /* Session Expiry, Maximum Packet Size */
        case 0x22: at += 3; break;            /* Topic Alias Maximum */
        case 0x17: case 0x19: at += 2; break;
        case 0x26: /* User Property: two strings */
            at += 3 + (at[1] << 8 | at[2]);
            at += 2 + (at[0] << 8 | at[1]);
            break;
        default: at += 3 + (at[1] << 8 | at[2]);
        }
    }
    return end;
}

static void build(void) {
    for (int device = 0; device < devices; device++) {
        struct template *made = &templates[device];
        unsigned char body[MAX_PACKET], *at = body;
        int size = sprintf((char *)at + 2, "sensors/%d/state", device);
        at[0] = 0, at[1] = (unsigned char)size;
        at += 2 + size;
        made->packet_id = 0;
        if (target->qos) {
            made->packet_id = (size_t)(at - body);
            at += 2;
        }
        if (target->version == 5) {
            *at++ = (unsigned char)target->identifier_size;
            memcpy(at, target->identifier, target->identifier_size);
            at += target->identifier_size;
        }
        size_t payload = (size_t)(at - body);
        /* 75 bytes; benchmarks/messages.py finds its numbers */
        at += sprintf((char *)at, "{\"ts\":%017.6f,\"seq\":%010ld,\"boot\":17,\"n\":%010ld,\"t\":2%d.5}", 1e9, COUNT_BASE,
                      COUNT_BASE, device % 10);
        size_t length = (size_t)(at - body), head = length > 127 ? 3 : 2;
        made->bytes[0] = target->qos ? 0x32 : 0x30;
        made->bytes[1] = (unsigned char)(length > 127 ? (length & 127) | 128 : length);
        made->bytes[2] = (unsigned char)(length >> 7);
        memcpy(made->bytes + head, body, length);
        made->size = head + length;
        if (made->packet_id) made->packet_id += head;
        made->ts = head + payload + 6;
        made->seq = made->ts + 17 + 7;
        made->number = made->seq + 10 + 15;
    }
}

static void digits(unsigned char *at, int width, long value) {
    while (width--) at[width] = (unsigned char)('0' + value % 10), value /= 10;
}

static long under_way(void) { return sent_at_qos_1 - acknowledged; }

/* Writes messages into the empty buffer; returns how many. */
static long fill(long wanted) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    long made = 0;
    output_size = output_sent = 0;
    while (made < wanted && output_size + MAX_PACKET < OUTPUT_BYTES) {
        if (target->qos && under_way() >= target->window) break;
        struct template *packet = &templates[published % devices];
        unsigned char *at = output + output_size;
        memcpy(at, packet->bytes, packet->size);
        digits(at + packet->ts, 10, now.tv_sec);
        digits(at + packet->ts + 11, 6, now.tv_nsec / 1000);
        digits(at + packet->seq, 10, COUNT_BASE + published / devices);
        digits(at + packet->number, 10, COUNT_BASE + published);
        if (target->qos) {
            long id = sent_at_qos_1++ % 65535 + 1;
            at[packet->packet_id] = (unsigned char)(id >> 8);
            at[packet->packet_id + 1] = (unsigned char)id;
            if (under_way() > most_under_way) most_under_way = under_way();
        }
        output_size += packet->size;
        published++;
        made++;
    }
    return made;
}

/* Sends what the socket takes; returns whether all has gone. */
static int drain(void) {
    while (output_sent < output_size) {
        ssize_t sent = send(target->fd, output + output_sent, output_size - output_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0) {
            if (errno == EAGAIN) return 0;
            perror("send");
            exit(1);
        }
        output_sent += (size_t)sent;
    }
    return 1;
}

static void subscribe(struct client *client, const unsigned char *at, const unsigned char *end) {
    unsigned char reply[64] = {0x90, 0, at[0], at[1]};
    size_t size = 4;
    at += 2;
    if (client->version == 5) {
        at = properties(client, at);
        reply[size++] = 0;
    }
    while (at < end && size < sizeof reply) {
        at += 2 + (at[0] << 8 | at[1]);
        client->qos = *at++ & 3;
        if (client->qos > 1) client->qos = 1;
        reply[size++] = (unsigned char)client->qos;
    }
    reply[1] = (unsigned char)(size - 2);
    client->is_subscribed = 1;
    target = client;
    answer(client, reply, size);
}

static void packet(struct client *client, const unsigned char *start, const unsigned char *body,
                   const unsigned char *end) {
    switch (*start & 0xf0) {
    case 0x10: { /* CONNECT */
        client->version = body[6];
        client->window = 65535;
        if (client->version == 5) {
            properties(client, body + 10);
            answer(client, "\x20\x03\x00\x00\x00", 5);
        } else {
            answer(client, "\x20\x02\x00\x00", 4);
        }
        break;
    }
    case 0x30: { /* PUBLISH: the gateway's own status */
        size_t topic = (size_t)(body[0] << 8 | body[1]);
        unsigned char reply[4] = {0x40, 2, body[2 + topic], body[3 + topic]};
        if (*start & 6) answer(client, reply, 4);
        break;
    }
    case 0x40: { /* PUBACK */
        if ((body[0] << 8 | body[1]) != acknowledged % 65535 + 1) misordered++;
        acknowledged++;
        break;
    }
    case 0x80: subscribe(client, body, end); break;
    case 0xc0: answer(client, "\xd0\x00", 2); break;
    default: break;
    }
}

static void hang_up(struct client *client) {
    close(client->fd);
    client->fd = -1;
    if (client == target) target = NULL;
}

static void receive(struct client *client) {
    ssize_t size = recv(client->fd, client->input + client->held, INPUT_BYTES - client->held, MSG_DONTWAIT);
    if (size <= 0) {
        if (size == 0 || errno != EAGAIN) hang_up(client);
        return;
    }
    const unsigned char *at = client->input, *end = client->input + client->held + (size_t)size;
    while (end - at >= 2) {
        size_t length, head = varint(at + 1, &length);
        const unsigned char *body = at + 1 + head;
        if (body + length > end) break;
        packet(client, at, body, body + length);
        at = body + length;
    }
    client->held = (size_t)(end - at);
    memmove(client->input, at, client->held);
}

static int listen_anywhere(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, CONNECTIONS)) {
        perror("listen");
        exit(1);
    }
    getsockname(fd, (struct sockaddr *)&address, &size);
    printf("{\"port\": %d}\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static double number_of(const char *line, const char *name, double otherwise) {
    const char *found = strstr(line, name);
    return found ? atof(found + strlen(name)) : otherwise;
}

int main(void) {
    int listening = listen_anywhere();
    double last = 0, due = 0, began = 0;
    long before = 0;
    for (int at = 0; at < CONNECTIONS; at++) clients[at].fd = -1;
    for (;;) {
        struct pollfd waiting[CONNECTIONS + 2] = {{0, POLLIN, 0}, {listening, POLLIN, 0}};
        for (int at = 0; at < CONNECTIONS; at++) {
            short events = POLLIN;
            if (target == &clients[at] && output_sent < output_size) events |= POLLOUT;
            waiting[at + 2] = (struct pollfd){clients[at].fd, events, 0};
        }
        poll(waiting, CONNECTIONS + 2, rate > 0 ? TICK_MS : 1000);
        if (waiting[1].revents & POLLIN) {
            int fd = accept(listening, NULL, NULL), one = 1, at = 0;
            while (at < CONNECTIONS && clients[at].fd >= 0) at++;
            if (at == CONNECTIONS) {
                close(fd);
            } else {
                setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
                memset(&clients[at], 0, sizeof clients[at]);
                clients[at].fd = fd;
            }
        }
        for (int at = 0; at < CONNECTIONS; at++)
            if (clients[at].fd >= 0 && waiting[at + 2].revents & (POLLIN | POLLHUP | POLLERR)) receive(&clients[at]);
        if (waiting[0].revents & (POLLIN | POLLHUP)) {
            char line[512] = "";
            ssize_t size = read(0, line, sizeof line - 1);
            if (size <= 0) return 0;
            double asked = number_of(line, "\"rate\": ", 0), now = seconds(CLOCK_MONOTONIC);
            if (asked > 0 && target) {
                devices = (int)number_of(line, "\"devices\": ", 100);
                if (devices > MAX_DEVICES) devices = MAX_DEVICES;
                if (number_of(line, "\"qos\": ", 0) < target->qos) target->qos = 0;
                build();
                rate = asked, due = 0, before = published, began = last = now;
            } else {
                while (target && !drain()) poll(&(struct pollfd){target->fd, POLLOUT, 0}, 1, 1000);
                printf("{\"published\": %ld, \"rate\": %.1f, \"acknowledged\": %ld, \"misordered\": %ld, "
                       "\"most_under_way\": %ld}\n",
                       published, now > began ? (published - before) / (now - began) : 0, acknowledged, misordered,
                       most_under_way);
                fflush(stdout);
                rate = 0;
            }
        }
        if (rate > 0 && target) {
            double now = seconds(CLOCK_MONOTONIC);
            due += (now - last) * rate;
            last = now;
            /* a client that blocks is not made up for afterwards: no burst follows that nobody asked for */
            if (due > rate * 0.05) due = rate * 0.05;
            while (drain() && due >= 1) {
                long made = fill((long)due);
                if (!made) break;
                due -= made;
            }
        }
    }
}

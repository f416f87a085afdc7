/* A foreign machine that lives: a Modbus TCP device on Debian's libmodbus whose values move as the process behind them does.
 *
 *   libmodbus_machine PORT SPEED [HOST]   listens on HOST, 127.0.0.1 if none is given; PORT 0: a free one; its process runs SPEED times as
 *                                         fast as the clock
 *
 * Prints one line of JSON with its port and what its (unpublished) manual says: name, table, address (zero-based, as on the wire),
 * words, type, order, scale and unit of each value. Then it says nothing. Unit 1 is served; any other gets exception 11. There are
 * holding registers only; an address outside of the map, or a range that touches a hole, gets exception 2 (MODBUS Application Protocol V1.1b3,
 * 6.3 and 7). It ends when its standard input closes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <modbus.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REGISTERS = 64, CLIENTS = 32, EXCEPTION_GATEWAY_TARGET = 11 };

static modbus_mapping_t *map;
static bool used[REGISTERS];
static bool telling = true, first_entry = true;

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* The noise of a measurement: bell-shaped, with a standard deviation of 1. */
static double noise(void)
{
    static uint64_t state = 88172645463325252u;
    double sum = 0;
    for (int i = 0; i < 12; i++) {
        state ^= state << 13, state ^= state >> 7, state ^= state << 17;
        sum += (double)(state >> 11) / 9007199254740992.0;
    }
    return sum - 6;
}

static double swing(double t, double period) { return sin(2 * M_PI * t / period); }

static void tell(const char *name, int address, int words, const char *type, const char *order, double scale, const char *unit)
{
    for (int i = 0; i < words; i++)
        used[address + i] = true;
    if (telling)
        printf("%s{\"name\":\"%s\",\"table\":\"holding\",\"address\":%d,\"words\":%d,\"type\":\"%s\",\"order\":\"%s\",\"scale\":%g,\"unit\":\"%s\"}",
               first_entry ? "" : ",", name, address, words, type, order, scale, unit);
    first_entry = false;
}

static void word(const char *name, int address, const char *type, double value, double scale, const char *unit)
{
    tell(name, address, 1, type, "ABCD", scale, unit);
    map->tab_registers[address] = (uint16_t)(int16_t)lround(value);
}

/* The low word first: CDAB. */
static void pair(int address, uint32_t bits)
{
    map->tab_registers[address] = (uint16_t)bits;
    map->tab_registers[address + 1] = (uint16_t)(bits >> 16);
}

static void real(const char *name, int address, double value, const char *unit)
{
    float narrow = (float)value;
    uint32_t bits;
    memcpy(&bits, &narrow, sizeof bits);
    tell(name, address, 2, "float32", "CDAB", 1, unit);
    pair(address, bits);
}

static void total(const char *name, int address, double value, const char *unit)
{
    tell(name, address, 2, "uint32", "CDAB", 1, unit);
    pair(address, (uint32_t)value);
}

/* A chiller for moulds, `t` seconds after it was switched on. */
static void live(double t)
{
    double flow = 12.4 + 1.7 * swing(t, 60) + 0.05 * noise();
    word("model", 0, "uint16", 4021, 1, "");
    word("version", 1, "uint16", 213, 1, "");
    word("state", 2, "uint16", (int)(t / 23) % 3 + 1, 1, "");
    word("warnings", 3, "uint16", (int)(t / 31) % 2 ? 4 : 0, 1, "");
    /* 4 to 29 is a hole */
    word("brine/temperature", 30, "int16", 12 + 24 * swing(t, 70) + 0.7 * noise(), 0.1, "Cel");
    word("mould/temperature", 31, "uint16", 634 + 18 * swing(t, 90) + 0.8 * noise(), 0.1, "Cel");
    word("fan/speed", 32, "uint16", 1450 + 60 * swing(t, 45) + 2 * noise(), 1, "rpm");
    word("compressor/load", 33, "uint16", 61 + 14 * swing(t, 70) + 0.5 * noise(), 1, "%");
    /* 34 to 39 is a hole */
    real("flow", 40, flow, "l/min");
    real("pressure", 42, 3.12 + 0.2 * swing(t, 60) + 0.01 * noise(), "bar");
    real("mains/voltage", 44, 230.6 + 0.9 * swing(t, 200) + 0.15 * noise(), "V");
    real("power", 46, 8.41 + 2.2 * swing(t, 70) + 0.04 * noise(), "kW");
    total("water/total", 48, 4718560 + 2.1 * t, "l");
    real("flow/setpoint", 50, 12.5, "l/min");
    total("run_time", 52, 7203015 + t, "s");
    telling = false;
}

static void answer(modbus_t *context, const uint8_t *query, int length)
{
    int header = modbus_get_header_length(context);
    int unit = query[header - 1], function = query[header];
    int address = query[header + 1] << 8 | query[header + 2], count = query[header + 3] << 8 | query[header + 4];
    int exception = 0;
    if (unit != 1)
        exception = EXCEPTION_GATEWAY_TARGET;
    else if (function != MODBUS_FC_READ_HOLDING_REGISTERS)
        exception = MODBUS_EXCEPTION_ILLEGAL_FUNCTION;
    else if (count < 1 || count > MODBUS_MAX_READ_REGISTERS)
        exception = MODBUS_EXCEPTION_ILLEGAL_DATA_VALUE;
    else
        for (int i = 0; i < count && !exception; i++)
            if (address + i >= REGISTERS || !used[address + i])
                exception = MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;
    if (exception)
        modbus_reply_exception(context, query, (unsigned)exception);
    else
        modbus_reply(context, query, length, map);
}

int main(int argc, char **argv)
{
    int port = argc > 1 ? atoi(argv[1]) : 0;
    double speed = argc > 2 ? atof(argv[2]) : 1, started = seconds();
    const char *host = argc > 3 ? argv[3] : "127.0.0.1";
    modbus_t *context = modbus_new_tcp(host, port ? port : 502);
    map = modbus_mapping_new(0, 0, REGISTERS, 0);
    if (context == NULL || map == NULL) {
        fprintf(stderr, "libmodbus: %s\n", modbus_strerror(errno));
        return 1;
    }
    /* modbus_tcp_listen cannot be asked for a free port */
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = inet_addr(host)};
    socklen_t size = sizeof name;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&name, size) != 0 || listen(listener, CLIENTS) != 0 ||
        getsockname(listener, (struct sockaddr *)&name, &size) != 0) {
        fprintf(stderr, "cannot listen on %s:%d: %s\n", host, port, strerror(errno));
        return 1;
    }
    printf("{\"port\":%d,\"units\":[1],\"library\":\"libmodbus %s\",\"map\":[", ntohs(name.sin_port), LIBMODBUS_VERSION_STRING);
    live(0);
    printf("]}\n");
    fflush(stdout);

    struct pollfd polled[2 + CLIENTS] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    int open = 2;
    for (;;) {
        if (poll(polled, (nfds_t)open, -1) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        char rest[256];
        if (polled[0].revents && read(STDIN_FILENO, rest, sizeof rest) <= 0)
            return 0;
        live((seconds() - started) * speed);
        for (int i = open - 1; i >= 2; i--) {
            if (!polled[i].revents)
                continue;
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(context, polled[i].fd);
            int length = modbus_receive(context, query);
            if (length > 0)
                answer(context, query, length);
            else if (length < 0) { /* the client is gone, or speaks something else */
                close(polled[i].fd);
                polled[i] = polled[--open];
            }
        }
        if (polled[1].revents) {
            int client = accept(listener, NULL, NULL);
            if (client >= 0 && open < 2 + CLIENTS)
                polled[open++] = (struct pollfd){.fd = client, .events = POLLIN};
            else if (client >= 0)
                close(client);
        }
    }
}

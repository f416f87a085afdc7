/* A foreign Modbus TCP server for the tests, on Debian's libmodbus.
 *
 *   libmodbus_server PORT          listens on 127.0.0.1; PORT 0: a free one
 *   libmodbus_server /dev/…        is unit 1 of the RTU line on that port (115200 8N1)
 *
 * Prints one line of JSON with its port and its map: every value with its table, address (zero-based, as on the wire), type
 * and order; then one line for each request and what was answered: the truth. Units 1 and 255 are served; any other gets
 * exception 11 (gateway target device failed to respond). An address outside of the map, or a range that touches a hole, gets
 * exception 2, as the specification asks (MODBUS Application Protocol V1.1b3, 6.3 and 7).
 *
 * Orders are named by where the bytes A (most significant) to D or H come on the wire.
 *
 * Commands, one a line on standard input: "holding ADDRESS VALUE", "input ADDRESS VALUE", "coil ADDRESS VALUE",
 * "discrete ADDRESS VALUE", "count MILLISECONDS" (add 1 to the counter so often, 0 stops). It ends when the input closes.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <modbus.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { REGISTERS = 400, BITS = 64, CLIENTS = 32, COUNTER = 120 };
enum { EXCEPTION_GATEWAY_TARGET = 11 };

static modbus_mapping_t *map;
static bool used_holding[REGISTERS], used_input[REGISTERS], used_coil[BITS], used_discrete[BITS];
static bool first_entry = true;

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

/* --- the map ------------------------------------------------------------------------------------------------------- */

static uint16_t *table_of(const char *table, bool **used)
{
    bool holding = strcmp(table, "holding") == 0;
    *used = holding ? used_holding : used_input;
    return holding ? map->tab_registers : map->tab_input_registers;
}

/* Lays bytes A, B, C ... in the given order, two to a register, and prints the entry of the map. `json` is the value. */
static void put(const char *table, const char *name, int address, const char *type, const char *order, const uint8_t *bytes,
                int count, const char *json)
{
    bool *used;
    uint16_t *registers = table_of(table, &used);
    for (int i = 0; i < count; i += 2) {
        int high = order[i] - 'A', low = order[i + 1] - 'A';
        registers[address + i / 2] = (uint16_t)(bytes[high] << 8 | bytes[low]);
        used[address + i / 2] = true;
    }
    printf("%s{\"name\":\"%s\",\"table\":\"%s\",\"address\":%d,\"words\":%d,\"type\":\"%s\",\"order\":\"%s\",\"value\":%s}",
           first_entry ? "" : ",", name, table, address, count / 2, type, order, json);
    first_entry = false;
}

static void put_integer(const char *table, const char *name, int address, const char *type, const char *order, int64_t value)
{
    int count = (int)strlen(order);
    uint8_t bytes[8];
    char json[32];
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)((uint64_t)value >> (8 * (count - 1 - i)));
    if (type[0] == 'u' && count == 8)
        snprintf(json, sizeof json, "%" PRIu64, (uint64_t)value);
    else
        snprintf(json, sizeof json, "%" PRId64, value);
    put(table, name, address, type, order, bytes, count, json);
}

static void put_float(const char *table, const char *name, int address, const char *order, float value)
{
    uint32_t bits;
    uint8_t bytes[4];
    char json[32];
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 4; i++)
        bytes[i] = (uint8_t)(bits >> (24 - 8 * i));
    snprintf(json, sizeof json, "%.17g", (double)value);
    put(table, name, address, "float32", order, bytes, 4, json);
}

static void put_double(const char *table, const char *name, int address, const char *order, double value)
{
    uint64_t bits;
    uint8_t bytes[8];
    char json[32];
    memcpy(&bits, &value, sizeof bits);
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(bits >> (56 - 8 * i));
    snprintf(json, sizeof json, "%.17g", value);
    put(table, name, address, "float64", order, bytes, 8, json);
}

/* UTF-8 text, padded with zeros; `order` is "AB" (first character in the high byte) or "BA". */
static void put_text(const char *table, const char *name, int address, const char *order, const char *text, int words)
{
    bool *used;
    uint16_t *registers = table_of(table, &used);
    char padded[64] = "";
    strncpy(padded, text, sizeof padded - 1);
    for (int i = 0; i < words; i++) {
        uint8_t first = (uint8_t)padded[2 * i], second = (uint8_t)padded[2 * i + 1];
        registers[address + i] = order[0] == 'A' ? (uint16_t)(first << 8 | second) : (uint16_t)(second << 8 | first);
        used[address + i] = true;
    }
    printf(",{\"name\":\"%s\",\"table\":\"%s\",\"address\":%d,\"words\":%d,\"type\":\"string\",\"order\":\"%s\",\"value\":\"%s\"}",
           name, table, address, words, order, text);
}

static void put_bits(const char *table, int address, int count, uint32_t pattern)
{
    bool coil = strcmp(table, "coil") == 0;
    for (int i = 0; i < count; i++) {
        (coil ? map->tab_bits : map->tab_input_bits)[address + i] = (uint8_t)(pattern >> i & 1);
        (coil ? used_coil : used_discrete)[address + i] = true;
        printf(",{\"name\":\"%s_%d\",\"table\":\"%s\",\"address\":%d,\"words\":1,\"type\":\"bool\",\"order\":\"\",\"value\":%s}",
               table, address + i, table, address + i, pattern >> i & 1 ? "true" : "false");
    }
}

static void build_map(void)
{
    put_integer("holding", "int16", 0, "int16", "AB", -12345);
    put_integer("holding", "uint16", 1, "uint16", "AB", 54321);
    put_integer("holding", "int16_lowest", 2, "int16", "AB", -32768);
    put_integer("holding", "bit_field", 3, "uint16", "AB", 0xA5C3);
    /* 4 to 9 is a hole */
    put_integer("holding", "uint32_abcd", 10, "uint32", "ABCD", 0xDEADBEEF);
    put_integer("holding", "uint32_cdab", 12, "uint32", "CDAB", 0xDEADBEEF);
    put_integer("holding", "uint32_badc", 14, "uint32", "BADC", 0xDEADBEEF);
    put_integer("holding", "uint32_dcba", 16, "uint32", "DCBA", 0xDEADBEEF);
    put_integer("holding", "int32_abcd", 18, "int32", "ABCD", -2000000001);
    put_integer("holding", "int32_cdab", 20, "int32", "CDAB", -2000000001);
    put_float("holding", "float32_abcd", 22, "ABCD", -1234.5678f);
    put_float("holding", "float32_cdab", 24, "CDAB", -1234.5678f);
    put_float("holding", "float32_badc", 26, "BADC", -1234.5678f);
    put_float("holding", "float32_dcba", 28, "DCBA", -1234.5678f);
    put_double("holding", "float64_big", 30, "ABCDEFGH", 0.1);
    put_double("holding", "float64_words_swapped", 34, "GHEFCDAB", 0.1);
    put_integer("holding", "uint64_big", 38, "uint64", "ABCDEFGH", INT64_C(9007199254740993)); /* 2^53 + 1 */
    put_integer("holding", "int64_words_swapped", 42, "int64", "GHEFCDAB", INT64_C(-9007199254740993));
    /* 46 to 59 is a hole */
    put_text("holding", "text_ascii", 60, "AB", "Foreign-7", 8);
    put_text("holding", "text_swapped", 68, "BA", "Foreign-7", 8);
    put_text("holding", "text_chinese", 76, "AB", "贯通", 4);
    /* 80 to 119 is a hole */
    put_integer("holding", "counter", COUNTER, "uint32", "CDAB", 4294967290); /* rolls over after five counts */
    /* a block longer than one read of 125 registers */
    for (int i = 0; i < 200; i++) {
        char name[16];
        snprintf(name, sizeof name, "row_%d", i);
        put_integer("holding", name, 200 + i, "uint16", "AB", 3 * i + 1);
    }
    put_integer("input", "input_int16", 0, "int16", "AB", -7);
    put_float("input", "input_float32", 1, "ABCD", 50.02f);
    /* 3 to 99 is a hole */
    put_integer("input", "input_uint32", 100, "uint32", "ABCD", 16777217); /* 2^24 + 1: not a float32 */
    put_bits("coil", 0, 10, 0x2D5);
    put_bits("discrete", 16, 12, 0x9A3);
}

/* --- requests ------------------------------------------------------------------------------------------------------ */

static bool all_used(const bool *used, int size, int address, int count)
{
    if (address + count > size)
        return false;
    for (int i = 0; i < count; i++)
        if (!used[address + i])
            return false;
    return true;
}

static void answer(modbus_t *context, const uint8_t *query, int length)
{
    int header = modbus_get_header_length(context);
    int unit = query[header - 1], function = query[header];
    int address = query[header + 1] << 8 | query[header + 2], count = query[header + 3] << 8 | query[header + 4];
    int exception = 0;
    bool *used = NULL;
    switch (function) {
    case MODBUS_FC_READ_COILS: used = used_coil; break;
    case MODBUS_FC_READ_DISCRETE_INPUTS: used = used_discrete; break;
    case MODBUS_FC_READ_HOLDING_REGISTERS: used = used_holding; break;
    case MODBUS_FC_READ_INPUT_REGISTERS: used = used_input; break;
    default: exception = MODBUS_EXCEPTION_ILLEGAL_FUNCTION; /* nothing can be written here */
    }
    bool bits = function <= MODBUS_FC_READ_DISCRETE_INPUTS;
    if (unit != 1 && unit != 255)
        exception = EXCEPTION_GATEWAY_TARGET;
    else if (!exception && (count < 1 || count > (bits ? MODBUS_MAX_READ_BITS : MODBUS_MAX_READ_REGISTERS)))
        exception = MODBUS_EXCEPTION_ILLEGAL_DATA_VALUE;
    else if (!exception && !all_used(used, bits ? BITS : REGISTERS, address, count))
        exception = MODBUS_EXCEPTION_ILLEGAL_DATA_ADDRESS;

    printf("{\"time\":%" PRId64 ",\"unit\":%d,\"function\":%d,\"address\":%d,\"count\":%d,", now_us(), unit, function, address, count);
    if (exception) {
        printf("\"exception\":%d}\n", exception);
        modbus_reply_exception(context, query, (unsigned)exception);
        return;
    }
    printf("\"values\":[");
    for (int i = 0; i < count; i++) {
        int at = address + i;
        int value = function == MODBUS_FC_READ_COILS              ? map->tab_bits[at]
                    : function == MODBUS_FC_READ_DISCRETE_INPUTS  ? map->tab_input_bits[at]
                    : function == MODBUS_FC_READ_HOLDING_REGISTERS ? map->tab_registers[at]
                                                                   : map->tab_input_registers[at];
        printf("%s%d", i ? "," : "", value);
    }
    printf("]}\n");
    modbus_reply(context, query, length, map);
}

/* --- commands ------------------------------------------------------------------------------------------------------ */

static int count_every_ms;

static void command(const char *line)
{
    char what[16];
    int address = 0, value = 0;
    int found = sscanf(line, "%15s %d %d", what, &address, &value);
    if (found == 2 && strcmp(what, "count") == 0) {
        count_every_ms = address;
        return;
    }
    bool bits = strcmp(what, "coil") == 0 || strcmp(what, "discrete") == 0;
    if (found != 3 || address < 0 || address >= (bits ? BITS : REGISTERS)) {
        fprintf(stderr, "command not understood: %s\n", line);
        exit(2);
    }
    if (strcmp(what, "holding") == 0)
        map->tab_registers[address] = (uint16_t)value;
    else if (strcmp(what, "input") == 0)
        map->tab_input_registers[address] = (uint16_t)value;
    else if (strcmp(what, "coil") == 0)
        map->tab_bits[address] = value != 0;
    else if (strcmp(what, "discrete") == 0)
        map->tab_input_bits[address] = value != 0;
    printf("{\"time\":%" PRId64 ",\"set\":\"%s\",\"address\":%d,\"value\":%d}\n", now_us(), what, address, value);
}

/* Reads what there is on standard input; false when it has closed. */
static bool commands(void)
{
    static char buffer[4096];
    static size_t held;
    ssize_t got = read(STDIN_FILENO, buffer + held, sizeof buffer - 1 - held);
    if (got <= 0)
        return false;
    held += (size_t)got;
    buffer[held] = 0;
    char *line = buffer, *end;
    while ((end = strchr(line, '\n')) != NULL) {
        *end = 0;
        command(line);
        line = end + 1;
    }
    held = strlen(line);
    memmove(buffer, line, held + 1);
    return true;
}

static void count_up(void)
{
    uint16_t *counter = map->tab_registers + COUNTER; /* CDAB: the low word comes first */
    uint32_t value = ((uint32_t)counter[1] << 16 | counter[0]) + 1;
    counter[0] = (uint16_t)value;
    counter[1] = (uint16_t)(value >> 16);
}

static void tell_map(int port, const char *units)
{
    setvbuf(stdout, NULL, _IOFBF, 1 << 16);
    printf("{\"port\":%d,\"units\":%s,\"library\":\"libmodbus %s\",\"map\":[", port, units, LIBMODBUS_VERSION_STRING);
    build_map();
    printf("]}\n");
    fflush(stdout);
}

/* Counts as often as it was told to; how long to wait until the next count in milliseconds, -1 for ever. */
static int counted(void)
{
    static int64_t next_count;
    if (count_every_ms <= 0) {
        next_count = 0;
        return -1;
    }
    int64_t now = now_us();
    if (next_count == 0)
        next_count = now + count_every_ms * 1000;
    for (; next_count <= now; next_count += count_every_ms * 1000)
        count_up();
    return (int)((next_count - now) / 1000) + 1;
}

static int serve_line(const char *device)
{
    modbus_t *context = modbus_new_rtu(device, 115200, 'N', 8, 1);
    if (context == NULL || modbus_set_slave(context, 1) != 0 || modbus_connect(context) != 0) {
        fprintf(stderr, "%s: %s\n", device, modbus_strerror(errno));
        return 1;
    }
    tell_map(0, "[1]");
    struct pollfd polled[2] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = modbus_get_socket(context), .events = POLLIN}};
    for (;;) {
        if (poll(polled, 2, counted()) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        if (polled[0].revents && !commands())
            return 0;
        if (polled[1].revents) {
            uint8_t query[MODBUS_RTU_MAX_ADU_LENGTH];
            int length = modbus_receive(context, query); /* 0: for another unit; -1: no frame */
            if (length > 0)
                answer(context, query, length);
        }
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    if (argc > 1 && argv[1][0] == '/') {
        map = modbus_mapping_new(BITS, BITS, REGISTERS, REGISTERS);
        return map == NULL ? 1 : serve_line(argv[1]);
    }
    int port = argc > 1 ? atoi(argv[1]) : 0;
    modbus_t *context = modbus_new_tcp("127.0.0.1", port ? port : 502);
    map = modbus_mapping_new(BITS, BITS, REGISTERS, REGISTERS);
    if (context == NULL || map == NULL) {
        fprintf(stderr, "libmodbus: %s\n", modbus_strerror(errno));
        return 1;
    }

    /* modbus_tcp_listen cannot be asked for a free port */
    int listener = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (bind(listener, (struct sockaddr *)&name, size) != 0 || listen(listener, CLIENTS) != 0 ||
        getsockname(listener, (struct sockaddr *)&name, &size) != 0) {
        fprintf(stderr, "cannot listen on 127.0.0.1:%d: %s\n", port, strerror(errno));
        return 1;
    }

    tell_map(ntohs(name.sin_port), "[1,255]");

    struct pollfd polled[2 + CLIENTS] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    int open = 2;
    for (;;) {
        if (poll(polled, (nfds_t)open, counted()) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        if (polled[0].revents && !commands())
            return 0;
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
        fflush(stdout);
    }
}

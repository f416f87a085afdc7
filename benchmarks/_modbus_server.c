/* A Modbus TCP server for load, on libmodbus: 10,000 holding registers of any unit, and every answer carries other values.
 *
 *   _modbus_server          listens on a free port of 127.0.0.1
 *
 * The k-th answer of a unit that begins at address a has k in its first register, and k + i, modulo 65536, in the i-th after it: what
 * the client keeps of the first registers shows every answer that it lost. Prints {"port"} and then answers lines on its input:
 * "hold" makes every answer from then on repeat the one before, and prints {"answers", "last"}: how many there were, and for each unit
 * and address that was asked [unit, address, k]. It ends when its input closes.
 */
#include <arpa/inet.h>
#include <modbus.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { REGISTERS = 10000, UNITS = 256, CLIENTS = 32 };

static modbus_mapping_t *map;
static uint32_t last[UNITS][REGISTERS];
static uint64_t answers;
static bool held;

static void answer(modbus_t *context, const uint8_t *query, int length)
{
    int header = modbus_get_header_length(context);
    int unit = query[header - 1], address = query[header + 1] << 8 | query[header + 2];
    int count = query[header + 3] << 8 | query[header + 4];
    if (query[header] == MODBUS_FC_READ_HOLDING_REGISTERS && count <= MODBUS_MAX_READ_REGISTERS && address + count <= REGISTERS) {
        if (!held) {
            last[unit][address]++;
            answers++;
        }
        for (int i = 0; i < count; i++)
            map->tab_registers[address + i] = (uint16_t)(last[unit][address] + (uint32_t)i);
    }
    modbus_reply(context, query, length, map); /* anything else: libmodbus's own exception */
}

static void hold(void)
{
    const char *between = "";
    held = true;
    printf("{\"answers\":%llu,\"last\":[", (unsigned long long)answers);
    for (int unit = 0; unit < UNITS; unit++)
        for (int address = 0; address < REGISTERS; address++)
            if (last[unit][address]) {
                printf("%s[%d,%d,%u]", between, unit, address, last[unit][address]);
                between = ",";
            }
    printf("]}\n");
    fflush(stdout);
}

int main(void)
{
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    map = modbus_mapping_new(0, 0, REGISTERS, 0);
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof name;
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    if (context == NULL || map == NULL || bind(listener, (struct sockaddr *)&name, sizeof name) != 0 || listen(listener, CLIENTS) != 0
        || getsockname(listener, (struct sockaddr *)&name, &size) != 0) {
        perror("cannot listen on 127.0.0.1");
        return 1;
    }
    modbus_set_response_timeout(context, 0, 1000); /* how long it sleeps at a function that it does not have, whoever else waits */
    printf("{\"port\":%d}\n", ntohs(name.sin_port));
    fflush(stdout);
    struct pollfd polled[2 + CLIENTS] = {{.fd = STDIN_FILENO, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
    int open = 2;
    for (;;) {
        if (poll(polled, (nfds_t)open, -1) < 0) {
            perror("poll");
            return 1;
        }
        if (polled[0].revents) {
            char line[64];
            if (read(STDIN_FILENO, line, sizeof line) <= 0)
                return 0;
            hold();
        }
        for (int i = open - 1; i >= 2; i--) {
            if (!polled[i].revents)
                continue;
            uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
            modbus_set_socket(context, polled[i].fd);
            int length = modbus_receive(context, query);
            if (length > 0)
                answer(context, query, length);
            else if (length < 0) {
                close(polled[i].fd);
                polled[i] = polled[--open];
            }
        }
        if (polled[1].revents) {
            int client = accept(listener, NULL, NULL), no_delay = 1;
            if (client >= 0 && open < 2 + CLIENTS) {
                setsockopt(client, IPPROTO_TCP, 1 /* TCP_NODELAY */, &no_delay, sizeof no_delay);
                polled[open++] = (struct pollfd){.fd = client, .events = POLLIN};
            } else if (client >= 0)
                close(client);
        }
    }
}

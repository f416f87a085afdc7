/* A loop on libmodbus that reads blocks of 125 holding registers of unit 1, one after the other, and throws them away.
 *
 *   _modbus_loop PORT BLOCKS SECONDS
 *
 * Prints {"blocks", "cpu", "wall"}: how many were read in the measured time, and the seconds of CPU of this process meanwhile.
 */
#include <errno.h>
#include <modbus.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { SIZE = 125 };

static double seconds_of(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: _modbus_loop PORT BLOCKS SECONDS\n");
        return 2;
    }
    int blocks = atoi(argv[2]);
    double seconds = atof(argv[3]);
    modbus_t *context = modbus_new_tcp("127.0.0.1", atoi(argv[1]));
    if (context == NULL || modbus_set_slave(context, 1) != 0 || modbus_connect(context) != 0) {
        fprintf(stderr, "cannot connect to 127.0.0.1:%s: %s\n", argv[1], modbus_strerror(errno));
        return 1;
    }
    uint16_t registers[SIZE];
    long done = 0;
    double began = seconds_of(CLOCK_MONOTONIC), cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID), now = began;
    while (now - began < seconds) {
        for (int block = 0; block < blocks; block++, done++)
            if (modbus_read_registers(context, block * SIZE, SIZE, registers) != SIZE) {
                fprintf(stderr, "block %d: %s\n", block, modbus_strerror(errno));
                return 1;
            }
        now = seconds_of(CLOCK_MONOTONIC);
    }
    printf("{\"blocks\":%ld,\"cpu\":%.6f,\"wall\":%.6f}\n", done, seconds_of(CLOCK_PROCESS_CPUTIME_ID) - cpu, now - began);
    modbus_close(context);
    modbus_free(context);
    return 0;
}

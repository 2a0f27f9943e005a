/* A Modbus TCP server on libmodbus, for tests and benches: a peer that shares no code with us.
 *
 * Prints its port and a newline, then serves until its input closes. Tables of 2,000 places, or
 * as many as the first argument says: input register i holds (7 i + 3) mod 65536, discrete input i is
 * i mod 3 == 0; coils and holding registers are zero and can be written. Several clients are served
 * side by side by select.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <modbus.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

int main(int count, char **words) {
    int places = count > 1 ? atoi(words[1]) : 2000;
    modbus_t *context = modbus_new_tcp("127.0.0.1", 0);
    modbus_mapping_t *map = modbus_mapping_new(places, places, places, places);
    if (context == NULL || map == NULL) return 1;
    for (int i = 0; i < places; i++) {
        map->tab_input_registers[i] = (uint16_t)(7 * i + 3);
        map->tab_input_bits[i] = i % 3 == 0;
    }
    int listener = modbus_tcp_listen(context, 16);
    if (listener < 0) return 1;
    struct sockaddr_in name;
    socklen_t length = sizeof name;
    getsockname(listener, (struct sockaddr *)&name, &length);
    printf("%d\n", ntohs(name.sin_port));
    fflush(stdout);

    fd_set watched;
    FD_ZERO(&watched);
    FD_SET(listener, &watched);
    FD_SET(STDIN_FILENO, &watched);
    int highest = listener;
    uint8_t query[MODBUS_TCP_MAX_ADU_LENGTH];
    for (;;) {
        fd_set ready = watched;
        if (select(highest + 1, &ready, NULL, NULL, NULL) < 0) return 1;
        if (FD_ISSET(STDIN_FILENO, &ready)) return 0;
        for (int fd = 0; fd <= highest; fd++) {
            if (!FD_ISSET(fd, &ready)) continue;
            if (fd == listener) {
                int client = accept(listener, NULL, NULL);
                if (client < 0 || client >= FD_SETSIZE) continue;
                int on = 1;
                setsockopt(client, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
                FD_SET(client, &watched);
                if (client > highest) highest = client;
                continue;
            }
            modbus_set_socket(context, fd);
            int size = modbus_receive(context, query);
            if (size > 0) {
                modbus_reply(context, query, size, map);
            } else if (size < 0) {
                close(fd);
                FD_CLR(fd, &watched);
            }
        }
    }
}

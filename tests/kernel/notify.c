/* Sends each argument to $NOTIFY_SOCKET as one message, prints what came of it, and waits to be killed. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv) {
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!path || strlen(path) >= sizeof address.sun_path)
        return 2;
    strcpy(address.sun_path, path);
    int way = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    for (int i = 1; i < argc; i++) {
        ssize_t sent = sendto(way, argv[i], strlen(argv[i]), 0, (struct sockaddr *)&address, sizeof address);
        printf("%s: %s\n", argv[i], sent < 0 ? strerror(errno) : "sent");
    }
    fflush(stdout);
    pause();
}

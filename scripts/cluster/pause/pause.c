/* The process that holds namespaces: of a pod (the sandbox image), of a node, and of the whole cluster. As the first
 * process of a pid namespace it also inherits orphans and must reap them. */
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

static void reap(int signal) {
    (void)signal;
    while (waitpid(-1, 0, WNOHANG) > 0) {
    }
}

static void leave(int signal) {
    (void)signal;
    _exit(0);
}

int main(void) {
    struct sigaction on_child = {.sa_handler = reap, .sa_flags = SA_NOCLDSTOP};
    struct sigaction on_end = {.sa_handler = leave};
    sigaction(SIGCHLD, &on_child, 0);
    sigaction(SIGTERM, &on_end, 0);
    sigaction(SIGINT, &on_end, 0);
    for (;;)
        pause();
}

/* The login shell of the lab's accounts: notes what it was asked to do, then is the real shell.
 *
 * One record a login, appended in one write: LENGTH \n, then LENGTH bytes of fields, each ended by NUL:
 * process, user, SSH_CONNECTION, SSH_TTY, argv[0], and the other arguments as they are.  A command that sshd was asked to
 * execute is the argument after "-c"; NUL cannot be in it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char *append(char *to, const char *text) {
    size_t size = strlen(text) + 1;
    memcpy(to, text, size);
    return to + size;
}

int main(int argc, char **argv) {
    const char *names[] = {"USER", "SSH_CONNECTION", "SSH_TTY"};
    char process[24], head[24];
    size_t size = sizeof process;
    snprintf(process, sizeof process, "%d", (int)getpid());
    for (int i = 0; i < 3; i++) size += getenv(names[i]) ? strlen(getenv(names[i])) + 1 : 1;
    for (int i = 0; i < argc; i++) size += strlen(argv[i]) + 1;
    char *record = malloc(sizeof head + size), *end = record + sizeof head;
    if (!record) return 125;
    end = append(end, process);
    for (int i = 0; i < 3; i++) end = append(end, getenv(names[i]) ? getenv(names[i]) : "");
    for (int i = 0; i < argc; i++) end = append(end, argv[i]);
    int digits = snprintf(head, sizeof head, "%zu\n", (size_t)(end - record - sizeof head));
    char *begin = record + sizeof head - digits;
    memcpy(begin, head, digits);
    int log = open(LOGINS, O_WRONLY | O_APPEND | O_CLOEXEC);
    /* What is not noted is not done: else the oracle would not know of it. */
    if (log < 0 || write(log, begin, end - begin) != end - begin) return 125;
    close(log);
    argv[0] = argv[0][0] == '-' ? "-bash" : "bash";
    execv("/bin/bash", argv);
    return 126;
}

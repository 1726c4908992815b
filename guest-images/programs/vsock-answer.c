/*
 * vsock-answer PORT: answers every connection to that vsock port with one line about this guest, and closes it.
 *
 * The line has what tells two guests apart that were one before: their boot id, which a copy keeps, and bytes from
 * the kernel's random number generator, which it must not.
 */
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

/* The first word of a file of the kernel's. */
static void first_word(const char *path, char *word, size_t size)
{
	ssize_t length = 0;
	int file = open(path, O_RDONLY);

	if (file >= 0) {
		length = read(file, word, size - 1);
		close(file);
	}
	word[length > 0 ? length : 0] = '\0';
	word[strcspn(word, " \n")] = '\0';
}

static void answer(int peer)
{
	char name[65] = "", boot[64], uptime[64];
	unsigned long long random = 0;

	gethostname(name, sizeof(name) - 1);
	first_word("/proc/sys/kernel/random/boot_id", boot, sizeof(boot));
	first_word("/proc/uptime", uptime, sizeof(uptime));
	if (getrandom(&random, sizeof(random), 0) != sizeof(random))
		return;
	/* Fits into the socket's buffer: nobody who does not read holds the others up. */
	dprintf(peer, "LODGE-VSOCK-ANSWER name=%s boot=%s random=%016llx uptime=%s\n", name, boot, random, uptime);
}

int main(int count, char **arguments)
{
	struct sockaddr_vm address = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY };
	int listener, peer;

	if (count != 2) {
		fputs("usage: vsock-answer PORT\n", stderr);
		return 2;
	}
	address.svm_port = strtoul(arguments[1], NULL, 10);
	listener = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (listener < 0)
		fail("socket");
	if (bind(listener, (struct sockaddr *)&address, sizeof(address)) < 0)
		fail("bind");
	if (listen(listener, 16) < 0)
		fail("listen");
	/* For peers that are gone before they have the answer. */
	signal(SIGPIPE, SIG_IGN);
	/* Connections are taken from here on: whoever started this may say so. */
	if (daemon(0, 1) < 0)
		fail("daemon");
	for (;;) {
		peer = accept(listener, NULL, NULL);
		if (peer < 0)
			continue;
		answer(peer);
		close(peer);
	}
}

// SPDX-License-Identifier: MIT
#include <argp.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

static const struct verb {
	const char *name;
	int (*run)(int argc, char **argv);
	const char *summary;
} verbs[] = {
	{ "copy", copy_run, "move a file into GPU memory, and from there" },
	{ "check", check_run, "which drives reach which GPUs directly, and why not" },
	{ "info", info_run, "what the module, CUDA and the library offer" },
};

#define NR_VERBS (sizeof(verbs) / sizeof(verbs[0]))

/**
 * complain() - one line about what went wrong, for people
 * @what: the thing it went wrong with
 * @format: cause and remedy
 */
void complain(const char *what, const char *format, ...)
{
	va_list args;

	fflush(stdout);
	fprintf(stderr, "peerdma: %s: ", what);
	va_start(args, format);
	vfprintf(stderr, format, args);
	va_end(args);
	fputc('\n', stderr);
}

/**
 * cause_of() - an errno in words
 * @err: a negative errno
 *
 * Return: valid until the next call.
 */
const char *cause_of(int err)
{
	return strerror(-err);
}

/**
 * gpu_of() - does an operand name a GPU?
 * @operand: "gpu:0", or a file
 *
 * Return: the GPU's number; -1 when it is a file.
 */
int gpu_of(const char *operand)
{
	unsigned int ordinal;
	int end = 0;

	if (sscanf(operand, "gpu:%4u%n", &ordinal, &end) != 1 || operand[end])
		return -1;
	return ordinal;
}

static void print_version(FILE *stream, struct argp_state *state)
{
	(void)state;
	fprintf(stream, "peerdma %s\n", peerdma_version());
}

static char *list_verbs(int key, const char *text, void *input)
{
	char *list = NULL;
	size_t i, len;
	FILE *stream;

	(void)input;
	if (key != ARGP_KEY_HELP_POST_DOC)
		return (char *)text;
	stream = open_memstream(&list, &len);
	if (!stream)
		return NULL;
	fputs("Verbs:\n", stream);
	for (i = 0; i < NR_VERBS; i++)
		fprintf(stream, "  %-8s %s\n", verbs[i].name, verbs[i].summary);
	fputs("\n'peerdma VERB --help' says more; so does peerdma(1).", stream);
	fclose(stream);
	return list;
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	char ***rest = state->input;

	(void)arg;
	switch (key) {
	case ARGP_KEY_ARGS:
		*rest = state->argv + state->next;
		state->next = state->argc;
		return 0;
	case ARGP_KEY_NO_ARGS:
		argp_state_help(state, stderr,
				ARGP_HELP_STD_HELP | ARGP_HELP_EXIT_ERR);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static int run(const struct verb *verb, int argc, char **argv)
{
	static char name[32];

	snprintf(name, sizeof(name), "peerdma %s", verb->name);
	argv[0] = name;
	return verb->run(argc, argv);
}

int main(int argc, char **argv)
{
	static const struct argp argp = {
		.parser = parse,
		.args_doc = "VERB [ARGUMENT...]",
		.doc = "Files in and out of GPU memory, without a bounce in RAM.\v",
		.help_filter = list_verbs,
	};
	char **rest = NULL;
	size_t i;

	argp_program_version_hook = print_version;
	argp_err_exit_status = STATUS_ERROR;
	argp_parse(&argp, argc, argv, ARGP_IN_ORDER, NULL, &rest);
	for (i = 0; i < NR_VERBS; i++)
		if (!strcmp(rest[0], verbs[i].name))
			return run(&verbs[i], argc - (rest - argv), rest);
	complain(rest[0], "no such verb; 'peerdma --help' lists them");
	return STATUS_ERROR;
}

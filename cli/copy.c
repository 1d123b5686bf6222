// SPDX-License-Identifier: MIT
/* peerdma copy: FILE gpu:N, gpu:N FILE, or FILE gpu:N FILE. */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "progress.h"
#include "size.h"

#define PIECE_LEN	((size_t)4 << 20)

struct arguments {
	const char *operands[3];
	unsigned int nr_operands;
	uint32_t path;
	uint64_t size;
	uint64_t offset;
	uint64_t dest_offset;
	uint64_t gpu_offset;
	uint64_t seed;
	uint64_t repeat;
	bool has_size;
	bool has_dest_offset;
	bool has_seed;
	bool verify;
	bool json;
};

/* One copy, from the operands to the figures. */
struct job {
	const struct arguments *args;
	const char *source;		/* NULL: none, memory is the source */
	const char *dest;		/* NULL: none, memory is the end */
	int gpu;
	int source_fd;
	int dest_fd;
	uint64_t source_offset;
	uint64_t dest_offset;
	uint64_t size;
	struct peerdma *ctx;
	struct peerdma_buffer *buf;
	struct progress progress;
	struct json_object *runs;
};

/* What one transfer was. */
struct run {
	const char *verb;
	const char *file;
	struct peerdma_io_result result;
	ssize_t moved;
	double seconds;
	double cpu;
};

static volatile sig_atomic_t caught;

static void catch(int signal)
{
	caught = signal;
}

static void catch_signal(int signal)
{
	/* The second one kills, should something hang. */
	struct sigaction old, action = {
		.sa_handler = catch,
		.sa_flags = SA_RESETHAND,
	};

	/* As nohup(1) and shells want it, what is ignored stays ignored. */
	if (!sigaction(signal, NULL, &old) && old.sa_handler != SIG_IGN)
		sigaction(signal, &action, NULL);
}

/* ---- arguments ----------------------------------------------------------- */

enum {
	KEY_PATH = 0x100,
	KEY_SIZE,
	KEY_OFFSET,
	KEY_DEST_OFFSET,
	KEY_GPU_OFFSET,
	KEY_SEED,
	KEY_REPEAT,
	KEY_VERIFY,
	KEY_JSON,
};

static const struct argp_option options[] = {
	{ "path", KEY_PATH, "PATH", 0,
	  "auto, direct (or fail), staged or cache; default: auto", 0 },
	{ "size", KEY_SIZE, "BYTES", 0, "move so much; default: the file", 0 },
	{ "offset", KEY_OFFSET, "BYTES", 0, "start here in the first file", 0 },
	{ "dest-offset", KEY_DEST_OFFSET, "BYTES", 0,
	  "start here in the second file, and keep the rest of it", 0 },
	{ "gpu-offset", KEY_GPU_OFFSET, "BYTES", 0,
	  "start here in the GPU memory", 0 },
	{ "seed", KEY_SEED, "N", 0,
	  "fill the GPU memory with pseudo-random bytes first", 0 },
	{ "repeat", KEY_REPEAT, "N", 0, "do it so often", 0 },
	{ "verify", KEY_VERIFY, NULL, 0,
	  "read back and compare, through the page cache", 0 },
	{ "json", KEY_JSON, NULL, 0, "figures for programs", 0 },
	{ 0 },
};

static uint64_t number_of(const char *text, struct argp_state *state)
{
	uint64_t number = 0;
	int err;

	err = size_parse(text, &number);
	if (err == -ERANGE)
		argp_error(state, "%s: number too large", text);
	else if (err)
		argp_error(state, "%s: no number; write 4096, 64K or 1GiB",
			   text);
	return number;
}

static uint32_t path_of(const char *text, struct argp_state *state)
{
	if (!strcmp(text, "auto"))
		return PEERDMA_PATH_AUTO;
	if (!strcmp(text, "direct"))
		return PEERDMA_PATH_DIRECT;
	if (!strcmp(text, "staged"))
		return PEERDMA_PATH_STAGED;
	if (!strcmp(text, "cache"))
		return PEERDMA_PATH_CACHE;
	argp_error(state, "%s: no path; there are auto, direct, staged, cache",
		   text);
	return PEERDMA_PATH_AUTO;
}

static void check_operands(const struct arguments *args,
			   struct argp_state *state)
{
	bool gpu[3] = { false };
	unsigned int i;

	for (i = 0; i < args->nr_operands; i++)
		gpu[i] = gpu_of(args->operands[i]) >= 0;
	if (args->nr_operands < 2 || gpu[0] == gpu[1] ||
	    (args->nr_operands == 3 && (gpu[0] || gpu[2])))
		argp_error(state, "say FILE gpu:N, gpu:N FILE or FILE gpu:N FILE");
	if (gpu[0] && !args->has_size)
		argp_error(state, "--size is needed to copy from a GPU");
	if (!gpu[0] && args->has_seed)
		argp_error(state, "--seed is for gpu:N FILE");
	if (args->nr_operands < 3 && args->has_dest_offset)
		argp_error(state, "--dest-offset is for FILE gpu:N FILE");
	if (!args->repeat)
		argp_error(state, "--repeat 0 does nothing");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *args = state->input;

	switch (key) {
	case KEY_PATH:
		args->path = path_of(arg, state);
		return 0;
	case KEY_SIZE:
		args->size = number_of(arg, state);
		args->has_size = true;
		return 0;
	case KEY_OFFSET:
		args->offset = number_of(arg, state);
		return 0;
	case KEY_DEST_OFFSET:
		args->dest_offset = number_of(arg, state);
		args->has_dest_offset = true;
		return 0;
	case KEY_GPU_OFFSET:
		args->gpu_offset = number_of(arg, state);
		return 0;
	case KEY_SEED:
		args->seed = number_of(arg, state);
		args->has_seed = true;
		return 0;
	case KEY_REPEAT:
		args->repeat = number_of(arg, state);
		return 0;
	case KEY_VERIFY:
		args->verify = true;
		return 0;
	case KEY_JSON:
		args->json = true;
		return 0;
	case ARGP_KEY_ARG:
		if (args->nr_operands == 3)
			return ARGP_ERR_UNKNOWN;
		args->operands[args->nr_operands++] = arg;
		return 0;
	case ARGP_KEY_END:
		check_operands(args, state);
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "FILE gpu:N\ngpu:N FILE\nFILE gpu:N FILE",
	.doc = "Move a file into the memory of a GPU, memory into a file, or a "
	       "file into memory and from there into another file."
	       "\vBYTES: 4096, 64K, 1GiB. Exit status: 0 done, 1 compared "
	       "unequal, 2 error, 130 interrupted.",
};

/* ---- files --------------------------------------------------------------- */

/* Around the page cache where the filesystem can. */
static int open_file(const char *path, int flags)
{
	int fd;

	fd = open(path, flags | O_DIRECT | O_CLOEXEC, 0666);
	if (fd < 0 && errno == EINVAL)
		fd = open(path, flags | O_CLOEXEC, 0666);
	return fd;
}

static int open_source(struct job *job)
{
	struct stat st;
	off_t end;

	job->source_fd = open_file(job->source, O_RDONLY);
	if (job->source_fd < 0 || fstat(job->source_fd, &st)) {
		complain(job->source, "%s", cause_of(-errno));
		return STATUS_ERROR;
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode)) {
		complain(job->source, "neither a file nor a block device");
		return STATUS_ERROR;
	}
	if (job->args->has_size)
		return 0;
	/* Unlike st_size this knows block devices too. */
	end = lseek(job->source_fd, 0, SEEK_END);
	if (job->source_offset < (uint64_t)end)
		job->size = end - job->source_offset;
	return 0;
}

static bool same_file(int a, int b)
{
	struct stat x, y;

	return a >= 0 && !fstat(a, &x) && !fstat(b, &y) &&
	       x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

static int open_dest(struct job *job)
{
	struct stat st;

	job->dest_fd = open_file(job->dest, O_WRONLY | O_CREAT);
	if (job->dest_fd < 0) {
		complain(job->dest, "%s", cause_of(-errno));
		return STATUS_ERROR;
	}
	if (same_file(job->source_fd, job->dest_fd)) {
		complain(job->dest, "is the file to read; name another one");
		return STATUS_ERROR;
	}
	if (job->args->has_dest_offset || job->dest_offset ||
	    fstat(job->dest_fd, &st) || !S_ISREG(st.st_mode))
		return 0;
	if (!ftruncate(job->dest_fd, 0))
		return 0;
	complain(job->dest, "%s", cause_of(-errno));
	return STATUS_ERROR;
}

/* ---- figures ------------------------------------------------------------- */

static double cpu_seconds(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_utime.tv_sec + usage.ru_utime.tv_usec / 1e6 +
	       usage.ru_stime.tv_sec + usage.ru_stime.tv_usec / 1e6;
}

static const char *path_taken(const struct peerdma_io_result *result)
{
	if (!result->bytes_staged && !result->bytes_cached)
		return "direct";
	if (result->bytes_direct || (result->bytes_staged &&
				     result->bytes_cached))
		return "mixed";
	return result->bytes_staged ? "staged" : "cache";
}

static double per_gib(const struct run *run)
{
	return run->moved > 0 ? run->cpu / (run->moved / 1073741824.0) : 0;
}

static void print_run(const struct run *run)
{
	char bytes[SIZE_TEXT_LEN];

	size_format(run->moved, bytes);
	printf("%-5s %10s  %-6s %9.1f MB/s %9.3f s  cpu %.3f s/GiB\n",
	       run->verb, bytes, path_taken(&run->result),
	       run->moved / run->seconds / 1e6, run->seconds, per_gib(run));
	if (!run->result.bytes_staged ||
	    run->result.reason == PEERDMA_REASON_FORCED)
		return;
	size_format(run->result.bytes_staged, bytes);
	printf("      %s staged: %s\n", bytes,
	       peerdma_reason_string(run->result.reason));
}

static void add_run(struct json_object *runs, const struct run *run)
{
	struct json_object *o = json_object_new_object();
	const struct peerdma_io_result *result = &run->result;

	json_object_object_add(o, "verb", json_object_new_string(run->verb));
	json_object_object_add(o, "file", json_object_new_string(run->file));
	json_object_object_add(o, "path",
			       json_object_new_string(path_taken(result)));
	json_object_object_add(o, "bytes", json_object_new_int64(run->moved));
	json_object_object_add(o, "bytes_direct",
			       json_object_new_int64(result->bytes_direct));
	json_object_object_add(o, "bytes_staged",
			       json_object_new_int64(result->bytes_staged));
	json_object_object_add(o, "bytes_cached",
			       json_object_new_int64(result->bytes_cached));
	json_object_object_add(o, "bytes_zeroed",
			       json_object_new_int64(result->bytes_zeroed));
	json_object_object_add(o, "reason", json_object_new_string(
				peerdma_reason_name(result->reason)));
	json_object_object_add(o, "seconds",
			       json_object_new_double(run->seconds));
	json_object_object_add(o, "mb_per_s", json_object_new_double(
				run->moved / run->seconds / 1e6));
	json_object_object_add(o, "cpu_seconds",
			       json_object_new_double(run->cpu));
	json_object_object_add(o, "cpu_seconds_per_gib",
			       json_object_new_double(per_gib(run)));
	json_object_array_add(runs, o);
}

/* ---- moving -------------------------------------------------------------- */

static int on_progress(void *arg, uint64_t done, uint64_t total)
{
	struct job *job = arg;

	progress_update(&job->progress, done, total);
	return caught;
}

static int interrupted(const char *verb, uint64_t done, uint64_t total)
{
	char part[SIZE_TEXT_LEN], whole[SIZE_TEXT_LEN];

	size_format(done, part);
	size_format(total, whole);
	complain("copy", "interrupted: %s %s of %s", verb, part, whole);
	return 128 + caught;
}

static int judge(const struct job *job, const struct run *run)
{
	uint64_t done = run->moved > 0 ? run->moved : 0;
	int err = run->result.error;

	if (caught)
		return interrupted(run->verb, done, job->size);
	if (err == -EOPNOTSUPP && run->result.reason)
		complain(run->file, "not directly: %s",
			 peerdma_reason_string(run->result.reason));
	else if (err)
		complain(run->file, "%s after %" PRIu64 " of %" PRIu64 " bytes",
			 cause_of(err), done, job->size);
	else if (done < job->size)
		complain(run->file, "ended after %" PRIu64 " of %" PRIu64
			 " bytes; give a smaller --size", done, job->size);
	else
		return 0;
	return STATUS_ERROR;
}

static int move(struct job *job, bool write)
{
	PEERDMA_SIZED(peerdma_io_opts, opts, .progress = on_progress,
		      .arg = job, .path = job->args->path);
	struct run run = {
		.verb = write ? "write" : "read",
		.file = write ? job->dest : job->source,
		.result.size = sizeof(run.result),
	};
	double start, cpu;
	int status;

	progress_start(&job->progress, run.verb);
	cpu = cpu_seconds();
	start = now();
	if (write)
		run.moved = peerdma_write_opts(job->buf, job->dest_fd,
					       job->size, job->dest_offset,
					       job->args->gpu_offset, &opts,
					       &run.result);
	else
		run.moved = peerdma_read_opts(job->buf, job->source_fd,
					      job->size, job->source_offset,
					      job->args->gpu_offset, &opts,
					      &run.result);
	run.seconds = now() - start;
	run.cpu = cpu_seconds() - cpu;
	progress_end(&job->progress);
	status = judge(job, &run);
	if (status)
		return status;
	if (job->runs)
		add_run(job->runs, &run);
	else
		print_run(&run);
	return 0;
}

/* ---- comparing ----------------------------------------------------------- */

static uint64_t first_difference(const char *a, const char *b, uint64_t len)
{
	uint64_t i;

	for (i = 0; i < len && a[i] == b[i]; i++)
		;
	return i;
}

static int compare_piece(struct job *job, const char *path, int fd,
			 uint64_t offset, uint64_t at, char *pieces)
{
	size_t len = job->size - at < PIECE_LEN ? job->size - at : PIECE_LEN;
	char *memory = pieces, *file = pieces + PIECE_LEN;
	uint64_t same;
	ssize_t n;
	int err;

	err = peerdma_buffer_copy_out(job->buf, job->args->gpu_offset + at,
				      memory, len);
	if (err) {
		complain("gpu", "%s", cause_of(err));
		return STATUS_ERROR;
	}
	n = pread(fd, file, len, offset + at);
	if (n < 0) {
		complain(path, "%s", cause_of(-errno));
		return STATUS_ERROR;
	}
	same = first_difference(memory, file, n);
	if (same == len)
		return 0;
	complain(path, "differs from the GPU's memory at byte %" PRIu64,
		 offset + at + same);
	return STATUS_NO;
}

static int compare(struct job *job, const char *path, uint64_t offset)
{
	char *pieces = malloc(2 * PIECE_LEN);
	int fd, status = 0;
	uint64_t at;

	if (!pieces) {
		complain("copy", "%s", cause_of(-ENOMEM));
		return STATUS_ERROR;
	}
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		complain(path, "%s", cause_of(-errno));
		free(pieces);
		return STATUS_ERROR;
	}
	/* From the drive, not from what writing left in the page cache. */
	fdatasync(fd);
	posix_fadvise(fd, offset, job->size, POSIX_FADV_DONTNEED);
	progress_start(&job->progress, "check");
	for (at = 0; !status && at < job->size; at += PIECE_LEN) {
		progress_update(&job->progress, at, job->size);
		status = caught ? interrupted("compared", at, job->size) :
				  compare_piece(job, path, fd, offset, at,
						pieces);
	}
	progress_end(&job->progress);
	close(fd);
	free(pieces);
	return status;
}

/* ---- the whole ----------------------------------------------------------- */

static uint64_t scramble(uint64_t *state)
{
	/* splitmix64 */
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

static int fill(struct job *job)
{
	uint64_t *piece = calloc(1, PIECE_LEN);
	uint64_t state = job->args->seed;
	uint64_t at, len;
	int err = piece ? 0 : -ENOMEM;
	size_t i;

	for (at = 0; !err && at < job->size; at += len) {
		for (i = 0; job->args->has_seed && i < PIECE_LEN / 8; i++)
			piece[i] = scramble(&state);
		len = job->size - at < PIECE_LEN ? job->size - at : PIECE_LEN;
		err = peerdma_buffer_copy_in(job->buf,
					     job->args->gpu_offset + at, piece,
					     len);
	}
	free(piece);
	if (err)
		complain("gpu", "%s", cause_of(err));
	return err ? STATUS_ERROR : 0;
}

static int open_gpu(struct job *job)
{
	PEERDMA_SIZED(peerdma_open_opts, open_opts, .gpu = job->gpu);
	PEERDMA_SIZED(peerdma_buffer_opts, opts, .flags = PEERDMA_F_STAGED_OK);
	PEERDMA_SIZED(peerdma_context_info, info);
	uint64_t len = job->args->gpu_offset + job->size;
	char gpu[16];
	int err;

	snprintf(gpu, sizeof(gpu), "gpu:%d", job->gpu);
	err = peerdma_open(&job->ctx, &open_opts);
	if (err == -ENODEV) {
		complain(gpu, "no such GPU; 'peerdma info' lists them");
		return STATUS_ERROR;
	}
	if (!err)
		err = peerdma_context_info(job->ctx, &info);
	if (!err && info.cuda_reason) {
		complain(gpu, "%s", peerdma_reason_string(info.cuda_reason));
		return STATUS_ERROR;
	}
	if (!err)
		err = peerdma_buffer_alloc(job->ctx, len ? len : 1, &opts,
					   &job->buf);
	if (!err)
		return 0;
	complain(gpu, "%" PRIu64 " bytes of memory: %s", len, cause_of(err));
	return STATUS_ERROR;
}

static int run_once(struct job *job)
{
	const struct arguments *args = job->args;
	int status = 0;

	if (job->source)
		status = move(job, false);
	if (!status && job->source && args->verify)
		status = compare(job, job->source, job->source_offset);
	/* Only now, so that a failed read leaves the file as it was. */
	if (!status && job->dest && job->dest_fd < 0)
		status = open_dest(job);
	if (!status && job->dest)
		status = move(job, true);
	if (!status && job->dest && args->verify)
		status = compare(job, job->dest, job->dest_offset);
	return status;
}

static int run_job(struct job *job)
{
	uint64_t i;
	int status = 0;

	if (job->source)
		status = open_source(job);
	if (!status)
		status = open_gpu(job);
	if (!status && !job->source)
		status = fill(job);
	for (i = 0; !status && i < job->args->repeat; i++)
		status = run_once(job);
	return status;
}

static void name_operands(struct job *job)
{
	const struct arguments *args = job->args;

	if (gpu_of(args->operands[0]) >= 0) {
		job->gpu = gpu_of(args->operands[0]);
		job->dest = args->operands[1];
		job->dest_offset = args->offset;
		return;
	}
	job->gpu = gpu_of(args->operands[1]);
	job->source = args->operands[0];
	job->source_offset = args->offset;
	job->dest = args->operands[2];
	job->dest_offset = args->dest_offset;
}

static void print_json(struct job *job)
{
	struct json_object *o = json_object_new_object();

	json_object_object_add(o, "runs", job->runs);
	json_object_object_add(o, "verified",
			       json_object_new_boolean(job->args->verify));
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

/**
 * copy_run() - the verb copy
 * @argc: arguments
 * @argv: of the command line, from the verb on
 *
 * Return: exit status.
 */
int copy_run(int argc, char **argv)
{
	struct arguments args = { .repeat = 1 };
	struct job job = { .args = &args, .source_fd = -1, .dest_fd = -1 };
	int status;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	name_operands(&job);
	job.size = args.size;
	if (args.json)
		job.runs = json_object_new_array();
	catch_signal(SIGINT);
	catch_signal(SIGTERM);
	catch_signal(SIGHUP);
	status = run_job(&job);
	if (job.runs && !status)
		print_json(&job);
	else
		json_object_put(job.runs);
	peerdma_buffer_close(job.buf);
	peerdma_close(job.ctx);
	if (job.source_fd >= 0)
		close(job.source_fd);
	/* A full disk or quota may speak up only here. */
	if (job.dest_fd >= 0 && close(job.dest_fd) && !status) {
		complain(job.dest, "%s", cause_of(-errno));
		status = STATUS_ERROR;
	}
	return status;
}

// SPDX-License-Identifier: MIT
/* peerdma check: is each pair of drive and GPU direct, and if not, why? */
#include <argp.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <libsmartcols/libsmartcols.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "devices.h"

struct arguments {
	char **operands;
	int nr_operands;
	bool json;
};

/* The machine, and what was found out of it. */
struct survey {
	struct peerdma *ctx;
	struct gpu *gpus;
	int nr_gpus;
	struct drive *drives;
	int nr_drives;
	struct libscols_table *table;
	struct json_object *pairs;
	bool files;		/* files were named, not all drives asked for */
	bool json;
	int nr_answers;
	int status;
};

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "answers for programs", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	struct arguments *args = state->input;

	(void)arg;
	switch (key) {
	case 'j':
		args->json = true;
		return 0;
	case ARGP_KEY_ARGS:
		args->operands = state->argv + state->next;
		args->nr_operands = state->argc - state->next;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.args_doc = "[FILE...] [gpu:N...]",
	.doc = "Say which NVMe drives reach which GPUs' memory directly, and "
	       "where one does not, why. With files: the same for the files."
	       "\vExit status: 0 all of it is direct, 1 some is not, 2 error.",
};

/* ---- output -------------------------------------------------------------- */

enum { COLUMN_FILE, COLUMN_CACHED, COLUMN_GPU, COLUMN_DRIVE, COLUMN_PATH,
       COLUMN_VIA, COLUMN_WHY };

static int make_table(struct survey *survey)
{
	static const char *const names[] = {
		"FILE", "CACHED", "GPU", "DRIVE", "PATH", "VIA", "WHY NOT"
	};
	size_t i;

	survey->table = scols_new_table();
	if (!survey->table)
		return -ENOMEM;
	for (i = survey->files ? COLUMN_FILE : COLUMN_GPU;
	     i < sizeof(names) / sizeof(names[0]); i++)
		if (!scols_table_new_column(survey->table, names[i], 0,
					    i == COLUMN_WHY ?
						    SCOLS_FL_WRAP : 0))
			return -ENOMEM;
	return 0;
}

static const char *path_name(const struct peerdma_check_result *result)
{
	return result->path == PEERDMA_PATH_DIRECT ? "direct" : "staged";
}

/* How much of the file is in the page cache; of an empty one all is. */
static unsigned int percent_cached(const struct peerdma_check_result *result)
{
	if (result->resident >= result->file_len)
		return 100;
	return result->resident * 100.0 / result->file_len;
}

static void add_row(struct survey *survey, const char *file, const char *gpu,
		    const char *drive,
		    const struct peerdma_check_result *result)
{
	struct libscols_line *line = scols_table_new_line(survey->table, NULL);
	const char *why = result->reason ?
				  peerdma_reason_string(result->reason) : "";
	char cached[8];
	const char *cells[] = {
		file, cached, gpu, drive, path_name(result), result->via, why
	};
	size_t i, skip = survey->files ? COLUMN_FILE : COLUMN_GPU;

	snprintf(cached, sizeof(cached), "%u%%", percent_cached(result));
	for (i = skip; line && i < sizeof(cells) / sizeof(cells[0]); i++)
		scols_line_set_data(line, i - skip, cells[i]);
}

static void add_string(struct json_object *o, const char *key,
		       const char *value)
{
	json_object_object_add(o, key, value && *value ?
				       json_object_new_string(value) : NULL);
}

/* A read takes what is in the page cache, whatever the drive can do. */
static void add_cache(struct json_object *o,
		      const struct peerdma_check_result *result)
{
	int reason = result->cache_reason;

	json_object_object_add(o, "file_len",
			       json_object_new_int64(result->file_len));
	json_object_object_add(o, "resident",
			       json_object_new_int64(result->resident));
	add_string(o, "cache_reason", peerdma_reason_name(reason));
	add_string(o, "cache_why", reason ? peerdma_reason_string(reason) :
					    NULL);
}

static void add_object(struct survey *survey, const char *file,
		       const struct gpu *gpu, const char *drive,
		       const struct peerdma_check_result *result)
{
	struct json_object *o = json_object_new_object();

	if (survey->files)
		add_string(o, "file", file);
	add_string(o, "gpu", gpu->label);
	add_string(o, "gpu_device", gpu->device);
	add_string(o, "drive", drive);
	add_string(o, "drive_device", result->drive);
	add_string(o, "path", path_name(result));
	add_string(o, "reason", peerdma_reason_name(result->reason));
	add_string(o, "why", result->reason ?
			     peerdma_reason_string(result->reason) : NULL);
	add_string(o, "via", result->via);
	json_object_object_add(o, "align",
			       json_object_new_int64(result->align));
	json_object_object_add(o, "memory_align",
			       json_object_new_int64(result->memory_align));
	json_object_object_add(o, "translated",
			       json_object_new_boolean(result->translated));
	json_object_object_add(o, "distance",
			       json_object_new_int64(result->distance));
	if (survey->files)
		add_cache(o, result);
	json_object_array_add(survey->pairs, o);
}

static void answer(struct survey *survey, const char *file,
		   const struct gpu *gpu, const char *drive,
		   const struct peerdma_check_result *result)
{
	survey->nr_answers++;
	if (result->reason && survey->status == STATUS_YES)
		survey->status = STATUS_NO;
	if (survey->json)
		add_object(survey, file, gpu, drive, result);
	else
		add_row(survey, file, gpu->label, drive, result);
}

/* ---- asking -------------------------------------------------------------- */

static void fail(struct survey *survey, const char *what, int err)
{
	complain(what, "%s", cause_of(err));
	survey->status = STATUS_ERROR;
}

static const char *drive_name(const struct survey *survey, const char *device)
{
	int i;

	for (i = 0; i < survey->nr_drives; i++)
		if (!strcmp(survey->drives[i].device, device))
			return survey->drives[i].name;
	return device;
}

static void check_pairs(struct survey *survey, const struct gpu *gpu)
{
	int i, err;

	for (i = 0; i < survey->nr_drives; i++) {
		PEERDMA_SIZED(peerdma_check_result, result);
		struct drive *drive = &survey->drives[i];

		err = peerdma_check_route(survey->ctx, drive->device,
					  gpu->device, &result);
		if (err)
			fail(survey, drive->name, err);
		else
			answer(survey, NULL, gpu, drive->name, &result);
	}
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd >= 0 ? fd : -errno;
}

static void check_file(struct survey *survey, const struct gpu *gpu,
		       struct peerdma *ctx, const char *path)
{
	PEERDMA_SIZED(peerdma_check_result, result);
	int fd, err;

	fd = open_file(path);
	if (fd < 0) {
		fail(survey, path, fd);
		return;
	}
	err = peerdma_check(ctx, fd, NULL, &result);
	close(fd);
	if (err)
		fail(survey, path, err);
	else
		answer(survey, path, gpu, drive_name(survey, result.drive),
		       &result);
}

static void check_files(struct survey *survey, const struct gpu *gpu,
			const struct arguments *args)
{
	PEERDMA_SIZED(peerdma_open_opts, opts, .gpu = gpu->ordinal);
	struct peerdma *ctx;
	int i, err;

	err = peerdma_open(&ctx, &opts);
	if (err) {
		fail(survey, gpu->label, err);
		return;
	}
	for (i = 0; i < args->nr_operands; i++)
		if (gpu_of(args->operands[i]) < 0)
			check_file(survey, gpu, ctx, args->operands[i]);
	peerdma_close(ctx);
}

/* Named GPUs, or all when none is named. */
static bool is_wanted(const struct gpu *gpu, const struct arguments *args)
{
	bool any = false;
	int i, ordinal;

	for (i = 0; i < args->nr_operands; i++) {
		ordinal = gpu_of(args->operands[i]);
		if (ordinal >= 0 && ordinal == gpu->ordinal)
			return true;
		any |= ordinal >= 0;
	}
	return !any;
}

static void check_named(struct survey *survey, const struct arguments *args)
{
	int i, k, ordinal;
	bool found;

	for (i = 0; i < args->nr_operands; i++) {
		ordinal = gpu_of(args->operands[i]);
		if (ordinal < 0) {
			survey->files = true;
			continue;
		}
		found = false;
		for (k = 0; k < survey->nr_gpus; k++)
			found |= survey->gpus[k].ordinal == ordinal;
		if (found)
			continue;
		complain(args->operands[i],
			 "no such GPU; 'peerdma info' lists them");
		survey->status = STATUS_ERROR;
	}
}

/* ---- the whole ----------------------------------------------------------- */

static void print_answers(struct survey *survey)
{
	PEERDMA_SIZED(peerdma_context_info, info);

	if (survey->nr_answers) {
		scols_print_table(survey->table);
		return;
	}
	if (survey->status == STATUS_ERROR)
		return;
	if (!survey->nr_gpus)
		puts("no GPU on this machine");
	if (!survey->nr_drives && !survey->files)
		puts("no NVMe drive on this machine");
	if (peerdma_context_info(survey->ctx, &info))
		return;
	if (info.module_reason)
		puts(peerdma_reason_string(info.module_reason));
	if (info.cuda_reason)
		puts(peerdma_reason_string(info.cuda_reason));
}

static void print_json(struct survey *survey)
{
	struct json_object *o = json_object_new_object();
	PEERDMA_SIZED(peerdma_context_info, info);

	if (!peerdma_context_info(survey->ctx, &info)) {
		add_string(o, "module", peerdma_reason_name(info.module_reason));
		add_string(o, "cuda", peerdma_reason_name(info.cuda_reason));
	}
	json_object_object_add(o, "pairs", json_object_get(survey->pairs));
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

static void survey_all(struct survey *survey, const struct arguments *args)
{
	int i;

	survey->nr_gpus = devices_gpus(survey->ctx, &survey->gpus);
	survey->nr_drives = devices_drives(&survey->drives);
	check_named(survey, args);
	if (make_table(survey)) {
		fail(survey, "check", -ENOMEM);
		return;
	}
	for (i = 0; i < survey->nr_gpus; i++) {
		if (!is_wanted(&survey->gpus[i], args))
			continue;
		if (survey->files)
			check_files(survey, &survey->gpus[i], args);
		else
			check_pairs(survey, &survey->gpus[i]);
	}
	if (!survey->nr_answers && survey->status == STATUS_YES)
		survey->status = STATUS_NO;
	if (survey->json)
		print_json(survey);
	else
		print_answers(survey);
}

/**
 * check_run() - the verb check
 * @argc: arguments
 * @argv: of the command line, from the verb on
 *
 * Return: exit status.
 */
int check_run(int argc, char **argv)
{
	struct arguments args = { 0 };
	struct survey survey = { .status = STATUS_YES };
	int err;

	argp_parse(&argp, argc, argv, 0, NULL, &args);
	err = peerdma_open(&survey.ctx, NULL);
	if (err) {
		complain("check", "%s", cause_of(err));
		return STATUS_ERROR;
	}
	survey.json = args.json;
	survey.pairs = json_object_new_array();
	survey_all(&survey, &args);
	json_object_put(survey.pairs);
	scols_unref_table(survey.table);
	free(survey.gpus);
	free(survey.drives);
	peerdma_close(survey.ctx);
	return survey.status;
}

// SPDX-License-Identifier: MIT
/* peerdma info: what there is. */
#include <argp.h>
#include <inttypes.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "devices.h"

static const struct argp_option options[] = {
	{ "json", 'j', NULL, 0, "for programs", 0 },
	{ 0 },
};

static error_t parse(int key, char *arg, struct argp_state *state)
{
	bool *json = state->input;

	(void)arg;
	if (key != 'j')
		return ARGP_ERR_UNKNOWN;
	*json = true;
	return 0;
}

static const struct argp argp = {
	.options = options,
	.parser = parse,
	.doc = "Say what the kernel module, CUDA and this library offer.",
};

static const char *state_of(int reason)
{
	return reason ? peerdma_reason_string(reason) : "ready";
}

static void print(const struct peerdma_context_info *info,
		  const struct gpu *gpus, int nr_gpus)
{
	int i;

	printf("library    %s\n", peerdma_version());
	printf("module     %s\n", state_of(info->module_reason));
	if (!info->module_reason) {
		printf("verbs      %#" PRIx64 "\n", info->verbs);
		printf("features   %#" PRIx64 "\n", info->features);
		printf("providers  %s\n", info->providers);
	}
	printf("cuda       %s\n", state_of(info->cuda_reason));
	for (i = 0; i < nr_gpus; i++)
		printf("%-10s %s  %s\n", i ? "" : "gpus", gpus[i].label,
		       gpus[i].name);
}

static void print_json(const struct peerdma_context_info *info,
		       const struct gpu *gpus, int nr_gpus)
{
	struct json_object *o = json_object_new_object();
	struct json_object *list = json_object_new_array(), *gpu;
	int i;

	json_object_object_add(o, "library",
			       json_object_new_string(peerdma_version()));
	json_object_object_add(o, "module", json_object_new_string(
				peerdma_reason_name(info->module_reason)));
	json_object_object_add(o, "cuda", json_object_new_string(
				peerdma_reason_name(info->cuda_reason)));
	json_object_object_add(o, "verbs", json_object_new_int64(info->verbs));
	json_object_object_add(o, "features",
			       json_object_new_int64(info->features));
	json_object_object_add(o, "providers",
			       json_object_new_string(info->providers));
	for (i = 0; i < nr_gpus; i++) {
		gpu = json_object_new_object();
		json_object_object_add(gpu, "gpu", json_object_new_string(
					gpus[i].label));
		json_object_object_add(gpu, "device", json_object_new_string(
					gpus[i].device));
		json_object_object_add(gpu, "name", json_object_new_string(
					gpus[i].name));
		json_object_array_add(list, gpu);
	}
	json_object_object_add(o, "gpus", list);
	puts(json_object_to_json_string_ext(o, JSON_C_TO_STRING_PRETTY));
	json_object_put(o);
}

/**
 * info_run() - the verb info
 * @argc: arguments
 * @argv: of the command line, from the verb on
 *
 * Return: exit status.
 */
int info_run(int argc, char **argv)
{
	PEERDMA_SIZED(peerdma_context_info, info);
	struct peerdma *ctx;
	bool json = false;
	struct gpu *gpus;
	int err, nr_gpus;

	argp_parse(&argp, argc, argv, 0, NULL, &json);
	err = peerdma_open(&ctx, NULL);
	if (!err)
		err = peerdma_context_info(ctx, &info);
	if (err) {
		complain("info", "%s", cause_of(err));
		return STATUS_ERROR;
	}
	nr_gpus = devices_gpus(ctx, &gpus);
	if (json)
		print_json(&info, gpus, nr_gpus);
	else
		print(&info, gpus, nr_gpus);
	free(gpus);
	peerdma_close(ctx);
	return STATUS_YES;
}

// SPDX-License-Identifier: MIT
/* Error codes in words. */
#include "sim.h"

static const struct {
	CUresult error;
	const char *name;
	const char *text;
} errors[] = {
#define ERROR(code, text) { CUDA_ ## code, "CUDA_" #code, text }
	ERROR(SUCCESS, "no error"),
	ERROR(ERROR_INVALID_VALUE, "invalid argument"),
	ERROR(ERROR_OUT_OF_MEMORY, "out of memory"),
	ERROR(ERROR_NOT_INITIALIZED, "initialization error"),
	ERROR(ERROR_DEINITIALIZED, "driver shutting down"),
	ERROR(ERROR_DEVICE_UNAVAILABLE,
	      "CUDA-capable device(s) is/are busy or unavailable"),
	ERROR(ERROR_NO_DEVICE, "no CUDA-capable device is detected"),
	ERROR(ERROR_INVALID_DEVICE, "invalid device ordinal"),
	ERROR(ERROR_INVALID_CONTEXT, "invalid device context"),
	ERROR(ERROR_MAP_FAILED, "mapping of buffer object failed"),
	ERROR(ERROR_UNMAP_FAILED, "unmapping of buffer object failed"),
	ERROR(ERROR_ALREADY_MAPPED, "resource already mapped"),
	ERROR(ERROR_NOT_MAPPED, "resource not mapped"),
	ERROR(ERROR_OPERATING_SYSTEM,
	      "OS call failed or operation not supported on this OS"),
	ERROR(ERROR_INVALID_HANDLE, "invalid resource handle"),
	ERROR(ERROR_ILLEGAL_STATE,
	      "the operation cannot be performed in the present state"),
	ERROR(ERROR_NOT_FOUND, "named symbol not found"),
	ERROR(ERROR_NOT_READY, "device not ready"),
	ERROR(ERROR_ILLEGAL_ADDRESS,
	      "an illegal memory access was encountered"),
	ERROR(ERROR_PRIMARY_CONTEXT_ACTIVE,
	      "cannot set while device is active in this process"),
	ERROR(ERROR_CONTEXT_IS_DESTROYED, "context is destroyed"),
	ERROR(ERROR_HOST_MEMORY_ALREADY_REGISTERED,
	      "part or all of the requested memory range is already mapped"),
	ERROR(ERROR_HOST_MEMORY_NOT_REGISTERED,
	      "pointer does not correspond to a registered memory region"),
	ERROR(ERROR_LAUNCH_FAILED, "unspecified launch failure"),
	ERROR(ERROR_NOT_PERMITTED, "operation not permitted"),
	ERROR(ERROR_NOT_SUPPORTED, "operation not supported"),
	ERROR(ERROR_UNKNOWN, "unknown error"),
#undef ERROR
};

CUresult cuGetErrorName(CUresult error, const char **name)
{
	size_t i;

	if (!name)
		return CUDA_ERROR_INVALID_VALUE;
	*name = NULL;
	for (i = 0; i < ARRAY_SIZE(errors) && !*name; i++)
		if (errors[i].error == error)
			*name = errors[i].name;
	return *name ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
	size_t i;

	if (!text)
		return CUDA_ERROR_INVALID_VALUE;
	*text = NULL;
	for (i = 0; i < ARRAY_SIZE(errors) && !*text; i++)
		if (errors[i].error == error)
			*text = errors[i].text;
	return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

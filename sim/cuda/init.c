// SPDX-License-Identifier: MIT
/* The way into the library, and out of it. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "sim.h"

#define DRIVER_VERSION	CUDA_VERSION

pthread_mutex_t sim_lock = PTHREAD_MUTEX_INITIALIZER;
struct sim_device sim_devices[SIM_MAX_DEVICES];
int sim_nr_devices;
_Thread_local bool sim_in_host_fn;

static atomic_bool initialized;
static atomic_bool forked;

/* The child has neither our threads nor a say in its parent's memory. */
static void fork_child(void)
{
	forked = true;
}

static void find_devices(void)
{
	struct sim_device *device;
	char path[32];
	int i, fd;

	for (i = 0; i < SIM_MAX_DEVICES; i++) {
		snprintf(path, sizeof(path), "/dev/simgpu%d", i);
		fd = open(path, O_RDWR | O_CLOEXEC);
		if (fd < 0)
			continue;
		device = &sim_devices[sim_nr_devices];
		if (ioctl(fd, SIMGPU_INFO, &device->info)) {
			close(fd);
			continue;
		}
		device->fd = fd;
		sim_nr_devices++;
	}
}

CUresult cuInit(unsigned int flags)
{
	if (flags)
		return CUDA_ERROR_INVALID_VALUE;
	if (forked && initialized)
		return CUDA_ERROR_NOT_INITIALIZED;
	pthread_mutex_lock(&sim_lock);
	if (!initialized) {
		find_devices();
		if (sim_nr_devices) {
			pthread_atfork(NULL, NULL, fork_child);
			initialized = true;
		}
	}
	pthread_mutex_unlock(&sim_lock);
	return initialized ? CUDA_SUCCESS : CUDA_ERROR_NO_DEVICE;
}

CUresult cuDriverGetVersion(int *version)
{
	if (!version)
		return CUDA_ERROR_INVALID_VALUE;
	*version = DRIVER_VERSION;
	return CUDA_SUCCESS;
}

/**
 * sim_enter() - begin an API call
 * @ctx: NULL, or where to put the current context, which must then be good
 *
 * Return: CUDA_SUCCESS with sim_lock held, or what the call has to return.
 */
CUresult sim_enter(struct CUctx_st **ctx)
{
	struct CUctx_st *current;
	CUresult result = CUDA_SUCCESS;

	if (!initialized || forked)
		return CUDA_ERROR_NOT_INITIALIZED;
	if (sim_in_host_fn)
		return CUDA_ERROR_NOT_PERMITTED;
	pthread_mutex_lock(&sim_lock);
	if (!ctx)
		return CUDA_SUCCESS;
	current = sim_context_current();
	if (!current)
		result = CUDA_ERROR_INVALID_CONTEXT;
	else if (!current->alive)
		result = CUDA_ERROR_CONTEXT_IS_DESTROYED;
	else
		result = current->error;
	if (result)
		return sim_leave(result);
	*ctx = current;
	return CUDA_SUCCESS;
}

/**
 * sim_enter_device() - begin an API call about a device
 * @dev: the device
 *
 * Return: CUDA_SUCCESS with sim_lock held, or what the call has to return.
 */
CUresult sim_enter_device(CUdevice dev)
{
	CUresult result = sim_enter(NULL);

	if (!result && (dev < 0 || dev >= sim_nr_devices))
		return sim_leave(CUDA_ERROR_INVALID_DEVICE);
	return result;
}

CUresult sim_leave(CUresult result)
{
	pthread_mutex_unlock(&sim_lock);
	return result;
}

/**
 * sim_error() - what an errno of the kernel means to CUDA
 * @err: positive, or 0
 */
CUresult sim_error(int err)
{
	switch (err) {
	case 0:
		return CUDA_SUCCESS;
	case ENOMEM:
		return CUDA_ERROR_OUT_OF_MEMORY;
	case EINVAL:
	case ENOENT:
	case EEXIST:
		return CUDA_ERROR_INVALID_VALUE;
	case EFAULT:
		return CUDA_ERROR_ILLEGAL_ADDRESS;
	case ENODEV:
		return CUDA_ERROR_DEVICE_UNAVAILABLE;
	case EPERM:
		return CUDA_ERROR_NOT_PERMITTED;
	default:
		return CUDA_ERROR_UNKNOWN;
	}
}

/* Return: 0 or a positive errno. */
int sim_ioctl(CUdevice dev, unsigned long request, void *arg)
{
	return ioctl(sim_devices[dev].fd, request, arg) ? errno : 0;
}

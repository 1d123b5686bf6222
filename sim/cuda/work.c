// SPDX-License-Identifier: MIT
/* What the operations in a stream do. */
#include <string.h>

#include "sim.h"

/**
 * sim_work_run() - do it
 * @op: nobody else has it
 * @dev: of the stream's context
 *
 * Context: sim_lock not held.
 */
CUresult sim_work_run(struct sim_op *op, CUdevice dev)
{
	switch (op->kind) {
	case SIM_OP_COPY:
		return sim_error(sim_ioctl(dev, SIMGPU_COPY, &op->copy));
	case SIM_OP_HOST_COPY:
		memmove((void *)(uintptr_t)op->copy.dst,
			(void *)(uintptr_t)op->copy.src, op->copy.len);
		return CUDA_SUCCESS;
	case SIM_OP_MEMSET:
		return sim_error(sim_ioctl(dev, SIMGPU_MEMSET, &op->set));
	case SIM_OP_HOST_FN:
		sim_in_host_fn = true;
		op->fn(op->data);
		sim_in_host_fn = false;
		return CUDA_SUCCESS;
	case SIM_OP_WRITE_VALUE:
		__atomic_store_n(op->word, op->value, __ATOMIC_SEQ_CST);
		return CUDA_SUCCESS;
	case SIM_OP_NOP:
	case SIM_OP_WAIT_VALUE:
	case SIM_OP_AWAIT:
	case SIM_OP_RECORD:
		break;
	}
	return CUDA_SUCCESS;
}

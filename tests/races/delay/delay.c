// SPDX-License-Identifier: GPL-2.0-only
/*
 * A delay where a function of the kernel begins, so that what may happen there
 * meanwhile does happen: write "FUNCTION MILLISECONDS" to the module's parameter
 * `at`, "-" for none any more. The CPU spins, since a probe cannot sleep.
 */
#include <linux/delay.h>
#include <linux/kprobes.h>
#include <linux/module.h>
#include <linux/mutex.h>

#define LONGEST_MS	50

/* Over @probe and @set; a leaf. */
static DEFINE_MUTEX(lock);
static char name[KSYM_NAME_LEN];
static unsigned int ms;
static bool set;
static struct kprobe probe;

static atomic_t hits;

static int probe_hit(struct kprobe *kprobe, struct pt_regs *regs)
{
	atomic_inc(&hits);
	mdelay(READ_ONCE(ms));
	return 0;
}

static void probe_drop(void)
{
	lockdep_assert_held(&lock);
	if (set)
		unregister_kprobe(&probe);
	set = false;
}

static int at_set(const char *text, const struct kernel_param *param)
{
	char function[KSYM_NAME_LEN];
	unsigned int delay;
	int ret = 0;

	if (sscanf(text, "%127s %u", function, &delay) != 2) {
		function[0] = '\0';
		delay = 0;
	}
	if (delay > LONGEST_MS)
		return -EINVAL;

	mutex_lock(&lock);
	probe_drop();
	if (delay) {
		strscpy(name, function, sizeof(name));
		ms = delay;
		probe = (struct kprobe){
			.symbol_name = name,
			.pre_handler = probe_hit,
		};
		ret = register_kprobe(&probe);
		set = !ret;
	}
	mutex_unlock(&lock);
	return ret;
}

static int hits_get(char *text, const struct kernel_param *param)
{
	return sysfs_emit(text, "%d\n", atomic_read(&hits));
}

static const struct kernel_param_ops at_ops = { .set = at_set };
static const struct kernel_param_ops hits_ops = { .get = hits_get };

module_param_cb(at, &at_ops, NULL, 0200);
MODULE_PARM_DESC(at, "FUNCTION MILLISECONDS, or - for none");
module_param_cb(hits, &hits_ops, NULL, 0444);
MODULE_PARM_DESC(hits, "how often it was met");

static int __init delay_init(void)
{
	return 0;
}

static void __exit delay_exit(void)
{
	mutex_lock(&lock);
	probe_drop();
	mutex_unlock(&lock);
}

module_init(delay_init);
module_exit(delay_exit);
MODULE_DESCRIPTION("Delays at the start of functions, for tests of races");
MODULE_LICENSE("GPL");

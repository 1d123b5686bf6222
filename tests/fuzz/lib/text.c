// SPDX-License-Identifier: MIT
/*
 * What parses text: PCI addresses of the library, sizes of the command. What is
 * taken is written and read once more, and must be the same.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../../cli/size.h"
#include "../../../lib/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void pci_address(const char *text)
{
	char again[PEERDMA_PCI_LEN];
	uint32_t device, same;

	if (peerdma_pci_parse(text, &device))
		return;
	/* Neither blanks nor signs, which sscanf(3) would take. */
	if (text[strspn(text, "0123456789abcdefABCDEF:.")])
		abort();
	peerdma_pci_format(device, again);
	/* What all the bits say is no device, it says of itself. */
	if (device == PEERDMA_DEVICE_NONE)
		return;
	if (peerdma_pci_parse(again, &same) || same != device)
		abort();
}

static void size(const char *text)
{
	char again[SIZE_TEXT_LEN];
	uint64_t bytes;

	if (size_parse(text, &bytes))
		return;
	size_format(bytes, again);
	if (strlen(again) >= sizeof(again))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	char *text = malloc(len + 1);

	if (!text)
		return 0;
	memcpy(text, data, len);
	text[len] = '\0';
	pci_address(text);
	size(text);
	free(text);
	return 0;
}

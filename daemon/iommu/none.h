/* The translator `identity`: nobody translates, a device is given machine addresses. It takes any device, so it comes last. */
#ifndef DMAB_IOMMU_NONE_H
#define DMAB_IOMMU_NONE_H

#include "daemon/core/translator.h"

extern const struct translator_ops translator_identity_ops;

#endif

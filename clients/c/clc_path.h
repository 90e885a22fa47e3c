/* SPDX-License-Identifier: Apache-2.0 */
/* Versions and paths in a header: which transports a Proposal offers, or an Accept has chosen. */
#ifndef ISMFS_CLC_PATH_H
#define ISMFS_CLC_PATH_H

#include "clc.h"

enum { V1 = 1, V2 = 2, PATH_R = 0, PATH_D = 1, PATH_NONE = 2, PATH_BOTH = 3 };

static inline bool clc_has_d(uint8_t type)
{
	return type == PATH_D || type == PATH_BOTH;
}

static inline bool clc_has_r(uint8_t type)
{
	return type == PATH_R || type == PATH_BOTH;
}

#endif

/* SPDX-License-Identifier: Apache-2.0 */
/* What two sides agree on (smc/negotiate.go). */
#include <errno.h>
#include <string.h>

#include "clc_path.h"
#include "smc.h"

/* Of an entry of a Proposal's device list. */
static uint16_t chid_of(const unsigned char entry[10])
{
	return (uint16_t)(entry[8] << 8 | entry[9]);
}

static const unsigned char *common_eid(const struct clc_proposal *p, const struct clc_local *local)
{
	for (unsigned int i = 0; i < p->eids; i++)
		for (unsigned int k = 0; k < local->eids; k++)
			if (memcmp(p->eid[i], local->eid[k], CLC_EID) == 0)
				return p->eid[i];
	return NULL;
}

/* Is the device among those that the client offers? An emulated one (CHID 0xFF00 and up) takes two entries. */
static bool reachable(const struct clc_proposal *p, const struct clc_local *local)
{
	for (unsigned int i = 0; local->active && i < p->gids; i++) {
		uint16_t chid = chid_of(p->gid[i]);

		if (chid < 0xFF00)
			continue;
		if (i + 1 == p->gids || chid_of(p->gid[i + 1]) != chid)
			continue;
		if (chid == CLC_CHID_LOOPBACK && memcmp(p->gid[i], local->gid, 8) == 0 &&
		    memcmp(p->gid[i + 1], local->gid + 8, 8) == 0)
			return true;
		i++;
	}
	return false;
}

static uint32_t no_device(const struct clc_proposal *p, const struct clc_local *local, bool rdma_v2)
{
	if (clc_has_d(p->type_v1) || (!clc_has_r(p->type_v1) && !clc_has_r(p->type_v2)))
		return SMC_DECL_NOSMCDDEV;
	return rdma_v2 && common_eid(p, local) != NULL ? SMC_DECL_NOSMCRDEV : SMC_DECL_NOSMCDEV;
}

uint32_t clc_answer_proposal(const struct clc_proposal *p, const struct clc_local *local, struct clc_answer *accept)
{
	bool use_d = p->version != V1 && clc_has_d(p->type_v2), use_r = p->version != V1 && clc_has_r(p->type_v2);
	uint32_t code = SMC_DECL_PEERNOSMC;
	const unsigned char *eid;

	if ((use_d || use_r) && !p->has_v2) {
		use_d = use_r = false;
		code = SMC_DECL_NOV2EXT;
	}
	if (use_d && (!p->has_v2d || (p->eids == 0 && !p->seid))) {
		use_d = false;
		code = !p->has_v2d ? SMC_DECL_NOV2DEXT : SMC_DECL_NOUEID;
	}
	if (use_r && p->eids == 0) {
		use_r = false;
		code = SMC_DECL_NOUEID;
	}
	if (!use_d && !use_r && p->type_v1 == PATH_NONE)
		return code;
	if (use_d && !reachable(p, local))
		return SMC_DECL_NOSMCD2DEV;
	eid = use_d ? common_eid(p, local) : NULL;
	if (eid == NULL)
		return no_device(p, local, use_r);
	memcpy(accept->eid, eid, CLC_EID);
	accept->release = p->release < CLC_RELEASE ? p->release : CLC_RELEASE;
	accept->features = CLC_EMULATED_ISM;
	return 0;
}

int64_t clc_check_accept(const struct clc_local *sent, const struct clc_answer *accept)
{
	bool offered = false;

	if (accept->version != V2 || accept->type_v1 != PATH_D)
		return SMC_DECL_MODEUNSUPP;
	for (unsigned int i = 0; i < sent->eids; i++)
		offered = offered || memcmp(sent->eid[i], accept->eid, CLC_EID) == 0;
	if (!offered || accept->chid != CLC_CHID_LOOPBACK || memcmp(accept->gid, sent->gid, CLC_GID) != 0 || accept->index != 0)
		return -EPROTO;
	return accept->first_contact && accept->release > CLC_RELEASE ? SMC_DECL_RELEASEERR : 0;
}

int64_t clc_check_confirm(const struct clc_answer *accept, const struct clc_answer *confirm)
{
	if (confirm->version != V2 || confirm->type_v1 != PATH_D || confirm->first_contact != accept->first_contact ||
	    confirm->chid != accept->chid || memcmp(confirm->gid, accept->gid, CLC_GID) != 0 ||
	    memcmp(confirm->eid, accept->eid, CLC_EID) != 0 || confirm->index != 0)
		return -EPROTO;
	return confirm->first_contact && confirm->release != accept->release ? SMC_DECL_RELEASEERR : 0;
}

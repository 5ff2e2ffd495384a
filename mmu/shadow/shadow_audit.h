// Looks at every shadow page and says what is wrong: reverse maps, parents, roles, protection.
#ifndef TWINROOT_MMU_SHADOW_SHADOW_AUDIT_H_
#define TWINROOT_MMU_SHADOW_SHADOW_AUDIT_H_

#include <optional>
#include <string>

#include "mmu/shadow/shadow_tables.h"

namespace twinroot::mmu {

// The first broken invariant; nullopt: all hold. Processors may set flags meanwhile.
std::optional<std::string> AuditShadow(const Turn& turn, const ShadowTables& tables);

}  // namespace twinroot::mmu

#endif  // TWINROOT_MMU_SHADOW_SHADOW_AUDIT_H_

// The stable reasons of errors: ErrorInfo.reason in the status details, domain "twinroot". Clients
// may switch on them; a reason is never renamed or reused. Lower rooms set theirs with
// daemon/status_reason.h; an error without one carries the name of its gRPC code.
#ifndef TWINROOT_DAEMON_REASONS_H_
#define TWINROOT_DAEMON_REASONS_H_

namespace twinroot::reason {

inline constexpr char kDomain[] = "twinroot";

// INVALID_ARGUMENT: the request; BadRequest names the field.
inline constexpr char kInvalidName[] = "INVALID_NAME";               // not [a-z][a-z0-9-]{0,62}
inline constexpr char kMissingField[] = "MISSING_FIELD";             // no value, or UNSPECIFIED
inline constexpr char kInvalidField[] = "INVALID_FIELD";             // breaks the field's own rule
inline constexpr char kInvalidRange[] = "INVALID_RANGE";             // empty, unaligned, wrapping
inline constexpr char kRangesOverlap[] = "RANGES_OVERLAP";           // two ranges of one request
inline constexpr char kTooManyRanges[] = "TOO_MANY_RANGES";          // more than 16,384
inline constexpr char kInvalidPageToken[] = "INVALID_PAGE_TOKEN";    // not a token that a list gave
inline constexpr char kInvalidProgram[] = "INVALID_PROGRAM";         // program.proto forbids it
inline constexpr char kChunkTooLarge[] = "CHUNK_TOO_LARGE";          // UploadImage: over 1 MiB
inline constexpr char kImageTooLarge[] = "IMAGE_TOO_LARGE";          // UploadImage: over 64 MiB
inline constexpr char kImageIncomplete[] = "IMAGE_INCOMPLETE";       // fewer bytes than total_size
inline constexpr char kImageEmpty[] = "IMAGE_EMPTY";                 // UploadImage: no byte
inline constexpr char kRequestIdReused[] = "REQUEST_ID_REUSED";      // for another request
inline constexpr char kFieldNotUpdatable[] = "FIELD_NOT_UPDATABLE";  // UpdateVm's mask
inline constexpr char kCursorMalformed[] = "CURSOR_MALFORMED";

// OUT_OF_RANGE: metadata `oldest_cursor` says where one can begin.
inline constexpr char kCursorExpired[] = "CURSOR_EXPIRED";
inline constexpr char kCursorOtherEpoch[] = "CURSOR_OTHER_EPOCH";
inline constexpr char kCursorInFuture[] = "CURSOR_IN_FUTURE";

// NOT_FOUND, ALREADY_EXISTS
inline constexpr char kNoSuchVm[] = "NO_SUCH_VM";            // metadata `vm`
inline constexpr char kNoSuchImage[] = "NO_SUCH_IMAGE";      // metadata `image`
inline constexpr char kVmExists[] = "VM_EXISTS";             // metadata `vm`
inline constexpr char kNoSuchMemslot[] = "NO_SUCH_MEMSLOT";  // none that was added begins there
inline constexpr char kMemslotExists[] = "MEMSLOT_EXISTS";   // memory is there already

// UNAUTHENTICATED
inline constexpr char kCertificateRevoked[] = "CERTIFICATE_REVOKED";  // metadata `principal`

// PERMISSION_DENIED
// Metadata `role_required`, `role_held` ("none" too), `principal`.
inline constexpr char kRoleRequired[] = "ROLE_REQUIRED";
inline constexpr char kPrivateMemory[] = "PRIVATE_MEMORY";  // only shared memory can be read
inline constexpr char kPreserveWouldDisclose[] = "PRESERVE_WOULD_DISCLOSE";

// FAILED_PRECONDITION
inline constexpr char kWrongState[] = "WRONG_STATE";                       // not in the VM's state
inline constexpr char kBackendUnavailable[] = "BACKEND_UNAVAILABLE";       // not on this host
inline constexpr char kCpuGroupsUnavailable[] = "CPU_GROUPS_UNAVAILABLE";  // metadata `vm`
inline constexpr char kImageNeedsKvm[] = "IMAGE_NEEDS_KVM";                // sim runs programs only
inline constexpr char kNotOnThisBackend[] = "NOT_ON_THIS_BACKEND";    // metadata `vm`, `needs_mmu`
inline constexpr char kDenialUnsupported[] = "DENIAL_UNSUPPORTED";    // by this processor
inline constexpr char kNoConsoleInput[] = "NO_CONSOLE_INPUT";         // no serial port
inline constexpr char kDirtyLogOff[] = "DIRTY_LOG_OFF";               // metadata `vm`, and below
inline constexpr char kDirtyLogOn[] = "DIRTY_LOG_ON";                 // it is on already
inline constexpr char kDirtyLogNotManual[] = "DIRTY_LOG_NOT_MANUAL";  // harvests clear this log
inline constexpr char kDirtyLogUnsupported[] = "DIRTY_LOG_UNSUPPORTED";  // not on this backend

inline constexpr char kNxHugePagesOff[] = "NX_HUGE_PAGES_OFF";  // metadata `vm`

// ABORTED
inline constexpr char kEtagMismatch[] = "ETAG_MISMATCH";   // the VM has changed; metadata `vm`
inline constexpr char kWatchTooSlow[] = "WATCH_TOO_SLOW";  // metadata `cursor`: where to go on

// RESOURCE_EXHAUSTED
inline constexpr char kTooManyVms[] = "TOO_MANY_VMS";
inline constexpr char kConsoleInputFull[] = "CONSOLE_INPUT_FULL";  // the guest does not read it
inline constexpr char kImageStoreFull[] = "IMAGE_STORE_FULL";      // VMs use every image kept
inline constexpr char kTooMuchMemory[] = "TOO_MUCH_MEMORY";        // of added memslots
inline constexpr char kTooManyCalls[] = "TOO_MANY_CALLS";  // under way, or long ones waiting
inline constexpr char kTooManyConnections[] = "TOO_MANY_CONNECTIONS";  // of one principal

// UNAVAILABLE
inline constexpr char kVcpuWaits[] = "VCPU_WAITS";  // in an access; metadata `vm`
inline constexpr char kDraining[] = "DRAINING";     // the host takes no new VMs
inline constexpr char kDaemonStopping[] = "DAEMON_STOPPING";

}  // namespace twinroot::reason

#endif  // TWINROOT_DAEMON_REASONS_H_

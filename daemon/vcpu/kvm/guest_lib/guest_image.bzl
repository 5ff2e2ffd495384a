"""Builds a guest image: freestanding C++ to a static x86-64 ELF at 1 MiB.

It is a genrule, not a cc_binary, so that the flags of the configuration (sanitizers, coverage,
stack protector, hardening) never reach a guest: there is no runtime there to serve them.
"""

_LIB = "//daemon/vcpu/kvm/guest_lib:"

_FLAGS = " ".join([
    "-std=c++20 -O2 -Wall -Wextra -ffreestanding -fno-exceptions -fno-rtti -fno-threadsafe-statics",
    "-fno-stack-protector -fno-asynchronous-unwind-tables -fcf-protection=none -fno-pic -fno-pie",
    # An interrupt may use the stack below RSP in ring 0, and SSE is not to be had there everywhere.
    "-mno-red-zone -mgeneral-regs-only",
    "-nostdlib -static -Wl,--build-id=none,-z,noexecstack,-z,max-page-size=4096",
])

def guest_image(name, srcs, hdrs = [], **kwargs):
    """Makes NAME.elf, also known as :NAME, from C++ sources that define GuestMain."""
    native.genrule(
        name = name,
        srcs = srcs + hdrs + [_LIB + "sources", _LIB + "headers", _LIB + "guest.ld"],
        outs = [name + ".elf"],
        cmd = "$(CC) {flags} -iquote . -T $(location {lib}guest.ld) -o $@ $(locations {lib}sources) {srcs}".format(
            flags = _FLAGS,
            lib = _LIB,
            srcs = " ".join(["$(location %s)" % src for src in srcs]),
        ),
        message = "Linking guest",
        toolchains = ["@bazel_tools//tools/cpp:current_cc_toolchain"],
        **kwargs
    )

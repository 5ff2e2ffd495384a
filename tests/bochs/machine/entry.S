// The first byte of the kernel, and the way into the guest and back.
    .code64
    .section .text.start, "ax"
    .globl KernelStart
KernelStart:
    call KernelMain
    xchg %bx, %bx               // Bochs stops here
0:  hlt
    jmp 0b

// bool EnterGuest(Registers* registers [rdi], bool launched [rsi]): enters with the guest's RBX and
// RDX of `registers`; true: it left again, with its RAX there. False: the instruction failed.
    .text
    .globl EnterGuest
EnterGuest:
    push %rbx
    push %rbp
    push %r12
    push %r13
    push %r14
    push %r15
    push %rdi
    mov $0x6C14, %eax           // host RSP
    vmwrite %rsp, %rax
    mov $0x6C16, %eax           // host RIP
    lea exited(%rip), %rcx
    vmwrite %rcx, %rax
    mov 8(%rdi), %rbx
    mov 16(%rdi), %rdx
    xor %eax, %eax
    test %esi, %esi
    jnz 1f
    vmlaunch
    jmp 2f
1:  vmresume
2:  pop %rdi                    // it fell through: it failed
    xor %eax, %eax
    jmp 3f
exited:
    pop %rdi
    mov %rax, (%rdi)
    mov $1, %eax
3:  pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbp
    pop %rbx
    ret

    .section .note.GNU-stack, "", @progbits

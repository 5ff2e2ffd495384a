// Entry of every guest: RDI boot information, RSI vCPU index, RSP this vCPU's own stack. All vCPUs
// enter here. A vCPU whose GuestMain returns has ended.
    .section .text.start, "ax"
    .globl GuestStart
    .type GuestStart, @function
GuestStart:
    xor %ebp, %ebp
    cld
    call GuestMain
0:  out %al, $0xF5
    pause
    jmp 0b
    .size GuestStart, . - GuestStart
    .section .note.GNU-stack, "", @progbits

// What the BIOS loads: one sector at 0x7C00. It loads the kernel behind it, enters long mode with
// all of 512 GiB mapped to itself in pages of 1G, and jumps there.
//
// Below 1 MiB: 0x1000 PML4, 0x2000 PDPT, 0x7C00 this, 0x10000 the kernel (KERNEL_SECTORS of it),
// stack down from 0x80000.
    .set kPml4, 0x1000
    .set kPdpt, 0x2000
    .set kKernel, 0x10000

    .code16
    .section .boot, "ax"
    .globl BootSector
BootSector:
    ljmp $0, $1f
1:  cli
    cld
    xor %ax, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov $0x7C00, %sp
    mov $packet, %si
    mov $0x42, %ah              // extended read; the BIOS left the drive in DL
    int $0x13
    jc failed
    cli
    in $0x92, %al               // A20
    or $2, %al
    out %al, $0x92

    mov $kPml4, %di             // both tables, empty
    xor %eax, %eax
    mov $0x800, %cx
    rep stosl
    movl $kPdpt + 3, kPml4
    mov $kPdpt, %di
    mov $0x83, %eax             // present, writable, 1G
    xor %edx, %edx
    mov $512, %cx
2:  mov %eax, (%di)
    mov %edx, 4(%di)
    add $0x40000000, %eax
    adc $0, %edx
    add $8, %di
    loop 2b

    mov $kPml4, %eax
    mov %eax, %cr3
    mov $0x2020, %eax           // PAE, VMXE
    mov %eax, %cr4
    mov $0xC0000080, %ecx
    rdmsr
    or $0x900, %eax             // LME, NXE
    wrmsr
    lgdt gdt_pointer
    mov $0x80010021, %eax       // PG, WP, NE, PE
    mov %eax, %cr0
    ljmpl $0x08, $long_mode

failed:
    mov $'!', %al
    out %al, $0xE9
    xchg %bx, %bx               // Bochs stops here
3:  hlt
    jmp 3b

    .code64
long_mode:
    mov $0x10, %ax
    mov %ax, %ds
    mov %ax, %es
    mov %ax, %ss
    mov %ax, %fs
    mov %ax, %gs
    mov $0x18, %ax              // VM exits need a task register
    ltr %ax
    mov $0x80000, %rsp
    mov $kKernel, %eax
    jmp *%rax

    .balign 8
packet:
    .byte 16, 0
    .word KERNEL_SECTORS
    .word 0, kKernel >> 4
    .quad 1                     // LBA
gdt:
    .quad 0
    .quad 0x00AF9B000000FFFF    // 0x08 code
    .quad 0x00CF93000000FFFF    // 0x10 data
    .quad 0x0000890005000067    // 0x18 TSS at 0x500, which nothing uses
    .quad 0
gdt_end:
gdt_pointer:
    .word gdt_end - gdt - 1
    .long gdt

    .org 510
    .word 0xAA55

    .section .note.GNU-stack, "", @progbits

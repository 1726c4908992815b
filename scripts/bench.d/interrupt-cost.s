# A guest that measures what an interrupt costs: the serial port, which is emulated in user space, raises one whenever its
# interrupt for an empty transmitter is switched on. The interrupt goes through the kernel's interrupt controller (8259A)
# and is acknowledged there.
#
# It reports "interrupt-cycles", the cycles of COUNT rounds in which the interrupt is delivered and acknowledged, and
# "masked-cycles", the same rounds with interrupts off, which read the port's identification register instead of the handler.

        .include "pvh.s"
        .set COUNT, 5000
        .set INTERRUPT_ENABLE, SERIAL + 1
        .set IDENTIFICATION, SERIAL + 2
        .set MODEM_CONTROL, SERIAL + 4
        .set ON_EMPTY, 2
        .set MASTER, 0x20
        .set SLAVE, 0xa0
        .set VECTORS, 0x20
        .set LINE, 4
        .set END_OF_INTERRUPT, 0x20
        .set CODE, 8

start:
        cli
        mov     $stack_end, %esp
        lgdt    gdt_register
        ljmp    $CODE, $0f
0:      mov     $16, %eax
        mov     %eax, %ds
        mov     %eax, %es
        mov     %eax, %ss
        call    set_up_controller
        call    set_up_vector
        mov     $MODEM_CONTROL, %edx    # OUT2 connects the port to its line
        mov     $8, %al
        out     %al, %dx
        sti
        call    measure                 # once for whatever happens only the first time
        call    measure
        cli
        mov     $interrupts, %esi
        call    report
        call    measure_masked
        mov     $masked, %esi
        call    report
0:      hlt
        jmp     0b

# Each round switches the interrupt off and on, and waits until the handler has counted it in edi.
measure:
        call    begin
        mov     $COUNT, %ecx
0:      mov     %edi, %esi
        call    switch_on
1:      cmp     %edi, %esi
        je      1b
        dec     %ecx
        jnz     0b
        jmp     end

measure_masked:
        call    begin
        mov     $COUNT, %ecx
0:      call    switch_on
        mov     $IDENTIFICATION, %edx
        in      %dx, %al
        dec     %ecx
        jnz     0b
        jmp     end

switch_on:
        mov     $INTERRUPT_ENABLE, %edx
        xor     %eax, %eax
        out     %al, %dx
        mov     $ON_EMPTY, %al
        out     %al, %dx
        ret

handler:
        push    %eax
        push    %edx
        mov     $IDENTIFICATION, %edx   # reading it takes the interrupt back
        in      %dx, %al
        mov     $END_OF_INTERRUPT, %al
        out     %al, $MASTER
        inc     %edi
        pop     %edx
        pop     %eax
        iret

# Vectors from VECTORS, and everything masked but the line of the serial port.
set_up_controller:
        mov     $0x11, %al
        out     %al, $MASTER
        out     %al, $SLAVE
        mov     $VECTORS, %al
        out     %al, $MASTER + 1
        mov     $VECTORS + 8, %al
        out     %al, $SLAVE + 1
        mov     $4, %al
        out     %al, $MASTER + 1
        mov     $2, %al
        out     %al, $SLAVE + 1
        mov     $1, %al
        out     %al, $MASTER + 1
        out     %al, $SLAVE + 1
        mov     $0xff ^ (1 << LINE), %al
        out     %al, $MASTER + 1
        mov     $0xff, %al
        out     %al, $SLAVE + 1
        ret

# An interrupt gate for the one vector that comes.
set_up_vector:
        mov     $handler, %eax
        mov     %ax, idt + 8 * (VECTORS + LINE)
        shr     $16, %eax
        mov     %ax, idt + 8 * (VECTORS + LINE) + 6
        movw    $CODE, idt + 8 * (VECTORS + LINE) + 2
        movw    $0x8e00, idt + 8 * (VECTORS + LINE) + 4
        lidt    idt_register
        ret

interrupts: .asciz "interrupt-cycles="
masked:     .asciz "masked-cycles="

        .balign 8
gdt:    .quad   0
        .quad   0x00cf9b000000ffff
        .quad   0x00cf93000000ffff
gdt_register:
        .word   . - gdt - 1
        .long   gdt
idt_register:
        .word   8 * (VECTORS + LINE + 1) - 1
        .long   idt

        .bss
        .balign 8
idt:    .skip   8 * (VECTORS + LINE + 1)
